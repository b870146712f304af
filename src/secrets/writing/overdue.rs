//! Previous values whose time is over, and that no look takes out, because the spec leads elsewhere by now (another name, type or policy of its target),
//! or cannot be followed: they are taken out of where they are, as that stands there.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Resource, ResourceExt, runtime::reflector::Store};

use super::{
    managed_secret::{self, short},
    previous_over, retire,
};
use crate::{
    api::{SecretRotation, secret_rotation::TargetPolicy},
    cluster::{
        error::message,
        owner::{self, described},
        run::Guarded,
    },
    inventory::{Facts, secrets::SecretFact},
    secrets::{
        context::{Context, is_current},
        reason::Reason,
        status::{Halt, Problem},
    },
};

/// What is late by less is left to the look that is due.
const GRACE: SignedDuration = SignedDuration::from_mins(1);
/// What could not be taken out rests for so long.
const REST: SignedDuration = SignedDuration::from_mins(5);

/// A Secret that keeps previous values for longer than the resource says whose it is.
pub struct Place {
    /// The resource.
    pub rotation: Arc<Guarded<SecretRotation>>,
    /// The Secret's name.
    pub secret: String,
    /// The Secret is somebody else's.
    pub is_merged: bool,
}

/// All that were over for `grace` at `now`. What is suspended keeps them on purpose.
pub fn overdue(
    rotations: &Store<Guarded<SecretRotation>>,
    secrets: &Facts<SecretFact>,
    (now, grace): (Timestamp, SignedDuration),
) -> Vec<Place> {
    let mut kept = HashMap::<(String, String), Vec<(String, bool, Timestamp)>>::new();
    secrets.for_each(|(namespace, name), fact| {
        for one in fact.kept.iter().flatten() {
            if let Some(since) = one.previous_since.filter(|since| *since <= now) {
                let whose = (namespace.to_string(), one.whose.to_string());
                kept.entry(whose).or_default().push((name.to_string(), one.is_merged, since));
            }
        }
    });
    if kept.is_empty() {
        return Vec::new(); // almost always
    }
    let namespaces: BTreeSet<String> = kept.keys().map(|(namespace, _)| namespace.clone()).collect();
    let mut found = Vec::new();
    for object in rotations.state() {
        let Some(namespace) = object.namespace().filter(|namespace| namespaces.contains(namespace)) else { continue };
        let whose = short(&owner::owner(&SecretRotation::kind(&()), &object.name_any()));
        let (Some(kept), Ok(rotation)) = (kept.get(&(namespace, whose)), &object.0) else { continue };
        let over = kept.iter().filter(|(_, _, since)| is_over(rotation, *since, (now, grace)));
        found.extend(over.map(|(secret, is_merged, _)| Place { rotation: object.clone(), secret: secret.clone(), is_merged: *is_merged }));
    }
    found
}

fn is_over(rotation: &SecretRotation, since: Timestamp, (now, grace): (Timestamp, SignedDuration)) -> bool {
    let previous = rotation.spec.rotation.as_ref().and_then(|rotation| rotation.previous.as_ref());
    let most = previous.map(|previous| previous.max_keep.signed()).unwrap_or_default(); // else nobody wants them any more
    let end = since.checked_add(most).and_then(|end| end.checked_add(grace));
    !rotation.spec.suspend && end.is_ok_and(|end| end <= now)
}

/// Takes them out, round for round.
#[derive(Default)]
pub struct Overdue {
    /// What could not be done, and when it is tried again.
    resting: HashMap<(String, String), Timestamp>,
}

impl Overdue {
    /// Takes out what is over. The caches have to be filled.
    pub async fn round(&mut self, context: &Context, rotations: &Store<Guarded<SecretRotation>>) {
        let now = context.clock.now();
        self.resting.retain(|_, until| *until > now);
        if context.writer.check().is_err() {
            return;
        }
        for place in overdue(rotations, &context.roller.inventory.secrets, (now, GRACE)) {
            let Ok(rotation) = &place.rotation.0 else { continue };
            let key = (rotation.namespace().unwrap_or_default(), place.secret.clone());
            if self.resting.contains_key(&key) {
                continue;
            }
            let failed = match take_out(context, rotation, (&place, now)).await {
                Ok(()) | Err(Halt::Superseded(_)) => continue, // the next round sees what has become of it
                Err(Halt::Problem(problem)) => problem.message,
            };
            tracing::warn!(
                object = rotation.name_any(),
                namespace = key.0,
                secret = key.1,
                failed,
                "previous values are kept for too long"
            );
            self.resting.insert(key, now + REST);
        }
    }
}

async fn take_out(context: &Context, rotation: &SecretRotation, (place, now): (&Place, Timestamp)) -> Result<(), Halt> {
    let (namespace, name) = (rotation.namespace().unwrap_or_default(), &place.secret);
    let unread = |error| Problem::new(Reason::WriteFailed, format!("Secret {name} could not be read: {}", message(&error)));
    let found = Api::<Secret>::namespaced(context.client.clone(), &namespace).get_opt(name).await.map_err(unread)?;
    let Some(secret) = found.filter(|secret| is_its_own(rotation, secret, place)) else { return Ok(()) };
    let shape = managed_secret::Shape::of(&secret);
    let memory = managed_secret::remembered(rotation, &secret, place.is_merged);
    let held = managed_secret::held(context, secret, memory).await?;
    if !held.memory.previous_since.is_some_and(|since| is_over(rotation, since, (now, GRACE))) {
        return Ok(());
    }
    is_current(context, rotation).await?;
    let mut memory = held.memory.clone();
    let data = previous_over::without_previous((context, rotation), held.ours(), &mut memory).await?;
    memory.versions.retire_superseded();
    match Box::pin(retire::retire_noted(context, rotation, &memory.versions)).await {
        Ok(versions) => memory.versions = versions,
        Err(Halt::Problem(problem)) => {
            tracing::warn!(
                object = rotation.name_any(),
                namespace,
                error = problem.message,
                "versions that were replaced stay in the store"
            );
        }
        Err(superseded) => return Err(superseded),
    }
    match &held.meta {
        Some(meta) if place.is_merged => drop(managed_secret::write(context, rotation, meta, (&data, &mut memory)).await?),
        _ => managed_secret::write_as_it_is(context, (&held, shape), (&data, &memory)).await?,
    }
    context.audit.done("delete-previous", &described(rotation), Reason::PreviousOver.as_str(), Some(memory.revision));
    Ok(())
}

/// Keys in a Secret of somebody else go as a whole where the spec adds none there any more ([`super::withdraw`]).
fn is_its_own(rotation: &SecretRotation, secret: &Secret, place: &Place) -> bool {
    let target = &rotation.spec.target;
    if owner::check_shared(secret, false, "").is_err() {
        return false; // Kubernetes itself fills it
    }
    if place.is_merged {
        target.creation_policy == TargetPolicy::Merge && target.name == place.secret
    } else {
        owner::of(&secret.metadata) == Some(&owner::owned_by(rotation))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_after_the_longest_time_and_at_once_where_nobody_wants_it() {
        let (hour, now) = (SignedDuration::from_hours(1), "2026-02-01T00:00:00Z".parse::<Timestamp>().unwrap());
        let rotation = |previous: serde_json::Value, suspend: bool| {
            let rotation = serde_json::json!({"generate": [{"secretKey": "a", "hex": {}}], "previous": previous});
            let spec = serde_json::json!({"target": {"name": "s"}, "rotation": rotation, "suspend": suspend});
            SecretRotation::new("r", serde_json::from_value(spec).unwrap())
        };
        let kept = || serde_json::json!({"keepFor": "1h", "maxKeep": "10h"});
        for (what, rotation, hours, wanted) in [
            ("not yet", rotation(kept(), false), 10, false),
            ("for longer", rotation(kept(), false), 11, true),
            ("suspended", rotation(kept(), true), 11, false),
            ("not wanted", rotation(serde_json::Value::Null, false), 1, true),
            ("since just now", rotation(serde_json::Value::Null, false), 0, false),
        ] {
            assert_eq!(is_over(&rotation, now - hour * hours, (now, hour)), wanted, "{what}");
        }
        assert!(!is_over(&rotation(kept(), false), Timestamp::MAX, (now, hour)), "what cannot be is never over");
    }
}
