//! CertificateRotation: observe, decide, act, report.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{PartialObjectMeta, SelectorExt},
    runtime::reflector::{ObjectRef, Store},
};

use super::{
    decide::{Action, Observed, Pair, Times, decide, retry_after},
    index::Shared,
    issuer::{Issuer, IssuerError, OpenIssuer},
    issuers::IssuerSpec,
    memory::Memory,
    outputs::{self, Material},
    reason::Reason,
    request,
    rotate::{self, Found, Order, Stored},
    status::{self, Problem, View},
    x509::Certificate,
};
use crate::{
    api::{CertificateIssuer, CertificateRotation, ROTATE_ANNOTATION, certificate_rotation::CertificateRotationStatus},
    clock::Clock,
    cluster::{
        apply::{WriteError, Writer},
        conditions::{READY, RECONCILING, STALLED},
        error::message,
        events::{Events, Note},
        references::NamespaceSecrets,
        run::{Done, Guarded},
        steps::Steps,
    },
    inventory::{Facts, namespaces::NamespaceLabels},
    schedule::jitter,
    telemetry::{
        audit::Audit,
        metrics::{Metrics, Outcome},
    },
};

/// The kind, for metrics.
pub const KIND: &str = "CertificateRotation";

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
}

/// What is needed to follow an `issuerRef`.
pub struct ClusterIssuers {
    /// The CertificateIssuers.
    pub store: Store<Guarded<CertificateIssuer>>,
    /// The labels of the Namespaces.
    pub namespaces: Facts<NamespaceLabels>,
    /// Where the Secrets of cluster-scoped issuers lie.
    pub operator_namespace: String,
}

/// Counts failures in a row, by uid, for the backoff.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<String, u32>>);

impl Failures {
    /// One more; returns how many.
    pub(super) fn failed(&self, uid: &str) -> u32 {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = map.entry(uid.to_owned()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// It works again.
    pub(super) fn succeeded(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Looks at one object.
pub async fn reconcile(object: Arc<Guarded<CertificateRotation>>, context: Arc<Context>) -> Done {
    let now = context.clock.now();
    if object.meta().deletion_timestamp.is_some() {
        return Done { again: None, outcome: Outcome::Success }; // on its way out; what is to become of its Secret is said by its owner reference
    }
    let (view, before) = match &object.0 {
        Ok(rotation) => (pursue(&context, rotation).await, rotation.status.clone().unwrap_or_default()),
        Err(invalid) => (malformed(&invalid.error), CertificateRotationStatus::default()),
    };
    let after = status::status(&before, &view, object.meta().generation, context.clock.now());
    let reported = context.steps.run("report", report(&context, &object, &before, &after, &view)).await;
    done(&context, &object, &view, reported, now)
}

/// What cannot be read as its kind: the API server's schema lets it through, or it is older than the schema.
fn malformed(error: &str) -> View {
    let message = format!("this object cannot be read as a CertificateRotation: {error}; correct the field, the others are not affected");
    View { problem: Some(Problem::new(Reason::Malformed, message)), ..View::default() }
}

/// When to come back, and what is counted.
fn done(context: &Context, object: &Guarded<CertificateRotation>, view: &View, reported: Result<(), WriteError>, now: Timestamp) -> Done {
    let uid = object.uid().unwrap_or_default();
    let until = match &view.pair {
        Pair::Good(certificate, _) => Some(certificate.not_after),
        _ => None,
    };
    let after = |wait: jiff::SignedDuration| Some(Duration::try_from(wait).unwrap_or(Duration::from_secs(5)));
    if let Err(error) = reported {
        if !rotate::is_race(&error) {
            tracing::warn!(%error, object = object.name_any(), namespace = object.namespace(), "status");
        }
        let failures = context.failures.failed(&uid);
        let wait = if rotate::is_race(&error) && failures < 5 {
            jiff::SignedDuration::from_millis(500)
        } else {
            retry_after(failures, until, now, &uid)
        };
        return Done { again: after(wait), outcome: Outcome::Retry };
    }
    match &view.problem {
        None => {
            context.failures.succeeded(&uid);
            let next = status::next_look(view, now).map(|time| time.duration_since(now));
            // A moment later, so that what is due at that time is due; and every half day in any case, spread by the uid.
            let round = HALF_DAY + jitter(&uid, HALF_DAY / 4);
            let wait = next.map_or(round, |wait| (wait + jiff::SignedDuration::from_millis(100)).min(round));
            Done { again: after(wait), outcome: Outcome::Success }
        }
        Some(problem) => {
            context.metrics.failed(KIND, problem.reason.as_str());
            let failures = context.failures.failed(&uid);
            let wait = problem.after.filter(|_| failures < 5).unwrap_or_else(|| retry_after(failures, until, now, &uid));
            let outcome = if problem.reason.needs_a_person() { Outcome::Stalled } else { Outcome::Retry };
            Done { again: after(wait), outcome }
        }
    }
}

/// Observe, decide, act. Never fails: what goes wrong is part of the view.
async fn pursue(context: &Context, rotation: &CertificateRotation) -> View {
    let mut view = View::default();
    let stored = match observe(context, rotation).await {
        Ok(stored) => stored,
        Err(problem) => {
            view.problem = Some(problem);
            return view;
        }
    };
    (view.pair, view.memory) = (outputs::read(&stored.data), stored.memory.clone());
    if let Err(problem) = advance(context, rotation, &stored, &mut view).await {
        view.problem = Some(problem);
    }
    view
}

/// Reads the Secret, and refuses one that is not this resource's.
async fn observe(context: &Context, rotation: &CertificateRotation) -> Result<Stored, Problem> {
    let (namespace, name) = (rotation.namespace().unwrap_or_default(), &rotation.spec.secret_name);
    let key = (namespace.clone(), rotation.name_any());
    if let Some((secret, other)) = context.index.read(|index| index.conflict(&key)) {
        let message = format!("Secret {secret} is written by the older CertificateRotation {other}; choose another spec.secretName");
        return Err(Problem::new(Reason::TargetConflict, message));
    }
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    let secret = api
        .get_opt(name)
        .await
        .map_err(|error| Problem::new(Reason::WriteFailed, format!("Secret {name} could not be read: {}", message(&error))))?;
    let Some(secret) = secret else { return Ok(Stored::default()) };
    let Found { meta, data } = Found::read(rotation, name, secret)?;
    let memory = Memory::read(meta.annotations.as_ref());
    Ok(Stored { meta: Some(meta), data, memory })
}

/// Decides about what was read, and does it.
async fn advance(context: &Context, rotation: &CertificateRotation, stored: &Stored, view: &mut View) -> Result<(), Problem> {
    let spec = &rotation.spec;
    let now = context.clock.now();
    if let Some(invalid) = request::invalid(spec) {
        return Err(Problem::new(Reason::InvalidSpec, invalid));
    }
    let times = Times::parse(spec, now).map_err(|(field, error)| Problem::new(Reason::InvalidSpec, format!("{field}: {error}")))?;
    let (issuer, identity) = resolve(context, rotation)?;
    view.issuer = Some(identity.clone());
    let opened = if spec.suspend {
        Err(IssuerError::Unavailable("suspended".into()))
    } else {
        context.steps.run("open-issuer", open(context, rotation, &issuer, now)).await
    };
    let request = request::hash(spec);
    let requested = rotation.annotations().get(ROTATE_ANNOTATION).map(String::as_str).unwrap_or_default();
    let uid = rotation.uid().unwrap_or_default();
    let observe = |pair: &Pair, memory: &Memory| {
        let authority = opened.as_ref().ok().map(|opened| opened.authority());
        decide(&Observed { uid: &uid, spec, request: &request, requested, issuer: &identity, authority, pair, memory }, &times, now)
    };
    let plan = observe(&view.pair, &view.memory);
    view.plan = Some(plan);
    match plan.action {
        Action::Rest | Action::WaitUntil(_) => Ok(()),
        Action::Keep => {
            keep(context, rotation, stored, opened.as_deref().ok(), &mut view.memory).await?;
            opened.map(|_| ()).map_err(Problem::from)
        }
        Action::Rotate => {
            let issuer = opened.as_ref().map_err(|error| Problem::from(error.clone()))?;
            let order = Order { reason: plan.reason, request: &request, requested, issuer: &identity };
            let (memory, material) = rotate::rotate(context, rotation, stored, issuer.as_ref(), &order).await?;
            told(context, rotation, &memory, &material, plan.reason).await;
            let mut chain = material.chain.into_iter();
            if let Some(leaf) = chain.next() {
                view.pair = Pair::Good(Box::new(leaf), chain.collect());
            }
            view.memory = memory;
            view.plan = Some(observe(&view.pair, &view.memory));
            Ok(())
        }
    }
}

/// The pair stays; the rest of the Secret is made to look as the spec says.
async fn keep(
    context: &Context,
    rotation: &CertificateRotation,
    stored: &Stored,
    issuer: Option<&dyn OpenIssuer>,
    memory: &mut Memory,
) -> Result<(), Problem> {
    let Some(mut material) = Material::stored(&stored.data) else { return Ok(()) };
    if let Some(roots) = issuer.zip(material.chain.first()).and_then(|(issuer, leaf)| issuer.roots_of(leaf)) {
        material.roots = roots.iter().map(Certificate::to_pem).collect();
    }
    if !rotate::looks_right(rotation, stored, &material)? {
        rotate::store(context, rotation, stored, &material, memory).await?;
    }
    Ok(())
}

/// Which issuer is meant, and what it is called. `issuerRef` is followed only where the issuer allows the namespace.
fn resolve(context: &Context, rotation: &CertificateRotation) -> Result<(IssuerSpec, String), Problem> {
    let spec = &rotation.spec;
    let (issuer, identity) = match (&spec.issuer, &spec.issuer_ref) {
        (Some(issuer), None) => (issuer.clone(), issuer.identity()),
        (None, Some(reference)) => {
            (named(context, &reference.name, &rotation.namespace().unwrap_or_default())?, format!("CertificateIssuer/{}", reference.name))
        }
        _ => return Err(Problem::new(Reason::InvalidSpec, "spec: set exactly one of issuer and issuerRef")),
    };
    issuer.validate()?;
    Ok((issuer, identity))
}

fn named(context: &Context, name: &str, namespace: &str) -> Result<IssuerSpec, Problem> {
    let Some(issuers) = &context.issuers else {
        let message = format!(
            "spec.issuerRef: CertificateIssuer {name} cannot be used: this operator is limited to namespaces (--namespaces); use spec.issuer"
        );
        return Err(Problem::new(Reason::InvalidSpec, message));
    };
    let found = issuers.store.get(&ObjectRef::new(name));
    let issuer = match found.as_deref() {
        None => {
            return Err(Problem::new(
                Reason::IssuerNotFound,
                format!("CertificateIssuer {name} is not there; create it, or correct spec.issuerRef.name"),
            ));
        }
        Some(Guarded { 0: Err(invalid) }) => {
            return Err(Problem::new(Reason::IssuerInvalid, format!("CertificateIssuer {name} cannot be read: {}", invalid.error)));
        }
        Some(Guarded { 0: Ok(issuer) }) => issuer,
    };
    let denied = |why: String| {
        Problem::new(Reason::IssuerDenied, format!("CertificateIssuer {name} does not allow the namespace {namespace}: {why}"))
    };
    let Some(allowed) = &issuer.spec.allowed_namespaces else {
        return Err(denied("its spec.allowedNamespaces is absent, which allows none".into()));
    };
    let selector: kube::core::Selector =
        allowed.clone().try_into().map_err(|error| denied(format!("its spec.allowedNamespaces is no valid selector: {error}")))?;
    let labels = issuers.namespaces.get("", namespace).unwrap_or_default();
    if !selector.matches(&labels) {
        return Err(denied("the namespace's labels do not match its spec.allowedNamespaces".into()));
    }
    Ok(issuer.spec.issuer.clone())
}

/// Reads what the issuer needs: from the own namespace, or for a CertificateIssuer from the operator's.
async fn open(
    context: &Context,
    rotation: &CertificateRotation,
    issuer: &IssuerSpec,
    now: Timestamp,
) -> Result<Box<dyn OpenIssuer>, IssuerError> {
    let namespace = match (&rotation.spec.issuer_ref, &context.issuers) {
        (Some(_), Some(issuers)) => issuers.operator_namespace.clone(),
        _ => rotation.namespace().unwrap_or_default(),
    };
    let secrets = NamespaceSecrets::new(context.client.clone(), &namespace);
    rotate::open(issuer.open(&secrets, now)).await
}

/// A rotation is done: the event and the count.
async fn told(context: &Context, rotation: &CertificateRotation, memory: &Memory, material: &Material, reason: Reason) {
    context.metrics.rotated(KIND, reason.as_str());
    let until = material.chain.first().map(|leaf| leaf.not_after.to_string()).unwrap_or_default();
    let text = format!(
        "certificate {} of Secret {} was issued by {}, valid until {until}",
        memory.revision,
        rotation.spec.secret_name,
        memory.issuer.as_deref().unwrap_or_default()
    );
    tracing::info!(object = rotation.name_any(), namespace = rotation.namespace(), %reason, revision = memory.revision, until, "rotated");
    context.events.send(rotation, Note { warning: false, reason: reason.as_str(), action: "Issue", text: &text }).await;
}

/// Writes the status if it changed, and tells what is new about it.
async fn report(
    context: &Context,
    object: &Guarded<CertificateRotation>,
    before: &CertificateRotationStatus,
    after: &CertificateRotationStatus,
    view: &View,
) -> Result<(), WriteError> {
    if let Some(problem) = &view.problem {
        let reason = problem.reason.as_str();
        if status::is_news(&before.conditions, &after.conditions, STALLED)
            || status::is_news(&before.conditions, &after.conditions, RECONCILING)
        {
            tracing::warn!(object = object.name_any(), namespace = object.namespace(), reason, message = problem.message, "not done");
            let resource = format!("{KIND}/{}/{}", object.namespace().unwrap_or_default(), object.name_any());
            let why = view.plan.map_or(problem.reason, |plan| plan.reason);
            context.audit.record("issue", &resource, why.as_str(), reason, None);
            context.events.send(object, Note { warning: true, reason, action: "Issue", text: &problem.message }).await;
        }
    } else if status::is_news(&before.conditions, &after.conditions, READY) {
        tracing::debug!(object = object.name_any(), namespace = object.namespace(), "status changed");
    }
    if before == after {
        return Ok(());
    }
    let api: Api<PartialObjectMeta<CertificateRotation>> = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    context.writer.apply_status(&api, object.meta(), after, object.0.is_ok()).await
}
