//! Metrics in the Prometheus (OpenMetrics) format. Labels come from closed sets; never the name of an object.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// All is as it should be.
    Success,
    /// It failed and is tried again.
    Retry,
    /// A person is needed.
    Stalled,
    /// It panicked.
    Panic,
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Self::Success => "success",
            Self::Retry => "retry",
            Self::Stalled => "stalled",
            Self::Panic => "panic",
        }
        .encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindOutcome {
    kind: String,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindReason {
    kind: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindStep {
    kind: String,
    step: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadyLabel {
    ready: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// Pods that use managed Secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Consumers {
    /// How many have the present value.
    pub current: i64,
    /// How many may still have the one before.
    pub stale: i64,
}

impl Consumers {
    /// Adds those of one Secret.
    pub fn add(&mut self, current: i64, total: i64) {
        self.current += current;
        self.stale += total - current;
    }
}

/// What is true of all certificates together, for the gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Certificates {
    /// How many are Ready.
    pub ready: i64,
    /// How many are not.
    pub not_ready: i64,
    /// How many end within 30 days although the time to renew them has passed.
    pub overdue: i64,
    /// Who uses them.
    pub consumers: Consumers,
    /// Seconds until the first one ends; negative if it has.
    pub nearest_expiry: Option<f64>,
    /// Seconds until the next renewal.
    pub nearest_renewal: Option<f64>,
}

/// What is true of all SecretRotations and SecretStores together, for the gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Secrets {
    /// Who uses them.
    pub consumers: Consumers,
    /// How many SecretRotations are Ready.
    pub ready: i64,
    /// How many are not.
    pub not_ready: i64,
    /// How many should have new values since an hour, or were taken back.
    pub rotations_overdue: i64,
    /// How many Secrets hold previous values for longer than they may.
    pub previous_overdue: i64,
    /// How many SecretStores are Ready.
    pub stores_ready: i64,
    /// How many are not.
    pub stores_not_ready: i64,
    /// Stores, SecretStores and others, that failed or asked to wait, and have not answered since.
    pub stores_away: i64,
}

/// All metrics; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<KindOutcome, Counter>,
    reconcile_seconds: Family<Kind, Histogram, fn() -> Histogram>,
    step_seconds: Family<KindStep, Histogram, fn() -> Histogram>,
    rotations: Family<KindReason, Counter>,
    failures: Family<KindReason, Counter>,
    certificates: Family<ReadyLabel, Gauge>,
    overdue: Gauge,
    consumers: Family<StateLabel, Gauge>,
    nearest_expiry: Seconds,
    nearest_renewal: Seconds,
    secrets: Family<ReadyLabel, Gauge>,
    stores: Family<ReadyLabel, Gauge>,
    stores_away: Gauge,
    rotations_overdue: Gauge,
    previous_overdue: Gauge,
    queue_depth: Family<Kind, Gauge>,
    leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn seconds() -> Histogram {
    // From a read of a local API server to an issuer that takes its time.
    Histogram::new([0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0])
}

impl Metrics {
    /// Registers all of them, with the prefix `seaworthy_`.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(seconds),
            step_seconds: Family::new_with_constructor(seconds),
            rotations: Family::default(),
            failures: Family::default(),
            certificates: Family::default(),
            overdue: Gauge::default(),
            consumers: Family::default(),
            nearest_expiry: Seconds::default(),
            nearest_renewal: Seconds::default(),
            secrets: Family::default(),
            stores: Family::default(),
            stores_away: Gauge::default(),
            rotations_overdue: Gauge::default(),
            previous_overdue: Gauge::default(),
            queue_depth: Family::default(),
            leader: Gauge::default(),
        };
        let mut r = Registry::with_prefix("seaworthy");
        r.register("build", "Version of the operator", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        r.register("leader", "1 on the replica that leads, else 0", metrics.leader.clone());
        r.register("reconciles", "Reconciles by kind and outcome", metrics.reconciles.clone());
        r.register_with_unit("reconcile", "Duration of a reconcile", Unit::Seconds, metrics.reconcile_seconds.clone());
        r.register_with_unit("step", "Duration of a step of a rotation", Unit::Seconds, metrics.step_seconds.clone());
        r.register("rotations", "Completed rotations by kind and reason", metrics.rotations.clone());
        r.register("rotation_failures", "Failed attempts by kind and reason", metrics.failures.clone());
        r.register("certificates", "CertificateRotations by readiness", metrics.certificates.clone());
        r.register(
            "certificates_overdue",
            "Certificates that end within 30 days although their renewal is due, or are stalled",
            metrics.overdue.clone(),
        );
        r.register(
            "consumers",
            "Pods that use a managed Secret, with its present value or possibly with the one before",
            metrics.consumers.clone(),
        );
        r.register_with_unit("nearest_expiry", "Time until the first certificate expires", Unit::Seconds, metrics.nearest_expiry.clone());
        r.register_with_unit("nearest_renewal", "Time until the next renewal", Unit::Seconds, metrics.nearest_renewal.clone());
        r.register("secrets", "SecretRotations by readiness", metrics.secrets.clone());
        r.register("stores", "SecretStores by readiness", metrics.stores.clone());
        r.register("stores_away", "Stores in use that failed or asked to wait, and have not answered since", metrics.stores_away.clone());
        r.register(
            "secret_rotations_overdue",
            "SecretRotations whose values should have been replaced an hour ago, or were taken back",
            metrics.rotations_overdue.clone(),
        );
        r.register(
            "previous_values_overdue",
            "Secrets that hold previous values for longer than maxKeep",
            metrics.previous_overdue.clone(),
        );
        r.register("queue_depth", "Objects that wait to be looked at", metrics.queue_depth.clone());
        metrics.registry = Arc::new(r);
        metrics
    }

    /// A reconcile ended.
    pub fn reconciled(&self, kind: &str, outcome: Outcome, took: Duration) {
        self.reconciles.get_or_create(&KindOutcome { kind: kind.into(), outcome }).inc();
        self.reconcile_seconds.get_or_create(&Kind { kind: kind.into() }).observe(took.as_secs_f64());
    }

    /// A step of a rotation ended.
    pub fn step(&self, kind: &str, step: &'static str, took: Duration) {
        self.step_seconds.get_or_create(&KindStep { kind: kind.into(), step }).observe(took.as_secs_f64());
    }

    /// A rotation was completed.
    pub fn rotated(&self, kind: &str, reason: &'static str) {
        self.rotations.get_or_create(&KindReason { kind: kind.into(), reason }).inc();
    }

    /// A rotation failed.
    pub fn failed(&self, kind: &str, reason: &'static str) {
        self.failures.get_or_create(&KindReason { kind: kind.into(), reason }).inc();
    }

    /// How many objects wait.
    pub fn queued(&self, kind: &str, depth: usize) {
        self.queue_depth.get_or_create(&Kind { kind: kind.into() }).set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// What is true of all certificates now.
    pub fn certificates(&self, now: &Certificates) {
        self.certificates.get_or_create(&ReadyLabel { ready: "true" }).set(now.ready);
        self.certificates.get_or_create(&ReadyLabel { ready: "false" }).set(now.not_ready);
        self.overdue.set(now.overdue);
        self.nearest_expiry.set(now.nearest_expiry.unwrap_or(f64::INFINITY));
        self.nearest_renewal.set(now.nearest_renewal.unwrap_or(f64::INFINITY));
    }

    /// Who uses managed Secrets now.
    pub fn consumers(&self, now: Consumers) {
        self.consumers.get_or_create(&StateLabel { state: "current" }).set(now.current);
        self.consumers.get_or_create(&StateLabel { state: "stale" }).set(now.stale);
    }

    /// What is true of all secrets now.
    pub fn secrets(&self, now: &Secrets) {
        self.secrets.get_or_create(&ReadyLabel { ready: "true" }).set(now.ready);
        self.secrets.get_or_create(&ReadyLabel { ready: "false" }).set(now.not_ready);
        self.stores.get_or_create(&ReadyLabel { ready: "true" }).set(now.stores_ready);
        self.stores.get_or_create(&ReadyLabel { ready: "false" }).set(now.stores_not_ready);
        self.stores_away.set(now.stores_away);
        self.rotations_overdue.set(now.rotations_overdue);
        self.previous_overdue.set(now.previous_overdue);
    }

    /// Whether this replica leads.
    pub fn leading(&self, leading: bool) {
        self.leader.set(leading.into());
    }

    /// The text that `/metrics` answers.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_stands_under_its_own_name() {
        let metrics = Metrics::new();
        metrics.secrets(&Secrets {
            ready: 1,
            not_ready: 2,
            rotations_overdue: 3,
            previous_overdue: 4,
            stores_ready: 5,
            stores_not_ready: 6,
            stores_away: 7,
            ..Secrets::default()
        });
        let text = metrics.encode();
        for line in [
            "seaworthy_secrets{ready=\"true\"} 1",
            "seaworthy_secrets{ready=\"false\"} 2",
            "seaworthy_secret_rotations_overdue 3",
            "seaworthy_previous_values_overdue 4",
            "seaworthy_stores{ready=\"true\"} 5",
            "seaworthy_stores{ready=\"false\"} 6",
            "seaworthy_stores_away 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }
}
