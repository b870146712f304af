//! One small fact for each object of a kind, and an index of what they can be found by. No I/O.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::watch;

use super::template::Source;

/// Namespace (empty for cluster-scoped kinds) and name.
pub type Key = (Box<str>, Box<str>);

/// What an object can be found by, within its namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Term {
    /// It consumes this.
    Uses(Source),
    /// The object of this kind and name controls it.
    Owner(Box<str>, Box<str>),
    /// Its Pods run as this ServiceAccount and name no pull secrets of their own.
    Account(Box<str>),
}

/// What is kept of an object.
pub trait Fact: Clone + PartialEq {
    /// What it can be found by.
    fn terms(&self) -> Vec<Term> {
        Vec::new()
    }
}

#[derive(Debug)]
struct Inner<F> {
    facts: HashMap<Key, F>,
    /// Namespace and term to names.
    index: HashMap<(Box<str>, Term), BTreeSet<Box<str>>>,
}

impl<F> Default for Inner<F> {
    fn default() -> Self {
        Self { facts: HashMap::new(), index: HashMap::new() }
    }
}

impl<F: Fact> Inner<F> {
    fn put(&mut self, key: Key, fact: F) -> Option<F> {
        let before = self.remove(&key);
        for term in fact.terms() {
            self.index.entry((key.0.clone(), term)).or_default().insert(key.1.clone());
        }
        self.facts.insert(key, fact);
        before
    }

    fn remove(&mut self, key: &Key) -> Option<F> {
        let before = self.facts.remove(key)?;
        for term in before.terms() {
            let place = (key.0.clone(), term);
            if let Some(names) = self.index.get_mut(&place) {
                names.remove(&key.1);
                if names.is_empty() {
                    self.index.remove(&place);
                }
            }
        }
        Some(before)
    }
}

/// The facts of one kind; all clones see the same.
pub struct Facts<F> {
    inner: Arc<RwLock<Inner<F>>>,
    filled: Arc<watch::Sender<bool>>,
}

impl<F> Clone for Facts<F> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), filled: self.filled.clone() }
    }
}

impl<F> Default for Facts<F> {
    fn default() -> Self {
        Self { inner: Arc::default(), filled: Arc::new(watch::Sender::new(false)) }
    }
}

/// Something became another than it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<F> {
    /// Which object.
    pub key: Key,
    /// None: it is new.
    pub before: Option<F>,
    /// None: it is gone.
    pub after: Option<F>,
}

/// So many facts of a list are taken over at a time.
const AT_A_TIME: usize = 500;

impl<F: Fact> Facts<F> {
    fn read<T>(&self, ask: impl FnOnce(&Inner<F>) -> T) -> T {
        ask(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Inner<F>) -> T) -> T {
        change(&mut self.inner.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The fact about one object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<F> {
        self.read(|inner| inner.facts.get(&(namespace.into(), name.into())).cloned())
    }

    /// The objects of a namespace that can be found by `term`.
    pub fn find(&self, namespace: &str, term: Term) -> Vec<(Box<str>, F)> {
        self.read(|inner| {
            let names = inner.index.get(&(namespace.into(), term)).into_iter().flatten();
            names.filter_map(|name| Some((name.clone(), inner.facts.get(&(namespace.into(), name.clone()))?.clone()))).collect()
        })
    }

    /// Goes through all of them.
    pub fn for_each(&self, mut visit: impl FnMut(&Key, &F)) {
        self.read(|inner| inner.facts.iter().for_each(|(key, fact)| visit(key, fact)));
    }

    /// Whether the first list is complete, so that what is not known is not there, as far as the watch has come.
    pub fn is_filled(&self) -> bool {
        *self.filled.borrow()
    }

    /// Returns when the first list is complete.
    pub async fn filled(&self) {
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await; // `self` holds the sender
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.read(|inner| inner.facts.len())
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes one over; None of a fact: it is of no interest. Returns what has changed.
    pub fn put(&self, key: Key, fact: Option<F>) -> Option<Change<F>> {
        let before = self.write(|inner| match &fact {
            Some(fact) => inner.put(key.clone(), fact.clone()),
            None => inner.remove(&key),
        });
        (before != fact).then_some(Change { key, before, after: fact })
    }

    /// Takes a complete list over; `changed` hears of what is new, other or gone. Some at a time, so that what has changed is not there twice as a whole:
    /// of a first list that is everything.
    pub fn replace(&self, listed: HashMap<Key, F>, mut changed: impl FnMut(&Change<F>)) {
        let gone: Vec<Key> = self.read(|inner| inner.facts.keys().filter(|key| !listed.contains_key(*key)).cloned().collect());
        for key in gone {
            let before = self.write(|inner| inner.remove(&key));
            changed(&Change { key, before, after: None });
        }
        self.write(|inner| inner.facts.reserve(listed.len().saturating_sub(inner.facts.len())));
        let mut listed = listed.into_iter();
        loop {
            let some: Vec<(Key, F)> = listed.by_ref().take(AT_A_TIME).collect();
            if some.is_empty() {
                break;
            }
            let put = |inner: &mut Inner<F>, (key, fact): (Key, F)| {
                let is_other = inner.facts.get(&key) != Some(&fact);
                is_other.then(|| Change { before: inner.put(key.clone(), fact.clone()), key, after: Some(fact) })
            };
            let changes: Vec<_> = self.write(|inner| some.into_iter().filter_map(|one| put(inner, one)).collect());
            changes.iter().for_each(&mut changed);
        }
        self.filled.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Fact for Vec<Term> {
        fn terms(&self) -> Vec<Term> {
            self.clone()
        }
    }

    fn key(name: &str) -> Key {
        ("shop".into(), name.into())
    }

    fn account(name: &str) -> Term {
        Term::Account(name.into())
    }

    fn found(facts: &Facts<Vec<Term>>, term: &Term) -> Vec<String> {
        facts.find("shop", term.clone()).into_iter().map(|(name, _)| name.into()).collect()
    }

    #[test]
    fn the_index_follows_every_change() {
        let facts = Facts::<Vec<Term>>::default();
        let (a, b) = (account("a"), account("b"));
        assert!(!facts.is_filled());
        let mut first = 0;
        facts.replace([(key("one"), vec![a.clone(), b.clone()]), (key("two"), vec![a.clone()])].into(), |_| first += 1);
        assert_eq!((first, facts.is_filled()), (2, true));
        assert_eq!(found(&facts, &a), ["one", "two"]);
        assert_eq!(facts.put(key("one"), Some(vec![a.clone(), b.clone()])), None, "the same is no change");
        facts.put(key("one"), Some(vec![b.clone()]));
        assert_eq!((found(&facts, &a), found(&facts, &b)), (vec!["two".to_owned()], vec!["one".to_owned()]));
        assert!(facts.find("other", a.clone()).is_empty(), "a namespace is a wall");
        let mut gone = Vec::new();
        facts.replace([(key("two"), vec![a.clone()])].into(), |change| gone.push(change.clone()));
        assert_eq!(gone, [Change { key: key("one"), before: Some(vec![b.clone()]), after: None }]);
        assert!(found(&facts, &b).is_empty());
        assert!(facts.put(key("two"), None).is_some_and(|change| change.after.is_none()));
        assert_eq!(facts.put(key("two"), None), None);
        assert!(facts.is_empty() && facts.read(|inner| inner.index.is_empty()), "nothing is left behind");
    }
}
