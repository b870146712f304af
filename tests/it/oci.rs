//! Oracle Cloud, played by a fake of its services.

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    signature::KeyPair,
};
use futures::FutureExt;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, api::PostParams};
use reqwest::Method;
use seaworthy::{
    clients::{
        error::ClientError,
        oci::{Oci as Client, Request, principal::Principal},
    },
    secrets::{
        contents::property,
        store::{Content, Find, OpenStore, Place, StoreError, Write},
    },
};
use serde_json::{Value, json};

use crate::{
    cli::seaworthy_in,
    support::{
        self, Cluster, Rotations, eventually,
        oci::{COMPARTMENT, Oci, POD_TOKEN, VAULT},
        tls::{WORKLOAD_PROXIES, terminate},
    },
};

async fn open(oci: &Oci, spec: Value) -> Box<dyn OpenStore> {
    support::open(&spec, "oci", &[("key.pem", &oci.private)]).await.unwrap()
}

fn place(key: &str, version: Option<&str>) -> Place {
    Place { key: key.into(), version: version.map(ToOwned::to_owned) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_stages_tags_and_what_is_not_told_apart() {
    let oci = Oci::start().await;
    let store = open(&oci, oci.store()).await;
    // Versions and stages; tags; a version that is not needed any more.
    oci.put("app", "one");
    oci.put("app", "two");
    oci.tag("app", json!({"team": "a"}));
    for (version, wanted) in [(None, "two"), (Some("1"), "one"), (Some("PREVIOUS"), "one"), (Some("CURRENT"), "two")] {
        let read = store.read(&place("app", version)).await.unwrap();
        assert_eq!(*property::get(&read.content, None).unwrap(), wanted.as_bytes(), "{version:?}");
    }
    let find: Find = serde_json::from_value(json!({"tags": {"team": "a"}})).unwrap();
    assert_eq!(store.find(&find).await.unwrap(), ["app"]);
    oci.busy("app", true);
    assert_eq!(store.find(&find).await.unwrap(), ["app"], "what is being changed is there");
    oci.busy("app", false);
    for (version, done) in [("1", false), ("2", false), ("7", true)] {
        assert_eq!(store.retire("app", version).await.unwrap(), done, "{version}: Oracle keeps the current version and the one before");
    }
    oci.put("app", "two");
    assert!(store.retire("app", "1").await.unwrap() && oci.retired("app") == [1].into());
    oci.put("app", "four");
    oci.name("app", "named", 3);
    for (version, wanted) in [("LATEST", "four"), ("DEPRECATED", "two"), ("named", "two"), ("3", "two")] {
        let read = store.read(&place("app", Some(version))).await.unwrap();
        assert_eq!(*property::get(&read.content, None).unwrap(), wanted.as_bytes(), "{version}");
    }
    for version in ["PENDING", "nobody's"] {
        assert!(
            matches!(store.read(&place("app", Some(version))).await, Err(StoreError::NotFound(_) | StoreError::Denied(_))),
            "{version}"
        );
    }

    // What Oracle does not tell apart: it is not there, it may not be read.
    let of = async |key: &str| store.read(&place(key, None)).await.unwrap_err();
    assert!(matches!(of("none").await, StoreError::NotFound(_)));
    oci.hide("app");
    assert!(matches!(of("app").await, StoreError::Denied(_)));
    oci.blind(true);
    assert!(matches!(of("none").await, StoreError::Denied(_)), "who may not list cannot say that something is missing");
    oci.blind(false);
    assert!(matches!(of("a/b").await, StoreError::Invalid(_)), "no secret can be called that");
    // One that is being changed says nothing about the others.
    oci.put("busy", "1");
    let version = store.read(&place("busy", None)).await.unwrap().version;
    let content = Content::Bytes(b"2".to_vec().into());
    let write = async || store.write(Write { key: "busy", content: &content, expected: version.as_deref(), token: "t" }).await;
    oci.busy("busy", true);
    let refused = write().await;
    assert!(matches!(&refused, Err(StoreError::Conflict(why)) if why.contains("IncorrectState")), "{refused:?}");
    oci.busy("busy", false);
    write().await.unwrap();
    for (status, wanted) in [(429, "throttled"), (503, "unavailable")] {
        oci.broken(Some(status));
        let said = match of("app").await {
            StoreError::Throttled { .. } => "throttled",
            StoreError::Unavailable(_) => "unavailable",
            other => panic!("{other:?}"),
        };
        assert_eq!(said, wanted);
    }
    oci.broken(None);

    // Without a compartment nothing can be told, found or made.
    let mut spec = oci.store();
    spec["oci"]["compartment"] = Value::Null;
    let store = open(&oci, spec).await;
    store.check().await.unwrap();
    assert!(matches!(store.read(&place("none", None)).await, Err(StoreError::Denied(why)) if why.contains("oci.compartment")));
    assert!(matches!(store.find(&find).await, Err(StoreError::Invalid(why)) if why.contains("oci.compartment")));
    // A key that Oracle does not know.
    let other = Oci::start().await;
    let mut spec = other.store();
    spec["oci"]["endpoints"] = oci.store()["oci"]["endpoints"].clone();
    assert!(matches!(open(&other, spec).await.check().await, Err(StoreError::Unauthenticated(why)) if why.contains("NotAuthenticated")));
}

/// A value is pending first: what is interrupted there is gone on with, and not written twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_value_is_pending_before_it_is_the_current_one() {
    let oci = Oci::start().await;
    let store = open(&oci, oci.store()).await;
    let text = async |version| store.read(&place("app", version)).await.map(|stored| property::get(&stored.content, None).unwrap());
    let content = |text: &str| Content::Bytes(text.as_bytes().to_vec().into());
    oci.put("app", "one");
    let (two, three) = (content("two"), content("three"));
    let write = async |content, expected| store.write(Write { key: "app", content, expected: Some(expected), token: "t" }).await;

    oci.lose();
    assert!(matches!(write(&two, "1").await, Err(StoreError::Unavailable(_))));
    assert_eq!((oci.get("app").as_str(), oci.versions("app")), ("one", 2), "it is written, and nobody's yet");
    assert_eq!(*text(Some("PENDING")).await.unwrap(), *b"two");
    assert_eq!(write(&two, "1").await.unwrap().as_deref(), Some("2"));
    assert_eq!((oci.get("app").as_str(), oci.versions("app")), ("two", 2), "it is not written twice");
    assert!(text(Some("PENDING")).await.is_err(), "nothing is on its way any more");

    // What was pending for somebody else is not taken for ours, and a stale one is never made the current one.
    oci.lose();
    assert!(write(&two, "2").await.is_err());
    assert_eq!(write(&three, "2").await.unwrap().as_deref(), Some("4"));
    assert_eq!(oci.get("app"), "three");
    oci.lose();
    assert!(write(&two, "4").await.is_err());
    oci.put("app", "somebody else's");
    assert!(matches!(write(&two, "4").await, Err(StoreError::Conflict(_))));
    assert_eq!(oci.get("app"), "somebody else's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_rotated_pushed_and_the_version_before_retired() {
    let (cluster, oci) = (Cluster::shared().await, Oci::start().await);
    let namespace = cluster.namespace("oci").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    namespace.secret("oci", "Opaque", &[("key.pem", &oci.private)]).await;
    oci.put("app-db", r#"{"user": "u", "password": "p"}"#);
    let of = |key: &str, property: &str| json!({"key": key, "property": property});
    let spec = json!({
        "target": {"name": "app"}, "store": oci.store(), "data": [{"secretKey": "user", "remoteRef": of("app-db", "user")}],
        "rotation": {"generate": [{"secretKey": "jwt", "hex": {}}], "previous": {"keepFor": "24h"}, "push": [{"secretKey": "jwt", "remoteRef": of("app-jwt", "key")}]},
    });
    rotations.create("app", spec).await;
    rotations.ready("app", 1).await;
    let first = rotations.data("app").await;
    assert_eq!(first["user"], "u");
    assert_eq!(oci.get("app-jwt"), json!({"key": first["jwt"]}).to_string());
    rotations.ask("app", "rotate", "1").await;
    rotations.ready("app", 2).await;
    let second = rotations.data("app").await;
    assert_eq!(oci.get("app-jwt"), json!({"key": second["jwt"]}).to_string());
    assert!(oci.retired("app-jwt").is_empty(), "the one before is still in use");
    operator.clock.advance(SignedDuration::from_hours(25));
    rotations.ask("app", "look", "1").await;
    eventually("the previous value is not kept any longer", || async {
        let data = rotations.data("app").await;
        if data.contains_key("jwt-previous") { Err(format!("{:?}", data.keys())) } else { Ok(()) }
    })
    .await;
    assert!(oci.retired("app-jwt").is_empty(), "Oracle keeps the version before the current one");
    rotations.ask("app", "rotate", "2").await;
    rotations.ready("app", 3).await;
    operator.clock.advance(SignedDuration::from_hours(25));
    rotations.ask("app", "look", "2").await;
    eventually("the first version is retired", || async {
        if oci.retired("app-jwt") == [1].into() { Ok(()) } else { Err(format!("{:?}", oci.retired("app-jwt"))) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_and_a_pod_get_a_session_of_their_own() {
    let oci = Oci::start().await;
    let http = reqwest::Client::new();
    let list = |client: Client| {
        let url = format!("{}/20180608/secrets?compartmentId={COMPARTMENT}&vaultId={VAULT}", oci.address).parse::<reqwest::Url>().unwrap();
        async move {
            (
                client.request(Method::GET, url.clone(), Request::default()).await.map(|_| ()),
                client.request(Method::GET, url, Request::default()).await.map(|_| ()),
            )
        }
    };
    // The pod shows the token of its ServiceAccount.
    let proxy: reqwest::Url = format!("{}/resourcePrincipalSessionTokens", oci.address).parse().unwrap();
    let pod = |token: &'static str| Principal::Workload {
        proxy: proxy.clone(),
        http: http.clone(),
        token: Box::new(move || async move { Ok(token.to_owned().into()) }.boxed()),
    };
    assert_eq!(list(Client::new(http.clone(), pod(POD_TOKEN))).await, (Ok(()), Ok(())));
    assert_eq!(oci.sessions(), 1, "one session for both requests");
    let (first, _) = list(Client::new(http.clone(), pod("another"))).await;
    assert!(matches!(first, Err(ClientError::Unauthenticated(why)) if why.contains("enhanced")));

    // The machine shows the certificate that its metadata service gives it.
    let metadata = format!("{}/", metadata(&oci).await.0).parse().unwrap();
    let machine = Principal::Instance { metadata, federation: format!("{}/v1/x509", oci.address).parse().unwrap() };
    assert_eq!(list(Client::new(http, machine)).await, (Ok(()), Ok(())));
    assert_eq!(oci.sessions(), 2);
}

/// The metadata service of a machine that Oracle believes; its address, and the key that it gives out.
pub async fn metadata(oci: &Oci) -> (String, String) {
    let key = aws_lc_rs::signature::RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let (public, private): (PublicKeyX509Der<'_>, aws_lc_rs::encoding::Pkcs8V1Der<'_>) =
        (key.public_key().as_der().unwrap(), key.as_der().unwrap());
    let private = seaworthy::keys::pem::pem("PRIVATE KEY", private.as_ref());
    let pair = rcgen::KeyPair::from_pem(&private).unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::OrganizationalUnitName, "opc-tenant:ocid1.tenancy.oc1..t");
    let certificate = params.self_signed(&pair).unwrap();
    let fingerprint: Vec<String> = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.der())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    oci.trust(&format!("ocid1.tenancy.oc1..t/fed-x509-sha256/{}", fingerprint.join(":")), public.as_ref());
    let key = private.clone();
    let metadata = axum::Router::new().fallback(move |uri: axum::http::Uri, headers: axum::http::HeaderMap| async move {
        assert_eq!(headers["authorization"], "Bearer Oracle");
        match uri.path() {
            "/opc/v2/identity/cert.pem" | "/opc/v2/identity/intermediate.pem" => certificate.pem(),
            "/opc/v2/identity/key.pem" => private,
            other => panic!("{other}"),
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/opc/v2", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, metadata).await });
    (address, key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_a_file_has_the_identity_of_the_machine_or_of_a_pod() {
    let (cluster, oci) = (Cluster::shared().await, Oci::start().await);
    let namespace = cluster.namespace("oci-identity").await;
    let account = serde_json::from_value(json!({"metadata": {"name": "reader"}})).unwrap();
    Api::<ServiceAccount>::namespaced(cluster.client.clone(), &namespace.name).create(&PostParams::default(), &account).await.unwrap();
    oci.put("app", "v");
    oci.believe(&format!("system:serviceaccount:{}:reader", namespace.name));
    let (metadata, _) = metadata(&oci).await;
    let (proxy, certificate) = terminate(WORKLOAD_PROXIES[0], &oci.address).await;
    let proxy = proxy.ip().to_string();
    let folder = std::env::temp_dir().join(format!("seaworthy-oci-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (file, ca) = (folder.join("store.yaml"), folder.join("ca.crt"));
    std::fs::write(&ca, certificate).unwrap();
    let kubeconfig = std::env::var("SEAWORTHY_TEST_KUBECONFIG").unwrap();
    let get = |auth: Value, environment: &[(&str, &str)], kubeconfig: &str| {
        let mut spec = oci.store();
        spec["oci"]["auth"] = auth;
        let object = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretStore", "metadata": {"name": "oci"}, "spec": spec});
        std::fs::write(&file, object.to_string()).unwrap();
        let arguments = ["store", "get", "-f", file.to_str().unwrap(), "--operator-namespace", &namespace.name, "app", "--reveal"];
        seaworthy_in(environment, kubeconfig, &arguments)
    };
    let machine = [("OCI_METADATA_BASE_URL", metadata.as_str()), ("OCI_SDK_AUTH_CLIENT_REGION_URL", oci.address.as_str())];
    let pod = [("KUBERNETES_SERVICE_HOST", proxy.as_str()), ("OCI_KUBERNETES_SERVICE_ACCOUNT_CERT_PATH", ca.to_str().unwrap())];
    let workload = |name: &str| json!({"workloadIdentity": {"serviceAccountRef": {"name": name}}});
    // The machine needs no cluster.
    assert_eq!(get(json!({"instancePrincipal": {}}), &machine, "/nowhere"), (0, "v\n".into()));
    assert_eq!(get(workload("reader"), &pod, &kubeconfig), (0, "v\n".into()));
    let (code, said) = get(workload("nobody"), &pod, &kubeconfig);
    assert!(code == 1 && said.contains("ServiceAccount nobody"), "{said}");
    let (code, said) = get(workload("default"), &pod, &kubeconfig);
    assert!(code == 1 && said.contains("enhanced"), "{said}");
    let (code, said) = get(workload("reader"), &[("KUBERNETES_SERVICE_HOST", "")], &kubeconfig);
    assert!(code == 1 && said.contains("does not run in an OKE cluster"), "{said}");
    let (code, said) = get(oci.store()["oci"]["auth"].clone(), &[], "/nowhere");
    assert!(code == 3 && said.contains("Secret oci could not be read") && said.contains("no cluster is configured"), "{code} {said}");
    let (code, said) = get(workload("reader"), &pod, "/nowhere");
    assert!(code == 3 && said.contains("a token of a ServiceAccount needs a cluster") && said.contains("/nowhere"), "{code} {said}");
    let elsewhere = [pod[0], ("OCI_KUBERNETES_SERVICE_ACCOUNT_CERT_PATH", "/nowhere/ca.crt")];
    let (code, said) = get(workload("reader"), &elsewhere, &kubeconfig);
    assert!(code == 1 && said.contains("/nowhere/ca.crt"), "{said}");
    std::fs::remove_dir_all(folder).unwrap();
}
