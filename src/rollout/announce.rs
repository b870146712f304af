//! Each restart is an event, an audit line and a line of the log.

use kube::{Resource, ResourceExt};

use crate::{
    cluster::{
        events::{Events, Note},
        owner::described,
    },
    telemetry::audit::Audit,
};

/// Tells that these workloads are being restarted for the content of `secret`. `reason`: the area's word for it.
pub fn restarts<K: Resource<DynamicType = ()>>(
    (events, audit): (&Events, &Audit),
    resource: &K,
    secret: &str,
    (reason, begun): (&'static str, &[String]),
) {
    for workload in begun {
        tracing::info!(object = resource.name_any(), namespace = resource.namespace(), workload, "restarted");
        audit.done("restart", &described(resource), reason, None);
        let text = format!("{workload} is restarted, as the content of Secret {secret} has changed");
        events.send(resource, &Note { warning: false, reason, action: "Restart", text: &text });
    }
}
