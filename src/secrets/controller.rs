//! SecretRotation: observe, decide, act, report.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};

use super::{
    contents::compose::Remote,
    context::{Context, Facts, KIND, Look, consumption, facts, last_told, plan_after},
    decide::{Plan, TargetState, Times},
    deliver::{Delivered, deliver},
    index::refresh_keys,
    reading::{
        read::{self, Source},
        refresh_cache::{self, Found},
        refresh_times,
    },
    reason::Reason,
    report::report,
    status::{self, Halt, Problem, View},
    writing::{
        desired,
        managed_secret::{self, ManagedSecret, SecretSlot},
        previous_over, push, retire, rotate,
        update::{Left, keep_rolled_back, update},
    },
};
use crate::{
    api::SecretRotation,
    cluster::{
        apply::WriteError,
        backoff::retry_after,
        halt::Word,
        noticed,
        owner::owned_by,
        run::{Done, Guarded},
        unreadable,
    },
    rollout::stage::Stage,
    schedule::jitter,
    telemetry::metrics::Outcome,
};

/// What the store hears of a Secret that is as it should be, in this order: what fault tests go through.
pub const STEPS: &[&str] = &["retire", "push-existing"];

/// How long an object is left alone at most.
const HALF_DAY: SignedDuration = SignedDuration::from_hours(12);

/// Looks at one object.
pub async fn reconcile(object: Arc<Guarded<SecretRotation>>, context: Arc<Context>) -> Done {
    if object.meta().deletion_timestamp.is_some() {
        return Done { again: None, outcome: Outcome::Success }; // on its way out; what is to become of its Secret is said by its owner reference
    }
    match look(&object, &context).await {
        Ok(done) => {
            context.races.succeeded(&object.uid().unwrap_or_default());
            done
        }
        Err(superseded) => {
            tracing::debug!(object = object.name_any(), namespace = object.namespace(), %superseded, "decided again");
            Done::superseded(&context.races, &object.uid().unwrap_or_default(), context.clock.now())
        }
    }
}

/// Fails only when what it rests on was superseded.
async fn look(object: &Guarded<SecretRotation>, context: &Context) -> Result<Done, WriteError> {
    let now = context.clock.now();
    if context.writer.is_outdated(object.meta()) {
        return Err(WriteError::Superseded(format!("{KIND} {}", object.name_any())));
    }
    context.edits.look(&object.uid().unwrap_or_default());
    let (view, before) = match &object.0 {
        Ok(rotation) => (pursue(context, rotation).await?, rotation.status.clone().unwrap_or_default()),
        Err(invalid) => {
            let status = unreadable::status::<SecretRotation, _>(&context.client, object.meta()).await?;
            let message = format!(
                "this object cannot be read as a SecretRotation: {}; correct the field, the others are not affected",
                invalid.error
            );
            (View { problem: Some(Problem::new(Reason::Malformed, message)), ..View::default() }, status)
        }
    };
    let after = status::status(&before, &view, object.meta().generation, context.clock.now());
    let reported = context.steps.run("report", report(context, object, (&before, &after), &view)).await;
    if let (Ok(()), Ok(rotation), Some(compared)) = (&reported, &object.0, view.compared) {
        context.refresh_cache.mark_compared(noticed::key(rotation), compared, |key| context.index.read(|index| index.has(key)));
    }
    match reported {
        Err(error) if error.is_race() => Err(error),
        reported => Ok(done(context, object, &view, (reported, now))),
    }
}

/// When to come back after a look that began `now`, and what is counted.
fn done(context: &Context, object: &Guarded<SecretRotation>, view: &View, (reported, now): (Result<(), WriteError>, Timestamp)) -> Done {
    let uid = object.uid().unwrap_or_default();
    let retry = |reason: Reason| retry_after(context.failures.failed(&uid, (reason.as_str(), object.meta().generation)), None, now, &uid);
    if let Err(error) = reported {
        tracing::warn!(%error, object = object.name_any(), namespace = object.namespace(), "status");
        return Done::again(retry(Reason::WriteFailed), Outcome::Retry);
    }
    // From here on: the look took its time, and the clock may have been set meanwhile.
    let end = context.clock.now();
    let until = |time: Timestamp| time.duration_since(end).max(SignedDuration::ZERO);
    let next = status::next_look(view, now).map(|time| until(time) + SignedDuration::from_millis(100));
    match &view.problem {
        None => {
            context.failures.succeeded(&uid);
            let round = HALF_DAY + jitter(&uid, HALF_DAY / 4);
            Done::again(next.map_or(round, |wait| wait.min(round)), Outcome::Success)
        }
        Some(problem) => {
            context.metrics.failed(KIND, problem.reason.as_str());
            let after = problem.after.map_or_else(|| retry(problem.reason), |after| after.max(SignedDuration::from_secs(1)));
            // What goes on with the restarts does not wait for a store.
            let rollout = view.rollout.as_ref().and_then(|rollout| rollout.next).map(until);
            let after = rollout.map_or(after, |wait| wait.max(SignedDuration::from_secs(1)).min(after));
            // What the store has by now is read when it is due, however often it was not what is needed.
            let round = object.0.as_ref().ok().filter(|_| problem.after.is_none()).map(|rotation| &rotation.spec);
            let round = round.and_then(|spec| refresh_times::next_refresh(spec, &refresh_keys(spec), Some(now)));
            let after = round.map_or(after, |time| until(time).min(after));
            // Nor does what has nothing to do with the problem wait for its end.
            let after = status::planned(view, now).map_or(after, |time| until(time).min(after));
            Done::again(after, if problem.reason.needs_a_person() { Outcome::Stalled } else { Outcome::Retry })
        }
    }
}

/// One reconcile: observe, decide, act. Failures go into `view.problem`; Err only when an object changed after it was read, so that all is decided again.
async fn pursue(context: &Context, rotation: &SecretRotation) -> Result<View, WriteError> {
    let mut view = View::default();
    let end = match observe(context, rotation, &mut view).await {
        Ok(held) => Box::pin(advance(context, rotation, held, &mut view)).await,
        Err(problem) => Err(problem.into()),
    };
    let kept = match view.there.zip(view.plan).filter(|(_, plan)| !plan.suspended) {
        Some(_) => Box::pin(previous_over::retire_kept(context, rotation, &view.memory)).await,
        None => Ok(()),
    };
    let end = match end.and(kept) {
        Ok(()) => after(context, rotation, &mut view).await,
        failed => failed,
    };
    let end = match view.remains.take() {
        Some(message) => end.and_then(|()| Err(Problem::new(Reason::NotOurs, message).into())),
        None => end,
    };
    match end {
        Ok(()) => {}
        Err(Halt::Problem(problem)) => view.problem = Some(problem),
        Err(Halt::Superseded(error)) => return Err(error),
    }
    if view.consumption.is_none() {
        view.consumption = consumption(context, rotation, &view);
    }
    Ok(view)
}

/// The [`STEPS`].
async fn after(context: &Context, rotation: &SecretRotation, view: &mut View) -> Result<(), Halt> {
    if view.plan.is_some_and(|plan| !plan.suspended) {
        rotate::abandon(context, rotation).await?;
    }
    context.steps.run("retire", Box::pin(retire::superseded(context, rotation, view))).await?;
    context.steps.run("push-existing", Box::pin(push::existing(context, rotation, view))).await
}

/// Reads the Secret, and refuses one that is not this resource's.
async fn observe(context: &Context, rotation: &SecretRotation, view: &mut View) -> Result<ManagedSecret, Problem> {
    if let Some((secret, other)) = context.index.read(|index| index.conflict(&noticed::key(rotation))) {
        let message = format!("Secret {secret} is written by the older SecretRotation {other}; choose another spec.target.name");
        return Err(Problem::new(Reason::TargetConflict, message));
    }
    let mut held = match managed_secret::read(context, rotation, SecretSlot::Target).await {
        Err(problem) if matches!(problem.reason, Reason::NotOurs | Reason::ReservedType) => {
            view.keeps_none = !keeps_previous(context, rotation);
            return Err(problem);
        }
        held => held?,
    };
    held.memory.is_of_before(rotation.status.as_ref(), rotation.spec.rotation_pushes().next().is_some());
    (view.there, view.created, view.memory) = (Some(held.meta.is_some()), held.created(), held.memory.clone());
    Ok(held)
}

/// Whether this resource keeps previous values in what is called as the Secret, as far as can be told of one that is not read.
fn keeps_previous(context: &Context, rotation: &SecretRotation) -> bool {
    let there = context.roller.inventory.secrets.get(&rotation.namespace().unwrap_or_default(), &rotation.spec.target.name);
    let whose = managed_secret::short(&owned_by(rotation));
    there.is_some_and(|there| there.kept.iter().flatten().any(|kept| *kept.whose == *whose && kept.previous_since.is_some()))
}

/// Decides about what was read. Where no decision can be come to, previous values go in time all the same, and what is being delivered goes on.
async fn decided(context: &Context, rotation: &SecretRotation, held: &ManagedSecret, view: &mut View) -> Result<Facts, Halt> {
    let times = match Times::parse(&rotation.spec, context.clock.now()) {
        Ok(times) => times,
        Err((field, error)) => {
            Box::pin(retire_only(context, rotation, (held, Times::unreadable()), view)).await?;
            return Err(Problem::new(Reason::InvalidSpec, format!("{field}: {error}")).into());
        }
    };
    let pending = match rotate::pending(context, rotation).await {
        Ok(pending) => pending,
        Err(problem) if matches!(problem.reason, Reason::NotOurs | Reason::ReservedType) => {
            Box::pin(retire_only(context, rotation, (held, times), view)).await?;
            return Err(problem.into());
        }
        Err(problem) => {
            if !rotation.spec.suspend {
                Box::pin(carry_on(context, rotation, (held, &times, None), view)).await?;
            }
            return Err(problem.into());
        }
    };
    match Box::pin(facts(context, rotation, (held, times.clone(), pending), view)).await {
        // A store that is gone is no reason to leave half of the consumers with the previous values.
        Err(Halt::Problem(problem)) if !rotation.spec.suspend => {
            Box::pin(carry_on(context, rotation, (held, &times, None), view)).await?;
            Err(problem.into())
        }
        facts => facts,
    }
}

/// Decides about what was read, and does it.
async fn advance(context: &Context, rotation: &SecretRotation, held: ManagedSecret, view: &mut View) -> Result<(), Halt> {
    let facts = Box::pin(decided(context, rotation, &held, view)).await?;
    view.plan = Some(facts.plan);
    (view.read, view.last_sync) = (facts.plan.read, facts.last_sync);
    require_comparison(context, rotation, &facts);
    if facts.plan.suspended || rotation.spec.is_push_only() {
        return facts.resolved.map(|_| ()).map_err(Into::into);
    }
    let (plan, spec) = (facts.plan, &rotation.spec);
    let new = plan.read.is_some() || plan.generate.is_some() || facts.pending.is_some();
    let made = new || matches!(plan.reason, Reason::Missing | Reason::SpecChanged | Reason::Modified);
    let look = Look { context, rotation, held: &held, facts: &facts };
    // What was put back has to go back to the store as well; what is delivered may have to be put back.
    let asks =
        spec.reads_store() && (new || matches!(held.memory.stage, Stage::Open { .. }) && rotation.spec.rotation_pushes().next().is_some());
    let (source, read) = match ask(look, asks, view).await {
        Ok(asked) => asked,
        Err(problem) => {
            Box::pin(without_values(look, None, view)).await?;
            return Err(problem.into());
        }
    };
    let (made, read) = (made && read.is_some(), read.unwrap_or_default());
    let rests = !made && !plan.retire && held.memory.change.is_noted();
    if let Some(meta) = held.meta.as_ref().filter(|meta| rests && managed_secret::is_dressed(rotation, meta, &held.memory)) {
        let delivered = Delivered { meta: meta.clone(), data: held.ours(), source: source.as_ref(), times: &facts.times };
        return Box::pin(deliver(context, rotation, &delivered, view)).await;
    }
    if !made {
        return Box::pin(update(look, previous_over::retired(look).await?, source.as_ref(), view)).await;
    }
    let done = match Box::pin(desired::desired(look, (source.as_ref(), read), view)).await {
        Ok(Some(made)) => match Box::pin(update(look, made, source.as_ref(), view)).await {
            // What keeps the new content from being written need not keep a previous value.
            Err(Halt::Problem(problem)) if plan.retire => Err(Halt::Problem(problem)),
            done => return done,
        },
        Ok(None) => return Box::pin(keep_rolled_back(look, Left::Lacking, source.as_ref(), view)).await,
        failed => failed.map(|_| ()),
    };
    match done {
        // With the Secret gone there is nothing to go on with.
        Err(Halt::Problem(problem)) if view.there != Some(false) => {
            Box::pin(without_values(look, source.as_ref(), view)).await?;
            Err(problem.into())
        }
        done => done,
    }
}

/// Notes that what `spec.push` names is to be compared with the store: all of it after another spec or a request, else what is due.
fn require_comparison(context: &Context, rotation: &SecretRotation, facts: &Facts) {
    if rotation.spec.push.is_empty() {
        return;
    }
    let is_other = rotation.status.as_ref().is_none_or(|status| status.observed_generation != rotation.metadata.generation);
    let owed = is_other || facts.plan.read.is_some_and(|reason| reason != Reason::RefreshDue);
    let is_there = |key: &_| context.index.read(|index| index.has(key));
    context.refresh_cache.require_comparison(noticed::key(rotation), owed, facts.last_sync, is_there);
}

/// Times that cannot be read, or somebody else's Secret in the place of what is on its way, are no reason to keep the previous values for ever. What is
/// being delivered goes on, if anybody knows when it may.
async fn retire_only(
    context: &Context,
    rotation: &SecretRotation,
    (held, times): (&ManagedSecret, Times),
    view: &mut View,
) -> Result<(), Halt> {
    let unreadable = times.are_unreadable();
    if rotation.spec.suspend || unreadable && held.memory.previous_since.is_none() {
        return Ok(());
    }
    let facts = match Box::pin(facts(context, rotation, (held, times, None), view)).await {
        Err(Halt::Problem(_)) => return Ok(()), // the other one is told first
        facts => facts?,
    };
    view.plan = Some(if unreadable { Plan { next_rotation: None, rotates_at: None, ..facts.plan } } else { facts.plan });
    without_values(Look { context, rotation, held, facts: &facts }, None, view).await
}

/// Opens the store, if it is asked, and reads the keys that are due. None in the place of values: they are as they were, and nothing is to be done.
async fn ask(look: Look<'_>, asks: bool, view: &mut View) -> Result<(Option<Source>, Option<Remote>), Problem> {
    let Look { context, rotation, held, facts, .. } = look;
    let source = match facts.resolved.clone()? {
        Some(resolved) if asks => read::source(context, rotation, resolved).await?,
        _ => return Ok((None, Some(Remote::default()))),
    };
    let (plan, none_pending) = (&facts.plan, facts.pending.is_none() && facts.target == TargetState::AsWritten);
    if plan.read != Some(Reason::RefreshDue) || plan.generate.is_some() || plan.retire || !none_pending {
        return Ok((Some(source), Some(Remote::default())));
    }
    let read = match refresh_cache::look(context, rotation, &source, (facts, &held.memory)).await? {
        Found::Other(read) => Some(read),
        Found::Same => {
            view.synced = Some(facts.now).filter(|now| refresh_times::is_told(rotation, last_told(rotation), *now));
            view.plan = Some(Plan { reason: plan.reason, ..plan_after(context, rotation, facts, view) });
            None
        }
    };
    Ok((Some(source), read))
}

/// Does what needs no new values when there are none, because the store is away or does not have them: retires previous values, goes on with a rollout.
/// `source`: to roll back in the store, too.
async fn without_values(look: Look<'_>, source: Option<&Source>, view: &mut View) -> Result<(), Halt> {
    let Look { context, rotation, held, facts, .. } = look;
    (view.read_at, view.answers, view.snapshot) = (None, None, None); // what was read comes to nothing
    if facts.plan.retire && facts.target != TargetState::Missing && view.rollout.is_none() {
        let made = Box::pin(previous_over::retired(look)).await?;
        return Box::pin(update(look, made, source, view)).await;
    }
    carry_on(context, rotation, (held, &facts.times, source), view).await
}

/// Goes on with a rollout or roll-back that is under way, although this reconcile has failed. Its own problem is dropped: the first one is reported.
async fn carry_on(
    context: &Context,
    rotation: &SecretRotation,
    (held, times, source): (&ManagedSecret, &Times, Option<&Source>),
    view: &mut View,
) -> Result<(), Halt> {
    let Some(meta) = held.meta.clone() else { return Ok(()) };
    if !matches!(held.memory.stage, Stage::Open { .. } | Stage::RolledBack { .. }) || view.rollout.is_some() {
        return Ok(());
    }
    let delivered = Delivered { meta, data: held.ours(), source, times };
    match Box::pin(deliver(context, rotation, &delivered, view)).await {
        Err(superseded @ Halt::Superseded(_)) => Err(superseded),
        // The first problem is the one that is told.
        Ok(()) | Err(Halt::Problem(_)) => Ok(()),
    }
}
