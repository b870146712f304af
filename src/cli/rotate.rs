//! `seaworthy rotate KIND/NAME`: asks for a rotation now, by the same annotation that anybody may set.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
    runtime::wait::await_condition,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Failure, client, print, say};
use crate::{
    api::{CertificateRotation, ROTATE_ANNOTATION, SecretRotation, secret_rotation::RefreshPolicy, status::LastFailure},
    cluster::conditions::{READY, STALLED, is_true},
};

/// Ask for a rotation now, whatever the schedule and the window say.
///
/// Sets the annotation seaworthy.dev/rotate to the present time; the operator does the rest.
/// Values that were replaced and are still kept (spec.rotation.previous) are not thrown away for
/// it: new ones wait until those are over. Of a SecretRotation that generates nothing, what was
/// taken back (RolledBack) is tried again.
///
/// Examples:
///
///   seaworthy rotate certificaterotation/api -n shop --wait
///   seaworthy rotate secretrotation/jwt -n shop --wait
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// What to rotate: certificaterotation/NAME (certrot/NAME for short) or secretrotation/NAME (secrot/NAME).
    resource: String,
    /// Its namespace. Default: the kubeconfig's.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Return only when it is stored and, with spec.restart or spec.verify, who uses it has it; exit code 1 if that cannot be within --timeout, at once if
    /// the values before are kept for longer.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "15m", requires = "wait")]
    timeout: crate::api::Duration,
}

/// What can be rotated.
trait Rotates: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {
    /// Why nothing would happen.
    fn rests(&self) -> Option<&'static str>;

    /// Until when new values wait at least, because they would take the place of those before.
    fn waits_until(&self) -> Option<jiff::Timestamp> {
        None
    }

    /// What its status says.
    fn progress(&self) -> Progress;
}

#[derive(Default)]
struct Progress {
    observed: Option<i64>,
    conditions: Vec<Condition>,
    /// The last rotation.
    id: Option<String>,
    completed: bool,
    /// For people: what there is now.
    now: String,
    failure: Option<LastFailure>,
}

impl Rotates for CertificateRotation {
    fn rests(&self) -> Option<&'static str> {
        self.spec.suspend.then_some("is suspended (spec.suspend: true)")
    }

    fn progress(&self) -> Progress {
        let Some(status) = self.status.clone() else { return Progress::default() };
        let until = status.not_after.map(|time| time.0.to_string()).unwrap_or_default();
        Progress {
            observed: status.observed_generation,
            conditions: status.conditions,
            id: status.last_rotation.as_ref().map(|last| last.id.clone()),
            completed: status.last_rotation.is_some_and(|last| last.completed_at.is_some()),
            now: format!("revision {}, valid until {until}", status.revision.unwrap_or(0)),
            failure: status.last_failure,
        }
    }
}

impl Rotates for SecretRotation {
    fn rests(&self) -> Option<&'static str> {
        let is_once = self.spec.refresh_policy == RefreshPolicy::CreatedOnce;
        match (&self.spec.rotation, self.spec.suspend) {
            (_, true) => Some("is suspended (spec.suspend: true)"),
            (None, false) if !is_once && self.progress().conditions.iter().any(|condition| TAKEN_BACK.contains(&&*condition.reason)) => {
                None
            }
            (None, false) if is_once => {
                Some("generates nothing (spec.rotation), and its store is read once (spec.refreshPolicy: CreatedOnce)")
            }
            (None, false) => Some("generates nothing (spec.rotation); to read its store now, set the annotation seaworthy.dev/refresh"),
            (Some(_), false) => None,
        }
    }

    fn waits_until(&self) -> Option<jiff::Timestamp> {
        self.spec.rotation.as_ref()?.previous.as_ref()?;
        self.status.as_ref()?.previous_kept_until.as_ref().map(|time| time.0)
    }

    fn progress(&self) -> Progress {
        let Some(status) = self.status.clone() else { return Progress::default() };
        let next = status.next_rotation_time.map(|time| format!(", next rotation at {}", time.0)).unwrap_or_default();
        Progress {
            observed: status.observed_generation,
            conditions: status.conditions,
            id: status.last_rotation.as_ref().map(|last| last.id.clone()),
            completed: status.last_rotation.is_some_and(|last| last.completed_at.is_some()),
            now: format!("revision {}{next}", status.revision.unwrap_or(0)),
            failure: status.last_failure,
        }
    }
}

/// What a SecretRotation says whose values may have been taken back.
const TAKEN_BACK: &[&str] = &["RolledBack", "RestartFailed", "Modified"];

/// The names of the kinds, as kubectl accepts them.
const CERTIFICATES: &[&str] = &["certificaterotation", "certificaterotations", "certrot", "certificaterotations.seaworthy.dev"];
const SECRETS: &[&str] = &["secretrotation", "secretrotations", "secrot", "secretrotations.seaworthy.dev"];

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let resource = arguments.resource.clone();
    let (kind, name) = resource
        .split_once('/')
        .filter(|(_, name)| !name.is_empty())
        .ok_or_else(|| Failure::Usage(format!("{resource:?}: write certificaterotation/NAME or secretrotation/NAME")))?;
    match kind.to_ascii_lowercase() {
        kind if CERTIFICATES.contains(&kind.as_str()) => rotate::<CertificateRotation>(arguments, name).await,
        kind if SECRETS.contains(&kind.as_str()) => rotate::<SecretRotation>(arguments, name).await,
        _ => Err(Failure::Usage(format!("{resource:?}: only certificaterotation/NAME and secretrotation/NAME can be rotated"))),
    }
}

async fn rotate<K: Rotates>(arguments: Arguments, name: &str) -> Result<(), Failure> {
    let (client, default) = client().await?;
    let namespace = arguments.namespace.unwrap_or(default);
    let api: Api<K> = Api::namespaced(client, &namespace);
    let described = format!("{}/{name} in namespace {namespace}", K::kind(&()).to_lowercase());
    let Some(before) = api.get_opt(name).await? else { return Err(Failure::Usage(format!("{described} is not there"))) };
    if let Some(why) = before.rests() {
        return Err(Failure::Usage(format!("{described} {why}; nothing would happen")));
    }
    let patch = json!({"metadata": {"annotations": {ROTATE_ANNOTATION: jiff::Timestamp::now().to_string()}}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    let waits = before.waits_until();
    if let Some(time) = waits {
        let until = if time > jiff::Timestamp::now() { format!("until {time}, and ") } else { String::new() };
        let why = "new ones would take their place, and are made then (or at once, if you take spec.rotation.previous away)";
        say(&format!("{described}: the previous values are kept {until}until no Pod runs them any more; {why}"));
    }
    if !arguments.wait {
        print(&format!("{described}: rotation requested"));
        return Ok(());
    }
    if waits.is_some_and(|time| time.duration_since(jiff::Timestamp::now()) > arguments.timeout.signed()) {
        let until = waits.map(|time| format!(" before {time}")).unwrap_or_default();
        say(&format!("{described} cannot be rotated{until}; the request stays, and is followed then"));
        return Err(Failure::Wrong);
    }
    say(&format!("waiting for {described}, at most {}", arguments.timeout));
    let most = Duration::try_from(arguments.timeout.signed()).unwrap_or(Duration::from_mins(15));
    let old = before.progress().id;
    let over = |object: Option<&K>| object.is_none_or(|object| is_over(object, old.as_deref()));
    match tokio::time::timeout(most, await_condition(api.clone(), name, over)).await {
        Ok(Ok(Some(after))) => match conclusion(&described, &after, old.as_deref()) {
            Ok(done) => {
                print(&done);
                Ok(())
            }
            Err(why) => {
                say(&why);
                Err(Failure::Wrong)
            }
        },
        Ok(Ok(None)) => {
            say(&format!("{described} was deleted"));
            Err(Failure::Wrong)
        }
        Ok(Err(error)) => Err(Failure::Unreachable(format!("{described} could not be watched: {error}"))),
        Err(_) => {
            let Progress { failure, conditions, .. } = api.get(name).await.map(|object| object.progress()).unwrap_or_default();
            let failure = failure.map(|failure| format!("{}: {}", failure.reason, failure.message));
            let ready = conditions.into_iter().find(|condition| condition.type_ == READY && waits.is_some());
            let why = failure.or(ready.map(|ready| ready.message));
            let why = why.unwrap_or_else(|| "the operator has said nothing; is it running?".to_owned());
            say(&format!("{described} was not rotated within {}; {why}", arguments.timeout));
            Err(Failure::Wrong)
        }
    }
}

/// It is done, with everybody who has to have it, or only a person can go on.
fn is_over<K: Rotates>(object: &K, old: Option<&str>) -> bool {
    let progress = object.progress();
    let begun = progress.id.is_some() && progress.id.as_deref() != old;
    let stalled = progress.conditions.iter().find(|condition| condition.type_ == STALLED);
    let stalled = stalled.filter(|_| progress.observed == object.meta().generation);
    // What became of the rotation before, and what new values put right, is no answer.
    let of_before = ["RestartFailed", "RolledBack", "NotServed", "Modified", "ValueInvalid"];
    // So it is of a previous value that somebody else keeps.
    let is_kept = |condition: &Condition| condition.reason == "NotOurs" && object.waits_until().is_some();
    match stalled {
        Some(condition) => begun || !of_before.contains(&condition.reason.as_str()) && !is_kept(condition),
        None => begun && progress.completed,
    }
}

/// What there is now; Err: why it is not what was asked for.
fn conclusion<K: Rotates>(described: &str, after: &K, old: Option<&str>) -> Result<String, String> {
    let progress = after.progress();
    let message = |kind: &str| {
        let found = progress.conditions.iter().find(|condition| condition.type_ == kind);
        found.map(|condition| format!("{}: {}", condition.reason, condition.message))
    };
    if progress.id.as_deref() != old && is_true(&progress.conditions, READY) && !is_true(&progress.conditions, STALLED) {
        return Ok(format!("{described}: {}", progress.now));
    }
    let why = message(STALLED).or_else(|| message(READY)).unwrap_or_else(|| after.name_any());
    let stays = if progress.id.as_deref() == old { "; the request stays, and is followed when that is mended" } else { "" };
    Err(format!("{described} cannot be rotated: {why}{stays}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_a_request_is_told_and_whether_it_is_still_to_be_followed() {
        let object = |id: &str, stalled: Option<&str>| -> SecretRotation {
            let now = "2026-01-01T00:00:00Z";
            let condition = |kind: &str, reason: &str| json!({"type": kind, "status": "True", "reason": reason, "message": "m", "lastTransitionTime": now});
            let conditions: Vec<_> =
                [condition("Ready", "Current")].into_iter().chain(stalled.map(|reason| condition("Stalled", reason))).collect();
            let last = json!({"id": id, "reason": "Requested", "startedAt": now});
            let status = json!({"conditions": conditions, "revision": 2, "lastRotation": last});
            serde_json::from_value(json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretRotation", "metadata": {"name": "jwt"},
                "spec": {"target": {"name": "jwt"}, "rotation": {"generate": [{"secretKey": "key", "hex": {}}]}}, "status": status}))
            .unwrap()
        };
        for (id, stalled, wanted) in [
            ("new", None, Ok("jwt: revision 2")),
            ("new", Some("RolledBack"), Err("jwt cannot be rotated: RolledBack: m")),
            ("old", Some("NotOurs"), Err("jwt cannot be rotated: NotOurs: m; the request stays, and is followed when that is mended")),
        ] {
            let said = conclusion("jwt", &object(id, stalled), Some("old"));
            assert_eq!(said, wanted.map(ToOwned::to_owned).map_err(ToOwned::to_owned));
        }
    }

    #[test]
    fn what_was_so_before_is_no_answer() {
        let object = |rotation: serde_json::Value, reason: &str| -> SecretRotation {
            let now = "2026-01-01T00:00:00Z";
            let condition = json!({"type": "Stalled", "status": "True", "reason": reason, "message": "m", "lastTransitionTime": now});
            let status = json!({"conditions": [condition], "previousKeptUntil": now});
            serde_json::from_value(json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretRotation", "metadata": {"name": "jwt"},
                "spec": {"target": {"name": "jwt"}, "rotation": rotation}, "status": status}))
            .unwrap()
        };
        let generate = json!([{"secretKey": "key", "hex": {}}]);
        let kept = json!({"generate": generate, "previous": {"keepFor": "1h"}});
        for (rotation, reason, over) in [
            (&json!({"generate": generate}), "NotOurs", true),
            (&kept, "NotOurs", false),
            (&kept, "RolledBack", false),
            (&kept, "StoreDenied", true),
        ] {
            assert_eq!(is_over(&object(rotation.clone(), reason), None), over, "{rotation} {reason}");
        }
        assert!(object(serde_json::Value::Null, "RolledBack").rests().is_none(), "what was taken back is tried again");
        assert!(object(serde_json::Value::Null, "NotOurs").rests().is_some());
        let mut once = object(serde_json::Value::Null, "RolledBack");
        once.spec.refresh_policy = RefreshPolicy::CreatedOnce;
        assert!(once.rests().is_some_and(|why| why.contains("CreatedOnce")));
    }
}
