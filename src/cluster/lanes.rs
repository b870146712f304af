//! What is looked at next, in two lanes: what a person has just changed goes before what is due by the clock or because something else changed,
//! so that a thousand renewals do not hold up the one that somebody waits for. And the namespace of which least is being looked at goes before others, and
//! none takes more than half of the places that others leave: what the server of a tenant that never answers holds up is the tenant's, and of several tenants
//! together not everybody. Pure.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
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
    /// So many are looked at at a time.
    places: usize,
    /// Where an object lives; None: in no namespace, and there may be any number.
    home: fn(&T) -> Option<&str>,
    /// By namespace; what lives in none is under the empty name.
    homes: HashMap<String, Home<T>>,
    /// Who is next in each lane.
    due: BTreeSet<Turn>,
    changed: BTreeSet<Turn>,
    /// In which lane each one waits. One that changed lanes has an entry left in the other that counts no more.
    waiting: HashMap<T, Lane>,
    /// What is being looked at, and where it goes afterwards because it was called for again.
    busy: HashMap<T, Option<Lane>>,
    turn: u32,
    calls: u64,
}

/// How many of a namespace are being looked at, since when its first object waits, and its name.
type Turn = (usize, u64, String);

/// A namespace of which something waits or is being looked at.
#[derive(Debug)]
struct Home<T> {
    busy: usize,
    due: Queue<T>,
    changed: Queue<T>,
}

/// What waits, in its order.
#[derive(Debug)]
struct Queue<T> {
    objects: VecDeque<(u64, T)>,
    /// Its place among those of other namespaces.
    turn: Option<Turn>,
}

impl<T> Home<T> {
    fn new() -> Self {
        let queue = || Queue { objects: VecDeque::new(), turn: None };
        Self { busy: 0, due: queue(), changed: queue() }
    }

    fn of(&mut self, lane: Lane) -> &mut Queue<T> {
        match lane {
            Lane::Changed => &mut self.changed,
            Lane::Due => &mut self.due,
        }
    }
}

impl<T: Clone + Eq + Hash> Lanes<T> {
    /// For so many places.
    pub fn new(places: usize, home: fn(&T) -> Option<&str>) -> Self {
        Self {
            places,
            home,
            homes: HashMap::new(),
            due: BTreeSet::new(),
            changed: BTreeSet::new(),
            waiting: HashMap::new(),
            busy: HashMap::new(),
            turn: 0,
            calls: 0,
        }
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
        let name = self.name(&object);
        self.waiting.insert(object.clone(), lane);
        self.calls += 1;
        self.homes.entry(name.clone()).or_insert_with(Home::new).of(lane).objects.push_back((self.calls, object));
        self.settle(&name);
    }

    fn name(&self, object: &T) -> String {
        (self.home)(object).unwrap_or_default().to_owned()
    }

    /// Takes the next one; until [`Lanes::done`] it is not handed out again.
    pub fn take(&mut self) -> Option<T> {
        let turn = self.turn.wrapping_add(1);
        let order = if turn.is_multiple_of(SHARE) { [Lane::Due, Lane::Changed] } else { [Lane::Changed, Lane::Due] };
        let (lane, name) = order.into_iter().find_map(|lane| Some((lane, self.next(lane)?)))?;
        let home = self.homes.get_mut(&name)?;
        let (_, object) = home.of(lane).objects.pop_front()?;
        home.busy += 1;
        // What is due and had no place has its turn with the next one.
        if order[0] == lane || lane == Lane::Due || self.due.is_empty() {
            self.turn = turn;
        }
        self.waiting.remove(&object);
        self.busy.insert(object.clone(), None);
        self.settle(&name);
        Some(object)
    }

    /// The namespace of which least is being looked at, and of those the one that waits longest; if it may have one more: as many places are free as it
    /// has, and one.
    fn next(&self, lane: Lane) -> Option<String> {
        let turns = match lane {
            Lane::Changed => &self.changed,
            Lane::Due => &self.due,
        };
        let free = self.places.saturating_sub(self.busy.len());
        turns.first().filter(|(busy, ..)| free > *busy).map(|(.., name)| name.clone())
    }

    /// Puts a namespace where it belongs now among the others.
    fn settle(&mut self, name: &str) {
        let Some(home) = self.homes.get_mut(name) else { return };
        let busy = if name.is_empty() { 0 } else { home.busy };
        for (lane, turns) in [(Lane::Due, &mut self.due), (Lane::Changed, &mut self.changed)] {
            let queue = home.of(lane);
            // What was moved to the other lane meanwhile waits there.
            while queue.objects.front().is_some_and(|(_, object)| self.waiting.get(object) != Some(&lane)) {
                queue.objects.pop_front();
            }
            let turn = queue.objects.front().map(|(since, _)| (busy, *since, name.to_owned()));
            if queue.turn != turn {
                queue.turn.take().map(|before| turns.remove(&before));
                turns.extend(turn.clone());
                queue.turn = turn;
            }
        }
        if home.busy == 0 && home.due.objects.is_empty() && home.changed.objects.is_empty() {
            self.homes.remove(name); // nothing is kept of a namespace where nothing is done
        }
    }

    /// The look is over. Whether it was called for again meanwhile: then it waits already.
    pub fn done(&mut self, object: &T) -> bool {
        let Some(again) = self.busy.remove(object) else { return false };
        let name = self.name(object);
        if let Some(home) = self.homes.get_mut(&name) {
            home.busy = home.busy.saturating_sub(1);
        }
        self.settle(&name);
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
    fn several_namespaces_together_leave_places_to_others() {
        let mut lanes = Lanes::new(8, |object: &u32| Some(["a", "b", "c", "d", "e"][*object as usize / 100]));
        for object in (0..20).chain(100..120).chain(200..220) {
            lanes.push(object, Lane::Due);
        }
        let taken: Vec<u32> = std::iter::from_fn(|| lanes.take()).collect();
        assert_eq!(taken, [0, 100, 200, 1, 101, 201], "who has least is next, and the last places are for others");
        lanes.push(300, Lane::Due);
        lanes.push(400, Lane::Due);
        assert_eq!((lanes.take(), lanes.take(), lanes.take()), (Some(300), Some(400), None), "who comes then has a place");
        for object in taken.into_iter().chain([300, 400]) {
            lanes.done(&object);
        }
        assert_eq!(all(&mut lanes).len(), 54);
        assert!(lanes.homes.is_empty() && lanes.due.is_empty() && lanes.changed.is_empty());
    }

    #[test]
    fn a_long_row_of_one_namespace_does_not_hold_up_another() {
        let mut lanes = Lanes::new(2, |object: &u32| Some(if *object < 100 { "many" } else { "one" }));
        for object in 0..50 {
            lanes.push(object, Lane::Due);
        }
        lanes.push(100, Lane::Due);
        assert_eq!((lanes.take(), lanes.take(), lanes.take()), (Some(0), Some(100), None));
    }

    #[test]
    fn asking_in_vain_costs_no_turn() {
        let mut lanes = Lanes::new(1, |_: &u32| None);
        for object in 0..8 {
            lanes.push(object, if object < 4 { Lane::Due } else { Lane::Changed });
        }
        let mut order = Vec::new();
        while let Some(object) = lanes.take() {
            assert_eq!(lanes.take(), None);
            lanes.done(&object);
            order.push(object);
        }
        assert_eq!(order, [4, 5, 6, 0, 7, 1, 2, 3]);
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
