//! The steps of a long operation: timed, and, with the feature `testing`, with a failpoint before and after each.

use std::{future::Future, time::Instant};

use crate::telemetry::metrics::Metrics;

/// Runs steps.
#[derive(Clone)]
pub struct Steps {
    kind: &'static str,
    metrics: Metrics,
    #[cfg(feature = "testing")]
    failpoint: Option<crate::testing::failpoint::Failpoint>,
}

impl Steps {
    /// Of operations on `kind`.
    pub fn new(kind: &'static str, metrics: Metrics) -> Self {
        Self {
            kind,
            metrics,
            #[cfg(feature = "testing")]
            failpoint: None,
        }
    }

    /// The same for operations on `kind`.
    #[must_use]
    pub fn on(&self, kind: &'static str) -> Self {
        Self { kind, ..self.clone() }
    }

    /// With a failpoint that tests set.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_failpoint(mut self, failpoint: crate::testing::failpoint::Failpoint) -> Self {
        self.failpoint = Some(failpoint);
        self
    }

    /// Does `work` as the step `name`.
    pub async fn run<T>(&self, name: &'static str, work: impl Future<Output = T>) -> T {
        self.reach(name, false).await;
        let started = Instant::now();
        let result = work.await;
        self.metrics.step(self.kind, name, started.elapsed());
        self.reach(name, true).await;
        result
    }

    #[cfg(feature = "testing")]
    async fn reach(&self, name: &'static str, done: bool) {
        if let Some(failpoint) = &self.failpoint {
            failpoint.reach(name, done).await;
        }
    }

    #[cfg(not(feature = "testing"))]
    #[expect(clippy::unused_async, clippy::unused_self, reason = "with the feature `testing` it stops here")]
    async fn reach(&self, _: &'static str, _: bool) {}
}
