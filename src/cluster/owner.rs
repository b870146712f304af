//! Whose an object is that we wrote. Pure.
//!
//! An annotation names kind and name of the owner, not its uid, so that a restored or re-created resource takes its Secret back; a label
//! holds a hash of the two for selecting, because label values end at 63 bytes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::ids;

/// `KIND/NAME` of the resource that an object belongs to.
pub const OWNER: &str = "seaworthy.dev/owner";
/// A hash of the same, to select by.
pub const OWNER_HASH: &str = "seaworthy.dev/owner-hash";
/// Types of Secret that Kubernetes itself fills; never written to.
pub const RESERVED_TYPES: &[&str] = &["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token"];

/// `KIND/NAME`.
pub fn owner(kind: &str, name: &str) -> String {
    format!("{kind}/{name}")
}

/// The label's value for an owner.
pub fn owner_hash(owner: &str) -> String {
    ids::hash(owner.as_bytes())
}

/// Who owns the object, if one of ours does.
pub fn of(meta: &ObjectMeta) -> Option<&str> {
    meta.annotations.as_ref()?.get(OWNER).map(String::as_str)
}
