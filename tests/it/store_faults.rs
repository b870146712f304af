//! What a store may do in the middle of a rotation: refuse, fail, do it and lose the answer. Real servers, with somebody in between.

use futures::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};

use crate::{
    canary::Process,
    own_credential::Own,
    stores::account,
    support::{Between, Cluster, ControlPlane, Fault, Moto, Namespace, Operator, Rotations, Vault, eventually, oci::Oci, tls::terminate},
};

const FAULTS: [Fault; 3] = [Fault::Answer(429), Fault::Answer(500), Fault::AnswerLost];

/// A generated value, pushed to `key`; the values before are kept nowhere, so that the version before is retired at once.
fn pushed(store: &Value, key: &str) -> Value {
    json!({
        "target": {"name": "app"}, "store": store, "refreshInterval": "0s",
        "rotation": {
            "generate": [{"secretKey": "k", "hex": {}}],
            "push": [{"secretKey": "k", "remoteRef": {"key": key, "property": "p"}}],
        },
    })
}

type Matching = fn(&str) -> bool;

/// The `number`-th of the requests that match (from 0) fails.
type Armed = (Matching, usize, Fault);

/// Rotates, with a fault on the way or without, and waits until all is as if there had been none. A store that `keeps` it does not give up the version
/// before.
async fn rotate(namespace: &Namespace, between: &Between, armed: Option<Armed>, keeps: bool) -> String {
    let what = armed.map_or("no fault".into(), |(_, number, fault)| format!("{fault:?} at request {number}"));
    let rotations = Rotations(namespace);
    let before = rotations.data("app").await["k"].clone();
    if let Some((matching, number, fault)) = armed {
        between.arm(matching, number, fault);
    }
    rotations.ask("app", "rotate", "1").await;
    rotations.ready("app", 2).await;
    eventually(&format!("{what}: nothing is left to be done"), || async {
        let secrets = namespace.secrets();
        let pending = secrets.get_opt("app-pending").await.map_err(|error| error.to_string())?;
        let notes = secrets.get("app").await.map_err(|error| error.to_string())?.metadata.annotations.unwrap_or_default();
        let retired = keeps || !notes.contains_key("seaworthy.dev/superseded-versions");
        if pending.is_none() && retired { Ok(()) } else { Err(format!("{notes:?}")) }
    })
    .await;
    assert!(between.struck(), "{what}: there was no such request");
    let now = rotations.data("app").await["k"].clone();
    assert_ne!(now, before, "{what}");
    now
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vault_fails_at_each_request_of_a_rotation() {
    let (cluster, vault) = (&Cluster::shared().await, &Vault::start().await);
    // It is read by the look, and before it is written; it is written; what versions there are is read, and the one before is deleted.
    let cases = FAULTS.into_iter().flat_map(|fault| (0..5).map(move |number| (number, fault)));
    stream::iter(cases)
        .for_each_concurrent(12, |(number, fault)| async move {
            let (namespace, between) = (cluster.namespace("vault-fails").await, Between::to(&vault.address).await);
            let rotations = Rotations(&namespace);
            let _operator = cluster.operator(&namespace);
            let store = namespace.store_through(&between, vault).await;
            rotations.create("app", pushed(&store, &namespace.name)).await;
            rotations.ready("app", 1).await;
            let what = format!("{fault:?} at request {number}");
            let now = rotate(&namespace, &between, Some((|asked| asked.contains("/v1/secret/"), number, fault)), false).await;
            assert_eq!(vault.get(&namespace.name).await, (json!({"p": now}), 2), "{what}: it was written once");
            let answer = vault.call("GET", &format!("secret/metadata/{}", namespace.name), Value::Null).await;
            assert_ne!(answer["data"]["versions"]["1"]["deletion_time"], "", "{what}: the version before is deleted");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aws_fails_at_each_request_of_a_rotation() {
    let (cluster, moto) = (&Cluster::shared().await, &Moto::start().await);
    // It is read by the look, and before it is written; the new version under a stage of its own, the stage AWSCURRENT, the end of the one of its own, and that of AWSPREVIOUS.
    let cases = FAULTS.into_iter().flat_map(|fault| (0..6).map(move |number| (number, fault)));
    stream::iter(cases)
        .for_each_concurrent(12, |(number, fault)| async move {
            let (namespace, between) = (cluster.namespace("aws-fails").await, Between::to(&moto.address).await);
            let rotations = Rotations(&namespace);
            let _operator = cluster.operator(&namespace);
            let store = namespace.store_in_aws(&between.address).await;
            rotations.create("app", pushed(&store, &namespace.name)).await;
            rotations.ready("app", 1).await;
            let what = format!("{fault:?} at request {number}");
            let now = rotate(&namespace, &between, Some((|asked| asked.starts_with("POST"), number, fault)), false).await;
            assert_eq!(moto.get(&namespace.name).await, json!({"p": now}), "{what}");
            let listed = moto.call("ListSecretVersionIds", json!({"SecretId": namespace.name, "IncludeDeprecated": true})).await;
            let versions = listed["Versions"].as_array().unwrap();
            let stages: Vec<_> = versions.iter().map(|version| version["VersionStages"].to_string()).collect();
            assert_eq!(versions.len(), 2, "{what}: it was written once: {stages:?}");
            assert!(!stages.concat().contains("AWSPREVIOUS"), "{what}: {stages:?}");
        })
        .await;
}

/// Each request of a rotation fails in each way, with a store that is made for each of them: how many there are is counted in a rotation without a fault.
/// `made` gives the spec, `held` what the store holds in the end; a store that `keeps` it does not give up the version before.
async fn each_request<H: Future<Output = String>>(
    cluster: &Cluster,
    server: &str,
    made: impl AsyncFn(&Namespace, &Between) -> Value,
    (matching, held, keeps): (Matching, impl Fn(String) -> H, bool),
) -> usize {
    let fails = async |case: Option<(usize, Fault)>| {
        let (namespace, between) = (cluster.namespace("store-fails").await, Between::to(server).await);
        let rotations = Rotations(&namespace);
        let spec = made(&namespace, &between).await;
        let _operator = spec.get("storeRef").is_none().then(|| cluster.operator(&namespace));
        rotations.create("app", spec).await;
        rotations.ready("app", 1).await;
        between.take_asked();
        let now = rotate(&namespace, &between, case.map(|(number, fault)| (matching, number, fault)), keeps).await;
        assert_eq!(held(namespace.name.clone()).await, now, "{case:?}");
        between.take_asked().into_iter().filter(|asked| matching(asked)).count()
    };
    let number = fails(None).await;
    let cases = FAULTS.into_iter().flat_map(|fault| (0..number).map(move |number| (number, fault)));
    stream::iter(cases).for_each_concurrent(12, |case| fails(Some(case)).map(|_| ())).await;
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-all"]
async fn a_vault_without_versions_fails_at_each_request_of_a_rotation() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let made = async |namespace: &Namespace, between: &Between| {
        let mut store = namespace.store_through(between, &vault).await;
        (store["vault"]["path"], store["vault"]["version"]) = ("old".into(), "v1".into());
        pushed(&store, &namespace.name)
    };
    let held = async |key: String| vault.call("GET", &format!("old/{key}"), Value::Null).await["data"]["p"].as_str().unwrap().to_owned();
    let requests = each_request(&cluster, &vault.address, made, (|asked| asked.contains("/v1/old/"), held, false)).await;
    assert_eq!(requests, 4, "it is read by the look, before it is made, and just before it is written; it is written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-all"]
async fn oracle_fails_at_each_request_of_a_rotation() {
    let (cluster, oci) = (Cluster::shared().await, Oci::start().await);
    let made = async |namespace: &Namespace, between: &Between| {
        namespace.secret("oci", "Opaque", &[("key.pem", &oci.private)]).await;
        pushed(&Oci::store_at(&between.address), &namespace.name)
    };
    let held = async |key: String| {
        assert_eq!(oci.versions(&key), 2, "it was written once");
        serde_json::from_str::<Value>(&oci.get(&key)).unwrap()["p"].as_str().unwrap().to_owned()
    };
    let matching: Matching = |asked| !asked.contains("versionNumber="); // nothing rests on whether the version before can go, which Oracle keeps
    let requests = each_request(&cluster, &oci.address, made, (matching, held, true)).await;
    assert_eq!(requests, 5, "it is read by the look, and before it is made; its etag and once more its version are read; it is written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-all"]
async fn another_cluster_fails_at_each_request_of_a_rotation() {
    let ((_own, cluster), other) = (ControlPlane::start().await, Cluster::shared().await);
    let _operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    let there = other.namespace("there-fails").await;
    cluster.operators_secret("other-cluster", json!({"token": account(&there).await})).await;
    let made = async |namespace: &Namespace, between: &Between| {
        let (address, certificate) = terminate("127.0.0.1:0", &between.address).await;
        let login = json!({"token": {"secretRef": {"name": "other-cluster", "key": "token"}}});
        let server = json!({"url": format!("https://{address}"), "caBundle": certificate, "auth": login});
        let spec = json!({"allowedNamespaces": {}, "kubernetes": {"namespace": there.name, "server": server}});
        cluster.secret_store(&namespace.name, spec).await;
        let mut spec = pushed(&Value::Null, &namespace.name);
        spec["storeRef"] = json!({"name": namespace.name});
        spec
    };
    let held = async |key: String| there.text(&key, "p").await;
    let server = other.operator_config.cluster_url.to_string();
    let matching: Matching = |asked| asked.contains("/secrets/"); // lists are what the SecretStore's own check asks for
    let requests = each_request(&cluster, server.trim_end_matches('/'), made, (matching, held, false)).await;
    assert_eq!(
        requests, 5,
        "it is read by the look, and before it is made; whose it is is read; what was created becomes ours, and is written"
    );
}

/// A process that is killed, the one true kill -9 of each of the two kinds: what it asked of the store is done, and it never hears so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_for_real_while_it_waits_for_the_store() {
    let ((_own, cluster), vault) = (ControlPlane::start().await, Vault::start().await);
    let (between, namespace) = (Between::to(&vault.address).await, cluster.namespace("killed-for-real").await);
    let rotations = Rotations(&namespace);
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = namespace.store_through(&between, &vault).await;
    let process = Process::of(&cluster, port());
    rotations.create("app", pushed(&store, "app")).await;
    rotations.ready("app", 1).await;
    between.arm(|asked| asked.starts_with("POST /v1/secret/data/app "), 0, Fault::NoAnswer);
    rotations.ask("app", "rotate", "1").await;
    between.waits().await;
    drop(process);
    let process = Process::of(&cluster, port());
    rotations.ready("app", 2).await;
    assert_eq!(vault.get("app").await, (json!({"p": rotations.data("app").await["k"]}), 2), "it was written once");

    between.arm(|asked| asked.ends_with("/secret-id  "), 0, Fault::NoAnswer);
    let own = Own::new(&cluster, &vault, &between.address, "own").await;
    let first = own.now().await;
    between.waits().await;
    drop(process);
    let _process = Process::of(&cluster, port());
    let second = eventually("the secret id is another one", || async {
        let now = own.now().await;
        if now == first { Err("it is the first".into()) } else { Ok(now) }
    })
    .await;
    assert!(own.lets_in(&first).await && own.lets_in(&second).await);
    assert_eq!(own.left().await, 3, "the first, the one that nobody knows, which goes with it in a while, and the second");
}
