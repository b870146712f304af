//! SecretRotation: observe, decide, act, report.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::Semaphore;

use super::{
    compose::Remote,
    decide::{self, Observed, Plan, Target, Times, decide},
    deliver::{Delivered, deliver},
    index::words,
    make,
    open_stores::Stores,
    push,
    put::{leave, put},
    reason::Reason,
    refresh::{self, Found, Known},
    report::report,
    resolve::{self, ClusterStores, Resolved},
    retire,
    rotate::{self, Pending},
    status::{self, Halt, Problem, View},
    store::{Allowed, Store},
    sync::{self, Source},
    target::{self, Held, Which},
};
use crate::{
    api::{REFRESH_ANNOTATION, ROTATE_ANNOTATION, SecretRotation},
    clock::Clock,
    cluster::{
        apply::{WriteError, Writer},
        backoff::{Failures, retry_after},
        contest::Contest,
        current,
        events::Events,
        halt::Word,
        index::Shared,
        noticed,
        pace::Pace,
        run::{Done, Guarded},
        steps::Steps,
        unreadable,
    },
    inventory::template::Source as Used,
    rollout::{consumption::Consumption, roll::Roller, stage::Stage},
    schedule::jitter,
    telemetry::{
        audit::Audit,
        metrics::{Metrics, Outcome},
    },
};

/// The kind, for metrics.
pub const KIND: &str = "SecretRotation";

/// What the store hears of a Secret that is as it should be, in this order: what fault tests go through.
pub const STEPS: &[&str] = &["retire", "push-existing"];

/// How long an object is left alone at most.
const HALF_DAY: SignedDuration = SignedDuration::from_hours(12);

/// What a reconcile works with.
pub struct Context {
    /// For reads.
    pub client: Client,
    /// For writes.
    pub writer: Writer,
    /// What a person wants to know.
    pub events: Events,
    /// Every act on a credential.
    pub audit: Audit,
    /// Counts.
    pub metrics: Metrics,
    /// The steps of a rotation.
    pub steps: Steps,
    /// The time.
    pub clock: Clock,
    /// Who wants which Secret, and what from which store.
    pub index: Shared,
    /// The SecretStores, where they are watched.
    pub cluster_stores: Option<ClusterStores>,
    /// Stores in use.
    pub stores: Stores,
    /// What the operator's own settings allow stores to reach.
    pub allowed: Allowed,
    /// What Secrets were made of.
    pub known: Known,
    /// Places for work on values, which takes a core.
    pub compute: Semaphore,
    /// How often each object has failed in a row.
    pub failures: Failures,
    /// How often each object had to be decided on again in a row.
    pub races: Failures,
    /// Who uses which Secret; restarts them.
    pub roller: Roller,
    /// Who undoes what is written.
    pub contest: Contest,
    /// What changes by itself.
    pub pace: Pace,
}

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
        context.known.are_compared(noticed::key(rotation), compared, |key| context.index.read(|index| index.has(key)));
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
            let round = round.and_then(|spec| refresh::next_refresh(spec, &words(spec), Some(now)));
            let after = round.map_or(after, |time| until(time).min(after));
            // Nor does what has nothing to do with the problem wait for its end.
            let after = status::planned(view, now).map_or(after, |time| until(time).min(after));
            Done::again(after, if problem.reason.needs_a_person() { Outcome::Stalled } else { Outcome::Retry })
        }
    }
}

/// Observe, decide, act. What goes wrong is part of the view; an error only means that it rests on something that was superseded.
async fn pursue(context: &Context, rotation: &SecretRotation) -> Result<View, WriteError> {
    let mut view = View::default();
    let end = match observe(context, rotation, &mut view).await {
        Ok(held) => Box::pin(advance(context, rotation, held, &mut view)).await,
        Err(problem) => Err(problem.into()),
    };
    let end = match end {
        Ok(()) => after(context, rotation, &mut view).await,
        failed => failed,
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
    if view.plan.is_some_and(|plan| !plan.rest) {
        rotate::abandon(context, rotation).await?;
    }
    context.steps.run("retire", Box::pin(retire::superseded(context, rotation, view))).await?;
    context.steps.run("push-existing", Box::pin(push::existing(context, rotation, view))).await
}

/// Reads the Secret, and refuses one that is not this resource's.
async fn observe(context: &Context, rotation: &SecretRotation, view: &mut View) -> Result<Held, Problem> {
    if let Some((secret, other)) = context.index.read(|index| index.conflict(&noticed::key(rotation))) {
        let message = format!("Secret {secret} is written by the older SecretRotation {other}; choose another spec.target.name");
        return Err(Problem::new(Reason::TargetConflict, message));
    }
    let held = target::read(context, rotation, Which::Target).await?;
    (view.there, view.created, view.memory) = (Some(held.meta.is_some()), held.created(), held.memory.clone());
    Ok(held)
}

/// Who uses the Secret, and who of them has what is in it now.
fn consumption(context: &Context, rotation: &SecretRotation, view: &View) -> Option<Consumption> {
    let changed = view.memory.change.since(view.created)?;
    let secret = Used::Secret(rotation.spec.target.name.as_str().into());
    Some(Consumption::of(&context.roller.inventory.consumers(&rotation.namespace().unwrap_or_default(), &secret), &changed, None))
}

/// Nothing is written for a resource that is another by now, or by a process that does not lead any more.
pub(super) async fn is_current(context: &Context, rotation: &SecretRotation) -> Result<(), Halt> {
    context.writer.check()?;
    let api = Api::<SecretRotation>::namespaced(context.client.clone(), &rotation.namespace().unwrap_or_default());
    Ok(current::check(&api, &rotation.metadata, &[ROTATE_ANNOTATION, REFRESH_ANNOTATION]).await?)
}

pub(super) fn annotation<'a>(rotation: &'a SecretRotation, key: &str) -> &'a str {
    rotation.annotations().get(key).map(String::as_str).unwrap_or_default()
}

/// What a look has found out.
pub(super) struct Facts {
    pub now: Timestamp,
    pub times: Times,
    pub plan: Plan,
    pub request: String,
    pub target: Target,
    pub pending: Option<Pending>,
    /// When the store was read last.
    pub last_sync: Option<Timestamp>,
    /// Which store is meant, or why none can be.
    pub resolved: Result<Option<Resolved>, Problem>,
}

/// A look at one resource that has decided what to do.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub context: &'a Context,
    pub rotation: &'a SecretRotation,
    pub held: &'a Held,
    pub facts: &'a Facts,
    /// Whether the Secret's type, labels, annotations and owner are as the spec wants them.
    pub dressed: bool,
}

/// Decides about what was read, and does it.
async fn advance(context: &Context, rotation: &SecretRotation, held: Held, view: &mut View) -> Result<(), Halt> {
    let now = context.clock.now();
    let times = match Times::parse(&rotation.spec, now) {
        Ok(times) => times,
        Err((field, error)) => {
            Box::pin(without_times(context, rotation, &held, view)).await?;
            return Err(Problem::new(Reason::InvalidSpec, format!("{field}: {error}")).into());
        }
    };
    let facts = match facts(context, rotation, (&held, times.clone()), view).await {
        // A store that is gone is no reason to leave half of the consumers with the previous values.
        Err(Halt::Problem(problem)) if !rotation.spec.suspend => {
            Box::pin(carry_on(context, rotation, (&held, &times, None), view)).await?;
            return Err(problem.into());
        }
        facts => facts?,
    };
    view.plan = Some(facts.plan);
    (view.read, view.last_sync) = (facts.plan.read, facts.last_sync);
    if !rotation.spec.push.is_empty() {
        let is_other = rotation.status.as_ref().is_none_or(|status| status.observed_generation != rotation.metadata.generation);
        let owed = is_other || facts.plan.read.is_some_and(|reason| reason != Reason::RefreshDue);
        let is_there = |key: &_| context.index.read(|index| index.has(key));
        context.known.to_compare(noticed::key(rotation), owed, facts.last_sync, is_there);
    }
    if facts.plan.rest || decide::only_pushes(&rotation.spec) {
        return facts.resolved.map(|_| ()).map_err(Into::into);
    }
    let (plan, spec) = (facts.plan, &rotation.spec);
    let new = plan.read.is_some() || plan.generate.is_some() || facts.pending.is_some();
    let made = new || matches!(plan.reason, Reason::Missing | Reason::SpecChanged | Reason::Modified);
    let look = Look { context, rotation, held: &held, facts: &facts, dressed: target::is_dressed(rotation, &held) };
    // What was put back has to go back to the store as well; what is delivered may have to be put back.
    let asks = decide::reads(spec) && (new || matches!(held.memory.stage, Stage::Open { .. }) && pushes(rotation));
    let (source, read) = match ask(look, asks, view).await {
        Ok(asked) => asked,
        Err(problem) => {
            Box::pin(without_values(look, None, view)).await?;
            return Err(problem.into());
        }
    };
    let (made, read) = (made && read.is_some(), read.unwrap_or_default());
    if !made && !plan.retire && look.dressed && held.memory.change.is_noted() {
        let Some(meta) = held.meta.clone() else { return Ok(()) };
        let delivered = Delivered { meta, data: held.ours(), source: source.as_ref(), times: &facts.times };
        return Box::pin(deliver(context, rotation, &delivered, view)).await;
    }
    let done = if made { Box::pin(make::make(look, (source.as_ref(), read), view)).await } else { make::retired(look).await.map(Some) };
    match done {
        Ok(Some(made)) => Box::pin(put(look, made, source.as_ref(), view)).await,
        Ok(None) => Box::pin(leave(look, source.as_ref(), view)).await,
        Err(Halt::Problem(problem)) => {
            Box::pin(without_values(look, source.as_ref(), view)).await?;
            Err(problem.into())
        }
        Err(superseded) => Err(superseded),
    }
}

/// Times that cannot be read are no reason to keep the previous values for ever. What is being delivered waits: nobody knows when it may go on.
async fn without_times(context: &Context, rotation: &SecretRotation, held: &Held, view: &mut View) -> Result<(), Halt> {
    if rotation.spec.suspend || held.memory.previous_since.is_none() {
        return Ok(());
    }
    let facts = match facts(context, rotation, (held, Times::unreadable()), view).await {
        Err(Halt::Problem(_)) => return Ok(()), // the times are told first
        facts => facts?,
    };
    view.plan = Some(Plan { next_rotation: None, rotates_at: None, ..facts.plan });
    if !facts.plan.retire {
        return Ok(());
    }
    without_values(Look { context, rotation, held, facts: &facts, dressed: target::is_dressed(rotation, held) }, None, view).await
}

/// Opens the store, if it is asked, and reads what is due there. No values: what was read is as it was, and nothing is to be made of it.
async fn ask(look: Look<'_>, asks: bool, view: &mut View) -> Result<(Option<Source>, Option<Remote>), Problem> {
    let Look { context, rotation, held, facts, .. } = look;
    let source = match facts.resolved.clone()? {
        Some(resolved) if asks => sync::source(context, rotation, resolved).await?,
        _ => return Ok((None, Some(Remote::default()))),
    };
    let (plan, none_pending) = (&facts.plan, facts.pending.is_none() && facts.target == Target::AsWritten);
    if plan.read != Some(Reason::RefreshDue) || plan.generate.is_some() || plan.retire || !none_pending {
        return Ok((Some(source), Some(Remote::default())));
    }
    let read = match refresh::look(context, rotation, &source, (facts, &held.memory)).await? {
        Found::Other(read) => Some(read),
        Found::Same => {
            view.synced = Some(facts.now).filter(|now| refresh::is_told(rotation, last_told(rotation), *now));
            view.plan = Some(Plan { reason: plan.reason, ..facts_after(context, rotation, facts, view) });
            None
        }
    };
    Ok((Some(source), read))
}

/// When the store was read last, as it stands in status.
pub(super) fn last_told(rotation: &SecretRotation) -> Option<Timestamp> {
    rotation.status.as_ref().and_then(|status| status.last_sync_time.as_ref()).map(|time| time.0)
}

/// A store that is away, or has not what is wanted, is no reason to keep the previous values for ever, nor to leave half of the consumers with them.
/// `source`: if it is there, values can be put back there.
async fn without_values(look: Look<'_>, source: Option<&Source>, view: &mut View) -> Result<(), Halt> {
    let Look { context, rotation, held, facts, .. } = look;
    (view.read_at, view.made) = (None, None); // what was read comes to nothing
    if facts.plan.retire && facts.target != Target::Missing && view.rollout.is_none() {
        let made = Box::pin(make::retired(look)).await?;
        return Box::pin(put(look, made, source, view)).await;
    }
    carry_on(context, rotation, (held, &facts.times, source), view).await
}

fn pushes(rotation: &SecretRotation) -> bool {
    rotation.spec.rotation.as_ref().is_some_and(|rotation| !rotation.push.is_empty())
}

/// What cannot be read is no reason to leave what is there half delivered.
async fn carry_on(
    context: &Context,
    rotation: &SecretRotation,
    (held, times, source): (&Held, &Times, Option<&Source>),
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

async fn facts(context: &Context, rotation: &SecretRotation, (held, times): (&Held, Times), view: &mut View) -> Result<Facts, Halt> {
    let (spec, now) = (&rotation.spec, context.clock.now());
    let resolved = resolve::resolve(context.cluster_stores.as_ref(), rotation);
    if let Ok(resolved) = &resolved {
        view.source = Some(resolved.as_ref().map_or_else(|| "generated".into(), |resolved| resolved.source.clone()));
    }
    let (status, mut memory) = (rotation.status.as_ref(), held.memory.clone());
    if decide::only_pushes(spec) {
        memory.handled_refresh = Some(status.and_then(|status| status.handled_refresh.clone()).unwrap_or_default());
    }
    let key = context.roller.restarter.key().await?;
    let (target, mut pending, request) = (held.compared(&key), rotate::pending(context, rotation).await?, target::request(rotation));
    // Who died before these were dropped is followed by who drops them: they were here, and were taken back.
    let was_here = |pending: &Pending| memory.stage.is_rolled_back() && pending.memory.rotation == memory.rotation;
    if pending.as_ref().is_some_and(was_here) && !spec.suspend {
        context.steps.run("drop-pending", rotate::finish(context, rotation, &[&memory])).await?;
        pending = None;
    }
    let last_sync = context.known.last(rotation, last_told(rotation), now);
    let observed = Observed {
        uid: &rotation.uid().unwrap_or_default(),
        spec,
        generation: rotation.metadata.generation,
        request: &request,
        rotate: annotation(rotation, ROTATE_ANNOTATION),
        refresh: annotation(rotation, REFRESH_ANNOTATION),
        target: &target,
        memory: &memory,
        pending: pending.is_some(),
        last_sync,
        words: &context.known.words(rotation),
        live: spec.store.as_ref().is_some_and(Store::is_own_namespace),
        stale: consumption(context, rotation, view).map(|consumption| consumption.stale.len()),
    };
    let plan = decide(&observed, &times, now);
    Ok(Facts { now, times, plan, request, target, pending, last_sync, resolved })
}

/// The plan as it is after what it asked for was done.
pub(super) fn facts_after(context: &Context, rotation: &SecretRotation, facts: &Facts, view: &View) -> Plan {
    let observed = Observed {
        uid: &rotation.uid().unwrap_or_default(),
        spec: &rotation.spec,
        generation: rotation.metadata.generation,
        request: &facts.request,
        rotate: annotation(rotation, ROTATE_ANNOTATION),
        refresh: annotation(rotation, REFRESH_ANNOTATION),
        target: &Target::AsWritten,
        memory: &view.memory,
        pending: false,
        last_sync: context.known.last(rotation, view.synced.or_else(|| last_told(rotation)), facts.now),
        words: &context.known.words(rotation),
        live: false,
        stale: None,
    };
    decide(&observed, &facts.times, facts.now)
}
