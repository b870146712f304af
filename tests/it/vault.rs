//! HashiCorp Vault, a real one.

use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{ClusterRoleBinding, Role, RoleBinding},
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use seaworthy::{
    secrets::store::{Place, StoreError},
    testing::store_contract,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::support::{Cluster, Namespace, Rotations, Vault, Workload, eventually, open, said};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_and_what_was_deleted() {
    let vault = Vault::start().await;
    let store = open(&vault.by_token(), "vault", &[("token", &vault.root)]).await.unwrap();
    // Custom metadata is what tags are.
    for (key, team) in [("tagged/a", "x"), ("tagged/b", "y"), ("tagged/deep/c", "x")] {
        vault.put(key, json!({"v": "1"})).await;
        vault.call("POST", &format!("secret/metadata/{key}"), json!({"custom_metadata": {"team": team}})).await;
    }
    let find = |find: Value| serde_json::from_value(find).unwrap();
    assert_eq!(store.find(&find(json!({"path": "tagged", "tags": {"team": "x"}}))).await.unwrap(), ["tagged/a", "tagged/deep/c"]);
    assert_eq!(
        store.find(&find(json!({"path": "tagged", "tags": {"team": "x"}, "name": {"regexp": "c$"}}))).await.unwrap(),
        ["tagged/deep/c"]
    );
    // Another version of the engine is a mistake in the spec, and nothing that the store could mend.
    let mut v1 = vault.by_token();
    v1["vault"]["version"] = json!("v1");
    let v1 = open(&v1, "vault", &[("token", &vault.root)]).await.unwrap();
    let error = v1.read(&Place { key: "tagged/a".into(), version: None }).await.unwrap_err();
    assert!(matches!(&error, StoreError::Invalid(why) if why.contains("Invalid path for a versioned K/V secrets engine")), "{error:?}");
    // What a key is called says nothing about the token; what becomes of the token does.
    vault.role("tags", r#"path "secret/data/tagged/*" { capabilities = ["read"] }"#).await;
    let token = vault.call("POST", "auth/token/create", json!({"policies": ["tags"]})).await["auth"]["client_token"].clone();
    let token = token.as_str().unwrap();
    let limited = open(&vault.by_token(), "vault", &[("token", token)]).await.unwrap();
    let read = async |key: &str| limited.read(&Place { key: key.into(), version: None }).await;
    assert!(read("tagged/a").await.is_ok());
    for key in ["other/invalid token", "other/bad token"] {
        let error = read(key).await.unwrap_err();
        assert!(matches!(error, StoreError::Denied(_)), "{error:?}");
    }
    vault.call("POST", "auth/token/revoke", json!({ "token": token })).await;
    let (read, checked) = (read("tagged/a").await.unwrap_err(), limited.check().await.unwrap_err());
    assert!(matches!((&read, &checked), (StoreError::Unauthenticated(_), StoreError::Unauthenticated(_))), "{read:?} {checked:?}");
    // What was deleted is not there, and can be written again.
    vault.put("deletedone", json!({"part": "x"})).await;
    vault.call("DELETE", "secret/data/deletedone", Value::Null).await;
    store_contract::run(store.as_ref(), "deleted").await;
}

/// What [`by_role`] may.
pub const POLICY: &str = r#"path "secret/data/app/*" { capabilities = ["read", "create", "update"] }
path "secret/metadata/app/*" { capabilities = ["read", "list"] }"#;

/// A SecretRotation's store: this Vault, by AppRole.
pub async fn by_role(vault: &Vault, namespace: &Namespace) -> Value {
    let (id, secret) = vault.role("app", POLICY).await;
    namespace.secret("approle", "Opaque", &[("id", &secret)]).await;
    json!({"vault": {"server": vault.address, "auth": {"appRole": {"roleId": id, "secretRef": {"name": "approle", "key": "id"}}}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_told_from_the_active_one_which_it_becomes() {
    let (cluster, (vault, standby)) = (Cluster::shared().await, Vault::with_standby().await);
    let namespace = cluster.namespace("standby").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    vault.put("app", json!({"p": "v"})).await;
    let mut store = namespace.store_in(&vault).await;
    store["vault"]["server"] = standby.into();
    let data = json!([{"secretKey": "p", "remoteRef": {"key": "app", "property": "p"}}]);
    rotations.create("app", json!({"target": {"name": "app"}, "store": store, "data": data})).await;
    let message = rotations.says("app", "Ready", "False", "StoreUnavailable").await;
    assert!(message.contains("it is a standby; name the address of the active one"), "{message}");
    vault.call("PUT", "sys/step-down", Value::Null).await;
    eventually("the standby has become the active one, and is used", || async {
        operator.clock.advance(jiff::SignedDuration::from_mins(10));
        rotations.ask("app", "look", &jiff::Timestamp::now().to_string()).await;
        let ready = said(&rotations.api().get("app").await.map_err(|error| error.to_string())?, "Ready");
        if ready.as_ref().is_some_and(|(status, ..)| status == "True") { Ok(()) } else { Err(format!("{ready:?}")) }
    })
    .await;
    assert_eq!(rotations.data("app").await["p"], "v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_login_serves_all_and_what_fails_is_told_apart() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("vault").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let store = by_role(&vault, &namespace).await;
    vault.put("app/db", json!({"password": "p1", "n": 1})).await;
    vault.put("other/db", json!({"password": "hidden"})).await;
    let before = vault.tokens().await;
    let of = |key: &str, property: &str| json!({"secretKey": "x", "remoteRef": {"key": key, "property": property}});
    for number in 0..5 {
        let name = format!("a{number}");
        rotations.create(&name, json!({"target": {"name": name}, "store": store, "data": [of("app/db", "password")]})).await;
    }
    for number in 0..5 {
        rotations.ready(&format!("a{number}"), 1).await;
    }
    assert_eq!(vault.tokens().await, before + 1, "one login for all of them");
    assert_eq!(rotations.data("a0").await["x"], "p1");

    // Another value, another version of it, and what may not be read.
    vault.put("app/db", json!({"password": "p2"})).await;
    rotations.ask("a0", "refresh", "1").await;
    rotations.ready("a0", 2).await;
    let old = json!({"secretKey": "x", "remoteRef": {"key": "app/db", "property": "password", "version": "1"}});
    rotations.create("old", json!({"target": {"name": "old"}, "store": store, "data": [old]})).await;
    rotations.ready("old", 1).await;
    assert_eq!((rotations.data("a0").await["x"].as_str(), rotations.data("old").await["x"].as_str()), ("p2", "p1"));
    rotations.create("denied", json!({"target": {"name": "denied"}, "store": store, "data": [of("other/db", "password")]})).await;
    let message = rotations.says("denied", "Stalled", "True", "StoreDenied").await;
    assert!(
        message.contains("403")
            && message.contains("secret/data/other/db")
            && message.contains("permission denied")
            && message.contains("password"),
        "{message}"
    );

    // One that is denied by now changes nothing of a Secret that is there, although another key has changed.
    let two = |key: &str| json!([of("app/db", "password"), {"secretKey": "y", "remoteRef": {"key": key, "property": "password"}}]);
    vault.put("app/second", json!({"password": "s1"})).await;
    rotations.create("half", json!({"target": {"name": "half"}, "store": store, "data": two("app/second")})).await;
    rotations.ready("half", 1).await;
    let there = rotations.data("half").await;
    vault.put("app/db", json!({"password": "p3"})).await;
    rotations.change("half", json!({"data": two("other/db")})).await;
    let message = rotations.says("half", "Stalled", "True", "StoreDenied").await;
    assert!(message.contains("\"y\"") && message.contains("other/db") && message.contains("password"), "{message}");
    assert_eq!(rotations.data("half").await, there, "all of it, or nothing of it");

    // What is not mounted is no value that is gone.
    let mut other = store.clone();
    other["vault"]["path"] = json!("unmounted");
    rotations
        .create(
            "unmounted",
            json!({"target": {"name": "unmounted", "deletionPolicy": "Delete"}, "store": other, "data": [of("app/db", "password")]}),
        )
        .await;
    let (_, reason, message) =
        said(&rotations.until("unmounted", "it says so", |object| said(object, "Ready").is_some()).await, "Ready").unwrap();
    assert!(["StoreDenied", "StoreInvalid"].contains(&reason.as_str()), "{reason}: {message}");

    // Sealed: nobody loses anything, and all are told when it is back.
    vault.seal().await;
    for number in 0..5 {
        rotations.ask(&format!("a{number}"), "refresh", "2").await;
    }
    for number in 0..5 {
        let message = rotations.says(&format!("a{number}"), "Ready", "False", "StoreUnavailable").await;
        assert!(message.contains("Vault is sealed"), "{message}");
    }
    vault.unseal().await;
    for number in 0..5 {
        rotations
            .until(&format!("a{number}"), "it is back", |object| said(object, "Ready").is_some_and(|(status, ..)| status == "True"))
            .await;
    }

    // At the end nothing of ours stays behind.
    operator.shut_down().await;
    eventually("the token is given back", || async {
        let now = vault.tokens().await;
        if now == before { Ok(()) } else { Err(format!("{now} instead of {before}")) }
    })
    .await;
}

/// As it stands in the example, but for where Vault is and who asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_standard_application() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let namespace = cluster.namespace("standard").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let value = json!({"jwt_secret": "first", "database_password": "d/1", "redis_password": "r", "settings_encryption_key": "k", "oauth_client_id": "x", "oauth_client_secret": "y"});
    vault.put("tmi/production", value).await;
    let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/secret-rotation-vault.yaml")).unwrap();
    let mut object: Value = serde_saphyr::from_str(&example).unwrap();
    let (id, secret) = vault.role("app", &POLICY.replace("/app/", "/tmi/")).await;
    namespace.secret("vault-approle", "Opaque", &[("secret-id", &secret)]).await;
    let store = object["spec"]["store"]["vault"].as_object_mut().unwrap();
    store.insert("server".into(), vault.address.clone().into());
    store.remove("caSecretRef").unwrap();
    store["auth"]["appRole"]["roleId"] = id.into();
    rotations.create("tmi", object["spec"].take()).await;
    rotations.ready("tmi", 1).await;
    let data = rotations.data("tmi-secrets").await;
    assert_eq!((data["jwt-secret"].as_str(), data["database-url"].as_str()), ("first", "postgres://tmi:d%2F1@db:5432/tmi?sslmode=require"));
    assert_eq!((data["settings-encryption-key"].as_str(), data["oauth-client-id"].as_str()), ("k", "x"));
    let workload = Workload::start(&namespace, "tmi", "tmi-secrets").await;
    operator.clock.advance(jiff::SignedDuration::from_hours(24 * 100));
    rotations.ask("tmi", "look", "1").await;
    rotations.ready("tmi", 2).await;
    let (data, (there, _)) = (rotations.data("tmi-secrets").await, vault.get("tmi/production").await);
    assert_eq!((&there["jwt_secret"], &there["settings_encryption_key"]), (&json!(data["jwt-secret"]), &json!("k")));
    assert!(data["jwt-secret"] != "first" && data["jwt-secret-previous"] == "first", "{:?}", data.keys());
    workload.restarted(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_that_is_printed_is_enough() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("policy").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    let (id, secret) = vault.role("app", r#"path "nothing" { capabilities = ["deny"] }"#).await;
    namespace.secret("approle", "Opaque", &[("id", &secret)]).await;
    vault.put("app/db", json!({"password": "p1"})).await;
    vault.put("team/one", json!({"a": "1"})).await;
    let spec = json!({
        "target": {"name": "app"},
        "store": {"vault": {"server": vault.address, "auth": {"appRole": {"roleId": id, "secretRef": {"name": "approle", "key": "id"}}}}},
        "data": [{"secretKey": "x", "remoteRef": {"key": "app/db", "property": "password"}}],
        "dataFrom": [{"find": {"path": "team"}}],
        "rotation": {"generate": [{"secretKey": "k", "hex": {}}], "push": [{"secretKey": "k", "remoteRef": {"key": "app/new", "property": "k"}}]},
    });
    rotations.create("app", spec).await;
    rotations.says("app", "Stalled", "True", "StoreDenied").await;
    let kubeconfig = std::env::var("SEAWORTHY_TEST_KUBECONFIG").unwrap();
    let (code, policy) = crate::cli::seaworthy(&kubeconfig, &["vault-policy", "-n", &namespace.name]);
    assert!(code == 0 && policy.starts_with("# http://127.0.0.1:"), "{policy}");
    vault.call("POST", "sys/policies/acl/app", json!({"policy": policy})).await;
    rotations.ask("app", "refresh", "1").await;
    rotations.ready("app", 1).await;
    assert_eq!(vault.get("app/new").await.0["k"], rotations.data("app").await["k"]);
    assert_eq!(rotations.data("app").await["team_one"], r#"{"a":"1"}"#);
    // What goes to the store of a SecretStore is printed for that one.
    let login = json!({"token": {"secretRef": {"name": "none", "key": "token"}}});
    let store = json!({"allowedNamespaces": {}, "vault": {"server": "https://vault.example", "path": "kv", "auth": login}});
    let stores = cluster.secret_store(&namespace.name, store).await;
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "many/db", "property": "p"}}]);
    rotations.create("by-name", json!({"target": {"name": "by-name"}, "storeRef": {"name": namespace.name}, "data": data})).await;
    let (code, policy) = crate::cli::seaworthy(&kubeconfig, &["vault-policy", "-n", &namespace.name]);
    let (own, of_many) = policy.split_once("# https://vault.example").expect(&policy);
    assert!(code == 0 && of_many.contains("kv/data/many/db") && !own.contains("many/db"), "{policy}");
    // What it does not allow adds nothing to it.
    let others = Patch::Merge(json!({"spec": {"allowedNamespaces": {"matchLabels": {"team": "another"}}}}));
    stores.patch(&namespace.name, &PatchParams::default(), &others).await.unwrap();
    let (code, policy) = crate::cli::seaworthy(&kubeconfig, &["vault-policy", "-n", &namespace.name]);
    assert!(code == 0 && policy.contains("SecretRotation by-name is left out") && !policy.contains("kv/data"), "{policy}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_key_is_written_back_beside_what_is_there() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("pushed").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let store = by_role(&vault, &namespace).await;
    vault.put("app/production", json!({"jwt_secret": "first", "redis_password": "r/1", "n": 9_007_199_254_740_991_i64})).await;
    let spec = json!({
        "target": {"name": "tmi-secrets"}, "store": store,
        "data": [
            {"secretKey": "jwt-secret", "remoteRef": {"key": "app/production", "property": "jwt_secret"}},
            {"secretKey": "redis-password", "remoteRef": {"key": "app/production", "property": "redis_password"}},
        ],
        "template": {"mergePolicy": "Merge", "data": {"url": "redis://:{{ redis_password | urlencode }}@redis:6379/0"}},
        "rotation": {
            "schedule": "0 3 1 */3 *", "generate": [{"secretKey": "jwt-secret", "base64": {"bytes": 32}}],
            "push": [{"secretKey": "jwt-secret", "remoteRef": {"key": "app/production", "property": "jwt_secret"}}],
        },
    });
    rotations.create("tmi", spec).await;
    rotations.ready("tmi", 1).await;
    assert_eq!(rotations.data("tmi-secrets").await["jwt-secret"], "first");
    assert_eq!(vault.get("app/production").await.1, 1, "nothing was written for nothing");
    operator.clock.advance(jiff::SignedDuration::from_hours(24 * 100));
    rotations.ask("tmi", "look", "1").await;
    rotations.ready("tmi", 2).await;
    let data = rotations.data("tmi-secrets").await;
    let (there, version) = vault.get("app/production").await;
    assert_eq!((&there["jwt_secret"], version), (&json!(data["jwt-secret"]), 2));
    assert_ne!(data["jwt-secret"], "first");
    assert_eq!((&there["redis_password"], &there["n"]), (&json!("r/1"), &json!(9_007_199_254_740_991_i64)));
    assert_eq!(data["url"], "redis://:r%2F1@redis:6379/0");
}

async fn create<K>(client: &Client, namespace: Option<&str>, object: Value)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    K: kube::Resource,
{
    let object: K = serde_json::from_value(object).unwrap();
    let api: Api<kube::core::DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kube::core::ApiResource::erase::<K>(&())),
        None => Api::all_with(client.clone(), &kube::core::ApiResource::erase::<K>(&())),
    };
    let object = serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// The ServiceAccount `app`.
pub async fn service_account(namespace: &Namespace) {
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app"}});
    create::<ServiceAccount>(&namespace.client, Some(&namespace.name), object).await;
}

/// The user allows the operator to be it.
pub async fn may_be_it(namespace: &Namespace) {
    let rule = json!({"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["app"], "verbs": ["create"]});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "vault"}, "rules": [rule]});
    create::<Role>(&namespace.client, Some(&namespace.name), role).await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "vault"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "vault"},
        "subjects": [{"kind": "ServiceAccount", "name": "seaworthy", "namespace": "seaworthy"}],
    });
    create::<RoleBinding>(&namespace.client, Some(&namespace.name), binding).await;
}

/// Lets Vault verify the tokens of the ServiceAccount `app` itself, for this policy. Returns the login.
async fn by_signature(cluster: &Cluster, vault: &Vault, namespace: &Namespace, policy: &str) -> Value {
    let jwks = cluster.client.request_text(http::Request::get("/openid/v1/jwks").body(Vec::new()).unwrap()).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(move || async move { jwks })).await });
    vault.call("POST", "sys/auth/jwt", json!({"type": "jwt"})).await;
    vault.call("POST", "auth/jwt/config", json!({"jwks_url": url})).await;
    let subject = format!("system:serviceaccount:{}:app", namespace.name);
    let role = json!({"role_type": "jwt", "bound_audiences": ["vault"], "bound_subject": subject, "user_claim": "sub", "token_policies": [policy]});
    vault.call("POST", "auth/jwt/role/app", role).await;
    json!({"role": "app", "serviceAccountRef": {"name": "app"}})
}

/// Lets Vault have the tokens of the ServiceAccount `app` reviewed, for this policy. Returns the login.
pub async fn login_by_review(cluster: &Cluster, vault: &Vault, namespace: &Namespace, policy: &str) -> Value {
    let server = cluster.operator_config.cluster_url.to_string();
    let ca: String = cluster
        .operator_config
        .root_cert
        .clone()
        .unwrap()
        .iter()
        .map(|der| seaworthy::certificates::x509::Certificate::from_der(der).unwrap().to_pem())
        .collect();
    // Vault reviews the token with the token itself, as it does in most clusters.
    vault.call("POST", "sys/auth/kubernetes", json!({"type": "kubernetes"})).await;
    vault
        .call(
            "POST",
            "auth/kubernetes/config",
            json!({"kubernetes_host": server.trim_end_matches('/'), "kubernetes_ca_cert": ca, "disable_local_ca_jwt": true}),
        )
        .await;
    let role = json!({"bound_service_account_names": ["app"], "bound_service_account_namespaces": [namespace.name], "token_policies": [policy], "audience": "vault"});
    vault.call("POST", "auth/kubernetes/role/app", role).await;
    let subject = json!({"kind": "ServiceAccount", "name": "app", "namespace": namespace.name});
    create::<ClusterRoleBinding>(&namespace.client, None, json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": namespace.name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"}, "subjects": [subject]})).await;
    json!({"role": "app", "serviceAccountRef": {"name": "app", "audiences": ["vault", "https://kubernetes.default.svc.cluster.local"]}})
}

/// The same with the ServiceAccount, and the right to be it.
pub async fn login_by_jwt(cluster: &Cluster, vault: &Vault, namespace: &Namespace, policy: &str) -> Value {
    service_account(namespace).await;
    may_be_it(namespace).await;
    by_signature(cluster, vault, namespace, policy).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_a_service_account() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("kubernetes-login").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    vault.put("app/db", json!({"password": "p1"})).await;
    vault.call("POST", "sys/policies/acl/app", json!({"policy": POLICY})).await;
    service_account(&namespace).await;
    let login = login_by_review(&cluster, &vault, &namespace, "app").await;
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "app/db", "property": "password"}}]);
    rotations
        .create(
            "app",
            json!({"target": {"name": "app"}, "store": {"vault": {"server": vault.address, "auth": {"kubernetes": login}}}, "data": data.clone()}),
        )
        .await;
    // Nobody has allowed the operator to be that ServiceAccount.
    let message = rotations.says("app", "Stalled", "True", "StoreDenied").await;
    assert!(message.contains("no token of ServiceAccount app can be had") && message.contains("allow the operator"), "{message}");
    may_be_it(&namespace).await;
    rotations.ask("app", "refresh", "1").await;
    rotations.ready("app", 1).await;
    assert_eq!(rotations.data("app").await["x"], "p1");

    // The same token, whose signature Vault verifies itself.
    let login = by_signature(&cluster, &vault, &namespace, "app").await;
    let store = json!({"vault": {"server": vault.address, "auth": {"jwt": login}}});
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "store": store, "data": data})).await;
    rotations.ready("jwt", 1).await;
    assert_eq!(rotations.data("jwt").await["x"], "p1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_before_it_ends() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("renewed").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    let store = by_role(&vault, &namespace).await;
    vault.call("POST", "auth/approle/role/app", json!({"token_policies": ["app"], "token_ttl": "6s", "token_max_ttl": "1h"})).await;
    vault.put("app/db", json!({"password": "p1"})).await;
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "app/db", "property": "password"}}]);
    let before = vault.accessors().await;
    rotations.create("app", json!({"target": {"name": "app"}, "store": store, "data": data})).await;
    rotations.ready("app", 1).await;
    let ours: Vec<_> = vault.accessors().await.difference(&before).cloned().collect();
    assert_eq!(ours.len(), 1);
    // Twice as long as it would live.
    let mut time = tokio::time::interval(std::time::Duration::from_secs(1));
    for turn in 0..13 {
        time.tick().await;
        vault.put("app/db", json!({"password": format!("turn {turn}")})).await;
        rotations.ask("app", "refresh", &turn.to_string()).await;
        eventually("it is read", || async {
            let data = rotations.data("app").await;
            if data["x"] == format!("turn {turn}") { Ok(()) } else { Err(format!("{data:?}")) }
        })
        .await;
    }
    assert_eq!(vault.accessors().await.difference(&before).cloned().collect::<Vec<_>>(), ours, "it is the same token still");
}

/// Who reads seldom, or only when it is asked to, has the token that it had; it is given back when nobody refers to the store any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_nobody_uses_for_days_is_kept_until_it_is_not_needed() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("seldom").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let store = by_role(&vault, &namespace).await;
    vault.call("POST", "auth/approle/role/app", json!({"token_policies": ["app"], "token_ttl": "18s", "token_max_ttl": "1h"})).await;
    vault.put("app/db", json!({"password": "p1"})).await;
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "app/db", "property": "password"}}]);
    let before = vault.accessors().await;
    let kinds = [("daily", "Periodic", "48h"), ("never", "Periodic", "0s"), ("asked", "OnChange", "1h")];
    for (name, policy, interval) in kinds {
        let spec = json!({"target": {"name": name}, "store": store, "data": data, "refreshPolicy": policy, "refreshInterval": interval});
        rotations.create(name, spec).await;
        rotations.ready(name, 1).await;
    }
    let ours: Vec<_> = vault.accessors().await.difference(&before).cloned().collect();
    let [accessor] = ours.as_slice() else { panic!("one login: {ours:?}") };
    operator.clock.advance(jiff::SignedDuration::from_hours(45));
    // By then it was looked whether somebody needs it.
    let later = jiff::Timestamp::now().as_second() + 11;
    eventually("it is renewed although nothing is read", || async {
        let answer = vault.call("POST", "auth/token/lookup-accessor", json!({"accessor": accessor})).await;
        let renewed = answer["data"]["last_renewal_time"].as_i64();
        renewed.filter(|time| *time >= later).map(|_| ()).ok_or_else(|| answer.to_string())
    })
    .await;
    vault.put("app/db", json!({"password": "p2"})).await;
    for (name, ..) in kinds {
        rotations.ask(name, "refresh", "1").await;
        rotations.ready(name, 2).await;
    }
    assert_eq!(vault.accessors().await.difference(&before).cloned().collect::<Vec<_>>(), ours, "nobody had to log in");
    for (name, ..) in kinds {
        rotations.api().delete(name, &kube::api::DeleteParams::default()).await.unwrap();
    }
    eventually("it is given back", || async {
        // A look that was on its way may have come for it just now.
        operator.clock.advance(jiff::SignedDuration::from_secs(61));
        if vault.accessors().await.contains(accessor) { Err(String::from("it is there")) } else { Ok(()) }
    })
    .await;
}
