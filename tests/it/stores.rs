//! Stores that only an administrator sets up: another cluster.

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
    cluster::{apply::Writer, lease::Leadership, references::NamespaceSecrets},
    secrets::{
        area::MANAGER,
        store::{Allowed, Opening, Store},
        stores::StoreSpec,
    },
    testing::store_contract,
};
use serde_json::json;

use crate::support::{Cluster, ControlPlane, Namespace, Operator, Rotations, command};

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
    cluster.operators_secret("other-cluster", json!({"token": token})).await;
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
    let stores = cluster.secret_store("far", object).await;
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
