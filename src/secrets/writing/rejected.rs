//! What was taken back because consumers could not live with it: it is noted with the values, so that it is not tried again by itself, and kept in a Secret
//! of its own, because who had moved to it may have used it.

use std::collections::BTreeSet;

use kube::ResourceExt;

use super::managed_secret::{self, SecretSlot};
use crate::{
    api::SecretRotation,
    cluster::apply::WriteError,
    rollout::stage::Stage,
    secrets::{
        contents::{
            compose::{kept_keys, previous_keys, public_keys, texts_with_previous},
            template,
        },
        context::{Context, Look},
        memory::{Memory, hash, hashes},
        reason::Reason,
        status::Halt,
        store::SecretData,
    },
};

/// Whether the values of `memory` were put back, and nobody has changed the spec since, or asks for another try where nothing is generated.
pub(in crate::secrets) fn is_taken_back(look: Look<'_>, memory: &Memory) -> bool {
    let asks = look.rotation.spec.rotation.is_none() && look.facts.plan.read == Some(Reason::Requested);
    matches!(memory.stage, Stage::RolledBack { generation, .. } if Some(generation) == look.rotation.metadata.generation) && !asks
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

/// The part of `data` that is known before it is made anew: not texts that name a generated value, or what goes with one. Those are made of what stands
/// beside them.
fn foreseeable(rotation: &SecretRotation, data: &SecretData) -> SecretData {
    let spec = &rotation.spec;
    let generated = spec.generators().map(|generate| generate.secret_key.clone());
    let generated: BTreeSet<String> =
        generated.chain(public_keys(spec)).chain(previous_keys(spec)).map(|key| template::variable(&key)).collect();
    let is_of_one = |text: &str| template::variables_used(text).is_none_or(|named| named.iter().any(|name| generated.contains(name)));
    let texts = spec.template.iter().flat_map(|template| &template.data);
    let left_out: BTreeSet<&String> = texts.filter(|(_, text)| is_of_one(&text.0)).map(|(name, _)| name).collect();
    data.iter().filter(|(name, _)| !left_out.contains(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Notes in `back`, which is remembered with `before`, that what consumers used of `data` was taken back, which stood with `memory`. `left`: what the store
/// has of it now, with what was put back.
pub fn note(
    (rotation, key): (&SecretRotation, &[u8]),
    ((data, left), memory): ((&SecretData, &SecretData), &Memory),
    before: &SecretData,
    back: &mut Memory,
) {
    let used = |data: &SecretData| consumed(rotation, memory, data);
    let (data, left, before) = (used(data), used(left), consumed(rotation, back, before));
    let other = data.iter().filter(|(name, value)| before.get(*name) != Some(*value)).map(|(name, value)| hash(key, name, value));
    back.rejected = other.collect();
    back.tried = [&data, &left].map(|data| fingerprint((rotation, key), data, memory)).into();
}

/// What a look after a roll-back finds, if nobody changes anything: of generated values those that were put `back`, or what the store has kept in their
/// place (`IfNotExists`); of all others what it had.
pub fn left(rotation: &SecretRotation, data: &SecretData, (back, kept): (&SecretData, &SecretData)) -> SecretData {
    let mut left = data.clone();
    for name in rotation.spec.generators().map(|generate| &generate.secret_key) {
        left.extend(kept.get(name).or_else(|| back.get(name)).map(|value| (name.clone(), value.clone())));
    }
    left
}

/// Whether the Secret is not to be made of this, because it was taken back, or because it is what the roll-back has left of that in the store. What was put
/// back is not, nor is anything else: that is another try.
pub(super) async fn is_rejected(look: Look<'_>, data: &SecretData, memory: &Memory) -> Result<bool, Halt> {
    let Look { context, rotation, held, .. } = look;
    if !is_taken_back(look, &held.memory) {
        return Ok(false);
    }
    let key = context.roller.restarter.key().await?;
    let new = consumed(rotation, memory, data);
    let there = held.memory.values.iter().map(|(name, hash)| (name.clone(), hash.as_bytes().to_vec().into())).collect();
    let there = consumed(rotation, &held.memory, &there);
    let is_as_put_back = there.len() == new.len()
        && new.iter().all(|(name, value)| there.get(name).is_some_and(|is| **is == hash(&key, name, value).into_bytes()));
    Ok(!is_as_put_back && held.memory.tried.contains(&fingerprint((rotation, &key), &new, memory)))
}

/// Keeps the generated values of `data`, which `memory` is of, that are others than those of `before`, which are put back: under `KEY.REVISION`, beside what
/// was taken back earlier; or beside what is gone back to, where they cannot have a Secret of their own.
pub async fn keep(
    context: &Context,
    rotation: &SecretRotation,
    (data, memory): (&SecretData, &Memory),
    before: (&SecretData, &Memory),
) -> Result<(), Halt> {
    let generated = rotation.spec.generators().map(|generate| &generate.secret_key);
    let other = |name: &&String| data.get(*name) != before.0.get(*name);
    let others = generated.filter(other).filter_map(|name| Some((format!("{name}.{}", memory.revision), data.get(name)?.clone())));
    let others: SecretData = others.collect();
    if others.is_empty() {
        return Ok(());
    }
    let Err(why) = keep_apart(context, rotation, (others.clone(), memory)).await? else { return Ok(()) };
    tracing::warn!(
        object = rotation.name_any(),
        namespace = rotation.namespace(),
        why,
        "what is taken back is kept beside what is put back"
    );
    let beside = before.0.clone().into_iter().chain(others).collect();
    managed_secret::keep(context, rotation, SecretSlot::Previous, (&beside, before.1)).await
}

/// Err: why they cannot have a Secret of their own.
async fn keep_apart(
    context: &Context,
    rotation: &SecretRotation,
    (others, memory): (SecretData, &Memory),
) -> Result<Result<(), String>, Halt> {
    let mut kept = match managed_secret::read(context, rotation, SecretSlot::Rejected).await {
        Err(problem) if matches!(problem.reason, Reason::NotOurs | Reason::ReservedType) => return Ok(Err(problem.message)),
        there => there?.data,
    };
    kept.extend(others);
    let noted = Memory { revision: memory.revision, rotation: memory.rotation.clone(), ..Memory::default() };
    match managed_secret::try_keep(context, rotation, SecretSlot::Rejected, (&kept, &noted)).await? {
        Err(error @ WriteError::Refused { .. }) => Ok(Err(error.to_string())),
        kept => Ok(Ok(kept?)),
    }
}

/// Of what can be foreseen of `data`, and of the values that texts hide in it.
fn fingerprint((rotation, key): (&SecretRotation, &[u8]), data: &SecretData, memory: &Memory) -> String {
    let parts = (hashes(key, &foreseeable(rotation, data)), &memory.hidden);
    hash(key, "", &serde_json::to_vec(&parts).unwrap_or_default())
}

/// Of values in whose place texts stand, so that they are nowhere in the Secret: what tells others apart. None: there are none.
pub(super) fn hidden(rotation: &SecretRotation, key: &[u8], values: &SecretData) -> Option<String> {
    let template = rotation.spec.template.as_ref()?;
    let hidden = values.iter().filter(|(name, _)| template.data.contains_key(*name));
    let hidden: SecretData = hidden.map(|(name, value)| (name.clone(), value.clone())).collect();
    (!hidden.is_empty()).then(|| hash(key, "", &serde_json::to_vec(&hashes(key, &hidden)).unwrap_or_default()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn rotation() -> SecretRotation {
        let generate = serde_json::json!([{"secretKey": "a", "hex": {}}, {"secretKey": "b", "hex": {}}, {"secretKey": "n", "hex": {}}]);
        let template = serde_json::json!({"mergePolicy": "Merge", "data": {"t": "{{ a }}"}});
        let spec = serde_json::json!({"target": {"name": "s"}, "template": template, "rotation": {"generate": generate}});
        SecretRotation::new("r", serde_json::from_value(spec).unwrap())
    }

    fn data(values: &[(&str, &str)]) -> SecretData {
        values.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec().into())).collect()
    }

    #[test]
    fn what_was_taken_back_and_what_is_left_of_it() {
        let (taken, before) = (
            data(&[("a", "2"), ("b", "2"), ("n", "2"), ("d", "2"), ("t", "2")]),
            data(&[("a", "1"), ("b", "1"), ("d", "1"), ("gone", "1"), ("t", "1")]),
        );
        let left = left(&rotation(), &taken, (&before, &data(&[("b", "theirs")])));
        assert_eq!(left, data(&[("a", "1"), ("b", "theirs"), ("n", "2"), ("d", "2"), ("t", "2")]));
        let mut memory = Memory::default();
        // Where the one before stood is another place by now.
        let kept = Memory { previous_keys: [("a".to_owned(), "a-old".to_owned())].into(), ..Memory::default() };
        let with_previous = taken.clone().into_iter().chain(data(&[("a-old", "0")])).collect();
        note((&rotation(), b"k"), ((&with_previous, &left), &kept), &before, &mut memory);
        let hashes: BTreeSet<String> = ["a", "b", "n", "d", "t"].map(|name| hash(b"k", name, b"2")).into();
        assert_eq!(memory.rejected, hashes);
        let fingerprints = [&taken, &left].map(|data| fingerprint((&rotation(), b"k"), data, &Memory::default()));
        assert!(memory.tried == fingerprints.into() && memory.tried.len() == 2);
    }

    #[test]
    fn another_text_is_another_try_where_nothing_is_generated_for_it() {
        let template = serde_json::json!({"data": {"a": "{{ x }}", "b": "{{ y }}"}});
        let rotation =
            SecretRotation::new("r", serde_json::from_value(serde_json::json!({"target": {"name": "s"}, "template": template})).unwrap());
        let (taken, before) = (data(&[("a", "2"), ("b", "2")]), data(&[("a", "1"), ("b", "1")]));
        let left = left(&rotation, &taken, (&before, &data(&[])));
        let mut memory = Memory::default();
        note((&rotation, b"k"), ((&taken, &left), &Memory::default()), &before, &mut memory);
        let is_tried = |data: &SecretData| memory.tried.contains(&fingerprint((&rotation, b"k"), data, &Memory::default()));
        assert!(is_tried(&taken) && !is_tried(&data(&[("a", "2"), ("b", "3")])));
    }

    #[test]
    fn what_a_text_hides_tells_tries_apart() {
        let (one, other) = (data(&[("t", "h2"), ("d", "1")]), data(&[("t", "h3"), ("d", "1")]));
        assert_ne!(hidden(&rotation(), b"k", &one), hidden(&rotation(), b"k", &other));
        assert_eq!(hidden(&rotation(), b"k", &data(&[("d", "1")])), None);
        let with = |values: &SecretData| Memory { hidden: hidden(&rotation(), b"k", values), ..Memory::default() };
        let stands = data(&[("t", "text"), ("d", "1")]);
        let of = |values: &SecretData| fingerprint((&rotation(), b"k"), &stands, &with(values));
        assert!(of(&one) != of(&other) && of(&one) == of(&one.clone()));
    }
}
