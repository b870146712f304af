//! The previous values: kept beside those that have replaced them. How they go: [`super::previous_over`].

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::rotate::Pending;
use crate::secrets::{
    contents::{
        compose::{self, Gathered},
        property::Bytes,
    },
    context::Look,
    memory::{Memory, hash},
    store::SecretData,
};

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
    (memory.previous_since, memory.previous_keys, memory.previous_texts) = (None, BTreeMap::new(), BTreeMap::new());
    let Some((generated, spec)) = rotation.spec.rotation.as_ref().and_then(|spec| Some((spec, spec.previous.as_ref()?))) else { return };
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
        let names = generated.generate.iter().map(|generate| &generate.secret_key);
        kept = names.filter_map(|name| Some((name, held.data.get(&place(name))?))).collect();
        memory.previous_since = held.memory.previous_since;
    }
    for (name, value) in kept {
        values.insert(under(name), value.clone());
        memory.previous_keys.insert(name.clone(), under(name));
    }
    if !memory.previous_keys.is_empty() {
        let texts = compose::texts_with_previous(&rotation.spec, memory);
        memory.previous_texts = texts.into_iter().map(|text| (text.key.clone(), text.template.0.clone())).collect();
    }
}
