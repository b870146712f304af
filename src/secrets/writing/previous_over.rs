//! Previous values whose time is over are taken out: of the Secret, of the texts that hold them, and of what is kept to go back to.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    desired::{note_change, on_own_thread, salted},
    managed_secret::{self, SecretSlot},
};
use crate::{
    api::secret_rotation::SecretRotationSpec,
    secrets::{
        contents::{
            compose::{self, MAX_TEMPLATES},
            template::{self, TemplateError},
        },
        context::Look,
        memory::{Memory, hash},
        reason::Reason,
        status::{Halt, Problem},
        store::SecretData,
    },
};

/// The present content without previous values whose time is over; needs no store. What somebody else has changed stays, with the hash of before, so that
/// it still counts as edited; but for texts that held such a value, and may hold it still.
pub(in crate::secrets) async fn retired(look: Look<'_>) -> Result<(SecretData, Memory), Halt> {
    let Look { held, facts, .. } = look;
    let (mut data, mut memory) = (held.ours(), held.memory.clone());
    if facts.plan.retire {
        data = without_previous(look, data, &mut memory).await?;
        memory.versions.retire_superseded();
        // What was taken back is no other revision for that.
        if !memory.stage.is_rolled_back() {
            note_change(look, &data, (&mut memory, Reason::PreviousOver));
        }
    }
    Ok((data, memory))
}

/// What can be gone back to holds them no longer than the Secret itself.
pub(super) async fn retire_kept(look: Look<'_>) -> Result<(), Halt> {
    let Look { context, rotation, facts, .. } = look;
    if !facts.plan.retire {
        return Ok(());
    }
    let there = match managed_secret::read(context, rotation, SecretSlot::Previous).await {
        Err(problem) if matches!(problem.reason, Reason::NotOurs | Reason::ReservedType) => return Ok(()),
        there => there?,
    };
    if there.memory.previous_since.is_none() {
        return Ok(());
    }
    let mut memory = there.memory;
    let data = without_previous(look, there.data, &mut memory).await?;
    managed_secret::keep(context, rotation, SecretSlot::Previous, (&data, &memory)).await
}

/// Refuses texts that are new and could not be made without a previous value, of `data` and what is to be remembered with it.
pub(super) async fn check_texts(look: Look<'_>, data: &SecretData, memory: &Memory) -> Result<(), Halt> {
    if memory.previous_texts == look.held.memory.previous_texts {
        return Ok(());
    }
    let without = without_previous(look, data.clone(), &mut memory.clone()).await?;
    let Some(name) = memory.previous_texts.keys().find(|name| !without.contains_key(*name)) else { return Ok(()) };
    let message = format!(
        "template.data {name:?} names a previous value, and cannot be rendered without it, as it has to be when that goes: write {{{{ … | default('') }}}}; the Secret stays as it is"
    );
    Err(Problem::new(Reason::TemplateInvalid, message).into())
}

/// `data`, which `memory` is of, without its previous values: texts that hold one are rendered anew of what stands beside them. One that cannot be goes,
/// too: somebody has removed what it names.
pub(in crate::secrets) async fn without_previous(look: Look<'_>, mut data: SecretData, memory: &mut Memory) -> Result<SecretData, Halt> {
    let Look { context, rotation, .. } = look;
    let (key, before) = (context.roller.restarter.key().await?, data.clone());
    // Another suffix may be where something else stands by now.
    let mut previous: BTreeSet<String> = std::mem::take(&mut memory.previous_keys).into_values().collect();
    if previous.is_empty() {
        previous.extend(compose::previous_keys(&rotation.spec));
    }
    data.retain(|name, _| !previous.contains(name));
    memory.values.retain(|name, _| !previous.contains(name));
    // Of a value that is not what its generator makes, what is public stays as it is until the next one.
    let _ = compose::publish(&rotation.spec, &mut data);
    let mut texts = std::mem::take(&mut memory.previous_texts);
    texts.retain(|name, _| data.remove(name).is_some());
    data.extend(rendered(look, texts, &data).await?);
    memory.previous_since = None;
    let is_new = |(name, value): &(&String, &_)| before.get(*name) != Some(*value);
    memory.values.extend(data.iter().filter(is_new).map(|(name, value)| (name.clone(), hash(&key, name, value))));
    Ok(data)
}

/// Those of `texts` that can be rendered of the values in `data`.
async fn rendered(look: Look<'_>, mut texts: BTreeMap<String, String>, data: &SecretData) -> Result<SecretData, Halt> {
    let Look { context, rotation, .. } = look;
    // As many as can have been remembered.
    let mut bytes = 0;
    texts.retain(|name, template| {
        bytes += name.len() + template.len();
        bytes <= MAX_TEMPLATES
    });
    let key = context.roller.restarter.key().await?;
    let named: BTreeSet<String> = texts.values().filter_map(|template| template::variables_used(template)).flatten().collect();
    let is_text = |name: &String| rotation.spec.template.as_ref().is_some_and(|template| template.data.contains_key(name));
    let values = data.iter().filter(|(name, _)| named.contains(&template::variable(name)) && !is_text(name));
    let values: SecretData = values.map(|(name, value)| (name.clone(), value.clone())).collect();
    let work = move |_: &SecretRotationSpec| {
        while !texts.is_empty() {
            match template::render(texts.clone().into_iter(), &values, &|value| salted(&key, value)) {
                Ok(rendered) => return Ok(rendered),
                Err(TemplateError::Wrong { key, .. }) => drop(texts.remove(&key)),
                Err(TemplateError::Collision(..)) => break,
            }
        }
        Ok(SecretData::new())
    };
    Ok(on_own_thread(context, &rotation.spec, usize::MAX, work).await?)
}
