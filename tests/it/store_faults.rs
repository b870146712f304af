//! What a store may do in the middle of a rotation: refuse, fail, do it and lose the answer. Real servers, with somebody in between.

use futures::{StreamExt, stream};
use serde_json::{Value, json};

use crate::support::{Between, Cluster, Fault, Moto, Namespace, Rotations, Vault, eventually};

const FAULTS: [Fault; 3] = [Fault::Answer(429), Fault::Answer(500), Fault::AnswerLost];

/// A generated value, pushed to `key`; the values before are kept nowhere, so that the version before is retired at once.
fn pushed(store: &Value, key: &str) -> Value {
    json!({
        "target": {"name": "app"}, "store": store,
        "rotation": {
            "generate": [{"secretKey": "k", "hex": {}}],
            "push": [{"secretKey": "k", "remoteRef": {"key": key, "property": "p"}}],
        },
    })
}

/// Rotates, with a fault on the way, and waits until all is as if there had been none.
async fn rotate(namespace: &Namespace, between: &Between, armed: (fn(&str) -> bool, usize, Fault), what: &str) -> String {
    let rotations = Rotations(namespace);
    let before = rotations.data("app").await["k"].clone();
    between.arm(armed.0, armed.1, armed.2);
    rotations.ask("app", "rotate", "1").await;
    rotations.ready("app", 2).await;
    eventually(&format!("{what}: nothing is left to be done"), || async {
        let secrets = namespace.secrets();
        let pending = secrets.get_opt("app-pending").await.map_err(|error| error.to_string())?;
        let notes = secrets.get("app").await.map_err(|error| error.to_string())?.metadata.annotations.unwrap_or_default();
        if pending.is_none() && !notes.contains_key("seaworthy.dev/superseded-versions") { Ok(()) } else { Err(format!("{notes:?}")) }
    })
    .await;
    assert!(between.struck(), "{what}: there was no such request");
    let now = rotations.data("app").await["k"].clone();
    assert_ne!(now, before, "{what}");
    now
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vault_fails_at_each_write_of_a_rotation() {
    let (cluster, vault) = (&Cluster::shared().await, &Vault::start().await);
    // The value, and that the version before is deleted.
    let cases = FAULTS.into_iter().flat_map(|fault| (0..2).map(move |number| (number, fault)));
    stream::iter(cases)
        .for_each_concurrent(12, |(number, fault)| async move {
            let (namespace, between) = (cluster.namespace("vault-fails").await, Between::to(&vault.address).await);
            let rotations = Rotations(&namespace);
            let _operator = cluster.operator(&namespace);
            let mut store = namespace.store_in(vault).await;
            store["vault"]["server"] = between.address.clone().into();
            rotations.create("app", pushed(&store, &namespace.name)).await;
            rotations.ready("app", 1).await;
            let what = format!("{fault:?} at write {number}");
            let is_write = |asked: &str| !asked.starts_with("GET") && asked.contains("/v1/secret/");
            let now = rotate(&namespace, &between, (is_write, number, fault), &what).await;
            assert_eq!(vault.get(&namespace.name).await, (json!({"p": now}), 2), "{what}: it was written once");
            let answer = vault.call("GET", &format!("secret/metadata/{}", namespace.name), Value::Null).await;
            assert_ne!(answer["data"]["versions"]["1"]["deletion_time"], "", "{what}: the version before is deleted");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aws_fails_at_each_write_of_a_rotation() {
    let (cluster, moto) = (&Cluster::shared().await, &Moto::start().await);
    // The new version under a stage of its own, the stage AWSCURRENT, the end of the one of its own, and that of AWSPREVIOUS.
    let cases = FAULTS.into_iter().flat_map(|fault| (0..4).map(move |number| (number, fault)));
    stream::iter(cases)
        .for_each_concurrent(12, |(number, fault)| async move {
            let (namespace, between) = (cluster.namespace("aws-fails").await, Between::to(&moto.address).await);
            let rotations = Rotations(&namespace);
            let _operator = cluster.operator(&namespace);
            let store = namespace.store_in_aws(&between.address).await;
            rotations.create("app", pushed(&store, &namespace.name)).await;
            rotations.ready("app", 1).await;
            let what = format!("{fault:?} at write {number}");
            let is_write = |asked: &str| ["PutSecretValue", "UpdateSecretVersionStage"].iter().any(|action| asked.contains(action));
            let now = rotate(&namespace, &between, (is_write, number, fault), &what).await;
            assert_eq!(moto.get(&namespace.name).await, json!({"p": now}), "{what}");
            let listed = moto.call("ListSecretVersionIds", json!({"SecretId": namespace.name, "IncludeDeprecated": true})).await;
            let versions = listed["Versions"].as_array().unwrap();
            let stages: Vec<_> = versions.iter().map(|version| version["VersionStages"].to_string()).collect();
            assert_eq!(versions.len(), 2, "{what}: it was written once: {stages:?}");
            assert!(!stages.concat().contains("AWSPREVIOUS"), "{what}: {stages:?}");
        })
        .await;
}
