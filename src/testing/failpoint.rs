//! Stops an operation at one place: dropped there, it is what a killed process leaves behind; released, it goes on.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

/// One place: before or after a step.
#[derive(Clone, Debug, Default)]
pub struct Failpoint(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The place, and the step that has to be done first.
    armed: Mutex<Option<(&'static str, bool, Option<&'static str>)>>,
    reached: Notify,
    released: Notify,
}

impl Failpoint {
    /// Stops the next operation that comes before (`done` false) or after the step `name`; with `first`, only once that step is done.
    pub fn arm(&self, name: &'static str, done: bool, first: Option<&'static str>) {
        *self.0.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some((name, done, first));
    }

    /// Stops nothing any more; one that has stopped already goes on.
    pub fn disarm(&self) {
        *self.0.armed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.0.released.notify_one();
    }

    /// Returns when an operation has stopped there.
    ///
    /// # Panics
    /// If none does within two minutes.
    pub async fn reached(&self) {
        let reached = tokio::time::timeout(Duration::from_mins(2), self.0.reached.notified()).await;
        assert!(reached.is_ok(), "the operation was not reached");
    }

    /// Lets an operation that has stopped there go on.
    pub fn release(&self) {
        self.0.released.notify_one();
    }

    /// Called by the operation.
    pub async fn reach(&self, name: &'static str, done: bool) {
        let here = {
            let mut armed = self.0.armed.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, _, first)) = armed.as_mut()
                && *first == Some(name)
                && done
            {
                *first = None;
            }
            armed.take_if(|place| *place == (name, done, None)).is_some()
        };
        if here {
            self.0.reached.notify_one();
            self.0.released.notified().await;
        }
    }
}
