//! The values are in their Secret: they are brought to who uses it, and put back if consumers cannot live with them.
//!
//! ```text
//!   restart (each in its turn) ─┬─► complete
//!                               └─► roll-back ─► restart (who had moved)
//! ```
//!
//! How far it is stands with the values ([`Stage`]) and on the workloads, so that whoever looks next goes on.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{
    context::{Context, Look, annotation, is_current},
    decide::{TargetState, Times},
    memory::{Memory, Superseded},
    reading::read::Source,
    reason::Reason,
    status::{Halt, View},
    store::SecretData,
    writing::{
        managed_secret::{self, SecretSlot},
        previous_over,
        push::{self, Generated, replaceable},
        rejected::{self, consumed},
    },
};
use crate::{
    api::{ROTATE_ANNOTATION, SecretRotation, restart::OnFailure},
    cluster::owner::described,
    rollout::{
        announce,
        change::Changed,
        roll::Value,
        stage::{Base, Keep, Previous, Stage, keep, obstacle},
    },
};

/// The steps after those of a rotation, in their order: what fault tests go through.
pub const STEPS: &[&str] = &["restart", "roll-back", "complete"];

/// The Secret after the last write.
pub struct Delivered<'a> {
    /// Its metadata.
    pub meta: ObjectMeta,
    /// All that we wrote.
    pub data: SecretData,
    /// To put values back there, too.
    pub source: Option<&'a Source>,
    /// When somebody may be restarted.
    pub times: &'a Times,
}

/// What makes room for other values, which are remembered with `new`, is kept until those are delivered. Returns what can be gone back to.
pub(in crate::secrets) async fn keep_previous(look: Look<'_>, new: &Memory) -> Result<Base, Halt> {
    let Look { context, rotation, held, facts, .. } = look;
    let wanted = rotation.spec.restart.as_ref().is_some_and(|restart| restart.on_failure == OnFailure::Rollback);
    if !wanted || held.meta.is_none() {
        return Ok(None);
    }
    let only_retires = new.reason.as_deref() == Some(Reason::PreviousOver.as_str()) && new.rotation != held.memory.rotation;
    let there = match managed_secret::read(context, rotation, SecretSlot::Previous).await {
        // That nothing can be kept is no reason to keep a previous value for ever.
        Err(problem) if only_retires && matches!(problem.reason, Reason::NotOurs | Reason::ReservedType) => return Ok(None),
        there => there?,
    };
    let previous = there.meta.as_ref().map(|_| Previous { revision: there.memory.revision, end: Timestamp::MAX });
    // What somebody else wrote there is nothing to go back to.
    let ours = held.compared(&context.roller.restarter.key().await?) == TargetState::AsWritten;
    // Nor is what we have noted nothing about.
    match keep(&held.memory.stage, ours.then_some(held.memory.revision).filter(|revision| *revision > 0), previous, context.clock.now()) {
        Keep::Leave(base) => Ok(base),
        Keep::Replace(base) => {
            let (mut data, mut memory) = (held.ours(), Memory { stage: Stage::Complete, ..held.memory.clone() });
            if facts.plan.retire {
                data = previous_over::without_previous((context, rotation), data, &mut memory).await?;
            }
            managed_secret::keep(context, rotation, SecretSlot::Previous, (&data, &memory)).await?;
            Ok(base)
        }
    }
}

/// Restarts who is next; when all have it, says so; when one failed, puts the values of before back.
pub async fn deliver(context: &Context, rotation: &SecretRotation, delivered: &Delivered<'_>, view: &mut View) -> Result<(), Halt> {
    if delivered.times.are_unreadable() {
        return Ok(()); // nobody can tell when somebody may be restarted
    }
    let Some(changed) = view.memory.change.since(view.created) else { return Ok(()) };
    let now = context.clock.now();
    if let Some(restart) = &rotation.spec.restart {
        let urgent = view.memory.stage.is_rolled_back() || view.memory.reason.as_deref() == Some(Reason::Requested.as_str());
        let value = Value {
            namespace: &rotation.namespace().unwrap_or_default(),
            secret: &rotation.spec.target.name,
            data: &consumed(rotation, &view.memory, &delivered.data),
            changed,
            named: format!("revision {}", view.memory.revision),
            uid: &rotation.uid().unwrap_or_default(),
            opens: delivered.times.opens(now).filter(|_| !urgent),
        };
        let (rollout, consumption) = context.roller.roll(restart, &value, now).await?;
        announce::restarts(
            (&context.events, &context.audit),
            rotation,
            &rotation.spec.target.name,
            (Reason::Restarting.as_str(), &rollout.begun),
        );
        let rejected = rollout.rejected.then(|| rollout.failed.clone()).flatten();
        let over = rollout.over;
        (view.rollout, view.consumption) = (Some(rollout), Some(consumption));
        if let Some(why) = rejected.filter(|_| restart.on_failure == OnFailure::Rollback) {
            return Box::pin(put_back(context, rotation, (delivered, &why), view)).await;
        }
        if !over {
            return Ok(());
        }
    }
    complete(context, rotation, delivered, view).await
}

/// Everybody has it: the values of before are not kept for going back to any more.
async fn complete(context: &Context, rotation: &SecretRotation, delivered: &Delivered<'_>, view: &mut View) -> Result<(), Halt> {
    if !matches!(view.memory.stage, Stage::Open { .. }) {
        // A process that died just after it was complete has left this behind.
        let (namespace, name) = (rotation.namespace().unwrap_or_default(), SecretSlot::Previous.name(rotation));
        if context.roller.inventory.secrets.get(&namespace, &name).is_some() && view.memory.stage == Stage::Complete {
            forget_beside(context, rotation).await?;
        }
        return Ok(());
    }
    let mut memory = Memory { stage: Stage::Complete, rejected: BTreeSet::new(), tried: BTreeSet::new(), ..view.memory.clone() };
    let work = async {
        managed_secret::write(context, rotation, &delivered.meta, (&delivered.data, &mut memory)).await?;
        forget_beside(context, rotation).await
    };
    context.steps.run("complete", work).await?;
    view.memory = memory;
    Ok(())
}

/// What can be gone back to goes last: as long as it is there, all of this is done again.
async fn forget_beside(context: &Context, rotation: &SecretRotation) -> Result<(), Halt> {
    managed_secret::forget(context, rotation, SecretSlot::Rejected).await?;
    managed_secret::forget(context, rotation, SecretSlot::Previous).await
}

async fn put_back(
    context: &Context,
    rotation: &SecretRotation,
    (delivered, why): (&Delivered<'_>, &str),
    view: &mut View,
) -> Result<(), Halt> {
    let rollout = view.rollout.get_or_insert_default();
    match context.steps.run("roll-back", roll_back(context, rotation, (delivered, &view.memory), why)).await? {
        Err(obstacle) => rollout.failed = Some(format!("{why}; the values of before are not put back: {obstacle}")),
        Ok(memory) => {
            tracing::warn!(object = rotation.name_any(), namespace = rotation.namespace(), why, "rolled back");
            let name = Reason::RolledBack.as_str();
            context.audit.done("roll-back", &described(rotation), name, Some(memory.revision));
            rollout.failed = None;
            rollout.next = Some(context.clock.now() + SignedDuration::from_secs(1));
            view.memory = memory;
        }
    }
    Ok(())
}

/// The request that counts as answered after a roll-back: where nothing is generated, what was asked for before is no wish for what is taken back now.
fn handled(rotation: &SecretRotation, memory: &Memory) -> Option<String> {
    let asked = || annotation(rotation, ROTATE_ANNOTATION).to_owned();
    if rotation.spec.rotation.is_none() { Some(asked()) } else { memory.handled_rotate.clone() }
}

/// Writes the values of `-previous` into the store, as far as they were pushed there, and into the Secret. Err: why they are not put back.
async fn roll_back(
    context: &Context,
    rotation: &SecretRotation,
    (delivered, memory): (&Delivered<'_>, &Memory),
    why: &str,
) -> Result<Result<Memory, &'static str>, Halt> {
    let now = context.clock.now();
    let previous = managed_secret::read(context, rotation, SecretSlot::Previous).await?;
    let kept = previous.meta.as_ref().map(|_| Previous { revision: previous.memory.revision, end: Timestamp::MAX });
    if let Some(obstacle) = obstacle(&memory.stage, kept, now) {
        return Ok(Err(obstacle));
    }
    is_current(context, rotation).await?;
    let key = context.roller.restarter.key().await?;
    let (mut data, mut before) = (previous.ours(), previous.memory.clone());
    // A previous value that went meanwhile does not come back.
    if previous_over::is_left(&before, memory) {
        data = previous_over::without_previous((context, rotation), data, &mut before).await?;
    }
    // Who had moved has used what is taken back, and it may be nowhere else.
    Box::pin(rejected::keep(context, rotation, (&delivered.data, memory), (&data, &before))).await?;
    let (mut versions, mut kept_there) = (memory.versions.clone(), SecretData::new());
    if let Some(source) = delivered.source {
        let token = format!("{}-back", memory.rotation.as_deref().unwrap_or_default());
        let (known, noted) = (&replaceable(&memory.values), &Superseded::new());
        let reason = Reason::RolledBack;
        let generated = Generated { source, values: &data, known, token: &token, noted, reason, back: true };
        kept_there = push::generated(context, rotation, &generated, &mut versions).await?;
    } else if rotation.spec.rotation.as_ref().is_some_and(|rotation| !rotation.push.is_empty()) {
        return Ok(Err("the store cannot be reached"));
    }
    let replaced = match &memory.stage {
        Stage::Open { from: Some(from), .. } => *from,
        _ => memory.change.at.time().unwrap_or(now),
    };
    let mut back = Memory {
        revision: memory.revision + 1,
        change: before.change.clone(),
        stage: Stage::RolledBack { generation: rotation.metadata.generation.unwrap_or_default(), why: why.into() },
        handled_rotate: handled(rotation, memory),
        previous_since: before.previous_since,
        previous_keys: before.previous_keys.clone(),
        previous_texts: before.previous_texts.clone(),
        hidden: before.hidden.clone(),
        versions,
        ..memory.clone()
    };
    let left = rejected::left(rotation, &delivered.data, (&data, &kept_there));
    rejected::note((rotation, &key), ((&delivered.data, &left), memory), &data, &mut back);
    back.hash(&key, &data);
    if !back.change.is_noted() {
        back.change.becomes_new(Changed::At(replaced)); // of a time that nobody knows any more: all that is older than what replaced it
    }
    back.change.comes_back(replaced);
    managed_secret::write(context, rotation, &delivered.meta, (&data, &mut back)).await?;
    Ok(Ok(back))
}
