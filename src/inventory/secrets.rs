//! Secrets, by their metadata: that they are there and in which version. Never a value, never an annotation of somebody else.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::facts::Fact;
use crate::{
    cluster::{
        conditions::bounded,
        owner::{MERGED, OWNER, PREVIOUS_SINCE, PREVIOUS_UNTIL, VERSIONS_OVER},
    },
    ids,
};

/// What is kept of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFact {
    /// Changes with every write.
    pub resource_version: Box<str>,
    /// What resources of ours keep in it for a time, or for as long as they are there; almost always nothing.
    pub kept: Option<Box<[Kept]>>,
}

/// What a resource of ours keeps in a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// A hash of the resource ([`ids::short`] of what stands in [`OWNER`]).
    pub whose: Box<str>,
    /// The Secret is somebody else's, as [`MERGED`] says.
    pub is_merged: bool,
    /// In that case: somebody has written to it with a field manager that has this hash at its end.
    pub is_written: bool,
    /// Since when previous values are among it.
    pub previous_since: Option<Timestamp>,
    /// Until when at most, by the spec with which it was written.
    pub previous_until: Option<Timestamp>,
    /// Whether versions in a store are noted with it whose time is over.
    pub has_versions: bool,
}

impl Fact for SecretFact {}

impl SecretFact {
    /// Of the Secret with that metadata.
    pub fn of(meta: &ObjectMeta) -> Self {
        let annotations = meta.annotations.as_ref();
        // Who may write annotations can say anything; who has written is told by the API server.
        let is_written = |whose: &str| {
            let mut managers = meta.managed_fields.iter().flatten().filter_map(|entry| entry.manager.as_deref());
            managers.any(|manager| manager.rsplit_once('-').is_some_and(|(_, hash)| hash == whose))
        };
        let notes = annotations.into_iter().flatten().filter_map(|(key, note)| Some((key.strip_prefix(MERGED)?, note)));
        let mut kept: Vec<Kept> = notes
            .map(|(whose, note)| {
                let note: BTreeMap<String, String> = serde_json::from_str(note).unwrap_or_default();
                Kept { is_merged: true, is_written: is_written(whose), ..Kept::of(whose, |key| note.get(key)) }
            })
            .collect();
        let get = |key: &str| annotations.and_then(|annotations| annotations.get(key));
        let own = get(OWNER).map(|owner| Kept::of(&ids::short(owner.as_bytes()), get));
        kept.extend(own.filter(|own| own.previous_since.is_some() || own.has_versions));
        Self {
            resource_version: meta.resource_version.as_deref().unwrap_or_default().into(),
            kept: (!kept.is_empty()).then(|| kept.into()),
        }
    }
}

impl Kept {
    fn of<'a>(whose: &str, get: impl Fn(&str) -> Option<&'a String>) -> Self {
        let time = |key: &str| get(key).and_then(|text| text.parse().ok()).and_then(bounded);
        Self {
            whose: whose.into(),
            is_merged: false,
            is_written: true,
            previous_since: time(PREVIOUS_SINCE),
            previous_until: time(PREVIOUS_UNTIL),
            has_versions: get(VERSIONS_OVER).is_some(),
        }
    }
}
