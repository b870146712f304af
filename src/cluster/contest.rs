//! Somebody else who keeps undoing what is written here is answered more and more slowly: two controllers that put the same Secret right
//! for ever would load the API server, and an issuer that counts would lock us out. Pure.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

use super::conditions::seconds;

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
    /// Whether the Secret of `uid` may be put right at `now`, though nothing was asked for anew. `Err`: not before that time.
    pub fn may(&self, uid: &str, now: Timestamp) -> Result<(), Timestamp> {
        let rounds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A time that is yet to come tells nothing: the clock has been set back.
        let known = rounds.get(uid).filter(|(_, last)| *last <= now && is_recent(*last, now));
        let Some((count, last)) = known else { return Ok(()) };
        let Some(over) = count.checked_sub(FREE) else { return Ok(()) };
        let until = *last + (FIRST * 2i32.saturating_pow(over.min(10))).min(LAST);
        if now < until { Err(until) } else { Ok(()) }
    }

    /// It was put right at `now`.
    pub fn put_right(&self, uid: &str, now: Timestamp) {
        let mut rounds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rounds.retain(|_, (_, last)| is_recent(*last, now));
        let (count, last) = rounds.entry(uid.to_owned()).or_insert((0, now));
        (*count, *last) = (count.saturating_add(1), now);
    }
}

/// What to say about a Secret that is not put right before `until`; `who` wrote to it last, if that is known.
pub fn message(secret: &str, who: Option<&str>, until: Timestamp) -> String {
    let who = who.map_or_else(String::new, |who| format!(" (the last writer was {who:?})"));
    format!(
        "Secret {secret} is changed or deleted by somebody else{who} each time that it is put right; end that; it is put right again at {}",
        seconds(until).0
    )
}

fn is_recent(last: Timestamp, now: Timestamp) -> bool {
    now.duration_since(last) < QUIET
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn five_are_free_then_it_waits_longer_and_longer_until_it_is_quiet() {
        let (contest, start) = (Contest::default(), Timestamp::UNIX_EPOCH);
        for _ in 0..FREE {
            assert_eq!(contest.may("a", start), Ok(()));
            contest.put_right("a", start);
        }
        let mut now = start;
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            let then = now + SignedDuration::from_mins(minutes);
            assert_eq!(contest.may("a", now), Err(then));
            assert_eq!(contest.may("a", then - SignedDuration::from_secs(1)), Err(then), "asking does not prolong it");
            assert_eq!(contest.may("a", then), Ok(()));
            contest.put_right("a", then);
            now = then;
        }
        assert_eq!(contest.may("b", now), Ok(()), "others are not concerned");
        assert_eq!(contest.may("a", start), Ok(()), "the clock was set back");
        assert_eq!(contest.may("a", now + QUIET), Ok(()));
        // One that has begun earlier ends later.
        contest.put_right("c", now + QUIET);
        contest.put_right("d", now + QUIET - SignedDuration::from_secs(1));
        assert_eq!(contest.0.lock().unwrap().len(), 2, "nobody's count is lost for another's look");
        contest.0.lock().unwrap().remove("d");
        assert_eq!(contest.0.lock().unwrap().len(), 1, "who has been quiet is forgotten");
    }
}
