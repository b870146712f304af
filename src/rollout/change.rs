//! When the data of a Secret became what it is, as it is written down with the Secret: by the clock of the API server, which is known only from its
//! answer. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::consumption::{self, Interlude, Since};
use crate::cluster::conditions::bounded;

const CHANGED: &str = "seaworthy.dev/data-changed-at";
const TAKEN_BACK: &str = "seaworthy.dev/taken-back";
const AFTER_UNKNOWN: &str = "seaworthy.dev/data-before-unknown";

/// Since when consumers can have the data: who is older may still use what was before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// When it first became what it is.
    pub at: Changed,
    /// When it was another value, which was taken back; the end of the last one may not be noted yet.
    pub interludes: Vec<(Timestamp, Option<Timestamp>)>,
    /// Nobody knows what was there before; [`consumption::Changed::after_unknown`].
    pub after_unknown: bool,
}

/// A moment, as far as it is known.
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

/// A time as we write it.
pub fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().and_then(bounded)
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

    /// The time, if it was noted.
    pub const fn time(self) -> Option<Timestamp> {
        match self {
            Self::At(time) => Some(time),
            Self::AtCreation | Self::JustNow => None,
        }
    }
}

impl Change {
    /// More than anybody tries in vain.
    const MOST_INTERLUDES: usize = 8;

    /// For those who count consumers; `created` is when the Secret was. None: not known yet.
    pub fn since(&self, created: Option<Timestamp>) -> Option<consumption::Changed> {
        let since = match self.at {
            Changed::AtCreation => Since::Created(created?),
            Changed::JustNow => return None,
            // A Secret that was made again, out of a backup, is not older than itself.
            Changed::At(time) => created.filter(|created| *created > time).map_or(Since::At(time), Since::Created),
        };
        let interludes = self.interludes.iter().map(|(from, to)| to.map(|to| Interlude { from: *from, to })).collect::<Option<_>>()?;
        Some(consumption::Changed { since, interludes, after_unknown: self.after_unknown })
    }

    /// Whether it is known since when the data is what it is.
    pub fn is_noted(&self) -> bool {
        self.at != Changed::JustNow && self.interludes.iter().all(|(_, to)| to.is_some())
    }

    /// What was just written was written then.
    pub fn note(&mut self, written: Timestamp) {
        if self.at == Changed::JustNow {
            self.at = Changed::At(written);
        }
        for (_, to) in &mut self.interludes {
            to.get_or_insert(written);
        }
    }

    /// The data becomes something that it never was.
    pub fn becomes_new(&mut self, changed: Changed) {
        *self = Self { at: changed, ..Self::default() };
    }

    /// The data is put right, which somebody else had changed at that time, if that is known.
    pub fn is_put_right(&mut self, since: Option<Timestamp>) {
        match since.filter(|_| self.is_noted()) {
            Some(since) => self.comes_back(since),
            None => self.becomes_new(Changed::JustNow),
        }
    }

    /// What was there before comes back, after another value since `from`.
    pub fn comes_back(&mut self, from: Timestamp) {
        self.interludes.push((from, None));
        // The two that were first become one, with the time between.
        if self.interludes.len() > Self::MOST_INTERLUDES {
            let (first, _) = self.interludes.remove(0);
            self.interludes.iter_mut().take(1).for_each(|(from, _)| *from = first);
        }
    }

    /// Out of the annotations of a Secret.
    pub fn read(annotations: Option<&BTreeMap<String, String>>) -> Self {
        let get = |key: &str| annotations.and_then(|annotations| annotations.get(key));
        Self {
            at: Changed::read(get(CHANGED)),
            interludes: interludes(get(TAKEN_BACK).map(String::as_str).unwrap_or_default()),
            after_unknown: get(AFTER_UNKNOWN).is_some(),
        }
    }

    /// As annotations; what is absent is left out.
    pub fn annotations(&self) -> impl Iterator<Item = (String, String)> + use<> {
        let of = |(key, value): (&str, Option<String>)| Some((key.to_owned(), value?));
        let after_unknown = self.after_unknown.then(|| "true".to_owned());
        [(CHANGED, self.at.text()), (TAKEN_BACK, text_of(&self.interludes)), (AFTER_UNKNOWN, after_unknown)].into_iter().filter_map(of)
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

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        for change in [
            Change::default(),
            Change { at: Changed::JustNow, after_unknown: true, ..Change::default() },
            Change { at: Changed::At(at(5)), interludes: vec![(at(7), Some(at(9))), (at(11), None)], after_unknown: false },
        ] {
            assert_eq!(Change::read(Some(&change.annotations().collect())), change);
        }
        assert_eq!(Change::read(None), Change::default());
    }

    #[test]
    fn data_is_not_older_than_its_secret() {
        for (changed, created, since) in [
            (Changed::AtCreation, Some(at(5)), Some(Since::Created(at(5)))),
            (Changed::AtCreation, None, None),
            (Changed::JustNow, Some(at(5)), None),
            (Changed::At(at(9)), Some(at(5)), Some(Since::At(at(9)))),
            (Changed::At(at(3)), Some(at(5)), Some(Since::Created(at(5)))),
        ] {
            let change = Change { at: changed, ..Change::default() };
            assert_eq!(change.since(created).map(|changed| changed.since), since, "{changed:?} {created:?}");
        }
    }

    #[test]
    fn what_comes_back_was_gone_for_a_while() {
        let mut change = Change { at: Changed::At(at(1)), ..Change::default() };
        change.comes_back(at(5));
        assert_eq!((change.is_noted(), change.since(Some(at(0)))), (false, None));
        change.note(at(9));
        let changed = change.since(Some(at(0))).unwrap();
        assert_eq!((changed.since, changed.interludes), (Since::At(at(1)), vec![Interlude { from: at(5), to: at(9) }]));
        for second in 10..30 {
            change.comes_back(at(second));
        }
        assert_eq!(change.interludes.len(), Change::MOST_INTERLUDES);
        assert_eq!(
            (change.interludes.first(), change.interludes.last()),
            (Some(&(at(5), None)), Some(&(at(29), None))),
            "none is forgotten"
        );
        change.becomes_new(Changed::JustNow);
        change.note(at(40));
        assert_eq!((change.at, change.interludes.len()), (Changed::At(at(40)), 0));
    }

    #[test]
    fn what_somebody_else_wrote_there_is_not_believed_blindly() {
        for text in ["x", "/", "2026-01-01T00:00:00Z", "9999-12-30T21:59:59Z/2026-01-01T00:00:00Z"] {
            assert_eq!(interludes(text), [], "{text}");
        }
        for time in ["yesterday", "-009999-01-02T01:59:59Z", "9999-12-30T21:59:59Z", ""] {
            let annotations = [(CHANGED.to_owned(), time.to_owned())];
            assert_eq!(Change::read(Some(&annotations.into())).at, Changed::JustNow, "{time}: rather too late than too early");
        }
    }
}
