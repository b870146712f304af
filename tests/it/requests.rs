//! What a person asks for: when it is done, and when not.

use jiff::SignedDuration;
use kube::api::PostParams;
use seaworthy::api::SecretRotation;
use serde_json::json;

use crate::{
    rotation::spec,
    support::{Cluster, Far, Rotations, Vault, eventually, said},
};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Who asks for a new value while the store has one that nobody has read yet gets both, one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_comes_after_what_the_store_has_by_now() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("newer").await;
    let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let push = json!([{"secretKey": "key", "remoteRef": {"key": "newer", "property": "key"}}]);
    let rotation = json!({"generate": [{"secretKey": "key", "hex": {}}], "push": push});
    let spec = json!({"target": {"name": "jwt"}, "store": namespace.store_in(&vault).await, "refreshInterval": "0s", "rotation": rotation});
    rotations.create("jwt", spec).await;
    rotations.ready("jwt", 1).await;
    vault.put("newer", json!({"key": "theirs"})).await;
    rotations.ask("jwt", "rotate", "1").await;
    rotations.ready("jwt", 3).await;
    let made = rotations.data("jwt").await["key"].clone();
    assert_eq!((made.len(), vault.get("newer").await), (64, (json!({"key": made}), 3)));
}

/// Requests that come with a resource (it was restored from Git or a backup) are old ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_for_before_the_resource_was_there_is_not_done() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("asked").await;
    let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let annotations = json!({"seaworthy.dev/rotate": "old", "seaworthy.dev/refresh": "old"});
    let object = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretRotation", "metadata": {"name": "jwt", "annotations": annotations}, "spec": spec()});
    rotations.api().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    rotations.ready("jwt", 1).await;
    let first = rotations.data("jwt").await["key"].clone();
    rotations.change("jwt", json!({"refreshInterval": "2h"})).await;
    let seen =
        |object: &SecretRotation| object.status.as_ref().is_some_and(|status| status.observed_generation == object.metadata.generation);
    rotations.until("jwt", "it was looked at again", seen).await;
    assert_eq!(rotations.data("jwt").await["key"], first);
    rotations.ask("jwt", "rotate", "new").await;
    rotations.ready("jwt", 2).await;
    assert_eq!(rotations.data("jwt").await["key-previous"], first);
}

/// Nothing is read, made, brought, put right or retired; and all of it goes on afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_suspended_is_left_as_it_is() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("suspended").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let push = json!([{"secretKey": "key", "remoteRef": {"key": "jwt", "property": "key"}}]);
    let rotation = json!({"generate": [{"secretKey": "key", "hex": {}}], "previous": {"keepFor": "24h"}, "push": push});
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "store": namespace.store_in(&vault).await, "rotation": rotation})).await;
    rotations.ready("jwt", 1).await;
    rotations.ask("jwt", "rotate", "1").await;
    rotations.ready("jwt", 2).await;
    let far = Far::Vault(&vault);
    rotations.change("jwt", json!({"suspend": true})).await;
    rotations.says("jwt", "Ready", "True", "Suspended").await;
    rotations.edit("jwt", json!({"key": "theirs"})).await;
    let there = vault.get("jwt").await;
    let here = rotations.data("jwt").await;
    operator.clock.advance(HOUR * 24 * 8);
    rotations.ask("jwt", "rotate", "2").await;
    rotations.ask("jwt", "refresh", "2").await;
    rotations.change("jwt", json!({"refreshInterval": "2h"})).await;
    let seen =
        |object: &SecretRotation| object.status.as_ref().is_some_and(|status| status.observed_generation == object.metadata.generation);
    rotations.until("jwt", "it was looked at", seen).await;
    assert_eq!((vault.get("jwt").await, rotations.data("jwt").await), (there, here));
    assert!(!far.has_given_up("jwt", 1).await);
    rotations.change("jwt", json!({"suspend": false})).await;
    rotations.until("jwt", "it goes on", |object| object.status.as_ref().is_some_and(|status| status.revision > Some(2))).await;
    eventually("what was put off is done", || async {
        let (there, here) = (vault.get("jwt").await.0["key"].clone(), rotations.data("jwt").await);
        let done = there == json!(here["key"]) && here["key"] != "theirs" && far.has_given_up("jwt", 1).await;
        if done { Ok(()) } else { Err(format!("{there} {here:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_waits_for_the_window_and_what_is_asked_for_does_not() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("window").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    // Due after a day; open for an hour, half a day after that.
    let opens = (operator.clock.now() + HOUR * 12).to_zoned(jiff::tz::TimeZone::UTC);
    let window = json!({"schedule": format!("{} {} * * *", opens.minute(), opens.hour()), "duration": "1h"});
    let spec =
        json!({"target": {"name": "k"}, "rotation": {"every": "24h", "window": window, "generate": [{"secretKey": "k", "hex": {}}]}});
    rotations.create("k", spec).await;
    rotations.ready("k", 1).await;
    let first = rotations.data("k").await;
    operator.clock.advance(HOUR * 24);
    rotations.ask("k", "look", "1").await;
    let waits = |object: &SecretRotation| said(object, "Ready").is_some_and(|(_, _, said)| said.contains("wait for the window until"));
    let object = rotations.until("k", "it waits", waits).await;
    assert!(said(&object, "Reconciling").is_none(), "that is no work");
    assert_eq!(rotations.data("k").await, first);
    operator.clock.advance(HOUR * 12 + SignedDuration::from_mins(10));
    rotations.ask("k", "look", "2").await;
    rotations.ready("k", 2).await;
    assert_ne!(rotations.data("k").await, first);
    operator.clock.advance(HOUR * 5);
    rotations.ask("k", "rotate", "now").await;
    rotations.ready("k", 3).await;
}

/// A value that is added is as old as it is, and those beside it are replaced in their time, the new one with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_added_makes_nothing_younger() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("added").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let rotation = json!({"every": "2160h", "generate": [{"secretKey": "key", "hex": {}}]});
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "rotation": rotation})).await;
    let next = |object: SecretRotation| object.status.unwrap().next_rotation_time.unwrap();
    let first = next(rotations.ready("jwt", 1).await);
    operator.clock.advance(HOUR * 24 * 80);
    rotations.change("jwt", json!({"rotation": {"generate": [{"secretKey": "key", "hex": {}}, {"secretKey": "more", "hex": {}}]}})).await;
    assert_eq!(next(rotations.ready("jwt", 2).await), first);
    let before = rotations.data("jwt").await;
    operator.clock.advance(HOUR * 24 * 10);
    rotations.ask("jwt", "look", "1").await;
    rotations.ready("jwt", 3).await;
    let after = rotations.data("jwt").await;
    assert!(["key", "more"].iter().all(|key| before[*key] != after[*key]), "both are replaced");
}
