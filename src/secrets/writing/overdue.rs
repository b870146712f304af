//! Previous values whose time is over, and that no look takes out, because the spec leads elsewhere by now (another name, type or policy of its target),
//! cannot be followed, or is not there: they are taken out of where they are, as that stands there. So it is with versions in a store.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Resource, ResourceExt,
    core::{ApiResource, DynamicObject},
    runtime::reflector::Store,
};

use super::{
    as_it_is::{self, Shape},
    managed_secret::{self, ManagedSecret, SecretSlot, short},
    previous_over::{self, Stays},
    rejected::consumed,
    retire,
};
use crate::{
    api::{SecretRotation, secret_rotation::TargetPolicy},
    cluster::{
        error::message,
        fields,
        owner::{self, described},
        run::Guarded,
    },
    inventory::{
        Facts,
        secrets::{Kept, SecretFact},
    },
    rollout::{change::Changed, stage::Stage},
    secrets::{
        context::{Context, is_current},
        index::PREVIOUS,
        memory::Memory,
        reason::Reason,
        status::{Halt, Problem},
        store::SecretData,
    },
};

/// What is late by less is left to the look that is due.
const GRACE: SignedDuration = SignedDuration::from_mins(3);
/// What could not be done rests for so long.
const REST: SignedDuration = SignedDuration::from_mins(5);
/// So long where there was nothing to do yet: a version that a store lets us retire only after the next one.
const LATER: SignedDuration = SignedDuration::from_hours(1);
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
    /// A hash of the resource, as [`Kept::whose`].
    whose: Box<str>,
    /// The Secret is somebody else's.
    is_merged: bool,
}

/// What is kept for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Previous values.
    Previous,
    /// Versions in a store.
    Versions,
}

impl Over {
    const fn named(self) -> &'static str {
        match self {
            Self::Previous => "previous values",
            Self::Versions => "replaced versions in a store",
        }
    }
}

/// All of `what` that were over for `grace` at `now`. What is suspended keeps them on purpose.
pub fn overdue(
    rotations: &Store<Guarded<SecretRotation>>,
    secrets: &Facts<SecretFact>,
    (what, now, grace): (Over, Timestamp, SignedDuration),
) -> Vec<Place> {
    let mut kept = HashMap::<(String, String), Vec<(String, Kept)>>::new();
    secrets.for_each(|(namespace, name), fact| {
        let some = fact.kept.iter().flatten().filter(|kept| match what {
            Over::Previous => kept.previous_since.is_some(),
            Over::Versions => kept.has_versions,
        });
        for one in some {
            kept.entry((namespace.to_string(), one.whose.to_string())).or_default().push((name.to_string(), one.clone()));
        }
    });
    if what == Over::Versions {
        // What lies beside another has a copy of what is noted there.
        let is_beside =
            |namespace: &str, name: &str| name.strip_suffix(PREVIOUS).is_some_and(|target| secrets.get(namespace, target).is_some());
        for ((namespace, _), kept) in &mut kept {
            kept.retain(|(name, _)| !is_beside(namespace, name));
        }
    }
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
            if is_over(rotation, &kept, (what, now, grace)) {
                let of_meta = || stub(object.meta().clone(), &secret);
                let Some(rotation) = rotation.cloned().or_else(of_meta) else { continue };
                let is_there = object.0.is_ok().then_some(true);
                found.push(Place { rotation: Box::new(rotation), is_there, secret, whose: kept.whose, is_merged: kept.is_merged });
            }
        }
    }
    // Of those that are left there is no resource any more. Whose they are stands on the Secret.
    for ((namespace, _), kept) in kept {
        for (secret, kept) in kept.into_iter().filter(|(_, kept)| !kept.is_merged) {
            let meta = kube::core::ObjectMeta { namespace: Some(namespace.clone()), ..Default::default() };
            if let (true, Some(rotation)) = (is_over(None, &kept, (what, now, grace)), stub(meta, &secret)) {
                found.push(Place { rotation: Box::new(rotation), is_there: Some(false), secret, whose: kept.whose, is_merged: false });
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

/// Whether it is kept for too long. `rotation`: None: nobody knows what it says by now, nor in which store versions are.
fn is_over(rotation: Option<&SecretRotation>, kept: &Kept, (what, now, grace): (Over, Timestamp, SignedDuration)) -> bool {
    if rotation.is_some_and(|rotation| rotation.spec.suspend) {
        return false;
    }
    if what == Over::Versions {
        return kept.has_versions && rotation.is_some();
    }
    let end = match rotation {
        Some(rotation) => kept.previous_since.and_then(|since| {
            let previous = rotation.spec.rotation.as_ref().and_then(|rotation| rotation.previous.as_ref());
            since.checked_add(previous.map(|previous| previous.max_keep.signed()).unwrap_or_default()).ok() // else nobody wants them any more
        }),
        None => kept.previous_since.and(kept.previous_until),
    };
    end.and_then(|end| end.checked_add(grace).ok()).is_some_and(|end| end <= now)
}

impl Place {
    fn key(&self) -> Key {
        (self.rotation.namespace().unwrap_or_default(), self.secret.clone(), self.whose.clone())
    }

    /// Whether what it is about is over in `secret`, too: it was read later than the list was made.
    fn is_over_in(&self, secret: &Secret, what: (Over, Timestamp, SignedDuration)) -> bool {
        let rotation = Some(&*self.rotation).filter(|_| self.is_there == Some(true));
        let fact = SecretFact::of(&secret.metadata);
        let mut ours = fact.kept.iter().flatten().filter(|kept| kept.whose == self.whose && kept.is_merged == self.is_merged);
        ours.any(|kept| is_over(rotation, kept, what))
    }

    /// What to remove from a Secret that only says so.
    fn remedy(&self, what: Over) -> String {
        match what {
            Over::Previous if self.is_merged => format!("the previous value, and its annotation {}{}", owner::MERGED, self.whose),
            Over::Previous => format!("the previous value, and its annotation {}", owner::PREVIOUS_SINCE),
            Over::Versions if self.is_merged => format!("its annotation {}{}", owner::MERGED, self.whose),
            Over::Versions => format!("its annotation {}", owner::VERSIONS_OVER),
        }
    }

    /// Whether a look does it: it leads to this Secret, as one of that kind, and has come to an end.
    fn has_look(&self, context: &Context) -> bool {
        let (spec, meta) = (&self.rotation.spec, &self.rotation.metadata);
        let is_target = spec.target.name == self.secret && self.is_merged == (spec.target.creation_policy == TargetPolicy::Merge);
        let leads = !spec.is_push_only() && (is_target || SecretSlot::Previous.name(&self.rotation) == self.secret);
        let looks = self.is_there == Some(true) && meta.deletion_timestamp.is_none();
        looks && leads && !context.failures.has_failed(&self.rotation.uid().unwrap_or_default())
    }
}

/// Namespace and name of a Secret, and who keeps something in it.
type Key = (String, String, Box<str>);

/// Does it, round for round.
pub struct Overdue {
    what: Over,
    /// What could not be done, and when it is tried again.
    resting: HashMap<Key, Timestamp>,
}

impl Overdue {
    /// Of these.
    pub fn of(what: Over) -> Self {
        Self { what, resting: HashMap::new() }
    }

    /// Takes out what is over. The caches have to be filled.
    pub async fn round(&mut self, context: &Context, rotations: &Store<Guarded<SecretRotation>>) {
        let now = context.clock.now();
        self.resting.retain(|_, until| *until > now);
        if context.writer.check().is_err() {
            return;
        }
        let what = self.what;
        let mut places = overdue(rotations, &context.roller.inventory.secrets, (what, now, GRACE));
        places.retain(|place| !self.resting.contains_key(&place.key()) && !place.has_look(context));
        // Of the stores of one namespace one is asked at a time.
        let mut asked = BTreeSet::new();
        places.retain(|place| what == Over::Previous || asked.insert(place.key().0));
        let work = stream::iter(places).map(|place| async move {
            let done = tokio::time::timeout(TIMEOUT, Box::pin(take_out(context, (&place, what), now))).await;
            let failed = match done {
                Ok(Ok(rest)) => return (place.key(), rest),
                // The next round sees what has become of it.
                Ok(Err(Halt::Superseded(_))) => return (place.key(), SignedDuration::ZERO),
                Ok(Err(Halt::Problem(problem))) => problem.message,
                Err(_) => format!("not done within {TIMEOUT:?}"),
            };
            let (namespace, secret, whose) = place.key();
            tracing::warn!(object = place.rotation.name_any(), namespace, secret, failed, "{} are kept for too long", what.named());
            ((namespace, secret, whose), REST)
        });
        let resting: Vec<_> = work.buffer_unordered(AT_A_TIME).collect().await;
        self.resting.extend(resting.into_iter().map(|(key, rest)| (key, now + rest)));
    }
}

/// Returns for how long the place rests after that.
async fn take_out(context: &Context, (place, what): (&Place, Over), now: Timestamp) -> Result<SignedDuration, Halt> {
    let (namespace, name) = (place.rotation.namespace().unwrap_or_default(), &place.secret);
    let unread = |error| Problem::new(Reason::WriteFailed, format!("Secret {name} could not be read: {}", message(&error)));
    let found = Api::<Secret>::namespaced(context.client.clone(), &namespace).get_opt(name).await.map_err(unread)?;
    let Some(secret) = found else { return Ok(LATER) };
    if !place.is_over_in(&secret, (what, now, GRACE)) {
        return Ok(SignedDuration::ZERO);
    }
    let shape = Shape::of(&secret, place.is_merged);
    let not_ours = !fields::has_any(&secret.metadata, shape.writer(context, &place.rotation).manager());
    if not_ours || owner::check_shared(&secret, false, "").is_err() {
        let message = format!(
            "Secret {name} says that it keeps {} of a SecretRotation, and was written by somebody else: remove {}",
            what.named(),
            place.remedy(what)
        );
        return Err(Problem::new(Reason::NotOurs, message).into());
    }
    let Some(rotation) = keeper(place, &secret) else { return Ok(LATER) };
    let memory = managed_secret::remembered(&rotation, &secret, place.is_merged);
    let held = managed_secret::held(context, secret, memory).await?;
    if !is_still(context, place, &rotation).await? {
        return Ok(REST);
    }
    match what {
        Over::Previous => Box::pin(previous_values(context, (place, &rotation, now), (&held, &shape))).await,
        Over::Versions => versions(context, &rotation, (&held, &shape)).await,
    }
}

/// The resource that keeps something in `secret`, if that is so. Keys in a Secret of somebody else go as a whole where the spec adds none there any more
/// ([`super::withdraw`]).
fn keeper(place: &Place, secret: &Secret) -> Option<SecretRotation> {
    let (mut rotation, target) = (SecretRotation::clone(&place.rotation), &place.rotation.spec.target);
    if place.is_merged {
        let is_led_to = target.creation_policy == TargetPolicy::Merge && target.name == place.secret;
        return (is_led_to || place.is_there.is_none()).then_some(rotation);
    }
    let name = owner::of(&secret.metadata)?.strip_prefix(&owner::owner(&SecretRotation::kind(&()), ""))?;
    if place.is_there == Some(false) {
        rotation.metadata.name = Some(name.to_owned());
    }
    (rotation.name_any() == name).then_some(rotation)
}

/// Whether the resource is what the caches say of it; of one that cannot be read, whether it is not suspended.
async fn is_still(context: &Context, place: &Place, rotation: &SecretRotation) -> Result<bool, Halt> {
    if place.is_there == Some(true) {
        return is_current(context, rotation).await.map(|()| true);
    }
    let api = Api::<DynamicObject>::namespaced_with(
        context.client.clone(),
        &rotation.namespace().unwrap_or_default(),
        &ApiResource::erase::<SecretRotation>(&()),
    );
    let unread = |error| Problem::new(Reason::WriteFailed, format!("{} could not be read: {}", described(rotation), message(&error)));
    let found = api.get_opt(&rotation.name_any()).await.map_err(unread)?;
    Ok(match (place.is_there, found) {
        (Some(_), found) => found.is_none(),
        (None, None) => false,
        (None, Some(object)) => object.metadata.generation == rotation.metadata.generation && object.data["spec"]["suspend"] != true,
    })
}

async fn previous_values(
    context: &Context,
    (place, rotation, now): (&Place, &SecretRotation, Timestamp),
    (held, shape): (&ManagedSecret, &Shape),
) -> Result<SignedDuration, Halt> {
    if held.memory.values.is_empty() || held.memory.previous_since.is_none() {
        let message = format!("Secret {} does not say what it holds: delete the key with the previous value", place.secret);
        return Err(Problem::new(Reason::NotOurs, message).into());
    }
    let (mut memory, before) = (held.memory.clone(), held.ours());
    let data = previous_over::without_previous((context, rotation), before.clone(), &mut memory).await?;
    memory.versions.retire_superseded();
    let (writer, key) = (shape.writer(context, rotation), context.roller.restarter.key().await?);
    let stays = previous_over::stays_with_others(&key, (held, writer.manager()), (&before, &data), &mut memory);
    // What stays as it is, is no other for who uses it.
    let theirs = as_it_is::left_to_others((held, shape), &writer, &data);
    let changes = |name: &String| !theirs.contains(name) && stays.as_ref().is_none_or(|stays| !stays.names.contains(name));
    let used = |data: &SecretData| {
        let mut used = consumed(rotation, &held.memory, data);
        used.retain(|name, _| changes(name));
        used
    };
    let is_other = used(&data) != used(&before);
    if is_other && !memory.stage.is_rolled_back() && place.is_there == Some(true) && rotation.spec.target.name == place.secret {
        // Who uses a text that held one gets the other, as soon as looks come to their end again.
        (memory.rotation, memory.reason) = (Some(crate::ids::random::<8>()), Some(Reason::PreviousOver.to_string()));
        (memory.revision, memory.started_at) = (memory.revision + 1, Some(Timestamp::from_second(now.as_second()).unwrap_or(now)));
        if memory.stage == Stage::Complete && rotation.spec.restart.is_some() {
            memory.stage = Stage::Open { base: None, from: None };
        }
        memory.stage = memory.stage.redressed(managed_secret::last_change(held));
        memory.change.becomes_new(Changed::JustNow);
    }
    let written = write((context, rotation), (held, shape), (stays.as_ref(), &theirs), (&data, &memory)).await?;
    if let Some(message) = previous_over::remains((rotation, &place.secret), (&written, writer.manager(), place.is_merged), stays.as_ref())
    {
        return Err(Problem::new(Reason::NotOurs, message).into());
    }
    if let Some(text) = held.memory.previous_texts.keys().find(|text| theirs.contains(*text)) {
        let message =
            format!("key {text:?} of Secret {} was set by somebody else as well, and may hold a previous value: it stays", place.secret);
        return Err(Problem::new(Reason::NotOurs, message).into());
    }
    context.audit.done("delete-previous", &described(rotation), Reason::PreviousOver.as_str(), Some(memory.revision));
    Ok(SignedDuration::ZERO)
}

/// Writes it, unless all that is ours is written already.
async fn write(
    (context, rotation): (&Context, &SecretRotation),
    (held, shape): (&ManagedSecret, &Shape),
    (stays, theirs): (Option<&Stays>, &BTreeSet<String>),
    (data, memory): (&SecretData, &Memory),
) -> Result<ObjectMeta, Halt> {
    let writer = shape.writer(context, rotation);
    let (there, known) = previous_over::ours_beside((held, writer.manager(), shape.is_merged), stays);
    let without_theirs = |data: &SecretData| -> SecretData {
        data.iter().filter(|(name, _)| !theirs.contains(*name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let is_written = known == *memory && without_theirs(&there) == without_theirs(data);
    if let Some(meta) = held.meta.as_ref().filter(|_| is_written) {
        return Ok(meta.clone());
    }
    let data = data.clone().into_iter().chain(held.taken_back()).collect();
    as_it_is::write(context, rotation, (held, shape), (&data, memory)).await
}

async fn versions(context: &Context, rotation: &SecretRotation, (held, shape): (&ManagedSecret, &Shape)) -> Result<SignedDuration, Halt> {
    let versions = Box::pin(retire::retire_noted(context, rotation, &held.memory.versions)).await?;
    if versions == held.memory.versions {
        return Ok(LATER);
    }
    let memory = Memory { versions, ..held.memory.clone() };
    let data = held.ours().into_iter().chain(held.taken_back()).collect();
    as_it_is::write(context, rotation, (held, shape), (&data, &memory)).await.map(|_| REST)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::cluster::owner::PREVIOUS_SINCE;

    #[test]
    fn it_is_over_after_the_longest_time_and_at_once_where_nobody_wants_it() {
        let (hour, now) = (SignedDuration::from_hours(1), "2026-02-01T00:00:00Z".parse::<Timestamp>().unwrap());
        let rotation = |previous: serde_json::Value, suspend: bool| {
            let rotation = serde_json::json!({"generate": [{"secretKey": "a", "hex": {}}], "previous": previous});
            let spec = serde_json::json!({"target": {"name": "s"}, "rotation": rotation, "suspend": suspend});
            Some(SecretRotation::new("r", serde_json::from_value(spec).unwrap()))
        };
        let kept = || serde_json::json!({"keepFor": "1h", "maxKeep": "10h"});
        for (what, rotation, hours, wanted) in [
            ("not yet", rotation(kept(), false), 10, (false, true)),
            ("for longer", rotation(kept(), false), 11, (true, true)),
            ("suspended", rotation(kept(), true), 11, (false, false)),
            ("not wanted", rotation(serde_json::Value::Null, false), 1, (true, true)),
            ("since just now", rotation(serde_json::Value::Null, false), 0, (false, true)),
            ("by nobody who can be read, not yet", None, 20, (false, false)),
            ("by nobody who can be read", None, 21, (true, false)),
        ] {
            let since = now - hour * hours;
            let kept = Kept {
                whose: "r".into(),
                is_merged: false,
                is_written: true,
                previous_since: Some(since),
                previous_until: Some(since + hour * 20),
                has_versions: true,
            };
            let is_over = |over: Over| is_over(rotation.as_ref(), &kept, (over, now, hour));
            assert_eq!((is_over(Over::Previous), is_over(Over::Versions)), wanted, "{what}");
        }
    }

    /// The list may be older than the Secret: values that have been replaced since then are not over.
    #[test]
    fn what_was_read_later_than_the_list_is_judged_anew() {
        let (now, hour): (Timestamp, _) = ("2026-06-01T00:00:00Z".parse().unwrap(), SignedDuration::from_hours(1));
        let spec =
            serde_json::json!({"target": {"name": "s"}, "rotation": {"generate": [], "previous": {"keepFor": "1h", "maxKeep": "10h"}}});
        let mut rotation = SecretRotation::new("r", serde_json::from_value(spec).unwrap());
        rotation.metadata.namespace = Some("n".into());
        let owner = owner::owned_by(&rotation);
        let place =
            Place { rotation: Box::new(rotation), is_there: Some(true), secret: "s".into(), whose: short(&owner).into(), is_merged: false };
        let secret = |since: Timestamp, owner: &str| {
            let annotations = [(PREVIOUS_SINCE, since.to_string()), (owner::OWNER, owner.to_owned())];
            let annotations = annotations.map(|(key, value)| (key.to_owned(), value)).into();
            Secret { metadata: kube::core::ObjectMeta { annotations: Some(annotations), ..Default::default() }, ..Secret::default() }
        };
        for (since, owner, wanted) in
            [(now - hour * 12, owner.as_str(), true), (now - hour * 9, &owner, false), (now - hour * 12, "SecretRotation/another", false)]
        {
            assert_eq!(place.is_over_in(&secret(since, owner), (Over::Previous, now, hour)), wanted, "{since} {owner}");
        }
    }
}
