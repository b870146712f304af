//! What is written down with a pair, as annotations of its Secret, so that it survives the loss of the resource's status. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::rollout::{
    change::{Change, time},
    stage::Stage,
};

const REQUEST: &str = "seaworthy.dev/request-hash";
const ISSUER: &str = "seaworthy.dev/issuer";
const AUTHORITY: &str = "seaworthy.dev/ca-fingerprint";
const REVISION: &str = "seaworthy.dev/revision";
const ROTATION: &str = "seaworthy.dev/rotation-id";
const REASON: &str = "seaworthy.dev/rotation-reason";
const ISSUED_AT: &str = "seaworthy.dev/issued-at";
const HANDLED: &str = "seaworthy.dev/handled-rotate";
const STAGE: &str = "seaworthy.dev/rotation-stage";
const FINGERPRINT: &str = "seaworthy.dev/fingerprint";
const SHAPE: &str = "seaworthy.dev/shape-hash";
const BUNDLE: &str = "seaworthy.dev/ca-bundle-hash";

/// What is remembered. Absent values were lost or never written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Hash of the request.
    pub request: Option<String>,
    /// Identity of the issuer.
    pub issuer: Option<String>,
    /// Fingerprint of the CA that signed; empty for selfSigned.
    pub authority: Option<String>,
    /// Counts the pairs, from 1.
    pub revision: i64,
    /// Of the last rotation.
    pub rotation: Option<String>,
    /// Why it was done.
    pub reason: Option<String>,
    /// When the pair was issued.
    pub issued_at: Option<Timestamp>,
    /// The value of the `rotate` annotation that was handled last; empty if there was none.
    pub handled: Option<String>,
    /// When the Secret's data became what it is.
    pub change: Change,
    /// How far the rotation is.
    pub stage: Stage,
    /// SHA-256 fingerprint of the certificate; another one in the Secret was put there by somebody else.
    pub fingerprint: Option<String>,
    /// Hash of what the Secret should look like beside the pair: labels, annotations, names of keys, owner.
    pub shape: Option<String>,
    /// Hash of the CA bundle beside the pair.
    pub bundle: Option<String>,
}

impl Memory {
    /// Out of the annotations of a Secret.
    pub fn read(annotations: Option<&BTreeMap<String, String>>) -> Self {
        let get = |key: &str| annotations.and_then(|annotations| annotations.get(key)).cloned();
        Self {
            request: get(REQUEST),
            issuer: get(ISSUER),
            authority: get(AUTHORITY),
            revision: get(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0),
            rotation: get(ROTATION),
            reason: get(REASON),
            issued_at: get(ISSUED_AT).and_then(|text| time(&text)),
            handled: get(HANDLED),
            change: Change::read(annotations),
            stage: Stage::read(get(STAGE).as_ref()),
            fingerprint: get(FINGERPRINT),
            shape: get(SHAPE),
            bundle: get(BUNDLE),
        }
    }

    /// As annotations; what is absent is left out.
    pub fn annotations(&self) -> impl Iterator<Item = (String, String)> {
        let revision = (self.revision > 0).then(|| self.revision.to_string());
        let issued_at = self.issued_at.map(|time| time.to_string());
        [
            (REQUEST, self.request.clone()),
            (ISSUER, self.issuer.clone()),
            (AUTHORITY, self.authority.clone()),
            (REVISION, revision),
            (ROTATION, self.rotation.clone()),
            (REASON, self.reason.clone()),
            (ISSUED_AT, issued_at),
            (HANDLED, self.handled.clone()),
            (STAGE, self.stage.text()),
            (FINGERPRINT, self.fingerprint.clone()),
            (SHAPE, self.shape.clone()),
            (BUNDLE, self.bundle.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .chain(self.change.annotations())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::rollout::change::Changed;

    #[test]
    fn what_is_written_is_read_back() {
        let memory = Memory {
            request: Some("r".into()),
            issuer: Some("ca/x".into()),
            authority: Some(String::new()),
            revision: 7,
            rotation: Some("id".into()),
            reason: Some("Requested".into()),
            issued_at: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            handled: Some(String::new()),
            change: Change { at: Changed::At("2026-01-01T00:00:01Z".parse().unwrap()), ..Change::default() },
            stage: Stage::RolledBack { generation: 3, why: "Deployment web: it did not work".into() },
            fingerprint: Some("AB:CD".into()),
            shape: Some("s".into()),
            bundle: Some("b".into()),
        };
        assert_eq!(Memory::read(Some(&memory.annotations().collect())), memory);
        let at = Some("2026-01-02T00:00:01Z".parse().unwrap());
        for (base, from) in [(None, None), (Some(4), None), (Some(4), at)] {
            let open = Memory { stage: Stage::Open { base, from }, ..Memory::default() };
            assert_eq!(Memory::read(Some(&open.annotations().collect())), open);
        }
        assert_eq!(Memory::read(Some(&Memory::default().annotations().collect())), Memory::default());
        assert_eq!(Memory::read(None), Memory::default());
    }

    #[test]
    fn what_somebody_else_wrote_there_is_forgotten() {
        for time in ["yesterday", "-009999-01-02T01:59:59Z", "9999-12-30T21:59:59Z", ""] {
            let annotations = [(REVISION, "many"), (ISSUED_AT, time)].map(|(key, value)| (key.to_owned(), value.to_owned()));
            assert_eq!(Memory::read(Some(&annotations.into())), Memory::default(), "{time}");
        }
    }
}
