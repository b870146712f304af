//! A Secret in which a resource keeps something is written so that it stays in all else what it is, whatever the spec says of it by now.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::managed_secret::{ManagedSecret, bytes, manager, note, noted, owned, short};
use crate::{
    api::SecretRotation,
    cluster::{
        apply::Writer,
        fields,
        owner::{PREVIOUS_UNTIL, owned_by},
    },
    secrets::{context::Context, memory::Memory, status::Halt, store::SecretData},
};

/// What it is to stay.
pub struct Shape {
    secret_type: Option<String>,
    /// The Secret is somebody else's.
    pub(super) is_merged: bool,
}

impl Shape {
    /// Of `secret`.
    pub fn of(secret: &Secret, is_merged: bool) -> Self {
        Self { secret_type: secret.type_.clone().filter(|_| !is_merged), is_merged }
    }

    /// As what this resource writes to it.
    pub fn writer(&self, context: &Context, rotation: &SecretRotation) -> Writer {
        if self.is_merged { context.writer.managed(&manager(&short(&owned_by(rotation)))).without_force() } else { context.writer.clone() }
    }
}

/// Writes `data`, and what is to be remembered with it. Of keys, labels, annotations and owners those that we have set are set again, and no others; but for keys that have
/// to be others now.
pub async fn write(
    context: &Context,
    rotation: &SecretRotation,
    (held, shape): (&ManagedSecret, &Shape),
    (data, memory): (&SecretData, &Memory),
) -> Result<ObjectMeta, Halt> {
    let (writer, read) = (shape.writer(context, rotation), held.meta.clone().unwrap_or_default());
    let ours = |field: &str| fields::keys(&read, writer.manager(), field);
    let (values, labels, owners) = (ours("data"), ours("metadata/f:labels"), fields::owners(&read, writer.manager()));
    let theirs = left_to_others((held, shape), &writer, data);
    // What has to be another is taken back from who has taken it.
    let is_ours =
        |(key, value): &(&String, &_)| !theirs.contains(*key) && (values.contains(key.as_str()) || held.data.get(*key) != Some(*value));
    let data = data.iter().filter(is_ours).map(|(key, value)| (key.clone(), value.clone())).collect();
    let owners = read.owner_references.iter().flatten().filter(|owner| owners.contains(&owner.uid)).cloned();
    let labels: BTreeMap<String, String> = only(read.labels.as_ref(), |key| labels.contains(key));
    let secret = Secret {
        metadata: ObjectMeta {
            name: read.name.clone(),
            namespace: read.namespace.clone(),
            // An empty one would be a claim on all of them.
            labels: (!labels.is_empty()).then_some(labels),
            annotations: Some(annotations((rotation, shape), (&read, &writer), (&held.memory, memory))),
            owner_references: Some(owners.collect::<Vec<_>>()).filter(|owners| !owners.is_empty()),
            ..ObjectMeta::default()
        },
        type_: shape.secret_type.clone(),
        data: Some(bytes(&data)),
        ..Secret::default()
    };
    writer.apply(secret, &read).await.map_err(owned)
}

/// In a Secret of somebody else, the keys that others have taken, or have set as well and that are to be others in `data`.
pub fn left_to_others((held, shape): (&ManagedSecret, &Shape), writer: &Writer, data: &SecretData) -> BTreeSet<String> {
    let Some(meta) = held.meta.as_ref().filter(|_| shape.is_merged) else { return BTreeSet::new() };
    let ours = fields::keys(meta, writer.manager(), "data");
    let is_shared = |key: &str| fields::is_set_by_others(meta, writer.manager(), "data", |set| set == key).is_some();
    let is_theirs = |(key, value): &(&String, &_)| {
        !ours.contains(key.as_str()) || data.get(*key).is_some_and(|wanted| wanted != *value) && is_shared(key)
    };
    held.data.iter().filter(is_theirs).map(|(key, _)| key.clone()).collect()
}

/// Those that are ours, with what is remembered now in the place of what was `before`.
fn annotations(
    (rotation, shape): (&SecretRotation, &Shape),
    (read, writer): (&ObjectMeta, &Writer),
    (before, memory): (&Memory, &Memory),
) -> BTreeMap<String, String> {
    let (note, is_over) = (note(rotation), memory.previous_since.is_none());
    let before: BTreeMap<String, String> = before.annotations().collect();
    let ours = fields::keys(read, writer.manager(), "metadata/f:annotations");
    let stays = |key: &str| ours.contains(key) && !before.contains_key(key) && *key != *note && !(is_over && key == PREVIOUS_UNTIL);
    let stay = only(read.annotations.as_ref(), stays);
    let mut memory: BTreeMap<String, String> = memory.annotations().collect();
    if !shape.is_merged {
        return stay.into_iter().chain(memory).collect();
    }
    let until = read.annotations.as_ref().and_then(|all| noted(all.get(&note)?)?.remove(PREVIOUS_UNTIL)).filter(|_| !is_over);
    memory.extend(until.map(|until| (PREVIOUS_UNTIL.into(), until)));
    stay.into_iter().chain([(note, serde_json::to_string(&memory).unwrap_or_default())]).collect()
}

fn only(all: Option<&BTreeMap<String, String>>, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    all.into_iter().flatten().filter(|(key, _)| wanted(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}
