//! Stores that only an administrator sets up: another cluster, a credential that replaces itself.

use jiff::SignedDuration;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Secret, ServiceAccount},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use seaworthy::{
    api::SecretStore,
    cluster::{apply::Writer, lease::Leadership, references::NamespaceSecrets},
    secrets::{
        area::MANAGER,
        store::{Allowed, Opening, Store},
        stores::StoreSpec,
    },
    testing::store_contract,
};
use serde_json::{Value, json};

use crate::support::{Cluster, ControlPlane, Namespace, Operator, Rotations, Vault, command, eventually};

async fn store(cluster: &Cluster, name: &str, spec: Value) -> Api<SecretStore> {
    let stores: Api<SecretStore> = Api::all(cluster.client.clone());
    let object = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretStore", "metadata": {"name": name}, "spec": spec});
    stores.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    stores
}

/// A Secret in the operator's namespace.
async fn secret(cluster: &Cluster, name: &str, data: Value) -> Api<Secret> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "seaworthy");
    let object = serde_json::from_value(json!({"metadata": {"name": name}, "stringData": data})).unwrap();
    secrets.create(&PostParams::default(), &object).await.unwrap();
    secrets
}

/// A ServiceAccount that may do with the Secrets of its namespace what a store does; its token.
async fn account(namespace: &Namespace) -> String {
    let rights = format!(
        r#"[{{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {{"name": "store", "namespace": "{0}"}}}},
        {{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {{"name": "store", "namespace": "{0}"}},
          "rules": [{{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "create", "patch"]}}]}},
        {{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {{"name": "store", "namespace": "{0}"}},
          "roleRef": {{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "store"}}, "subjects": [{{"kind": "ServiceAccount", "name": "store"}}]}}]"#,
        namespace.name
    );
    let list = format!(r#"{{"apiVersion": "v1", "kind": "List", "items": {rights}}}"#);
    command("kubectl", &["--kubeconfig", &std::env::var("SEAWORTHY_TEST_KUBECONFIG").unwrap(), "apply", "-f", "-"], list.as_bytes());
    let accounts: Api<ServiceAccount> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() }),
        ..TokenRequest::default()
    };
    accounts.create_token_request("store", &PostParams::default(), &request).await.unwrap().status.unwrap().token.unwrap()
}

fn authority(cluster: &Cluster) -> String {
    let roots = cluster.operator_config.root_cert.clone().unwrap();
    roots.iter().map(|der| seaworthy::keys::pem::pem("CERTIFICATE", der)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_of_this_cluster_and_of_another_one() {
    let (_own, cluster) = ControlPlane::start().await;
    let operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    let other = Cluster::shared().await;
    let (here, there) = (cluster.namespace("here").await, other.namespace("there").await);
    let token = account(&there).await;
    secret(&cluster, "other-cluster", json!({"token": token})).await;
    let url = other.operator_config.cluster_url.to_string();
    let server = json!({"url": url.trim_end_matches('/'), "caBundle": authority(&other), "auth": {"token": {"secretRef": {"name": "other-cluster", "key": "token"}}}});
    let spec = json!({"kubernetes": {"namespace": there.name, "server": server}});

    // The contract, in both clusters.
    let secrets = NamespaceSecrets::new(cluster.client.clone(), "seaworthy");
    let (writer, allowed) = (Writer::new(cluster.client.clone(), Leadership::always(), MANAGER), Allowed::default().of_administrators());
    for spec in [spec.clone(), json!({"kubernetes": {"namespace": here.name}})] {
        let spec: StoreSpec = serde_json::from_value(spec).unwrap();
        let opening =
            Opening { secrets: &secrets, namespace: "seaworthy", cluster: Some(&cluster.client), writer: Some(&writer), allowed: &allowed };
        store_contract::run(spec.open(opening).await.unwrap().as_ref(), "contract-").await;
    }
    let pushed = there.secrets().get("contract-one").await.unwrap();
    assert!(pushed.data.unwrap().contains_key("part"), "it was written there");

    // A whole resource.
    there.secret("db", "Opaque", &[("password", "far")]).await;
    let mut object = spec.clone();
    object["allowedNamespaces"] = json!({});
    let stores = store(&cluster, "far", object).await;
    let rotations = Rotations(&here);
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "db", "property": "password"}}]);
    rotations.create("app", json!({"target": {"name": "app"}, "storeRef": {"name": "far"}, "data": data})).await;
    rotations.ready("app", 1).await;
    assert_eq!(rotations.data("app").await["x"], "far");
    // Nobody but an administrator reaches another cluster; and a token that is not believed is told.
    let refused =
        rotations.try_create("inline", json!({"target": {"name": "b"}, "store": spec, "data": data})).await.unwrap_err().to_string();
    assert!(refused.contains("needs a SecretStore"), "{refused}");
    Api::<Secret>::namespaced(cluster.client.clone(), "seaworthy")
        .patch("other-cluster", &PatchParams::default(), &Patch::Merge(json!({"stringData": {"token": "nonsense"}})))
        .await
        .unwrap();
    operator.clock.advance(SignedDuration::from_hours(2));
    rotations.ask("app", "look", "1").await;
    let message = rotations.says("app", "Stalled", "True", "StoreDenied").await;
    assert!(!message.contains("nonsense"), "{message}");
    assert_eq!(rotations.data("app").await["x"], "far", "what is there stays");
    drop(stores);
}

/// What the page of the kind says, and no more.
const POLICY: &str = r#"path "secret/data/*" { capabilities = ["read"] }
path "auth/approle/role/app/secret-id" { capabilities = ["list", "update"] }
path "auth/approle/role/app/secret-id/lookup" { capabilities = ["update"] }
path "auth/approle/role/app/secret-id-accessor/lookup" { capabilities = ["update"] }
path "auth/approle/role/app/secret-id-accessor/destroy" { capabilities = ["update"] }"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_id_replaces_itself_and_the_one_before_is_destroyed_later() {
    let ((_own, cluster), vault) = (ControlPlane::start().await, Vault::start().await);
    let operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    let namespace = cluster.namespace("users").await;
    vault.put("db", json!({"password": "p"})).await;
    let (id, first) = vault.role("app", POLICY).await;
    let secrets = secret(&cluster, "approle", json!({"id": first, "note": "ours"})).await;
    let role = json!({"roleId": id, "secretRef": {"name": "approle", "key": "id"}, "rotateSecretId": {"every": "720h"}});
    let stores =
        store(&cluster, "vault", json!({"allowedNamespaces": {}, "vault": {"server": vault.address, "auth": {"appRole": role}}})).await;
    let now = async || {
        let data = secrets.get("approle").await.unwrap().data.unwrap();
        assert_eq!(data["note"].0, b"ours", "what else is in the Secret stays");
        String::from_utf8(data["id"].0.clone()).unwrap()
    };
    let replaced = async |before: &str| {
        eventually("the secret id is another one", || async {
            let status = stores.get("vault").await.map_err(|error| error.to_string())?.status.unwrap_or_default();
            let there = now().await;
            if there != before && status.last_credential_rotation_time.is_some() { Ok(there) } else { Err(format!("{status:?}")) }
        })
        .await
    };
    let lives = async |secret_id: &str| {
        let (status, _) = vault.try_call("POST", "auth/approle/login", json!({"role_id": id, "secret_id": secret_id})).await;
        status == 200
    };
    // The first one, that a person made, is replaced at once; it lives on for who is just using it.
    let second = replaced(&first).await;
    assert!(lives(&first).await && lives(&second).await);
    let rotations = Rotations(&namespace);
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "db", "property": "password"}}]);
    rotations.create("app", json!({"target": {"name": "app"}, "storeRef": {"name": "vault"}, "data": data})).await;
    rotations.ready("app", 1).await;
    // An attempt that died half way has left one behind that nobody knows.
    let uid = stores.get("vault").await.unwrap().metadata.uid.unwrap();
    let lost = vault.call("POST", "auth/approle/role/app/secret-id", json!({"metadata": json!({"seaworthy": uid}).to_string()})).await;
    let lost = lost["data"]["secret_id"].as_str().unwrap().to_owned();
    let foreign = vault.call("POST", "auth/approle/role/app/secret-id", json!({})).await["data"]["secret_id"].as_str().unwrap().to_owned();
    let look = async |hours: i64| {
        operator.clock.advance(SignedDuration::from_hours(hours));
        let note = json!({"metadata": {"annotations": {"seaworthy.dev/look": hours.to_string()}}});
        stores.patch("vault", &PatchParams::default(), &Patch::Merge(note)).await.unwrap();
    };
    look(1).await;
    eventually("the first one is destroyed", || async { if lives(&first).await { Err("it lives".into()) } else { Ok(()) } }).await;
    eventually("the lost one, too", || async { if lives(&lost).await { Err("it lives".into()) } else { Ok(()) } }).await;
    assert!(lives(&second).await && lives(&foreign).await, "what somebody else made is theirs");
    assert_eq!(now().await, second);
    // A month later.
    look(24 * 31).await;
    let third = replaced(&second).await;
    rotations.ask("app", "refresh", "1").await;
    rotations.ready("app", 1).await;
    // Somebody is faster and destroys the one before: then that is done.
    vault.call("POST", "auth/approle/role/app/secret-id/destroy", json!({"secret_id": second})).await;
    assert!(!lives(&second).await);
    look(2).await;
    eventually("nothing is left to be destroyed", || async {
        let annotations = secrets.get("approle").await.map_err(|error| error.to_string())?.metadata.annotations.unwrap_or_default();
        let left = annotations.keys().any(|key| key.starts_with("seaworthy.dev/credential-replaced"));
        let status = stores.get("vault").await.map_err(|error| error.to_string())?.status.unwrap_or_default();
        let ready = status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        if ready && !left { Ok(()) } else { Err(format!("{:?} {status:?}", annotations.keys())) }
    })
    .await;
    assert!(lives(&third).await);
}
