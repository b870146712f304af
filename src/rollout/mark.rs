//! What is written on a workload that is restarted: on its Pod template a mark of the value, so that the Pods are made anew and the same change
//! never restarts anything twice; on the workload itself the same mark and when, so that somebody's undo is seen. Pure.

use aws_lc_rs::hmac;
use jiff::{SignedDuration, Timestamp};

pub use crate::inventory::workloads::PREFIX;
use crate::{cluster::references::SecretData, ids};

/// The annotation for a Secret. The part behind the slash ends at 63 characters, a Secret's name at 253.
pub fn annotation(secret: &str) -> String {
    const ROOM: usize = 63 - "secret.".len();
    if secret.len() <= ROOM {
        return format!("{PREFIX}secret.{secret}");
    }
    let hash = ids::hash(secret.as_bytes());
    format!("{PREFIX}secret.{}.{hash}", &secret[..secret.floor_char_boundary(ROOM - hash.len() - 1)])
}

/// The mark of a value that is there since `changed` ([`super::consumption::Changed::time`]), `HASH-SECOND`: the same value that comes back after another one
/// has another mark, as Pods that were made meanwhile carry the one of before. Nobody who reads it can try out what a weak secret might be without `key`.
pub fn mark(key: &[u8], data: &SecretData, changed: Timestamp) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    let pairs = data.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_slice()]);
    // Lengths first, so that no two values are written the same.
    for part in pairs {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part);
    }
    format!("{}-{}", ids::hash(context.sign().as_ref()), changed.as_second())
}

/// Whether two marks are of the same value, whenever it came.
pub fn are_of_one_value(left: &str, right: &str) -> bool {
    let value = |mark: &str| mark.split_once('-').map(|(value, _)| value.to_owned());
    value(left).is_some_and(|left| Some(left) == value(right))
}

/// By so much the clocks of those who note times may differ.
const SKEW: SignedDuration = SignedDuration::from_mins(1);

/// What stands on the workload itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The mark that its template was given.
    pub mark: String,
    /// When.
    pub at: Timestamp,
    /// All its Pods have been new and available since; what becomes of them later is no business of that restart.
    pub done: bool,
}

impl Note {
    /// `MARK TIME`, and `done` where it is.
    pub fn text(&self) -> String {
        format!("{} {}{}", self.mark, self.at, if self.done { " done" } else { "" })
    }

    /// Reads it; None if somebody else wrote there, which a time that is yet to come shows as well.
    pub fn read(text: &str, now: Timestamp) -> Option<Self> {
        let mut parts = text.split(' ');
        let (mark, at, done) = (parts.next()?, parts.next()?.parse().ok()?, parts.next());
        (Timestamp::UNIX_EPOCH <= at && at <= now + SKEW).then(|| Self { mark: mark.into(), at, done: done == Some("done") })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn data(entries: &[(&str, &str)]) -> SecretData {
        entries.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec().into())).collect()
    }

    #[test]
    fn a_mark_tells_values_apart_and_needs_the_key() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let of = |entries: &[(&str, &str)]| mark(b"key", &data(entries), at(1));
        assert_eq!(of(&[("a", "b")]), of(&[("a", "b")]));
        assert_ne!(of(&[("a", "b")]), of(&[("a", "c")]));
        assert_ne!(of(&[("a", "bc")]), of(&[("ab", "c")]));
        assert_ne!(of(&[("a", "b")]), mark(b"other", &data(&[("a", "b")]), at(1)));
        assert_ne!(of(&[("a", "b")]), mark(b"key", &data(&[("a", "b")]), at(2)), "it came back");
        assert!(are_of_one_value(&of(&[("a", "b")]), &mark(b"key", &data(&[("a", "b")]), at(2))));
        assert!(!are_of_one_value(&of(&[("a", "b")]), &of(&[("a", "c")])) && !are_of_one_value("x", "x"));
    }

    #[test]
    fn every_name_of_a_secret_gives_a_valid_annotation_of_its_own() {
        let names: Vec<String> = (1..=253).map(|length| "x".repeat(length)).collect();
        let annotations: std::collections::BTreeSet<String> = names.iter().map(|name| annotation(name)).collect();
        assert_eq!(annotations.len(), names.len());
        assert!(annotations.iter().all(|annotation| annotation.len() <= PREFIX.len() + 63));
        assert_eq!(annotation("api-tls"), "restart.seaworthy.dev/secret.api-tls");
    }

    #[test]
    fn notes_are_read_back() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        for done in [false, true] {
            let note = Note { mark: "abc".into(), at: now, done };
            assert_eq!(Note::read(&note.text(), now), Some(note));
        }
        for text in ["something", "abc yesterday", "abc 9999-12-30T21:59:59Z", "abc -009999-01-02T01:59:59Z", ""] {
            assert_eq!(Note::read(text, now), None, "{text}");
        }
    }
}
