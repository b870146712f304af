//! Follows one kind and keeps one fact for each of its objects. The objects themselves are dropped as soon as they were read.

use std::{collections::HashMap, fmt::Debug};

use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;

use super::facts::{Change, Fact, Facts, Key};

/// How many objects are listed at a time: with Pods of several kilobytes, what one page takes is small beside what is kept.
const PAGE_SIZE: u32 = 100;

/// What is followed, for who reads the log.
#[derive(Clone, Copy, Debug)]
pub struct Followed {
    /// The kind.
    pub kind: &'static str,
    /// Whether it may be absent from a cluster.
    pub optional: bool,
}

impl<F: Fact> Facts<F> {
    /// Follows a kind and keeps `fact` of each object; None: it is of no interest. `changed` hears of each one whose fact is new, other or gone.
    /// Runs until it is dropped, through every error.
    pub async fn follow<K>(self, api: Api<K>, what: Followed, fact: impl Fn(&K) -> Option<F>, changed: impl Fn(&Change<F>))
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        // Page by page from the newest state: a list of "any" version comes in one piece from older API servers.
        let config = watcher::Config::default().page_size(PAGE_SIZE);
        let mut said = String::new();
        let events = watcher(api, config).default_backoff().inspect_err(move |error| {
            let text = error.to_string();
            if said != text && what.optional {
                tracing::debug!(kind = what.kind, %error, "not watched; it may not be installed");
            } else if said != text {
                tracing::warn!(kind = what.kind, %error, "the watch was interrupted; it is tried again");
            }
            said = text;
        });
        futures::pin_mut!(events);
        let mut listed = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed = HashMap::new(),
                Ok(watcher::Event::InitApply(object)) => {
                    if let Some(fact) = fact(&object) {
                        listed.insert(key(&object), fact);
                    }
                }
                Ok(watcher::Event::InitDone) => self.replace(std::mem::take(&mut listed), &changed),
                Ok(watcher::Event::Apply(object)) => self.put(key(&object), fact(&object)).iter().for_each(&changed),
                Ok(watcher::Event::Delete(object)) => self.put(key(&object), None).iter().for_each(&changed),
                // Said above; the watcher starts again by itself. What may be absent is waited for by nobody.
                Err(_) if what.optional && !self.is_filled() => self.replace(HashMap::new(), |_| {}),
                Err(_) => {}
            }
        }
    }
}

fn key<K: Resource>(object: &K) -> Key {
    let meta = object.meta();
    (meta.namespace.as_deref().unwrap_or_default().into(), meta.name.as_deref().unwrap_or_default().into())
}
