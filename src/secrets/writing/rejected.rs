//! What was taken back because consumers could not live with it: it is noted with the values, so that it is not tried again by itself, and kept beside
//! what was gone back to.

use std::collections::BTreeSet;

use crate::{
    api::SecretRotation,
    rollout::stage::Stage,
    secrets::{
        contents::{
            compose::{kept_keys, public_keys, texts_with_previous},
            property::Bytes,
        },
        context::Look,
        memory::{Memory, hash, hashes},
        status::Halt,
        store::{MAX_VALUE, SecretData},
    },
};

/// The suffix of a generated value that was taken back, in the Secret with the values that were gone back to.
const SUFFIX: &str = ".rejected";

/// What is hashed for a key that is not there.
const ABSENT: &[u8] = b"\0absent";

/// Whether the values of `memory` were put back, and nobody has changed the spec since.
pub(in crate::secrets) fn is_taken_back(rotation: &SecretRotation, memory: &Memory) -> bool {
    matches!(memory.stage, Stage::RolledBack { generation, .. } if Some(generation) == rotation.metadata.generation)
}

/// What consumers use of it: the previous values are there for who checks signatures, not for who is restarted; and what is public changes with the
/// value that it belongs to, or when the one before goes. `memory`: of where those before are.
pub fn consumed(rotation: &SecretRotation, memory: &Memory, data: &SecretData) -> SecretData {
    let kept = |key: &String| kept_keys(&rotation.spec, memory).chain(public_keys(&rotation.spec)).any(|beside| beside == *key);
    data.iter().filter(|(key, _)| !kept(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The part of `data` by which it is judged whether it was taken back: not texts that change when a previous value goes, which are made of what stands
/// beside them.
pub fn judged(rotation: &SecretRotation, memory: &Memory, data: &SecretData) -> SecretData {
    let mut data = consumed(rotation, memory, data);
    for text in texts_with_previous(&rotation.spec, memory) {
        data.remove(text.key);
    }
    data
}

/// Notes in `back`, which is remembered with `before`, that `data` was taken back.
pub fn note(key: &[u8], (data, before): (&SecretData, &SecretData), back: &mut Memory) {
    let other = data.iter().filter(|(name, value)| before.get(*name) != Some(*value)).map(|(name, value)| hash(key, name, value));
    let absent = before.keys().filter(|name| !data.contains_key(*name)).map(|name| hash(key, name, ABSENT));
    back.rejected = other.chain(absent).collect();
    back.tried = vec![fingerprint(key, data)];
}

/// Whether the Secret is not to be made of this, because it was taken back, or because it is what the roll-back has left of that in the store. The latter
/// is what the first look after a roll-back would make, and is noted in `memory`: something else is another try.
pub(super) async fn is_rejected(look: Look<'_>, data: &SecretData, memory: &mut Memory) -> Result<bool, Halt> {
    let Look { context, rotation, held, .. } = look;
    if !is_taken_back(rotation, &held.memory) {
        return Ok(false);
    }
    let key = context.roller.restarter.key().await?;
    let new = judged(rotation, memory, data);
    let fingerprint = fingerprint(&key, &new);
    if memory.tried.len() == 1 {
        memory.tried.push(fingerprint.clone());
    }
    let rejected = &held.memory.rejected;
    let before = held.memory.values.keys().map(|name| (name.clone(), Bytes::default())).collect();
    let before = judged(rotation, &held.memory, &before);
    let mut removed = before.keys().filter(|name| !new.contains_key(*name));
    let holds_some = has_any(&key, &new, rejected) || removed.any(|name| rejected.contains(&hash(&key, name, ABSENT)));
    Ok(holds_some && memory.tried.contains(&fingerprint))
}

/// Whether any of the values was taken back.
pub fn has_any(key: &[u8], data: &SecretData, rejected: &BTreeSet<String>) -> bool {
    data.iter().any(|(name, value)| rejected.contains(&hash(key, name, value)))
}

/// Generated values of `data` that are others than those of `before`, under the names by which they are kept beside these; none if there is no room for
/// them.
pub fn kept(rotation: &SecretRotation, (data, before): (&SecretData, &SecretData)) -> SecretData {
    let generated = rotation.spec.generators().map(|generate| &generate.secret_key);
    let other = |name: &&String| data.get(*name) != before.get(*name);
    let kept: SecretData = generated.filter(other).filter_map(|name| Some((format!("{name}{SUFFIX}"), data.get(name)?.clone()))).collect();
    let bytes: usize = before.iter().chain(&kept).map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_VALUE / 2 { SecretData::new() } else { kept }
}

fn fingerprint(key: &[u8], data: &SecretData) -> String {
    hash(key, "", &serde_json::to_vec(&hashes(key, data)).unwrap_or_default())
}
