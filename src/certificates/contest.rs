//! Somebody else who keeps undoing what is written here is answered more and more slowly: two controllers that put the same Secret right
//! for ever would load the API server, and an issuer that counts would lock us out. Pure.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

/// So often in a row a Secret is put right at once; a person who tries things out is not slowed down.
const FREE: u32 = 5;
/// The first wait after that; doubled each time.
const FIRST: SignedDuration = SignedDuration::from_mins(1);
/// The longest wait.
const LAST: SignedDuration = SignedDuration::from_hours(1);
/// After so long without being undone, all is forgotten.
const QUIET: SignedDuration = SignedDuration::from_hours(2);

/// How often each resource's Secret had to be put right, by uid.
#[derive(Debug, Default)]
pub struct Contest(Mutex<HashMap<String, (u32, Timestamp)>>);

impl Contest {
    /// Asks to put the Secret of `uid` right at `now`, though nothing was asked for anew. `Err`: not before that time.
    pub fn enter(&self, uid: &str, now: Timestamp) -> Result<(), Timestamp> {
        let mut rounds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rounds.retain(|_, (_, last)| now.duration_since(*last) < QUIET);
        let (count, last) = rounds.entry(uid.to_owned()).or_insert((0, now));
        let wait = match count.checked_sub(FREE) {
            None => SignedDuration::ZERO,
            Some(over) => (FIRST * 2i32.saturating_pow(over.min(10))).min(LAST),
        };
        if now < *last + wait {
            return Err(*last + wait);
        }
        (*count, *last) = (*count + 1, now);
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn five_are_free_then_it_waits_longer_and_longer_until_it_is_quiet() {
        let (contest, start) = (Contest::default(), Timestamp::UNIX_EPOCH);
        for _ in 0..FREE {
            assert_eq!(contest.enter("a", start), Ok(()));
        }
        let mut now = start;
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            let then = now + SignedDuration::from_mins(minutes);
            assert_eq!(contest.enter("a", now), Err(then));
            assert_eq!(contest.enter("a", then - SignedDuration::from_secs(1)), Err(then), "asking does not prolong it");
            assert_eq!(contest.enter("a", then), Ok(()));
            now = then;
        }
        assert_eq!(contest.enter("b", now), Ok(()), "others are not concerned");
        assert_eq!(contest.enter("a", now + QUIET), Ok(()));
        assert_eq!(contest.enter("a", now + QUIET), Ok(()));
        assert_eq!(contest.0.lock().unwrap().len(), 1, "who has been quiet is forgotten");
    }
}
