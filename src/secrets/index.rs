//! What a SecretRotation has to do with others. Pure.

use std::collections::BTreeSet;

use kube::ResourceExt;

use super::store::{Place, Store};
pub use crate::cluster::index::Key;
use crate::{
    api::{
        SecretRotation,
        secret_rotation::{Find, SecretRotationSpec},
    },
    cluster::index::Entry,
    ids,
};

/// The suffix of the Secret with values that are on their way.
pub const PENDING: &str = "-pending";
/// The suffix of the Secret with the previous values, while others are being delivered.
pub const PREVIOUS: &str = "-previous";
/// The suffix of the Secret with generated values that were taken back.
pub const REJECTED: &str = "-rejected";

/// For the index.
pub fn entry(rotation: &SecretRotation) -> Entry {
    let (spec, scope) = (&rotation.spec, scope(rotation));
    let name = &spec.target.name;
    // A Secret whose values are only pushed may be anybody's.
    let reads_target = spec.is_push_only().then(|| name.clone());
    let beside = [
        (spec.restart.is_some(), PREVIOUS),
        (spec.rotation.is_some(), PENDING),
        (spec.restart.is_some() && spec.rotation.is_some(), REJECTED),
    ];
    let beside = beside.into_iter().filter(|(wanted, _)| *wanted).map(|(_, suffix)| format!("{name}{suffix}"));
    let writes = reads_target.is_none().then(|| name.clone()).into_iter().chain(beside).collect();
    let places = places(spec);
    let read = spec.store.iter().filter(|store| store.is_own_namespace()).flat_map(|_| places.iter().map(|place| place.key.clone()));
    Entry {
        age: Entry::age(&rotation.metadata),
        writes,
        reads: spec.store.iter().flat_map(Store::secrets).chain(read).chain(reads_target).collect(),
        names: spec.store_ref.as_ref().map(|reference| reference.name.clone()),
        // What is suspended takes nothing; others are not to wait for it.
        wants: places
            .iter()
            .map(|place| reads_value(&scope, place))
            .chain(pushed_keys(spec).map(|key| reads_to_push(&scope, key)))
            .chain(finds(spec).map(|find| reads_found(&scope, find)))
            .filter(|_| !spec.suspend)
            .collect(),
    }
}

/// Whose store it is: two resources of one scope ask the same store with the same credentials.
pub fn scope(rotation: &SecretRotation) -> String {
    match (&rotation.spec.store_ref, &rotation.spec.store) {
        (Some(reference), _) => scope_of(&reference.name),
        (None, Some(store)) => {
            let spec = serde_json::to_string(store).unwrap_or_default();
            format!("{}/{}", rotation.namespace().unwrap_or_default(), ids::hash(spec.as_bytes()))
        }
        (None, None) => String::new(),
    }
}

/// The scope of a SecretStore.
pub fn scope_of(name: &str) -> String {
    format!("SecretStore/{name}")
}

/// Names a value of a store, for the index of who reads what.
pub fn reads_value(scope: &str, place: &Place) -> String {
    format!("{scope} {} {}", place.key, place.version.as_deref().unwrap_or_default())
}

/// The same for a value that is compared with what is pushed there: a resource that reads it, too, takes it twice.
pub fn reads_to_push(scope: &str, key: &str) -> String {
    format!("{scope} push {key}")
}

/// The same for what `find` looks for.
pub fn reads_found(scope: &str, find: &Find) -> String {
    format!("{scope} find {}", serde_json::to_string(find).unwrap_or_default())
}

/// What a spec looks for.
pub fn finds(spec: &SecretRotationSpec) -> impl Iterator<Item = &Find> {
    spec.data_from.iter().filter_map(|from| from.find.as_ref())
}

/// The remote keys that `spec.push` is compared with.
pub fn pushed_keys(spec: &SecretRotationSpec) -> impl Iterator<Item = &String> {
    spec.push.iter().map(|push| &push.remote_ref.key)
}

/// The remote keys and `find` queries that decide when a spec is refreshed. Times come from a hash of each, so that all who read a key do so together.
pub fn refresh_keys(spec: &SecretRotationSpec) -> BTreeSet<String> {
    let mut words: BTreeSet<String> =
        places(spec).into_iter().map(|place| place.key).chain(pushed_keys(spec).cloned()).chain(finds(spec).map(find_key)).collect();
    if words.is_empty() {
        words.insert(spec.target.name.clone()); // nothing is shared
    }
    words
}

/// Names a `find` query, whatever store it is asked of.
pub fn find_key(find: &Find) -> String {
    reads_found("", find)
}

/// The values that a spec names, each once; not what `find` finds.
pub fn places(spec: &SecretRotationSpec) -> BTreeSet<Place> {
    let place = |key: &String, version: &Option<String>| Place { key: key.clone(), version: version.clone() };
    let data = spec.data.iter().map(|data| place(&data.remote_ref.key, &data.remote_ref.version));
    let extracted = spec.data_from.iter().filter_map(|from| from.extract.as_ref()).map(|remote| place(&remote.key, &remote.version));
    let pushed = spec.rotation_pushes().map(|push| place(&push.remote_ref.key, &None));
    data.chain(extracted).chain(pushed).collect()
}
