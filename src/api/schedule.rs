//! Times that repeat, as they stand in a resource. Their arithmetic is in [`crate::schedule`].

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::Duration;

/// When work that is not urgent may be done: from each time of `schedule` on, for `duration`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.duration) >= duration('1m') && duration(self.duration) <= duration('168h')").message("window.duration must lie between 1m and 168h"))]
pub struct Window {
    /// When the window opens: a cron expression of five fields (minute, hour, day of month, month, day of week).
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = Rule::new("self.matches('^ *[^ ]+( +[^ ]+){4} *$')").message("write five fields: minute, hour, day of month, month, day of week, such as 0 3 1 */3 *"))]
    pub schedule: String,
    /// How long it stays open, from 1m to 168h.
    pub duration: Duration,
    /// The IANA time zone that the schedule is read in. Default: the resource's `timeZone`, else Etc/UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}
