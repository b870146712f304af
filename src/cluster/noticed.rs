//! What a change wakes: the same for every area that has a namespaced kind which writes Secrets, and a cluster-scoped kind which it names. No I/O.

use std::{collections::BTreeSet, fmt::Debug};

use kube::{
    Resource, ResourceExt,
    runtime::{reflector::Store, watcher},
};

use super::{
    index::{Entry, Index, Key, Shared},
    run::{Guarded, Waker},
};

/// Looks at each of them.
pub fn wake_all<K: Resource<DynamicType = ()>>(waker: &Waker<K>, keys: impl IntoIterator<Item = Key>) {
    for (namespace, name) in keys {
        waker.wake(Some(&namespace), &name);
    }
}

/// Namespace and name of an object.
pub fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Keeps the index; wakes who wanted the same Secrets, and the cluster-scoped object whose count of users changes.
pub fn of_own_kind<K, C>(
    index: Shared,
    waker: Waker<K>,
    named_waker: Option<Waker<C>>,
    entry: fn(&K) -> Entry,
) -> impl Fn(&watcher::Event<Guarded<K>>, bool) + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + Debug + 'static,
    C: Resource<DynamicType = ()> + 'static,
{
    move |event, news| {
        if !news && !matches!(event, watcher::Event::InitApply(_)) {
            return; // only its status
        }
        let mut named = Vec::new(); // before and now
        let touched = index.write(|index| match event {
            watcher::Event::Init => {
                index.begin_list();
                BTreeSet::new()
            }
            watcher::Event::InitDone => {
                let (touched, gone) = index.end_list();
                named.extend(gone);
                touched
            }
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) | watcher::Event::Delete(object) => {
                let key = key(object);
                named.extend(index.named_by(&key));
                let touched = match (event, &object.0) {
                    (watcher::Event::Apply(_) | watcher::Event::InitApply(_), Ok(object)) => index.put(key.clone(), entry(object)),
                    _ => index.remove(&key),
                };
                named.extend(index.named_by(&key));
                touched
            }
        });
        wake_all(&waker, touched);
        for name in named_waker.iter().flat_map(|waker| named.iter().map(move |name| (waker, name))) {
            name.0.wake(None, name.1);
        }
    }
}

/// A cluster-scoped object came, changed or went: who names it is looked at.
pub fn of_named_kind<K, C>(index: Shared, waker: Waker<K>) -> impl Fn(&watcher::Event<Guarded<C>>, bool) + Send + 'static
where
    K: Resource<DynamicType = ()> + 'static,
    C: Resource<DynamicType = ()> + Clone + Debug + 'static,
{
    move |event, news| {
        match event {
            watcher::Event::Apply(_) if !news => {} // only its status
            watcher::Event::Apply(object) | watcher::Event::Delete(object) => {
                wake_all(&waker, index.read(|index| index.users_of(&object.name_any())));
            }
            // A new list: what has changed meanwhile, or is gone, is not told one by one.
            watcher::Event::InitDone => wake_all(&waker, index.read(Index::with_name)),
            watcher::Event::Init | watcher::Event::InitApply(_) => {}
        }
    }
}

/// The cluster-scoped kind that is named, and which Secrets of the operator's namespace each object of it reads.
pub struct Named<C: Resource<DynamicType = ()> + 'static> {
    /// Wakes them.
    pub waker: Waker<C>,
    /// They themselves.
    pub store: Store<Guarded<C>>,
    /// Where the Secrets lie.
    pub operator_namespace: String,
    /// Which.
    pub secrets: fn(&C) -> Vec<String>,
}

/// A Secret came, changed or went: who writes it (unless that was just done: no `news`) or reads it is looked at, through a cluster-scoped object too.
pub fn of_secret<K, C>(
    index: Shared,
    waker: Waker<K>,
    named: Option<Named<C>>,
    news: impl Fn(&str, &str) -> bool + Send + Sync + 'static,
) -> impl Fn(&str, &str) + Send + Sync + 'static
where
    K: Resource<DynamicType = ()> + 'static,
    C: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    move |namespace, name| {
        let news = news(namespace, name);
        wake_all(
            &waker,
            index.read(|index| if news { index.users_of_secret(namespace, name) } else { index.readers_of_secret(namespace, name) }),
        );
        let Some(named) = named.as_ref().filter(|named| *named.operator_namespace == *namespace) else { return };
        for object in named.store.state() {
            if object.0.as_ref().is_ok_and(|object| (named.secrets)(object).iter().any(|secret| secret == name)) {
                named.waker.wake(None, &object.name_any());
                wake_all(&waker, index.read(|index| index.users_of(&object.name_any())));
            }
        }
    }
}
