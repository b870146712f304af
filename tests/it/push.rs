//! Secrets that somebody else made: keys are added to them, and theirs go to a store.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{Cluster, Namespace, Rotations, eventually, said};

/// The Secret's data, once it is as `wanted`.
async fn holds(namespace: &Namespace, secret: &str, wanted: &[(&str, &str)]) {
    let rotations = Rotations(namespace);
    let wanted: std::collections::BTreeMap<String, String> =
        wanted.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    eventually(&format!("Secret {secret} holds {wanted:?}"), || async {
        let data = match namespace.secrets().get_opt(secret).await.map_err(|error| error.to_string())? {
            Some(_) => rotations.data(secret).await,
            None => return Err("it is not there".into()),
        };
        if data == wanted { Ok(()) } else { Err(format!("{data:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_added_to_a_secret_of_somebody_else_and_nothing_of_theirs_is_touched() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("merged").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    namespace.secret("source", "Opaque", &[("p", "1")]).await;
    let data = json!([{"secretKey": "b", "remoteRef": {"key": "source", "property": "p"}}]);
    let spec = json!({"target": {"name": "theirs", "creationPolicy": "Merge"}, "store": {"kubernetes": {}}, "data": data});
    rotations.create("m", spec).await;
    let message = rotations.says("m", "Ready", "False", "Missing").await;
    assert!(message.contains("somebody else makes it"), "{message}");
    namespace.secret("theirs", "kubernetes.io/basic-auth", &[("username", "u"), ("password", "x")]).await;
    rotations.ready("m", 1).await;
    holds(&namespace, "theirs", &[("b", "1"), ("password", "x"), ("username", "u")]).await;
    let secret = namespace.secrets().get("theirs").await.unwrap();
    assert!(secret.metadata.owner_references.unwrap_or_default().is_empty());
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/basic-auth"));

    rotations.edit("source", json!({"p": "2"})).await;
    rotations.ready("m", 2).await;
    holds(&namespace, "theirs", &[("b", "2"), ("password", "x"), ("username", "u")]).await;
    // What its owner changes is theirs.
    rotations.edit("theirs", json!({"password": "y"})).await;
    holds(&namespace, "theirs", &[("b", "2"), ("password", "y"), ("username", "u")]).await;
    // A key that they set is not taken.
    let taken = json!([{"secretKey": "password", "remoteRef": {"key": "source", "property": "p"}}]);
    rotations.change("m", json!({"data": taken})).await;
    let message = rotations.says("m", "Stalled", "True", "NotOurs").await;
    assert!(message.contains(".data.password") && message.contains("name another secretKey"), "{message}");
    holds(&namespace, "theirs", &[("b", "2"), ("password", "y"), ("username", "u")]).await;
    // A key that is not meant any more goes; the rest stays, also when the resource goes.
    rotations.change("m", json!({"data": [{"secretKey": "c", "remoteRef": {"key": "source", "property": "p"}}]})).await;
    holds(&namespace, "theirs", &[("c", "2"), ("password", "y"), ("username", "u")]).await;
    rotations.api().delete("m", &kube::api::DeleteParams::default()).await.unwrap();
    holds(&namespace, "theirs", &[("c", "2"), ("password", "y"), ("username", "u")]).await;
}

fn push(key: &str, property: &str, policy: &str) -> Value {
    json!({"secretKey": "password", "remoteRef": {"key": key, "property": property}, "updatePolicy": policy})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_there_goes_to_the_store_when_it_changes_and_nothing_newer_is_overwritten() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("pushed").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let ready = || rotations.until("p", "Ready", |object| said(object, "Ready").is_some_and(|(status, ..)| status == "True"));
    let spec = json!({
        "target": {"name": "made", "creationPolicy": "Merge"}, "store": {"kubernetes": {}}, "refreshInterval": "1h",
        "push": [push("remote", "p", "Replace"), push("once", "p", "IfNotExists")],
    });
    rotations.create("p", spec).await;
    rotations.says("p", "Ready", "False", "Missing").await;
    namespace.secret("made", "Opaque", &[("password", "one"), ("other", "o")]).await;
    let object = ready().await;
    holds(&namespace, "remote", &[("p", "one")]).await;
    holds(&namespace, "once", &[("p", "one")]).await;
    let pushed = object.status.unwrap().pushed;
    assert!(pushed.len() == 2 && pushed.iter().all(|pushed| pushed.hash.len() == 16));
    let made = namespace.secrets().get("made").await.unwrap();
    assert!(made.metadata.annotations.unwrap_or_default().is_empty(), "it is only read");

    rotations.edit("made", json!({"password": "two"})).await;
    holds(&namespace, "remote", &[("p", "two")]).await;
    holds(&namespace, "once", &[("p", "one")]).await;
    // What disappears in the store is brought there again when the store is due.
    namespace.delete_secret("remote").await;
    operator.clock.advance(SignedDuration::from_hours(2));
    rotations.ask("p", "look", "1").await;
    holds(&namespace, "remote", &[("p", "two")]).await;
    // A newer value of somebody else stays there, and is told of.
    rotations.edit("remote", json!({"p": "newer"})).await;
    rotations.edit("made", json!({"password": "three"})).await;
    let message = rotations.says("p", "Ready", "False", "StoreConflict").await;
    assert!(message.contains("somebody else has put another value there") && message.contains("delete it there"), "{message}");
    holds(&namespace, "remote", &[("p", "newer")]).await;
    rotations.edit("made", json!({"password": "newer"})).await;
    ready().await;
    // A key that is not in the Secret is told by its name.
    rotations.change("p", json!({"push": [{"secretKey": "lacking", "remoteRef": {"key": "remote", "property": "p"}}]})).await;
    let message = rotations.says("p", "Ready", "False", "ValueNotFound").await;
    assert!(message.contains(r#"push "lacking": Secret made has no such key"#), "{message}");
}
