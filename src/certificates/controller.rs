//! CertificateRotation: observe, decide, act, report.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, Resource, ResourceExt};

use super::{
    decide::{Action, Observed, Pair, Times, decide, next_renewal},
    deliver::{self, Delivered, deliver},
    issuer::{IssuerError, OpenIssuer},
    memory::Memory,
    outputs::{self, Material},
    reason::Reason,
    request,
    resolve::{self, ClusterIssuers},
    rotate::{self, Found, Looks, Order, Rotated, Stored},
    status::{self, Halt, Problem, View},
    verify::{Networks, Turns},
};
use crate::{
    api::{CertificateRotation, ROTATE_ANNOTATION, certificate_rotation::CertificateRotationStatus},
    clock::Clock,
    cluster::{
        apply::{WriteError, Writer},
        backoff::{Failures, retry_after},
        conditions::{self, READY, RECONCILING, STALLED},
        contest,
        contest::Contest,
        current,
        edits::Edits,
        events::{Events, Note},
        halt::Word,
        index::Shared,
        owner::described,
        run::{Done, Guarded},
        steps::Steps,
        unreadable,
    },
    inventory::{Facts, secrets::SecretFact, template::Source},
    rollout::{consumption::Consumption, roll::Roller},
    schedule::jitter,
    telemetry::{
        audit::Audit,
        metrics::{Metrics, Outcome},
    },
};

/// The kind, for metrics.
pub const KIND: &str = "CertificateRotation";

/// No retry is sooner.
const FIRST_RETRY: jiff::SignedDuration = jiff::SignedDuration::from_secs(5);

/// How long an object is left alone at most. Timers of the run loop end at two years, and a certificate may be good for more.
const HALF_DAY: jiff::SignedDuration = jiff::SignedDuration::from_hours(12);

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
    /// Who wants which Secret.
    pub index: Shared,
    /// The cluster-scoped issuers, where they are watched.
    pub issuers: Option<ClusterIssuers>,
    /// How often each object has failed in a row.
    pub failures: Failures,
    /// How often each object had to be decided on again in a row.
    pub races: Failures,
    /// Who uses which Secret; restarts them.
    pub roller: Roller,
    /// Which Secrets are there.
    pub secrets: Facts<SecretFact>,
    /// Where handshakes may go beside the Pods of the resource's own namespace.
    pub verify_networks: Networks,
    /// Who shakes hands.
    pub turns: Turns,
    /// Who undoes what is written.
    pub contest: Contest,
    /// Since when somebody else has changed it.
    pub edits: Edits,
}

/// Looks at one object.
pub async fn reconcile(object: Arc<Guarded<CertificateRotation>>, context: Arc<Context>) -> Done {
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
async fn look(object: &Guarded<CertificateRotation>, context: &Context) -> Result<Done, WriteError> {
    let now = context.clock.now();
    if context.writer.is_outdated(object.meta()) {
        return Err(WriteError::Superseded(format!("{KIND} {}", object.name_any())));
    }
    context.edits.look(&object.uid().unwrap_or_default());
    let (view, before) = match &object.0 {
        Ok(rotation) => (pursue(context, rotation).await?, rotation.status.clone().unwrap_or_default()),
        Err(invalid) => {
            let status = unreadable::status::<CertificateRotation, _>(&context.client, object.meta()).await?;
            (malformed(&invalid.error), status)
        }
    };
    let after = status::status(&before, &view, object.meta().generation, context.clock.now());
    let reported = context.steps.run("report", report(context, object, (&before, &after), &view)).await;
    if let Err(error) = &reported
        && error.is_race()
    {
        return Err(error.clone());
    }
    Ok(done(context, object, &view, (reported, after.not_after.map(|end| end.0), now)))
}

/// What cannot be read as its kind: the API server's schema lets it through, or it is older than the schema.
fn malformed(error: &str) -> View {
    let message = format!("this object cannot be read as a CertificateRotation: {error}; correct the field, the others are not affected");
    View { problem: Some(Problem::new(Reason::Malformed, message)), ..View::default() }
}

/// When to come back after a look that began `now`, and what is counted. `until` is the end of the stored pair, as far as it is known.
fn done(
    context: &Context,
    object: &Guarded<CertificateRotation>,
    view: &View,
    (reported, until, now): (Result<(), WriteError>, Option<Timestamp>, Timestamp),
) -> Done {
    let uid = object.uid().unwrap_or_default();
    let retry = |reason: Reason| retry_after(context.failures.failed(&uid, (reason.as_str(), object.meta().generation)), until, now, &uid);
    if let Err(error) = reported {
        tracing::warn!(%error, object = object.name_any(), namespace = object.namespace(), "status");
        return Done::again(retry(Reason::WriteFailed), Outcome::Retry);
    }
    // From here on: the look took its time, and the clock may have been set meanwhile.
    let end = context.clock.now();
    let until_then = |time: Timestamp| time.duration_since(end).max(jiff::SignedDuration::ZERO);
    match &view.problem {
        None => {
            context.failures.succeeded(&uid);
            let next = status::next_look(view, now).map(until_then);
            // A moment later, so that what is due at that time is due; and every half day in any case, spread by the uid.
            let round = HALF_DAY + jitter(&uid, HALF_DAY / 4);
            let next = next.map_or(round, |wait| (wait + jiff::SignedDuration::from_millis(100)).min(round));
            Done::again(next, Outcome::Success)
        }
        Some(problem) => {
            context.metrics.failed(KIND, problem.reason.as_str());
            let retry = retry(problem.reason);
            // Who says how long to wait is listened to; the moment at which the pair ends is not slept over.
            let next_look = status::next_look(view, now).map_or(retry, |time| until_then(time) + jiff::SignedDuration::from_millis(100));
            let next = problem.after.map_or(retry, |after| after.max(jiff::SignedDuration::from_secs(1))).min(next_look.max(FIRST_RETRY));
            let outcome = if problem.reason.needs_a_person() { Outcome::Stalled } else { Outcome::Retry };
            Done::again(next, outcome)
        }
    }
}

/// Observe, decide, act. What goes wrong is part of the view; an error only means that it rests on something that was superseded.
async fn pursue(context: &Context, rotation: &CertificateRotation) -> Result<View, WriteError> {
    let mut view = View::default();
    let end = match observe(context, rotation, &mut view).await {
        Ok(stored) => {
            let end = advance(context, rotation, &stored, &mut view).await;
            // What is changed by somebody else all the time is nothing to go on with.
            if matches!(&end, Err(Halt::Problem(problem)) if problem.reason != Reason::Contested) {
                deliver::carry_on(context, rotation, stored, &mut view).await?;
            }
            end
        }
        Err(problem) => Err(problem.into()),
    };
    match end {
        Ok(()) => {}
        Err(Halt::Problem(problem)) => view.problem = Some(problem),
        Err(Halt::Superseded(error)) => return Err(error),
    }
    deliver::recall(context, rotation, &mut view);
    if view.consumption.is_none() {
        view.consumption = consumption(context, rotation, &view);
    }
    Ok(view)
}

/// Reads the Secret, and refuses one that is not this resource's.
async fn observe(context: &Context, rotation: &CertificateRotation, view: &mut View) -> Result<Stored, Problem> {
    let (namespace, name) = (rotation.namespace().unwrap_or_default(), &rotation.spec.secret_name);
    let key = (namespace.clone(), rotation.name_any());
    if let Some((secret, other)) = context.index.read(|index| index.conflict(&key)) {
        let message = format!("Secret {secret} is written by the older CertificateRotation {other}; choose another spec.secretName");
        view.pair = Some(Pair::Missing); // whatever is there is not this one's
        return Err(Problem::new(Reason::TargetConflict, message));
    }
    // A Secret that the inventory does not know is not read: if it is there all the same, creating it fails with 409, and the next reconcile reads it.
    let unknown = context.secrets.is_filled()
        && context.secrets.get(&namespace, name).is_none()
        && context.writer.just_written(&namespace, name).is_none()
        && !context.races.has_failed(&rotation.uid().unwrap_or_default());
    let secret = if unknown { None } else { rotate::get(context, &namespace, name).await? };
    view.pair = Some(Pair::Missing);
    let Some(secret) = secret else { return Ok(Stored::default()) };
    let Found { meta, data } = Found::read(rotation, secret)?;
    let pair = outputs::read(&data);
    let memory = Memory::read(meta.annotations.as_ref());
    if let Pair::Good(certificate, _) = &pair {
        view.renewal_time = next_renewal(&rotation.spec, certificate, &memory, &rotation.uid().unwrap_or_default());
    }
    (view.pair, view.memory, view.created) = (Some(pair), memory, created(&meta));
    Ok(Stored { meta: Some(meta), data, memory: view.memory.clone() })
}

pub(super) fn created(meta: &ObjectMeta) -> Option<Timestamp> {
    meta.creation_timestamp.as_ref().map(|time| time.0)
}

/// Who uses the Secret, and who of them has what is in it now.
fn consumption(context: &Context, rotation: &CertificateRotation, view: &View) -> Option<Consumption> {
    let changed = view.memory.change.since(view.created)?;
    let secret = Source::Secret(rotation.spec.secret_name.as_str().into());
    Some(Consumption::of(&context.roller.inventory.consumers(&rotation.namespace().unwrap_or_default(), &secret), &changed, None))
}

/// Nothing is written for a resource that is another by now.
pub(super) async fn is_current(context: &Context, rotation: &CertificateRotation) -> Result<(), Halt> {
    let api = Api::<CertificateRotation>::namespaced(context.client.clone(), &rotation.namespace().unwrap_or_default());
    Ok(current::check(&api, &rotation.metadata, &[ROTATE_ANNOTATION]).await?)
}

/// Decides about what was read, and does it.
async fn advance(context: &Context, rotation: &CertificateRotation, stored: &Stored, view: &mut View) -> Result<(), Halt> {
    let spec = &rotation.spec;
    let now = context.clock.now();
    if let Some(invalid) = request::invalid(spec) {
        return Err(Problem::new(Reason::InvalidSpec, invalid).into());
    }
    let times = Times::parse(spec, now).map_err(|(field, error)| Problem::new(Reason::InvalidSpec, format!("{field}: {error}")))?;
    let (issuer, identity) = resolve::resolve(context.issuers.as_ref(), rotation)?;
    view.issuer = Some(identity.clone());
    let opened = if spec.suspend {
        Err(IssuerError::Unavailable("suspended".into()))
    } else {
        context.steps.run("open-issuer", resolve::open(context, rotation, &issuer, now)).await
    };
    let request = request::hash(spec);
    let requested = rotation.annotations().get(ROTATE_ANNOTATION).map(String::as_str).unwrap_or_default();
    let (uid, generation) = (rotation.uid().unwrap_or_default(), rotation.metadata.generation);
    let authority = opened.as_ref().ok().map(|opened| opened.authority());
    let judge = |pair: &Pair, memory: &Memory| {
        decide(
            &Observed { uid: &uid, spec, generation, request: &request, requested, issuer: &identity, authority, pair, memory },
            &times,
            now,
        )
    };
    let plan = judge(view.pair.as_ref().unwrap_or(&Pair::Missing), &view.memory);
    view.plan = Some(plan);
    match plan.action {
        Action::Rest => Ok(()),
        // What the Secret looks like does not wait; the chain does, as it may already be another issuer's.
        Action::WaitUntil(_) => {
            let delivered = keep(context, rotation, (stored, None), &mut view.memory).await?;
            deliver(context, rotation, (delivered.as_ref(), Some(&times)), view).await
        }
        Action::Keep => {
            let delivered = keep(context, rotation, (stored, opened.as_deref().ok()), &mut view.memory).await?;
            deliver(context, rotation, (delivered.as_ref(), Some(&times)), view).await?;
            opened.map(|_| ()).map_err(Halt::from)
        }
        Action::Rotate => {
            let issuer = opened.as_ref().map_err(|error| Problem::from(error.clone()))?;
            let undone = may_rotate(context, rotation, stored, (view, plan.reason)).await?;
            let order = Order { reason: plan.reason, request: &request, requested, issuer: &identity };
            let Rotated { material, memory, meta } = rotate::rotate(context, rotation, stored, (issuer.as_ref(), &order)).await?;
            if undone {
                context.contest.put_right(&uid, now);
            }
            told(context, rotation, (&memory, &material), plan.reason);
            let mut chain = material.chain.iter().cloned();
            let pair = chain.next().map_or(Pair::Missing, |leaf| Pair::Good(Box::new(leaf), chain.collect()));
            let plan = judge(&pair, &memory);
            (view.renewal_time, view.plan, view.rotated) = (plan.renewal_time, Some(plan), true);
            (view.pair, view.memory, view.created) = (Some(pair), memory, created(&meta));
            deliver(context, rotation, (Some(&Delivered { material, meta }), Some(&times)), view).await
        }
    }
}

/// Whether the new pair takes the place of what somebody else did to the Secret; refused where that was done again and again.
async fn may_rotate(
    context: &Context,
    rotation: &CertificateRotation,
    stored: &Stored,
    (view, reason): (&View, Reason),
) -> Result<bool, Halt> {
    is_current(context, rotation).await?;
    // Damaged, its annotations gone, or one of before: somebody else has written there.
    let known = rotation.status.as_ref().and_then(|status| status.revision);
    let undone = reason.is_damage() || view.memory.request.is_none() || Some(view.memory.revision) < known;
    let undone = undone && known.is_some();
    if undone {
        may_put_right(context, rotation, stored, context.clock.now())?;
    }
    Ok(undone)
}

/// The pair stays; the rest of the Secret is made to look as the spec says.
async fn keep(
    context: &Context,
    rotation: &CertificateRotation,
    (stored, issuer): (&Stored, Option<&dyn OpenIssuer>),
    memory: &mut Memory,
) -> Result<Option<Delivered>, Halt> {
    let (Some(mut material), Some(meta)) = (Material::stored(&stored.data), &stored.meta) else { return Ok(None) };
    // What was put back, and is from a CA of before, keeps the chain that it had.
    let knows = |issuer: &&dyn OpenIssuer| match &issuer.authority().ca {
        Some(ca) => material.roots.contains(&ca.to_pem()) || material.chain.iter().any(|known| known.der() == ca.der()),
        None => material.chain.first().is_some_and(|leaf| leaf.is_signed_by(leaf)),
    };
    let issuer = issuer.filter(|issuer| !memory.stage.is_rolled_back() || knows(issuer));
    if let Some(bundle) = issuer.zip(material.chain.first()).and_then(|(issuer, leaf)| issuer.bundle(leaf)) {
        material.surround(bundle);
    }
    let looks = rotate::looks(context, rotation, stored, &material)?;
    if looks == Looks::Right {
        return Ok(Some(Delivered { material, meta: meta.clone() }));
    }
    is_current(context, rotation).await?;
    let now = context.clock.now();
    if looks == Looks::Altered {
        may_put_right(context, rotation, stored, now)?;
    }
    // First, because what the Secret is to look like is known to be done by what is written with it.
    rotate::dress_previous(context, rotation).await?;
    let meta = rotate::store(context, rotation, stored, (&material, memory)).await?;
    if looks == Looks::Altered {
        context.contest.put_right(&rotation.uid().unwrap_or_default(), now);
    }
    Ok(Some(Delivered { material, meta }))
}

/// Refuses to put right what somebody else did to the Secret, if that was done again and again.
fn may_put_right(context: &Context, rotation: &CertificateRotation, stored: &Stored, now: Timestamp) -> Result<(), Problem> {
    context.contest.may(&rotation.uid().unwrap_or_default(), now).map_err(|until| {
        let who = stored.meta.as_ref().and_then(|meta| context.writer.last_stranger(meta));
        let message = contest::message(&rotation.spec.secret_name, who, until);
        Problem { reason: Reason::Contested, message, after: Some(until.duration_since(now)) }
    })
}

/// A rotation is done: the event and the count.
fn told(context: &Context, rotation: &CertificateRotation, (memory, material): (&Memory, &Material), reason: Reason) {
    context.metrics.rotated(KIND, reason.as_str());
    let until = material.chain.first().map(|leaf| leaf.not_after.to_string()).unwrap_or_default();
    let text = format!(
        "certificate {} of Secret {} was issued by {}, valid until {until}",
        memory.revision,
        rotation.spec.secret_name,
        memory.issuer.as_deref().unwrap_or_default()
    );
    tracing::info!(object = rotation.name_any(), namespace = rotation.namespace(), %reason, revision = memory.revision, until, "rotated");
    context.events.send(rotation, &Note { warning: false, reason: reason.as_str(), action: "Issue", text: &text });
}

/// Writes the status if it changed, and tells what is new about it.
async fn report(
    context: &Context,
    object: &Guarded<CertificateRotation>,
    (before, after): (&CertificateRotationStatus, &CertificateRotationStatus),
    view: &View,
) -> Result<(), WriteError> {
    if let Some(problem) = &view.problem {
        let reason = problem.reason.as_str();
        if conditions::is_news(&before.conditions, &after.conditions, STALLED)
            || conditions::is_news(&before.conditions, &after.conditions, RECONCILING)
        {
            tracing::warn!(object = object.name_any(), namespace = object.namespace(), reason, message = problem.message, "not done");
            let why = view.plan.map_or(problem.reason, |plan| plan.reason);
            context.audit.failed("issue", &described(object), why.as_str(), reason);
            context.events.send(object, &Note { warning: true, reason, action: "Issue", text: &problem.message });
        }
    }
    if let Some((reason, why)) = view.undelivered()
        && conditions::is_news(&before.conditions, &after.conditions, STALLED)
    {
        let reason = reason.as_str();
        tracing::warn!(object = object.name_any(), namespace = object.namespace(), reason, message = why, "not done");
        context.metrics.failed(KIND, reason);
        context.audit.failed("restart", &described(object), view.plan.map_or(reason, |plan| plan.reason.as_str()), reason);
        context.events.send(object, &Note { warning: true, reason, action: "Restart", text: &why });
    }
    if conditions::is_news(&before.conditions, &after.conditions, READY) {
        tracing::debug!(object = object.name_any(), namespace = object.namespace(), "status changed");
    }
    if before == after {
        return Ok(());
    }
    context.writer.replace_status::<CertificateRotation>(object.meta(), after).await
}
