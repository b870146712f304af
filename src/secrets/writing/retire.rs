//! The versions in the store that a rotation has replaced are retired when the previous values are not kept any longer: disabled or deleted, as the
//! store has it.

use std::collections::BTreeMap;

use kube::ResourceExt;

use super::managed_secret::{self, SecretSlot};
use crate::{
    api::SecretRotation,
    cluster::owner::described,
    ids,
    rollout::stage::Stage,
    secrets::{
        contents::compose::Remote,
        context::{Context, is_current},
        memory::{Memory, Superseded, Versions, hash},
        reading::{
            connection::in_time,
            read::{self, Source},
            resolve::{Resolved, resolve},
        },
        reason::Reason,
        status::{Halt, View},
        store::{Place, Store},
    },
};

/// Those that nobody needs: their time is over, or everybody has the new values, and those before are kept nowhere.
fn due(memory: &Memory) -> Versions {
    let mut versions = memory.versions.clone();
    if memory.previous_since.is_none() && memory.stage == Stage::Complete {
        versions.retire_superseded();
    }
    versions
}

/// A remote key of a certain store, whatever it is opened with: in another one it is another value.
pub fn store_key(resolved: &Resolved, key: &str) -> String {
    format!("{} {key}", ids::short(resolved.spec.location().as_bytes()))
}

/// How a version is noted, so that nobody but us can note one: who may write to the Secret does not say what is retired.
pub fn sign_note(key: &[u8], place: &str, version: &str) -> String {
    format!("{version} {}", hash(key, place, version.as_bytes()))
}

/// The version that was noted. None: not by us.
pub fn verify_note<'a>(key: &[u8], place: &str, note: &'a str) -> Option<&'a str> {
    let (version, _) = note.rsplit_once(' ')?;
    (sign_note(key, place, version) == note).then_some(version)
}

/// What is the current version of what is to be pushed, as far as the store has versions.
pub fn current(rotation: &SecretRotation, resolved: &Resolved, remote: &Remote, hash_key: &[u8]) -> Superseded {
    let pushed = rotation.spec.rotation_pushes().map(|push| &push.remote_ref.key);
    let version = |key: &String| match remote.values.get(&Place { key: key.clone(), version: None })?.as_ref() {
        Ok(stored) => stored.version.clone(),
        Err(_) => None,
    };
    pushed
        .filter_map(|key| {
            let place = store_key(resolved, key);
            let note = sign_note(hash_key, &place, &version(key)?);
            Some((place, [note].into()))
        })
        .collect()
}

/// Retires them, where that is due and the store lets us. A store that is away is asked with the next look.
pub async fn superseded(context: &Context, rotation: &SecretRotation, view: &mut View) -> Result<(), Halt> {
    if due(&view.memory).over.is_empty() || view.plan.is_none_or(|plan| plan.suspended) || rotation.spec.is_push_only() {
        return Ok(());
    }
    let held = managed_secret::read(context, rotation, SecretSlot::Target).await?;
    let Some(meta) = held.meta.as_ref().filter(|_| held.memory.versions == view.memory.versions) else {
        return Ok(());
    };
    is_current(context, rotation).await?;
    let versions = retire_noted(context, rotation, &due(&held.memory)).await?;
    if versions == held.memory.versions {
        return Ok(());
    }
    let mut memory = Memory { versions, ..held.memory.clone() };
    managed_secret::write(context, rotation, meta, (&held.ours(), &mut memory)).await?;
    view.memory = memory;
    Ok(())
}

/// Retires those of `versions` whose time is over; returns what is left to be done.
pub async fn retire_noted(context: &Context, rotation: &SecretRotation, versions: &Versions) -> Result<Versions, Halt> {
    if versions.over.is_empty() {
        return Ok(versions.clone());
    }
    let Some(resolved) = resolve(context.cluster_stores.as_ref(), rotation)? else { return Ok(versions.clone()) };
    let hash_key = context.roller.restarter.key().await?;
    let due = proved((rotation, &resolved), &hash_key, &versions.over);
    let mut left = Superseded::new();
    if !due.is_empty() {
        let source = read::source(context, rotation, resolved).await?;
        for (place, key, note, version) in due {
            if !retire_version(context, rotation, &source, (key, version)).await? {
                left.entry(place.into()).or_default().insert(note.into());
            }
        }
    }
    Ok(Versions { over: left, ..versions.clone() })
}

/// Place, key, note and version of those that are noted. The Secret is not taken at its word: only what this resource pushes, to where it pushes it, and only
/// what was noted by us.
fn proved<'a>(
    (rotation, resolved): (&'a SecretRotation, &Resolved),
    hash_key: &[u8],
    noted: &'a Superseded,
) -> Vec<(&'a str, &'a str, &'a str, &'a str)> {
    let pushed = rotation.spec.rotation_pushes().map(|push| &push.remote_ref.key);
    let keys: BTreeMap<String, &String> = pushed.map(|key| (store_key(resolved, key), key)).collect();
    let mut proved = Vec::new();
    for (place, notes) in noted {
        let Some(key) = keys.get(place) else {
            tracing::warn!(
                object = rotation.name_any(),
                namespace = rotation.namespace(),
                versions = notes.len(),
                "versions that were replaced stay in a store, or under a key, that the spec does not push to any more"
            );
            continue;
        };
        for note in notes {
            let Some(version) = verify_note(hash_key, place, note) else {
                tracing::warn!(
                    object = rotation.name_any(),
                    namespace = rotation.namespace(),
                    key,
                    "a version that is noted to be retired is not proved to be ours (the key in Secret seaworthy-rollout may have been lost) and stays in the store"
                );
                continue;
            };
            proved.push((place.as_str(), key.as_str(), note.as_str(), version));
        }
    }
    proved
}

/// Whether nothing is left to be done about it.
async fn retire_version(context: &Context, rotation: &SecretRotation, source: &Source, (key, version): (&str, &str)) -> Result<bool, Halt> {
    context.writer.check()?;
    let retired = in_time(source.store.retire(key, version)).await;
    source.connection.record(&retired);
    match retired {
        Ok(true) => {
            context.audit.done("retire", &described(rotation), Reason::PreviousOver.as_str(), None);
            Ok(true)
        }
        Ok(false) => Ok(false),
        Err(error) if error.is_store_wide() => Err(read::away(context, rotation, &source.connection, error).into()),
        // It is another right than that of writing.
        Err(error) => {
            tracing::info!(object = rotation.name_any(), namespace = rotation.namespace(), %error, "a version that was replaced is left as it is");
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_noted_ourselves_is_believed() {
        let note = sign_note(b"key", "place", "7");
        assert_eq!(verify_note(b"key", "place", &note), Some("7"));
        for (key, place, note) in [
            (b"other".as_slice(), "place", note.as_str()),
            (b"key", "another place", &note),
            (b"key", "place", "7"),
            (b"key", "place", "7 "),
            (b"key", "place", &note.replace('7', "8")),
        ] {
            assert_eq!(verify_note(key, place, note), None, "{note}");
        }
    }
}
