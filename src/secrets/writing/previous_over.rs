//! Previous values whose time is over are taken out: of the Secret, of the texts that hold them, and of what is kept to go back to.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{
    desired::{note_change, on_own_thread, salted},
    managed_secret::{self, ManagedSecret, SecretSlot},
};
use crate::{
    api::{SecretRotation, secret_rotation::SecretRotationSpec},
    cluster::{apply::WriteError, fields, owner::PREVIOUS_SINCE},
    keys::jwk,
    secrets::{
        contents::{
            compose::{self, MAX_TEMPLATES},
            template,
        },
        context::{Context, Look, is_current},
        memory::{Memory, hash},
        reason::Reason,
        status::{Halt, Problem},
        store::SecretData,
    },
};

/// A template has no more texts.
const MAX_TEXTS: usize = 50;

/// The present content without previous values whose time is over; needs no store. What somebody else has changed stays, with the hash of before, so that
/// it still counts as edited; but for texts that held such a value, and may hold it still.
pub(in crate::secrets) async fn retired(look: Look<'_>) -> Result<(SecretData, Memory), Halt> {
    let Look { held, facts, .. } = look;
    let (mut data, mut memory) = (held.ours(), held.memory.clone());
    if facts.plan.retire {
        data = without_previous((look.context, look.rotation), data, &mut memory).await?;
        memory.versions.retire_superseded();
        // What was taken back is no other revision for that.
        if !memory.stage.is_rolled_back() {
            note_change(look, &data, (&mut memory, Reason::PreviousOver));
        }
    }
    Ok((data, memory))
}

/// What can be gone back to holds previous values no longer than the Secret itself, which stands with `memory`.
pub(in crate::secrets) async fn retire_kept(context: &Context, rotation: &SecretRotation, memory: &Memory) -> Result<(), Halt> {
    let (namespace, name) = (rotation.namespace().unwrap_or_default(), SecretSlot::Previous.name(rotation));
    if context.roller.inventory.secrets.get(&namespace, &name).is_none() {
        return Ok(());
    }
    let there = match managed_secret::read(context, rotation, SecretSlot::Previous).await {
        Err(problem) if matches!(problem.reason, Reason::NotOurs | Reason::ReservedType) => return Ok(()),
        there => there?,
    };
    if !is_left(&there.memory, memory) {
        return Ok(());
    }
    let mut kept = there.memory;
    let data = without_previous((context, rotation), there.data, &mut kept).await?;
    is_current(context, rotation).await?;
    match Box::pin(managed_secret::try_keep(context, rotation, SecretSlot::Previous, (&data, &kept))).await? {
        // It is in nobody's way when it is gone for a moment: one that somebody has made immutable is made anew.
        Err(error @ WriteError::Refused { .. }) if is_immutable(context, &namespace, &name).await => {
            tracing::warn!(%error, object = rotation.name_any(), namespace, secret = name, "it is deleted and made anew");
            Box::pin(managed_secret::forget(context, rotation, SecretSlot::Previous)).await?;
            Box::pin(managed_secret::keep(context, rotation, SecretSlot::Previous, (&data, &kept))).await
        }
        kept => Ok(kept?),
    }
}

async fn is_immutable(context: &Context, namespace: &str, name: &str) -> bool {
    let found = Api::<Secret>::namespaced(context.client.clone(), namespace).get_opt(name).await;
    found.is_ok_and(|secret| secret.is_some_and(|secret| secret.immutable == Some(true)))
}

/// Whether `kept` has previous values that the Secret, which stands with `memory`, has no longer.
pub(in crate::secrets) fn is_left(kept: &Memory, memory: &Memory) -> bool {
    kept.previous_since.is_some() && kept.previous_since != memory.previous_since
}

/// Refuses texts that are new and could not be made without a previous value, of `data` and what is to be remembered with it.
pub(super) async fn check_texts(look: Look<'_>, data: &SecretData, memory: &Memory) -> Result<(), Halt> {
    if memory.previous_texts == look.held.memory.previous_texts {
        return Ok(());
    }
    let without = without_previous((look.context, look.rotation), data.clone(), &mut memory.clone()).await?;
    let Some(name) = memory.previous_texts.keys().find(|name| !without.contains_key(*name)) else { return Ok(()) };
    let message = format!(
        "template.data {name:?} names a previous value, and cannot be rendered without it, as it has to be when that goes: write {{{{ … | default('') }}}}; the Secret stays as it is"
    );
    Err(Problem::new(Reason::TemplateInvalid, message).into())
}

/// What stays although it was taken out: others have written it as well.
pub(super) struct Stays {
    /// One of them.
    with: String,
    /// The keys.
    pub names: BTreeSet<String>,
}

/// What of `before` that is not in `data` any more stays with others, as we wrote it: that is still remembered. What they have changed is theirs.
pub(super) fn stays_with_others(
    key: &[u8],
    (held, manager): (&ManagedSecret, &str),
    (before, data): (&SecretData, &SecretData),
    memory: &mut Memory,
) -> Option<Stays> {
    let (meta, there) = (held.meta.as_ref()?, &held.memory);
    let is_as_written = |name: &str, value: &[u8]| there.values.get(name).is_some_and(|known| *known == hash(key, name, value));
    let gone = before.iter().filter(|(name, value)| !data.contains_key(*name) && is_as_written(name, value));
    let with = |name: &str| fields::is_set_by_others(meta, manager, "data", |set| set == name).map(ToOwned::to_owned);
    let stays: BTreeMap<String, String> = gone.filter_map(|(name, _)| Some((name.clone(), with(name)?))).collect();
    let with = stays.values().next()?.clone();
    let of = |all: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        all.iter().filter(|(name, _)| stays.contains_key(*name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    (memory.previous_since, memory.previous_keys) = (there.previous_since, there.previous_keys.clone());
    memory.previous_texts.extend(of(&there.previous_texts));
    memory.values.extend(of(&there.values));
    Some(Stays { with, names: stays.into_keys().collect() })
}

/// The same of the Secret of a look, which is to hold `data`.
pub(super) async fn stays_in_target(look: Look<'_>, data: &SecretData, memory: &mut Memory) -> Result<Option<Stays>, Halt> {
    let Look { context, rotation, held, .. } = look;
    let kept: BTreeSet<String> = compose::kept_keys(&rotation.spec, &held.memory).collect();
    let mut before = held.ours();
    before.retain(|name, _| kept.contains(name) || held.memory.previous_texts.contains_key(name));
    let (writer, key) = (managed_secret::writer(context, rotation), context.roller.restarter.key().await?);
    Ok(stays_with_others(&key, (held, writer.manager()), (&before, data), memory))
}

/// What is ours of a Secret in which others keep `stays`, and is remembered by us: once we have let go of a thing, it is not written again.
pub(super) fn ours_beside((held, manager, is_merged): (&ManagedSecret, &str, bool), stays: Option<&Stays>) -> (SecretData, Memory) {
    let meta = held.meta.as_ref();
    let of = |field: &str| meta.map(|meta| fields::keys(meta, manager, field)).unwrap_or_default();
    let (keys, noted) = (of("data"), of("metadata/f:annotations"));
    let mut data = held.ours();
    data.retain(|name, _| keys.contains(name.as_str()) || !stays.is_some_and(|stays| stays.names.contains(name)));
    let mut memory = held.memory.clone();
    if !is_merged && !noted.contains(PREVIOUS_SINCE) {
        let annotations = meta.and_then(|meta| meta.annotations.clone()).unwrap_or_default();
        let annotations = annotations.into_iter().filter(|(name, _)| noted.contains(name.as_str())).collect();
        memory = Memory { values: memory.values, ..Memory::read(Some(&annotations)) };
    }
    (data, memory)
}

/// Why a previous value that was taken out of a Secret is there all the same, as that was `written`.
pub(super) fn remains(
    (rotation, secret): (&SecretRotation, &str),
    (written, manager, is_merged): (&ObjectMeta, &str, bool),
    stays: Option<&Stays>,
) -> Option<String> {
    let ours = fields::keys(written, manager, "metadata/f:annotations");
    let noted = Memory::read(written.annotations.as_ref());
    let noted = noted.annotations().map(|(name, _)| name);
    let theirs: BTreeSet<String> = noted.filter(|name| !is_merged && !ours.contains(name.as_str())).collect();
    let gone = |names: &BTreeSet<String>| names.iter().map(|name| (name.clone(), None)).collect::<BTreeMap<String, Option<()>>>();
    let namespace = rotation.namespace().unwrap_or_default();
    let (why, patch) = match stays {
        Some(Stays { with, names }) if is_merged => (
            format!(
                "the previous value in Secret {secret} was set by {with:?} as well, and stays with that; it is in the way of new values"
            ),
            json!({"data": gone(names)}),
        ),
        Some(Stays { with, names }) => {
            let annotations = theirs.into_iter().chain([PREVIOUS_SINCE.into()]).collect();
            let why = format!(
                "the previous value in Secret {secret} was written by {with:?} as well, and stays with that until new values take its place"
            );
            (why, json!({"data": gone(names), "metadata": {"annotations": gone(&annotations)}}))
        }
        None if theirs.contains(PREVIOUS_SINCE) => {
            let why = format!("Secret {secret} says that it holds a previous value, which somebody else has written there as well");
            (why, json!({"metadata": {"annotations": gone(&theirs)}}))
        }
        None => return None,
    };
    Some(format!("{why}; to remove it: kubectl -n {namespace} patch secret {secret} --type=merge -p '{patch}'"))
}

/// `data`, which `memory` is of, without its previous values: texts that hold one are rendered anew of what stands beside them. One that cannot be goes,
/// too: somebody has removed what it names.
pub(in crate::secrets) async fn without_previous(
    (context, rotation): (&Context, &SecretRotation),
    mut data: SecretData,
    memory: &mut Memory,
) -> Result<SecretData, Halt> {
    let (key, before) = (context.roller.restarter.key().await?, data.clone());
    // Another suffix may be where something else stands by now.
    let mut previous = std::mem::take(&mut memory.previous_keys);
    if previous.is_empty() {
        let names = rotation.spec.generators().map(|generate| generate.secret_key.clone());
        previous.extend(names.zip(compose::previous_keys(&rotation.spec)));
    }
    let is_previous = |name: &String| previous.values().any(|place| place == name);
    data.retain(|name, _| !is_previous(name));
    memory.values.retain(|name, _| !is_previous(name));
    // Of a value that is not what its generator makes, nothing new is public.
    let _ = compose::publish(&rotation.spec, &mut data);
    for (name, place) in &previous {
        let public = format!("{name}{}", compose::PUBLIC);
        let (Some(set), Some(value)) = (data.get(&public), before.get(place)) else { continue };
        // Its keys may be those of the current one, too.
        let gone = data.get(name).and_then(|current| jwk::without(value, current)).unwrap_or_else(|| value.to_vec());
        if let Some(set) = jwk::without(set, &gone) {
            data.insert(public, set.into());
        }
    }
    let mut texts = std::mem::take(&mut memory.previous_texts);
    texts.retain(|name, _| data.remove(name).is_some());
    data.extend(rendered((context, rotation), texts, &data).await?);
    memory.previous_since = None;
    let is_new = |(name, value): &(&String, &_)| before.get(*name) != Some(*value);
    memory.values.extend(data.iter().filter(is_new).map(|(name, value)| (name.clone(), hash(&key, name, value))));
    Ok(data)
}

/// Those of `texts` that can be rendered of the values in `data`.
async fn rendered(
    (context, rotation): (&Context, &SecretRotation),
    mut texts: BTreeMap<String, String>,
    data: &SecretData,
) -> Result<SecretData, Halt> {
    // As many as can have been remembered.
    let (mut count, mut bytes) = (0, 0);
    texts.retain(|name, template| {
        (count, bytes) = (count + 1, bytes + name.len() + template.len());
        count <= MAX_TEXTS && bytes <= MAX_TEMPLATES
    });
    let key = context.roller.restarter.key().await?;
    let named: BTreeSet<String> = texts.values().filter_map(|template| template::variables_used(template)).flatten().collect();
    let is_text = |name: &String| rotation.spec.template.as_ref().is_some_and(|template| template.data.contains_key(name));
    let values = data.iter().filter(|(name, _)| named.contains(&template::variable(name)) && !is_text(name));
    let values: SecretData = values.map(|(name, value)| (name.clone(), value.clone())).collect();
    let work = move |_: &SecretRotationSpec| Ok(template::render_each(texts.into_iter(), &values, &|value| salted(&key, value)));
    // However short the values are.
    Ok(on_own_thread(context, &rotation.spec, usize::MAX, work).await?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_written_as_well_is_remembered() {
        let data = |values: &[(&str, &str)]| -> SecretData {
            values.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec().into())).collect()
        };
        let entry = |manager: &str, keys: &[&str]| {
            let keys: serde_json::Map<_, _> = keys.iter().map(|key| (format!("f:{key}"), serde_json::json!({}))).collect();
            serde_json::json!({"manager": manager, "operation": "Apply", "fieldsV1": {"f:data": keys}})
        };
        let all = data(&[("a", "2"), ("a-previous", "1"), ("text", "2 1"), ("own", "1"), ("edited", "x")]);
        let mut there = Memory {
            previous_since: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            previous_keys: [("a".to_owned(), "a-previous".to_owned())].into(),
            previous_texts: ["text", "own"].map(|name| (name.to_owned(), "{{ a_previous }}".to_owned())).into(),
            ..Memory::default()
        };
        there.hash(b"k", &all);
        there.values.insert("edited".into(), "another".into());
        let stays = |others: &[&str]| {
            let ours = entry("us", &["a", "a-previous", "text", "own"]);
            let meta = serde_json::json!({"managedFields": [ours, entry("them", others)]});
            let meta = Some(serde_json::from_value(meta).unwrap());
            let held = ManagedSecret { meta, data: all.clone(), memory: there.clone() };
            let mut memory = Memory::default();
            let stays = stays_with_others(b"k", (&held, "us"), (&all, &data(&[("a", "2")])), &mut memory);
            (stays.map(|stays| stays.names), memory)
        };
        let (names, memory) = stays(&["a", "a-previous", "text", "edited"]);
        assert_eq!(names, Some(["a-previous", "text"].map(ToOwned::to_owned).into()));
        let values = |names: [&str; 2]| names.map(|name| (name.to_owned(), there.values[name].clone())).into();
        assert_eq!((memory.previous_since, &memory.previous_keys), (there.previous_since, &there.previous_keys));
        assert_eq!(
            (memory.previous_texts.into_keys().collect::<Vec<_>>(), memory.values),
            (vec!["text".to_owned()], values(["a-previous", "text"]))
        );
        assert_eq!(stays(&["a", "edited"]), (None, Memory::default()));
    }
}
