//! Secrets, by their metadata: that they are there and in which version. Never a value, never an annotation of somebody else.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;

use super::facts::Fact;
use crate::{
    cluster::owner::{MERGED, OWNER, PREVIOUS_SINCE},
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
    /// Since when previous values are among it.
    pub previous_since: Option<Timestamp>,
}

impl Fact for SecretFact {}

impl SecretFact {
    /// Of `object`.
    pub fn of(object: &PartialObjectMeta<Secret>) -> Self {
        let annotations = object.metadata.annotations.iter().flatten();
        let mut kept: Vec<Kept> = annotations.filter_map(|(key, note)| Some(merged(key.strip_prefix(MERGED)?, note))).collect();
        let get = |key: &str| object.metadata.annotations.as_ref()?.get(key);
        if let (Some(owner), Some(since)) = (get(OWNER), get(PREVIOUS_SINCE)) {
            kept.push(Kept { whose: ids::short(owner.as_bytes()).into(), is_merged: false, previous_since: since.parse().ok() });
        }
        Self {
            resource_version: object.metadata.resource_version.as_deref().unwrap_or_default().into(),
            kept: (!kept.is_empty()).then(|| kept.into()),
        }
    }
}

fn merged(whose: &str, note: &str) -> Kept {
    let note: BTreeMap<String, String> = serde_json::from_str(note).unwrap_or_default();
    Kept { whose: whose.into(), is_merged: true, previous_since: note.get(PREVIOUS_SINCE).and_then(|since| since.parse().ok()) }
}
