//! What the area watches, and what wakes what.

use std::{collections::BTreeSet, sync::Arc};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all, select_all},
};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Client, ResourceExt,
    core::PartialObjectMeta,
    runtime::{reflector::Store, watcher},
};
use tokio_util::sync::CancellationToken;

use super::{
    controller,
    index::{Index, Key, Shared},
    issuer::Issuer,
    issuer_controller,
    resolve::ClusterIssuers,
    verify::{Networks, Turns},
};
use crate::{
    api::{CertificateIssuer, CertificateRotation},
    clock::Clock,
    cluster::{
        apply::Writer,
        backoff::Failures,
        contest::Contest,
        events::Events,
        lease::Leadership,
        run::{Guarded, Kind, Settings, Waker},
        steps::Steps,
    },
    inventory::{
        Change, Facts, Followed, Hear, Inventory,
        namespaces::{self, NamespaceLabels},
        secrets::SecretFact,
        template::Source,
    },
    rollout::{act::Restarter, budget::Budget, roll::Roller},
    server::readiness::Readiness,
    telemetry::{audit::Audit, metrics::Metrics},
};

/// The field manager of everything that this area writes.
pub const MANAGER: &str = "seaworthy-certificates";

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
    /// How many workloads are restarted at a time, whoever asks.
    pub budget: Budget,
    /// Where handshakes may go beside the Pods of a resource's own namespace.
    pub verify_networks: Networks,
}

/// The caches of one scope, for who counts and shows.
pub type Rotations = Store<Guarded<CertificateRotation>>;

/// What runs in one scope.
pub struct Running {
    /// The resources.
    pub rotations: Rotations,
    /// To be told what has other users than before.
    pub users_changed: Hear,
    /// The watches and the run loops; ends only when it is stopped.
    pub work: BoxFuture<'static, ()>,
}

/// Everything of one scope: the whole cluster (`namespace` None) or one namespace, without the cluster-scoped kinds.
pub fn run(parts: Parts, namespace: Option<&str>, inventory: Inventory, stop: CancellationToken) -> Running {
    let watched = Watched::new(&parts, namespace);
    watched.hold_readiness(&parts.readiness, namespace);
    let (index, waker) = (Shared::default(), watched.rotations.waker.clone());
    let users_changed = {
        let index = index.clone();
        move |namespace: &str, source: &Source| {
            if let Source::Secret(name) = source {
                for (namespace, name) in index.read(|index| index.writers_of_secret(namespace, name)) {
                    waker.wake_soon(Some(&namespace), &name);
                }
            }
        }
    };
    Running {
        rotations: watched.rotations.store.clone(),
        users_changed: Arc::new(users_changed),
        work: all(parts, watched, (index, inventory), stop).boxed(),
    }
}

/// The kinds of one scope.
struct Watched {
    rotations: Kind<CertificateRotation>,
    secrets: (Facts<SecretFact>, Api<PartialObjectMeta<Secret>>),
    /// Only where the whole cluster is looked after.
    cluster: Option<(Kind<CertificateIssuer>, Facts<NamespaceLabels>)>,
}

impl Watched {
    fn new(parts: &Parts, namespace: Option<&str>) -> Self {
        let (client, leadership) = (parts.client.clone(), parts.leadership.clone());
        let (rotations, secrets) = match namespace {
            Some(namespace) => (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace)),
            None => (Api::all(client.clone()), Api::all(client.clone())),
        };
        let cluster = namespace.is_none().then(|| (Kind::new(Api::all(client), leadership.clone()), Facts::default()));
        Self { rotations: Kind::new(rotations, leadership), secrets: (Facts::default(), secrets), cluster }
    }

    /// The process is not ready before all of these have been listed.
    fn hold_readiness(&self, readiness: &Readiness, namespace: Option<&str>) {
        let place = namespace.map(|namespace| format!(" in {namespace}")).unwrap_or_default();
        readiness.wait_for(&format!("CertificateRotations{place}"), self.rotations.filled());
        let secrets = self.secrets.0.clone();
        readiness.wait_for(&format!("Secrets{place}"), async move { secrets.filled().await });
        if let Some((issuers, namespaces)) = &self.cluster {
            readiness.wait_for("CertificateIssuers", issuers.filled());
            let namespaces = namespaces.clone();
            readiness.wait_for("Namespaces", async move { namespaces.filled().await });
        }
    }
}

async fn all(parts: Parts, watched: Watched, (index, inventory): (Shared, Inventory), stop: CancellationToken) {
    let Watched { rotations, secrets: (secret_facts, secrets_api), cluster } = watched;
    let waker = rotations.waker.clone();
    let settings = |first| Settings { concurrency: parts.concurrency, metrics: parts.metrics.clone(), stop: stop.clone(), first };
    let (mut loops, mut watches) = (Vec::new(), Vec::new());
    // Who uses a Secret cannot be told before the inventory is filled; whether an issuer allows a namespace, not before both are listed.
    let used = inventory.clone();
    let mut first = async move { used.filled().await }.boxed();
    let (mut issuer_waker, mut cluster_issuers) = (None, None);
    if let Some((issuers, namespace_facts)) = cluster {
        issuer_waker = Some((issuers.waker.clone(), issuers.store.clone(), parts.operator_namespace.clone()));
        cluster_issuers = Some(ClusterIssuers {
            store: issuers.store.clone(),
            namespaces: namespace_facts.clone(),
            operator_namespace: parts.operator_namespace.clone(),
        });
        let (listed, namespaces) = (issuers.filled(), namespace_facts.clone());
        first = async move {
            futures::join!(first, listed, namespaces.filled());
        }
        .boxed();
        let context = Arc::new(issuer_context(&parts, &index));
        let noticed = issuer_changed(index.clone(), waker.clone());
        loops.push(issuers.run(settings(std::future::ready(()).boxed()), context, noticed, issuer_controller::reconcile).boxed());
        let (index, waker, api) = (index.clone(), waker.clone(), Api::<PartialObjectMeta<Namespace>>::all(parts.client.clone()));
        let what = Followed { kind: "Namespace", optional: false };
        let changed = move |change: &Change<NamespaceLabels>| wake_all(&waker, index.read(|index| index.with_issuer_in(&change.key.1)));
        watches.push(namespace_facts.follow(api, what, |object| Some(namespaces::labels(object)), changed).boxed());
    }
    let noticed = rotation_changed(index.clone(), waker.clone(), issuer_waker.as_ref().map(|(waker, ..)| waker.clone()));
    let context = Arc::new(rotation_context(&parts, &index, (inventory, secret_facts.clone()), cluster_issuers));
    let news = {
        let (writer, facts) = (context.writer.clone(), secret_facts.clone());
        move |namespace: &str, name: &str| {
            facts.get(namespace, name).is_none_or(|fact| writer.just_written(namespace, name).as_deref() != Some(&fact.resource_version))
        }
    };
    loops.push(rotations.run(settings(first), context, noticed, controller::reconcile).boxed());
    let changed = secret_changed(index, waker, issuer_waker, news);
    let what = Followed { kind: "Secret", optional: false };
    watches.push(secret_facts.follow(secrets_api, what, |object| Some(SecretFact::of(object)), changed).boxed());
    // On `stop` each loop ends when what is under way is done, and all of them are waited for; the watches have no end of their own.
    let loops = async {
        let ((), _, rest) = select_all(loops).await;
        if stop.is_cancelled() {
            join_all(rest).await;
        }
    };
    tokio::select! {
        () = loops => {}
        _ = select_all(watches) => {}
    }
    if !stop.is_cancelled() {
        tracing::error!("a watch or run loop of the certificates area ended");
    }
}

fn issuer_context(parts: &Parts, index: &Shared) -> issuer_controller::Context {
    issuer_controller::Context {
        client: parts.client.clone(),
        writer: Writer::new(parts.client.clone(), parts.leadership.clone(), MANAGER),
        clock: parts.clock.clone(),
        index: index.clone(),
        operator_namespace: parts.operator_namespace.clone(),
        failures: Failures::default(),
    }
}

fn rotation_context(
    parts: &Parts,
    index: &Shared,
    (inventory, secrets): (Inventory, Facts<SecretFact>),
    issuers: Option<ClusterIssuers>,
) -> controller::Context {
    controller::Context {
        writer: Writer::new(parts.client.clone(), parts.leadership.clone(), MANAGER),
        client: parts.client.clone(),
        events: parts.events.clone(),
        audit: parts.audit.clone(),
        metrics: parts.metrics.clone(),
        steps: parts.steps.clone(),
        clock: parts.clock.clone(),
        index: index.clone(),
        issuers,
        failures: Failures::default(),
        races: Failures::default(),
        roller: Roller {
            inventory,
            restarter: Restarter::new(parts.client.clone(), parts.leadership.clone(), &parts.operator_namespace, parts.budget.clone()),
            steps: parts.steps.clone(),
        },
        secrets,
        verify_networks: parts.verify_networks.clone(),
        turns: Turns::default(),
        contest: Contest::default(),
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
) -> impl Fn(&watcher::Event<Guarded<CertificateRotation>>, bool) + Send + 'static {
    move |event, news| {
        if !news && !matches!(event, watcher::Event::InitApply(_)) {
            return; // only its status
        }
        let key = |object: &Guarded<CertificateRotation>| (object.namespace().unwrap_or_default(), object.name_any());
        let mut named = Vec::new(); // before and now
        let touched = index.write(|index| match event {
            watcher::Event::Init => {
                index.begin_list();
                BTreeSet::new()
            }
            watcher::Event::InitDone => {
                let (touched, issuers) = index.end_list();
                named.extend(issuers);
                touched
            }
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) | watcher::Event::Delete(object) => {
                let key = key(object);
                named.extend(index.issuer_of(&key));
                let touched = match (event, &object.0) {
                    (watcher::Event::Apply(_) | watcher::Event::InitApply(_), Ok(rotation)) => index.put(rotation),
                    _ => index.remove(&key),
                };
                named.extend(index.issuer_of(&key));
                touched
            }
        });
        wake_all(&waker, touched);
        if let Some(issuers) = &issuers {
            for issuer in named {
                issuers.wake(None, &issuer);
            }
        }
    }
}

/// An issuer came, changed or went: who names it is looked at.
fn issuer_changed(
    index: Shared,
    waker: Waker<CertificateRotation>,
) -> impl Fn(&watcher::Event<Guarded<CertificateIssuer>>, bool) + Send + 'static {
    move |event, news| {
        match event {
            watcher::Event::Apply(_) if !news => {} // only its status
            watcher::Event::Apply(issuer) | watcher::Event::Delete(issuer) => {
                wake_all(&waker, index.read(|index| index.users_of_issuer(&issuer.name_any())));
            }
            // A new list: what has changed meanwhile, or is gone, is not told one by one.
            watcher::Event::InitDone => wake_all(&waker, index.read(Index::with_issuer)),
            watcher::Event::Init | watcher::Event::InitApply(_) => {}
        }
    }
}

/// A Secret came, changed or went: who writes it (unless that was just done: no `news`) or reads it is looked at, through a CertificateIssuer too.
fn secret_changed(
    index: Shared,
    waker: Waker<CertificateRotation>,
    issuers: Option<(Waker<CertificateIssuer>, Store<Guarded<CertificateIssuer>>, String)>,
    news: impl Fn(&str, &str) -> bool + Send + 'static,
) -> impl Fn(&Change<SecretFact>) + Send + 'static {
    move |change| {
        let (namespace, name) = &change.key;
        let news = news(namespace, name);
        wake_all(
            &waker,
            index.read(|index| if news { index.users_of_secret(namespace, name) } else { index.readers_of_secret(namespace, name) }),
        );
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
