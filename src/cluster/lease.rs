//! Leader election on a Lease (coordination.k8s.io/v1): caches run on every replica, only the leader writes.
//!
//! Every write to the Lease carries the resourceVersion that was read. Whether another holder's lease has run out is judged by how long *we*
//! have seen it unchanged, on CLOCK_BOOTTIME, which counts on while a process or a machine sleeps; nobody's wall clock is compared with
//! another's. A leader stops writing [`Settings::stop_after`] after it *sent* its last successful renewal, some seconds before anyone may take over.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{apply::WriteError, error::message};

/// How long a lease is good for where nothing else is said, in Kubernetes' own components too.
const DURATION: Duration = Duration::from_secs(15);

/// After a renewal that failed, the next attempt.
const AGAIN: Duration = Duration::from_millis(500);

/// How the lease is held.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the Lease lies.
    pub namespace: String,
    /// What it is called. Who uses the same one waits for each other.
    pub name: String,
    /// Who we are: the Pod's name and something random.
    pub identity: String,
    /// After how long without a renewal others take over.
    pub duration: Duration,
    /// How often it is renewed.
    pub renew_every: Duration,
    /// How long after the last renewal was sent we still write.
    pub stop_after: Duration,
}

impl Settings {
    /// Kubernetes' usual 15 s; renewed three times as often, and a third kept for writes that are under way.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            duration: DURATION,
            renew_every: Duration::from_secs(4),
            stop_after: Duration::from_secs(10),
        }
    }
}

/// Why a campaign ended. The process has to end too: what it knows may be superseded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Somebody else holds it now.
    #[error("the lease was taken over by {0}")]
    Taken(String),
    /// It could not be renewed in time.
    #[error("the lease could not be renewed for {0:?}: {1}")]
    NotRenewed(Duration, String),
}

/// Whether this process may write; cheap to clone and to ask.
#[derive(Clone)]
pub struct Leadership {
    /// Until when, in nanoseconds of CLOCK_BOOTTIME; 0: not leading.
    until: Arc<AtomicU64>,
    acquired: watch::Receiver<bool>,
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leadership({})", self.is_leading())
    }
}

impl Leadership {
    /// Of a process that needs no lease.
    pub fn always() -> Self {
        let (_, acquired) = watch::channel(true);
        Self { until: Arc::new(AtomicU64::new(u64::MAX)), acquired }
    }

    /// Of a process that takes part in a [`Campaign`].
    pub fn campaign(client: Client, settings: Settings) -> (Self, Campaign) {
        let (sender, acquired) = watch::channel(false);
        let until = Arc::new(AtomicU64::new(0));
        let api = Api::namespaced(client, &settings.namespace);
        (Self { until: until.clone(), acquired }, Campaign { api, settings, until, acquired: sender, seen: None, gone: None })
    }

    /// Whether we lead at this moment.
    pub fn is_leading(&self) -> bool {
        boottime() < self.until.load(Ordering::SeqCst)
    }

    /// Refuses when we do not lead at this moment.
    pub fn check(&self) -> Result<(), WriteError> {
        if self.is_leading() { Ok(()) } else { Err(WriteError::NotLeading) }
    }

    /// Returns when we lead for the first time.
    pub async fn acquired(&self) {
        let mut acquired = self.acquired.clone();
        if acquired.wait_for(|acquired| *acquired).await.is_err() {
            std::future::pending::<()>().await; // the campaign has ended without success; the process is on its way out
        }
    }
}

/// Takes part in the election until it is lost or cancelled.
pub struct Campaign {
    api: Api<Lease>,
    settings: Settings,
    until: Arc<AtomicU64>,
    acquired: watch::Sender<bool>,
    /// The resourceVersion of another's lease, and when we saw it first.
    seen: Option<(String, u64)>,
    /// Since when a lease that another held is not there any more.
    gone: Option<u64>,
}

impl Campaign {
    /// Runs until `stop` (then the lease is given back, `Ok`) or until a lease that was held is lost.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Lost> {
        loop {
            let deadline = self.until.load(Ordering::SeqCst);
            let outcome = self.attempt().await;
            let (failed, now) = (outcome.is_err(), boottime());
            if deadline > 0 {
                match outcome {
                    Ok(Held::ByOther(other)) => return Err(self.lose(Lost::Taken(other))),
                    Err(error) if now >= deadline => return Err(self.lose(Lost::NotRenewed(self.settings.stop_after, error))),
                    Err(error) => tracing::warn!(error, "the lease could not be renewed; trying again"),
                    Ok(Held::ByUs) => {}
                }
            } else if let Err(error) = outcome {
                tracing::warn!(error, "the lease could not be read or taken; trying again");
            }
            let pause = match self.until.load(Ordering::SeqCst) > now {
                true if failed => AGAIN,
                true => self.settings.renew_every,
                false => self.settings.renew_every / 2,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {
                    self.release().await;
                    return Ok(());
                }
            }
        }
    }

    fn lose(&self, lost: Lost) -> Lost {
        self.until.store(0, Ordering::SeqCst);
        lost
    }

    /// Reads the lease and renews, takes or leaves it. Bounded in time, so that a cut connection is noticed before the lease has run out.
    async fn attempt(&mut self) -> Result<Held, String> {
        let most = self.settings.renew_every;
        match tokio::time::timeout(most, self.renew_or_take()).await {
            Ok(outcome) => outcome.map_err(|error| message(&error)),
            Err(_) => Err(format!("no answer within {most:?}")),
        }
    }

    async fn renew_or_take(&mut self) -> Result<Held, kube::Error> {
        let current = self.api.get_opt(&self.settings.name).await?;
        let sent = boottime();
        let Some(mut lease) = current else {
            if !self.may_make(sent) {
                return Ok(Held::ByOther("a lease that was deleted".into()));
            }
            let metadata = ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            return match self.api.create(&PostParams::default(), &lease).await {
                Ok(_) => Ok(self.hold(sent)),
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(Held::ByOther("another replica".into())),
                Err(error) => Err(error),
            };
        };
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.settings.identity && !holder.is_empty() && !self.has_run_out(&lease, &spec) {
            return Ok(Held::ByOther(holder));
        }
        lease.spec = Some(self.spec(Some(spec)));
        lease.metadata.managed_fields = None;
        match self.api.replace(&self.settings.name, &PostParams::default(), &lease).await {
            Ok(_) => Ok(self.hold(sent)),
            // Somebody was faster; who it is shows the next reading.
            Err(kube::Error::Api(status)) if status.is_conflict() && self.until.load(Ordering::SeqCst) == 0 => {
                Ok(Held::ByOther("another replica".into()))
            }
            Err(error) => Err(error),
        }
    }

    /// Somebody deleted the lease of another: that one may go on writing until its time is over.
    fn may_make(&mut self, now: u64) -> bool {
        if self.seen.is_none() || self.until.load(Ordering::SeqCst) > 0 {
            return true;
        }
        now.saturating_sub(*self.gone.get_or_insert(now)) >= nanoseconds(self.settings.duration)
    }

    /// Another's lease has run out when we have seen it unchanged for as long as it says.
    fn has_run_out(&mut self, lease: &Lease, spec: &LeaseSpec) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let now = boottime();
        let length =
            spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds.max(1)).ok()).map_or(DURATION, Duration::from_secs);
        self.gone = None;
        match &self.seen {
            Some((seen, since)) if *seen == version => now.saturating_sub(*since) >= nanoseconds(length),
            _ => {
                self.seen = Some((version, now));
                false
            }
        }
    }

    fn hold(&mut self, sent: u64) -> Held {
        if self.until.swap(sent + nanoseconds(self.settings.stop_after), Ordering::SeqCst) == 0 {
            tracing::info!(identity = self.settings.identity, "this replica is the leader now");
            self.acquired.send_replace(true);
        }
        Held::ByUs
    }

    fn spec(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(jiff::Timestamp::now());
        let mut spec = before.unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&self.settings.identity) {
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |count| count.saturating_add(1)));
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(self.settings.identity.clone());
        spec.lease_duration_seconds = Some(i32::try_from(self.settings.duration.as_secs()).unwrap_or(15));
        spec.renew_time = Some(now);
        spec
    }

    /// Gives the lease back, so that the next one need not wait.
    async fn release(&self) {
        if self.until.swap(0, Ordering::SeqCst) == 0 {
            return;
        }
        let give_back = async {
            let mut lease = self.api.get(&self.settings.name).await?;
            if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.settings.identity)) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                self.api.replace(&self.settings.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(Duration::from_secs(3), give_back).await {
            Ok(Ok(())) => tracing::info!("the lease was given back"),
            Ok(Err(error)) => tracing::warn!(error = message(&error), "the lease could not be given back; it runs out by itself"),
            Err(_) => tracing::warn!("the lease could not be given back in time; it runs out by itself"),
        }
    }
}

enum Held {
    ByUs,
    ByOther(String),
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since the machine was started, sleep included.
fn boottime() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds * 1_000_000_000 + nanoseconds
}
