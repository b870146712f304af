//! Keys that were added to a Secret of somebody else (`creationPolicy: Merge`) go when the resource goes, or adds them elsewhere. No finalizer: nobody
//! has to wait for us to delete a resource, and what went while nobody ran is found by what is noted on the Secret.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, Resource, ResourceExt, runtime::reflector::Store};

use super::managed_secret::{manager, short};
use crate::{
    api::{SecretRotation, secret_rotation::TargetPolicy},
    clock::Clock,
    cluster::{
        apply::{WriteError, Writer},
        fields,
        owner::{self, MERGED},
        run::Guarded,
    },
    inventory::{Facts, secrets::SecretFact},
    secrets::reason::Reason,
    telemetry::audit::Audit,
};

/// What cannot be withdrawn rests for so long.
const REST: SignedDuration = SignedDuration::from_mins(5);
/// And for so long what says that it is ours and was not written by us: who may write annotations can say that of everything.
const NOT_OURS: SignedDuration = SignedDuration::from_hours(1);

/// Namespace and name of a Secret, and a hash of the resource whose keys are in it.
type Place = (String, String, String);

/// What a round works with.
pub struct Withdrawal {
    /// The resources.
    pub rotations: Store<Guarded<SecretRotation>>,
    /// The Secrets.
    pub secrets: Facts<SecretFact>,
    /// For reads.
    pub client: Client,
    /// For writes.
    pub writer: Writer,
    /// Every act on a credential.
    pub audit: Audit,
    /// The time.
    pub clock: Clock,
}

/// What has become of a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Withdrawn {
    /// It is done.
    Done,
    /// There is nothing to do any more.
    Gone,
    /// What is there was written by somebody else.
    NotOurs,
    /// Somebody else has written the same, and keeps it.
    Kept,
}

impl Withdrawal {
    /// Withdraws what no resource keeps any more, but for what is `resting` until then. Both caches have to be filled.
    pub async fn round(&self, resting: &mut HashMap<Place, Timestamp>) {
        let now = self.clock.now();
        resting.retain(|_, until| *until > now);
        let mut noted = Vec::new();
        self.secrets.for_each(|(namespace, name), fact| {
            let merged = fact.kept.iter().flatten().filter(|kept| kept.is_merged && kept.is_written);
            noted.extend(merged.map(|kept| (namespace.to_string(), name.to_string(), kept.whose.to_string())));
        });
        if noted.is_empty() || self.writer.check().is_err() {
            return;
        }
        let (mut kept, mut left) = (HashSet::new(), HashSet::new());
        for object in self.rotations.state() {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            let whose = short(&owner::owner(&SecretRotation::kind(&()), &name));
            match &object.0 {
                Ok(rotation) if rotation.spec.suspend => drop(left.insert((namespace, whose))),
                Ok(rotation) if rotation.spec.target.creation_policy == TargetPolicy::Merge => {
                    kept.insert((namespace, rotation.spec.target.name.clone(), whose));
                }
                Ok(_) => {}
                Err(_) => drop(left.insert((namespace, whose))), // nobody knows what it means
            }
        }
        // Who keeps keys there by now may go soon.
        resting.retain(|place, _| !kept.contains(place));
        for (namespace, name, whose) in noted {
            let place = (namespace, name, whose);
            if kept.contains(&place) || left.contains(&(place.0.clone(), place.2.clone())) || resting.contains_key(&place) {
                continue;
            }
            if let Some(rest) = self.try_one(&place).await {
                resting.insert(place, now + rest);
            }
        }
    }

    /// Withdraws one; if that cannot be, returns for how long it rests.
    async fn try_one(&self, (namespace, name, whose): &Place) -> Option<SignedDuration> {
        match self.withdraw(namespace, name, whose).await {
            Ok(Withdrawn::Gone) => None,
            Err(error) if error.is_race() => None,
            Ok(Withdrawn::Done) => {
                tracing::info!(namespace, secret = name, "keys of a resource that is gone were withdrawn");
                self.audit.done("withdraw", &format!("Secret/{namespace}/{name}"), Reason::Withdrawn.as_str(), None);
                None
            }
            Ok(Withdrawn::NotOurs) => {
                tracing::info!(
                    namespace,
                    secret = name,
                    "what is said to be keys of a resource that is gone was not written by us, and stays"
                );
                Some(NOT_OURS)
            }
            Ok(Withdrawn::Kept) => {
                tracing::warn!(namespace, secret = name, "keys of a resource that is gone were written by somebody else as well, and stay");
                Some(NOT_OURS)
            }
            Err(error) => {
                tracing::warn!(%error, namespace, secret = name, "keys of a resource that is gone cannot be withdrawn");
                Some(REST)
            }
        }
    }

    /// What is applied holds nothing, so that nothing is left of what was applied before.
    async fn withdraw(&self, namespace: &str, name: &str, whose: &str) -> Result<Withdrawn, WriteError> {
        let object = || format!("Secret {namespace}/{name}");
        let read = Api::<Secret>::namespaced(self.client.clone(), namespace).get_metadata_opt(name).await;
        let read = read.map_err(|error| WriteError::Unavailable { object: object(), message: error.to_string() })?;
        let noted = |meta: &ObjectMeta| meta.annotations.iter().flatten().any(|(key, _)| key.strip_prefix(MERGED) == Some(whose));
        let Some(read) = read.map(|read| read.metadata).filter(noted) else { return Ok(Withdrawn::Gone) };
        let manager = manager(whose);
        if !fields::has_any(&read, &manager) {
            return Ok(Withdrawn::NotOurs);
        }
        let nothing = Secret {
            metadata: ObjectMeta { name: Some(name.into()), namespace: Some(namespace.into()), ..ObjectMeta::default() },
            ..Secret::default()
        };
        let written = self.writer.managed(&manager).without_force().apply(nothing, &read).await?;
        Ok(if noted(&written) { Withdrawn::Kept } else { Withdrawn::Done })
    }
}
