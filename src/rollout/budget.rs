//! How many workloads are restarted at a time, whoever asks for it: a thousand Secrets that change at once do not restart a thousand workloads at
//! once. In memory; a process that has just begun learns of what goes on from the notes on the workloads.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

use crate::inventory::pods::Owner;

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Workloads at a time in the whole cluster.
    pub cluster: usize,
    /// Workloads at a time in one namespace.
    pub namespace: usize,
    /// Between two restarts of one workload.
    pub interval: SignedDuration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cluster: 5, namespace: 1, interval: SignedDuration::from_mins(1) }
    }
}

type Key = (Box<str>, Owner);

/// What is being restarted; all clones see the same.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    limits: Limits,
    /// Until when each has its place at most: whoever asked may be gone.
    taken: Arc<Mutex<HashMap<Key, Timestamp>>>,
}

impl Budget {
    /// With these limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, taken: Arc::default() }
    }

    /// The limits.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Takes a place until `until` at most; false: there is none now.
    pub fn take(&self, namespace: &str, workload: &Owner, until: Timestamp, now: Timestamp) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|_, until| *until > now);
        let key = (namespace.into(), workload.clone());
        let here = taken.keys().filter(|(place, _)| **place == *namespace).count();
        let free = taken.contains_key(&key) || (taken.len() < self.limits.cluster && here < self.limits.namespace);
        if free {
            taken.insert(key, until);
        }
        free
    }

    /// It is being restarted, whatever the limits say.
    pub fn hold(&self, namespace: &str, workload: &Owner, until: Timestamp) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert((namespace.into(), workload.clone()), until);
    }

    /// It is not being restarted any more.
    pub fn give_back(&self, namespace: &str, workload: &Owner) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&(namespace.into(), workload.clone()));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_come_back() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let workload = |name: &str| Owner { kind: "Deployment".into(), name: name.into() };
        let budget = Budget::new(Limits { cluster: 2, namespace: 1, interval: SignedDuration::ZERO });
        assert!(budget.take("a", &workload("one"), at(100), at(0)));
        assert!(budget.take("a", &workload("one"), at(100), at(0)), "it has its place already");
        assert!(!budget.take("a", &workload("two"), at(100), at(0)), "one in a namespace");
        assert!(budget.take("b", &workload("one"), at(50), at(0)));
        assert!(!budget.take("c", &workload("one"), at(100), at(0)), "two in the cluster");
        budget.give_back("a", &workload("one"));
        assert!(budget.take("c", &workload("one"), at(100), at(0)));
        assert!(budget.take("d", &workload("one"), at(100), at(50)), "whose time is over has no place any more");
        budget.hold("e", &workload("one"), at(100));
        assert!(!budget.take("f", &workload("one"), at(100), at(50)));
    }
}
