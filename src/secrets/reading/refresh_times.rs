//! When a remote key is read again: each has its own times, the same for all who want it, so that one call serves them all. Pure.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::{
    api::{SecretRotation, secret_rotation::SecretRotationSpec},
    schedule::jitter,
    secrets::index::refresh_keys,
};

/// An interval has so many times at which keys are read, at most: who wants a thousand keys is looked at no more often, and stores that read several at
/// a time are asked for several.
const PHASES: SignedDuration = SignedDuration::from_secs(32);

/// So many seconds lie between them. Of all steps up to two days, this one leaves the smallest gaps in intervals from a minute to a day; in those that are
/// a multiple of five seconds, no two times are closer than that.
const PHASE_STEP_SECS: i64 = 33_445;

/// When the store is read next: at the first time of any of `words`.
pub fn next_refresh(spec: &SecretRotationSpec, words: &BTreeSet<String>, last: Option<Timestamp>) -> Option<Timestamp> {
    if !spec.is_periodic() || !spec.reads_store() {
        return None;
    }
    let interval = spec.refresh_interval.signed();
    // When it was read last stands in status, which may be lost: then it is read now.
    let Some(last) = last else { return Some(Timestamp::UNIX_EPOCH) };
    words.iter().filter_map(|word| next_of(interval, word, last)).min()
}

/// Whether the time of `word` has come since `last`, and when that was, at the latest. None: it has not.
pub fn due(spec: &SecretRotationSpec, word: &str, last: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    if !spec.is_periodic() {
        return None;
    }
    let interval = spec.refresh_interval.signed();
    let time = last.map_or(Some(now), |last| next_of(interval, word, last)).filter(|time| *time <= now)?;
    Some(last_of(interval, word, now).map_or(time, |last| last.max(time)))
}

/// When the round began that goes on `now`, of all `words` together: what was read before it is of an earlier one.
pub fn round(spec: &SecretRotationSpec, words: &BTreeSet<String>, now: Timestamp) -> Option<Timestamp> {
    words.iter().filter_map(|word| last_of(spec.refresh_interval.signed(), word, now)).min()
}

/// The first time of `word` after `last`. An interval is counted from a moment that is the same for all of them, so that each time of an interval of an
/// hour is one of that of a quarter: who wants the same key takes what was read for the other one.
fn next_of(interval: SignedDuration, word: &str, last: Timestamp) -> Option<Timestamp> {
    let from = jitter(word, PHASES).as_secs() * PHASE_STEP_SECS;
    let (interval, last) = (interval.as_secs().max(1), last.as_second());
    let rounds = (last - from).div_euclid(interval) + 1;
    Timestamp::from_second(rounds * interval + from).ok()
}

/// The last time of `word` until `now`.
fn last_of(interval: SignedDuration, word: &str, now: Timestamp) -> Option<Timestamp> {
    next_of(interval, word, now.checked_sub(interval.max(SignedDuration::from_secs(1))).ok()?)
}

/// Whether the time of the first word has come since `status` was written: once in an interval it says that the values were read.
pub fn is_told(rotation: &SecretRotation, status: Option<Timestamp>, now: Timestamp) -> bool {
    let words = refresh_keys(&rotation.spec);
    let next = |last| words.first().and_then(|word| next_of(rotation.spec.refresh_interval.signed(), word, last));
    status.filter(|status| *status <= now).and_then(next).is_none_or(|next| next <= now)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn each_time_of_a_longer_interval_is_one_of_a_shorter_one() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let keys: Vec<String> = (0..500).map(|number| format!("team/app-{number}")).collect();
        for (shorter, longer) in [(10, 20), (60, 300), (300, 900), (600, 1800), (900, 3600), (3600, 86_400)] {
            let [shorter, longer] = [shorter, longer].map(SignedDuration::from_secs);
            let mut times = BTreeSet::new();
            for key in &keys {
                let time = next_of(longer, key, start).unwrap();
                assert!(time > start && time <= start + longer, "{key}: {time}");
                assert_eq!(next_of(longer, key, time).unwrap(), time + longer);
                assert_eq!(
                    next_of(shorter, key, time - SignedDuration::from_secs(1)).unwrap(),
                    time,
                    "{key} at {shorter:?} and {longer:?}"
                );
                times.insert(next_of(shorter, key, start).unwrap().as_second());
            }
            // Who is rounds late takes nothing of an earlier one.
            for (key, late) in keys.iter().zip(0..) {
                let now = start + SignedDuration::from_secs(late * 17);
                let last = last_of(longer, key, now).unwrap();
                assert!(last <= now && now < last + longer, "{key}: {last} at {now}");
                assert_eq!(next_of(longer, key, now).unwrap(), last + longer);
            }
            // Nor does who comes with several take what was read before the round that all of them are in began.
            let words: BTreeSet<String> = keys.iter().take(3).cloned().collect();
            let spec =
                serde_json::from_value(serde_json::json!({"target": {"name": "s"}, "refreshInterval": format!("{}s", longer.as_secs())}))
                    .unwrap();
            let began = round(&spec, &words, start).unwrap();
            let since = |word| next_of(longer, word, began - SignedDuration::from_secs(1)).unwrap();
            assert!(words.iter().all(|word| since(word) <= start) && words.iter().any(|word| since(word) == began), "each had its turn");
            let all = words.iter().map(|word| next_of(longer, word, start).unwrap()).max().unwrap();
            assert!(round(&spec, &words, all).is_some_and(|round| start < round && round <= all), "all of them are of this round");
            // They are spread, but in not too many places.
            let wanted = usize::try_from(shorter.as_secs() / 5).unwrap().min(32);
            assert_eq!(times.len(), wanted, "{shorter:?}: {times:?}");
        }
    }
}
