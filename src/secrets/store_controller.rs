//! SecretStore: whether it lets us in, and how many use it.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kube::{Api, Client, Resource, ResourceExt, core::PartialObjectMeta};

use super::{
    own_credential,
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
        halt::Word,
        index::Shared,
        references::NamespaceSecrets,
        run::{Done, Guarded},
        steps::Steps,
        unreadable,
    },
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
    /// Every act on a credential.
    pub audit: Audit,
    /// The steps by which a store's own credential is replaced.
    pub steps: Steps,
    /// For the backoff.
    pub failures: Failures,
}

/// A store is asked so often whether it still lets us in.
const ROUND: SignedDuration = SignedDuration::from_mins(15);
/// No question to a store takes longer.
const MOST: Duration = Duration::from_secs(30);

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
    let api: Api<PartialObjectMeta<SecretStore>> = Api::all(context.client.clone());
    let written = if *before == after { Ok(()) } else { context.writer.replace_status(&api, object.meta(), &after).await };
    done(&context, &object, problem.as_ref(), (written, now))
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
    let known = last.is_some_and(|last| now.duration_since(last) < ROUND / 2) && conditions::is_true(&before.conditions, READY);
    let (made_at, problem) = match if known { Ok(None) } else { check(context, store).await } {
        Ok(made_at) => (made_at, None),
        Err(Halt::Problem(problem)) => (None, Some(problem)),
        Err(Halt::Superseded(error)) => return Err(error),
    };
    Ok(Look { before, kind: Some(store.spec.store.kind()), checked: !known, made_at, problem })
}

/// Opens it as its users do, asks, replaces its credential if that is due, and gives back what was lent. Returns when the credential was made.
async fn check(context: &Context, store: &SecretStore) -> Result<Option<Timestamp>, Halt> {
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
        let open: Box<dyn OpenStore> = store.spec.store.open(opening).await?;
        let answer = match (open.check().await, own.as_ref().zip(held.as_ref())) {
            (Ok(()), Some(own)) => own_credential::replace(context, store, own, &*open).await,
            (answer, _) => answer.map(|()| None).map_err(Halt::from),
        };
        open.close().await;
        answer
    };
    let late = |_| Err(StoreError::Unavailable(format!("the store did not answer within {MOST:?}")).into());
    tokio::time::timeout(MOST, ask).await.unwrap_or_else(late)
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

fn done(
    context: &Context,
    object: &Guarded<SecretStore>,
    problem: Option<&Problem>,
    (written, now): (Result<(), WriteError>, Timestamp),
) -> Done {
    let uid = object.uid().unwrap_or_default();
    let after = |wait: SignedDuration| Some(Duration::try_from(wait).unwrap_or(Duration::from_secs(5)));
    if let Err(error) = &written
        && !error.is_race()
    {
        tracing::warn!(%error, store = object.name_any(), "status");
    }
    if written.is_err() || problem.is_some() {
        let (reason, outcome) = match problem {
            Some(problem) if problem.reason.needs_a_person() => (problem.reason, Outcome::Stalled),
            Some(problem) => (problem.reason, Outcome::Retry),
            None => (Reason::WriteFailed, Outcome::Retry),
        };
        let wait = retry_after(context.failures.failed(&uid, (reason.as_str(), object.meta().generation)), None, now, &uid);
        return Done { again: after(wait), outcome };
    }
    context.failures.succeeded(&uid);
    Done { again: after(ROUND), outcome: Outcome::Success }
}
