//! Report: what was done, and what is not as it should be, for people: events, counts, the audit log, the status.

use kube::{Resource, ResourceExt};

use super::{
    context::{Context, KIND},
    memory::Memory,
    reason::Reason,
    status::View,
};
use crate::{
    api::{SecretRotation, secret_rotation::SecretRotationStatus},
    cluster::{
        apply::WriteError,
        conditions::{self, READY, RECONCILING, STALLED},
        events::Note,
        owner::described,
        run::Guarded,
    },
};

/// The Secret holds something else now: the event, the count, the audit line.
pub fn announce_change(context: &Context, rotation: &SecretRotation, memory: &Memory, reason: Reason) {
    let rotated =
        memory.reason.as_deref().is_some_and(|reason| reason == Reason::Requested.as_str() || reason == Reason::RotationDue.as_str());
    let word = memory.reason.clone().unwrap_or_default();
    let reason = Reason::ALL.iter().find(|known| known.as_str() == word).copied().unwrap_or(reason);
    context.metrics.rotated(KIND, reason.as_str());
    context.audit.done(if rotated { "rotate" } else { "sync" }, &described(rotation), reason.as_str(), Some(memory.revision));
    tracing::info!(object = rotation.name_any(), namespace = rotation.namespace(), %reason, revision = memory.revision, "stored");
    let text = format!("revision {} of Secret {} was written", memory.revision, rotation.spec.target.name);
    let action = if rotated { "Rotate" } else { "Sync" };
    context.events.send(rotation, &Note { warning: false, reason: reason.as_str(), action, text: &text });
}

/// Writes the status if it changed, and tells what is new about it.
pub async fn report(
    context: &Context,
    object: &Guarded<SecretRotation>,
    (before, after): (&SecretRotationStatus, &SecretRotationStatus),
    view: &View,
) -> Result<(), WriteError> {
    let news = |kind| conditions::is_news(&before.conditions, &after.conditions, kind);
    let said = view.problem.as_ref().map(|problem| (problem.reason, problem.message.clone(), "Sync"));
    let said = said.or_else(|| view.undelivered().map(|(reason, why)| (reason, why, "Restart")));
    // A rollout that has failed is told once; that it goes on with those who had moved is no other news.
    let is_news = news(STALLED) || view.problem.is_some() && (news(READY) || news(RECONCILING));
    if let Some((reason, why, action)) = said.filter(|_| is_news) {
        let reason = reason.as_str();
        if view.problem.is_none() {
            context.metrics.failed(KIND, reason); // a problem is counted whenever it is met
        }
        tracing::warn!(object = object.name_any(), namespace = object.namespace(), reason, message = why, "not done");
        let because = view.plan.map_or(reason, |plan| plan.reason.as_str());
        let verb = if action == "Sync" { "sync" } else { "restart" };
        if let Ok(rotation) = &object.0 {
            context.audit.failed(verb, &described(rotation), because, reason);
        }
        context.events.send(object, &Note { warning: true, reason, action, text: &why });
    }
    if before == after {
        return Ok(());
    }
    context.writer.replace_status::<SecretRotation>(object.meta(), after).await
}
