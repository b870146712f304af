//! Who is restarted when a value has changed.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::Duration;

/// Who has to pick a new value up, and in which order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.discover || size(self.workloads) > 0").message("say discover: true, or name workloads"),
    validation = Rule::new("duration(self.timeout) >= duration('1s') && duration(self.timeout) <= duration('24h')").message("timeout must lie between 1s and 24h")
)]
pub struct Restart {
    /// Every Deployment, StatefulSet and DaemonSet of the namespace that uses the Secret, by name, after those under `workloads`. Default false.
    #[serde(default)]
    pub discover: bool,
    /// These, in this order.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub workloads: Vec<WorkloadRef>,
    /// In which order. Default RollingInOrder.
    #[serde(default)]
    pub strategy: Strategy,
    /// How long each workload may take until it is healthy again, at most 24h. Default 10m.
    #[serde(default = "ten_minutes")]
    pub timeout: Duration,
    /// What becomes of the new value when a workload does not become healthy with it. Default Rollback.
    #[serde(default)]
    pub on_failure: OnFailure,
}

fn ten_minutes() -> Duration {
    Duration::minutes(10)
}

/// A workload of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct WorkloadRef {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The kinds that can be restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum WorkloadKind {
    /// apps/v1 Deployment
    Deployment,
    /// apps/v1 StatefulSet
    StatefulSet,
    /// apps/v1 DaemonSet
    DaemonSet,
}

impl WorkloadKind {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }
}

/// In which order workloads are restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Strategy {
    /// One after the other, each healthy before the next; the first that does not become healthy ends it.
    #[default]
    RollingInOrder,
    /// As many at a time as the budget allows.
    AllAtOnce,
}

/// What becomes of a value that a workload cannot live with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum OnFailure {
    /// The previous value is put back, and who had moved is restarted with it.
    #[default]
    Rollback,
    /// It stays, and nobody else is restarted.
    Pause,
}
