//! The composition root: the only file that knows every part.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use kube::Client;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    area::Parts,
    certificates::{self, area::Rotations, verify::Networks},
    clock::Clock,
    cluster::{
        conditions::{READY, STALLED, is_true},
        events::Events,
        lease::{self, Leadership},
        permissions::{self, Permission},
        steps::Steps,
    },
    inventory::{self, Inventory},
    rollout::budget::{Budget, Limits},
    secrets,
    server::{self, Sources, readiness::Readiness},
    telemetry::{
        audit::Audit,
        metrics::{Certificates, Metrics, Secrets},
    },
};

/// What the operator does; each can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Area {
    /// CertificateRotation and CertificateIssuer.
    Certificates,
    /// SecretRotation and SecretStore.
    Secrets,
}

impl Area {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Certificates, Self::Secrets];

    /// What it may do in the cluster.
    pub const fn permissions(self) -> &'static [Permission] {
        match self {
            Self::Certificates => certificates::permissions::PERMISSIONS,
            Self::Secrets => secrets::permissions::PERMISSIONS,
        }
    }

    /// What every replica may do, whatever is enabled.
    pub const fn shared_permissions() -> [&'static [Permission]; 2] {
        [permissions::PERMISSIONS, inventory::permissions::PERMISSIONS]
    }
}

/// How the operator runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What it does.
    pub areas: Vec<Area>,
    /// Where; empty: everywhere.
    pub namespaces: Vec<String>,
    /// Its own namespace: the Lease, and the Secrets of cluster-scoped issuers.
    pub operator_namespace: String,
    /// Its name: the Pod's, and something random.
    pub identity: String,
    /// Whether it takes part in an election; without one it leads always.
    pub leader_elect: bool,
    /// The name of the Lease: of several operators in one namespace, each needs its own.
    pub lease_name: String,
    /// Where probes and metrics are answered.
    pub listen: SocketAddr,
    /// How many objects of a kind at once.
    pub concurrency: u16,
    /// How many workloads are restarted at a time, and how often one.
    pub restarts: Limits,
    /// Where handshakes may go beside the Pods of a resource's own namespace.
    pub verify_networks: Networks,
    /// What stores may reach.
    pub stores: secrets::store::Allowed,
    /// The time.
    pub clock: Clock,
    /// Where to stop, in fault tests.
    #[cfg(feature = "testing")]
    pub failpoint: Option<crate::testing::failpoint::Failpoint>,
}

/// How long what is under way may take after the signal to stop; less than Kubernetes' 30 s.
const DRAIN: Duration = Duration::from_secs(20);

/// Runs until `stop`, or until something that must not end does.
pub async fn run(client: Client, settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(settings.listen).await.with_context(|| format!("--listen {} cannot be used", settings.listen))?;
    let (readiness, metrics) = (Readiness::default(), Metrics::new());
    let (leadership, campaign) = lead(&client, &settings);
    let election = CancellationToken::new();
    let mut campaign = AbortOnDropHandle::new(tokio::spawn(hold(campaign, election.clone())));
    let parts = parts(&client, &settings, &leadership, (&readiness, &metrics));
    let Work { mut areas, caches } = begin(&client, &settings, (parts, &readiness), &stop);
    let (served, clock) = (CancellationToken::new(), settings.clock.clone());
    let refresh = move |metrics: &Metrics| {
        metrics.leading(leadership.is_leading());
        caches.count(metrics, &clock);
    };
    let server = AbortOnDropHandle::new(tokio::spawn(server::serve(
        listener,
        Sources { readiness: readiness.clone(), metrics, refresh: Arc::new(refresh) },
        served.clone(),
    )));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), identity = settings.identity, namespaces = ?settings.namespaces, "started");
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        Some(ended) = areas.join_next() => ended.unwrap_or_else(|error| Err(error.into())),
        ended = &mut campaign => ended.unwrap_or_else(|error| Err(error.into())),
    };
    // Readiness off, drain, give the lease back, stop answering.
    readiness.missing_now("shutdown");
    stop.cancel();
    if tokio::time::timeout(DRAIN, async { while areas.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("what was under way did not end within {DRAIN:?}");
    }
    election.cancel();
    if !campaign.is_finished() {
        let _ = tokio::time::timeout(Duration::from_secs(4), campaign).await; // the lease runs out by itself then
    }
    served.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(2), server).await;
    tracing::info!("stopped");
    ended
}

/// What runs.
struct Work {
    /// None of them must end before it is stopped.
    areas: JoinSet<anyhow::Result<()>>,
    caches: Caches,
}

/// The caches of all areas in all scopes.
#[derive(Default)]
struct Caches {
    certificates: Vec<Rotations>,
    secrets: Vec<secrets::area::Caches>,
}

impl Caches {
    /// What the gauges say.
    fn count(&self, metrics: &Metrics, clock: &Clock) {
        let certificates = count(&self.certificates, clock);
        let mut secrets = Secrets { consumers: certificates.consumers, ..Secrets::default() };
        metrics.certificates(&certificates);
        for caches in &self.secrets {
            caches.count(&mut secrets, clock.now());
        }
        metrics.consumers(secrets.consumers);
        metrics.secrets(&secrets);
    }
}

/// Begins what the settings ask for, in each scope with an inventory of its own.
fn begin(
    client: &Client,
    settings: &Settings,
    (parts, readiness): (impl Fn(&'static str) -> Parts, &Readiness),
    stop: &CancellationToken,
) -> Work {
    let (mut areas, mut caches) = (JoinSet::new(), Caches::default());
    for scope in scopes(settings) {
        let (inventory, mut hears) = (Inventory::default(), Vec::new());
        let place = || (scope.as_deref(), inventory.clone());
        if settings.areas.contains(&Area::Certificates) {
            let parts = parts(certificates::controller::KIND);
            let running = certificates::area::run(&parts, settings.verify_networks.clone(), place(), stop.clone());
            caches.certificates.push(running.store);
            hears.push(running.hear);
            areas.spawn(until_stopped("the certificates area", running.work, stop.clone()));
        }
        if settings.areas.contains(&Area::Secrets) {
            let parts = parts(secrets::context::KIND);
            let running = secrets::area::run(&parts, settings.stores.clone(), place(), stop.clone());
            caches.secrets.push(running.store);
            hears.push(running.hear);
            areas.spawn(until_stopped("the secrets area", running.work, stop.clone()));
        }
        let (named, filled) = (scope.as_deref().map(|namespace| format!(" in {namespace}")).unwrap_or_default(), inventory.clone());
        readiness.wait_for(&format!("the inventory{named}"), async move { filled.filled().await });
        let follow = inventory.follow(client.clone(), scope, move |news| hears.iter().for_each(|hear| hear(news)));
        let stopped = stop.clone();
        let follow = async move {
            tokio::select! {
                () = follow => {}
                () = stopped.cancelled() => {}
            }
        };
        areas.spawn(until_stopped("the inventory", follow, stop.clone()));
    }
    Work { areas, caches }
}

/// What must not end before it is stopped.
async fn until_stopped(what: &'static str, work: impl Future<Output = ()>, stop: CancellationToken) -> anyhow::Result<()> {
    work.await;
    if stop.is_cancelled() { Ok(()) } else { Err(anyhow::anyhow!("{what} ended by itself")) }
}

/// Takes part in the election until the end; without one there is nothing to lose.
async fn hold(campaign: Option<lease::Campaign>, end: CancellationToken) -> anyhow::Result<()> {
    let Some(campaign) = campaign else {
        end.cancelled().await;
        return Ok(());
    };
    campaign.run(end).await.map_err(anyhow::Error::from)
}

fn lead(client: &Client, settings: &Settings) -> (Leadership, Option<lease::Campaign>) {
    if !settings.leader_elect {
        return (Leadership::always(), None);
    }
    let lease = lease::Settings::new(&settings.operator_namespace, &settings.lease_name, &settings.identity);
    let (leadership, campaign) = Leadership::campaign(client.clone(), lease);
    (leadership, Some(campaign))
}

fn scopes(settings: &Settings) -> Vec<Option<String>> {
    if settings.namespaces.is_empty() {
        return vec![None];
    }
    tracing::info!("limited to namespaces: cluster-scoped kinds (CertificateIssuer, SecretStore) are off");
    settings.namespaces.iter().cloned().map(Some).collect()
}

/// What an area gets, by its kind.
fn parts(
    client: &Client,
    settings: &Settings,
    leadership: &Leadership,
    (readiness, metrics): (&Readiness, &Metrics),
) -> impl Fn(&'static str) -> Parts + use<> {
    let parts = Parts {
        client: client.clone(),
        leadership: leadership.clone(),
        clock: settings.clock.clone(),
        metrics: metrics.clone(),
        audit: Audit::new(&settings.identity),
        events: Events::new(client.clone(), &settings.identity),
        steps: Steps::new("", metrics.clone()),
        readiness: readiness.clone(),
        operator_namespace: settings.operator_namespace.clone(),
        concurrency: settings.concurrency,
        budget: Budget::new(settings.restarts),
    };
    let metrics = metrics.clone();
    #[cfg(feature = "testing")]
    let failpoint = settings.failpoint.clone();
    move |kind| {
        let steps = Steps::new(kind, metrics.clone());
        #[cfg(feature = "testing")]
        let steps = match &failpoint {
            Some(failpoint) => steps.with_failpoint(failpoint.clone()),
            None => steps,
        };
        Parts { steps, ..parts.clone() }
    }
}

/// What the gauges say, from the caches.
fn count(stores: &[Rotations], clock: &Clock) -> Certificates {
    const MONTH: f64 = 30.0 * 24.0 * 3600.0;
    let now = clock.now();
    let mut counts = Certificates::default();
    let earlier = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| old.min(new)));
    for rotation in stores.iter().flat_map(Rotations::state) {
        let status = rotation.0.as_ref().ok().and_then(|rotation| rotation.status.as_ref());
        if status.is_some_and(|status| is_true(&status.conditions, READY)) {
            counts.ready += 1;
        } else {
            counts.not_ready += 1;
        }
        let Some(status) = status else { continue };
        let left = |time: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time| time.0.duration_since(now).as_secs_f64();
        let (expiry, renewal) = (status.not_after.as_ref().map(left), status.renewal_time.as_ref().map(left));
        if let Some(expiry) = expiry {
            counts.nearest_expiry = earlier(counts.nearest_expiry, expiry);
            // What was rolled back is renewed late, and only a person can do something about it.
            let late = renewal.is_none_or(|renewal| renewal < 0.0) || is_true(&status.conditions, STALLED);
            counts.overdue += i64::from(expiry < MONTH && late);
        }
        if let Some(consumers) = &status.consumers {
            counts.consumers.add(consumers.current, consumers.total);
        }
        if let Some(renewal) = renewal {
            counts.nearest_renewal = earlier(counts.nearest_renewal, renewal);
        }
    }
    counts
}
