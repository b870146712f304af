//! Logins to Vault: one for all who use a store, and what becomes of those who are refused.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use seaworthy::{api::SecretStore, secrets::store::Place};
use serde_json::{Value, json};

use crate::{
    support::{Between, Cluster, ControlPlane, Operator, Rotations, Vault, eventually, next_second, said, vault_says},
    vault::{POLICY, by_role},
};

const REFUSED: &str = r#"the login at auth/approle with the secret id in key "id" of Secret approle (role id "#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_is_replaced_and_a_new_credential_is_taken() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("revoked").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    let store = by_role(&vault, &namespace).await;
    vault.put("app/db", json!({"password": "p1"})).await;
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "app/db", "property": "password"}}]);
    rotations.create("app", json!({"target": {"name": "app"}, "store": store, "data": data})).await;
    rotations.ready("app", 1).await;
    vault.call("POST", "sys/leases/revoke-prefix/auth/approle/login", json!({})).await;
    vault.put("app/db", json!({"password": "p2"})).await;
    rotations.ask("app", "refresh", "1").await;
    rotations.ready("app", 2).await;
    // All secret ids are gone: that is said; with a new one it goes on by itself.
    vault.call("POST", "sys/leases/revoke-prefix/auth/approle/login", json!({})).await;
    vault.call("DELETE", "auth/approle/role/app", Value::Null).await;
    rotations.ask("app", "refresh", "2").await;
    let message = rotations.says("app", "Stalled", "True", "StoreDenied").await;
    assert!(message.contains(REFUSED), "{message}");
    let (id, secret) = vault.role("app", POLICY).await;
    rotations.edit("approle", json!({"id": secret})).await;
    rotations.change("app", json!({"store": {"vault": {"auth": {"appRole": {"roleId": id}}}}})).await;
    rotations.until("app", "it is Ready again", |object| said(object, "Ready").is_some_and(|(status, ..)| status == "True")).await;
}

/// Vault locks a role after a few logins that fail: all who use it wait together for what one of them hears.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_are_refused_are_not_tried_for_each_key() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let (namespace, between) = (cluster.namespace("refused").await, Between::to(&vault.address).await);
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let mut store = by_role(&vault, &namespace).await;
    store["vault"]["server"] = between.address.as_str().into();
    let good = namespace.text("approle", "id").await;
    rotations.edit("approle", json!({"id": "wrong"})).await;
    for resource in 0..3 {
        let data: Vec<_> = (0..10)
            .map(|key| json!({"secretKey": format!("k{key}"), "remoteRef": {"key": format!("app/{resource}-{key}"), "property": "p"}}))
            .collect();
        for key in 0..10 {
            vault.put(&format!("app/{resource}-{key}"), json!({"p": "v"})).await;
        }
        let name = format!("r{resource}");
        rotations.create(&name, json!({"target": {"name": name}, "store": store, "data": data})).await;
    }
    for resource in 0..3 {
        let message = rotations.says(&format!("r{resource}"), "Stalled", "True", "StoreDenied").await;
        assert!(message.contains(REFUSED), "{message}");
    }
    let logins = || between.take_asked().iter().filter(|asked| asked.contains("auth/approle/login")).count();
    assert_eq!(logins(), 1, "one for 30 keys");
    // Nor for who comes a moment later.
    next_second().await;
    next_second().await;
    let data = json!([{"secretKey": "k", "remoteRef": {"key": "app/0-0", "property": "p"}}]);
    rotations.create("late", json!({"target": {"name": "late"}, "store": store, "data": data})).await;
    assert!(rotations.says("late", "Stalled", "True", "StoreDenied").await.contains(REFUSED));
    assert_eq!(logins(), 0);
    // When the pause is over, one of them tries again for all.
    operator.clock.advance(jiff::SignedDuration::from_mins(6));
    for resource in 0..3 {
        rotations.ask(&format!("r{resource}"), "look", "1").await;
    }
    eventually("it was tried again", || async { if between.asked("auth/approle/login") { Ok(()) } else { Err(String::new()) } }).await;
    assert_eq!(logins(), 1);
    // Others are another matter.
    rotations.edit("approle", json!({"id": good})).await;
    for resource in 0..3 {
        rotations.ready(&format!("r{resource}"), 1).await;
    }
    assert_eq!(logins(), 1);
}

/// That its check cannot log in any more is told, and is no reason to keep away who is logged in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_logged_in_goes_on_though_the_secret_id_is_gone() {
    let (_own, cluster) = ControlPlane::start().await;
    let vault = Vault::start().await;
    let namespace = cluster.namespace("logged-in").await;
    let operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    let (id, secret) = vault.role("app", POLICY).await;
    cluster.operators_secret("approle", json!({"id": secret})).await;
    let auth = json!({"appRole": {"roleId": id, "secretRef": {"name": "approle", "key": "id"}}});
    cluster.secret_store("vault", json!({"allowedNamespaces": {}, "vault": {"server": vault.address, "auth": auth}})).await;
    let rotations = Rotations(&namespace);
    vault.put("app/db", json!({"p": "1"})).await;
    let data = json!([{"secretKey": "p", "remoteRef": {"key": "app/db", "property": "p"}}]);
    rotations.create("app", json!({"target": {"name": "app"}, "storeRef": {"name": "vault"}, "data": data})).await;
    rotations.ready("app", 1).await;
    let stores: Api<SecretStore> = Api::all(cluster.client.clone());
    let says = async |reason: &str| vault_says(&stores, reason).await;
    // Other credentials are checked at once, for better or worse.
    says("Current").await;
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "seaworthy");
    for (id, reason) in [("wrong", "StoreDenied"), (secret.as_str(), "Current")] {
        secrets.patch("approle", &PatchParams::default(), &Patch::Merge(json!({"stringData": {"id": id}}))).await.unwrap();
        says(reason).await;
    }
    vault.put("app/db", json!({"p": "2"})).await;
    rotations.ask("app", "refresh", "1").await;
    rotations.ready("app", 2).await;
    vault.call("POST", "auth/approle/role/app/secret-id/destroy", json!({ "secret_id": secret })).await;
    operator.clock.advance(jiff::SignedDuration::from_mins(16));
    stores.patch("vault", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"annotations": {"look": "1"}}}))).await.unwrap();
    says("StoreDenied").await;
    vault.put("app/db", json!({"p": "3"})).await;
    rotations.ask("app", "refresh", "2").await;
    rotations.ready("app", 3).await;
    assert_eq!(rotations.data("app").await["p"], "3");
}

/// Who is still logged in is not locked out by asking again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_still_logged_in_does_not_ask_for_each_key() {
    let vault = Vault::start().await;
    let between = Between::to(&vault.address).await;
    let (id, secret) = vault.role("app", POLICY).await;
    vault.put("app/db", json!({"p": "v"})).await;
    // A token that nobody can renew.
    let short = json!({"token_policies": ["app"], "token_type": "batch", "token_ttl": "45s"});
    vault.call("POST", "auth/approle/role/app", short).await;
    let login = json!({"appRole": {"roleId": id, "secretRef": {"name": "vault", "key": "id"}}});
    let spec = json!({"vault": {"server": between.address, "auth": login}});
    let store = crate::support::open(&spec, "vault", &[("id", &secret)]).await.unwrap();
    let place = Place { key: "app/db".into(), version: None };
    store.read(&place).await.unwrap();
    let since = Instant::now();
    vault.call("DELETE", "auth/approle/role/app", Value::Null).await;
    between.take_asked();
    eventually("it ends soon", || async { if since.elapsed() > Duration::from_secs(31) { Ok(()) } else { Err(String::new()) } }).await;
    for _ in 0..5 {
        store.read(&place).await.unwrap();
    }
    let logins = between.take_asked().iter().filter(|asked| asked.contains("auth/approle/login")).count();
    assert_eq!(logins, 1, "what is left of its life is used");
}

/// A token of somebody else's is renewed as well; it is theirs to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_somebody_else_is_renewed_and_not_revoked() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("periodic").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    vault.put("app/db", json!({"password": "p1"})).await;
    vault.call("POST", "sys/policies/acl/app", json!({"policy": POLICY})).await;
    let made = vault.call("POST", "auth/token/create", json!({"policies": ["app"], "period": "12s"})).await;
    namespace.secret("vault", "Opaque", &[("token", made["auth"]["client_token"].as_str().unwrap())]).await;
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "app/db", "property": "password"}}]);
    let spec = json!({"target": {"name": "app"}, "store": vault.by_token(), "data": data, "refreshPolicy": "OnChange"});
    rotations.create("app", spec).await;
    rotations.ready("app", 1).await;
    let accessor = json!({"accessor": made["auth"]["accessor"]});
    let later = jiff::Timestamp::now().as_second() + 10;
    eventually("it is renewed again and again", || async {
        let answer = vault.call("POST", "auth/token/lookup-accessor", accessor.clone()).await;
        let renewed = answer["data"]["last_renewal_time"].as_i64();
        renewed.filter(|time| *time >= later).map(|_| ()).ok_or_else(|| answer.to_string())
    })
    .await;
    operator.shut_down().await;
    assert!(vault.accessors().await.contains(accessor["accessor"].as_str().unwrap()));
}
