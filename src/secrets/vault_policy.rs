//! The least that Vault has to allow for what resources ask of it. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::stores::vault::{Spec, Version};
use crate::api::secret_rotation::SecretRotationSpec;

/// Capabilities by path, for one Vault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy(BTreeMap<String, BTreeSet<&'static str>>);

impl Policy {
    /// Adds what `rotation` needs from the Vault of `store`.
    pub fn add(&mut self, store: &Spec, rotation: &SecretRotationSpec) {
        let single = rotation.data.iter().map(|data| &data.remote_ref.key);
        let extracted = rotation.data_from.iter().filter_map(|from| from.extract.as_ref()).map(|remote| &remote.key);
        for key in single.chain(extracted) {
            self.allow(store, "data", key, &["read"]);
        }
        for push in rotation.rotation.iter().flat_map(|rotation| &rotation.push).chain(&rotation.push) {
            self.allow(store, "data", &push.remote_ref.key, &["create", "read", "update"]);
            if store.version == Version::V2 {
                self.allow(store, "metadata", &push.remote_ref.key, &["read"]);
            }
        }
        for push in rotation.rotation.iter().flat_map(|rotation| &rotation.push) {
            if store.version == Version::V2 {
                self.allow(store, "delete", &push.remote_ref.key, &["update"]); // of the version before
            }
        }
        for find in rotation.data_from.iter().filter_map(|from| from.find.as_ref()) {
            let folder = find.path.as_deref().unwrap_or_default().trim_matches('/');
            let below = if folder.is_empty() { "*".to_owned() } else { format!("{folder}/*") };
            self.allow(store, "data", &below, &["read"]);
            let listing: &[&str] = if find.tags.is_empty() { &["list"] } else { &["list", "read"] };
            self.allow(store, "metadata", &below, listing);
            if !folder.is_empty() {
                self.allow(store, "metadata", folder, &["list"]);
            }
        }
    }

    fn allow(&mut self, store: &Spec, part: &str, key: &str, capabilities: &[&'static str]) {
        let key = key.trim_matches('/');
        let path = match store.version {
            Version::V2 => format!("{}/{part}/{key}", store.path),
            Version::V1 => format!("{}/{key}", store.path),
        };
        self.0.entry(path).or_default().extend(capabilities);
    }

    /// In Vault's language.
    pub fn hcl(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, (path, capabilities)| {
            let capabilities: Vec<String> = capabilities.iter().map(|capability| format!("{capability:?}")).collect();
            let _ = writeln!(text, "path {path:?} {{ capabilities = [{}] }}", capabilities.join(", ")); // writing to a String cannot fail
            text
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_least_that_is_needed() {
        let rotation = serde_json::from_value(serde_json::json!({
            "target": {"name": "t"},
            "data": [{"secretKey": "a", "remoteRef": {"key": "app/db"}}, {"secretKey": "b", "remoteRef": {"key": "app/jwt", "property": "x"}}],
            "dataFrom": [{"extract": {"key": "app/oauth"}}, {"find": {"path": "team/a", "tags": {"x": "y"}}}],
            "rotation": {"generate": [{"secretKey": "b", "hex": {}}], "push": [{"secretKey": "b", "remoteRef": {"key": "app/jwt", "property": "x"}}]},
        }))
        .unwrap();
        let store = |version: &str| {
            serde_json::from_value(serde_json::json!({"server": "https://v", "path": "kv", "version": version, "auth": {"token": {"secretRef": {"name": "a", "key": "b"}}}})).unwrap()
        };
        let of = |version: &str| {
            let mut policy = Policy::default();
            policy.add(&store(version), &rotation);
            policy.hcl()
        };
        let wanted = [
            r#"path "kv/data/app/db" { capabilities = ["read"] }"#,
            r#"path "kv/data/app/jwt" { capabilities = ["create", "read", "update"] }"#,
            r#"path "kv/data/app/oauth" { capabilities = ["read"] }"#,
            r#"path "kv/data/team/a/*" { capabilities = ["read"] }"#,
            r#"path "kv/delete/app/jwt" { capabilities = ["update"] }"#,
            r#"path "kv/metadata/app/jwt" { capabilities = ["read"] }"#,
            r#"path "kv/metadata/team/a" { capabilities = ["list"] }"#,
            r#"path "kv/metadata/team/a/*" { capabilities = ["list", "read"] }"#,
        ];
        assert_eq!(of("v2").lines().collect::<Vec<_>>(), wanted);
        assert!(of("v1").contains(r#"path "kv/app/jwt" { capabilities = ["create", "read", "update"] }"#));
        assert!(!of("v1").contains("metadata"));
    }
}
