//! SecretStores that let the operator in as who it is: the machine that it runs on, its Pod, a ServiceAccount of its own namespace.

use kube::Api;
use seaworthy::api::SecretStore;
use serde_json::{Value, json};

use crate::{
    canary::search_everything,
    oci::metadata,
    support::{
        Between, ControlPlane, Moto, Process, Rotations, eventually,
        oci::Oci,
        tls::{WORKLOAD_PROXIES, terminate},
    },
    vault::{may_be_it, service_account},
};

/// A role and the token of the Pod, as EKS gives them, and what takes the place of AWS' and Oracle's own addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_the_operator_is_lets_it_in() {
    let ((_own, cluster), moto, oci) = (ControlPlane::start().await, Moto::start().await, Oci::start().await);
    let (namespace, between) = (cluster.namespace("identities").await, Between::to(&moto.address).await);
    moto.call("CreateSecret", json!({"Name": "app", "SecretString": json!({"p": "of-aws"}).to_string()})).await;
    oci.put("app", r#"{"p": "of-oracle"}"#);
    // What surrounds the operator.
    let folder = std::env::temp_dir().join(format!("seaworthy-identities-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (token, ca) = (folder.join("token"), folder.join("ca.crt"));
    std::fs::write(&token, "the-token-of-the-pod").unwrap();
    let (metadata, machine_key) = metadata(&oci).await;
    let (proxy, certificate) = terminate(WORKLOAD_PROXIES[1], &oci.address).await;
    std::fs::write(&ca, certificate).unwrap();
    let home = cluster.home();
    service_account(&home).await;
    may_be_it(&home).await;
    oci.believe("system:serviceaccount:seaworthy:app");
    let environment = [
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/operator"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ENDPOINT_URL_STS", &between.address),
        ("OCI_METADATA_BASE_URL", &metadata),
        ("OCI_SDK_AUTH_CLIENT_REGION_URL", &oci.address),
        ("OCI_KUBERNETES_SERVICE_ACCOUNT_CERT_PATH", ca.to_str().unwrap()),
        ("KUBERNETES_SERVICE_HOST", &proxy.ip().to_string()),
    ];
    let process = Process::with(&cluster, &[], &environment);

    let aws = |more: Value| {
        let mut aws = json!({"region": "us-east-1", "endpoint": between.address, "auth": {"ambient": {}}});
        aws.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"allowedNamespaces": {}, "aws": aws})
    };
    let oracle = |auth: Value| {
        let mut spec = oci.store();
        (spec["allowedNamespaces"], spec["oci"]["auth"]) = (json!({}), auth);
        spec
    };
    let stores = [
        ("pod", aws(json!({})), "of-aws"),
        ("role", aws(json!({"role": "arn:aws:iam::123456789012:role/reader", "externalID": "tmi"})), "of-aws"),
        ("machine", oracle(json!({"instancePrincipal": {}})), "of-oracle"),
        ("workload", oracle(json!({"workloadIdentity": {"serviceAccountRef": {"name": "app"}}})), "of-oracle"),
    ];
    let rotations = Rotations(&namespace);
    for (name, spec, _) in &stores {
        cluster.secret_store(name, spec.clone()).await;
        let data = json!([{"secretKey": "x", "remoteRef": {"key": "app", "property": "p"}}]);
        rotations.create(name, json!({"target": {"name": name}, "storeRef": {"name": name}, "data": data})).await;
    }
    let api: Api<SecretStore> = Api::all(cluster.client.clone());
    for (name, _, value) in &stores {
        rotations.ready(name, 1).await;
        assert_eq!(rotations.data(name).await["x"], *value, "{name}");
        eventually(&format!("the store {name} is Ready"), || async {
            let status = api.get(name).await.map_err(|error| error.to_string())?.status.unwrap_or_default();
            let ready = status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
            if ready { Ok(()) } else { Err(json!(status).to_string()) }
        })
        .await;
    }
    let asked = between.take_asked();
    assert!(asked.iter().any(|asked| asked.contains("AssumeRoleWithWebIdentity")), "{asked:?}");
    assert!(asked.iter().any(|asked| asked.contains("ExternalId=tmi")), "{asked:?}");
    // What it was given to show stays with it.
    let mut values = vec!["the-token-of-the-pod".to_owned(), "eyJhbGciOiJSUzI1NiIs".to_owned()];
    values.extend(machine_key.lines().skip(1).take(3).map(ToOwned::to_owned));
    values.extend(["of-aws", "of-oracle"].map(ToOwned::to_owned));
    search_everything(&cluster, &process, &values).await;
    std::fs::remove_dir_all(folder).unwrap();
}
