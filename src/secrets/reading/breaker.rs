//! A circuit breaker for one store: when the store fails as a whole, all calls pause for a while, then one call probes it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    cluster::backoff::retry_after,
    secrets::{index::Key, store::StoreError},
};

/// The longest pause of a store that is away or asks to wait, whatever it asks for.
pub const MAX_BACKOFF: SignedDuration = SignedDuration::from_mins(5);
/// The pause after credentials were refused [`QUICK_LOGINS`] times. Vault and OpenBao lock who fails five times until a quarter of an hour goes by without
/// another try (<https://developer.hashicorp.com/vault/docs/concepts/user-lockout>), also for credentials that are right by then.
pub const AFTER_REFUSALS: SignedDuration = SignedDuration::from_mins(16);
/// So many logins may fail one soon after the other.
pub const QUICK_LOGINS: u32 = 3;
/// A probe that has given no result for so long is taken for lost: no call to a store takes longer.
const PROBE_TIMEOUT: Duration = super::connection::CALL_TIMEOUT;

/// Closed: calls go through. Open: they do not, until the pause is over and one of them, the probe, has succeeded.
#[derive(Default)]
pub struct Breaker {
    /// Failures in a row.
    failures: u32,
    /// Those of them that were refused credentials.
    refusals: u32,
    /// When it is open: until when calls pause, and the error that opened it.
    open: Option<(Timestamp, StoreError)>,
    /// When the probe began that is under way.
    probe: Option<Instant>,
    /// Resources to wake when the store has recovered.
    waiting: BTreeSet<Key>,
}

/// Whether the pause until then still holds. One that is longer than any pause means that the clock was set back, and is ignored.
fn holds(until: Timestamp, now: Timestamp) -> bool {
    now < until && until.duration_since(now) <= AFTER_REFUSALS
}

impl Breaker {
    /// Asks to call the store. Err: the error that opened the breaker, while it pauses. After the pause one caller gets Ok and is the probe, which has a
    /// mark; the others get Err until its result is recorded or it is [given back](Self::give_back), at most for [`PROBE_TIMEOUT`].
    pub fn try_acquire(&mut self, now: Timestamp) -> Result<Option<Instant>, StoreError> {
        let Some((until, error)) = &self.open else { return Ok(None) };
        if holds(*until, now) || self.probe.is_some_and(|since| since.elapsed() < PROBE_TIMEOUT) {
            return Err(error.clone());
        }
        self.probe = Some(Instant::now());
        Ok(self.probe)
    }

    /// The probe with that mark is over; if it has asked nothing, another may.
    pub fn give_back(&mut self, probe: Instant) {
        self.probe.take_if(|since| *since == probe);
    }

    /// Until when calls pause, and the error that is the cause. None: they do not, though a probe may be due.
    pub fn pause(&self, now: Timestamp) -> Option<(Timestamp, StoreError)> {
        self.open.clone().filter(|(until, _)| holds(*until, now))
    }

    /// Whether the store has failed and not answered since, be it in its pause or after it.
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// How it has failed, if it has not answered since, and until when calls paused for that.
    pub fn failure(&self) -> Option<(Timestamp, StoreError)> {
        self.open.clone()
    }

    /// Registers `who` to be woken when the store has recovered. Returns when it may be probed; None: it has recovered already.
    pub fn wake_on_recovery(&mut self, who: &Key) -> Option<Timestamp> {
        let (until, _) = self.open.as_ref()?;
        self.waiting.insert(who.clone());
        Some(*until)
    }

    /// The store has answered. Returns whether it had failed before, and who is to be woken. What was under way when it failed says nothing about that:
    /// a store that throttles some calls answers others.
    pub fn succeeded(&mut self, now: Timestamp) -> (bool, BTreeSet<Key>) {
        if self.pause(now).is_some() {
            return (false, BTreeSet::new());
        }
        (self.failures, self.refusals, self.probe) = (0, 0, None);
        (self.open.take().is_some(), std::mem::take(&mut self.waiting))
    }

    /// The store has failed as a whole. Returns for how long calls pause from now on: as long as it asked for, else longer with each failure, from five
    /// seconds on. None: they pause already, and calls that were under way say the same. `seed` spreads the pauses of different stores.
    pub fn failed(&mut self, error: &StoreError, (now, seed): (Timestamp, &str)) -> Option<SignedDuration> {
        if self.pause(now).is_some() {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        self.refusals = self.refusals.saturating_add(u32::from(matches!(error, StoreError::Unauthenticated(_))));
        self.probe = None;
        let asked = match error {
            StoreError::Throttled { after, .. } => after.and_then(|after| SignedDuration::try_from(after).ok()),
            _ => None,
        };
        let pause = match error {
            StoreError::Unauthenticated(_) if self.refusals >= QUICK_LOGINS => AFTER_REFUSALS,
            _ => asked.unwrap_or_else(|| retry_after(self.failures, None, now, seed)).clamp(SignedDuration::from_secs(1), MAX_BACKOFF),
        };
        self.open = Some((now + pause, error.clone()));
        Some(pause)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn away() -> StoreError {
        StoreError::Unavailable("away".into())
    }

    fn who(number: usize) -> Key {
        ("n".into(), format!("r{number}"))
    }

    #[test]
    fn a_store_that_fails_is_probed_by_one_call_after_the_pause() {
        let (mut breaker, now) = (Breaker::default(), now());
        assert!(breaker.try_acquire(now).is_ok() && !breaker.is_open());
        assert!(breaker.failed(&away(), (now, "seed")).is_some());
        assert_eq!(breaker.failed(&away(), (now, "seed")), None, "calls that were under way do not make it longer");
        assert!(breaker.try_acquire(now).is_err() && breaker.pause(now).is_some());
        for number in 0..100 {
            breaker.wake_on_recovery(&who(number)).unwrap();
        }
        let later = now + MAX_BACKOFF;
        assert!(breaker.pause(later).is_none() && breaker.is_open(), "open, but a probe is due");
        assert!(breaker.try_acquire(later).is_ok(), "the probe");
        assert!(breaker.try_acquire(later).is_err(), "the others wait for its result");
        assert!(breaker.failed(&away(), (later, "seed")).is_some());
        assert!(breaker.try_acquire(later).is_err(), "it is still away");
        assert_eq!(breaker.succeeded(later), (false, BTreeSet::new()));
        assert!(breaker.try_acquire(later).is_err(), "what was under way when it failed does not end the pause");
        let later = later + MAX_BACKOFF;
        let probe = breaker.try_acquire(later).unwrap().unwrap();
        breaker.give_back(Instant::now());
        assert!(breaker.try_acquire(later).is_err(), "that was not the probe");
        breaker.give_back(probe);
        assert!(breaker.try_acquire(later).is_ok(), "a probe that asked nothing is in nobody's way");
        let (was_open, woken) = breaker.succeeded(later);
        assert!(was_open && woken.len() == 100);
        assert!(breaker.try_acquire(later).is_ok() && breaker.try_acquire(later).is_ok() && !breaker.is_open());
        assert_eq!(breaker.wake_on_recovery(&who(0)), None);
        assert_eq!(breaker.succeeded(later), (false, BTreeSet::new()));
    }

    #[test]
    fn a_pause_is_as_long_as_the_store_asks_for_but_bounded() {
        let now = now();
        for (asked, pause) in [(Some(90), 90), (Some(0), 1), (Some(86_400), MAX_BACKOFF.as_secs()), (Some(u64::MAX), MAX_BACKOFF.as_secs())]
        {
            let throttled = StoreError::Throttled { after: asked.map(Duration::from_secs), message: "wait".into() };
            let given = Breaker::default().failed(&throttled, (now, "seed")).unwrap();
            // A length that no timestamp can hold counts as none.
            let is_none = asked == Some(u64::MAX);
            assert!(given.as_secs() == pause || is_none && given <= MAX_BACKOFF, "{asked:?}: {given:?}");
        }
        let mut breaker = Breaker::default();
        let (mut last, mut time) = (SignedDuration::ZERO, now);
        for _ in 0..4 {
            let pause = breaker.failed(&away(), (time, "seed")).unwrap();
            assert!(pause > last && pause <= MAX_BACKOFF, "{pause:?} after {last:?}");
            (last, time) = (pause, time + pause);
        }
    }

    #[test]
    fn refused_credentials_are_tried_a_few_times_only() {
        let (mut breaker, mut time, mut tries) = (Breaker::default(), now(), 0);
        let refused = StoreError::Unauthenticated("no".into());
        let end = now() + SignedDuration::from_mins(15);
        while time < end {
            assert!(breaker.try_acquire(time).is_ok());
            time += breaker.failed(&refused, (time, "seed")).unwrap();
            tries += 1;
        }
        assert_eq!(tries, QUICK_LOGINS, "and then not for as long as a lock is remembered");
        assert!(time < now() + SignedDuration::from_mins(18));
        // What else went wrong before is none of those.
        let mut breaker = Breaker::default();
        let mut failed = |error: &StoreError| {
            let pause = breaker.failed(error, (time, "seed")).unwrap();
            time += pause;
            pause
        };
        failed(&away());
        failed(&away());
        assert!(failed(&refused) < SignedDuration::from_mins(1));
    }

    #[test]
    fn no_pause_holds_for_long_when_the_clock_is_set_back() {
        let now = now();
        assert!(holds(now + AFTER_REFUSALS, now) && holds(now + SignedDuration::from_secs(1), now));
        assert!(!holds(now, now) && !holds(now + AFTER_REFUSALS + SignedDuration::from_secs(1), now));
    }
}
