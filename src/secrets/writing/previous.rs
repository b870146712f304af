//! The previous values: kept beside those that have replaced them, and taken out when their time is over.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    desired::{note_change, on_own_thread, salted},
    rotate::Pending,
};
use crate::{
    api::secret_rotation::SecretRotationSpec,
    secrets::{
        contents::{
            compose::{self, Gathered},
            property::Bytes,
            template,
        },
        context::Look,
        memory::{Memory, hash, hashes},
        reason::Reason,
        status::{Halt, Problem},
        store::SecretData,
    },
};

/// The present content without previous values whose time is over; needs no store. What somebody else has changed stays, with the hash of before, so that
/// it still counts as edited; but for texts that held such a value, and may hold it still.
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
        for (name, template) in &held.memory.previous_texts {
            // One that cannot be made without it goes, too: somebody has removed what it names.
            if data.remove(name).is_some() {
                data.extend(text(look, (name, template), &data).await?.map(|text| (name.clone(), text)));
            }
        }
        if memory.stage.is_rolled_back() {
            memory.rejected.extend(rejected_without_previous(look, &data).await?);
        }
        (memory.previous_since, memory.previous_keys, memory.previous_texts) = (None, BTreeMap::new(), BTreeMap::new());
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

/// A text, rendered of those of `data` that it names. None: that cannot be done.
async fn text(look: Look<'_>, (name, template): (&str, &str), data: &SecretData) -> Result<Option<Bytes>, Halt> {
    let Look { context, rotation, held, .. } = look;
    let key = context.roller.restarter.key().await?;
    let texts = rotation.spec.template.iter().flat_map(|template| template.data.keys());
    let texts: BTreeSet<&String> = texts.chain(held.memory.previous_texts.keys()).collect();
    let Some(named) = template::variables_used(template) else { return Ok(None) };
    let values = data.iter().filter(|(key, _)| named.contains(&template::variable(key)) && !texts.contains(key));
    let values: SecretData = values.map(|(key, value)| (key.clone(), value.clone())).collect();
    let bytes = values.values().map(|value| value.len()).sum();
    let one = (name.to_owned(), template.to_owned());
    let work = move |_: &SecretRotationSpec| {
        let rendered = template::render(std::iter::once(one), &values, &|value| salted(&key, value));
        rendered.map_err(|error| Problem::new(Reason::TemplateInvalid, error.to_string()))
    };
    Ok(on_own_thread(context, &rotation.spec, bytes, work).await.ok().and_then(|mut rendered| rendered.remove(name)))
}

/// Of texts that were taken back and name a previous value: what they are without it, of `data`.
async fn rejected_without_previous(look: Look<'_>, data: &SecretData) -> Result<Vec<String>, Halt> {
    let Look { context, rotation, held, .. } = look;
    let (key, there) = (context.roller.restarter.key().await?, held.ours());
    let mut rejected = Vec::new();
    for compose::TextWithPrevious { key: name, template, .. } in compose::texts_with_previous(&rotation.spec, &held.memory) {
        let is_rejected = |text: &Bytes| held.memory.rejected.contains(&hash(&key, name, text));
        if text(look, (name, &template.0), &there).await?.is_some_and(|text| is_rejected(&text)) {
            rejected.extend(text(look, (name, &template.0), data).await?.map(|text| hash(&key, name, &text)));
        }
    }
    Ok(rejected)
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
