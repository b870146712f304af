//! Writes the Secret, if it is to be another: fenced, at a pace, and not against somebody who undoes it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{
    managed_secret::{self, ManagedSecret, SecretSlot},
    previous_over,
    rejected::{consumed, is_rejected, judged},
    rotate,
};
use crate::{
    api::{
        ROTATE_ANNOTATION, SecretRotation,
        secret_rotation::{RefreshPolicy, TargetPolicy},
    },
    cluster::{conditions, contest, noticed, owner::described},
    rollout::stage::Stage,
    secrets::{
        context::{Context, Look, annotation, is_current, plan_after},
        decide::{Plan, TargetState},
        deliver::{self, Delivered, deliver},
        memory::{Memory, hashes},
        reading::read::Source,
        reason::Reason,
        report::announce_change,
        status::{Halt, Problem, View},
        store::SecretData,
    },
};

/// Writes the Secret if it is to be another, and goes on to who uses it.
pub(in crate::secrets) async fn update(
    look: Look<'_>,
    made: (SecretData, Memory),
    source: Option<&Source>,
    view: &mut View,
) -> Result<(), Halt> {
    let Look { context, rotation, held, facts, .. } = look;
    let (mut data, mut memory) = made;
    let consumed = |data: &SecretData| consumed(rotation, &held.memory, data);
    // A roll-back that only loses a previous value keeps the id of its rotation.
    let same_rotation = held.memory.stage.is_rolled_back() && memory.rotation == held.memory.rotation;
    let mut is_other = held.meta.is_none() || (!same_rotation && consumed(&data) != consumed(&held.ours()));
    let mut is_rejected = is_rejected(look, &data, &memory).await? && is_other;
    // After a roll-back, when only a previous value expires: nothing new is composed, the previous value is taken out of what is there.
    if facts.plan.retire && is_other && (is_rejected || is_back(look, &data, &memory)) {
        view.snapshot = None;
        ((data, memory), is_other, is_rejected) = (previous_over::retired(look).await?, false, false);
    }
    if is_rejected {
        return keep_rolled_back(look, Left::InTheStore, source, view).await;
    }
    let meta = write(look, (&data, is_other), &mut memory, view).await?;
    view.there = Some(true);
    view.created = meta.creation_timestamp.as_ref().map(|time| time.0);
    view.memory = memory;
    view.was_read();
    if let Some(made) = view.snapshot.take() {
        context.refresh_cache.record(noticed::key(rotation), made, &view.memory, |key| context.index.read(|index| index.has(key)));
    }
    if rotation.spec.rotation.is_some() {
        context.steps.run("drop-pending", rotate::finish(context, rotation, &[&held.memory, &view.memory])).await?;
    }
    // What was due is done: the next times are others.
    let mut after = plan_after(context, rotation, facts, view);
    after.reason = facts.plan.reason;
    view.plan = Some(after);
    deliver(context, rotation, &Delivered { meta, data, source, times: &facts.times }, view).await
}

/// Writes it, unless all that is ours is written already. Where somebody else keeps a previous value that ends with it, `view` says so.
async fn write(
    look: Look<'_>,
    (data, mut is_other): (&SecretData, bool),
    memory: &mut Memory,
    view: &mut View,
) -> Result<ObjectMeta, Halt> {
    let Look { context, rotation, held, .. } = look;
    let (mut there, mut known) = (held.ours(), held.memory.clone());
    let (writer, is_merged) = (managed_secret::writer(context, rotation), rotation.spec.target.creation_policy == TargetPolicy::Merge);
    let (ends, mut stays) = (held.memory.previous_since.is_some() && memory.previous_since.is_none(), None);
    if ends {
        stays = previous_over::stays_in_target(look, data, memory).await?;
        (there, known) = previous_over::ours_beside((held, writer.manager(), is_merged), stays.as_ref());
    }
    if let Some(stays) = &stays {
        let consumed = |data: &SecretData| consumed(rotation, &held.memory, data);
        let mut before = held.ours();
        before.retain(|name, _| !stays.names.contains(name));
        // What stays as it is, is no other for who uses it.
        if is_other && consumed(data) == consumed(&before) {
            is_other = false;
            (memory.rotation, memory.reason) = (held.memory.rotation.clone(), held.memory.reason.clone());
            memory.started_at = held.memory.started_at;
        }
    }
    let is_written = *data == there && *memory == known && memory.change.is_noted();
    let meta = match &held.meta {
        Some(meta) if is_written && managed_secret::is_dressed(rotation, meta, memory) => meta.clone(),
        _ => store(look, (data, is_other), memory).await?,
    };
    if ends {
        let (secret, written) = (rotation.spec.target.name.as_str(), (&meta, writer.manager(), is_merged));
        view.remains = previous_over::remains((rotation, secret), written, stays.as_ref());
        if view.remains.is_none() {
            context.audit.done("delete-previous", &described(rotation), Reason::PreviousOver.as_str(), Some(memory.revision));
        }
    }
    Ok(meta)
}

/// What was taken back, and is not tried again before somebody changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::secrets) enum Left {
    /// The store has it, or has it again.
    InTheStore,
    /// A generated value that is lacking since then.
    Lacking,
}

/// Consumers could not live with what would be made: the Secret stays as it was put back.
pub(in crate::secrets) async fn keep_rolled_back(look: Look<'_>, left: Left, source: Option<&Source>, view: &mut View) -> Result<(), Halt> {
    let Look { context, rotation, held, facts, .. } = look;
    view.was_read();
    let Some(mut meta) = held.meta.clone() else { return Ok(()) };
    let mut memory = held.memory.clone();
    if facts.plan.generate.is_some() || facts.pending.is_some() {
        // New values were made, and the store keeps what it has (`IfNotExists`): until somebody asks again, or the next time comes.
        let second = Timestamp::from_second(facts.now.as_second()).unwrap_or(facts.now);
        (memory.handled_rotate, memory.rotated_at) = (Some(annotation(rotation, ROTATE_ANNOTATION).into()), Some(second));
    }
    if memory != held.memory {
        view.memory = memory;
        meta = managed_secret::write(context, rotation, &meta, (&held.ours(), &mut view.memory)).await?;
        if facts.pending.is_some() || facts.plan.generate.is_some() {
            managed_secret::forget(context, rotation, SecretSlot::Pending).await?;
        }
    }
    if let Some(made) = view.snapshot.take().filter(|_| facts.target == TargetState::AsWritten) {
        // As long as the store has just that, nothing else of it is read.
        context.refresh_cache.record(noticed::key(rotation), made, &view.memory, |key| context.index.read(|index| index.has(key)));
    }
    view.plan = Some(Plan { reason: facts.plan.reason, ..plan_after(context, rotation, facts, view) });
    deliver(context, rotation, &Delivered { meta, data: held.ours(), source, times: &facts.times }, view).await?;
    let TargetState::Edited(keys) = &facts.target else { return Ok(()) };
    let (name, previous) = (&rotation.spec.target.name, SecretSlot::Previous.name(rotation));
    let message = match left {
        Left::InTheStore => format!(
            "keys {keys:?} of Secret {name} were changed by somebody else, and what the store has was taken back: the Secret is left as it is until the spec or the values of the store are others, or `seaworthy rotate`; what stood there is in Secret {previous}"
        ),
        Left::Lacking => format!(
            "keys {keys:?} of Secret {name} were changed by somebody else, and a generated value was taken back with others: the Secret is left as it is until the spec is another, or `seaworthy rotate`; what stood there is in Secret {previous}"
        ),
    };
    Err(Problem::new(Reason::Modified, message).into())
}

/// Whether it is what was gone back to, but for what changes when a previous value goes.
fn is_back(look: Look<'_>, data: &SecretData, memory: &Memory) -> bool {
    let Look { rotation, held, .. } = look;
    held.memory.stage.is_rolled_back() && judged(rotation, memory, data) == judged(rotation, &held.memory, &held.ours())
}

/// Writes it; when it `is_other` for who uses it, with a new revision, and what was there before is kept.
async fn store(look: Look<'_>, (data, is_other): (&SecretData, bool), memory: &mut Memory) -> Result<ObjectMeta, Halt> {
    let Look { context, rotation, held, facts, .. } = look;
    let (now, uid, spec) = (facts.now, rotation.uid().unwrap_or_default(), &rotation.spec);
    // A first Secret out of a store goes with its owner, and is made anew when a newer spec is seen: it may be of a moment ago.
    let again = spec.refresh_policy == RefreshPolicy::Periodic && spec.target.creation_policy == TargetPolicy::Owner;
    let was_there = rotation.status.as_ref().is_some_and(|status| status.revision.is_some());
    let first = held.meta.is_none() && spec.rotation.is_none() && again && !was_there;
    if !first {
        is_current(context, rotation).await?;
    }
    // A previous value goes, whoever undoes what.
    // Of somebody else's Secret, that was made anew, or what we had noted on it is gone.
    let is_lost = held.memory.revision == 0
        && was_there
        && rotation.status.as_ref().and_then(|status| status.observed_generation) == rotation.metadata.generation;
    let is_altered = match facts.target {
        TargetState::Edited(_) => true,
        TargetState::Missing => was_there,
        TargetState::AsWritten => is_lost,
    };
    let altered = is_altered && !facts.plan.retire;
    if altered {
        may_put_right(context, rotation, held, now)?;
    }
    if is_other && facts.plan.read == Some(Reason::RefreshDue) && facts.pending.is_none() && facts.plan.generate.is_none() {
        may_change(context, rotation, now)?;
    }
    if is_other {
        memory.rejected.clear();
        memory.tried.clear();
        let base = context.steps.run("keep-previous", deliver::keep_previous(look, memory)).await?;
        memory.stage = match (&spec.restart, &held.memory.stage) {
            (None, _) => Stage::Complete,
            (Some(_), Stage::Open { from, .. }) => {
                Stage::Open { base, from: from.or_else(|| managed_secret::last_change(held)).filter(|_| base.is_some()) }
            }
            (Some(_), _) => Stage::Open { base, from: None },
        };
        memory.revision = held.memory.revision.max(rotation.status.as_ref().and_then(|status| status.revision).unwrap_or(0)) + 1;
    }
    let written = context.steps.run("store", managed_secret::store(context, rotation, held, (data, is_other, memory))).await?;
    if hashes(&context.roller.restarter.key().await?, data) == memory.values {
        context.edits.is_right(&uid);
    }
    if altered {
        context.contest.put_right(&uid, now);
    }
    if is_other {
        announce_change(context, rotation, memory, facts.plan.reason);
    }
    Ok(written)
}

/// Refuses to put right what somebody else did to the Secret, if that was done again and again.
fn may_put_right(context: &Context, rotation: &SecretRotation, held: &ManagedSecret, now: Timestamp) -> Result<(), Problem> {
    context.contest.may(&rotation.uid().unwrap_or_default(), now).map_err(|until| {
        let who = held.meta.as_ref().and_then(|meta| managed_secret::writer(context, rotation).last_stranger(meta));
        let message = contest::message(&rotation.spec.target.name, who, until);
        Problem { reason: Reason::Contested, message, after: Some(until.duration_since(now)) }
    })
}

/// Refuses to follow what changes by itself all the time.
fn may_change(context: &Context, rotation: &SecretRotation, now: Timestamp) -> Result<(), Problem> {
    context.pace.take(&rotation.uid().unwrap_or_default(), now).map_err(|until| {
        let message = format!(
            "the values change again and again, and are written at {}; do SecretRotations read each other's Secrets in a ring?",
            conditions::seconds(until).0
        );
        Problem { reason: Reason::Restless, message, after: Some(until.duration_since(now)) }
    })
}
