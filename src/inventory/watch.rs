//! Follows one kind and keeps one small fact for each object.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, PoisonError, RwLock},
};

use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Resource,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::cluster::run::PAGE_SIZE;

/// Namespace (empty for cluster-scoped kinds) and name.
pub type Key = (Box<str>, Box<str>);

/// The facts of one kind; all clones see the same.
pub struct Facts<F> {
    map: Arc<RwLock<HashMap<Key, F>>>,
    filled: Arc<watch::Sender<bool>>,
}

impl<F> Clone for Facts<F> {
    fn clone(&self) -> Self {
        Self { map: self.map.clone(), filled: self.filled.clone() }
    }
}

impl<F> Default for Facts<F> {
    fn default() -> Self {
        Self { map: Arc::default(), filled: Arc::new(watch::Sender::new(false)) }
    }
}

impl<F: Clone + PartialEq> Facts<F> {
    /// The fact about one object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<F> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).get(&(namespace.into(), name.into())).cloned()
    }

    /// Returns when the first list is complete.
    pub async fn filled(&self) {
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await; // `self` holds the sender
    }

    /// Whether the first list is complete, so that what is not known is not there, as far as the watch has come.
    pub fn is_filled(&self) -> bool {
        *self.filled.borrow()
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.map.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Watches `K` and keeps `fact` of each object; `changed` hears of each one whose fact is new, other or gone. Runs until it is dropped.
    pub async fn follow<K>(self, api: Api<PartialObjectMeta<K>>, fact: fn(&PartialObjectMeta<K>) -> F, changed: impl Fn(&Key))
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let config = watcher::Config::default().any_semantic().page_size(PAGE_SIZE);
        let mut said = String::new();
        let events = watcher(api, config).default_backoff().inspect_err(move |error| {
            let text = error.to_string();
            if said != text {
                tracing::warn!(kind = %K::kind(&()), %error, "the watch was interrupted; it is tried again");
                said = text;
            }
        });
        futures::pin_mut!(events);
        let mut listed: Option<HashMap<Key, F>> = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed = Some(HashMap::new()),
                Ok(watcher::Event::InitApply(object)) => {
                    if let Some(listed) = &mut listed {
                        listed.insert(key(&object), fact(&object));
                    }
                }
                Ok(watcher::Event::InitDone) => {
                    for key in self.replace(listed.take().unwrap_or_default()) {
                        changed(&key);
                    }
                    self.filled.send_replace(true);
                }
                Ok(watcher::Event::Apply(object)) => {
                    let (key, fact) = (key(&object), fact(&object));
                    if self.map.write().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), fact.clone()).as_ref() != Some(&fact) {
                        changed(&key);
                    }
                }
                Ok(watcher::Event::Delete(object)) => {
                    let key = key(&object);
                    self.map.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
                    changed(&key);
                }
                Err(_) => {} // said above; the watcher starts again by itself
            }
        }
    }

    /// Takes a complete list over; returns what is new, other or gone.
    fn replace(&self, mut listed: HashMap<Key, F>) -> Vec<Key> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        listed.shrink_to_fit();
        let old = std::mem::replace(&mut *map, listed);
        let gone = old.keys().filter(|key| !map.contains_key(*key)).cloned();
        gone.chain(map.iter().filter(|(key, fact)| old.get(*key) != Some(*fact)).map(|(key, _)| key.clone())).collect()
    }
}

fn key<K>(object: &PartialObjectMeta<K>) -> Key {
    let meta = &object.metadata;
    (meta.namespace.as_deref().unwrap_or_default().into(), meta.name.as_deref().unwrap_or_default().into())
}
