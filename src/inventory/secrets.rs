//! Secrets, by their metadata: that they are there and in which version. Never a value, never an annotation of somebody else.

use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;

use super::facts::Fact;
use crate::cluster::owner::MERGED;

/// What is kept of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFact {
    /// Changes with every write.
    pub resource_version: Box<str>,
    /// Which resources of ours keep keys in it although it is somebody else's, as [`MERGED`] says; almost always none.
    pub merged: Option<Box<[Box<str>]>>,
}

impl Fact for SecretFact {}

impl SecretFact {
    /// Of `object`.
    pub fn of(object: &PartialObjectMeta<Secret>) -> Self {
        let notes = object.metadata.annotations.iter().flatten().filter_map(|(key, _)| key.strip_prefix(MERGED));
        let merged: Box<[Box<str>]> = notes.map(Into::into).collect();
        Self {
            resource_version: object.metadata.resource_version.as_deref().unwrap_or_default().into(),
            merged: (!merged.is_empty()).then_some(merged),
        }
    }
}
