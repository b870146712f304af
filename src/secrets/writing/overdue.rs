//! Previous values whose time is over, and that no look takes out, because the spec leads elsewhere by now (another name, type or policy of its target),
//! cannot be followed, or is not there: they are taken out of where they are, as that stands there. So it is with versions in a store.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Resource, ResourceExt, runtime::reflector::Store};

use super::{
    managed_secret::{self, ManagedSecret, SecretSlot, Shape, short},
    previous_over,
    rejected::consumed,
    retire,
};
use crate::{
    api::{SecretRotation, secret_rotation::TargetPolicy},
    cluster::{
        error::message,
        fields,
        owner::{self, PREVIOUS_SINCE, described},
        run::Guarded,
    },
    inventory::{
        Facts,
        secrets::{Kept, SecretFact},
    },
    rollout::{change::Changed, stage::Stage},
    secrets::{
        context::{Context, is_current},
        reason::Reason,
        status::{Halt, Problem},
    },
};

/// What is late by less is left to the look that is due.
const GRACE: SignedDuration = SignedDuration::from_mins(3);
/// What could not be done rests for so long.
const REST: SignedDuration = SignedDuration::from_mins(5);
/// So many Secrets at a time, and so long for each.
const AT_A_TIME: usize = 8;
const TIMEOUT: Duration = Duration::from_mins(1);

/// A Secret in which something is kept for longer than it may.
pub struct Place {
    /// The resource that keeps it; of one that is not there, or cannot be read, no more than its name.
    rotation: Box<SecretRotation>,
    /// Whether there is such a resource. None: nobody can read it.
    is_there: Option<bool>,
    /// The Secret's name.
    secret: String,
    /// The Secret is somebody else's.
    is_merged: bool,
    /// Previous values; else versions in a store.
    is_previous: bool,
}

/// All that were over for `grace` at `now`. What is suspended keeps them on purpose.
pub fn overdue(
    rotations: &Store<Guarded<SecretRotation>>,
    secrets: &Facts<SecretFact>,
    (now, grace): (Timestamp, SignedDuration),
) -> Vec<Place> {
    let mut kept = HashMap::<(String, String), Vec<(String, Kept)>>::new();
    secrets.for_each(|(namespace, name), fact| {
        let some = fact.kept.iter().flatten().filter(|kept| kept.has_versions || kept.previous_since.is_some());
        for one in some {
            kept.entry((namespace.to_string(), one.whose.to_string())).or_default().push((name.to_string(), one.clone()));
        }
    });
    if kept.is_empty() {
        return Vec::new();
    }
    let namespaces: BTreeSet<String> = kept.keys().map(|(namespace, _)| namespace.clone()).collect();
    let mut found = Vec::new();
    for object in rotations.state() {
        let Some(namespace) = object.namespace().filter(|namespace| namespaces.contains(namespace)) else { continue };
        let whose = short(&owner::owner(&SecretRotation::kind(&()), &object.name_any()));
        let Some(kept) = kept.remove(&(namespace, whose)) else { continue };
        for (secret, kept) in kept {
            let rotation = object.0.as_ref().ok();
            if let Some(is_previous) = is_over(rotation, &kept, (now, grace)) {
                let of_meta = || stub(object.meta().clone(), &secret);
                let Some(rotation) = rotation.cloned().or_else(of_meta) else { continue };
                let is_there = object.0.is_ok().then_some(true);
                found.push(Place { rotation: Box::new(rotation), is_there, secret, is_merged: kept.is_merged, is_previous });
            }
        }
    }
    // Of those that are left there is no resource any more. Whose they are stands on the Secret.
    for ((namespace, _), kept) in kept {
        for (secret, kept) in kept.into_iter().filter(|(_, kept)| !kept.is_merged) {
            let meta = kube::core::ObjectMeta { namespace: Some(namespace.clone()), ..Default::default() };
            if let (Some(true), Some(rotation)) = (is_over(None, &kept, (now, grace)), stub(meta, &secret)) {
                found.push(Place { rotation: Box::new(rotation), is_there: Some(false), secret, is_merged: false, is_previous: true });
            }
        }
    }
    found
}

/// A resource of which nothing is known but its name.
fn stub(metadata: kube::core::ObjectMeta, secret: &str) -> Option<SecretRotation> {
    let spec = serde_json::from_value(serde_json::json!({"target": {"name": secret}})).ok()?;
    Some(SecretRotation { metadata, spec, status: None })
}

/// Whether previous values (true), or else versions (false), are kept for too long. `rotation`: None: nobody knows what it says by now.
fn is_over(rotation: Option<&SecretRotation>, kept: &Kept, (now, grace): (Timestamp, SignedDuration)) -> Option<bool> {
    if rotation.is_some_and(|rotation| rotation.spec.suspend) {
        return None;
    }
    let end = match rotation {
        Some(rotation) => kept.previous_since.and_then(|since| {
            let previous = rotation.spec.rotation.as_ref().and_then(|rotation| rotation.previous.as_ref());
            since.checked_add(previous.map(|previous| previous.max_keep.signed()).unwrap_or_default()).ok() // else nobody wants them any more
        }),
        None => kept.previous_since.and(kept.previous_until),
    };
    let is_over = end.and_then(|end| end.checked_add(grace).ok()).is_some_and(|end| end <= now);
    if is_over { Some(true) } else { (kept.has_versions && rotation.is_some()).then_some(false) }
}

impl Place {
    /// Whether previous values are kept, rather than versions.
    pub const fn is_previous(&self) -> bool {
        self.is_previous
    }

    fn key(&self) -> (String, String) {
        (self.rotation.namespace().unwrap_or_default(), self.secret.clone())
    }

    /// Whether a look does it: it leads to this Secret, and has come to an end.
    fn has_look(&self, context: &Context) -> bool {
        let leads = [SecretSlot::Target, SecretSlot::Previous].iter().any(|slot| slot.name(&self.rotation) == self.secret);
        self.is_there == Some(true) && leads && !context.failures.has_failed(&self.rotation.uid().unwrap_or_default())
    }
}

/// Does it, round for round.
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
        let mut places = overdue(rotations, &context.roller.inventory.secrets, (now, GRACE));
        places.retain(|place| !self.resting.contains_key(&place.key()) && !place.has_look(context));
        // Whose store does not answer holds up nobody but himself.
        let mut asked = BTreeSet::new();
        places.retain(|place| place.is_previous || asked.insert(place.key().0));
        let work = stream::iter(places).map(|place| async move {
            let done = tokio::time::timeout(TIMEOUT, Box::pin(take_out(context, &place, now))).await;
            let failed = match done {
                Ok(Err(Halt::Problem(problem))) => problem.message,
                Err(_) => format!("not done within {TIMEOUT:?}"),
                // The next round sees what has become of it; versions are left to a later one.
                Ok(Ok(()) | Err(Halt::Superseded(_))) => return Some(place.key()).filter(|_| !place.is_previous),
            };
            let (namespace, secret) = place.key();
            tracing::warn!(object = place.rotation.name_any(), namespace, secret, failed, "what is over is kept for too long");
            Some((namespace, secret))
        });
        let resting: Vec<_> = work.buffer_unordered(AT_A_TIME).filter_map(std::future::ready).collect().await;
        self.resting.extend(resting.into_iter().map(|key| (key, now + REST)));
    }
}

async fn take_out(context: &Context, place: &Place, now: Timestamp) -> Result<(), Halt> {
    let (namespace, name) = (place.rotation.namespace().unwrap_or_default(), &place.secret);
    let unread = |error| Problem::new(Reason::WriteFailed, format!("Secret {name} could not be read: {}", message(&error)));
    let found = Api::<Secret>::namespaced(context.client.clone(), &namespace).get_opt(name).await.map_err(unread)?;
    let Some(secret) = found else { return Ok(()) };
    let Some(rotation) = keeper(place, &secret) else { return Ok(()) };
    let shape = Shape::of(&secret, place.is_merged);
    let not_ours = !fields::has_any(&secret.metadata, shape.writer(context, &rotation).manager());
    if not_ours || owner::check_shared(&secret, false, "").is_err() {
        let message = format!("Secret {name} says that it is of SecretRotation {}, and was written by somebody else", rotation.name_any());
        return Err(Problem::new(Reason::NotOurs, message).into());
    }
    let memory = managed_secret::remembered(&rotation, &secret, place.is_merged);
    let held = managed_secret::held(context, secret, memory).await?;
    match place.is_there {
        Some(false) => is_gone(context, &rotation).await?,
        _ => is_current(context, &rotation).await?,
    }
    if place.is_previous {
        Box::pin(previous_values(context, (place, &rotation, now), (&held, &shape))).await
    } else {
        versions(context, &rotation, (&held, &shape)).await
    }
}

/// The resource that keeps something in `secret`, if that is so. Keys in a Secret of somebody else go as a whole where the spec adds none there any more
/// ([`super::withdraw`]).
fn keeper(place: &Place, secret: &Secret) -> Option<SecretRotation> {
    let (mut rotation, target) = (SecretRotation::clone(&place.rotation), &place.rotation.spec.target);
    if place.is_merged {
        return (target.creation_policy == TargetPolicy::Merge && target.name == place.secret).then_some(rotation);
    }
    let name = owner::of(&secret.metadata)?.strip_prefix(&owner::owner(&SecretRotation::kind(&()), ""))?;
    if place.is_there == Some(false) {
        rotation.metadata.name = Some(name.to_owned());
    }
    (rotation.name_any() == name).then_some(rotation)
}

/// Whether there is really no such resource.
async fn is_gone(context: &Context, rotation: &SecretRotation) -> Result<(), Halt> {
    let api = Api::<SecretRotation>::namespaced(context.client.clone(), &rotation.namespace().unwrap_or_default());
    let unread = |error| Problem::new(Reason::WriteFailed, format!("{} could not be read: {}", described(rotation), message(&error)));
    match api.get_metadata_opt(&rotation.name_any()).await.map_err(unread)? {
        None => Ok(()),
        Some(_) => Err(crate::cluster::apply::WriteError::Superseded(described(rotation)).into()),
    }
}

async fn previous_values(
    context: &Context,
    (place, rotation, now): (&Place, &SecretRotation, Timestamp),
    (held, shape): (&ManagedSecret, &Shape),
) -> Result<(), Halt> {
    if held.memory.values.is_empty() || held.memory.previous_since.is_none() {
        let message = format!("Secret {} does not say what it holds: delete the key with the previous value", place.secret);
        return Err(Problem::new(Reason::NotOurs, message).into());
    }
    let (mut memory, before) = (held.memory.clone(), held.ours());
    let data = previous_over::without_previous((context, rotation), before.clone(), &mut memory).await?;
    memory.versions.retire_superseded();
    let is_other = consumed(rotation, &held.memory, &data) != consumed(rotation, &held.memory, &before);
    if is_other && !memory.stage.is_rolled_back() && SecretSlot::Target.name(rotation) == place.secret {
        // Who uses a text that held one gets the other, as soon as looks come to their end again.
        (memory.rotation, memory.reason) = (Some(crate::ids::random::<8>()), Some(Reason::PreviousOver.to_string()));
        (memory.revision, memory.started_at) = (memory.revision + 1, Some(Timestamp::from_second(now.as_second()).unwrap_or(now)));
        memory.stage = if rotation.spec.restart.is_some() { Stage::Open { base: None, from: None } } else { Stage::Complete };
        memory.change.becomes_new(Changed::JustNow);
    }
    let written = managed_secret::write_as_it_is(context, rotation, (held, shape), (&data, &memory)).await?;
    if !place.is_merged && written.annotations.is_some_and(|annotations| annotations.contains_key(PREVIOUS_SINCE)) {
        let message = format!("Secret {} was written by somebody else as well, who keeps the previous value in it", place.secret);
        return Err(Problem::new(Reason::NotOurs, message).into());
    }
    context.audit.done("delete-previous", &described(rotation), Reason::PreviousOver.as_str(), Some(memory.revision));
    Ok(())
}

async fn versions(context: &Context, rotation: &SecretRotation, (held, shape): (&ManagedSecret, &Shape)) -> Result<(), Halt> {
    let versions = Box::pin(retire::retire_noted(context, rotation, &held.memory.versions)).await?;
    if versions == held.memory.versions {
        return Ok(());
    }
    let memory = crate::secrets::memory::Memory { versions, ..held.memory.clone() };
    managed_secret::write_as_it_is(context, rotation, (held, shape), (&held.ours(), &memory)).await.map(|_| ())
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
            Some(SecretRotation::new("r", serde_json::from_value(spec).unwrap()))
        };
        let kept = || serde_json::json!({"keepFor": "1h", "maxKeep": "10h"});
        let (previous, both) = (Some(true), Some(false));
        for (what, rotation, hours, has_versions, wanted) in [
            ("not yet", rotation(kept(), false), 10, false, None),
            ("not yet, and versions", rotation(kept(), false), 10, true, both),
            ("for longer", rotation(kept(), false), 11, true, previous),
            ("suspended", rotation(kept(), true), 11, true, None),
            ("not wanted", rotation(serde_json::Value::Null, false), 1, false, previous),
            ("since just now", rotation(serde_json::Value::Null, false), 0, false, None),
            ("by nobody who can be read, not yet", None, 20, true, None),
            ("by nobody who can be read", None, 21, true, previous),
        ] {
            let since = now - hour * hours;
            let kept = Kept {
                whose: "r".into(),
                is_merged: false,
                previous_since: Some(since),
                previous_until: Some(since + hour * 20),
                has_versions,
            };
            assert_eq!(is_over(rotation.as_ref(), &kept, (now, hour)), wanted, "{what}");
        }
    }
}
