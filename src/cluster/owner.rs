//! Whose an object is that we wrote. Pure.
//!
//! An annotation names kind and name of the owner, not its uid, so that a restored or re-created resource takes its Secret back; a label
//! holds a hash of the two for selecting, because label values end at 63 bytes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Resource, ResourceExt};

use crate::ids;

/// `KIND/NAME` of the resource that an object belongs to.
pub const OWNER: &str = "seaworthy.dev/owner";
/// A hash of the same, to select by.
pub const OWNER_HASH: &str = "seaworthy.dev/owner-hash";
/// On a Secret of somebody else, followed by a hash of the resource of ours that keeps keys in it: what is remembered with them.
pub const MERGED: &str = "seaworthy.dev/merged-";
/// On a Secret of ours, or in such a note: since when previous values are kept in it.
pub const PREVIOUS_SINCE: &str = "seaworthy.dev/previous-since";
/// On a Secret of ours: until when at most, by the spec with which it was written; for the time when there is none that can be read.
pub const PREVIOUS_UNTIL: &str = "seaworthy.dev/previous-until";
/// On a Secret of ours, or in such a note: versions in a store whose time is over.
pub const VERSIONS_OVER: &str = "seaworthy.dev/versions-over";
/// Types of Secret that Kubernetes itself fills; never written to.
pub const RESERVED_TYPES: &[&str] = &["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token"];

/// `KIND/NAME`.
pub fn owner(kind: &str, name: &str) -> String {
    format!("{kind}/{name}")
}

/// `KIND/NAME` of a resource: what stands in [`OWNER`].
pub fn owned_by<K: Resource<DynamicType = ()>>(resource: &K) -> String {
    owner(&K::kind(&()), &resource.name_any())
}

/// `KIND/NAMESPACE/NAME` of a resource, or `KIND/NAME` if it has no namespace, for the audit log.
pub fn described<K: Resource<DynamicType = ()>>(resource: &K) -> String {
    let namespace = resource.namespace().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    format!("{}/{namespace}{}", K::kind(&()), resource.name_any())
}

/// The owner reference by which an object goes with a resource. It does not hold up the resource's deletion.
pub fn reference<K: Resource<DynamicType = ()>>(resource: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into(),
        kind: K::kind(&()).into(),
        name: resource.name_any(),
        uid: resource.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    }
}

/// Whether an object has all labels, annotations and owners that are `wanted`; it may have more.
pub fn is_dressed(there: &ObjectMeta, wanted: &ObjectMeta) -> bool {
    let holds = |there: &Option<BTreeMap<String, String>>, wanted: &Option<BTreeMap<String, String>>| {
        wanted.iter().flatten().all(|(key, value)| there.as_ref().and_then(|there| there.get(key)) == Some(value))
    };
    let mut owners = wanted.owner_references.iter().flatten();
    holds(&there.labels, &wanted.labels)
        && holds(&there.annotations, &wanted.annotations)
        && owners.all(|owner| there.owner_references.iter().flatten().any(|one| one.uid == owner.uid))
}

/// The label's value for an owner.
pub fn owner_hash(owner: &str) -> String {
    ids::hash(owner.as_bytes())
}

/// Who owns the object, if one of ours does.
pub fn of(meta: &ObjectMeta) -> Option<&str> {
    meta.annotations.as_ref()?.get(OWNER).map(String::as_str)
}

/// Why a Secret is not written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Kubernetes itself fills Secrets of its type.
    Reserved(String),
    /// It is somebody else's, or of another type.
    NotOurs(String),
}

/// Refuses a Secret that keys cannot be added to (`adds`), or that is not even read.
pub fn check_shared(secret: &Secret, adds: bool, field: &str) -> Result<(), Refused> {
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let type_ = secret.type_.as_deref().unwrap_or("Opaque");
    match of(&secret.metadata) {
        _ if RESERVED_TYPES.contains(&type_) => {
            Err(Refused::Reserved(format!("Secret {name} has the type {type_}, which Kubernetes itself fills; choose another {field}")))
        }
        Some(whose) if adds => Err(Refused::NotOurs(format!("Secret {name} belongs to {whose}; choose another {field}"))),
        _ => Ok(()),
    }
}

/// Refuses a Secret that is not `owned_by`, or not of the type `wanted`, saying whose it is and what to do about `field`, which names it.
pub fn check(secret: &Secret, owned_by: &str, wanted: &str, field: &str) -> Result<(), Refused> {
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let type_ = secret.type_.as_deref().unwrap_or("Opaque");
    if RESERVED_TYPES.contains(&type_) {
        return Err(Refused::Reserved(format!(
            "Secret {name} has the type {type_}, which Kubernetes itself fills; choose another {field}"
        )));
    }
    let another = format!("choose another {field}, or delete the Secret");
    match of(&secret.metadata) {
        Some(whose) if whose == owned_by && type_ == wanted => Ok(()),
        Some(whose) if whose == owned_by => Err(Refused::NotOurs(format!(
            "Secret {name} has the type {type_}, and the type of a Secret cannot be changed to {wanted}; delete it so that it is made anew"
        ))),
        Some(whose) => Err(Refused::NotOurs(format!("Secret {name} belongs to {whose}; {another} after that resource"))),
        None => Err(Refused::NotOurs(format!("Secret {name} exists and was not made by Seaworthy; {another} so that it is made anew"))),
    }
}
