//! Namespaces, by their labels: what `allowedNamespaces` selects.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;

use super::facts::Fact;

/// The labels of a Namespace.
pub type NamespaceLabels = BTreeMap<String, String>;

impl Fact for NamespaceLabels {}

/// Of `object`.
pub fn labels(object: &PartialObjectMeta<Namespace>) -> NamespaceLabels {
    object.metadata.labels.clone().unwrap_or_default()
}
