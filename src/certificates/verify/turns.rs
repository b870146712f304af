//! Who may ask, and when: servers that do not answer hold up nobody else, and are not asked at each event of a Pod.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::schedule::jitter;

/// So many resources ask at a time.
const ASKERS: usize = 4;
/// Who finds all turns taken comes again after this, and up to six times as late: so that many who wait do not crowd.
const WAIT: SignedDuration = SignedDuration::from_secs(5);
/// Longer than any resource waits between two questions.
const KEPT: SignedDuration = SignedDuration::from_hours(1);

/// What is being asked, and when each resource asked last.
pub struct Turns {
    askers: Semaphore,
    last: Mutex<HashMap<String, Timestamp>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { askers: Semaphore::new(ASKERS), last: Mutex::default() }
    }
}

impl Turns {
    /// The turn of the resource `uid`, which asks again after `interval` at the soonest; it ends when it is dropped. Err: when to try again.
    pub fn take(&self, uid: &str, interval: SignedDuration, now: Timestamp) -> Result<SemaphorePermit<'_>, Timestamp> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, asked| now.duration_since(*asked).abs() < KEPT);
        let soonest = last.get(uid).map(|asked| *asked + interval).filter(|soonest| *soonest > now);
        if let Some(soonest) = soonest {
            return Err(soonest);
        }
        let permit = self.askers.try_acquire().map_err(|_| now + WAIT + jitter(uid, WAIT * 5))?;
        last.insert(uid.into(), now);
        Ok(permit)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn turns_are_few_and_none_comes_again_at_once() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (turns, interval) = (Turns::default(), SignedDuration::from_secs(60));
        let taken: Vec<_> = (0..ASKERS).map(|uid| turns.take(&uid.to_string(), interval, at(100)).unwrap()).collect();
        let later = turns.take("late", interval, at(100)).unwrap_err();
        assert!((at(105)..at(130)).contains(&later), "{later}");
        drop(taken);
        assert_eq!(turns.take("0", interval, at(159)).unwrap_err(), at(160), "it has just asked");
        assert!(turns.take("0", interval, at(160)).is_ok());
        assert!(turns.take("late", interval, at(101)).is_ok(), "who was refused has not asked");
    }
}
