//! What is true of all SecretRotations and SecretStores together: for the gauges. Pure.

use jiff::{SignedDuration, Timestamp};

use super::reason::Reason;
use crate::{
    api::{SecretRotation, SecretStore},
    cluster::conditions::{READY, STALLED, is_true},
    telemetry::metrics::Secrets,
};

/// What is late by less is not yet overdue: it is being done, or tried again.
pub const GRACE: SignedDuration = SignedDuration::from_hours(1);

/// Adds one; None: it cannot be read.
pub fn rotation(counts: &mut Secrets, rotation: Option<&SecretRotation>, now: Timestamp) {
    let status = rotation.and_then(|rotation| rotation.status.as_ref());
    if status.is_some_and(|status| is_true(&status.conditions, READY)) {
        counts.ready += 1;
    } else {
        counts.not_ready += 1;
    }
    let Some((rotation, status)) = rotation.zip(status) else { return };
    if let Some(consumers) = &status.consumers {
        counts.consumers.add(consumers.current, consumers.total);
    }
    if rotation.spec.suspend {
        return;
    }
    let late = |time: Timestamp| time.checked_add(GRACE).is_ok_and(|time| time < now);
    let due = status.next_rotation_time.as_ref().is_some_and(|time| late(time.0));
    let rolled_back =
        status.conditions.iter().any(|condition| condition.type_ == STALLED && condition.reason == Reason::RolledBack.as_str());
    counts.rotations_overdue += i64::from(due || rolled_back);
}

/// Adds one; None: it cannot be read.
pub fn store(counts: &mut Secrets, store: Option<&SecretStore>) {
    let ready = store.and_then(|store| store.status.as_ref()).is_some_and(|status| is_true(&status.conditions, READY));
    if ready {
        counts.stores_ready += 1;
    } else {
        counts.stores_not_ready += 1;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_is_counted() {
        let now: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
        let rows = [
            ("all is well", "True", "2026-03-01T00:00:00Z", "Current", (1, 0, 0)),
            ("due for two hours", "True", "2026-01-31T22:00:00Z", "Current", (1, 0, 1)),
            ("due just now", "False", "2026-01-31T23:30:00Z", "Current", (0, 1, 0)),
            ("rolled back", "True", "2026-03-01T00:00:00Z", "RolledBack", (1, 0, 1)),
        ];
        for (what, ready, next, stalled, wanted) in rows {
            let condition = |kind: &str, status: &str, reason: &str| serde_json::json!({"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": next});
            let object = serde_json::from_value(serde_json::json!({
                "apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretRotation", "metadata": {"name": "x"},
                "spec": {"target": {"name": "x"}, "rotation": {"generate": [{"secretKey": "a", "hex": {}}]}},
                "status": {"conditions": [condition("Ready", ready, "Current"), condition("Stalled", "True", stalled)], "nextRotationTime": next},
            }))
            .unwrap();
            let mut counts = Secrets::default();
            rotation(&mut counts, Some(&object), now);
            assert_eq!((counts.ready, counts.not_ready, counts.rotations_overdue), wanted, "{what}");
        }
    }
}
