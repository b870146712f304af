//! What is looked at next, in two lanes: what a person has just changed goes before what is due by the clock or because something else changed,
//! so that a thousand renewals do not hold up the one that somebody waits for. And no namespace takes all places: what a tenant's server that never
//! answers holds up is the tenant's. Pure.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Why an object is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Its time has come, or something that it depends on is another one.
    Due,
    /// It is new, or was changed itself.
    Changed,
}

/// One in this many looks is taken from the lane of what is due while there is something in both: what never stops changing does not starve a renewal.
const SHARE: u32 = 4;

/// Objects that wait, each at most once, and those that are being looked at, of which none is looked at twice at the same time.
#[derive(Debug)]
pub struct Lanes<T> {
    /// So many of one namespace are looked at at a time.
    most: usize,
    /// Where an object lives; None: in no namespace, and there may be any number.
    home: fn(&T) -> Option<&str>,
    homes: HashMap<String, Home<T>>,
    /// Everything else that waits.
    queues: Queues<T>,
    /// In which lane each one waits. One that changed lanes has an entry left in the other that counts no more.
    waiting: HashMap<T, Lane>,
    /// What is being looked at, and where it goes afterwards because it was called for again.
    busy: HashMap<T, Option<Lane>>,
    turn: u32,
}

/// What waits, in its order.
#[derive(Debug)]
struct Queues<T> {
    changed: VecDeque<T>,
    due: VecDeque<T>,
}

impl<T> Queues<T> {
    fn new() -> Self {
        Self { changed: VecDeque::new(), due: VecDeque::new() }
    }

    fn of(&mut self, lane: Lane) -> &mut VecDeque<T> {
        match lane {
            Lane::Changed => &mut self.changed,
            Lane::Due => &mut self.due,
        }
    }

    fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.due.is_empty()
    }
}

/// A namespace of which something is being looked at.
#[derive(Debug)]
struct Home<T> {
    busy: usize,
    /// What was next when there was no room for more of it.
    held: Queues<T>,
}

impl<T: Clone + Eq + Hash> Lanes<T> {
    /// For so many places, of which one namespace takes at most half.
    pub fn new(places: usize, home: fn(&T) -> Option<&str>) -> Self {
        let most = places - places / 2;
        Self { most, home, homes: HashMap::new(), queues: Queues::new(), waiting: HashMap::new(), busy: HashMap::new(), turn: 0 }
    }

    /// Calls for a look. What waits in the slower lane is moved to the faster one, never back.
    pub fn push(&mut self, object: T, lane: Lane) {
        if let Some(again) = self.busy.get_mut(&object) {
            *again = (*again).max(Some(lane));
            return;
        }
        if self.waiting.get(&object).is_some_and(|now| *now >= lane) {
            return;
        }
        self.waiting.insert(object.clone(), lane);
        self.queues.of(lane).push_back(object);
    }

    /// Takes the next one; until [`Lanes::done`] it is not handed out again.
    pub fn take(&mut self) -> Option<T> {
        self.turn = self.turn.wrapping_add(1);
        let object = self.order().into_iter().find_map(|lane| self.pop(lane))?;
        self.busy.insert(object.clone(), None);
        Some(object)
    }

    fn order(&self) -> [Lane; 2] {
        if self.turn.is_multiple_of(SHARE) { [Lane::Due, Lane::Changed] } else { [Lane::Changed, Lane::Due] }
    }

    fn pop(&mut self, lane: Lane) -> Option<T> {
        while let Some(object) = self.queues.of(lane).pop_front() {
            if self.waiting.get(&object) != Some(&lane) {
                continue;
            }
            if let Some(home) = (self.home)(&object) {
                let home = self.homes.entry(home.into()).or_insert(Home { busy: 0, held: Queues::new() });
                if home.busy >= self.most {
                    home.held.of(lane).push_back(object);
                    continue;
                }
                home.busy += 1;
            }
            self.waiting.remove(&object);
            return Some(object);
        }
        None
    }

    /// There is room for one more of the namespace of `object`: who was next of it is next again.
    fn leave(&mut self, object: &T) {
        let order = self.order();
        let Some(name) = (self.home)(object) else { return };
        let Some(home) = self.homes.get_mut(name) else { return };
        home.busy -= 1;
        let next = order.into_iter().find_map(|lane| {
            let held = home.held.of(lane);
            std::iter::from_fn(|| held.pop_front()).find(|object| self.waiting.get(object) == Some(&lane)).map(|object| (lane, object))
        });
        if home.busy == 0 && home.held.is_empty() {
            self.homes.remove(name);
        }
        if let Some((lane, object)) = next {
            self.queues.of(lane).push_front(object);
        }
    }

    /// The look is over. Whether it was called for again meanwhile: then it waits already.
    pub fn done(&mut self, object: &T) -> bool {
        let Some(again) = self.busy.remove(object) else { return false };
        self.leave(object);
        let Some(again) = again else { return false };
        self.push(object.clone(), again);
        true
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn lanes() -> Lanes<u32> {
        Lanes::new(4, |_| None)
    }

    fn all(lanes: &mut Lanes<u32>) -> Vec<u32> {
        std::iter::from_fn(|| {
            let object = lanes.take()?;
            assert!(!lanes.done(&object));
            Some(object)
        })
        .collect()
    }

    #[test]
    fn what_was_changed_goes_first_and_what_is_due_has_its_share() {
        let mut lanes = lanes();
        for object in 0..6 {
            lanes.push(object, Lane::Due);
        }
        for object in 10..16 {
            lanes.push(object, Lane::Changed);
        }
        assert_eq!(lanes.len(), 12);
        assert_eq!(all(&mut lanes), [10, 11, 12, 0, 13, 14, 15, 1, 2, 3, 4, 5]);
        assert!(lanes.is_empty());
    }

    #[test]
    fn each_waits_once_and_is_moved_to_the_faster_lane() {
        let mut lanes = lanes();
        for (object, lane) in [(1, Lane::Due), (2, Lane::Due), (1, Lane::Due), (2, Lane::Changed), (2, Lane::Due), (2, Lane::Changed)] {
            lanes.push(object, lane);
        }
        assert_eq!(all(&mut lanes), [2, 1]);
        lanes.push(2, Lane::Due);
        assert_eq!(all(&mut lanes), [2]);
    }

    #[test]
    fn none_is_looked_at_twice_at_once_and_none_is_forgotten() {
        let mut lanes = lanes();
        lanes.push(1, Lane::Due);
        assert_eq!(lanes.take(), Some(1));
        lanes.push(1, Lane::Changed);
        lanes.push(1, Lane::Due);
        assert_eq!(lanes.take(), None, "it is being looked at");
        assert!(lanes.done(&1));
        lanes.push(2, Lane::Due);
        assert_eq!(lanes.take(), Some(1), "it was called for again, and by a change");
        assert!(!lanes.done(&1));
    }

    #[test]
    fn no_namespace_takes_all_places() {
        let mut lanes = Lanes::new(6, |object: &u32| Some(if *object < 100 { "tenant" } else { "other" }));
        for object in 0..10 {
            lanes.push(object, Lane::Due);
        }
        lanes.push(10, Lane::Changed);
        assert_eq!([(); 4].map(|()| lanes.take()), [Some(10), Some(0), Some(1), None], "half of the places is for others");
        lanes.push(100, Lane::Due);
        lanes.push(2, Lane::Changed);
        assert_eq!((lanes.take(), lanes.take(), lanes.len()), (Some(100), None, 8));
        lanes.done(&0);
        assert_eq!((lanes.take(), lanes.take()), (Some(2), None), "it was moved to the faster lane while it was held up");
        for (over, next) in [(1, 3), (2, 4), (10, 5)] {
            lanes.done(&over);
            assert_eq!((lanes.take(), lanes.take()), (Some(next), None), "in their order");
        }
        for object in [3, 4, 5, 100] {
            lanes.done(&object);
        }
        assert_eq!(all(&mut lanes).len(), 4);
        assert!(lanes.homes.is_empty(), "nothing is kept of a namespace where nothing is done");
    }

    #[test]
    fn whatever_happens_each_call_is_followed_by_a_look() {
        bolero::check!().with_type::<Vec<(u8, u8)>>().with_iterations(2_000).for_each(|acts| {
            // Odd ones live in one namespace, even ones in none.
            let mut lanes = Lanes::new(2, |object: &u32| (object % 2 == 1).then_some("odd"));
            let (mut owed, mut busy) = (BTreeSet::new(), Vec::new());
            for (act, object) in acts {
                let object = u32::from(object % 8);
                match act % 4 {
                    0 | 1 => {
                        lanes.push(object, if act % 4 == 0 { Lane::Due } else { Lane::Changed });
                        owed.insert(object);
                    }
                    2 => {
                        if let Some(object) = lanes.take() {
                            assert!(!busy.contains(&object));
                            owed.remove(&object);
                            busy.push(object);
                        }
                    }
                    _ => {
                        if let Some(object) = busy.pop() {
                            lanes.done(&object);
                        }
                    }
                }
            }
            for object in busy {
                lanes.done(&object);
            }
            assert_eq!(all(&mut lanes).into_iter().collect::<BTreeSet<_>>(), owed);
        });
    }
}
