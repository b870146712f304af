//! What is written down with a pair, as annotations of its Secret, so that it survives the loss of the resource's status. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::stage::Stage;
use crate::rollout::consumption::{self, Interlude, Since};

const REQUEST: &str = "seaworthy.dev/request-hash";
const ISSUER: &str = "seaworthy.dev/issuer";
const AUTHORITY: &str = "seaworthy.dev/ca-fingerprint";
const REVISION: &str = "seaworthy.dev/revision";
const ROTATION: &str = "seaworthy.dev/rotation-id";
const REASON: &str = "seaworthy.dev/rotation-reason";
const ISSUED_AT: &str = "seaworthy.dev/issued-at";
const HANDLED: &str = "seaworthy.dev/handled-rotate";
const CHANGED: &str = "seaworthy.dev/data-changed-at";
const TAKEN_BACK: &str = "seaworthy.dev/taken-back";
const STAGE: &str = "seaworthy.dev/rotation-stage";
const FINGERPRINT: &str = "seaworthy.dev/fingerprint";
const SHAPE: &str = "seaworthy.dev/shape-hash";

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
    pub changed: Changed,
    /// When it was another value, which was taken back; the end of the last one may not be noted yet.
    pub interludes: Vec<(Timestamp, Option<Timestamp>)>,
    /// How far the rotation is.
    pub stage: Stage,
    /// SHA-256 fingerprint of the certificate; another one in the Secret was put there by somebody else.
    pub fingerprint: Option<String>,
    /// Hash of what the Secret should look like beside the pair: labels, annotations, names of keys, owner.
    pub shape: Option<String>,
}

/// When the data became what it is, by the clock of the API server: consumers that are older may still use what was before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Changed {
    /// It never was another since the Secret was created.
    #[default]
    AtCreation,
    /// It was written, and the API server's answer, which has the time, is not written down yet.
    JustNow,
    /// Then.
    At(Timestamp),
}

/// A time that can be calculated with: whoever may write the Secret may write any time, and arithmetic at the ends of the calendar panics.
pub fn time(text: &str) -> Option<Timestamp> {
    const LAST: i64 = 221_845_392_000; // the year 9000
    text.parse().ok().filter(|time: &Timestamp| (0..LAST).contains(&time.as_second()))
}

impl Changed {
    fn read(text: Option<&String>) -> Self {
        match text.map(|text| time(text)) {
            None => Self::AtCreation,
            Some(Some(time)) => Self::At(time),
            Some(None) => Self::JustNow,
        }
    }

    fn text(self) -> Option<String> {
        match self {
            Self::AtCreation => None,
            Self::JustNow => Some(String::new()),
            Self::At(time) => Some(time.to_string()),
        }
    }
}

impl Memory {
    /// More than anybody tries in vain; older ones are forgotten.
    const MOST_INTERLUDES: usize = 8;

    /// When the data became what it is, for those who count consumers; `created` is when the Secret was. None: not known yet.
    pub fn since(&self, created: Option<Timestamp>) -> Option<consumption::Changed> {
        let since = match self.changed {
            Changed::AtCreation => Since::Created(created?),
            Changed::JustNow => return None,
            // A Secret that was made again, out of a backup, is not older than itself.
            Changed::At(time) => created.filter(|created| *created > time).map_or(Since::At(time), Since::Created),
        };
        let interludes = self.interludes.iter().map(|(from, to)| to.map(|to| Interlude { from: *from, to })).collect::<Option<_>>()?;
        Some(consumption::Changed { since, interludes })
    }

    /// Whether it is known since when the data is what it is.
    pub fn is_noted(&self) -> bool {
        self.changed != Changed::JustNow && self.interludes.iter().all(|(_, to)| to.is_some())
    }

    /// What was just written was written then.
    pub fn note(&mut self, written: Timestamp) {
        if self.changed == Changed::JustNow {
            self.changed = Changed::At(written);
        }
        for (_, to) in &mut self.interludes {
            to.get_or_insert(written);
        }
    }

    /// The data becomes something that it never was.
    pub fn becomes_new(&mut self, changed: Changed) {
        self.changed = changed;
        self.interludes.clear();
    }

    /// What was there before comes back, after another value since `from`.
    pub fn comes_back(&mut self, from: Timestamp) {
        self.interludes.push((from, None));
        let surplus = self.interludes.len().saturating_sub(Self::MOST_INTERLUDES);
        self.interludes.drain(..surplus);
    }

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
            changed: Changed::read(annotations.and_then(|annotations| annotations.get(CHANGED))),
            interludes: interludes(get(TAKEN_BACK).as_deref().unwrap_or_default()),
            stage: Stage::read(get(STAGE).as_ref()),
            fingerprint: get(FINGERPRINT),
            shape: get(SHAPE),
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
            (CHANGED, self.changed.text()),
            (TAKEN_BACK, text_of(&self.interludes)),
            (STAGE, self.stage.text()),
            (FINGERPRINT, self.fingerprint.clone()),
            (SHAPE, self.shape.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
    }
}

/// `FROM/TO`, the last without its end where that is not noted yet, with spaces between.
fn interludes(text: &str) -> Vec<(Timestamp, Option<Timestamp>)> {
    let one = |text: &str| {
        let (from, to) = text.split_once('/')?;
        Some((time(from)?, time(to)))
    };
    text.split(' ').filter_map(one).collect()
}

fn text_of(interludes: &[(Timestamp, Option<Timestamp>)]) -> Option<String> {
    let one = |(from, to): &(Timestamp, Option<Timestamp>)| format!("{from}/{}", to.map(|to| to.to_string()).unwrap_or_default());
    (!interludes.is_empty()).then(|| interludes.iter().map(one).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

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
            changed: Changed::At("2026-01-01T00:00:01Z".parse().unwrap()),
            interludes: vec![
                ("2026-01-02T00:00:01Z".parse().unwrap(), Some("2026-01-02T00:00:09Z".parse().unwrap())),
                ("2026-01-03T00:00:01Z".parse().unwrap(), None),
            ],
            stage: Stage::RolledBack { generation: 3, why: "Deployment web: it did not work".into() },
            fingerprint: Some("AB:CD".into()),
            shape: Some("s".into()),
        };
        assert_eq!(Memory::read(Some(&memory.annotations().collect())), memory);
        let at = Some("2026-01-02T00:00:01Z".parse().unwrap());
        for (base, from) in [(None, None), (Some(4), None), (Some(4), at)] {
            let open = Memory { stage: Stage::Open { base, from }, ..Memory::default() };
            assert_eq!(Memory::read(Some(&open.annotations().collect())), open);
        }
        let just_now = Memory { changed: Changed::JustNow, ..Memory::default() };
        assert_eq!(Memory::read(Some(&just_now.annotations().collect())), just_now);
        assert_eq!(Memory::read(Some(&Memory::default().annotations().collect())), Memory::default());
        assert_eq!(Memory::read(None), Memory::default());
    }

    #[test]
    fn data_is_not_older_than_its_secret() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (changed, created, since) in [
            (Changed::AtCreation, Some(at(5)), Some(Since::Created(at(5)))),
            (Changed::AtCreation, None, None),
            (Changed::JustNow, Some(at(5)), None),
            (Changed::At(at(9)), Some(at(5)), Some(Since::At(at(9)))),
            (Changed::At(at(3)), Some(at(5)), Some(Since::Created(at(5)))),
        ] {
            let memory = Memory { changed, ..Memory::default() };
            assert_eq!(memory.since(created).map(|changed| changed.since), since, "{changed:?} {created:?}");
        }
    }

    #[test]
    fn what_comes_back_was_gone_for_a_while() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut memory = Memory { changed: Changed::At(at(1)), ..Memory::default() };
        memory.comes_back(at(5));
        assert_eq!((memory.is_noted(), memory.since(Some(at(0)))), (false, None));
        memory.note(at(9));
        let changed = memory.since(Some(at(0))).unwrap();
        assert_eq!((changed.since, changed.interludes), (Since::At(at(1)), vec![Interlude { from: at(5), to: at(9) }]));
        for second in 10..30 {
            memory.comes_back(at(second));
        }
        assert_eq!(memory.interludes.len(), Memory::MOST_INTERLUDES);
        assert_eq!(memory.interludes.last(), Some(&(at(29), None)));
        memory.becomes_new(Changed::JustNow);
        memory.note(at(40));
        assert_eq!((memory.changed, memory.interludes.len()), (Changed::At(at(40)), 0));
    }

    #[test]
    fn no_interlude_that_somebody_wrote_there_is_believed_blindly() {
        for text in ["x", "/", "2026-01-01T00:00:00Z", "9999-12-30T21:59:59Z/2026-01-01T00:00:00Z"] {
            assert_eq!(interludes(text), [], "{text}");
        }
    }

    #[test]
    fn what_somebody_else_wrote_there_is_forgotten() {
        for time in ["yesterday", "-009999-01-02T01:59:59Z", "9999-12-30T21:59:59Z", ""] {
            let annotations = [(REVISION, "many"), (ISSUED_AT, time)].map(|(key, value)| (key.to_owned(), value.to_owned()));
            assert_eq!(Memory::read(Some(&annotations.into())), Memory::default(), "{time}");
            let annotations = [(CHANGED.to_owned(), time.to_owned())];
            assert_eq!(Memory::read(Some(&annotations.into())).changed, Changed::JustNow, "{time}: rather too late than too early");
        }
    }
}
