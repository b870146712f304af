//! Secrets, by their metadata: that they are there and in which version. Never a value, never an annotation of somebody else.

use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;

use super::facts::Fact;

/// What is kept of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFact {
    /// Changes with every write.
    pub resource_version: Box<str>,
}

impl Fact for SecretFact {}

impl SecretFact {
    /// Of `object`.
    pub fn of(object: &PartialObjectMeta<Secret>) -> Self {
        Self { resource_version: object.metadata.resource_version.as_deref().unwrap_or_default().into() }
    }
}
