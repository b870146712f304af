//! `seaworthy rotate certificaterotation/NAME`: asks for a rotation now, by the same annotation that anybody may set.

use std::time::Duration;

use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::json;

use super::{Failure, client, print, say};
use crate::{
    api::{CertificateRotation, ROTATE_ANNOTATION},
    cluster::conditions::{READY, STALLED, is_true},
};

/// Ask for a rotation now, whatever the schedule and the window say.
///
/// Sets the annotation seaworthy.dev/rotate to the present time; the operator does the rest. Example:
///
///   seaworthy rotate certificaterotation/api -n shop --wait
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What to rotate: certificaterotation/NAME (certrot/NAME for short).
    resource: String,
    /// Its namespace. Default: the kubeconfig's.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Return only when the new certificate is stored and, with spec.restart or spec.verify, who uses it has it; exit code 1 if that cannot be.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "15m", requires = "wait")]
    timeout: crate::api::Duration,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let name = parse(&arguments.resource)?;
    let (client, default) = client().await?;
    let namespace = arguments.namespace.unwrap_or(default);
    let api: Api<CertificateRotation> = Api::namespaced(client, &namespace);
    let described = format!("certificaterotation/{name} in namespace {namespace}");
    let Some(before) = api.get_opt(name).await? else { return Err(Failure::Usage(format!("{described} is not there"))) };
    if before.spec.suspend {
        return Err(Failure::Usage(format!("{described} is suspended (spec.suspend: true); nothing would happen")));
    }
    let patch = json!({"metadata": {"annotations": {ROTATE_ANNOTATION: jiff::Timestamp::now().to_string()}}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    if !arguments.wait {
        print(&format!("{described}: rotation requested"));
        return Ok(());
    }
    say(&format!("waiting for {described}, at most {}", arguments.timeout));
    let most = Duration::try_from(arguments.timeout.signed()).unwrap_or(Duration::from_mins(15));
    let old = before.status.as_ref().and_then(|status| status.last_rotation.as_ref()).map(|last| last.id.clone());
    match tokio::time::timeout(
        most,
        await_condition(api.clone(), name, |object: Option<&CertificateRotation>| {
            object.is_none_or(|object| is_over(object, old.as_deref()))
        }),
    )
    .await
    {
        Ok(Ok(Some(after))) => conclude(&described, &after, old.as_deref()),
        Ok(Ok(None)) => {
            say(&format!("{described} was deleted"));
            Err(Failure::Wrong)
        }
        Ok(Err(error)) => Err(Failure::Unreachable(format!("{described} could not be watched: {error}"))),
        Err(_) => {
            let failure = api.get(name).await.ok().and_then(|object| object.status).and_then(|status| status.last_failure);
            let why = failure.map_or_else(
                || "the operator has said nothing; is it running?".to_owned(),
                |failure| format!("{}: {}", failure.reason, failure.message),
            );
            say(&format!("{described} was not rotated within {}; {why}", arguments.timeout));
            Err(Failure::Wrong)
        }
    }
}

/// Accepts the kind in the forms that kubectl accepts.
fn parse(resource: &str) -> Result<&str, Failure> {
    let (kind, name) = resource.split_once('/').ok_or_else(|| Failure::Usage(format!("{resource:?}: write certificaterotation/NAME")))?;
    let kinds = ["certificaterotation", "certificaterotations", "certrot", "certificaterotations.seaworthy.dev"];
    if !kinds.contains(&kind.to_ascii_lowercase().as_str()) || name.is_empty() {
        return Err(Failure::Usage(format!("{resource:?}: only certificaterotation/NAME can be rotated")));
    }
    Ok(name)
}

fn rotation_of(object: &CertificateRotation) -> Option<&str> {
    object.status.as_ref()?.last_rotation.as_ref().map(|last| last.id.as_str())
}

/// It is done, with everybody who has to have it, or only a person can go on.
fn is_over(object: &CertificateRotation, old: Option<&str>) -> bool {
    let Some(status) = &object.status else { return false };
    let begun = rotation_of(object).is_some() && rotation_of(object) != old;
    let stalled = status.conditions.iter().find(|condition| condition.type_ == STALLED);
    let stalled = stalled.filter(|_| status.observed_generation == object.metadata.generation);
    // What became of the rotation before is no answer.
    let of_before = ["RestartFailed", "RolledBack", "NotServed"];
    match stalled {
        Some(condition) => begun || !of_before.contains(&condition.reason.as_str()),
        None => begun && status.last_rotation.as_ref().is_some_and(|last| last.completed_at.is_some()),
    }
}

fn conclude(described: &str, after: &CertificateRotation, old: Option<&str>) -> Result<(), Failure> {
    let status = after.status.clone().unwrap_or_default();
    let message = |kind: &str| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind)
            .map(|condition| format!("{}: {}", condition.reason, condition.message))
    };
    if rotation_of(after) != old && is_true(&status.conditions, READY) && !is_true(&status.conditions, STALLED) {
        print(&format!(
            "{described}: revision {}, valid until {}",
            status.revision.unwrap_or(0),
            status.not_after.map(|time| time.0.to_string()).unwrap_or_default()
        ));
        return Ok(());
    }
    say(&format!("{described} cannot be rotated: {}", message(STALLED).or_else(|| message(READY)).unwrap_or_else(|| after.name_any())));
    Err(Failure::Wrong)
}
