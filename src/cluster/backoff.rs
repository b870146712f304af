//! When to try again what failed: per object, more and more seldom, bounded by what is at stake.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use crate::schedule::jitter;

/// Counts failures in a row, by uid. Another cause, or another spec, begins anew.
#[derive(Debug, Default)]
pub struct Failures(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    of: HashMap<String, (Cause, u32, Instant)>,
    /// When so many are there, those of objects that are gone are looked for.
    room: usize,
}

/// Nothing that is there is tried again more seldom.
const FORGOTTEN: Duration = Duration::from_hours(24);

/// What failed: the word for it, and the generation that it was about.
pub type Cause = (&'static str, Option<i64>);

impl Failures {
    /// One more; returns how many.
    pub fn failed(&self, uid: &str, cause: Cause) -> u32 {
        let (mut counts, now) = (self.counts(), Instant::now());
        if counts.of.len() >= counts.room {
            counts.of.retain(|_, (.., last)| now.duration_since(*last) < FORGOTTEN);
            counts.room = (counts.of.len() * 2).max(1000);
        }
        let (known, count, last) = counts.of.entry(uid.to_owned()).or_insert((cause, 0, now));
        *count = if *known == cause { count.saturating_add(1) } else { 1 };
        (*known, *last) = (cause, now);
        *count
    }

    /// Whether the last attempt failed.
    pub fn has_failed(&self, uid: &str) -> bool {
        self.counts().of.contains_key(uid)
    }

    /// It works again.
    pub fn succeeded(&self, uid: &str) {
        self.counts().of.remove(uid);
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When to try again after `failures` failed attempts: from 5 s, doubled each time, at most an hour; never more than a tenth of what is left
/// until `until` (once it is over it bounds nothing), so that what expires in an hour is not retried in two.
pub fn retry_after(failures: u32, until: Option<Timestamp>, now: Timestamp, uid: &str) -> SignedDuration {
    const FIRST: SignedDuration = SignedDuration::from_secs(5);
    const LAST: SignedDuration = SignedDuration::from_hours(1);
    let wait = (FIRST * 2i32.saturating_pow(failures.saturating_sub(1).min(10))).min(LAST);
    let left = until.filter(|until| *until > now).map_or(LAST, |until| until.duration_since(now) / 10);
    let wait = wait.min(left).max(FIRST);
    wait + jitter(&format!("{uid}{failures}"), wait / 5)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn retries_grow_and_are_bounded_by_what_is_at_stake() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let seconds = |failures, left| retry_after(failures, left, now, "uid").as_secs();
        assert!((5..=6).contains(&seconds(1, None)));
        assert!((40..=48).contains(&seconds(4, None)));
        assert!((3600..=4320).contains(&seconds(100, None)));
        assert!((360..=432).contains(&seconds(100, Some(now + SignedDuration::from_hours(1)))));
        assert!((3600..=4320).contains(&seconds(100, Some(now))), "what is over cannot be saved by hurrying");
    }

    #[test]
    fn another_cause_begins_anew() {
        let failures = Failures::default();
        assert!(!failures.has_failed("u"));
        let counted: Vec<u32> = [("A", Some(1)), ("A", Some(1)), ("B", Some(1)), ("B", Some(2)), ("B", Some(2))]
            .map(|cause| failures.failed("u", cause))
            .into();
        assert_eq!(counted, [1, 2, 1, 1, 2]);
        assert!(failures.has_failed("u") && !failures.has_failed("v"));
        failures.succeeded("u");
        assert!(!failures.has_failed("u"));
    }
}
