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
    taken: Arc<Mutex<HashMap<Key, Place>>>,
}

#[derive(Debug)]
struct Place {
    /// For which Secret of the namespace: only who took a place gives it back.
    asker: Box<str>,
    /// Until when at most: whoever asked may be gone.
    until: Timestamp,
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

    /// Takes a place for `asker` until `until` at most; false: there is none now.
    pub fn take(&self, (namespace, workload, asker): (&str, &Owner, &str), until: Timestamp, now: Timestamp) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|_, place| place.until > now);
        let here = taken.keys().filter(|(place, _)| **place == *namespace).count();
        let key = (namespace.into(), workload.clone());
        let free = match taken.get(&key) {
            Some(place) => *place.asker == *asker,
            None => taken.len() < self.limits.cluster && here < self.limits.namespace,
        };
        if free {
            taken.insert(key, Place { asker: asker.into(), until });
        }
        free
    }

    /// It is being restarted, whatever the limits say.
    pub fn hold(&self, (namespace, workload, asker): (&str, &Owner, &str), until: Timestamp) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.entry((namespace.into(), workload.clone())).or_insert_with(|| Place { asker: asker.into(), until });
    }

    /// Of what is being restarted for `asker`, only these: what is not there any more does not keep its place.
    pub fn keep(&self, namespace: &str, asker: &str, workloads: &[&Owner]) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|(place, workload), held| **place != *namespace || *held.asker != *asker || workloads.contains(&workload));
    }

    /// It is not being restarted for `asker` any more.
    pub fn give_back(&self, (namespace, workload, asker): (&str, &Owner, &str)) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.into(), workload.clone());
        if taken.get(&key).is_some_and(|place| *place.asker == *asker) {
            taken.remove(&key);
        }
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
        let (one, two) = (workload("one"), workload("two"));
        assert!(budget.take(("a", &one, "s"), at(100), at(0)));
        assert!(budget.take(("a", &one, "s"), at(100), at(0)), "it has its place already");
        assert!(!budget.take(("a", &one, "other"), at(100), at(0)), "somebody else restarts it");
        assert!(!budget.take(("a", &two, "s"), at(100), at(0)), "one in a namespace");
        assert!(budget.take(("b", &one, "s"), at(50), at(0)));
        assert!(!budget.take(("c", &one, "s"), at(100), at(0)), "two in the cluster");
        budget.give_back(("a", &one, "other"));
        assert!(!budget.take(("c", &one, "s"), at(100), at(0)), "it was not theirs to give back");
        budget.give_back(("a", &one, "s"));
        assert!(budget.take(("c", &one, "s"), at(100), at(0)));
        assert!(budget.take(("d", &one, "s"), at(100), at(50)), "whose time is over has no place any more");
        budget.keep("d", "other", &[]);
        budget.keep("d", "s", &[&one]);
        assert!(!budget.take(("d", &two, "s"), at(100), at(50)), "it is there still");
        budget.keep("d", "s", &[]);
        assert!(budget.take(("d", &two, "s"), at(100), at(50)), "it is gone, and its place is free");
        budget.give_back(("d", &two, "s"));
        budget.hold(("e", &one, "s"), at(100));
        assert!(!budget.take(("f", &one, "s"), at(100), at(50)));
    }
}
