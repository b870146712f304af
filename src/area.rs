//! What every area gets from the process, and what the process gets from it.

use futures::future::BoxFuture;
use kube::Client;

use crate::{
    clock::Clock,
    cluster::{events::Events, lease::Leadership, steps::Steps},
    inventory::Hear,
    rollout::budget::Budget,
    server::readiness::Readiness,
    telemetry::{audit::Audit, metrics::Metrics},
};

/// What an area gets.
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
    /// Where Secrets of cluster-scoped issuers and stores lie.
    pub operator_namespace: String,
    /// How many objects of a kind at once.
    pub concurrency: u16,
    /// How many workloads are restarted at a time, whoever asks.
    pub budget: Budget,
}

/// What runs in one scope.
pub struct Running<S> {
    /// The caches of its resources, for who counts and shows.
    pub store: S,
    /// To be told what has changed in the cluster.
    pub hear: Hear,
    /// The watches and the run loops; ends only when it is stopped.
    pub work: BoxFuture<'static, ()>,
}
