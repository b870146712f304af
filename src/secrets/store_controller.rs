//! SecretStore: whether it lets us in, and how many use it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use kube::{Client, Resource, ResourceExt};

use super::{
    index::scope_of,
    own_credential,
    reading::{
        breaker::{AFTER_REFUSALS, MAX_BACKOFF, QUICK_LOGINS},
        connection::{Admission, CALL_TIMEOUT, StoreConnection},
        pool::{ConnectionId, StorePool},
        resolve,
    },
    reason::Reason,
    status::{Halt, Problem},
    store::{Allowed, OpenStore, Opening, Store, StoreError},
};
use crate::{
    api::{SecretStore, secret_store::SecretStoreStatus},
    clock::Clock,
    cluster::{
        apply::{WriteError, Writer},
        backoff::{Failures, retry_after},
        conditions::{self, Finding, READY, STALLED, seconds},
        events::{Events, Note},
        halt::Word,
        index::Shared,
        references::NamespaceSecrets,
        run::{Done, Guarded},
        steps::Steps,
        unreadable,
    },
    inventory::{Facts, secrets::SecretFact},
    telemetry::{audit::Audit, metrics::Outcome},
};

/// The kind, for metrics.
pub const KIND: &str = "SecretStore";

/// What a look works with.
pub struct Context {
    /// For reads.
    pub client: Client,
    /// For writes.
    pub writer: Writer,
    /// The time.
    pub clock: Clock,
    /// Who names which store.
    pub index: Shared,
    /// Where the Secrets of stores lie.
    pub operator_namespace: String,
    /// What the operator's own settings allow stores to reach.
    pub allowed: Allowed,
    /// What a person wants to know.
    pub events: Events,
    /// Every act on a credential.
    pub audit: Audit,
    /// The steps by which a store's own credential is replaced.
    pub steps: Steps,
    /// For the backoff.
    pub failures: Failures,
    /// Connections of those who use it.
    pub pool: StorePool,
    /// The Secrets of the cluster.
    pub secrets: Facts<SecretFact>,
    /// How the last checks ended.
    pub checks: Checks,
}

/// How the last checks ended, by uid: that a resource refers to a store is no reason to ask it sooner, other credentials are.
#[derive(Default)]
pub struct Checks(Mutex<LastChecks>);

#[derive(Default)]
struct LastChecks {
    passed: HashMap<String, ConnectionId>,
    /// What it said, until it is asked again.
    failed: HashMap<String, (ConnectionId, Timestamp, Problem)>,
}

impl Checks {
    /// Whether the last check of this process that passed was of the same store with the same credentials.
    fn passed_with(&self, uid: &str, identity: &ConnectionId) -> bool {
        self.lock().passed.get(uid) == Some(identity)
    }

    fn passed(&self, uid: String, identity: ConnectionId) {
        let mut last = self.lock();
        if last.passed.len() > MAX_PASSED {
            last.passed.clear();
        }
        last.failed.remove(&uid);
        last.passed.insert(uid, identity);
    }

    /// The problem, if it is still that of the same store with the same credentials.
    fn problem(&self, uid: &str, identity: &ConnectionId, now: Timestamp) -> Option<Problem> {
        let last = self.lock();
        let (_, until, problem) = last.failed.get(uid).filter(|(known, until, _)| known == identity && *until > now)?;
        Some(Problem { after: Some(until.duration_since(now)), ..problem.clone() })
    }

    /// Whether the last check of this process has failed.
    fn has_failed(&self, uid: &str) -> bool {
        self.lock().failed.contains_key(uid)
    }

    fn failed(&self, uid: String, identity: ConnectionId, until: Timestamp, problem: Problem) {
        let mut last = self.lock();
        last.passed.remove(&uid);
        last.failed.retain(|_, (_, last, _)| *last > until - FORGET_AFTER);
        last.failed.insert(uid, (identity, until, problem));
    }

    fn lock(&self) -> MutexGuard<'_, LastChecks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More SecretStores than any cluster has; those that are gone are forgotten with the others.
const MAX_PASSED: usize = 10_000;

/// How often a store is asked whether it still lets us in.
const CHECK_INTERVAL: SignedDuration = SignedDuration::from_mins(15);
/// When to look again whether who uses the store has had an answer.
const SEEN_AGAIN: SignedDuration = SignedDuration::from_secs(15);
/// When to look again while a user of the store probes it.
const PROBE_RETRY: SignedDuration = SignedDuration::from_secs(5);
/// What a store said so long ago is forgotten.
const FORGET_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// Looks at one store.
pub async fn reconcile(object: Arc<Guarded<SecretStore>>, context: Arc<Context>) -> Done {
    let now = context.clock.now();
    if context.writer.is_outdated(object.meta()) {
        return Done { again: Some(Duration::from_millis(300)), outcome: Outcome::Retry };
    }
    let look = match look(&object, &context, now).await {
        Ok(look) => look,
        Err(superseded) => {
            tracing::debug!(store = object.name_any(), %superseded, "looked at again");
            return Done::superseded(&context.failures, &object.uid().unwrap_or_default(), now);
        }
    };
    let (generation, Look { problem, before, .. }) = (object.meta().generation, &look);
    let after = SecretStoreStatus {
        observed_generation: generation,
        conditions: conditions::merge(&before.conditions, findings(problem.as_ref()), generation, now),
        kind: look.kind.map(ToOwned::to_owned),
        resources: i64::try_from(context.index.read(|index| index.count_of_users(&object.name_any()))).ok(),
        last_check_time: look.checked.then(|| seconds(now)).or_else(|| before.last_check_time.clone()),
        last_credential_rotation_time: look.made_at.map(seconds).or_else(|| before.last_credential_rotation_time.clone()),
    };
    tell_people(&context, &object, (before, &after), problem.as_ref());
    let replaced = context.writer.replace_status::<SecretStore>(object.meta(), &after);
    let written = if *before == after { Ok(()) } else { replaced.await };
    done(&context, &object, look, (written, now))
}

/// That it fails, of what, and that it lets us in again.
fn tell_people(
    context: &Context,
    object: &Guarded<SecretStore>,
    (before, after): (&SecretStoreStatus, &SecretStoreStatus),
    problem: Option<&Problem>,
) {
    if !conditions::is_news(&before.conditions, &after.conditions, READY) {
        return;
    }
    if let Some(Problem { reason, message, .. }) = problem {
        tracing::warn!(store = object.name_any(), %reason, message, "the store does not let us in");
        context.events.send(object, &Note { warning: true, reason: reason.as_str(), action: "Check", text: message });
    } else if before.conditions.iter().any(|condition| condition.type_ == READY) {
        tracing::info!(store = object.name_any(), "the store lets us in again");
        let note = Note { warning: false, reason: Reason::Current.as_str(), action: "Check", text: "the store lets us in again" };
        context.events.send(object, &note);
    }
}

/// What was seen.
#[derive(Default)]
struct Look {
    /// The status before.
    before: SecretStoreStatus,
    /// Its word; None: it cannot be read.
    kind: Option<&'static str>,
    /// It was asked to let us in.
    checked: bool,
    /// When its own credential was made, if that was asked for.
    made_at: Option<Timestamp>,
    /// What went wrong.
    problem: Option<Problem>,
    /// Of what.
    identity: Option<ConnectionId>,
}

/// Fails only when what it rests on was superseded.
async fn look(object: &Guarded<SecretStore>, context: &Context, now: Timestamp) -> Result<Look, WriteError> {
    let store = match &object.0 {
        Ok(store) => store,
        Err(invalid) => {
            let message = format!("this object cannot be read as a SecretStore: {}; correct the field", invalid.error);
            let before = unreadable::status::<SecretStore, _>(&context.client, object.meta()).await?;
            return Ok(Look { before, problem: Some(Problem::new(Reason::Malformed, message)), ..Look::default() });
        }
    };
    let before = store.status.clone().unwrap_or_default();
    // That its status says another count of users is no reason to ask it.
    let last = before.last_check_time.as_ref().map(|time| time.0).filter(|_| before.observed_generation == object.meta().generation);
    let place = (scope_of(&store.name_any()), &context.operator_namespace);
    let identity = resolve::identity(&context.secrets, (&place.0, place.1), &store.spec.store);
    let connection = context.pool.opened(&identity);
    let uid = store.uid().unwrap_or_default();
    let is_recent = last.is_some_and(|last| now.duration_since(last) < CHECK_INTERVAL / 2);
    let known = is_recent && context.checks.passed_with(&uid, &identity);
    let failed = context.checks.problem(&uid, &identity, now);
    let seen = Look { before, kind: Some(store.spec.store.kind()), identity: Some(identity), ..Look::default() };
    let failure = connection.as_deref().and_then(StoreConnection::failure);
    // Who uses it has found out, and finds out when it answers again: what lets us in need not have the values.
    if let Some((_, error)) = failure.clone().filter(|(until, _)| !context.checks.has_failed(&uid) && now < *until + MAX_BACKOFF) {
        return Ok(Look { problem: Some(Problem { after: Some(SEEN_AGAIN), ..error.into() }), ..seen });
    }
    if known && failure.is_none() {
        return Ok(seen);
    }
    if let Some(problem) = failed {
        return Ok(Look { problem: Some(problem), ..seen });
    }
    let _admission = match admitted(connection.as_ref(), now) {
        Ok(admission) => admission,
        Err(problem) => return Ok(Look { problem: Some(problem), ..seen }),
    };
    match check(context, store, connection.as_deref()).await {
        Ok(made_at) => Ok(Look { checked: true, made_at, ..seen }),
        Err(Halt::Problem(problem)) => {
            // It is asked again when its users ask it again.
            let alone = connection.as_deref().and_then(StoreConnection::pause).map(|(until, _)| until.duration_since(now));
            Ok(Look { checked: true, problem: Some(Problem { after: alone.or(problem.after), ..problem }), ..seen })
        }
        Err(Halt::Superseded(error)) => Err(error),
    }
}

/// Err: the store is not to be asked now, because calls pause or a user of it is probing it. Ok: the caller may ask, and is the probe if one was due.
fn admitted(connection: Option<&Arc<StoreConnection>>, now: Timestamp) -> Result<Option<Admission>, Problem> {
    let Some(connection) = connection else { return Ok(None) };
    if let Some((until, error)) = connection.pause() {
        return Err(Problem { after: Some(until.duration_since(now)), ..error.into() });
    }
    connection.try_acquire().map(Some).map_err(|error| Problem { after: Some(PROBE_RETRY), ..error.into() })
}

/// Opens it as its users do, asks, replaces its credential if that is due, and gives back what was lent. Returns when the credential was made. Its
/// users hear what it said.
async fn check(context: &Context, store: &SecretStore, connection: Option<&StoreConnection>) -> Result<Option<Timestamp>, Halt> {
    store.spec.store.validate(true)?;
    let secrets = NamespaceSecrets::new(context.client.clone(), &context.operator_namespace);
    let allowed = context.allowed.of_administrators();
    let opening = Opening {
        secrets: &secrets,
        namespace: &context.operator_namespace,
        cluster: Some(&context.client),
        writer: None,
        allowed: &allowed,
    };
    let ask = async {
        let own = store.spec.store.own_credential();
        let held = match &own {
            Some(own) => Some(own_credential::read(context, own).await?),
            None => None,
        };
        let opened = store.spec.store.open(opening).await;
        let open: Box<dyn OpenStore> = opened?;
        let lets_in = open.check().await;
        // That it refuses a new login says nothing about who is logged in; nor does what keeps it from being opened anew, or how long all of this takes.
        if let Some(connection) = connection.filter(|_| !matches!(lets_in, Err(StoreError::Unauthenticated(_)))) {
            connection.record(&lets_in);
        }
        let answer = match (lets_in, own.as_ref().zip(held.as_ref())) {
            (Ok(()), Some(own)) => own_credential::replace(context, store, own, &*open).await,
            (answer, _) => answer.map(|()| None).map_err(Halt::from),
        };
        open.close().await;
        answer
    };
    let late = |_| Err(StoreError::Unavailable(format!("the store did not answer within {CALL_TIMEOUT:?}")).into());
    tokio::time::timeout(CALL_TIMEOUT, ask).await.unwrap_or_else(late)
}

fn findings(problem: Option<&Problem>) -> Vec<Finding> {
    let Some(problem) = problem else {
        return vec![Finding {
            kind: READY,
            status: true,
            reason: Reason::Current.as_str().into(),
            message: "the store lets us in".into(),
        }];
    };
    let finding = |kind, status| Finding { kind, status, reason: problem.reason.as_str().into(), message: problem.message.clone() };
    let stalled = problem.reason.needs_a_person().then(|| finding(STALLED, true));
    std::iter::once(finding(READY, false)).chain(stalled).collect()
}

/// How long a store is left alone that may have asked for that itself.
fn pause(asked: SignedDuration) -> SignedDuration {
    asked.clamp(SignedDuration::from_secs(1), AFTER_REFUSALS)
}

fn done(context: &Context, object: &Guarded<SecretStore>, look: Look, (written, now): (Result<(), WriteError>, Timestamp)) -> Done {
    let uid = object.uid().unwrap_or_default();
    let after = |wait: SignedDuration| Some(Duration::try_from(wait).unwrap_or(Duration::from_secs(5)));
    if let Err(error) = &written
        && !error.is_race()
    {
        tracing::warn!(%error, store = object.name_any(), "status");
    }
    let Some(problem) = look.problem.filter(|_| written.is_ok()) else {
        if written.is_ok() {
            context.failures.succeeded(&uid);
            if let Some(identity) = look.identity.filter(|_| look.checked) {
                context.checks.passed(uid, identity);
            }
            return Done { again: after(CHECK_INTERVAL), outcome: Outcome::Success };
        }
        let wait = retry_after(context.failures.failed(&uid, (Reason::WriteFailed.as_str(), object.meta().generation)), None, now, &uid);
        return Done { again: after(wait), outcome: Outcome::Retry };
    };
    let outcome = if problem.reason.needs_a_person() { Outcome::Stalled } else { Outcome::Retry };
    let failed = || {
        let failures = context.failures.failed(&uid, (problem.reason.as_str(), object.meta().generation));
        let is_refused = problem.reason == Reason::StoreDenied && failures >= QUICK_LOGINS;
        if is_refused { AFTER_REFUSALS } else { retry_after(failures, None, now, &uid).min(CHECK_INTERVAL) }
    };
    let wait = pause(problem.after.unwrap_or_else(failed));
    if let Some(identity) = look.identity.filter(|_| look.checked) {
        context.checks.failed(uid, identity, now + wait, problem);
    }
    Done { again: after(wait), outcome }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_left_alone_for_a_while_whatever_it_asks_for() {
        for (asked, wanted) in [(-5, 1), (0, 1), (90, 90), (31_536_000, AFTER_REFUSALS.as_secs()), (i64::MAX, AFTER_REFUSALS.as_secs())] {
            assert_eq!(pause(SignedDuration::from_secs(asked)).as_secs(), wanted);
        }
    }

    #[test]
    fn only_what_this_process_has_seen_counts() {
        let of = |credentials: &str| ConnectionId { owner: "o".into(), spec: "s".into(), credentials: credentials.into() };
        let checks = Checks::default();
        assert!(!checks.passed_with("u", &of("c")));
        checks.passed("u".into(), of("c"));
        assert!(checks.passed_with("u", &of("c")) && !checks.passed_with("u", &of("other")));
    }
}
