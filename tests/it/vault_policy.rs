//! The policy that `seaworthy vault-policy` prints: all of it is needed, tried on a real Vault.

use seaworthy::{
    api::secret_rotation::SecretRotationSpec,
    secrets::{
        store::{Content, Find, OpenStore, Place, StoreError, Write},
        vault_policy::Policy,
    },
};
use serde_json::{Value, json};

use crate::support::{Vault, open};

/// The mounts of both versions of the key/value engine.
const MOUNTS: [(&str, &str); 2] = [("secret", "v2"), ("old", "v1")];

/// A store that replaces its secret id.
fn store(vault: &Vault, (path, version): (&str, &str), role_id: &str) -> Value {
    let role = json!({"roleId": role_id, "secretRef": {"name": "approle", "key": "id"}, "rotateSecretId": {"every": "720h"}});
    json!({"vault": {"server": vault.address, "path": path, "version": version, "auth": {"appRole": role}}})
}

/// Version 1 has no tags.
fn find(version: &str) -> Value {
    if version == "v2" { json!({"path": "team", "tags": {"env": "prod"}}) } else { json!({"path": "team"}) }
}

/// What is asked of it: it reads, extracts, finds, pushes what is generated and what is there, and retires.
fn rotation(version: &str) -> SecretRotationSpec {
    let to = |name: &str, key: &str| json!([{"secretKey": name, "remoteRef": {"key": key, "property": "x"}}]);
    serde_json::from_value(json!({
        "target": {"name": "t"},
        "data": [{"secretKey": "a", "remoteRef": {"key": "app/db"}}],
        "dataFrom": [{"find": find(version)}, {"extract": {"key": "app/oauth"}}],
        "rotation": {"generate": [{"secretKey": "b", "hex": {}}], "push": to("b", "app/new")},
        "push": to("a", "app/copy"),
    }))
    .unwrap()
}

fn place(key: &str) -> Place {
    Place { key: key.into(), version: None }
}

/// Everything that the operator does there.
async fn everything(vault: &Vault, version: &str, store: &dyn OpenStore) -> Result<(), StoreError> {
    store.read(&place("app/db")).await?;
    store.read(&place("app/oauth")).await?;
    let find: Find = serde_json::from_value(find(version)).unwrap();
    let found = store.find(&find).await?;
    assert_eq!(found, ["team/one", "team/sub/two"]);
    for key in found {
        store.read(&place(&key)).await?;
    }
    for key in ["app/new", "app/copy"] {
        assert!(matches!(store.read(&place(key)).await, Err(StoreError::NotFound(_) | StoreError::Denied(_))));
        let [first, second] = [br#"{"x": "1"}"#, br#"{"x": "2"}"#].map(|text| Content::Bytes(text.to_vec().into()));
        store.write(Write { key, content: &first, expected: None, token: "t" }).await?;
        let there = store.read(&place(key)).await?;
        store.write(Write { key, content: &second, expected: there.version.as_deref(), token: "t" }).await?;
        if key == "app/new" {
            store.retire(key, &there.version.unwrap()).await?;
        } else if version == "v2" {
            // Somebody deletes what was pushed: its versions are counted on.
            vault.call("DELETE", "secret/data/app/copy", Value::Null).await;
            store.write(Write { key, content: &first, expected: None, token: "t" }).await?;
        }
    }
    let lost = vault.call("POST", "auth/approle/role/app/secret-id", json!({"metadata": json!({"seaworthy": "mark"}).to_string()})).await;
    let made = store.make_credential("mark").await?;
    store.destroy_credentials("other", &made.replaces).await?;
    store.destroy_credentials("mark", &made.replaces).await?;
    let lost = json!({"secret_id": lost["data"]["secret_id"]});
    let (_, found) = vault.try_call("POST", "auth/approle/role/app/secret-id/lookup", lost).await;
    if found["data"].is_null() { Ok(()) } else { Err(StoreError::Denied("what was lost is not destroyed".into())) }
}

/// The rules, one for each path: its capabilities.
fn rules(hcl: &str) -> Vec<(String, Vec<String>)> {
    let lines = hcl.lines().map(|line| line.trim_start_matches("# ")).filter(|line| line.starts_with("path"));
    let quoted = |text: &str| text.split('"').skip(1).step_by(2).map(ToOwned::to_owned).collect::<Vec<_>>();
    lines.map(quoted).map(|mut words| (words.remove(0).replace("/ROLE/", "/app/"), words)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_less_would_do() {
    let vault = Vault::start().await;
    vault.put("app/db", json!({"password": "p"})).await;
    vault.put("app/oauth", json!({"id": "i"})).await;
    for key in ["team/one", "team/sub/two", "team/other"] {
        vault.put(key, json!({"a": "1"})).await;
        let env = if key == "team/other" { "test" } else { "prod" };
        vault.call("POST", &format!("secret/metadata/{key}"), json!({"custom_metadata": {"env": env}})).await;
    }
    for key in ["app/db", "app/oauth", "team/one", "team/sub/two"] {
        vault.call("POST", &format!("old/{key}"), json!({"a": "1"})).await;
    }
    for mount in MOUNTS {
        let mut policy = Policy::default();
        policy.add(&serde_json::from_value(store(&vault, mount, "r")["vault"].clone()).unwrap(), &rotation(mount.1)).unwrap();
        let rules = rules(&policy.hcl());
        let allowed_to = async |rules: &[(String, Vec<String>)]| {
            let rule = |(path, capabilities): &(String, Vec<String>)| format!("path {path:?} {{ capabilities = {capabilities:?} }}\n");
            let (id, secret) = vault.role("app", &rules.iter().map(rule).collect::<String>()).await;
            for key in ["app/new", "app/copy"] {
                vault.try_call("DELETE", &format!("secret/metadata/{key}"), Value::Null).await;
                vault.try_call("DELETE", &format!("old/{key}"), Value::Null).await;
            }
            let store = open(&store(&vault, mount, &id), "approle", &[("id", &secret)]).await.unwrap();
            let done = everything(&vault, mount.1, store.as_ref()).await;
            store.close().await;
            done
        };
        allowed_to(&rules).await.unwrap();
        for (number, (path, capabilities)) in rules.iter().enumerate() {
            for capability in capabilities {
                let mut less = rules.clone();
                less[number].1.retain(|other| other != capability);
                if less[number].1.is_empty() {
                    less.remove(number);
                }
                let done = allowed_to(&less).await;
                assert!(
                    matches!(done, Err(StoreError::Denied(_) | StoreError::Conflict(_))),
                    "{}: {capability} on {path} is not needed: {done:?}",
                    mount.1
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_asks_to_wait() {
    let vault = Vault::start().await;
    vault.put("app/db", json!({"password": "p"})).await;
    vault.call("POST", "sys/quotas/config", json!({"enable_rate_limit_response_headers": true})).await;
    vault.call("POST", "sys/quotas/rate-limit/few", json!({"rate": 1, "interval": "60s", "path": "secret/"})).await;
    let store = open(&vault.by_token(), "vault", &[("token", &vault.root)]).await.unwrap();
    store.read(&place("app/db")).await.unwrap();
    let second = store.read(&place("app/db")).await;
    assert!(matches!(&second, Err(StoreError::Throttled { after: Some(after), .. }) if (1..=60).contains(&after.as_secs())), "{second:?}");
}
