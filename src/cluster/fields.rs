//! Which parts of an object's metadata a field manager has set, as `metadata.managedFields` says (server-side apply). Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::conditions::bounded;

/// The keys of a part that `manager` has set: `metadata/f:labels`, `metadata/f:annotations`, `data`.
pub fn keys<'a>(meta: &'a ObjectMeta, manager: &'a str, field: &str) -> BTreeSet<&'a str> {
    members(meta, manager, field).filter_map(|member| member.strip_prefix("f:")).collect()
}

/// The uids of the owner references that `manager` has set.
pub fn owners(meta: &ObjectMeta, manager: &str) -> BTreeSet<String> {
    let uid = |member: &str| {
        let key: serde_json::Value = serde_json::from_str(member.strip_prefix("k:")?).ok()?;
        key["uid"].as_str().map(ToOwned::to_owned)
    };
    members(meta, manager, "metadata/f:ownerReferences").filter_map(uid).collect()
}

/// Who else than `manager` has set one of `wanted` in a part, as well or alone.
pub fn is_set_by_others<'a>(meta: &'a ObjectMeta, manager: &str, field: &str, wanted: impl Fn(&str) -> bool) -> Option<&'a str> {
    let others = meta.managed_fields.iter().flatten().filter_map(|entry| entry.manager.as_deref()).filter(|other| *other != manager);
    let mut others = others.filter(|other| keys(meta, other, field).into_iter().any(&wanted));
    others.next()
}

/// When others than `manager` have set `wanted` in a part: of their last writes the earliest. None: nobody says so of one of them.
pub fn set_by_others_at<'a>(
    meta: &ObjectMeta,
    manager: &str,
    (field, mut wanted): (&str, impl Iterator<Item = &'a str>),
) -> Option<Timestamp> {
    let others = || meta.managed_fields.iter().flatten().filter(|entry| entry.manager.as_deref().is_some_and(|other| other != manager));
    let set = |key: &str| {
        let times = others().filter(|entry| keys(meta, entry.manager.as_deref().unwrap_or_default(), field).contains(key));
        times.filter_map(|entry| bounded(entry.time.as_ref()?.0)).min()
    };
    let first = set(wanted.next()?)?;
    wanted.try_fold(first, |first, key| Some(first.min(set(key)?)))
}

/// Whether `manager` has set anything.
pub fn has_any(meta: &ObjectMeta, manager: &str) -> bool {
    meta.managed_fields.iter().flatten().any(|entry| entry.manager.as_deref() == Some(manager))
}

fn members<'a>(meta: &'a ObjectMeta, manager: &'a str, field: &str) -> impl Iterator<Item = &'a str> {
    let path = format!("/f:{field}");
    let entries = meta.managed_fields.iter().flatten().filter(move |entry| entry.manager.as_deref() == Some(manager));
    entries
        .filter_map(move |entry| entry.fields_v1.as_ref()?.0.pointer(&path)?.as_object())
        .flat_map(|members| members.keys().map(String::as_str))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_manager_has_set_is_its_own() {
        let entry = |manager: &str, key: &str, uid: &str| {
            let owner = format!("k:{{\"uid\":\"{uid}\"}}");
            let metadata =
                serde_json::json!({"f:labels": {".": {}, (format!("f:{key}")): {}}, "f:ownerReferences": {".": {}, (owner): {}}});
            serde_json::json!({"manager": manager, "operation": "Apply", "time": "1970-01-01T00:00:00Z", "fieldsV1": {"f:metadata": metadata}})
        };
        let meta = serde_json::json!({"managedFields": [entry("ours", "a.b/c", "u1"), entry("theirs", "d", "u2")]});
        let meta: ObjectMeta = serde_json::from_value(meta).unwrap();
        assert_eq!(keys(&meta, "ours", "metadata/f:labels"), ["a.b/c"].into());
        assert_eq!(keys(&meta, "ours", "metadata/f:annotations"), [].into());
        assert_eq!(owners(&meta, "ours"), ["u1".to_owned()].into());
        assert_eq!(is_set_by_others(&meta, "ours", "metadata/f:labels", |key| key == "d"), Some("theirs"));
        assert_eq!(is_set_by_others(&meta, "ours", "metadata/f:labels", |key| key == "a.b/c"), None);
        let at = |keys: &[&str]| set_by_others_at(&meta, "ours", ("metadata/f:labels", keys.iter().copied()));
        assert_eq!((at(&["d"]), at(&["d", "a.b/c"]), at(&[])), (Some(Timestamp::UNIX_EPOCH), None, None));
        assert!(has_any(&meta, "theirs") && !has_any(&meta, "nobody") && keys(&meta, "nobody", "metadata/f:labels").is_empty());
    }
}
