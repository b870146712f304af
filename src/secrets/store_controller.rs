//! SecretStore: whether it lets us in, and how many use it.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kube::{Api, Client, Resource, ResourceExt, core::PartialObjectMeta};

use super::{
    own_credential,
    reason::Reason,
    status::Problem,
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
        unreadable,
    },
    telemetry::{audit::Audit, metrics::Outcome},
};

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
    let (problem, before, kind) = match &object.0 {
        Ok(store) => {
            // That its status says another count of users is no reason to ask it.
            let status = store.status.clone().unwrap_or_default();
            let last =
                status.last_check_time.as_ref().map(|time| time.0).filter(|_| status.observed_generation == object.meta().generation);
            let known = last.is_some_and(|last| now.duration_since(last) < ROUND / 2) && conditions::is_true(&status.conditions, READY);
            let looked = if known { Ok(None) } else { check(&context, store).await };
            let made_at = looked.as_ref().ok().copied().flatten();
            (looked.err(), (status, (!known).then_some(now), made_at), Some(store.spec.store.kind()))
        }
        Err(invalid) => {
            let message = format!("this object cannot be read as a SecretStore: {}; correct the field", invalid.error);
            let problem = Problem::new(Reason::Malformed, message);
            match unreadable::status::<SecretStore, SecretStoreStatus>(&context.client, object.meta()).await {
                Ok(before) => (Some(problem), (before, None, None), None),
                Err(error) => return done(&context, &object, Some(&problem), Err(error), now),
            }
        }
    };
    let (generation, (before, checked, made_at)) = (object.meta().generation, before);
    let after = SecretStoreStatus {
        observed_generation: generation,
        conditions: conditions::merge(&before.conditions, findings(problem.as_ref()), generation, now),
        kind: kind.map(ToOwned::to_owned),
        resources: i64::try_from(context.index.read(|index| index.count_of_users(&object.name_any()))).ok(),
        last_check_time: checked.map(seconds).or_else(|| before.last_check_time.clone()),
        last_credential_rotation_time: made_at.map(seconds).or_else(|| before.last_credential_rotation_time.clone()),
    };
    let api: Api<PartialObjectMeta<SecretStore>> = Api::all(context.client.clone());
    let written = if before == after { Ok(()) } else { context.writer.replace_status(&api, object.meta(), &after).await };
    done(&context, &object, problem.as_ref(), written, now)
}

/// Opens it as its users do, asks, replaces its credential if that is due, and gives back what was lent. Returns when the credential was made.
async fn check(context: &Context, store: &SecretStore) -> Result<Option<Timestamp>, Problem> {
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
        let mut answer = open.check().await.map(|()| None).map_err(Problem::from);
        if let (Ok(made_at), Some(own), Some(held)) = (&mut answer, &own, &held) {
            match own_credential::replace(context, store, (own, held), &*open).await {
                Ok(time) => *made_at = time,
                Err(problem) => answer = Err(problem),
            }
        }
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
    written: Result<(), WriteError>,
    now: Timestamp,
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
