//! Parts of statuses that several kinds have.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Pods that use a Secret, and whether they are younger than its value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Consumers {
    /// `CURRENT/TOTAL`.
    pub summary: String,
    /// How many use it.
    pub total: i64,
    /// How many have the value that is there now.
    pub current: i64,
    /// The names of those that may still run the one before, at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<String>,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// When the attempt failed.
    pub time: Time,
    /// The same word as in the condition.
    pub reason: String,
    /// What was tried, on which object, and what to do about it.
    pub message: String,
}
