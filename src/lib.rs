//! Seaworthy: a Kubernetes operator.

pub mod api;
pub mod certificates;
pub mod schedule;
#[cfg(feature = "testing")]
pub mod testing;
