//! The Secret that is written, and the three beside it: how they are read, what they look like, how they are stored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, ResourceExt};

use crate::{
    api::{SecretRotation, secret_rotation::TargetPolicy},
    cluster::{
        apply::{WriteError, Writer, last_written},
        error::message,
        owner::{self, Refused, owned_by},
        references,
    },
    ids,
    rollout::{act, change::Changed, stage::Stage},
    secrets::{
        area::MANAGER,
        contents::compose::{previous_keys, public_keys},
        context::Context,
        decide::TargetState,
        index::{PENDING, PREVIOUS, REJECTED},
        memory::{Memory, hashes},
        reason::Reason,
        status::{Halt, Problem},
        store::SecretData,
    },
};

/// A Secret of this resource's own.
#[derive(Default)]
pub struct ManagedSecret {
    /// Its metadata; None if it is not there.
    pub meta: Option<ObjectMeta>,
    /// Its data.
    pub data: SecretData,
    /// What is written down with it.
    pub memory: Memory,
}

impl ManagedSecret {
    /// When it was created.
    pub fn created(&self) -> Option<Timestamp> {
        self.meta.as_ref()?.creation_timestamp.as_ref().map(|time| time.0)
    }

    /// Whether it is as it was written; `key`: of the hashes.
    pub fn compared(&self, key: &[u8]) -> TargetState {
        if self.meta.is_none() {
            return TargetState::Missing;
        }
        let now = hashes(key, &self.data);
        let edited: Vec<String> =
            self.memory.values.iter().filter(|(name, hash)| now.get(*name) != Some(*hash)).map(|(name, _)| name.clone()).collect();
        if edited.is_empty() { TargetState::AsWritten } else { TargetState::Edited(edited) }
    }

    /// Values that were taken back, and could not have a Secret of their own: `KEY.REVISION`.
    pub fn taken_back(&self) -> SecretData {
        let is_one = |name: &str| name.rsplit_once('.').is_some_and(|(_, revision)| revision.parse::<i64>().is_ok());
        let others = self.data.iter().filter(|(key, _)| !self.memory.values.contains_key(*key) && is_one(key));
        others.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The keys that we wrote, as they are now.
    pub fn ours(&self) -> SecretData {
        self.data.iter().filter(|(key, _)| self.memory.values.contains_key(*key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// Which of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretSlot {
    /// What consumers use.
    Target,
    /// The previous values, while others are being delivered.
    Previous,
    /// Values that are on their way.
    Pending,
    /// Generated values that were taken back.
    Rejected,
}

impl SecretSlot {
    /// The names of all four.
    pub fn all(rotation: &SecretRotation) -> [String; 4] {
        [Self::Target, Self::Previous, Self::Pending, Self::Rejected].map(|which| which.name(rotation))
    }

    /// Its name.
    pub fn name(self, rotation: &SecretRotation) -> String {
        let name = &rotation.spec.target.name;
        match self {
            Self::Target => name.clone(),
            Self::Previous => format!("{name}{PREVIOUS}"),
            Self::Pending => format!("{name}{PENDING}"),
            Self::Rejected => format!("{name}{REJECTED}"),
        }
    }

    /// It was made by somebody else, and keys are added to it.
    fn is_somebody_elses(self, rotation: &SecretRotation) -> bool {
        self == Self::Target && rotation.spec.target.creation_policy == TargetPolicy::Merge
    }

    fn secret_type(self, rotation: &SecretRotation) -> &str {
        match self {
            Self::Target => rotation.spec.secret_type(),
            Self::Previous | Self::Pending | Self::Rejected => "Opaque",
        }
    }
}

/// Reads one of them; refuses one that is not this resource's, saying whose it is.
pub async fn read(context: &Context, rotation: &SecretRotation, which: SecretSlot) -> Result<ManagedSecret, Problem> {
    let (namespace, name) = (rotation.namespace().unwrap_or_default(), which.name(rotation));
    let facts = &context.roller.inventory.secrets;
    // A Secret that the inventory does not know is not read: if it is there all the same, creating it fails with 409, and the next reconcile reads it.
    let unknown = facts.is_filled()
        && facts.get(&namespace, &name).is_none()
        && context.writer.just_written(&namespace, &name).is_none()
        && !context.races.has_failed(&rotation.uid().unwrap_or_default());
    if unknown {
        return Ok(ManagedSecret::default());
    }
    let found = Api::<Secret>::namespaced(context.client.clone(), &namespace).get_opt(&name).await;
    let found =
        found.map_err(|error| Problem::new(Reason::WriteFailed, format!("Secret {name} could not be read: {}", message(&error))))?;
    let Some(secret) = found else { return Ok(ManagedSecret::default()) };
    let allowed = if which.is_somebody_elses(rotation) {
        // Read it may be, whosever it is; keys are added to none that is kept by another resource of ours.
        let adds = !rotation.spec.is_push_only();
        owner::check_shared(&secret, adds, "spec.target.name")
    } else {
        owner::check(&secret, &owned_by(rotation), which.secret_type(rotation), "spec.target.name")
    };
    allowed.map_err(|refused| match refused {
        Refused::Reserved(message) => Problem::new(Reason::ReservedType, message),
        Refused::NotOurs(message) => Problem::new(Reason::NotOurs, message),
    })?;
    let memory = match which.is_somebody_elses(rotation) {
        // Nothing is written there, and what is noted there is another's.
        true if rotation.spec.is_push_only() => Memory::default(),
        is_merged => remembered(rotation, &secret, is_merged),
    };
    Box::pin(held(context, secret, memory)).await
}

/// What is written down with what this resource keeps in a Secret, which is somebody else's if it `is_merged`.
pub fn remembered(rotation: &SecretRotation, secret: &Secret, is_merged: bool) -> Memory {
    let annotations = secret.metadata.annotations.as_ref();
    if is_merged {
        Memory::read(annotations.and_then(|annotations| noted(annotations.get(&note(rotation))?)).as_ref())
    } else {
        Memory::read(annotations)
    }
}

/// A Secret as it was read, with what is remembered of it.
pub async fn held(context: &Context, secret: Secret, mut memory: Memory) -> Result<ManagedSecret, Problem> {
    let (meta, data) = (secret.metadata.clone(), references::data(secret));
    let key = context.roller.restarter.key().await;
    memory.rehash(&key.map_err(|error| Problem::new(Reason::WriteFailed, error.to_string()))?, &data);
    Ok(ManagedSecret { memory, meta: Some(meta), data })
}

/// The annotation of somebody else's Secret that holds what is remembered with the keys of this resource, and of no other.
pub(super) fn note(rotation: &SecretRotation) -> String {
    format!("{}{}", owner::MERGED, short(&owned_by(rotation)))
}

/// Tells resources apart that write to one Secret.
pub fn short(owned_by: &str) -> String {
    ids::short(owned_by.as_bytes())
}

/// The field manager of what the resource of that hash keeps in Secrets of others.
pub fn manager(short: &str) -> String {
    format!("{MANAGER}-{short}")
}

pub(super) fn noted(text: &str) -> Option<BTreeMap<String, String>> {
    serde_json::from_str(text).ok()
}

/// For writes to the target: as itself, or to somebody else's Secret as this resource alone, taking nothing over.
pub fn writer(context: &Context, rotation: &SecretRotation) -> Writer {
    if SecretSlot::Target.is_somebody_elses(rotation) {
        context.writer.managed(&manager(&short(&owned_by(rotation)))).without_force()
    } else {
        context.writer.clone()
    }
}

/// Whether keys may be generated for somebody else's Secret: it is there, and they have none of them.
pub fn may_generate(rotation: &SecretRotation, held: &ManagedSecret) -> Result<(), Problem> {
    let Some(spec) = rotation.spec.rotation.as_ref().filter(|_| SecretSlot::Target.is_somebody_elses(rotation)) else { return Ok(()) };
    if held.meta.is_none() {
        return Err(not_made_yet(rotation));
    }
    let theirs = |key: &&String| held.data.contains_key(*key) && !held.memory.values.contains_key(*key);
    let generated = spec.generate.iter().map(|generate| generate.secret_key.clone());
    let beside = public_keys(&rotation.spec)
        .chain(previous_keys(&rotation.spec))
        .chain(rotation.spec.data.iter().map(|data| data.secret_key.clone()));
    let texts = rotation.spec.template.iter().flat_map(|template| template.data.keys().cloned());
    let Some(key) = generated.chain(beside).chain(texts).find(|key| theirs(&key)) else { return Ok(()) };
    let message = format!("key {key:?} of Secret {} is set by somebody else; name another secretKey", rotation.spec.target.name);
    Err(Problem::new(Reason::NotOurs, message))
}

/// Whether `data` may be added to somebody else's Secret, asked before anybody hears of it.
pub async fn may_add(context: &Context, rotation: &SecretRotation, held: &ManagedSecret, data: SecretData) -> Result<(), Halt> {
    let Some(meta) = held.meta.as_ref().filter(|_| SecretSlot::Target.is_somebody_elses(rotation)) else { return Ok(()) };
    let all = held.ours().into_iter().chain(data).collect();
    let tried = writer(context, rotation).would_apply(secret(rotation, SecretSlot::Target, &all, &held.memory), meta).await;
    tried.map_err(owned)
}

fn not_made_yet(rotation: &SecretRotation) -> Problem {
    let message = format!(
        "there is no Secret {} yet; with target.creationPolicy: Merge somebody else makes it, and keys are added then",
        rotation.spec.target.name
    );
    Problem::new(Reason::Missing, message)
}

/// A key that somebody else sets needs a person.
pub(super) fn owned(error: WriteError) -> Halt {
    match error {
        WriteError::Owned { object, message } => {
            let remedy = "name another secretKey, or remove that key from the Secret, so that it can be ours";
            Problem::new(Reason::NotOurs, format!("{object}: {message}; {remedy}")).into()
        }
        error => error.into(),
    }
}

/// Writes the target, fenced by what was read: `data` in it becomes exactly that, as far as it is ours.
pub async fn store(
    context: &Context,
    rotation: &SecretRotation,
    held: &ManagedSecret,
    (data, consumed, memory): (&SecretData, bool, &mut Memory),
) -> Result<ObjectMeta, Halt> {
    let Some(read) = &held.meta else {
        if SecretSlot::Target.is_somebody_elses(rotation) {
            return Err(not_made_yet(rotation).into());
        }
        memory.change.becomes_new(Changed::AtCreation);
        return Ok(context.writer.create(secret(rotation, SecretSlot::Target, data, memory)).await?);
    };
    if consumed {
        changes(context, rotation, held, memory);
    } else if let Some(time) = writer(context, rotation).wrote_at(read).filter(|_| !memory.change.is_noted()) {
        memory.change.note(time);
    }
    write(context, rotation, read, (data, memory)).await
}

/// Notes in `memory` that other values take the place of what is `held`.
fn changes(context: &Context, rotation: &SecretRotation, held: &ManagedSecret, memory: &mut Memory) {
    if memory.values == held.memory.values && held.memory.stage == Stage::Complete {
        return memory.change.is_put_right(context.edits.since(&rotation.uid().unwrap_or_default()));
    }
    memory.change.becomes_new(Changed::JustNow);
    memory.change.after_unknown = held.memory.values.is_empty();
}

/// Writes it as it is to be remembered.
pub async fn write(
    context: &Context,
    rotation: &SecretRotation,
    read: &ObjectMeta,
    (data, memory): (&SecretData, &mut Memory),
) -> Result<ObjectMeta, Halt> {
    let mut change = memory.change.clone();
    let with = |change: &crate::rollout::change::Change| {
        let memory = Memory { change: change.clone(), ..memory.clone() };
        secret(rotation, SecretSlot::Target, data, &memory)
    };
    let written = act::store(&writer(context, rotation), with, read, &mut change).await.map_err(owned)?;
    memory.change = change;
    Ok(written)
}

/// Puts `data` into one of the Secrets beside.
pub async fn keep(context: &Context, rotation: &SecretRotation, which: SecretSlot, kept: (&SecretData, &Memory)) -> Result<(), Halt> {
    Ok(try_keep(context, rotation, which, kept).await??)
}

/// Puts `data` there; the inner error is of the write.
pub async fn try_keep(
    context: &Context,
    rotation: &SecretRotation,
    which: SecretSlot,
    (data, memory): (&SecretData, &Memory),
) -> Result<Result<(), WriteError>, Problem> {
    let there = read(context, rotation, which).await?;
    // What has nowhere else to go stays until others are everywhere.
    let mut data = data.clone();
    if which == SecretSlot::Previous {
        data.extend(there.taken_back());
    }
    let secret = secret(rotation, which, &data, memory);
    Ok(match &there.meta {
        Some(_) if there.data == data && there.memory == *memory => Ok(()),
        Some(meta) => context.writer.apply(secret, meta).await.map(|_| ()),
        None => context.writer.create(secret).await.map(|_| ()),
    })
}

/// Deletes one of the Secrets beside, if it is there and ours.
pub async fn forget(context: &Context, rotation: &SecretRotation, which: SecretSlot) -> Result<(), Halt> {
    match read(context, rotation, which).await {
        Err(problem) if matches!(problem.reason, Reason::NotOurs | Reason::ReservedType) => Ok(()),
        there => match there?.meta {
            Some(meta) => Ok(context.writer.delete::<Secret>(&meta).await?),
            None => Ok(()),
        },
    }
}

/// When anybody wrote to it last.
pub fn last_change(held: &ManagedSecret) -> Option<Timestamp> {
    held.memory.change.at.time().or_else(|| held.meta.as_ref().and_then(last_written))
}

/// Whether its labels, annotations and owner are what the spec and `memory` want.
pub fn is_dressed(rotation: &SecretRotation, meta: &ObjectMeta, memory: &Memory) -> bool {
    let wanted = secret(rotation, SecretSlot::Target, &SecretData::new(), memory).metadata;
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    // One of ours that is not wanted any more would take the Secret along.
    let is_ours = |uid: &str| rotation.uid().is_some_and(|ours| ours == uid);
    let orphan = rotation.spec.target.creation_policy == TargetPolicy::Orphan;
    let superfluous = orphan && owners.iter().any(|owner| is_ours(&owner.uid));
    !superfluous && owner::is_dressed(meta, &wanted)
}

/// A hash of what in the spec says what the Secret holds and looks like: another one is a reason to make it anew.
pub fn request(rotation: &SecretRotation) -> String {
    let spec = &rotation.spec;
    let generated: Vec<_> = spec.generators().map(|generate| &generate.secret_key).collect();
    let pushed: Vec<_> = spec.rotation_pushes().collect();
    let parts = (&spec.target, &spec.store, &spec.store_ref, &spec.data, &spec.data_from, &spec.template, generated, pushed);
    ids::hash(serde_json::to_string(&parts).unwrap_or_default().as_bytes())
}

fn secret(rotation: &SecretRotation, which: SecretSlot, data: &SecretData, memory: &Memory) -> Secret {
    let owned_by = owned_by(rotation);
    let template = rotation.spec.template.as_ref().and_then(|template| template.metadata.clone()).filter(|_| which == SecretSlot::Target);
    let template = template.unwrap_or_default();
    let mut labels = template.labels;
    let mut annotations = template.annotations;
    let shared = which.is_somebody_elses(rotation);
    if shared {
        let until = previous_until(rotation, memory).map(|until| (owner::PREVIOUS_UNTIL.into(), until.to_string()));
        let memory: BTreeMap<String, String> = memory.annotations().chain(until).collect();
        annotations.insert(note(rotation), serde_json::to_string(&memory).unwrap_or_default());
    } else {
        annotations.extend(memory.annotations());
        labels.insert(owner::OWNER_HASH.into(), owner::owner_hash(&owned_by));
        annotations.insert(owner::OWNER.into(), owned_by);
        annotations.extend(previous_until(rotation, memory).map(|until| (owner::PREVIOUS_UNTIL.into(), until.to_string())));
    }
    // What lies beside an orphan may be used as well, and nothing else outlives the resource.
    let goes_along = match rotation.spec.target.creation_policy {
        TargetPolicy::Owner => true,
        TargetPolicy::Orphan => false,
        TargetPolicy::Merge => which != SecretSlot::Target,
    };
    let owner = goes_along.then(|| vec![owner::reference(rotation)]);
    Secret {
        metadata: ObjectMeta {
            name: Some(which.name(rotation)),
            namespace: rotation.namespace(),
            // An empty one would be a claim on all of them.
            labels: (!labels.is_empty()).then_some(labels),
            annotations: Some(annotations),
            owner_references: owner,
            ..ObjectMeta::default()
        },
        type_: (!shared).then(|| which.secret_type(rotation).into()),
        immutable: (which == SecretSlot::Target && rotation.spec.target.immutable).then_some(true),
        data: Some(bytes(data)),
        ..Secret::default()
    }
}

/// Until when previous values are kept at most.
fn previous_until(rotation: &SecretRotation, memory: &Memory) -> Option<Timestamp> {
    let previous = rotation.spec.rotation.as_ref()?.previous.as_ref()?;
    memory.previous_since?.checked_add(previous.max_keep.signed()).ok()
}

pub(super) fn bytes(data: &SecretData) -> BTreeMap<String, ByteString> {
    data.iter().map(|(key, value)| (key.clone(), ByteString(value.to_vec()))).collect()
}
