//! What is written to a store, as it stands in a SecretRotation.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{SECRET_KEY, secret_rotation::RemoteRef};

/// A key of the target that is written to the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Push {
    /// The key of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_KEY))]
    pub secret_key: String,
    /// Where it goes. A `property` is replaced in the value that is there; `version` has no meaning.
    pub remote_ref: PushRef,
    /// What becomes of a value that is there. Default Replace.
    #[serde(default)]
    pub update_policy: UpdatePolicy,
}

/// Where a value goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
pub struct PushRef {
    /// The name or path that the store knows it by.
    #[schemars(length(min = 1, max = 1024))]
    pub key: String,
    /// A member of a JSON object, or for the store `kubernetes` a key of the Secret; the others stay as they are. Default: the whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub property: Option<String>,
}

impl PushRef {
    /// To read it.
    pub fn remote(&self) -> RemoteRef {
        RemoteRef { key: self.key.clone(), property: self.property.clone(), version: None }
    }
}

/// What becomes of a value that the store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum UpdatePolicy {
    /// It is replaced if it is the one that was written last; one that somebody else has put there is a conflict.
    #[default]
    Replace,
    /// It stays.
    IfNotExists,
}

/// A value that was brought to the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pushed {
    /// The key of the Secret.
    pub secret_key: String,
    /// Where it went.
    pub remote_ref: PushRef,
    /// A keyed hash of the value, which tells another one, and nothing about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The same of values that are on their way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
}
