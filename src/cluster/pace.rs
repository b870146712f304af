//! What changes by itself again and again is followed at a pace: resources that read each other's Secrets in a ring would write for ever. Pure.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

/// So many changes are followed at once.
const BURST: i32 = 10;
/// And then one in so long.
const EVERY: SignedDuration = SignedDuration::from_secs(15);

/// Until when what each resource has used is paid back, by uid.
#[derive(Debug, Default)]
pub struct Pace(Mutex<HashMap<String, Timestamp>>);

impl Pace {
    /// Whether one more change of `uid` is followed at `now`, which counts then. `Err`: not before that time.
    pub fn take(&self, uid: &str, now: Timestamp) -> Result<(), Timestamp> {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, until| *until > now);
        // More than can have been used: the clock has been set back.
        let used_until = used.get(uid).copied().filter(|until| until.duration_since(now) <= EVERY * (BURST + 4));
        let until = used_until.unwrap_or(now) + EVERY;
        if until.duration_since(now) > EVERY * BURST {
            return Err(until - EVERY * BURST);
        }
        used.insert(uid.to_owned(), until);
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn ten_at_once_and_then_one_at_a_time() {
        let (pace, start) = (Pace::default(), Timestamp::UNIX_EPOCH);
        for _ in 0..BURST {
            pace.take("a", start).unwrap();
        }
        assert_eq!(pace.take("a", start), Err(start + EVERY));
        assert_eq!(pace.take("a", start), Err(start + EVERY), "asking costs nothing");
        assert_eq!(pace.take("b", start), Ok(()), "others are not concerned");
        assert_eq!(pace.take("a", start + EVERY), Ok(()));
        assert!(pace.take("a", start + EVERY).is_err());
        let later = start + EVERY * 20;
        for _ in 0..BURST {
            pace.take("a", later).unwrap();
        }
        assert!(pace.take("a", later).is_err());
        assert_eq!(pace.0.lock().unwrap().len(), 1, "who has been quiet is forgotten");
        assert_eq!(pace.take("a", start), Ok(()), "and so is what is yet to come");
    }
}
