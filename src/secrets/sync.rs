//! Reads what a resource wants from its store: each remote key once, together with all others who want it.

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt, stream};
use jiff::SignedDuration;
use kube::ResourceExt;

use super::{
    compose::Remote,
    controller::Context,
    decide::Plan,
    fetch::Door,
    index::{places, want},
    reason::Reason,
    resolve::Resolved,
    status::Problem,
    store::{OpenStore, Place, Store as _, StoreError},
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

/// So many values of one resource are read at a time.
const AT_ONCE: usize = 8;
/// What was read so shortly ago for somebody else is new enough for who asks for the first time.
const JUST_NOW: SignedDuration = SignedDuration::from_secs(60);
/// All values of one resource are no longer than this together: a Secret has room for 1 MiB, and parts may be taken out of more.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// `find` may find no more.
const MOST_FOUND: usize = 1000;

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

fn is_periodic(spec: &SecretRotationSpec) -> bool {
    spec.refresh_policy == RefreshPolicy::Periodic && !spec.refresh_interval.signed().is_zero()
}

/// Reads all that the spec names and finds. An error of a single value is part of the answer; one of the store is the problem.
pub async fn read(context: &Context, rotation: &SecretRotation, source: &Source, plan: &Plan) -> Result<Remote, Problem> {
    let now = context.clock.now();
    let fresh = match plan.read {
        // Who comes late in a round takes what was read for it.
        Some(Reason::RefreshDue) => plan.next_sync.filter(|due| *due <= now).unwrap_or(now),
        // Only where it is read again by itself.
        Some(Reason::Missing) if plan.generate.is_none() && is_periodic(&rotation.spec) => now - JUST_NOW,
        _ => now,
    };
    let mut remote = Remote::default();
    let mut wanted: BTreeSet<Place> = places(&rotation.spec);
    for find in rotation.spec.data_from.iter().filter_map(|from| from.find.as_ref()) {
        let found = source.door.call(source.store.find(find)).await;
        source.door.heard(&found);
        let mut found = found.map_err(|error| away(context, rotation, &source.door, error))?;
        // What we write ourselves is no source of it.
        if source.resolved.spec.is_own_namespace() {
            let own = [Which::Target, Which::Previous, Which::Pending].map(|which| which.name(rotation));
            found.retain(|name| !own.contains(name));
        }
        if found.len() > MOST_FOUND {
            let message = format!("dataFrom.find finds {} values, more than {MOST_FOUND}; narrow it", found.len());
            return Err(Problem::new(Reason::ValueInvalid, message));
        }
        wanted.extend(found.iter().map(|key| Place { key: key.clone(), version: None }));
        remote.found.insert(find.clone(), found);
    }
    let who = noticed::key(rotation);
    let reads = wanted.into_iter().map(|place| {
        let (who, scope) = (&who, &source.resolved.scope);
        async move {
            let count = context.index.read(|index| index.count_of(&want(scope, &place))).max(1);
            let answer = source.door.read(&source.store, &place, who, (fresh, count)).await;
            (place, answer)
        }
    });
    let mut answers = std::pin::pin!(stream::iter(reads).buffer_unordered(AT_ONCE));
    let mut bytes = 0;
    while let Some((place, answer)) = answers.next().await {
        bytes += answer.as_ref().as_ref().map_or(0, |stored| stored.content.len());
        if bytes > MOST_BYTES {
            let message = format!("the values that the spec names are together longer than {MOST_BYTES} bytes; the Secret stays as it is");
            return Err(Problem::new(Reason::ValueInvalid, message));
        }
        remote.values.insert(place, answer);
    }
    let of_store = remote.values.values().find_map(|answer| answer.as_ref().as_ref().err().filter(|error| error.is_of_the_store()));
    match of_store {
        Some(error) => Err(away(context, rotation, &source.door, error.clone())),
        None => Ok(remote),
    }
}
