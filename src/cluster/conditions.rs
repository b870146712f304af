//! Conditions as Kubernetes, kstatus and Argo CD understand them. Pure.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::status::LastFailure;

/// Consumers get what they should.
pub const READY: &str = "Ready";
/// Something is being done now.
pub const RECONCILING: &str = "Reconciling";
/// Only a person can go on.
pub const STALLED: &str = "Stalled";

/// Conditions hold at most this many bytes of message (metav1.Condition: 32768); ours stay readable.
const MAX_MESSAGE: usize = 1024;

/// One condition, before it is known since when it is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Ready, Reconciling or Stalled.
    pub kind: &'static str,
    /// True or False.
    pub status: bool,
    /// One of the area's reasons.
    pub reason: Cow<'static, str>,
    /// For people.
    pub message: String,
}

/// The conditions for `findings`, those of `before` keeping their `lastTransitionTime` while their status is the same. A condition that is not
/// found any more goes.
pub fn merge(before: &[Condition], findings: Vec<Finding>, generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    findings
        .into_iter()
        .map(|finding| {
            let status = if finding.status { "True" } else { "False" };
            let since =
                before.iter().find(|old| old.type_ == finding.kind && old.status == status).map(|old| old.last_transition_time.clone());
            Condition {
                type_: finding.kind.into(),
                status: status.into(),
                reason: finding.reason.into_owned(),
                message: cut(&finding.message, MAX_MESSAGE).into(),
                observed_generation: generation,
                last_transition_time: since.unwrap_or_else(|| seconds(now)),
            }
        })
        .collect()
}

/// A time in whole seconds: what the API server keeps.
pub fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// A time that can be calculated with: strangers may write any, and arithmetic at the ends of the calendar panics.
pub fn bounded(time: Timestamp) -> Option<Timestamp> {
    const LAST: i64 = 221_845_392_000; // the year 9000
    (0..LAST).contains(&time.as_second()).then_some(time)
}

/// The beginning of `text`, at most `most` bytes, cut between characters.
pub fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Whether the condition `kind` has come or its reason has changed: then it is worth an event.
pub fn is_news(before: &[Condition], after: &[Condition], kind: &str) -> bool {
    let reason =
        |conditions: &[Condition]| conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.reason.clone());
    let after = reason(after);
    after.is_some() && after != reason(before)
}

/// A failure for status. The same one keeps its first time as long as nothing else is said: a status is written when something changed.
pub fn failure(before: Option<&LastFailure>, reason: &str, message: &str, now: Timestamp) -> LastFailure {
    let message = cut(message, MAX_MESSAGE);
    let same = before.filter(|last| last.reason == reason && last.message == message);
    LastFailure { time: same.map_or_else(|| seconds(now), |last| last.time.clone()), reason: reason.into(), message: message.into() }
}

/// The status of one condition.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn ready(status: bool, reason: &'static str) -> Vec<Finding> {
        vec![Finding { kind: READY, status, reason: reason.into(), message: "m".into() }]
    }

    #[test]
    fn the_time_of_a_transition_stays_while_the_status_does() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = merge(&[], ready(true, "Current"), Some(1), at(100));
        let second = merge(&first, ready(true, "RenewalDue"), Some(2), at(200));
        assert_eq!(
            (second[0].last_transition_time.0, second[0].reason.as_str(), second[0].observed_generation),
            (at(100), "RenewalDue", Some(2))
        );
        let third = merge(&second, ready(false, "Expired"), Some(2), at(300));
        assert_eq!(third[0].last_transition_time.0, at(300));
        assert!(merge(&third, Vec::new(), Some(2), at(400)).is_empty());
        assert!(is_true(&second, READY) && !is_true(&third, READY) && !is_true(&second, STALLED));
    }

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("", 3), "");
    }
}
