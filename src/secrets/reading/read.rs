//! Reads what a resource wants from its store: each remote key once, together with all others who want it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::{
    breaker::MAX_BACKOFF,
    coalesce::Demand,
    connection::{Admission, StoreConnection},
    refresh_times,
    resolve::Resolved,
};
use crate::{
    api::SecretRotation,
    cluster::noticed,
    schedule::jitter,
    secrets::{
        contents::compose::Remote,
        context::Context,
        decide::Plan,
        index::{finds, places, reads_found, reads_to_push, reads_value},
        reason::Reason,
        status::Problem,
        store::{Find, OpenStore, Place, StoreError},
        writing::managed_secret::SecretSlot,
    },
};

/// So many calls for values of one resource are under way at a time.
const MAX_CONCURRENT_READS: usize = 4;
/// What was read so shortly ago for somebody else is new enough for who asks for the first time.
const REUSE_WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// All values of one resource are no longer than this together: a Secret has room for 1 MiB, and parts may be taken out of more.
const MAX_TOTAL_BYTES: usize = 8 * 1024 * 1024;
/// `find` may find no more.
const MAX_FOUND: usize = 1000;

/// All values of one resource take no longer, so that a slow store does not hold a place for long.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(45);

/// A store that can be asked.
pub struct Source {
    /// Shared by all who use the store.
    pub connection: Arc<StoreConnection>,
    /// Itself.
    pub store: Arc<dyn OpenStore>,
    /// Which store it is.
    pub resolved: Resolved,
    /// That it may be asked.
    _admission: Admission,
}

/// Opens the store, unless it is to be left alone.
pub async fn source(context: &Context, rotation: &SecretRotation, resolved: Resolved) -> Result<Source, Problem> {
    let connection = super::resolve::connection(context, &resolved);
    let admission = match connection.try_acquire() {
        Ok(admission) => admission,
        Err(error) => return Err(away(context, rotation, &connection, error)),
    };
    match super::resolve::open(context, &resolved, &connection).await {
        Ok(store) => Ok(Source { connection, store, resolved, _admission: admission }),
        Err(error) => Err(away(context, rotation, &connection, error)),
    }
}

/// An error of a store as a problem of the resource. If it is store-wide, the resource is woken when the store answers again, and asks by itself at a time
/// of its own after the pause.
pub fn away(context: &Context, rotation: &SecretRotation, connection: &StoreConnection, error: StoreError) -> Problem {
    let until = error.is_store_wide().then(|| connection.wake_on_recovery(&noticed::key(rotation))).flatten();
    if until.is_some() {
        super::resolve::tell_store(context.cluster_stores.as_ref(), rotation);
    }
    let problem = Problem::from(error);
    let Some(until) = until else { return problem };
    let wait = until.duration_since(context.clock.now()).max(SignedDuration::from_secs(1));
    let after = wait + jitter(&rotation.uid().unwrap_or_default(), wait.clamp(SignedDuration::from_secs(30), MAX_BACKOFF));
    Problem { after: Some(after), ..problem }
}

/// How many want a value, to read it or to compare it with what they push.
pub fn takers(context: &Context, scope: &str, place: &Place) -> usize {
    context.index.read(|index| {
        let pushed = if place.version.is_none() { index.count_of(&reads_to_push(scope, &place.key)) } else { 0 };
        (index.count_of(&reads_value(scope, place)) + pushed).max(1)
    })
}

async fn bounded(work: impl Future<Output = Result<Remote, Problem>>) -> Result<Remote, Problem> {
    let late = |_| {
        let message = format!("the store did not give all values within {TOTAL_TIMEOUT:?}; name fewer of them, or look why it is slow");
        Err(Problem::new(Reason::StoreUnavailable, message))
    };
    tokio::time::timeout(TOTAL_TIMEOUT, work).await.unwrap_or_else(late)
}

/// Since when what was read for somebody else is new enough.
fn fresh(context: &Context, rotation: &SecretRotation, plan: &Plan) -> Timestamp {
    let now = context.clock.now();
    if rotation.spec.reads_own_namespace() {
        return now; // where changes are told, what was read before one is old
    }
    match plan.read {
        // A resource that is late in its round may take what was read in this round, never what was read in an earlier one.
        Some(Reason::RefreshDue) => {
            let round = || refresh_times::round(&rotation.spec, &context.refresh_cache.refresh_keys(rotation), now);
            plan.next_sync.filter(|due| *due <= now).map_or(now, |due| round().map_or(due, |round| round.max(due)))
        }
        // Only where it is read again by itself.
        Some(Reason::Missing) if plan.generate.is_none() && rotation.spec.is_periodic() => now - REUSE_WINDOW,
        Some(reason) if is_of_resource(rotation, reason) && is_first_try(context, rotation) => noticed(context, rotation).unwrap_or(now),
        _ => now,
    }
}

/// Whether it is the resource that is new or another one, and not its Secret. Many that come, are changed or asked for anew together ask once: what was asked
/// for after that was known is new enough. Who writes to the store looks for itself.
fn is_of_resource(rotation: &SecretRotation, reason: Reason) -> bool {
    let status = rotation.status.as_ref();
    let is = match reason {
        Reason::Missing => status.is_none_or(|status| status.revision.is_none()),
        Reason::SpecChanged => status.is_none_or(|status| status.observed_generation != rotation.metadata.generation),
        Reason::RefreshRequested => true,
        _ => false,
    };
    is && rotation.spec.rotation.is_none()
}

fn is_first_try(context: &Context, rotation: &SecretRotation) -> bool {
    let uid = rotation.uid().unwrap_or_default();
    !context.failures.has_failed(&uid) && !context.races.has_failed(&uid)
}

/// When the resource was noticed to be as it is, by the clock of the looks.
fn noticed(context: &Context, rotation: &SecretRotation) -> Option<Timestamp> {
    let noticed = context.index.read(|index| index.noticed(&noticed::key(rotation)))?;
    context.clock.now().checked_sub(SignedDuration::try_from(noticed.elapsed()).ok()?).ok()
}

/// What is read for one resource.
pub struct Reading<'a> {
    context: &'a Context,
    rotation: &'a SecretRotation,
    source: &'a Source,
    fresh: Timestamp,
    remote: Remote,
}

impl<'a> Reading<'a> {
    /// Nothing yet. An error of a single value is part of what is read; one of the store is the problem.
    pub fn of(context: &'a Context, rotation: &'a SecretRotation, source: &'a Source, plan: &Plan) -> Self {
        Self { context, rotation, source, fresh: fresh(context, rotation, plan), remote: Remote::default() }
    }

    /// Reads all that the spec names and finds, but for what was read just `before`.
    pub async fn all(mut self, before: Remote) -> Result<Remote, Problem> {
        self.remote = before;
        let spec = &self.rotation.spec;
        let all = async {
            self.find(finds(spec)).await?;
            let found = self.remote.found.iter().flat_map(|(find, names)| names.iter().map(move |name| (find, name)));
            let found = found.map(|(find, key)| (Place { key: key.clone(), version: None }, self.count(&reads_found(self.scope(), find))));
            // How many want each of them.
            let mut wanted: BTreeMap<Place, usize> = BTreeMap::new();
            for (place, count) in found {
                *wanted.entry(place).or_default() += count;
            }
            for place in places(spec) {
                let count = takers(self.context, self.scope(), &place);
                *wanted.entry(place).or_default() += count;
            }
            self.remote.values.retain(|place, _| wanted.contains_key(place));
            wanted.retain(|place, _| !self.remote.values.contains_key(place));
            self.values(wanted).await?;
            Ok(self.remote)
        };
        bounded(all).await
    }

    /// Reads these alone.
    pub async fn some(mut self, to_find: Vec<&Find>, to_read: BTreeSet<Place>) -> Result<Remote, Problem> {
        let spec = &self.rotation.spec;
        let some = async {
            self.find(to_find.into_iter()).await?;
            let named = places(spec);
            let wanted = to_read.into_iter().map(|place| {
                // What was found is wanted by all who look for the same.
                let count = if named.contains(&place) {
                    takers(self.context, self.scope(), &place)
                } else {
                    finds(spec).map(|find| self.count(&reads_found(self.scope(), find))).sum()
                };
                (place, count)
            });
            let wanted = wanted.collect();
            self.values(wanted).await?;
            Ok(self.remote)
        };
        bounded(some).await
    }

    fn scope(&self) -> &str {
        &self.source.resolved.scope
    }

    /// How many want it.
    fn count(&self, want: &str) -> usize {
        self.context.index.read(|index| index.count_of(want)).max(1)
    }

    fn away(&self, error: StoreError) -> Problem {
        away(self.context, self.rotation, &self.source.connection, error)
    }

    async fn find(&mut self, finds: impl Iterator<Item = &Find>) -> Result<(), Problem> {
        let (who, source) = (noticed::key(self.rotation), self.source);
        for find in finds {
            if self.remote.found.contains_key(find) {
                continue;
            }
            let number = self.rotation.spec.data_from.iter().position(|from| from.find.as_ref() == Some(find)).unwrap_or_default();
            let field = format!("dataFrom[{number}].find");
            let sharers = self.count(&reads_found(self.scope(), find));
            let found = source.connection.find(&source.store, (find, &who), Demand { fresh_since: self.fresh, readers: sharers }).await;
            let mut found = (*found).clone().map_err(|error| {
                let problem = self.away(error);
                Problem { message: format!("{field}: {}", problem.message), ..problem }
            })?;
            // What we write ourselves is no source of it.
            if source.resolved.is_own_of(self.rotation) {
                found.retain(|name| !SecretSlot::all(self.rotation).contains(name));
            }
            if found.len() > MAX_FOUND {
                let message = format!("{field} finds {} values, more than {MAX_FOUND}; narrow it", found.len());
                return Err(Problem::new(Reason::ValueInvalid, message));
            }
            self.remote.found.insert(find.clone(), found);
        }
        Ok(())
    }

    async fn values(&mut self, wanted: BTreeMap<Place, usize>) -> Result<(), Problem> {
        let (who, source, fresh) = (&noticed::key(self.rotation), self.source, self.fresh);
        let reads = wanted.into_iter().map(|(place, wanted)| async move {
            // Another call has just told that it is away.
            let answer = match source.connection.pause() {
                Some((_, error)) => Arc::new(Err(error)),
                None => source.connection.read(&source.store, (&place, who), Demand { fresh_since: fresh, readers: wanted }).await,
            };
            (place, answer)
        });
        let at_once = source.connection.max_reads(&*source.store, MAX_CONCURRENT_READS);
        let mut answers = std::pin::pin!(stream::iter(reads).buffer_unordered(at_once));
        let mut bytes = self.remote.bytes();
        while let Some((place, answer)) = answers.next().await {
            bytes += answer.as_ref().as_ref().map_or(0, |stored| stored.content.len());
            if bytes > MAX_TOTAL_BYTES {
                let message =
                    format!("the values that the spec names are together longer than {MAX_TOTAL_BYTES} bytes; the Secret stays as it is");
                return Err(Problem::new(Reason::ValueInvalid, message));
            }
            self.remote.values.insert(place, answer);
        }
        let errors = self.remote.values.values().filter_map(|answer| answer.as_ref().as_ref().err());
        match errors.into_iter().find(|error| error.is_store_wide()).cloned() {
            Some(error) => Err(self.away(error)),
            None => Ok(()),
        }
    }
}
