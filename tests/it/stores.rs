//! What every store must keep; and a store that only an administrator sets up: another cluster.

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
        store::{Allowed, Content, OpenStore, Opening, Store},
        stores::StoreSpec,
    },
    testing::{secrets::Secrets, store_contract},
};
use serde_json::{Value, json};

use crate::support::{Cluster, ControlPlane, Moto, Namespace, Operator, Rotations, Vault, command, oci::Oci, open};

/// Opened in a namespace, with what an operator has.
async fn open_in(cluster: &Cluster, spec: &Value, namespace: &str) -> Box<dyn OpenStore> {
    let secrets = NamespaceSecrets::new(cluster.client.clone(), namespace);
    let (writer, allowed) = (Writer::new(cluster.client.clone(), Leadership::always(), MANAGER), Allowed::default().of_administrators());
    let spec: StoreSpec = serde_json::from_value(spec.clone()).unwrap();
    let opening = Opening { secrets: &secrets, namespace, cluster: Some(&cluster.client), writer: Some(&writer), allowed: &allowed };
    spec.open(opening).await.unwrap()
}

/// Opened with what the operator's own settings give out.
async fn open_allowed(spec: Value, allowed: Allowed) -> Box<dyn OpenStore> {
    let opening = Opening { secrets: &Secrets::default(), namespace: "n", cluster: None, writer: None, allowed: &allowed };
    serde_json::from_value::<StoreSpec>(spec).unwrap().open(opening).await.unwrap()
}

fn bytes(text: &str) -> Content {
    Content::Bytes(text.as_bytes().to_vec().into())
}

/// A store that is added has to be added here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_store_keeps_what_a_store_must_keep() {
    for kind in StoreSpec::KINDS {
        match *kind {
            "kubernetes" => {
                let cluster = Cluster::shared().await;
                let namespace = cluster.namespace("contract").await;
                for (spec, inside) in [(json!({"namespace": namespace.name}), "seaworthy"), (json!({}), namespace.name.as_str())] {
                    let store = open_in(&cluster, &json!({"kubernetes": spec}), inside).await;
                    store_contract::run(store.as_ref(), &format!("{inside}-")).await;
                }
            }
            "aws" => {
                let moto = Moto::start().await;
                let of = |key: &str| json!({"name": "aws", "key": key});
                let auth = json!({"secretRef": {"accessKeyID": of("id"), "secretAccessKey": of("secret")}});
                let spec = json!({"aws": {"region": "us-east-1", "endpoint": moto.address, "auth": auth}});
                let store = open(&spec, "aws", &[("id", "AKIAEXAMPLE"), ("secret", "s")]).await.unwrap();
                store_contract::run(store.as_ref(), "contract/").await;
            }
            "vault" => {
                let vault = Vault::start().await;
                for (path, version) in [("secret", "v2"), ("old", "v1")] {
                    let mut spec = vault.by_token();
                    (spec["vault"]["path"], spec["vault"]["version"]) = (path.into(), version.into());
                    let store = open(&spec, "vault", &[("token", &vault.root)]).await.unwrap();
                    store_contract::run(store.as_ref(), "contract/").await;
                    store.close().await;
                }
            }
            "oci" => {
                let oci = Oci::start().await;
                let store = open(&oci.store(), "oci", &[("key.pem", &oci.private)]).await.unwrap();
                store_contract::run(store.as_ref(), "contract-").await;
            }
            "env" => {
                let allowed = Allowed { env: vec!["CARGO_PKG_NAME*".into()], ..Allowed::default() };
                let there = [("CARGO_PKG_NAME".to_owned(), bytes("seaworthy"))].into();
                store_contract::reads_only(open_allowed(json!({"env": {}}), allowed).await.as_ref(), "CARGO_PKG_NAME", &there).await;
            }
            "file" => {
                let folder = std::env::temp_dir().join(format!("seaworthy-contract-{}", std::process::id()));
                std::fs::create_dir_all(folder.join("deep")).unwrap();
                let there = [("deep/b", "\u{e4}\n"), ("deep/empty", ""), ("deep/a", "1")];
                for (name, text) in there {
                    std::fs::write(folder.join(name), text).unwrap();
                }
                let there = there.map(|(name, text)| (name.to_owned(), bytes(text))).into();
                let allowed = Allowed { folders: vec![folder.clone()], ..Allowed::default() };
                store_contract::reads_only(open_allowed(json!({"file": {"path": folder}}), allowed).await.as_ref(), "deep/", &there).await;
                std::fs::remove_dir_all(folder).unwrap();
            }
            "memory" => {
                let store = open_allowed(json!({"memory": {}}), Allowed::default()).await;
                store_contract::run(store.as_ref(), "contract/").await;
            }
            other => panic!("the store {other} does not run the contract suite"),
        }
    }
}

/// A ServiceAccount that may do with the Secrets of its namespace what a store does; its token.
pub async fn account(namespace: &Namespace) -> String {
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

pub fn authority(cluster: &Cluster) -> String {
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

    // What it must keep holds there as well.
    store_contract::run(open_in(&cluster, &spec, "seaworthy").await.as_ref(), "contract-").await;
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
