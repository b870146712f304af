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
    compose::Remote,
    controller::Context,
    decide::Plan,
    fetch::Door,
    index::{finds, places, want, want_found, want_to_push},
    reason::Reason,
    refresh,
    resolve::Resolved,
    status::Problem,
    store::{Find, OpenStore, Place, Store, StoreError},
    target::Which,
};
use crate::{
    api::{
        SecretRotation,
        secret_rotation::{RefreshPolicy, SecretRotationSpec},
    },
    cluster::noticed,
    schedule::jitter,
};

/// So many calls for values of one resource are under way at a time.
const AT_ONCE: usize = 4;
/// What was read so shortly ago for somebody else is new enough for who asks for the first time.
const JUST_NOW: SignedDuration = SignedDuration::from_secs(60);
/// All values of one resource are no longer than this together: a Secret has room for 1 MiB, and parts may be taken out of more.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// `find` may find no more.
const MOST_FOUND: usize = 1000;

/// All values of one resource take no longer, so that a slow store does not hold a place for long.
const WHOLE: Duration = Duration::from_secs(45);

/// A store that can be asked.
pub struct Source {
    /// Shared by all who use it.
    pub door: Arc<Door>,
    /// Itself.
    pub store: Arc<dyn OpenStore>,
    /// Which.
    pub resolved: Resolved,
}

/// Opens the store, unless it is to be left alone.
pub async fn source(context: &Context, rotation: &SecretRotation, resolved: Resolved) -> Result<Source, Problem> {
    let door = super::resolve::door(context, &resolved);
    if let Err(error) = door.may() {
        return Err(away(context, rotation, &door, error));
    }
    match super::resolve::open(context, &resolved, &door).await {
        Ok(store) => Ok(Source { door, store, resolved }),
        Err(error) => Err(away(context, rotation, &door, error)),
    }
}

/// What a store said. If it is about the store as a whole, the first who comes when it may be asked again asks, and all others are told then.
pub fn away(context: &Context, rotation: &SecretRotation, door: &Door, error: StoreError) -> Problem {
    let until = error.is_of_the_store().then(|| door.waits(&noticed::key(rotation))).flatten();
    let problem = Problem::from(error);
    let Some(until) = until else { return problem };
    let wait = until.duration_since(context.clock.now()).max(SignedDuration::from_secs(1));
    let after = wait + jitter(&rotation.uid().unwrap_or_default(), wait.max(SignedDuration::from_secs(30)));
    Problem { after: Some(after), ..problem }
}

/// Whether it is read again by itself.
pub fn is_periodic(spec: &SecretRotationSpec) -> bool {
    spec.refresh_policy == RefreshPolicy::Periodic && !spec.refresh_interval.signed().is_zero()
}

/// How many want a value, to read it or to compare it with what they push.
pub fn takers(context: &Context, scope: &str, place: &Place) -> usize {
    context.index.read(|index| {
        let pushed = if place.version.is_none() { index.count_of(&want_to_push(scope, &place.key)) } else { 0 };
        (index.count_of(&want(scope, place)) + pushed).max(1)
    })
}

async fn bounded(work: impl Future<Output = Result<Remote, Problem>>) -> Result<Remote, Problem> {
    let late = |_| {
        let message = format!("the store did not give all values within {WHOLE:?}; name fewer of them, or look why it is slow");
        Err(Problem::new(Reason::StoreUnavailable, message))
    };
    tokio::time::timeout(WHOLE, work).await.unwrap_or_else(late)
}

/// Since when what was read for somebody else is new enough.
fn fresh(context: &Context, rotation: &SecretRotation, plan: &Plan) -> Timestamp {
    let now = context.clock.now();
    if rotation.spec.store.as_ref().is_some_and(Store::is_own_namespace) {
        return now; // where changes are told, what was read before one is old
    }
    match plan.read {
        // Who comes late in a round takes what was read for it, and nobody what is older than an interval.
        Some(Reason::RefreshDue) => {
            let round = || refresh::round(&rotation.spec, &context.known.words(rotation), now);
            plan.next_sync.filter(|due| *due <= now).map_or(now, |due| round().map_or(due, |round| round.max(due)))
        }
        // Only where it is read again by itself.
        Some(Reason::Missing) if plan.generate.is_none() && is_periodic(&rotation.spec) => now - JUST_NOW,
        _ => now,
    }
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
            let found = found.map(|(find, key)| (Place { key: key.clone(), version: None }, self.count(&want_found(self.scope(), find))));
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
                    finds(spec).map(|find| self.count(&want_found(self.scope(), find))).sum()
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
        away(self.context, self.rotation, &self.source.door, error)
    }

    async fn find(&mut self, finds: impl Iterator<Item = &Find>) -> Result<(), Problem> {
        let (who, source) = (noticed::key(self.rotation), self.source);
        for find in finds {
            if self.remote.found.contains_key(find) {
                continue;
            }
            let sharers = self.count(&want_found(self.scope(), find));
            let found = source.door.find(&source.store, find, &who, (self.fresh, sharers)).await;
            let mut found = (*found).clone().map_err(|error| self.away(error))?;
            // What we write ourselves is no source of it.
            if source.resolved.is_own_of(self.rotation) {
                found.retain(|name| !Which::all(self.rotation).contains(name));
            }
            if found.len() > MOST_FOUND {
                let message = format!("dataFrom.find finds {} values, more than {MOST_FOUND}; narrow it", found.len());
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
            let answer = match source.door.left_alone() {
                Some((_, error)) => Arc::new(Err(error)),
                None => source.door.read(&source.store, &place, who, (fresh, wanted)).await,
            };
            (place, answer)
        });
        let at_once = source.door.at_once(&*source.store, AT_ONCE);
        let mut answers = std::pin::pin!(stream::iter(reads).buffer_unordered(at_once));
        let mut bytes = self.remote.bytes();
        while let Some((place, answer)) = answers.next().await {
            bytes += answer.as_ref().as_ref().map_or(0, |stored| stored.content.len());
            if bytes > MOST_BYTES {
                let message =
                    format!("the values that the spec names are together longer than {MOST_BYTES} bytes; the Secret stays as it is");
                return Err(Problem::new(Reason::ValueInvalid, message));
            }
            self.remote.values.insert(place, answer);
        }
        let errors = self.remote.values.values().filter_map(|answer| answer.as_ref().as_ref().err());
        match errors.into_iter().find(|error| error.is_of_the_store()).cloned() {
            Some(error) => Err(self.away(error)),
            None => Ok(()),
        }
    }
}
