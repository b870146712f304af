//! A value that has changed is brought to who uses it, and taken back if they cannot live with it.

use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::Deployment,
        core::v1::{Pod, Secret},
    },
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use seaworthy::api::SecretRotation;
use serde_json::{Value, json};

use crate::support::{Cluster, Moto, Namespace, Operator, Rotations, Vault, Workload, World, eventually, next_second, oci::Oci};

const HOUR: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_uses_a_value_is_restarted_when_it_changes_and_not_otherwise() {
    let cluster = Cluster::without_node().await;
    let (world, _operator) = World::of_secrets(&cluster, json!({"discover": true}), &["a", "b"], "none").await;
    let rotations = Rotations(&world.namespace);
    world.a_second_later().await;
    rotations.edit("source", json!({"value": "2"})).await;
    let object = rotations.complete("web", 2).await;
    assert_eq!(object.status.unwrap().consumers.unwrap().summary, "4/4");
    assert_eq!((world.restarts("a").await.0, world.restarts("b").await.0), (1, 1));
    assert!(world.restarts("a").await.1 <= world.restarts("b").await.1, "in order");
    // The label is no value.
    rotations.change("web", json!({"template": {"metadata": {"labels": {"a": "b"}}}})).await;
    rotations.ready("web", 2).await;
    assert_eq!((world.restarts("a").await.0, world.restarts("b").await.0), (1, 1));
    let previous = world.namespace.secrets().get_opt("web-tls-previous").await.unwrap();
    assert!(previous.is_none(), "what all have left behind is not kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_a_workload_cannot_live_with_is_taken_back() {
    let cluster = Cluster::without_node().await;
    let (world, operator) = World::of_secrets(&cluster, json!({"discover": true, "timeout": "1h"}), &["a", "b", "c"], "b").await;
    let rotations = Rotations(&world.namespace);
    world.a_second_later().await;
    rotations.edit("source", json!({"value": "2"})).await;
    world.crashes("b").await;
    operator.clock.advance(jiff::SignedDuration::from_hours(1));
    let message = rotations.says("web", "Stalled", "True", "RolledBack").await;
    assert!(message.contains("Deployment b") && message.contains("CrashLoopBackOff"), "{message}");
    assert_eq!(rotations.data("web-tls").await["value"], "1");
    rotations.consumers("web", "6/6").await;
    assert_eq!((world.restarts("a").await.0, world.restarts("c").await.0), (2, 0), "forth and back; who was not reached stays");
    // The store still has it: it is not tried again before something changes.
    rotations.ask("web", "refresh", "1").await;
    rotations.handled("web", "refresh", "1").await;
    assert_eq!(rotations.data("web-tls").await["value"], "1");
    // Nor is it what an edit is put right with.
    rotations.edit("web-tls", json!({"value": "edited"})).await;
    let message = rotations.says("web", "Stalled", "True", "Modified").await;
    assert!(message.contains("[\"value\"]") && message.contains("Secret web-tls-previous"), "{message}");
    assert_eq!(rotations.data("web-tls-previous").await["value"], "1");
    rotations.edit("source", json!({"value": "3"})).await;
    rotations.at("web", 4).await;
    assert_eq!(rotations.data("web-tls").await["value"], "3");
}

/// Whoever has mended the workload asks for what was taken back: nothing else of the spec or the store has to be another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_back_is_tried_again_for_who_asks() {
    let cluster = Cluster::without_node().await;
    let (world, operator) = World::of_secrets(&cluster, json!({"discover": true, "timeout": "1h"}), &["b"], "b").await;
    let rotations = Rotations(&world.namespace);
    rotations.ask("web", "rotate", "of before").await;
    world.a_second_later().await;
    rotations.edit("source", json!({"value": "2"})).await;
    world.crashes("b").await;
    operator.clock.advance(HOUR);
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    rotations.ask("web", "refresh", "1").await;
    rotations.handled("web", "refresh", "1").await;
    assert_eq!(rotations.data("web-tls").await["value"], "1", "a request of before is not for that");
    rotations.ask("web", "rotate", "1").await;
    rotations.complete("web", 4).await;
    rotations.handled("web", "rotate", "1").await;
    assert_eq!(rotations.data("web-tls").await["value"], "2");
}

/// A value that is generated and pushed to `key` of this store, and Deployments that use it, of which one crashes with the second one.
pub async fn pushing(
    cluster: &Cluster,
    (key, store): (&str, impl AsyncFn(&Namespace) -> Value),
    (timeout, crashing): (&str, &'static str),
) -> (World, Operator) {
    let (world, operator) = World::of_secrets(cluster, json!({"discover": true, "timeout": timeout}), &["a", "b"], crashing).await;
    let (rotations, mut store) = (Rotations(&world.namespace), store(&world.namespace).await);
    store["kubernetes"] = Value::Null;
    let place = json!([{"secretKey": "value", "remoteRef": {"key": key, "property": "value"}}]);
    let rotation = json!({"generate": [{"secretKey": "value", "hex": {}}], "push": place});
    rotations.change("web", json!({"store": store, "data": place, "rotation": rotation, "refreshInterval": "10m"})).await;
    rotations.ready("web", 1).await;
    world.a_second_later().await;
    (world, operator)
}

/// It was rotated just now, and `b` crashes with the new one.
pub async fn rotated_and_crashing(
    cluster: &Cluster,
    key: &str,
    store: impl AsyncFn(&Namespace) -> Value,
    timeout: &str,
) -> (World, Operator) {
    let (world, operator) = pushing(cluster, (key, store), (timeout, "b")).await;
    let rotations = Rotations(&world.namespace);
    rotations.ask("web", "rotate", "1").await;
    world.crashes("b").await;
    assert_ne!(rotations.data("web-tls").await["value"], "1");
    (world, operator)
}

/// The same with a Vault.
pub async fn pushed_and_crashing(cluster: &Cluster, vault: &Vault, timeout: &str) -> (World, Operator) {
    vault.put("app", json!({"value": "1", "other": "o"})).await;
    let (world, operator) = rotated_and_crashing(cluster, "app", async |namespace| namespace.store_in(vault).await, timeout).await;
    assert_eq!(vault.get("app").await.0["value"], Rotations(&world.namespace).data("web-tls").await["value"]);
    (world, operator)
}

/// The values of before are back, in the Secret and in Vault, and that is said.
pub async fn is_back(world: &World, vault: &Vault) {
    let rotations = Rotations(&world.namespace);
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    assert_eq!(rotations.data("web-tls").await["value"], "1");
    assert_eq!(vault.get("app").await.0, json!({"value": "1", "other": "o"}));
    let message = rotations.says("web", "Ready", "True", "Current").await;
    assert!(message.contains("holds the values of before"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pushed_is_taken_back_in_the_store_too() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let (world, operator) = pushed_and_crashing(&cluster, &vault, "1h").await;
    operator.clock.advance(HOUR);
    is_back(&world, &vault).await;
    let (rotations, secrets) = (Rotations(&world.namespace), world.namespace.secrets());
    // Another spec that asks for the same is tried once.
    rotations.change("web", json!({"restart": {"timeout": "2h"}})).await;
    let generation = rotations.api().get("web").await.unwrap().metadata.generation.unwrap();
    eventually("it is noted that it was tried", || async {
        let noted = secrets.get("web-tls").await.map_err(|error| error.to_string())?.metadata.annotations.unwrap_or_default();
        let stage = noted.get("seaworthy.dev/rotation-stage").cloned().unwrap_or_default();
        if stage.starts_with(&format!("RolledBack {generation} ")) { Ok(()) } else { Err(stage) }
    })
    .await;
    // Who died before it dropped what was on its way is followed by who does not take it for what is on its way now.
    let there = secrets.get("web-tls").await.unwrap();
    let mut left = Secret { data: there.data, ..Secret::default() };
    left.metadata.name = Some("web-tls-pending".into());
    (left.metadata.labels, left.metadata.annotations) = (there.metadata.labels, there.metadata.annotations);
    left.data.as_mut().unwrap().insert("value".into(), ByteString(b"taken back".to_vec()));
    secrets.create(&PostParams::default(), &left).await.unwrap();
    rotations.ask("web", "rotate", "2").await;
    rotations.at("web", 4).await;
    assert_eq!(rotations.data("web-tls").await["value"].len(), 64);
}

/// What cannot be read beside it is no reason to leave workloads with what they cannot live with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pushed_is_taken_back_although_another_value_is_not_there() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let (world, operator) = pushed_and_crashing(&cluster, &vault, "1h").await;
    let rotations = Rotations(&world.namespace);
    let of = |name: &str, key: &str| json!({"secretKey": name, "remoteRef": {"key": key, "property": "value"}});
    rotations.change("web", json!({"data": [of("value", "app"), of("more", "none")]})).await;
    rotations.says("web", "Ready", "False", "ValueNotFound").await;
    // Nor is what somebody else writes into the Secret.
    rotations.edit("web-tls", json!({"value": "theirs"})).await;
    operator.clock.advance(HOUR);
    rotations.ask("web", "look", "1").await;
    eventually("the value of before is back", || async {
        let (there, here) = (vault.get("app").await.0, rotations.data("web-tls").await["value"].clone());
        if there["value"] == "1" && here == "1" { Ok(()) } else { Err(format!("{there} {here}")) }
    })
    .await;
}

/// What somebody wrote into the Secret is not what is gone back to when the value that it was put right with fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_is_nothing_to_go_back_to() {
    let cluster = Cluster::without_node().await;
    let (world, operator) = World::of_secrets(&cluster, json!({"discover": true, "timeout": "1h"}), &["a", "b"], "b").await;
    let rotations = Rotations(&world.namespace);
    rotations.change("web", json!({"suspend": true})).await;
    rotations.says("web", "Ready", "True", "Suspended").await;
    rotations.edit("web-tls", json!({"value": "theirs"})).await;
    world.anew().await;
    world.a_second_later().await;
    rotations.change("web", json!({"suspend": false})).await;
    world.crashes("b").await;
    operator.clock.advance(HOUR);
    let message = rotations.says("web", "Stalled", "True", "RestartFailed").await;
    assert!(message.contains("not put back: none is kept that all of them had"), "{message}");
    assert_eq!(rotations.data("web-tls").await["value"], "1");
}

/// Where the store can, the version before is the current one again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_version_before_is_promoted() {
    let (cluster, moto, oci) = (Cluster::without_node().await, Moto::start().await, Oci::start().await);
    let before = json!({"value": "1", "other": "o"});
    moto.call("CreateSecret", json!({"Name": "app", "SecretString": before.to_string()})).await;
    let in_aws = async |namespace: &Namespace| namespace.store_in_aws(&moto.address).await;
    let (world, operator) = rotated_and_crashing(&cluster, "app", in_aws, "1h").await;
    assert_ne!(moto.get("app").await["value"], "1");
    operator.clock.advance(HOUR);
    Rotations(&world.namespace).says("web", "Stalled", "True", "RolledBack").await;
    assert_eq!((moto.get("app").await, moto.versions("app").await), (before.clone(), 2), "no other was written");

    let in_oci = async |namespace: &Namespace| {
        namespace.secret("oci", "Opaque", &[("key.pem", &oci.private)]).await;
        oci.store()
    };
    oci.put("app", &before.to_string());
    let (world, operator) = rotated_and_crashing(&cluster, "app", in_oci, "1h").await;
    operator.clock.advance(HOUR);
    Rotations(&world.namespace).says("web", "Stalled", "True", "RolledBack").await;
    assert_eq!((oci.get("app"), oci.versions("app")), (before.to_string(), 2));

    // What somebody else has changed there meanwhile stays, and another version is written.
    oci.put("other", &before.to_string());
    let (_world, operator) = rotated_and_crashing(&cluster, "other", in_oci, "1h").await;
    let mut theirs: Value = serde_json::from_str(&oci.get("other")).unwrap();
    theirs["other"] = "theirs".into();
    oci.put("other", &theirs.to_string());
    operator.clock.advance(HOUR);
    eventually("the value of before is there, beside theirs", || async {
        let now: Value = serde_json::from_str(&oci.get("other")).unwrap();
        if now == json!({"value": "1", "other": "theirs"}) { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    assert_eq!(oci.versions("other"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_delivered_is_not_changed_under_way_unless_somebody_asks() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    vault.put("app", json!({"value": "1", "other": "o"})).await;
    let (world, operator) = pushing(&cluster, ("app", async |namespace| namespace.store_in(&vault).await), ("10h", "b@3")).await;
    let rotations = Rotations(&world.namespace);
    rotations.change("web", json!({"template": {"mergePolicy": "Merge", "data": {"text": "{{ value }}"}}})).await;
    rotations.complete("web", 2).await;
    world.a_second_later().await;
    rotations.ask("web", "rotate", "1").await;
    world.crashes("b").await;
    let delivered = rotations.data("web-tls").await["value"].clone();
    vault.put("app", json!({"value": "theirs", "other": "o"})).await;
    let read_at = |object: &SecretRotation| object.status.as_ref().and_then(|status| status.last_sync_time.as_ref()).map(|time| time.0);
    let before = read_at(&rotations.api().get("web").await.unwrap());
    operator.clock.advance(HOUR / 2);
    rotations.ask("web", "look", "1").await;
    rotations.until("web", "the store was read again", |object| read_at(object) > before).await;
    assert_eq!(rotations.data("web-tls").await["value"], delivered);
    // Nor because somebody has changed something else in the Secret.
    rotations.edit("web-tls", json!({"text": "edited"})).await;
    eventually("it is put right", || async {
        let data = rotations.data("web-tls").await;
        if data["text"] == "edited" { Err(format!("{data:?}")) } else { Ok(()) }
    })
    .await;
    let data = rotations.data("web-tls").await;
    assert_eq!((&data["value"], &data["text"]), (&delivered, &delivered));
    let restarts = world.restarts("a").await.0;
    rotations.ask("web", "refresh", "1").await;
    // Whose turn comes first does not wait for who still crashes with the value that this one replaces.
    eventually("the value of the store is there, and who can live with it has it", || async {
        let (data, restarted) = (rotations.data("web-tls").await, world.restarts("a").await.0 - restarts);
        if data["value"] == "theirs" && restarted == 1 { Ok(()) } else { Err(format!("{data:?} {restarted}")) }
    })
    .await;
}

/// On a node: what real Pods get, and what becomes of it when they cannot live with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_pods_get_a_value_and_get_the_one_before_back() {
    let Some(cluster) = crate::served::node().await else { return };
    let namespace = cluster.namespace("values").await;
    let (operator, rotations) = (cluster.operator(&namespace), Rotations(&namespace));
    namespace.secret("source", "Opaque", &[("mode", "watch"), ("note", "1")]).await;
    let of = |key: &str| json!({"secretKey": key, "remoteRef": {"key": "source", "property": key}});
    let spec = json!({"target": {"name": "settings"}, "store": {"kubernetes": {}}, "data": [of("mode"), of("note")], "restart": {"discover": true, "timeout": "1h"}});
    rotations.create("settings", spec).await;
    rotations.ready("settings", 1).await;
    // `b` does what the value says, and ends if it does not know that.
    let deployments: Api<Deployment> = Api::namespaced(namespace.client.clone(), &namespace.name);
    for (name, mode) in [("a", "watch"), ("b", "$(mode)")] {
        let container = json!({"name": "c", "image": "localhost/tlsserver:1", "args": [mode, "127.0.0.1:9"], "envFrom": [{"secretRef": {"name": "settings"}}]});
        let template =
            json!({"metadata": {"labels": {"app": name}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}});
        let object = json!({"metadata": {"name": name}, "spec": {"minReadySeconds": 2, "selector": {"matchLabels": {"app": name}}, "template": template}});
        deployments.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }
    let all_have = |revision: i64| {
        rotations.until("settings", "both have it", move |object| {
            let status = object.status.clone().unwrap_or_default();
            status.consumers.is_some_and(|consumers| consumers.summary == "2/2") && status.revision == Some(revision)
        })
    };
    let available = |name: &'static str| {
        let deployments = deployments.clone();
        eventually("it is available", move || {
            let deployments = deployments.clone();
            async move {
                let status = deployments.get(name).await.map_err(|error| error.to_string())?.status.unwrap_or_default();
                if status.available_replicas == Some(1) && status.updated_replicas == Some(1) && status.replicas == Some(1) {
                    Ok(())
                } else {
                    Err(format!("{status:?}"))
                }
            }
        })
    };
    available("a").await;
    available("b").await;
    all_have(1).await;
    crate::support::next_second().await;
    rotations.edit("source", json!({"note": "2"})).await;
    all_have(2).await;
    available("b").await;

    // No workload is restarted twice in a minute.
    crate::support::next_second().await;
    operator.clock.advance(jiff::SignedDuration::from_mins(2));
    rotations.edit("source", json!({"mode": "unknown"})).await;
    let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), &namespace.name);
    eventually("b crashes", || async {
        let all = pods.list(&ListParams::default().labels("app=b")).await.map_err(|error| error.to_string())?;
        let all = serde_json::to_string(&all.items).unwrap();
        if all.contains("CrashLoopBackOff") { Ok(()) } else { Err(all) }
    })
    .await;
    operator.clock.advance(jiff::SignedDuration::from_hours(2));
    rotations.ask("settings", "look", "1").await;
    let message = rotations.says("settings", "Stalled", "True", "RolledBack").await;
    assert!(message.contains("Deployment b"), "{message}");
    assert_eq!(rotations.data("settings").await["mode"], "watch");
    all_have(4).await;
    available("a").await;
    available("b").await;
}

/// A value that comes back is brought to who was restarted for another one since, as often as that happens: a restart for it of before is none that
/// somebody has undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_comes_back_is_brought_again() {
    let cluster = Cluster::without_node().await;
    let (world, _operator) = World::of_secrets(&cluster, json!({"discover": true}), &["a"], "none").await;
    let rotations = Rotations(&world.namespace);
    for (revision, value) in [(2, "2"), (3, "1"), (4, "2"), (5, "1")] {
        world.a_second_later().await;
        rotations.edit("source", json!({"value": value})).await;
        rotations.complete("web", revision).await;
        eventually("it is restarted", || async {
            let times = world.restarts("a").await.0;
            if times == revision - 1 { Ok(()) } else { Err(format!("{times} times with revision {revision}")) }
        })
        .await;
        rotations.consumers("web", "2/2").await;
    }
}

/// A Pod that was made while another value was there carries the mark of its template, which is of the value before that: once that one is back, the Pod
/// does not have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_of_an_earlier_time_says_nothing_of_what_a_pod_has() {
    let cluster = Cluster::without_node().await;
    let (world, _operator) = World::of_secrets(&cluster, json!({"discover": true}), &["a"], "none").await;
    let rotations = Rotations(&world.namespace);
    let becomes = async |value: &str| {
        world.a_second_later().await;
        rotations.edit("source", json!({"value": value})).await;
    };
    becomes("2").await;
    rotations.complete("web", 2).await;
    world.change("a", json!({"spec": {"paused": true}})).await;
    becomes("1").await;
    rotations.consumers("web", "0/2").await;
    world.anew().await;
    rotations.consumers("web", "2/2").await;
    becomes("2").await;
    rotations.consumers("web", "0/2").await;
    world.change("a", json!({"spec": {"paused": false}})).await;
    rotations.consumers("web", "2/2").await;
    assert_eq!(world.restarts("a").await.0, 2);
}

/// What somebody else writes into the Secret, and is put right, is brought to who has started meanwhile, and to nobody else: also where the Secret is
/// deleted, with all that is remembered of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_right_is_brought_to_who_started_meanwhile() {
    let cluster = Cluster::without_node().await;
    let (world, _operator) = World::of_secrets(&cluster, json!({"discover": true}), &["a"], "none").await;
    let rotations = Rotations(&world.namespace);
    world.a_second_later().await;
    rotations.edit("source", json!({"value": "2"})).await;
    rotations.complete("web", 2).await;
    world.a_second_later().await;
    rotations.edit("web-tls", json!({"value": "edited"})).await;
    rotations.complete("web", 3).await;
    assert_eq!((rotations.data("web-tls").await["value"].as_str(), world.restarts("a").await.0), ("2", 1), "nobody has started");
    rotations.change("web", json!({"suspend": true})).await;
    rotations.says("web", "Ready", "True", "Suspended").await;
    rotations.edit("web-tls", json!({"value": "edited"})).await;
    world.anew().await;
    world.a_second_later().await;
    rotations.edit("web-tls", json!({"value": "once more"})).await;
    rotations.change("web", json!({"suspend": false})).await;
    rotations.complete("web", 4).await;
    assert_eq!(world.restarts("a").await.0, 2);
    world.a_second_later().await;
    world.namespace.delete_secret("web-tls").await;
    rotations.complete("web", 5).await;
    rotations.consumers("web", "2/2").await;
    assert_eq!((rotations.data("web-tls").await["value"].as_str(), world.restarts("a").await.0), ("2", 2), "they have it");
    world.a_second_later().await;
    rotations.edit("source", json!({"value": "3"})).await;
    rotations.complete("web", 6).await;
    assert_eq!(world.restarts("a").await.0, 3);
}

/// An edit while a value is on its way does not make those healthy who cannot live with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_right_in_the_middle_is_brought_to_all() {
    let cluster = Cluster::without_node().await;
    let (world, _operator) = World::of_secrets(&cluster, json!({"discover": true, "timeout": "1h"}), &["b"], "b").await;
    let rotations = Rotations(&world.namespace);
    world.change("b", json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}})).await;
    world.a_second_later().await;
    rotations.edit("source", json!({"value": "2"})).await;
    world.crashes("b").await;
    rotations.consumers("web", "2/2").await;
    next_second().await;
    rotations.edit("web-tls", json!({"value": "edited"})).await;
    rotations.complete("web", 3).await;
    assert_eq!((rotations.data("web-tls").await["value"].as_str(), world.restarts("b").await.0), ("2", 2));
}

/// Whoever owns a Secret that keys are added to may write all of it anew, and takes what we noted there away: that is no other value, and is answered more
/// and more slowly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_who_writes_his_secret_anew_restarts_nobody() {
    let cluster = Cluster::without_node().await;
    let namespace = cluster.namespace("written-anew").await;
    let rotations = Rotations(&namespace);
    namespace.secret("source", "Opaque", &[("value", "1")]).await;
    namespace.secret("shared", "Opaque", &[("own", "x")]).await;
    let mut theirs = namespace.secrets().get("shared").await.unwrap();
    (theirs.metadata.resource_version, theirs.metadata.managed_fields) = (None, None);
    let data = json!([{"secretKey": "value", "remoteRef": {"key": "source", "property": "value"}}]);
    let target = json!({"name": "shared", "creationPolicy": "Merge"});
    let spec = json!({"target": target, "store": {"kubernetes": {}}, "data": data, "restart": {"discover": true}});
    rotations.create("app", spec).await;
    let _operator = Operator::start_restless(cluster.operator.clone(), vec![namespace.name.clone()], &namespace.name);
    rotations.ready("app", 1).await;
    next_second().await;
    let workload = Workload::start(&namespace, "app", "shared").await;
    next_second().await;
    rotations.edit("source", json!({"value": "2"})).await;
    rotations.complete("app", 2).await;
    workload.restarted(1).await;
    for revision in 3..=7 {
        next_second().await;
        namespace.secrets().replace("shared", &PostParams::default(), &theirs).await.unwrap();
        rotations.complete("app", revision).await;
    }
    workload.restarted(1).await;
    assert_eq!(rotations.data("shared").await["value"], "2");
    namespace.secrets().replace("shared", &PostParams::default(), &theirs).await.unwrap();
    rotations.says("app", "Ready", "False", "Contested").await;
}
