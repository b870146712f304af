//! Since when a Secret is not as it was written, because somebody else has changed it: who has started since then may use that. Only a process that has seen
//! it as it was written before knows; a writer who comes again, or another one, then makes it no later. Pure.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

/// What was seen of each resource's Secret, by uid.
#[derive(Debug, Default)]
pub struct Edits(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    of: HashMap<String, One>,
    /// When so many are there, those of resources that are gone are looked for.
    room: usize,
}

#[derive(Debug)]
struct One {
    state: State,
    /// Whether the present look, or the last one, has seen that.
    is_seen: bool,
    last: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// As it was written.
    Right,
    /// Changed by somebody else since then, if that is known.
    Edited(Option<Timestamp>),
}

/// Every resource is looked at more often.
const FORGOTTEN: Duration = Duration::from_hours(48);

impl Edits {
    /// A look begins. If the last one has not come to see the Secret, nobody knows any more.
    pub fn look(&self, uid: &str) {
        let mut seen = self.seen();
        if seen.of.get_mut(uid).is_some_and(|one| !std::mem::take(&mut one.is_seen)) {
            seen.of.remove(uid);
        }
    }

    /// It is as it was written.
    pub fn is_right(&self, uid: &str) {
        self.seen().note(uid, State::Right);
    }

    /// It is changed; who did that has written at `written`, if that is known.
    pub fn is_edited(&self, uid: &str, written: Option<Timestamp>) {
        let mut seen = self.seen();
        let state = match seen.of.get(uid).map(|one| one.state) {
            Some(State::Right) => State::Edited(written),
            Some(edited) => edited,
            None => State::Edited(None),
        };
        seen.note(uid, state);
    }

    /// Since when it is changed, if that is known.
    pub fn since(&self, uid: &str) -> Option<Timestamp> {
        match self.seen().of.get(uid)?.state {
            State::Right => None,
            State::Edited(since) => since,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn note(&mut self, uid: &str, state: State) {
        let one = One { state, is_seen: true, last: Instant::now() };
        if self.of.len() >= self.room {
            self.of.retain(|_, known| one.last.duration_since(known.last) < FORGOTTEN);
            self.room = (self.of.len() * 2).max(1000);
        }
        match self.of.get_mut(uid) {
            Some(known) => *known = one,
            None => drop(self.of.insert(uid.to_owned(), one)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_as_old_as_it_was_when_it_was_first_seen() {
        let (edits, at) = (Edits::default(), |second| Timestamp::from_second(second).ok());
        edits.is_edited("a", at(1));
        assert_eq!(edits.since("a"), None, "it may be older than what was seen");
        edits.is_right("a");
        assert_eq!(edits.since("a"), None);
        edits.is_edited("a", at(5));
        edits.is_edited("a", at(9));
        assert_eq!((edits.since("a"), edits.since("b")), (at(5), None));
        edits.is_right("a");
        edits.is_edited("a", None);
        edits.is_edited("a", at(12));
        assert_eq!(edits.since("a"), None);
        edits.is_right("a");
        edits.look("a");
        edits.is_edited("a", at(15));
        edits.look("a");
        assert_eq!(edits.since("a"), at(15));
        edits.look("a");
        edits.is_edited("a", at(18));
        assert_eq!(edits.since("a"), None, "a look did not come to see it");
    }
}
