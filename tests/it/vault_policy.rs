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

/// A store that replaces its secret id, and what is asked of it: it reads, finds, pushes and retires.
fn store(vault: &Vault, role_id: &str) -> Value {
    let role = json!({"roleId": role_id, "secretRef": {"name": "approle", "key": "id"}, "rotateSecretId": {"every": "720h"}});
    json!({"vault": {"server": vault.address, "auth": {"appRole": role}}})
}

fn rotation() -> SecretRotationSpec {
    serde_json::from_value(json!({
        "target": {"name": "t"},
        "data": [{"secretKey": "a", "remoteRef": {"key": "app/db"}}],
        "dataFrom": [{"find": {"path": "team", "tags": {"env": "prod"}}}],
        "rotation": {"generate": [{"secretKey": "b", "hex": {}}], "push": [{"secretKey": "b", "remoteRef": {"key": "app/new", "property": "x"}}]},
    }))
    .unwrap()
}

fn place(key: &str) -> Place {
    Place { key: key.into(), version: None }
}

/// Everything that the operator does there.
async fn everything(vault: &Vault, store: &dyn OpenStore) -> Result<(), StoreError> {
    store.read(&place("app/db")).await?;
    let find: Find = serde_json::from_value(json!({"path": "team", "tags": {"env": "prod"}})).unwrap();
    let found = store.find(&find).await?;
    assert_eq!(found, ["team/one", "team/sub/two"]);
    for key in found {
        store.read(&place(&key)).await?;
    }
    assert!(matches!(store.read(&place("app/new")).await, Err(StoreError::NotFound(_) | StoreError::Denied(_))));
    let content = Content::Bytes(br#"{"x": "1"}"#.to_vec().into());
    let write = |expected| Write { key: "app/new", content: &content, expected, token: "t" };
    let first = store.write(write(None)).await?.unwrap();
    store.read(&place("app/new")).await?;
    store.write(write(Some(&first))).await?;
    store.retire("app/new", &first).await?;
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
    for key in ["team/one", "team/sub/two", "team/other"] {
        vault.put(key, json!({"a": "1"})).await;
        let env = if key == "team/other" { "test" } else { "prod" };
        vault.call("POST", &format!("secret/metadata/{key}"), json!({"custom_metadata": {"env": env}})).await;
    }
    let mut policy = Policy::default();
    policy.add(&serde_json::from_value(store(&vault, "r")["vault"].clone()).unwrap(), &rotation());
    let rules = rules(&policy.hcl());
    let allowed_to = async |rules: &[(String, Vec<String>)]| {
        let rule = |(path, capabilities): &(String, Vec<String>)| format!("path {path:?} {{ capabilities = {capabilities:?} }}\n");
        let (id, secret) = vault.role("app", &rules.iter().map(rule).collect::<String>()).await;
        vault.try_call("DELETE", "secret/metadata/app/new", Value::Null).await;
        let store = open(&store(&vault, &id), "approle", &[("id", &secret)]).await.unwrap();
        let done = everything(&vault, store.as_ref()).await;
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
            assert!(matches!(done, Err(StoreError::Denied(_))), "{capability} on {path} is not needed: {done:?}");
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
