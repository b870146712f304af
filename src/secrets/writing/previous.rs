//! The previous values: kept beside those that have replaced them, and taken out when their time is over.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{
    desired::{note_change, on_own_thread, salted},
    rotate::Pending,
};
use crate::{
    api::secret_rotation::{MergePolicy, SecretRotationSpec, Template},
    secrets::{
        contents::{
            compose::{self, Gathered},
            property::Bytes,
            template,
        },
        context::Look,
        decide::TargetState,
        memory::{Memory, hash, hashes},
        reason::Reason,
        status::Halt,
        store::SecretData,
    },
};

/// The present content without previous values whose time is over; needs no store. What somebody else has changed stays, with the hash of before, so that
/// it still counts as edited.
pub(in crate::secrets) async fn retired(look: Look<'_>) -> Result<(SecretData, Memory), Halt> {
    let Look { context, rotation, held, facts, .. } = look;
    let key = context.roller.restarter.key().await?;
    let mut memory = held.memory.clone();
    let mut data = held.ours();
    if facts.plan.retire {
        // Another suffix may be where something else stands by now.
        let mut before: Vec<String> = held.memory.previous_keys.values().cloned().collect();
        if before.is_empty() {
            before.extend(compose::previous_keys(&rotation.spec));
        }
        memory.values.retain(|name, _| !before.contains(name));
        data.retain(|name, _| memory.values.contains_key(name));
        // Of a value that is not what its generator makes, what is public stays as it is until the next one.
        let _ = compose::publish(&rotation.spec, &mut data);
        // Another spec is followed as a whole.
        if held.memory.request.as_ref() == Some(&facts.request) {
            match renewed_texts(look, &data, key.clone()).await {
                Some(texts) => data.extend(texts),
                // They are made anew as soon as the values can be read; what was taken back comes with the next ones.
                None if memory.stage.is_rolled_back() => {}
                None => memory.request = None,
            }
        }
        (memory.previous_since, memory.previous_keys) = (None, BTreeMap::new());
        memory.versions.retire_superseded();
        // What was taken back is no other revision for that.
        if !memory.stage.is_rolled_back() {
            note_change(look, &data, (&mut memory, Reason::PreviousOver));
        }
    }
    let is_new = |name: &String| data.get(name) != held.data.get(name);
    memory.values.extend(hashes(&key, &data).into_iter().filter(|(name, _)| is_new(name)));
    Ok((data, memory))
}

/// The texts that name a previous value, rendered again from the other keys of the Secret. None: somebody has changed or removed one that they name.
async fn renewed_texts(look: Look<'_>, data: &SecretData, key: Zeroizing<Vec<u8>>) -> Option<SecretData> {
    let Look { context, rotation, held, facts, .. } = look;
    let edited = if let TargetState::Edited(keys) = &facts.target { keys.as_slice() } else { &[] };
    let variables: HashSet<String> = edited.iter().map(|name| template::variable(name)).collect();
    let mut texts = compose::texts_with_previous(&rotation.spec, &held.memory);
    texts.retain(|text| data.contains_key(text.key) && !edited.contains(text.key));
    let Some(template) = rotation.spec.template.as_ref().filter(|_| !texts.is_empty()) else { return Some(SecretData::new()) };
    if texts.iter().any(|text| !text.others.is_disjoint(&variables)) {
        return None;
    }
    let is_text = |name: &String| template.data.contains_key(name);
    let values: SecretData = data.iter().filter(|(name, _)| !is_text(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
    let bytes = values.values().map(|value| value.len()).sum();
    let texts = texts.into_iter().map(|text| (text.key.clone(), text.template.clone())).collect();
    let template = Template { data: texts, merge_policy: MergePolicy::Replace, ..template.clone() };
    let work = move |spec: &SecretRotationSpec| {
        let spec = SecretRotationSpec { template: Some(template), ..spec.clone() };
        compose::render(&spec, values, &|value| salted(&key, value))
    };
    on_own_thread(context, &rotation.spec, bytes, work).await.ok()
}

/// The values that those on their way take the place of: as they stand in the Secret, or, if somebody else has changed or deleted that, in the store.
pub(super) fn replaced(look: Look<'_>, pending: Option<&Pending>, (gathered, key): (&Gathered, &[u8])) -> SecretData {
    let Look { held, .. } = look;
    let Some(pending) = pending else { return SecretData::new() };
    let known = |name: &String| held.memory.values.get(name).or_else(|| pending.memory.values.get(name));
    let value = |name: &String| {
        let here = held.data.get(name);
        let is_known = |value: &&Bytes| known(name).is_some_and(|known| *known == hash(key, name, value));
        let there = || gathered.values.get(name).filter(is_known);
        here.filter(|value| known(name).is_none() || is_known(value)).or_else(there).or(here).cloned()
    };
    pending.data.keys().filter_map(|name| Some((name.clone(), value(name)?))).collect()
}

/// The previous values stay beside the new ones, or go.
pub(super) fn keep(look: Look<'_>, (pending, replaced): (Option<&Pending>, &SecretData), values: &mut SecretData, memory: &mut Memory) {
    let Look { rotation, held, facts, .. } = look;
    (memory.previous_since, memory.previous_keys) = (None, BTreeMap::new());
    let Some((rotation, spec)) = rotation.spec.rotation.as_ref().and_then(|spec| Some((spec, spec.previous.as_ref()?))) else { return };
    let arriving = pending.filter(|pending| pending.memory.rotation != held.memory.rotation);
    // What has arrived replaces nothing, whatever was written since then.
    let old = |(name, new)| Some((name, replaced.get(name).filter(|old| *old != new)?));
    let mut kept: Vec<_> = arriving.iter().flat_map(|pending| &pending.data).filter_map(old).collect();
    let under = |name: &String| format!("{name}{}", spec.suffix);
    if !kept.is_empty() {
        memory.previous_since = Some(Timestamp::from_second(facts.now.as_second()).unwrap_or(facts.now));
    } else if !facts.plan.retire && held.memory.previous_since.is_some() {
        // Another suffix is another place for them.
        let place = |name: &String| held.memory.previous_keys.get(name).cloned().unwrap_or_else(|| under(name));
        let names = rotation.generate.iter().map(|generate| &generate.secret_key);
        kept = names.filter_map(|name| Some((name, held.data.get(&place(name))?))).collect();
        memory.previous_since = held.memory.previous_since;
    }
    for (name, value) in kept {
        values.insert(under(name), value.clone());
        memory.previous_keys.insert(name.clone(), under(name));
    }
}
