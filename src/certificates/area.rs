//! What the area watches, and what wakes what.

use std::{collections::BTreeSet, sync::Arc};

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Client, ResourceExt,
    core::PartialObjectMeta,
    runtime::{reflector::Store, watcher},
};
use tokio_util::sync::CancellationToken;

use super::{
    controller::{self, ClusterIssuers, Failures},
    index::{Key, Shared},
    issuer::Issuer,
    issuer_controller,
};
use crate::{
    api::{CertificateIssuer, CertificateRotation},
    clock::Clock,
    cluster::{
        apply::Writer,
        events::Events,
        lease::Leadership,
        run::{Guarded, Kind, Settings, Waker},
        steps::Steps,
    },
    inventory::{Facts, namespaces, secrets},
    server::readiness::Readiness,
    telemetry::{audit::Audit, metrics::Metrics},
};

/// The field manager of everything that this area writes.
const MANAGER: &str = "seaworthy-certificates";

/// What the area gets from the process.
#[derive(Clone)]
pub struct Parts {
    /// The connection.
    pub client: Client,
    /// Whether to write.
    pub leadership: Leadership,
    /// The time.
    pub clock: Clock,
    /// Counts.
    pub metrics: Metrics,
    /// Every act on a credential.
    pub audit: Audit,
    /// What a person wants to know.
    pub events: Events,
    /// The steps of a rotation.
    pub steps: Steps,
    /// What has to be filled before the process is ready.
    pub readiness: Readiness,
    /// Where Secrets of cluster-scoped issuers lie.
    pub operator_namespace: String,
    /// How many objects at once.
    pub concurrency: u16,
}

/// The caches of one scope, for who counts and shows.
pub type Rotations = Store<Guarded<CertificateRotation>>;

/// Everything of one scope: the whole cluster (`namespace` None) or one namespace, without the cluster-scoped kinds.
pub fn run(parts: Parts, namespace: Option<String>, stop: CancellationToken) -> (Rotations, impl Future<Output = ()> + Send + 'static) {
    let api = |client: Client| match &namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let rotations = Kind::<CertificateRotation>::new(api(parts.client.clone()), parts.leadership.clone());
    let secrets_api: Api<PartialObjectMeta<Secret>> = match &namespace {
        Some(namespace) => Api::namespaced(parts.client.clone(), namespace),
        None => Api::all(parts.client.clone()),
    };
    let store = rotations.store.clone();
    let issuers = namespace.is_none().then(|| Kind::<CertificateIssuer>::new(Api::all(parts.client.clone()), parts.leadership.clone()));
    (store, all(parts, rotations, issuers, secrets_api, stop))
}

async fn all(
    parts: Parts,
    rotations: Kind<CertificateRotation>,
    issuers: Option<Kind<CertificateIssuer>>,
    secrets_api: Api<PartialObjectMeta<Secret>>,
    stop: CancellationToken,
) {
    let index = Shared::default();
    let (waker, settings) = (rotations.waker.clone(), Settings { concurrency: parts.concurrency, metrics: parts.metrics.clone() });
    let namespace_facts = Facts::default();
    let secret_facts = Facts::default();
    parts.readiness.wait_for("CertificateRotations", rotations.filled());
    let facts = secret_facts.clone();
    parts.readiness.wait_for("Secrets", async move { facts.filled().await });
    let mut tasks = Vec::new();
    let mut issuer_waker = None;
    let mut cluster_issuers = None;
    if let Some(issuers) = issuers {
        parts.readiness.wait_for("CertificateIssuers", issuers.filled());
        let facts = namespace_facts.clone();
        parts.readiness.wait_for("Namespaces", async move { facts.filled().await });
        issuer_waker = Some((issuers.waker.clone(), issuers.store.clone(), parts.operator_namespace.clone()));
        cluster_issuers = Some(ClusterIssuers {
            store: issuers.store.clone(),
            namespaces: namespace_facts.clone(),
            operator_namespace: parts.operator_namespace.clone(),
        });
        let context = Arc::new(issuer_controller::Context {
            client: parts.client.clone(),
            writer: Writer::new(parts.client.clone(), parts.leadership.clone(), MANAGER),
            clock: parts.clock.clone(),
            index: index.clone(),
            operator_namespace: parts.operator_namespace.clone(),
            failures: Failures::default(),
        });
        let noticed = issuer_changed(index.clone(), waker.clone());
        tasks.push(issuers.run(settings.clone(), stop.clone(), context, noticed, issuer_controller::reconcile).boxed());
        let (index, waker, api) = (index.clone(), waker.clone(), Api::<PartialObjectMeta<Namespace>>::all(parts.client.clone()));
        let follow = async move {
            namespace_facts.follow(api, namespaces::fact, |key| wake_all(&waker, index.read(|index| index.with_issuer_in(&key.1)))).await;
        };
        tasks.push(follow.boxed());
    }
    let noticed = rotation_changed(index.clone(), waker.clone(), issuer_waker.as_ref().map(|(waker, ..)| waker.clone()));
    let context = Arc::new(controller::Context {
        client: parts.client.clone(),
        writer: Writer::new(parts.client.clone(), parts.leadership.clone(), MANAGER),
        events: parts.events,
        audit: parts.audit,
        metrics: parts.metrics,
        steps: parts.steps,
        clock: parts.clock,
        index: index.clone(),
        issuers: cluster_issuers,
        failures: Failures::default(),
    });
    tasks.push(rotations.run(settings, stop.clone(), context, noticed, controller::reconcile).boxed());
    let changed = secret_changed(index, waker, issuer_waker);
    tasks.push(async move { secret_facts.follow(secrets_api, secrets::fact, changed).await }.boxed());
    // On `stop` the run loops end when what is under way is done; the watches have no end of their own.
    let loops = futures::future::select_all(tasks);
    loops.await;
    if !stop.is_cancelled() {
        tracing::error!("a watch or run loop of the certificates area ended");
    }
}

fn wake_all(waker: &Waker<CertificateRotation>, keys: impl IntoIterator<Item = Key>) {
    for (namespace, name) in keys {
        waker.wake(Some(&namespace), &name);
    }
}

/// Keeps the index; wakes who wanted the same Secrets, and the issuer whose count changes.
fn rotation_changed(
    index: Shared,
    waker: Waker<CertificateRotation>,
    issuers: Option<Waker<CertificateIssuer>>,
) -> impl Fn(&watcher::Event<Guarded<CertificateRotation>>) + Send + 'static {
    move |event| {
        let mut issuer = None;
        let touched = index.write(|index| match event {
            watcher::Event::Init => {
                index.begin_list();
                BTreeSet::new()
            }
            watcher::Event::InitDone => index.end_list(),
            watcher::Event::Apply(Guarded { 0: Ok(rotation) }) | watcher::Event::InitApply(Guarded { 0: Ok(rotation) }) => {
                issuer = rotation.spec.issuer_ref.as_ref().map(|reference| reference.name.clone());
                index.put(rotation)
            }
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) | watcher::Event::Delete(object) => {
                issuer =
                    object.0.as_ref().ok().and_then(|rotation| rotation.spec.issuer_ref.as_ref()).map(|reference| reference.name.clone());
                index.remove(&(object.namespace().unwrap_or_default(), object.name_any()))
            }
        });
        wake_all(&waker, touched);
        if let (Some(name), Some(issuers)) = (issuer, &issuers) {
            issuers.wake(None, &name);
        }
    }
}

/// An issuer came, changed or went: who names it is looked at.
fn issuer_changed(
    index: Shared,
    waker: Waker<CertificateRotation>,
) -> impl Fn(&watcher::Event<Guarded<CertificateIssuer>>) + Send + 'static {
    move |event| {
        if let watcher::Event::Apply(issuer) | watcher::Event::Delete(issuer) = event {
            wake_all(&waker, index.read(|index| index.users_of_issuer(&issuer.name_any())));
        }
    }
}

/// A Secret came, changed or went: who writes it or reads it is looked at, through a CertificateIssuer too.
fn secret_changed(
    index: Shared,
    waker: Waker<CertificateRotation>,
    issuers: Option<(Waker<CertificateIssuer>, Store<Guarded<CertificateIssuer>>, String)>,
) -> impl Fn(&crate::inventory::Key) + Send + 'static {
    move |(namespace, name)| {
        wake_all(&waker, index.read(|index| index.users_of_secret(namespace, name)));
        let Some((issuer_waker, store, operator_namespace)) = &issuers else { return };
        if **namespace != **operator_namespace {
            return;
        }
        for issuer in store.state() {
            let reads = issuer.0.as_ref().is_ok_and(|issuer| issuer.spec.issuer.secrets().iter().any(|secret| **secret == **name));
            if reads {
                issuer_waker.wake(None, &issuer.name_any());
                wake_all(&waker, index.read(|index| index.users_of_issuer(&issuer.name_any())));
            }
        }
    }
}
