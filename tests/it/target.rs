//! Whose the Secret is, and what lies beside it.

use kube::ResourceExt;
use seaworthy::api::SecretRotation;
use serde_json::json;

use crate::support::{Cluster, Rotations, eventually, next_second, said};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orphan_stays_and_is_taken_back() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("orphan").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    let spec = json!({"target": {"name": "jwt", "creationPolicy": "Orphan"}, "rotation": {"generate": [{"secretKey": "key", "hex": {}}]},
        "template": {"type": "example.com/key", "mergePolicy": "Merge"}});
    rotations.create("jwt", spec.clone()).await;
    rotations.ready("jwt", 1).await;
    let value = rotations.data("jwt").await["key"].clone();
    let secret = namespace.secrets().get("jwt").await.unwrap();
    assert_eq!((secret.type_.as_deref(), secret.metadata.owner_references), (Some("example.com/key"), None));
    rotations.api().delete("jwt", &kube::api::DeleteParams::default()).await.unwrap();
    eventually("the resource is gone", || async {
        let left = rotations.api().get_opt("jwt").await.map_err(|error| error.to_string())?;
        left.map_or(Ok(()), |_| Err("it is there".into()))
    })
    .await;
    rotations.create("jwt", spec).await;
    rotations.ready("jwt", 1).await;
    assert_eq!(rotations.data("jwt").await["key"], value, "nobody is given a new value for nothing");
}

/// A Secret of somebody else that is called as one beside the target would be is in nobody's way where there is to be none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_called_like_a_secret_beside_the_target_stays() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("beside").await;
    let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
    namespace.secret("app-previous", "Opaque", &[("k", "a copy of mine")]).await;
    let spec = |value: &str| json!({"target": {"name": "app"}, "store": {"memory": {"data": {"k": value}}}, "data": [{"secretKey": "k", "remoteRef": {"key": "k"}}]});
    rotations.create("app", spec("1")).await;
    rotations.ready("app", 1).await;
    rotations.change("app", spec("2")).await;
    rotations.ready("app", 2).await;
    rotations.change("app", json!({"refreshInterval": "2h"})).await;
    let seen =
        |object: &SecretRotation| object.status.as_ref().is_some_and(|status| status.observed_generation == object.metadata.generation);
    let object = rotations.until("app", "it was looked at again", seen).await;
    assert_eq!(said(&object, "Ready").map(|(status, ..)| status).as_deref(), Some("True"));
    assert_eq!(rotations.data("app-previous").await["k"], "a copy of mine");
}

/// Who is to leave its Secret behind does so, also where nothing is read any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_created_once_becomes_an_orphan() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("once").await;
    let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let data = json!([{"secretKey": "k", "remoteRef": {"key": "k"}}]);
    let store = json!({"memory": {"data": {"k": "1"}}});
    for immutable in [false, true] {
        let name = format!("once-{immutable}");
        let target = json!({"name": name, "immutable": immutable});
        rotations.create(&name, json!({"target": target, "refreshPolicy": "CreatedOnce", "store": store, "data": data})).await;
        rotations.ready(&name, 1).await;
        assert_eq!(namespace.secrets().get(&name).await.unwrap().owner_references().len(), 1);
        rotations.change(&name, json!({"target": {"creationPolicy": "Orphan"}})).await;
        eventually("nobody takes it along", || async {
            let secret = namespace.secrets().get(&name).await.map_err(|error| error.to_string())?;
            if secret.owner_references().is_empty() { Ok(()) } else { Err(format!("{:?}", secret.metadata)) }
        })
        .await;
    }
}

/// A value that a store has is no younger because its Secret was deleted: the next one is due when it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_secret_does_not_put_the_next_rotation_off() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("not-put-off").await;
    let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let place = json!([{"secretKey": "key", "remoteRef": {"key": "remote", "property": "key"}}]);
    let rotation = json!({"every": "720h", "generate": [{"secretKey": "key", "hex": {}}], "push": place});
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "store": {"kubernetes": {}}, "data": place, "rotation": rotation})).await;
    rotations.ready("jwt", 1).await;
    rotations.ask("jwt", "rotate", "1").await;
    let before = rotations.ready("jwt", 2).await.status.unwrap();
    let value = rotations.data("jwt").await["key"].clone();
    next_second().await;
    rotations.change("jwt", json!({"suspend": true})).await;
    rotations.says("jwt", "Ready", "True", "Suspended").await;
    namespace.delete_secret("jwt").await;
    rotations.says("jwt", "Ready", "False", "Missing").await;
    rotations.change("jwt", json!({"suspend": false})).await;
    let after = rotations.ready("jwt", 3).await.status.unwrap();
    assert_eq!((after.last_rotation_time, after.next_rotation_time), (before.last_rotation_time, before.next_rotation_time));
    assert_eq!(rotations.data("jwt").await["key"], value);
}
