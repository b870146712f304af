//! SecretStore: a store for many namespaces.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::secrets::stores::StoreSpec;

/// A store that SecretRotations of the namespaces that it allows may name in `storeRef`.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "seaworthy.dev",
    version = "v1alpha1",
    kind = "SecretStore",
    status = "SecretStoreStatus",
    derive = "PartialEq",
    shortname = "secstore",
    category = "seaworthy",
    doc = "A store for the namespaces that it allows. Secrets that it names lie in the operator's namespace.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Kind", type_ = "string", json_path = ".status.kind"),
    printcolumn(name = "Resources", type_ = "integer", json_path = ".status.resources"),
    printcolumn(name = "Last check", type_ = "string", json_path = ".status.lastCheckTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.kubernetes) || has(self.kubernetes.namespace)").message("say which namespace's Secrets are given out: kubernetes.namespace")
)]
pub struct SecretStoreSpec {
    /// The namespaces that may use it, by their labels. Absent: none. `{}`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<LabelSelector>,
    /// Where the values live: exactly one.
    #[serde(flatten)]
    pub store: StoreSpec,
}

/// What is so, as the operator saw it last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretStoreStatus {
    /// The generation of the spec that this status is about; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: it lets us in. Stalled: a person is needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Which kind of store it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// How many SecretRotations name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<i64>,
    /// When it was last asked to let us in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_check_time: Option<Time>,
    /// When its own credential was made, where the operator replaces that (`rotateSecretId`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_credential_rotation_time: Option<Time>,
}
