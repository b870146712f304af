//! Act: make new values and bring them to the store. Every step can be repeated.
//!
//! ```text
//!   read ─► generate ─► push ─► keep-previous ─► store ─► drop-pending
//! ```
//!
//! `generate` writes the new values into `<target>-pending` before anybody else hears of them. From then on whoever looks next goes on with those:
//! never two new values where one was meant, and none is lost that may be in use.

use jiff::Timestamp;
use kube::ResourceExt;

use super::managed_secret::{self, ManagedSecret, SecretSlot};
use crate::{
    api::{SecretRotation, secret_rotation::Generate},
    cluster::owner::described,
    ids,
    secrets::{
        contents::generate::generate,
        context::{Context, is_current},
        memory::{Memory, Superseded, Versions},
        reason::Reason,
        status::{Halt, Problem},
        store::SecretData,
    },
};

/// The steps, in their order: what fault tests go through.
pub const STEPS: &[&str] = &["read", "generate", "push", "keep-previous", "store", "drop-pending", "report"];

/// Values that are on their way.
#[derive(Default)]
pub struct Pending {
    /// By key of the Secret.
    pub data: SecretData,
    /// Which rotation, why, since when, and which request it answers; and the hashes of the values that are to be replaced.
    pub memory: Memory,
}

/// What is on its way, if anything is.
pub async fn pending(context: &Context, rotation: &SecretRotation) -> Result<Option<Pending>, Problem> {
    if rotation.spec.rotation.is_none() {
        return Ok(None);
    }
    let ManagedSecret { meta, data, memory } = managed_secret::read(context, rotation, SecretSlot::Pending).await?;
    Ok(meta.map(|_| Pending { data, memory }))
}

/// Why a rotation begins.
pub struct Cause<'a> {
    /// What is told.
    pub reason: Reason,
    /// The request that it answers.
    pub asked: &'a str,
    /// When.
    pub now: Timestamp,
    /// The versions that are to be replaced in the store.
    pub versions: Superseded,
    /// What is written down with the values that are to be replaced.
    pub replaced: &'a Memory,
}

/// Makes new values and writes them down, with what they are for.
pub async fn begin(
    context: &Context,
    rotation: &SecretRotation,
    generators: impl Iterator<Item = &Generate>,
    Cause { reason, asked, now, versions, replaced }: Cause<'_>,
) -> Result<Pending, Halt> {
    let data = values(generators).await?;
    let memory = Memory {
        rotation: Some(ids::random::<8>()),
        reason: Some(reason.to_string()),
        started_at: Some(Timestamp::from_second(now.as_second()).unwrap_or(now)),
        handled_rotate: Some(asked.into()),
        versions: Versions { superseded: versions, ..Versions::default() },
        values: replaced.values.iter().filter(|(key, _)| data.contains_key(*key)).map(|(key, hash)| (key.clone(), hash.clone())).collect(),
        key: replaced.key.clone(),
        ..Memory::default()
    };
    managed_secret::keep(context, rotation, SecretSlot::Pending, (&data, &memory)).await?;
    context.audit.done("generate", &described(rotation), reason.as_str(), None);
    Ok(Pending { data, memory })
}

/// Adds to what is pending what the spec asks for by now.
pub async fn extend(
    context: &Context,
    rotation: &SecretRotation,
    mut pending: Pending,
    generators: impl Iterator<Item = &Generate>,
) -> Result<Pending, Halt> {
    pending.data.extend(values(generators).await?);
    managed_secret::keep(context, rotation, SecretSlot::Pending, (&pending.data, &pending.memory)).await?;
    Ok(pending)
}

/// RSA keys take long enough to hold others up.
async fn values(generators: impl Iterator<Item = &Generate>) -> Result<SecretData, Problem> {
    let generators: Vec<Generate> = generators.cloned().collect();
    let value = |one: Generate| {
        let failed = |error| Problem::new(Reason::GenerateFailed, format!("spec.rotation.generate {:?}: {error}", one.secret_key));
        Ok((one.secret_key.clone(), generate(&one.generator).map_err(failed)?))
    };
    let work = tokio::task::spawn_blocking(move || generators.into_iter().map(value).collect());
    work.await.unwrap_or_else(|_| Err(Problem::new(Reason::GenerateFailed, "the values could not be generated")))
}

/// Deletes `-pending`, unless what it holds is still on its way: is of none of the rotations that `arrived`.
pub async fn finish(context: &Context, rotation: &SecretRotation, arrived: &[&Memory]) -> Result<(), Halt> {
    let there = match managed_secret::read(context, rotation, SecretSlot::Pending).await {
        Err(problem) if matches!(problem.reason, Reason::NotOurs | Reason::ReservedType) => return Ok(()),
        there => there?,
    };
    if there.meta.is_some() && arrived.iter().all(|arrived| arrived.rotation != there.memory.rotation) {
        return Ok(());
    }
    managed_secret::forget(context, rotation, SecretSlot::Pending).await
}

/// Values were on their way when `spec.rotation` was taken away: they go nowhere any more. What the store has got of them it keeps.
pub async fn abandon(context: &Context, rotation: &SecretRotation) -> Result<(), Halt> {
    let (namespace, name) = (rotation.namespace().unwrap_or_default(), SecretSlot::Pending.name(rotation));
    if rotation.spec.rotation.is_some() || context.roller.inventory.secrets.get(&namespace, &name).is_none() {
        return Ok(());
    }
    match managed_secret::read(context, rotation, SecretSlot::Pending).await {
        Ok(ManagedSecret { meta: Some(_), .. }) => {
            is_current(context, rotation).await?;
            managed_secret::forget(context, rotation, SecretSlot::Pending).await
        }
        Ok(_) | Err(_) => Ok(()), // another's may be called that
    }
}
