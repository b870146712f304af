//! Act: make new values and bring them to the store. Every step can be repeated.
//!
//! ```text
//!   read ─► generate ─► push ─► keep-previous ─► store ─► drop-pending
//! ```
//!
//! `generate` writes the new values into `<target>-pending` before anybody else hears of them. From then on whoever looks next goes on with those:
//! never two new values where one was meant, and none is lost that may be in use.

use jiff::Timestamp;

use super::{
    controller::Context,
    generate::generate,
    memory::{Hashes, Memory, hash},
    property,
    reason::Reason,
    status::{Halt, Problem},
    store::{Place, SecretData, StoreError, Write},
    sync::{Source, away},
    target::{self, Held, Which, described},
};
use crate::{
    api::{
        SecretRotation,
        secret_rotation::{Generate, UpdatePolicy},
    },
    ids,
};

/// The steps, in their order: what fault tests go through.
pub const STEPS: &[&str] = &["read", "generate", "push", "keep-previous", "store", "drop-pending", "report"];

/// So often a write that somebody else was faster than is tried again.
const ATTEMPTS: usize = 3;

/// Values that are on their way.
#[derive(Default)]
pub struct Pending {
    /// By key of the Secret.
    pub data: SecretData,
    /// Which rotation, why, since when, and which request it answers.
    pub memory: Memory,
}

/// What is on its way, if anything is.
pub async fn pending(context: &Context, rotation: &SecretRotation) -> Result<Option<Pending>, Problem> {
    if rotation.spec.rotation.is_none() {
        return Ok(None);
    }
    let Held { meta, data, memory } = target::read(context, rotation, Which::Pending).await?;
    Ok(meta.map(|_| Pending { data, memory }))
}

/// Makes new values and writes them down.
pub async fn begin(
    context: &Context,
    rotation: &SecretRotation,
    generators: impl Iterator<Item = &Generate>,
    (reason, asked, now): (Reason, &str, Timestamp),
) -> Result<Pending, Halt> {
    let data = values(generators)?;
    let memory = Memory {
        rotation: Some(ids::random::<8>()),
        reason: Some(reason.to_string()),
        started_at: Some(Timestamp::from_second(now.as_second()).unwrap_or(now)),
        handled_rotate: Some(asked.into()),
        ..Memory::default()
    };
    target::keep(context, rotation, Which::Pending, &data, &memory).await?;
    context.audit.record("generate", &described(rotation), reason.as_str(), "success", None);
    Ok(Pending { data, memory })
}

/// Adds to what is pending what the spec asks for by now.
pub async fn extend(
    context: &Context,
    rotation: &SecretRotation,
    mut pending: Pending,
    generators: impl Iterator<Item = &Generate>,
) -> Result<Pending, Halt> {
    pending.data.extend(values(generators)?);
    target::keep(context, rotation, Which::Pending, &pending.data, &pending.memory).await?;
    Ok(pending)
}

fn values<'a>(generators: impl Iterator<Item = &'a Generate>) -> Result<SecretData, Problem> {
    let value = |one: &Generate| {
        let value = generate(&one.generator)
            .map_err(|error| Problem::new(Reason::GenerateFailed, format!("spec.rotation.generate {:?}: {error}", one.secret_key)))?;
        Ok((one.secret_key.clone(), value))
    };
    generators.map(value).collect()
}

/// Writes values to the store, and returns those that it has and keeps (`IfNotExists`). `known` are the hashes of what may be replaced there: anything else was put there by somebody else since.
pub async fn push(
    context: &Context,
    rotation: &SecretRotation,
    source: &Source,
    values: &SecretData,
    (known, token): (&Hashes, &str),
) -> Result<SecretData, Halt> {
    let mut kept = SecretData::new();
    let key = context.roller.restarter.key().await?;
    let pushes = rotation.spec.rotation.iter().flat_map(|rotation| &rotation.push);
    for (push, value) in pushes.filter_map(|push| Some((push, values.get(&push.secret_key)?))) {
        let place = Place { key: push.remote_ref.key.clone(), version: None };
        let field = format!("rotation.push {:?} to {}", push.secret_key, place.key);
        let property = push.remote_ref.property.as_deref();
        let told = |error: StoreError| {
            let problem = away(context, rotation, &source.door, error);
            Problem { message: format!("{field}: {}", problem.message), ..problem }
        };
        for attempt in 1.. {
            let there = source.door.call(source.store.read(&place)).await;
            source.door.heard(&there);
            let there = match there {
                Ok(there) => Some(there),
                Err(StoreError::NotFound(_)) => None,
                Err(error) => return Err(told(error).into()),
            };
            let before = there.as_ref().and_then(|there| property::get(&there.content, property).ok());
            if let Some(before) = &before {
                let ours = known.get(&push.secret_key).is_some_and(|known| *known == hash(&key, &push.secret_key, before));
                match push.update_policy {
                    _ if before == value => break,
                    UpdatePolicy::IfNotExists => {
                        kept.insert(push.secret_key.clone(), before.clone());
                        break;
                    }
                    UpdatePolicy::Replace if !ours => {
                        let message = format!(
                            "{field}: somebody else has put another value there since it was read, and it is not overwritten; put the one before back, or delete Secret {}, so that this one is taken over first",
                            Which::Pending.name(rotation)
                        );
                        return Err(Problem::new(Reason::StoreConflict, message).into());
                    }
                    UpdatePolicy::Replace => {}
                }
            }
            let content = there.as_ref().map_or_else(|| source.store.blank(), |there| there.content.clone());
            let content = property::set(&content, property, value)
                .map_err(|error| Problem::new(Reason::ValueInvalid, format!("{field}: {error}")))?;
            let expected = there.as_ref().and_then(|there| there.version.as_deref());
            let write = Write { key: &place.key, content: &content, expected, token };
            let written = source.door.call(source.store.write(write)).await;
            source.door.heard(&written);
            source.door.forget(&place.key);
            match written {
                Ok(_) => {
                    context.audit.record("push", &described(rotation), Reason::Current.as_str(), "success", None);
                    break;
                }
                Err(StoreError::Conflict(_)) if attempt < ATTEMPTS => {} // read again, and see whose it is now
                Err(error) => return Err(told(error).into()),
            }
        }
    }
    Ok(kept)
}

/// The rotation is where it was going.
pub async fn finish(context: &Context, rotation: &SecretRotation) -> Result<(), Halt> {
    target::forget(context, rotation, Which::Pending).await
}
