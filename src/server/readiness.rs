//! Ready means: the caches are filled, and the process is not on its way out.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

/// What is not there yet.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeSet<String>>>);

impl Readiness {
    /// Not ready until `filled` returns.
    pub fn wait_for(&self, what: &str, filled: impl Future<Output = ()> + Send + 'static) {
        self.missing_now(what);
        let (readiness, what) = (self.clone(), what.to_owned());
        tokio::spawn(async move {
            filled.await;
            readiness.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&what);
        });
    }

    /// Not ready from now on: on shutdown, before anything is taken down.
    pub fn missing_now(&self, what: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned());
    }

    /// What is waited for; empty: ready.
    pub fn missing(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
