//! What every step of a reconcile of a SecretRotation works with: the process ([`Context`]), and what was observed and decided ([`Look`], [`Facts`]).

use std::collections::BTreeSet;

use jiff::Timestamp;
use kube::{Api, Client, ResourceExt};
use tokio::sync::Semaphore;

use super::{
    decide::{Observed, Plan, TargetState, Times, decide},
    memory::Memory,
    reading::{
        pool::StorePool,
        refresh_cache::RefreshCache,
        resolve::{self, ClusterStores, Resolved},
    },
    status::{Halt, Problem, View},
    store::Allowed,
    writing::{
        managed_secret::{self, ManagedSecret},
        rotate::{self, Pending},
    },
};
use crate::{
    api::{REFRESH_ANNOTATION, ROTATE_ANNOTATION, SecretRotation},
    clock::Clock,
    cluster::{
        apply::Writer, backoff::Failures, contest::Contest, current, edits::Edits, events::Events, fields, index::Shared, pace::Pace,
        steps::Steps,
    },
    inventory::template::Source as Used,
    rollout::{consumption::Consumption, roll::Roller},
    telemetry::{audit::Audit, metrics::Metrics},
};

/// The kind, for metrics.
pub const KIND: &str = "SecretRotation";

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
    /// Connections to stores.
    pub pool: StorePool,
    /// What the operator's own settings allow stores to reach.
    pub allowed: Allowed,
    /// What Secrets were made of.
    pub refresh_cache: RefreshCache,
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
    /// Since when somebody else has changed it.
    pub edits: Edits,
    /// What changes by itself.
    pub pace: Pace,
}

/// Who uses the Secret, and who of them has what is in it now.
pub fn consumption(context: &Context, rotation: &SecretRotation, view: &View) -> Option<Consumption> {
    let changed = view.memory.change.since(view.created)?;
    let secret = Used::Secret(rotation.spec.target.name.as_str().into());
    Some(Consumption::of(&context.roller.inventory.consumers(&rotation.namespace().unwrap_or_default(), &secret), &changed, None))
}

/// Nothing is written for a resource that is another by now, or by a process that does not lead any more.
pub async fn is_current(context: &Context, rotation: &SecretRotation) -> Result<(), Halt> {
    context.writer.check()?;
    let api = Api::<SecretRotation>::namespaced(context.client.clone(), &rotation.namespace().unwrap_or_default());
    Ok(current::check(&api, &rotation.metadata, &[ROTATE_ANNOTATION, REFRESH_ANNOTATION]).await?)
}

/// An annotation of the resource; empty: it has none.
pub fn annotation<'a>(rotation: &'a SecretRotation, key: &str) -> &'a str {
    rotation.annotations().get(key).map(String::as_str).unwrap_or_default()
}

/// What a look has found out.
pub struct Facts {
    /// When the look began.
    pub now: Timestamp,
    /// The times in the spec.
    pub times: Times,
    /// What is to be done.
    pub plan: Plan,
    /// A hash of what the spec wants the Secret to hold ([`managed_secret::request`]).
    pub request: String,
    /// How the Secret compares with what was written.
    pub target: TargetState,
    /// Generated values that are on their way.
    pub pending: Option<Pending>,
    /// When the store was read last.
    pub last_sync: Option<Timestamp>,
    /// Which store is meant, or why none can be.
    pub resolved: Result<Option<Resolved>, Problem>,
}

/// A look at one resource that has decided what to do.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// What it works with.
    pub context: &'a Context,
    /// The resource.
    pub rotation: &'a SecretRotation,
    /// Its Secret, as it was read.
    pub held: &'a ManagedSecret,
    /// What was decided, and why.
    pub facts: &'a Facts,
}

/// When the store was read last, as it stands in status.
pub fn last_told(rotation: &SecretRotation) -> Option<Timestamp> {
    rotation.status.as_ref().and_then(|status| status.last_sync_time.as_ref()).map(|time| time.0)
}

/// Observes what a decision rests on, and decides.
pub async fn facts(
    context: &Context,
    rotation: &SecretRotation,
    (held, times, mut pending): (&ManagedSecret, Times, Option<Pending>),
    view: &mut View,
) -> Result<Facts, Halt> {
    let (spec, now) = (&rotation.spec, context.clock.now());
    let resolved = resolve::resolve(context.cluster_stores.as_ref(), rotation);
    if let Ok(resolved) = &resolved {
        view.source = Some(resolved.as_ref().map_or_else(|| "generated".into(), |resolved| resolved.source.clone()));
    }
    let memory = &held.memory;
    let key = context.roller.restarter.key().await?;
    let (target, request) = (held.compared(&key), managed_secret::request(rotation));
    note_edit(context, rotation, held, &target);
    // Who died before these were dropped is followed by who drops them: they were here, and were taken back.
    let was_here = |pending: &Pending| memory.stage.is_rolled_back() && pending.memory.rotation == memory.rotation;
    if pending.as_ref().is_some_and(was_here) && !spec.suspend {
        context.steps.run("drop-pending", rotate::finish(context, rotation, &[memory])).await?;
        pending = None;
    }
    let last_sync = context.refresh_cache.last_read(rotation, last_told(rotation), now);
    let (uid, words) = (rotation.uid().unwrap_or_default(), context.refresh_cache.refresh_keys(rotation));
    let observed = Observed {
        target: &target,
        pending: pending.is_some(),
        last_sync,
        live: spec.reads_own_namespace(),
        stale: consumption(context, rotation, view).map(|consumption| consumption.stale.len()),
        ..settled(rotation, (&uid, &words), &request, (memory, view))
    };
    let plan = decide(&observed, &times, now);
    Ok(Facts { now, times, plan, request, target, pending, last_sync, resolved })
}

/// Since when it is edited, is known to who sees it first.
fn note_edit(context: &Context, rotation: &SecretRotation, held: &ManagedSecret, target: &TargetState) {
    let uid = rotation.uid().unwrap_or_default();
    match (target, &held.meta) {
        (TargetState::AsWritten, _) => context.edits.is_right(&uid),
        (TargetState::Edited(keys), Some(meta)) => {
            let (writer, keys) = (managed_secret::writer(context, rotation), keys.iter().map(String::as_str));
            context.edits.is_edited(&uid, fields::set_by_others_at(meta, writer.manager(), ("data", keys)));
        }
        _ => {}
    }
}

/// The plan as it is after what it asked for was done.
pub fn plan_after(context: &Context, rotation: &SecretRotation, facts: &Facts, view: &View) -> Plan {
    let (uid, words) = (rotation.uid().unwrap_or_default(), context.refresh_cache.refresh_keys(rotation));
    let observed = Observed {
        last_sync: context.refresh_cache.last_read(rotation, view.synced.or_else(|| last_told(rotation)), facts.now),
        ..settled(rotation, (&uid, &words), &facts.request, (&view.memory, view))
    };
    decide(&observed, &facts.times, facts.now)
}

/// Whether a refresh is asked for that was not answered. Without a status nobody knows: it is looked at when there is one.
fn asks_refresh(rotation: &SecretRotation, view: &View) -> bool {
    let Some(status) = rotation.status.as_ref().filter(|status| status.observed_generation.is_some()) else { return false };
    let asked = annotation(rotation, REFRESH_ANNOTATION);
    !asked.is_empty() && view.handled_refresh.as_deref().or(status.handled_refresh.as_deref()) != Some(asked)
}

/// What there is to decide about a resource whose Secret is as it was written, with nothing on its way.
fn settled<'a>(
    rotation: &'a SecretRotation,
    (uid, words): (&'a str, &'a BTreeSet<String>),
    request: &'a str,
    (memory, view): (&'a Memory, &View),
) -> Observed<'a> {
    Observed {
        uid,
        spec: &rotation.spec,
        generation: rotation.metadata.generation,
        request,
        rotate: annotation(rotation, ROTATE_ANNOTATION),
        asks_refresh: asks_refresh(rotation, view),
        target: &TargetState::AsWritten,
        memory,
        pending: false,
        last_sync: None,
        words,
        live: false,
        stale: None,
    }
}
