//! Who writes which Secret, who reads which, who names which issuer: plain data, kept up to date by the watches. No I/O.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use jiff::Timestamp;

use super::issuer::Issuer;
use crate::api::CertificateRotation;

/// Namespace and name.
pub type Key = (String, String);

/// The suffix of the Secret with the previous pair.
pub const PREVIOUS: &str = "-previous";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// Older ones keep a Secret that two want.
    age: (Option<Timestamp>, String),
    writes: Vec<String>,
    reads: Vec<String>,
    issuer: Option<String>,
}

/// The index itself; share it as [`Shared`].
#[derive(Debug, Default)]
pub struct Index {
    entries: HashMap<Key, Entry>,
    /// (namespace, Secret) to who reads or writes it.
    secrets: HashMap<Key, BTreeSet<Key>>,
    issuers: HashMap<String, BTreeSet<Key>>,
    /// During a list: what has not come again yet.
    unseen: BTreeSet<Key>,
}

/// The Secrets that a rotation writes.
pub fn targets(rotation: &CertificateRotation) -> Vec<String> {
    vec![rotation.spec.secret_name.clone(), format!("{}{PREVIOUS}", rotation.spec.secret_name)]
}

/// The Secrets that it reads: its issuer's, and the client certificate of its handshakes.
fn reads(rotation: &CertificateRotation) -> Vec<String> {
    let client = rotation.spec.verify.iter().filter_map(|verify| verify.tls.as_ref()?.client_secret_name.clone());
    rotation.spec.issuer.iter().flat_map(Issuer::secrets).chain(client).collect()
}

impl Index {
    /// Takes an object in. Returns who else may be touched by it: those who want the same Secrets as it does now or did before.
    pub fn put(&mut self, rotation: &CertificateRotation) -> BTreeSet<Key> {
        let meta = &rotation.metadata;
        let key = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        self.unseen.remove(&key);
        let entry = Entry {
            age: (meta.creation_timestamp.as_ref().map(|time| time.0), meta.uid.clone().unwrap_or_default()),
            writes: targets(rotation),
            reads: reads(rotation),
            issuer: rotation.spec.issuer_ref.as_ref().map(|reference| reference.name.clone()),
        };
        if self.entries.get(&key) == Some(&entry) {
            return BTreeSet::new();
        }
        let mut touched = self.remove(&key);
        for secret in entry.writes.iter().chain(&entry.reads) {
            self.secrets.entry((key.0.clone(), secret.clone())).or_default().insert(key.clone());
        }
        touched.extend(self.rivals(&key.0, &entry));
        if let Some(issuer) = &entry.issuer {
            self.issuers.entry(issuer.clone()).or_default().insert(key.clone());
        }
        self.entries.insert(key.clone(), entry);
        touched.remove(&key);
        touched
    }

    /// Who else wants to write one of the Secrets that `entry` wants to write.
    fn rivals(&self, namespace: &str, entry: &Entry) -> BTreeSet<Key> {
        let users = entry.writes.iter().filter_map(|secret| Some((secret, self.secrets.get(&(namespace.to_owned(), secret.clone()))?)));
        users
            .flat_map(|(secret, users)| {
                users.iter().filter(move |user| self.entries.get(*user).is_some_and(|other| other.writes.contains(secret)))
            })
            .cloned()
            .collect()
    }

    /// Forgets an object. Returns who wanted the same Secrets.
    pub fn remove(&mut self, key: &Key) -> BTreeSet<Key> {
        self.unseen.remove(key);
        let Some(entry) = self.entries.remove(key) else { return BTreeSet::new() };
        let touched = self.rivals(&key.0, &entry);
        for secret in entry.writes.iter().chain(&entry.reads) {
            let place = (key.0.clone(), secret.clone());
            if let Some(users) = self.secrets.get_mut(&place) {
                users.remove(key);
                if users.is_empty() {
                    self.secrets.remove(&place);
                }
            }
        }
        if let Some(issuer) = entry.issuer
            && let Some(users) = self.issuers.get_mut(&issuer)
        {
            users.remove(key);
            if users.is_empty() {
                self.issuers.remove(&issuer);
            }
        }
        touched
    }

    /// A list begins: what does not come again until [`Index::end_list`] is gone.
    pub fn begin_list(&mut self) {
        self.unseen = self.entries.keys().cloned().collect();
    }

    /// A list is complete. Returns who wanted the same Secrets as what is gone, and the CertificateIssuers that it named.
    pub fn end_list(&mut self) -> (BTreeSet<Key>, BTreeSet<String>) {
        let gone = std::mem::take(&mut self.unseen);
        let issuers = gone.iter().filter_map(|key| self.issuer_of(key)).collect();
        (gone.iter().flat_map(|key| self.remove(key)).collect(), issuers)
    }

    /// Who keeps one of the Secrets that `key` wants to write: the Secret and the older resource's name. None: nobody else wants them.
    pub fn conflict(&self, key: &Key) -> Option<(String, String)> {
        let entry = self.entries.get(key)?;
        entry.writes.iter().find_map(|secret| {
            let users = self.secrets.get(&(key.0.clone(), secret.clone()))?;
            let older = users
                .iter()
                .filter(|user| *user != key)
                .find(|user| self.entries.get(*user).is_some_and(|other| other.writes.contains(secret) && other.age < entry.age))?;
            Some((secret.clone(), older.1.clone()))
        })
    }

    /// Who reads or writes the Secret.
    pub fn users_of_secret(&self, namespace: &str, name: &str) -> Vec<Key> {
        self.secrets.get(&(namespace.into(), name.into())).into_iter().flatten().cloned().collect()
    }

    /// Who writes the Secret, or wants to.
    pub fn writers_of_secret(&self, namespace: &str, name: &str) -> Vec<Key> {
        let writes = |key: &Key| self.entries.get(key).is_some_and(|entry| entry.writes.iter().any(|written| written == name));
        self.users_of_secret(namespace, name).into_iter().filter(writes).collect()
    }

    /// Who reads the Secret.
    pub fn readers_of_secret(&self, namespace: &str, name: &str) -> Vec<Key> {
        let reads = |key: &Key| self.entries.get(key).is_some_and(|entry| entry.reads.iter().any(|read| read == name));
        self.users_of_secret(namespace, name).into_iter().filter(reads).collect()
    }

    /// Who names the CertificateIssuer.
    pub fn users_of_issuer(&self, name: &str) -> Vec<Key> {
        self.issuers.get(name).into_iter().flatten().cloned().collect()
    }

    /// The CertificateIssuer that `key` names.
    pub fn issuer_of(&self, key: &Key) -> Option<String> {
        self.entries.get(key)?.issuer.clone()
    }

    /// Who names any CertificateIssuer.
    pub fn with_issuer(&self) -> Vec<Key> {
        self.issuers.values().flatten().cloned().collect()
    }

    /// Who names any CertificateIssuer from this namespace.
    pub fn with_issuer_in(&self, namespace: &str) -> Vec<Key> {
        self.issuers.values().flatten().filter(|key| key.0 == namespace).cloned().collect()
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
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn rotation(name: &str, secret: &str, created: &str) -> CertificateRotation {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "seaworthy.dev/v1alpha1", "kind": "CertificateRotation",
            "metadata": {"namespace": "shop", "name": name, "uid": name, "creationTimestamp": created},
            "spec": {"secretName": secret, "dnsNames": ["a"], "issuer": {"ca": {"secretName": "the-ca"}}},
        }))
        .unwrap()
    }

    fn key(name: &str) -> Key {
        ("shop".into(), name.into())
    }

    #[test]
    fn the_older_one_keeps_a_secret_and_the_younger_hears_when_it_is_free() {
        let mut index = Index::default();
        index.put(&rotation("young", "tls", "2026-02-01T00:00:00Z"));
        assert_eq!(index.conflict(&key("young")), None);
        assert_eq!(index.put(&rotation("old", "tls", "2026-01-01T00:00:00Z")), [key("young")].into());
        assert_eq!(index.conflict(&key("young")), Some(("tls".into(), "old".into())));
        assert_eq!(index.conflict(&key("old")), None);
        assert_eq!(index.remove(&key("old")), [key("young")].into());
        assert_eq!(index.conflict(&key("young")), None);
    }

    #[test]
    fn a_derived_name_is_a_target_too_and_the_uid_decides_between_equals() {
        let mut index = Index::default();
        index.put(&rotation("a", "tls", "2026-01-01T00:00:00Z"));
        index.put(&rotation("b", "tls-previous", "2026-01-01T00:00:00Z"));
        assert_eq!(index.conflict(&key("b")), Some(("tls-previous".into(), "a".into())));
        assert_eq!(index.conflict(&key("a")), None);
    }

    #[test]
    fn readers_are_found_and_do_not_conflict() {
        let mut index = Index::default();
        index.put(&rotation("a", "tls", "2026-01-01T00:00:00Z"));
        index.put(&rotation("maker", "the-ca", "2026-02-01T00:00:00Z"));
        assert_eq!(index.users_of_secret("shop", "the-ca"), [key("a"), key("maker")]);
        assert_eq!(index.conflict(&key("maker")), None, "to read a Secret is no claim on it");
        assert!(index.put(&rotation("another", "another", "2026-03-01T00:00:00Z")).is_empty(), "who reads the same CA is not touched");
        assert!(index.remove(&key("another")).is_empty());
        assert!(index.users_of_secret("other", "the-ca").is_empty());
        assert!(index.readers_of_secret("shop", "tls").is_empty(), "only its writer knows it");
        assert_eq!(index.writers_of_secret("shop", "tls"), [key("a")]);
        assert_eq!(index.writers_of_secret("shop", "the-ca"), [key("maker")]);
    }

    #[test]
    fn what_a_list_does_not_show_any_more_is_gone() {
        let mut index = Index::default();
        let (a, b) = (rotation("a", "tls", "2026-01-01T00:00:00Z"), rotation("b", "tls", "2026-02-01T00:00:00Z"));
        index.put(&a);
        index.put(&b);
        index.begin_list();
        index.put(&b);
        assert!(index.end_list().0.contains(&key("b")));
        assert_eq!(index.conflict(&key("b")), None);
        assert!(index.put(&b).is_empty(), "what is the same touches nobody");
    }
}
