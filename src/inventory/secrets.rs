//! Secrets, by their metadata: that they are there and in which version. Never a value, never an annotation of somebody else.

use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;

/// What is kept of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFact {
    /// Changes with every write.
    pub resource_version: Box<str>,
}

/// The fact about `object`.
pub fn fact(object: &PartialObjectMeta<Secret>) -> SecretFact {
    SecretFact { resource_version: object.metadata.resource_version.as_deref().unwrap_or_default().into() }
}
