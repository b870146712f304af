//! What is written down with the values, as annotations of their Secret, so that it survives the loss of the resource's status. Pure.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::hmac;
use jiff::Timestamp;

use super::store::SecretData;
use crate::{
    api::secret_rotation::SecretRotationStatus,
    cluster::owner::{PREVIOUS_SINCE, VERSIONS_OVER},
    rollout::{
        change::{Change, time},
        stage::Stage,
    },
};

const REQUEST: &str = "seaworthy.dev/request-hash";
const REVISION: &str = "seaworthy.dev/revision";
const ROTATION: &str = "seaworthy.dev/rotation-id";
const REASON: &str = "seaworthy.dev/rotation-reason";
const STARTED_AT: &str = "seaworthy.dev/issued-at";
const ROTATED_AT: &str = "seaworthy.dev/rotated-at";
const HANDLED_ROTATE: &str = "seaworthy.dev/handled-rotate";
const STAGE: &str = "seaworthy.dev/rotation-stage";
const VALUES: &str = "seaworthy.dev/value-hashes";
const PREVIOUS_KEYS: &str = "seaworthy.dev/previous-keys";
const PREVIOUS_TEXTS: &str = "seaworthy.dev/previous-texts";
const HIDDEN: &str = "seaworthy.dev/hidden-values";
const KEY: &str = "seaworthy.dev/hash-key";
const CURRENT: &str = "seaworthy.dev/current-versions";
const SUPERSEDED: &str = "seaworthy.dev/superseded-versions";
const REJECTED: &str = "seaworthy.dev/rejected";
const TRIED: &str = "seaworthy.dev/rejected-fingerprints";

/// A keyed hash of each value, by its key: whether somebody else changed it can be seen, what it is cannot.
pub type Hashes = BTreeMap<String, String>;

/// Versions of values in the store that a rotation has replaced, by place; each with a keyed hash ([`super::writing::retire::sign_note`]).
pub type Superseded = BTreeMap<String, BTreeSet<String>>;

/// Versions of values in the store that a rotation has to do with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// Those that hold what was written, by place; each with a keyed hash.
    pub current: BTreeMap<String, String>,
    /// Those that were replaced, and are to be retired when the previous values are not kept any longer.
    pub superseded: Superseded,
    /// Those whose time is over.
    pub over: Superseded,
}

impl Versions {
    /// The previous values are not kept any longer.
    pub fn retire_superseded(&mut self) {
        for (place, notes) in std::mem::take(&mut self.superseded) {
            self.over.entry(place).or_default().extend(notes);
        }
    }
}

/// What is remembered. Absent values were lost or never written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Hash of the part of the spec that says what the Secret holds.
    pub request: Option<String>,
    /// Counts the changes of the data, from 1.
    pub revision: i64,
    /// Of the last change.
    pub rotation: Option<String>,
    /// Why it was done.
    pub reason: Option<String>,
    /// When it was begun.
    pub started_at: Option<Timestamp>,
    /// When values were generated last, or taken over from the store for the first time.
    pub rotated_at: Option<Timestamp>,
    /// The value of the `rotate` annotation that was handled last; empty if there was none.
    pub handled_rotate: Option<String>,
    /// When the Secret's data became what it is.
    pub change: Change,
    /// How far the change is.
    pub stage: Stage,
    /// What was written.
    pub values: Hashes,
    /// Which key the hashes were made with; another one tells nothing about them.
    pub key: Option<String>,
    /// Since when the previous values are kept beside; None: none are.
    pub previous_since: Option<Timestamp>,
    /// Where each stands, by the key of the value that replaced it.
    pub previous_keys: BTreeMap<String, String>,
    /// The templates of the texts that hold one of them, by key.
    pub previous_texts: BTreeMap<String, String>,
    /// A keyed hash of the values in whose place texts stand.
    pub hidden: Option<String>,
    /// What is where in the store.
    pub versions: Versions,
    /// Keyed hashes ([`hash`]) of the values that were taken back because consumers could not live with them.
    pub rejected: BTreeSet<String>,
    /// Fingerprints of what is not tried again: of what was taken back, and of what that has left in the store.
    pub tried: BTreeSet<String>,
}

impl Memory {
    /// Out of the annotations of a Secret.
    pub fn read(annotations: Option<&BTreeMap<String, String>>) -> Self {
        let get = |key: &str| annotations.and_then(|annotations| annotations.get(key)).cloned();
        Self {
            request: get(REQUEST),
            revision: get(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0),
            rotation: get(ROTATION),
            reason: get(REASON),
            started_at: get(STARTED_AT).and_then(|text| time(&text)),
            rotated_at: get(ROTATED_AT).and_then(|text| time(&text)),
            handled_rotate: get(HANDLED_ROTATE),
            change: Change::read(annotations),
            stage: Stage::read(get(STAGE).as_ref()),
            values: get(VALUES).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
            key: get(KEY),
            previous_since: get(PREVIOUS_SINCE).and_then(|text| time(&text)),
            previous_keys: get(PREVIOUS_KEYS).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
            previous_texts: get(PREVIOUS_TEXTS).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
            hidden: get(HIDDEN),
            versions: Versions {
                current: get(CURRENT).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
                superseded: get(SUPERSEDED).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
                over: get(VERSIONS_OVER).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
            },
            rejected: get(REJECTED).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
            tried: get(TRIED).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
        }
    }

    /// As annotations; what is absent is left out.
    pub fn annotations(&self) -> impl Iterator<Item = (String, String)> {
        let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let Self { values, rejected, tried, previous_keys, previous_texts, versions: Versions { current, superseded, over }, .. } = self;
        [
            (REQUEST, self.request.clone()),
            (REVISION, (self.revision > 0).then(|| self.revision.to_string())),
            (ROTATION, self.rotation.clone()),
            (REASON, self.reason.clone()),
            (STARTED_AT, text(self.started_at)),
            (ROTATED_AT, text(self.rotated_at)),
            (HANDLED_ROTATE, self.handled_rotate.clone()),
            (STAGE, self.stage.text()),
            (VALUES, (!values.is_empty()).then(|| serde_json::to_string(values).unwrap_or_default())),
            (KEY, self.key.clone()),
            (PREVIOUS_SINCE, text(self.previous_since)),
            (PREVIOUS_KEYS, (!previous_keys.is_empty()).then(|| serde_json::to_string(previous_keys).unwrap_or_default())),
            (PREVIOUS_TEXTS, (!previous_texts.is_empty()).then(|| serde_json::to_string(previous_texts).unwrap_or_default())),
            (HIDDEN, self.hidden.clone()),
            (CURRENT, (!current.is_empty()).then(|| serde_json::to_string(current).unwrap_or_default())),
            (SUPERSEDED, (!superseded.is_empty()).then(|| serde_json::to_string(superseded).unwrap_or_default())),
            (VERSIONS_OVER, (!over.is_empty()).then(|| serde_json::to_string(over).unwrap_or_default())),
            (REJECTED, (!rejected.is_empty()).then(|| serde_json::to_string(rejected).unwrap_or_default())),
            (TRIED, (!tried.is_empty()).then(|| serde_json::to_string(tried).unwrap_or_default())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .chain(self.change.annotations())
    }
}

impl Memory {
    /// The hashes of `data`, which is what was written.
    pub fn hash(&mut self, key: &[u8], data: &SecretData) {
        (self.values, self.key) = (hashes(key, data), Some(key_id(key)));
    }

    /// A Secret that is older than what the resource has said of its own since then, because the spec leads back to it, or it comes out of a backup, is made
    /// anew, and what was done meanwhile is not done again. `has_store`: what is generated stands in a store as well.
    pub fn is_of_before(&mut self, status: Option<&SecretRotationStatus>, has_store: bool) {
        let told = status.and_then(|status| status.revision).unwrap_or_default();
        if self.revision == 0 || self.revision >= told {
            return;
        }
        (self.revision, self.request) = (told, None);
        self.handled_rotate = Some(status.and_then(|status| status.handled_rotate.clone()).unwrap_or_default());
        // What no store has is as old as it is.
        if has_store {
            let rotated = status.and_then(|status| status.last_rotation_time.as_ref()).map(|time| time.0);
            self.rotated_at = self.rotated_at.max(rotated);
        }
    }

    /// If the key was lost, nobody can tell any more whether somebody else changed `data`: then it is taken for what was written.
    pub fn rehash(&mut self, key: &[u8], data: &SecretData) {
        if !self.values.is_empty() && self.key.as_deref() != Some(&key_id(key)) {
            let ours = data.iter().filter(|(name, _)| self.values.contains_key(*name)).map(|(name, value)| (name.clone(), value.clone()));
            self.hash(key, &ours.collect());
        }
    }
}

fn key_id(key: &[u8]) -> String {
    hash(key, "key", b"")
}

/// The hash of one value under its key.
pub fn hash(key: &[u8], name: &str, value: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(&u64::try_from(name.len()).unwrap_or(u64::MAX).to_be_bytes());
    context.update(name.as_bytes());
    context.update(value);
    crate::ids::short(context.sign().as_ref()) // a thousand of them fit into the annotations of a Secret
}

/// Of every value.
pub fn hashes(key: &[u8], data: &SecretData) -> Hashes {
    data.iter().map(|(name, value)| (name.clone(), hash(key, name, value))).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::rollout::change::Changed;

    #[test]
    fn what_is_written_is_read_back() {
        let at = |text: &str| Some(text.parse().unwrap());
        let memory = Memory {
            request: Some("r".into()),
            revision: 7,
            rotation: Some("id".into()),
            reason: Some("Requested".into()),
            started_at: at("2026-01-01T00:00:00Z"),
            rotated_at: at("2026-01-02T00:00:00Z"),
            handled_rotate: Some(String::new()),
            change: Change { at: Changed::At("2026-01-01T00:00:01Z".parse().unwrap()), ..Change::default() },
            stage: Stage::RolledBack { generation: 3, why: "Deployment web: it did not work".into() },
            values: [("a.b".to_owned(), "h".to_owned())].into(),
            key: Some("k".into()),
            previous_since: at("2026-01-03T00:00:00Z"),
            previous_keys: [("a".to_owned(), "a-old".to_owned())].into(),
            previous_texts: [("url".to_owned(), "{{ a_old }}".to_owned())].into(),
            hidden: Some("h".into()),
            versions: Versions {
                current: [("k".to_owned(), "2".to_owned())].into(),
                superseded: [("k".to_owned(), ["1".to_owned()].into())].into(),
                over: [("k".to_owned(), ["0".to_owned()].into())].into(),
            },
            rejected: ["x".to_owned()].into(),
            tried: ["y".to_owned(), "z".to_owned()].into(),
        };
        assert_eq!(Memory::read(Some(&memory.annotations().collect())), memory);
        assert_eq!(Memory::read(Some(&Memory::default().annotations().collect())), Memory::default());
        assert_eq!(Memory::read(None), Memory::default());
    }

    #[test]
    fn what_somebody_else_wrote_there_is_forgotten() {
        let annotations = [(REVISION, "many"), (ROTATED_AT, "9999-12-30T21:59:59Z"), (VALUES, "[1]")];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(Memory::read(Some(&annotations.into())), Memory::default());
    }

    #[test]
    fn a_secret_of_before_is_made_anew() {
        let status = |revision: i64| SecretRotationStatus {
            revision: Some(revision),
            last_rotation_time: serde_json::from_value(serde_json::json!("2026-02-01T00:00:00Z")).unwrap(),
            handled_rotate: Some("new".into()),
            ..SecretRotationStatus::default()
        };
        let memory = || Memory {
            revision: 3,
            request: Some("r".into()),
            handled_rotate: Some("old".into()),
            rotated_at: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            ..Memory::default()
        };
        for told in [2, 3] {
            let mut same = memory();
            same.is_of_before(Some(&status(told)), true);
            assert_eq!(same, memory());
        }
        for (has_store, rotated_at) in [(true, "2026-02-01T00:00:00Z"), (false, "2026-01-01T00:00:00Z")] {
            let mut before = memory();
            before.is_of_before(Some(&status(4)), has_store);
            let rotated_at = Some(rotated_at.parse().unwrap());
            let handled_rotate = Some("new".into());
            assert_eq!(before, Memory { revision: 4, rotated_at, handled_rotate, ..Memory::default() });
        }
        let mut nothing = Memory::default();
        nothing.is_of_before(Some(&status(4)), true);
        assert_eq!(nothing, Memory::default(), "somebody else's is no Secret of before");
    }

    #[test]
    fn a_lost_key_makes_no_edits() {
        let data: SecretData = [("a".to_owned(), b"1".to_vec().into()), ("b".to_owned(), b"2".to_vec().into())].into();
        let mut memory = Memory::default();
        memory.hash(b"k", &data);
        let before = memory.clone();
        memory.rehash(b"k", &SecretData::new());
        assert_eq!(memory, before, "with the same key an edit is an edit");
        memory.rehash(b"other", &data);
        assert_eq!(memory.values, hashes(b"other", &data));
        let mut nothing = Memory::default();
        nothing.rehash(b"k", &data);
        assert_eq!(nothing, Memory::default());
    }

    #[test]
    fn a_hash_tells_values_apart_and_needs_the_key() {
        assert_eq!(hash(b"k", "a", b"v"), hash(b"k", "a", b"v"));
        for other in [hash(b"k", "a", b"w"), hash(b"k", "b", b"v"), hash(b"l", "a", b"v"), hash(b"k", "av", b"")] {
            assert_ne!(hash(b"k", "a", b"v"), other);
        }
    }
}
