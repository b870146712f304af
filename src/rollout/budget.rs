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

/// A restart that takes a place.
#[derive(Clone, Copy, Debug)]
pub struct Restart<'a> {
    /// Where the workload is.
    pub namespace: &'a str,
    /// The workload.
    pub workload: &'a Owner,
    /// For which Secret of the namespace: only who took a place gives it back.
    pub secret: &'a str,
    /// The mark of its value.
    pub mark: &'a str,
}

#[derive(Debug)]
struct Place {
    secret: Box<str>,
    mark: Box<str>,
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

    /// Takes a place until `until` at most; false: there is none now.
    pub fn take(&self, restart: Restart<'_>, until: Timestamp, now: Timestamp) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|_, place| place.until > now);
        let here = taken.keys().filter(|(place, _)| **place == *restart.namespace).count();
        let free = match taken.get(&restart.key()) {
            Some(place) => *place.secret == *restart.secret,
            None => taken.len() < self.limits.cluster && here < self.limits.namespace,
        };
        if free {
            taken.insert(restart.key(), restart.place(until));
        }
        free
    }

    /// It is being restarted, whatever the limits say.
    pub fn hold(&self, restart: Restart<'_>, until: Timestamp) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.entry(restart.key()).or_insert_with(|| restart.place(until));
    }

    /// Of what is being restarted for `secret`, only these: what is not there any more does not keep its place.
    pub fn keep(&self, namespace: &str, secret: &str, workloads: &[&Owner]) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|(place, workload), held| **place != *namespace || *held.secret != *secret || workloads.contains(&workload));
    }

    /// It is not being restarted for that Secret any more.
    pub fn give_back(&self, restart: Restart<'_>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.get(&restart.key()).is_some_and(|place| *place.secret == *restart.secret) {
            taken.remove(&restart.key());
        }
    }

    /// What was begun for another value of that Secret is over. Else others whose turn with this one comes first would wait for it.
    pub fn give_back_earlier(&self, restart: Restart<'_>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.get(&restart.key()).is_some_and(|place| *place.secret == *restart.secret && *place.mark != *restart.mark) {
            taken.remove(&restart.key());
        }
    }
}

impl Restart<'_> {
    fn key(&self) -> Key {
        (self.namespace.into(), self.workload.clone())
    }

    fn place(&self, until: Timestamp) -> Place {
        Place { secret: self.secret.into(), mark: self.mark.into(), until }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn restart<'a>(namespace: &'a str, workload: &'a Owner, secret: &'a str) -> Restart<'a> {
        Restart { namespace, workload, secret, mark: "m" }
    }

    #[test]
    fn places_are_limited_and_come_back() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let workload = |name: &str| Owner { kind: "Deployment".into(), name: name.into() };
        let budget = Budget::new(Limits { cluster: 2, namespace: 1, interval: SignedDuration::ZERO });
        let (one, two) = (workload("one"), workload("two"));
        assert!(budget.take(restart("a", &one, "s"), at(100), at(0)));
        assert!(budget.take(restart("a", &one, "s"), at(100), at(0)), "it has its place already");
        assert!(!budget.take(restart("a", &one, "other"), at(100), at(0)), "somebody else restarts it");
        assert!(!budget.take(restart("a", &two, "s"), at(100), at(0)), "one in a namespace");
        assert!(budget.take(restart("b", &one, "s"), at(50), at(0)));
        assert!(!budget.take(restart("c", &one, "s"), at(100), at(0)), "two in the cluster");
        budget.give_back(restart("a", &one, "other"));
        assert!(!budget.take(restart("c", &one, "s"), at(100), at(0)), "it was not theirs to give back");
        budget.give_back(restart("a", &one, "s"));
        assert!(budget.take(restart("c", &one, "s"), at(100), at(0)));
        assert!(budget.take(restart("d", &one, "s"), at(100), at(50)), "whose time is over has no place any more");
        budget.keep("d", "other", &[]);
        budget.keep("d", "s", &[&one]);
        assert!(!budget.take(restart("d", &two, "s"), at(100), at(50)), "it is there still");
        budget.keep("d", "s", &[]);
        assert!(budget.take(restart("d", &two, "s"), at(100), at(50)), "it is gone, and its place is free");
        budget.give_back_earlier(restart("d", &two, "s"));
        assert!(!budget.take(restart("d", &one, "s"), at(100), at(50)), "it is for this value");
        budget.give_back_earlier(Restart { mark: "n", ..restart("d", &two, "s") });
        assert!(budget.take(restart("d", &one, "s"), at(100), at(50)), "the value that it was for has been replaced");
        budget.give_back(restart("d", &one, "s"));
        budget.hold(restart("e", &one, "s"), at(100));
        assert!(!budget.take(restart("f", &one, "s"), at(100), at(50)));
    }
}
