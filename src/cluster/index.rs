//! Who writes which Secret, who reads which, who names which cluster-scoped object: plain data, kept up to date by the watches. No I/O.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Namespace and name.
pub type Key = (String, String);

/// What a resource has to do with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Older ones keep a Secret that two want.
    pub age: (Option<Timestamp>, String),
    /// The Secrets of its namespace that it writes.
    pub writes: Vec<String>,
    /// Those that it reads.
    pub reads: Vec<String>,
    /// The cluster-scoped object (issuer, store) that it names.
    pub names: Option<String>,
    /// What it wants from outside the cluster, in the area's own words.
    pub wants: Vec<String>,
}

impl Entry {
    /// The age of the object of `meta`.
    pub fn age(meta: &ObjectMeta) -> (Option<Timestamp>, String) {
        (meta.creation_timestamp.as_ref().map(|time| time.0), meta.uid.clone().unwrap_or_default())
    }
}

#[derive(Debug)]
struct Known {
    entry: Entry,
    noticed: Instant,
}

/// The index itself; share it as [`Shared`].
#[derive(Debug, Default)]
pub struct Index {
    entries: HashMap<Key, Known>,
    /// (namespace, Secret) to who reads or writes it, in order. Almost always one or two, for which a set would take ten times the room.
    secrets: HashMap<Key, Vec<Key>>,
    /// Names of cluster-scoped objects to who names them.
    named: HashMap<String, BTreeSet<Key>>,
    wanted: HashMap<String, BTreeSet<Key>>,
    /// During a list: what has not come again yet.
    unseen: BTreeSet<Key>,
}

impl Index {
    /// Takes an object in. Returns who else may be touched by it: those who want the same Secrets as it does now or did before.
    pub fn put(&mut self, key: Key, entry: Entry) -> BTreeSet<Key> {
        self.unseen.remove(&key);
        let noticed = Instant::now();
        if let Some(known) = self.entries.get_mut(&key).filter(|known| known.entry == entry) {
            known.noticed = noticed;
            return BTreeSet::new();
        }
        let mut touched = self.remove(&key);
        for secret in entry.writes.iter().chain(&entry.reads) {
            let users = self.secrets.entry((key.0.clone(), secret.clone())).or_default();
            if let Err(place) = users.binary_search(&key) {
                users.reserve_exact(1);
                users.insert(place, key.clone());
            }
        }
        touched.extend(self.rivals(&key.0, &entry));
        if let Some(name) = &entry.names {
            self.named.entry(name.clone()).or_default().insert(key.clone());
        }
        for want in &entry.wants {
            self.wanted.entry(want.clone()).or_default().insert(key.clone());
        }
        touched.remove(&key);
        self.entries.insert(key, Known { entry, noticed });
        touched
    }

    fn entry(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key).map(|known| &known.entry)
    }

    /// Who else wants to write one of the Secrets that `entry` wants to write.
    fn rivals(&self, namespace: &str, entry: &Entry) -> BTreeSet<Key> {
        let users = entry.writes.iter().filter_map(|secret| Some((secret, self.secrets.get(&(namespace.to_owned(), secret.clone()))?)));
        users
            .flat_map(|(secret, users)| {
                users.iter().filter(move |user| self.entry(user).is_some_and(|other| other.writes.contains(secret)))
            })
            .cloned()
            .collect()
    }

    /// Forgets an object. Returns who wanted the same Secrets.
    pub fn remove(&mut self, key: &Key) -> BTreeSet<Key> {
        self.unseen.remove(key);
        let Some(Known { entry, .. }) = self.entries.remove(key) else { return BTreeSet::new() };
        let touched = self.rivals(&key.0, &entry);
        for secret in entry.writes.iter().chain(&entry.reads) {
            let place = (key.0.clone(), secret.clone());
            if let Some(users) = self.secrets.get_mut(&place) {
                users.retain(|user| user != key);
                if users.is_empty() {
                    self.secrets.remove(&place);
                }
            }
        }
        if let Some(name) = &entry.names {
            forget(&mut self.named, name, key);
        }
        for want in &entry.wants {
            forget(&mut self.wanted, want, key);
        }
        touched
    }

    /// A list begins: what does not come again until [`Index::end_list`] is gone.
    pub fn begin_list(&mut self) {
        self.unseen = self.entries.keys().cloned().collect();
    }

    /// A list is complete. Returns who wanted the same Secrets as what is gone, and the cluster-scoped objects that it named.
    pub fn end_list(&mut self) -> (BTreeSet<Key>, BTreeSet<String>) {
        let gone = std::mem::take(&mut self.unseen);
        let named = gone.iter().filter_map(|key| self.named_by(key)).collect();
        (gone.iter().flat_map(|key| self.remove(key)).collect(), named)
    }

    /// Who keeps one of the Secrets that `key` wants to write: the Secret and the older resource's name. None: nobody else wants them.
    pub fn conflict(&self, key: &Key) -> Option<(String, String)> {
        let entry = self.entry(key)?;
        entry.writes.iter().find_map(|secret| {
            let users = self.secrets.get(&(key.0.clone(), secret.clone()))?;
            let older = users
                .iter()
                .filter(|user| *user != key)
                .find(|user| self.entry(user).is_some_and(|other| other.writes.contains(secret) && other.age < entry.age))?;
            Some((secret.clone(), older.1.clone()))
        })
    }

    /// Who reads or writes the Secret.
    pub fn users_of_secret(&self, namespace: &str, name: &str) -> Vec<Key> {
        self.secrets.get(&(namespace.into(), name.into())).into_iter().flatten().cloned().collect()
    }

    /// Who writes the Secret, or wants to.
    pub fn writers_of_secret(&self, namespace: &str, name: &str) -> Vec<Key> {
        let writes = |key: &Key| self.entry(key).is_some_and(|entry| entry.writes.iter().any(|written| written == name));
        self.users_of_secret(namespace, name).into_iter().filter(writes).collect()
    }

    /// Who reads the Secret.
    pub fn readers_of_secret(&self, namespace: &str, name: &str) -> Vec<Key> {
        let reads = |key: &Key| self.entry(key).is_some_and(|entry| entry.reads.iter().any(|read| read == name));
        self.users_of_secret(namespace, name).into_iter().filter(reads).collect()
    }

    /// Who names the cluster-scoped object.
    pub fn users_of(&self, name: &str) -> Vec<Key> {
        self.named.get(name).into_iter().flatten().cloned().collect()
    }

    /// How many name it.
    pub fn count_of_users(&self, name: &str) -> usize {
        self.named.get(name).map_or(0, BTreeSet::len)
    }

    /// The cluster-scoped object that `key` names.
    pub fn named_by(&self, key: &Key) -> Option<String> {
        self.entry(key)?.names.clone()
    }

    /// Who names any.
    pub fn with_name(&self) -> Vec<Key> {
        self.named.values().flatten().cloned().collect()
    }

    /// Who names any from this namespace.
    pub fn with_name_in(&self, namespace: &str) -> Vec<Key> {
        self.named.values().flatten().filter(|key| key.0 == namespace).cloned().collect()
    }

    /// Whether it is there.
    pub fn has(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    /// When its spec, or what is asked for in its annotations, became what it is, as far as this process knows.
    pub fn noticed(&self, key: &Key) -> Option<Instant> {
        self.entries.get(key).map(|known| known.noticed)
    }

    /// How many want this.
    pub fn count_of(&self, want: &str) -> usize {
        self.wanted.get(want).map_or(0, BTreeSet::len)
    }
}

fn forget<T: std::hash::Hash + Eq>(map: &mut HashMap<T, BTreeSet<Key>>, place: &T, key: &Key) {
    if let Some(users) = map.get_mut(place) {
        users.remove(key);
        if users.is_empty() {
            map.remove(place);
        }
    }
}

/// An index that watches write and reconciles read.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<RwLock<Index>>);

impl Shared {
    /// Reads it.
    pub fn read<T>(&self, ask: impl FnOnce(&Index) -> T) -> T {
        ask(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes it.
    pub fn write<T>(&self, change: impl FnOnce(&mut Index) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(index: &mut Index, name: &str, secret: &str, created: &str) -> BTreeSet<Key> {
        let entry = Entry {
            age: (created.parse().ok(), name.into()),
            writes: vec![secret.into(), format!("{secret}-previous")],
            reads: vec!["the-ca".into()],
            names: Some("issuer".into()),
            wants: vec!["remote".into()],
        };
        index.put(key(name), entry)
    }

    fn key(name: &str) -> Key {
        ("shop".into(), name.into())
    }

    #[test]
    fn the_older_one_keeps_a_secret_and_the_younger_hears_when_it_is_free() {
        let mut index = Index::default();
        put(&mut index, "young", "tls", "2026-02-01T00:00:00Z");
        assert_eq!(index.conflict(&key("young")), None);
        assert_eq!(put(&mut index, "old", "tls", "2026-01-01T00:00:00Z"), [key("young")].into());
        assert_eq!(index.conflict(&key("young")), Some(("tls".into(), "old".into())));
        assert_eq!(index.conflict(&key("old")), None);
        assert_eq!(index.remove(&key("old")), [key("young")].into());
        assert_eq!(index.conflict(&key("young")), None);
    }

    #[test]
    fn a_derived_name_is_a_target_too_and_the_uid_decides_between_equals() {
        let mut index = Index::default();
        put(&mut index, "a", "tls", "2026-01-01T00:00:00Z");
        put(&mut index, "b", "tls-previous", "2026-01-01T00:00:00Z");
        assert_eq!(index.conflict(&key("b")), Some(("tls-previous".into(), "a".into())));
        assert_eq!(index.conflict(&key("a")), None);
    }

    #[test]
    fn readers_are_found_and_do_not_conflict() {
        let mut index = Index::default();
        put(&mut index, "a", "tls", "2026-01-01T00:00:00Z");
        put(&mut index, "maker", "the-ca", "2026-02-01T00:00:00Z");
        assert_eq!(index.users_of_secret("shop", "the-ca"), [key("a"), key("maker")]);
        assert_eq!(index.conflict(&key("maker")), None, "to read a Secret is no claim on it");
        assert!(put(&mut index, "another", "another", "2026-03-01T00:00:00Z").is_empty(), "who reads the same CA is not touched");
        assert!(index.remove(&key("another")).is_empty());
        assert!(index.users_of_secret("other", "the-ca").is_empty());
        assert!(index.readers_of_secret("shop", "tls").is_empty(), "only its writer knows it");
        assert_eq!(index.writers_of_secret("shop", "tls"), [key("a")]);
        assert_eq!(index.writers_of_secret("shop", "the-ca"), [key("maker")]);
    }

    #[test]
    fn what_a_list_does_not_show_any_more_is_gone() {
        let mut index = Index::default();
        put(&mut index, "a", "tls", "2026-01-01T00:00:00Z");
        put(&mut index, "b", "tls", "2026-02-01T00:00:00Z");
        assert_eq!((index.count_of("remote"), index.users_of("issuer").len()), (2, 2));
        index.begin_list();
        put(&mut index, "b", "tls", "2026-02-01T00:00:00Z");
        assert!(index.end_list().0.contains(&key("b")));
        assert_eq!(index.conflict(&key("b")), None);
        assert_eq!((index.count_of("remote"), index.users_of("issuer").len()), (1, 1));
        assert!(put(&mut index, "b", "tls", "2026-02-01T00:00:00Z").is_empty(), "what is the same touches nobody");
    }
}
