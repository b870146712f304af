//! The least that Vault has to allow for what resources ask of it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::stores::vault::{Auth, Spec, Version};
use crate::api::secret_rotation::SecretRotationSpec;

/// Capabilities by path, for one Vault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    paths: BTreeMap<String, BTreeSet<&'static str>>,
    /// The methods whose secret ids are replaced.
    mounts: BTreeSet<String>,
}

/// What replacing a secret id takes, below the role, whose name the resource does not say.
const OWN: &[(&str, &[&str])] = &[
    ("secret-id", &["list", "update"]),
    ("secret-id/lookup", &["update"]),
    ("secret-id-accessor/lookup", &["update"]),
    ("secret-id-accessor/destroy", &["update"]),
];

/// What no policy is made for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    /// It cannot be named as it is.
    #[error(
        "in a policy the path {0:?} is a pattern (\"*\", a part \"+\", \"{{{{\"), which allows more than what lies there; choose another key"
    )]
    Pattern(String),
    /// It belongs to Vault itself.
    #[error("no key/value engine is mounted at {0:?}, which is Vault's own; mend store.vault.path")]
    Reserved(String),
}

/// What Vault has of its own, where no engine can be mounted.
const RESERVED: &[&str] = &["sys", "auth", "identity"];

impl Policy {
    /// Adds what the store needs for itself: to replace its own secret id.
    pub fn add_store(&mut self, store: &Spec) {
        if let Auth::AppRole(role) = &store.auth
            && role.rotate_secret_id.is_some()
        {
            self.mounts.insert(role.path.clone());
        }
    }

    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.mounts.is_empty()
    }

    /// Adds what `rotation` needs from the Vault of `store`.
    pub fn add(&mut self, store: &Spec, rotation: &SecretRotationSpec) -> Result<(), PolicyError> {
        self.add_store(store);
        let single = rotation.data.iter().map(|data| &data.remote_ref.key);
        let extracted = rotation.data_from.iter().filter_map(|from| from.extract.as_ref()).map(|remote| &remote.key);
        for key in single.chain(extracted) {
            self.allow(store, "data", key, &["read"])?;
        }
        for push in rotation.rotation_pushes().chain(&rotation.push) {
            self.allow(store, "data", &push.remote_ref.key, &["create", "read", "update"])?;
            if store.version == Version::V2 {
                self.allow(store, "metadata", &push.remote_ref.key, &["read"])?;
            }
        }
        for push in rotation.rotation_pushes() {
            if store.version == Version::V2 {
                self.allow(store, "delete", &push.remote_ref.key, &["update"])?; // of the version before
            }
        }
        for find in rotation.data_from.iter().filter_map(|from| from.find.as_ref()) {
            let folder = find.path.as_deref().unwrap_or_default();
            let listing: &[&str] = if find.tags.is_empty() { &["list"] } else { &["list", "read"] };
            for (part, capabilities) in [("data", ["read"].as_slice()), ("metadata", listing)] {
                let below = format!("{}/*", path(store, part, folder)?); // a list of the folder itself is asked for with a slash at its end
                self.paths.entry(below).or_default().extend(capabilities);
            }
        }
        Ok(())
    }

    fn allow(&mut self, store: &Spec, part: &str, key: &str, capabilities: &[&'static str]) -> Result<(), PolicyError> {
        self.paths.entry(path(store, part, key)?).or_default().extend(capabilities);
        Ok(())
    }

    /// In Vault's language.
    pub fn hcl(&self) -> String {
        let rule = |path: &str, capabilities: &mut dyn Iterator<Item = &&'static str>| {
            let capabilities: Vec<String> = capabilities.map(|capability| format!("{capability:?}")).collect();
            format!("path {path:?} {{ capabilities = [{}] }}\n", capabilities.join(", "))
        };
        let mut text: String = self.paths.iter().map(|(path, capabilities)| rule(path, &mut capabilities.iter())).collect();
        if !self.mounts.is_empty() {
            text.push_str("# rotateSecretId, with the name of the role in the place of ROLE:\n");
        }
        for mount in &self.mounts {
            let rules = OWN.iter().map(|(path, capabilities)| rule(&format!("auth/{mount}/role/ROLE/{path}"), &mut capabilities.iter()));
            text.extend(rules.map(|rule| format!("# {rule}")));
        }
        text
    }
}

/// Who logs in, as a person knows it: each has a policy of its own.
pub fn login(auth: &Auth) -> String {
    match auth {
        Auth::AppRole(role) => format!("role id {} at auth/{}", role.role_id, role.path),
        Auth::Kubernetes(login) => format!("role {} at auth/{}", login.role, login.mount_path),
        Auth::Jwt(login) => format!("role {} at auth/{}", login.role, login.path),
        Auth::Token(token) => format!("the token in {}", token.secret_ref),
    }
}

/// Where a key or a folder lies.
fn path(store: &Spec, part: &str, key: &str) -> Result<String, PolicyError> {
    let parts: &[&str] = match store.version {
        Version::V2 => &[&store.path, part, key.trim_matches('/')],
        Version::V1 => &[&store.path, key.trim_matches('/')],
    };
    let path = parts.join("/").trim_end_matches('/').to_owned();
    let is_pattern = path.contains('*') || path.contains("{{") || path.split('/').any(|part| part == "+");
    if path.split('/').next().is_some_and(|first| RESERVED.contains(&first)) {
        return Err(PolicyError::Reserved(store.path.clone()));
    }
    if is_pattern { Err(PolicyError::Pattern(path)) } else { Ok(path) }
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
            policy.add(&store(version), &rotation).unwrap();
            policy.hcl()
        };
        let wanted = [
            r#"path "kv/data/app/db" { capabilities = ["read"] }"#,
            r#"path "kv/data/app/jwt" { capabilities = ["create", "read", "update"] }"#,
            r#"path "kv/data/app/oauth" { capabilities = ["read"] }"#,
            r#"path "kv/data/team/a/*" { capabilities = ["read"] }"#,
            r#"path "kv/delete/app/jwt" { capabilities = ["update"] }"#,
            r#"path "kv/metadata/app/jwt" { capabilities = ["read"] }"#,
            r#"path "kv/metadata/team/a/*" { capabilities = ["list", "read"] }"#,
        ];
        assert_eq!(of("v2").lines().collect::<Vec<_>>(), wanted);
        assert!(of("v1").contains(r#"path "kv/app/jwt" { capabilities = ["create", "read", "update"] }"#));
        assert!(!of("v1").contains("metadata"));
        let role = serde_json::json!({"roleId": "r", "secretRef": {"name": "a", "key": "b"}, "rotateSecretId": {"every": "720h"}});
        let store = serde_json::from_value(serde_json::json!({"server": "https://v", "auth": {"appRole": role}})).unwrap();
        let mut policy = Policy::default();
        policy.add(&store, &rotation).unwrap();
        let own: Vec<String> = policy.hcl().lines().filter(|line| line.starts_with("# path")).map(ToOwned::to_owned).collect();
        assert_eq!((own.len(), own[0].as_str()), (4, r#"# path "auth/approle/role/ROLE/secret-id" { capabilities = ["list", "update"] }"#));
    }

    #[test]
    fn nobody_gets_more_by_a_name() {
        let policy = |mount: &str, rotation: serde_json::Value| {
            let store =
                serde_json::json!({"server": "https://v", "path": mount, "auth": {"token": {"secretRef": {"name": "a", "key": "b"}}}});
            let mut spec = serde_json::json!({"target": {"name": "t"}});
            spec.as_object_mut().unwrap().extend(rotation.as_object().unwrap().clone());
            let mut policy = Policy::default();
            policy.add(&serde_json::from_value(store).unwrap(), &serde_json::from_value(spec).unwrap()).map(|()| policy.hcl())
        };
        let data = |key: &str| serde_json::json!({"data": [{"secretKey": "a", "remoteRef": {"key": key}}]});
        let push = |key: &str| serde_json::json!({"push": [{"secretKey": "a", "remoteRef": {"key": key}}]});
        let find = |path: &str| serde_json::json!({"dataFrom": [{"find": {"path": path}}]});
        for key in ["*", "app/*", "a*b", "+", "+/db", "app/+/db", "/+/", "{{identity.entity.id}}"] {
            for rotation in [data(key), push(key), find(key)] {
                assert!(policy("secret", rotation.clone()).is_err(), "{rotation}");
            }
            assert!(policy(key.trim_matches('/'), data("a")).is_err(), "{key}");
        }
        assert!(policy("sys", data("policies/acl/shop")).is_err() && policy("auth/approle", data("role/app")).is_err());
        for (rotation, path) in
            [(data("c++"), "secret/data/c++"), (find("/"), "secret/data/*"), (data("a\" {\n"), "secret/data/a\\\" {\\n")]
        {
            let hcl = policy("secret", rotation).unwrap();
            assert!(hcl.lines().next().unwrap().starts_with(&format!("path \"{path}\" {{")), "{hcl}");
        }
    }
}
