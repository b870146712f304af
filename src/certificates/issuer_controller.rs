//! CertificateIssuer: whether it can sign, until when, and how many use it.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kube::{Client, Resource, ResourceExt};

use super::{issuer::Issuer, reason::Reason, rotate, status::Problem};
use crate::{
    api::{CertificateIssuer, certificate_issuer::CertificateIssuerStatus},
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
    telemetry::metrics::Outcome,
};

/// What a look works with.
pub struct Context {
    /// For reads.
    pub client: Client,
    /// For writes.
    pub writer: Writer,
    /// The time.
    pub clock: Clock,
    /// Who names which issuer.
    pub index: Shared,
    /// Where the Secrets of issuers lie.
    pub operator_namespace: String,
    /// For the backoff.
    pub failures: Failures,
}

/// What was seen.
struct Seen {
    not_after: Option<Timestamp>,
    problem: Option<Problem>,
}

/// Looks at one issuer.
pub async fn reconcile(object: Arc<Guarded<CertificateIssuer>>, context: Arc<Context>) -> Done {
    let now = context.clock.now();
    if context.writer.is_outdated(object.meta()) {
        return Done { again: Some(Duration::from_millis(300)), outcome: Outcome::Retry };
    }
    let (seen, before, kind) = match &object.0 {
        Ok(issuer) => (look(&context, issuer, now).await, issuer.status.clone().unwrap_or_default(), Some(issuer.spec.issuer.kind())),
        Err(invalid) => {
            let message = format!("this object cannot be read as a CertificateIssuer: {}; correct the field", invalid.error);
            let seen = Seen { not_after: None, problem: Some(Problem::new(Reason::Malformed, message)) };
            match unreadable::status::<CertificateIssuer, CertificateIssuerStatus>(&context.client, object.meta()).await {
                Ok(before) => (seen, before, None),
                Err(error) => return done(&context, &object, &seen, (Err(error), now)),
            }
        }
    };
    let generation = object.meta().generation;
    let after = CertificateIssuerStatus {
        observed_generation: generation,
        conditions: conditions::merge(&before.conditions, findings(&seen), generation, now),
        kind: kind.map(ToOwned::to_owned),
        certificates: i64::try_from(context.index.read(|index| index.users_of(&object.name_any()).len())).ok(),
        not_after: seen.not_after.map(seconds),
    };
    let replaced = context.writer.replace_status::<CertificateIssuer>(object.meta(), &after);
    let written = if before == after { Ok(()) } else { replaced.await };
    done(&context, &object, &seen, (written, now))
}

async fn look(context: &Context, issuer: &CertificateIssuer, now: Timestamp) -> Seen {
    let secrets = NamespaceSecrets::new(context.client.clone(), &context.operator_namespace);
    let opened = match issuer.spec.issuer.validate() {
        Ok(()) => rotate::open(issuer.spec.issuer.open(&secrets, now)).await,
        Err(error) => Err(error),
    };
    match opened {
        Ok(open) => Seen { not_after: open.authority().ca.as_ref().map(|ca| ca.not_after), problem: None },
        Err(error) => Seen { not_after: None, problem: Some(error.into()) },
    }
}

fn findings(seen: &Seen) -> Vec<Finding> {
    let Some(problem) = &seen.problem else {
        let message = seen.not_after.map_or_else(|| "can sign".into(), |end| format!("can sign until {end}"));
        return vec![Finding { kind: READY, status: true, reason: Reason::Current.as_str().into(), message }];
    };
    let finding = |kind, status| Finding { kind, status, reason: problem.reason.as_str().into(), message: problem.message.clone() };
    let stalled = problem.reason.needs_a_person().then(|| finding(STALLED, true));
    std::iter::once(finding(READY, false)).chain(stalled).collect()
}

fn done(context: &Context, object: &Guarded<CertificateIssuer>, seen: &Seen, (written, now): (Result<(), WriteError>, Timestamp)) -> Done {
    let uid = object.uid().unwrap_or_default();
    let after = |wait: SignedDuration| Some(Duration::try_from(wait).unwrap_or(Duration::from_secs(5)));
    if let Err(error) = &written
        && !error.is_race()
    {
        tracing::warn!(%error, issuer = object.name_any(), "status");
    }
    if written.is_err() || seen.problem.is_some() {
        let (reason, outcome) = match &seen.problem {
            Some(problem) if problem.reason.needs_a_person() => (problem.reason, Outcome::Stalled),
            Some(problem) => (problem.reason, Outcome::Retry),
            None => (Reason::WriteFailed, Outcome::Retry),
        };
        let wait = retry_after(context.failures.failed(&uid, (reason.as_str(), object.meta().generation)), None, now, &uid);
        return Done { again: after(wait), outcome };
    }
    context.failures.succeeded(&uid);
    let day = SignedDuration::from_hours(24);
    let end = seen.not_after.filter(|end| *end > now).map_or(day, |end| end.duration_since(now) + SignedDuration::from_millis(100));
    Done { again: after(end.min(day)), outcome: Outcome::Success }
}
