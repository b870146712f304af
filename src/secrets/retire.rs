//! The versions in the store that a rotation has replaced are retired when the values before are not kept any longer: disabled or deleted, as the
//! store has it.

use kube::ResourceExt;

use super::{
    controller::{Context, is_current},
    decide,
    memory::Memory,
    resolve::resolve,
    status::{Halt, View},
    store::StoreError,
    sync,
    target::{self, Which, described},
};
use crate::{api::SecretRotation, rollout::stage::Stage};

/// Whether nobody needs them: everybody has the new values, and those before are kept nowhere.
fn is_due(memory: &Memory) -> bool {
    !memory.superseded.is_empty() && memory.previous_since.is_none() && memory.stage == Stage::Complete
}

/// Retires them, where that is due and the store lets us. A store that is away is asked with the next look.
pub async fn superseded(context: &Context, rotation: &SecretRotation, view: &mut View) -> Result<(), Halt> {
    if !is_due(&view.memory) || view.plan.is_none_or(|plan| plan.rest) || !decide::reads(&rotation.spec) {
        return Ok(());
    }
    let held = target::read(context, rotation, Which::Target).await?;
    let Some(meta) = held.meta.as_ref().filter(|_| held.memory.superseded == view.memory.superseded && is_due(&held.memory)) else {
        return Ok(());
    };
    is_current(context, rotation).await?;
    let Some(resolved) = resolve(context.cluster_stores.as_ref(), rotation)? else { return Ok(()) };
    let source = sync::source(context, rotation, resolved).await?;
    for (key, versions) in &held.memory.superseded {
        for version in versions {
            let retired = source.door.call(source.store.retire(key, version)).await;
            source.door.heard(&retired);
            match retired {
                Ok(()) => context.audit.record("retire", &described(rotation), "PreviousOver", "success", Some(held.memory.revision)),
                Err(error) if error.is_of_the_store() => return Err(sync::away(context, rotation, &source.door, error).into()),
                // It is another right than that of writing.
                Err(error @ (StoreError::Denied(_) | StoreError::Invalid(_) | StoreError::NotFound(_) | StoreError::Conflict(_))) => {
                    tracing::info!(object = rotation.name_any(), namespace = rotation.namespace(), %error, "a version that was replaced is left as it is");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let mut memory = Memory { superseded: super::memory::Superseded::new(), ..held.memory.clone() };
    target::write(context, rotation, meta, &held.ours(), &mut memory).await?;
    view.memory = memory;
    Ok(())
}
