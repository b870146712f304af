//! Stops an operation at one place, for ever: what a killed process leaves behind.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// One place: before or after a step.
#[derive(Clone, Debug, Default)]
pub struct Failpoint(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    armed: Mutex<Option<(&'static str, bool)>>,
    reached: Notify,
}

impl Failpoint {
    /// Stops the next operation that comes before (`done` false) or after the step `name`.
    pub fn arm(&self, name: &'static str, done: bool) {
        *self.0.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some((name, done));
    }

    /// Returns when an operation has stopped there.
    pub async fn reached(&self) {
        self.0.reached.notified().await;
    }

    /// Called by the operation.
    pub async fn reach(&self, name: &'static str, done: bool) {
        let here = {
            let mut armed = self.0.armed.lock().unwrap_or_else(PoisonError::into_inner);
            armed.take_if(|place| *place == (name, done)).is_some()
        };
        if here {
            self.0.reached.notify_one();
            std::future::pending::<()>().await;
        }
    }
}
