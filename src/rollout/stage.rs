//! How far a rotation is, and what can be gone back to. Pure.

use jiff::Timestamp;

use super::change::time;
use crate::cluster::conditions::cut;

/// How far a rotation is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Who has to have the pair has it, or nobody was to be asked.
    #[default]
    Complete,
    /// It is stored, and on its way to who uses it.
    Open {
        /// The revision of the last pair that was complete: `-previous` holds it. None: there is nothing to go back to.
        base: Option<i64>,
        /// When that pair was replaced, if the data was changed again since.
        from: Option<Timestamp>,
    },
    /// The pair of before is back.
    RolledBack {
        /// The generation of the resource that asked for what was taken back.
        generation: i64,
        /// What failed.
        why: String,
    },
}

impl Stage {
    const MAX_WHY: usize = 700;

    /// Out of an annotation; what is not ours is taken for nothing under way.
    pub fn read(text: Option<&String>) -> Self {
        let Some(text) = text else { return Self::Complete };
        let mut parts = text.splitn(3, ' ');
        let (word, number, rest) = (parts.next(), parts.next().and_then(|text| text.parse().ok()), parts.next());
        match (word, number) {
            (Some("Open"), base) => Self::Open { base, from: rest.and_then(time) },
            (Some("RolledBack"), Some(generation)) => Self::RolledBack { generation, why: rest.unwrap_or_default().into() },
            _ => Self::Complete,
        }
    }

    /// For an annotation; None: there is none.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Complete => None,
            Self::Open { base: None, .. } => Some("Open".into()),
            Self::Open { base: Some(base), from: None } => Some(format!("Open {base}")),
            Self::Open { base: Some(base), from: Some(from) } => Some(format!("Open {base} {from}")),
            Self::RolledBack { generation, why } => Some(format!("RolledBack {generation} {}", cut(why, Self::MAX_WHY))),
        }
    }

    /// The same after the data was changed beside a rotation, at a time when it was what it is since `changed`: what was gone back to still is.
    #[must_use]
    pub fn redressed(self, changed: Option<Timestamp>) -> Self {
        match self {
            Self::Open { base, from } => Self::Open { base, from: from.or(changed) },
            other => other,
        }
    }

    /// Whether the pair of before is back.
    pub const fn is_rolled_back(&self) -> bool {
        matches!(self, Self::RolledBack { .. })
    }
}

/// A pair in `-previous`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// Which.
    pub revision: i64,
    /// When it expires.
    pub end: Timestamp,
}

/// What becomes of `-previous` when the stored pair makes room for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It stays as it is.
    Leave(Base),
    /// The stored pair is put there.
    Replace(Base),
}

/// The revision of what can be gone back to from the next pair.
pub type Base = Option<i64>;

/// Judges. `stored`: the revision of the stored pair, if it is one that we made; `previous`: what `-previous` holds.
pub fn keep(stage: &Stage, stored: Option<i64>, previous: Option<Previous>, now: Timestamp) -> Keep {
    let Stage::Open { base, .. } = stage else {
        return stored.map_or(Keep::Leave(None), |revision| Keep::Replace(Some(revision)));
    };
    // What its users did not all get takes the place of no pair that is still good, and is nothing to go back to.
    match (previous.filter(|previous| previous.end > now), stored) {
        (Some(previous), _) => Keep::Leave(base.filter(|base| *base == previous.revision)),
        (None, Some(_)) => Keep::Replace(None),
        (None, None) => Keep::Leave(None),
    }
}

/// Why the pair in `-previous` cannot be put back. None: it can.
pub fn obstacle(stage: &Stage, previous: Option<Previous>, now: Timestamp) -> Option<&'static str> {
    match (stage, previous) {
        (Stage::RolledBack { .. }, _) => Some("it has been"),
        (Stage::Complete, _) => Some("others have the present one already"),
        (Stage::Open { base: None, .. }, _) => Some("none is kept that all of them had"),
        (Stage::Open { .. }, None) => Some("its Secret does not hold a pair"),
        (Stage::Open { base, .. }, Some(previous)) if *base != Some(previous.revision) => Some("its Secret holds another one"),
        (Stage::Open { .. }, Some(previous)) if previous.end <= now => Some("it has expired"),
        (Stage::Open { .. }, Some(_)) => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const fn open(base: Option<i64>) -> Stage {
        Stage::Open { base, from: None }
    }

    fn back() -> Stage {
        Stage::RolledBack { generation: 1, why: "no".into() }
    }

    #[test]
    fn no_stage_that_somebody_wrote_there_is_believed_blindly() {
        for (text, stage) in [
            ("", Stage::Complete),
            ("Open", open(None)),
            ("Open x", open(None)),
            ("Open 3 -009999-01-02T01:59:59Z", open(Some(3))),
            ("Open 99999999999999999999", open(None)),
            ("RolledBack", Stage::Complete),
            ("RolledBack 2", Stage::RolledBack { generation: 2, why: String::new() }),
            ("Closed 2", Stage::Complete),
        ] {
            assert_eq!(Stage::read(Some(&text.to_owned())), stage, "{text}");
        }
    }

    #[test]
    fn a_good_pair_gives_way_only_to_one_that_all_had() {
        let valid = |revision| Some(Previous { revision, end: at(200) });
        let over = |revision| Some(Previous { revision, end: at(50) });
        for (stage, stored, previous, wanted) in [
            (Stage::Complete, Some(2), valid(1), Keep::Replace(Some(2))),
            (Stage::Complete, Some(1), None, Keep::Replace(Some(1))),
            (Stage::Complete, None, valid(1), Keep::Leave(None)),
            (back(), Some(3), valid(1), Keep::Replace(Some(3))),
            (open(Some(1)), Some(2), valid(1), Keep::Leave(Some(1))),
            (open(Some(1)), None, valid(1), Keep::Leave(Some(1))),
            (open(Some(1)), Some(2), valid(7), Keep::Leave(None)),
            (open(Some(1)), Some(2), over(1), Keep::Replace(None)),
            (open(Some(1)), Some(2), None, Keep::Replace(None)),
            (open(None), Some(2), valid(1), Keep::Leave(None)),
            (open(None), Some(2), None, Keep::Replace(None)),
            (open(None), None, None, Keep::Leave(None)),
        ] {
            assert_eq!(keep(&stage, stored, previous, at(100)), wanted, "{stage:?} {stored:?} {previous:?}");
        }
    }

    #[test]
    fn only_what_all_had_is_put_back() {
        let previous = |revision, end| Some(Previous { revision, end: at(end) });
        for (stage, previous, said) in [
            (open(Some(1)), previous(1, 200), None),
            (open(Some(1)), previous(1, 100), Some("expired")),
            (open(Some(1)), previous(2, 200), Some("another one")),
            (open(Some(1)), None, Some("does not hold a pair")),
            (open(None), previous(1, 200), Some("none is kept")),
            (Stage::Complete, previous(1, 200), Some("others have")),
            (back(), previous(1, 200), Some("it has been")),
        ] {
            let found = obstacle(&stage, previous, at(100));
            assert_eq!(found.is_some(), said.is_some(), "{stage:?} {previous:?}: {found:?}");
            assert!(found.unwrap_or_default().contains(said.unwrap_or_default()), "{found:?}: {said:?}");
        }
    }

    #[test]
    fn what_is_redressed_can_still_be_taken_back() {
        let replaced = Some(at(5));
        assert_eq!(open(Some(1)).redressed(replaced), Stage::Open { base: Some(1), from: replaced });
        let before = Stage::Open { base: Some(1), from: Some(at(3)) };
        assert_eq!(before.clone().redressed(replaced), before, "since the first of them");
        assert_eq!(back().redressed(replaced), back());
        assert_eq!(Stage::Complete.redressed(replaced), Stage::Complete);
    }
}
