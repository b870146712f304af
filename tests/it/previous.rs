//! The value before a rotation: where it is kept, and when it goes.

use jiff::SignedDuration;
use kube::api::{Patch, PatchParams};
use seaworthy::api::SecretRotation;
use serde_json::{Value, json};

use crate::{
    rotation::spec,
    support::{Cluster, Far, Operator, Rotations, Vault, Workload, World, eventually, next_second, said},
    vault::{POLICY, by_role},
};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_before_goes_though_the_store_is_away() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("away").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let remote = json!({"key": "app", "property": "key"});
    rotations
        .create(
            "jwt",
            json!({
                "target": {"name": "jwt"}, "store": namespace.store_in(&vault).await, "refreshInterval": "10s",
                "rotation": {
                    "generate": [{"secretKey": "key", "hex": {}}, {"secretKey": "set", "jwks": {}}],
                    "previous": {"keepFor": "1h", "maxKeep": "2h"},
                    "push": [{"secretKey": "key", "remoteRef": remote}],
                },
                "template": {"mergePolicy": "Merge", "data": {"keys": "{{ key }} {{ key_previous | default('') }}", "published": "{{ set_pub }}"}},
            }),
        )
        .await;
    rotations.ready("jwt", 1).await;
    let first = rotations.data("jwt").await["key"].clone();
    rotations.ask("jwt", "rotate", "1").await;
    rotations.ready("jwt", 2).await;
    let data = rotations.data("jwt").await;
    assert_eq!((&data["key-previous"], &data["keys"]), (&first, &format!("{} {first}", data["key"])));
    let public = |text: &str| serde_json::from_str::<Value>(text).unwrap()["keys"].as_array().unwrap().len();
    assert_eq!((public(&data["set.pub"]), public(&data["published"])), (2, 2));
    vault.seal().await;
    rotations.says("jwt", "Ready", "False", "StoreUnavailable").await;
    operator.clock.advance(HOUR * 3);
    rotations.ask("jwt", "look", "1").await;
    eventually("the one before is gone", || async {
        let data = rotations.data("jwt").await;
        if data.values().any(|value| value.contains(&first)) { Err(format!("{:?}", data.keys())) } else { Ok(()) }
    })
    .await;
    let data = rotations.data("jwt").await;
    assert_eq!((data.len(), &data["keys"]), (5, &format!("{} ", data["key"])));
    assert_eq!((public(&data["set.pub"]), public(&data["published"])), (1, 1));
    rotations.says("jwt", "Ready", "False", "StoreUnavailable").await;
    let told = |object: &SecretRotation| {
        object.status.as_ref().and_then(|status| status.last_rotation.as_ref()).is_some_and(|last| last.reason == "PreviousOver")
    };
    rotations.until("jwt", "nobody has rotated it", told).await;
}

/// Nobody can tell either when workloads may be restarted for what changes with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_before_goes_though_nobody_can_read_the_times() {
    let cluster = Cluster::without_node().await;
    let namespace = cluster.namespace("unreadable-times").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let spec = json!({
        "target": {"name": "jwt"}, "restart": {"discover": true},
        "rotation": {"generate": [{"secretKey": "key", "hex": {}}], "previous": {"keepFor": "1h", "maxKeep": "2h"}},
        "template": {"mergePolicy": "Merge", "data": {"keys": "{{ key }} {{ key_previous | default('') }}"}},
    });
    rotations.create("jwt", spec).await;
    rotations.ready("jwt", 1).await;
    let workload = Workload::start(&namespace, "jwt", "jwt").await;
    next_second().await;
    rotations.ask("jwt", "rotate", "1").await;
    workload.restarted(1).await;
    let delivered = |object: &SecretRotation| {
        let last = object.status.as_ref().and_then(|status| status.last_rotation.as_ref());
        last.is_some_and(|last| last.reason == "Requested" && last.completed_at.is_some())
    };
    rotations.until("jwt", "it is delivered", delivered).await;
    let template = workload.template().await;
    let window = |zone: &str| json!({"rotation": {"window": {"schedule": "0 0 1 1 *", "duration": "1h", "timeZone": zone}}});
    rotations.change("jwt", window("Mars/Olympus")).await;
    rotations.says("jwt", "Stalled", "True", "InvalidSpec").await;
    assert!(rotations.data("jwt").await.contains_key("key-previous"));
    operator.clock.advance(HOUR * 3);
    rotations.ask("jwt", "look", "1").await;
    let written = |object: &SecretRotation| object.status.as_ref().is_some_and(|status| status.revision == Some(3));
    rotations.until("jwt", "it was written", written).await;
    let data = rotations.data("jwt").await;
    assert_eq!((data.len(), &data["keys"]), (2, &format!("{} ", data["key"])));
    let message = rotations.says("jwt", "Stalled", "True", "InvalidSpec").await;
    assert!(message.contains("spec.rotation.window"), "{message}");
    assert_eq!(workload.template().await, template, "it is not restarted");
    rotations.change("jwt", json!({"rotation": {"window": null}})).await;
    workload.restarted(2).await;
}

/// A text names the value before, and `b` will crash with what is delivered next. Returns the value before.
async fn delivered_beside_a_value_before(cluster: &Cluster, timeout: &str) -> (World, Operator, String) {
    let (world, operator) = World::of_secrets(cluster, json!({"discover": true, "timeout": timeout}), &["a", "b"], "b@4").await;
    let rotations = Rotations(&world.namespace);
    let delivered = async |revision: i64| {
        let complete = |object: &SecretRotation| {
            let status = object.status.clone().unwrap_or_default();
            status.last_rotation.is_some_and(|last| last.completed_at.is_some()) && status.revision == Some(revision)
        };
        rotations.until("web", "it is delivered", complete).await;
        world.a_second_later().await;
    };
    let spec = json!({
        "rotation": {"generate": [{"secretKey": "key", "hex": {}}], "previous": {"keepFor": "2h", "maxKeep": "4h"}},
        "template": {"mergePolicy": "Merge", "data": {"text": "{{ value }} {{ key }} {{ key_previous | default('') }}", "other": "{{ value }}"}},
    });
    world.a_second_later().await;
    rotations.change("web", spec).await;
    delivered(2).await;
    let first = rotations.data("web-tls").await["key"].clone();
    rotations.ask("web", "rotate", "1").await;
    delivered(3).await;
    let data = rotations.data("web-tls").await;
    assert_eq!(data["text"], format!("1 {} {first}", data["key"]));
    (world, operator, first)
}

async fn synced_revision(rotations: &Rotations<'_>) -> Option<i64> {
    rotations.api().get("web").await.unwrap().status.unwrap().revision
}

async fn is_gone(rotations: &Rotations<'_>, before: &str) {
    eventually("the value before is gone", || async {
        let data = rotations.data("web-tls").await;
        if data.values().any(|value| value.contains(before)) { Err(format!("{data:?}")) } else { Ok(()) }
    })
    .await;
}

/// What the store has was taken back. That is not made anew, and stays so, but for the value before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_before_goes_though_others_were_taken_back() {
    let cluster = Cluster::without_node().await;
    let (world, operator, first) = delivered_beside_a_value_before(&cluster, "1h").await;
    let rotations = Rotations(&world.namespace);
    rotations.edit("source", json!({"value": "2"})).await;
    world.crashes("b").await;
    operator.clock.advance(HOUR);
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    let back = |object: &SecretRotation| object.status.as_ref().unwrap().consumers.as_ref().is_some_and(|all| all.summary == "4/4");
    rotations.until("web", "everybody has what was there before", back).await;
    let there = rotations.data("web-tls").await;
    assert!(there["value"] == "1" && there["key-previous"] == first);
    operator.clock.advance(HOUR * 4);
    rotations.ask("web", "look", "1").await;
    is_gone(&rotations, &first).await;
    let synced = |object: &SecretRotation| object.status.as_ref().and_then(|status| status.last_sync_time.clone());
    let before = synced(&rotations.api().get("web").await.unwrap());
    operator.clock.advance(HOUR);
    rotations.ask("web", "refresh", "1").await;
    rotations.until("web", "it has looked again", |object| synced(object) != before).await;
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    let data = rotations.data("web-tls").await;
    let wanted = [("key", there["key"].clone()), ("other", "1".into()), ("text", format!("1 {} ", there["key"])), ("value", "1".into())];
    assert_eq!(data, wanted.map(|(key, value)| (key.to_owned(), value)).into());
    assert_eq!(synced_revision(&rotations).await, Some(5), "that is no other revision");
    rotations.edit("source", json!({"value": "3"})).await;
    let tried = |object: &SecretRotation| object.status.as_ref().is_some_and(|status| status.revision == Some(6));
    rotations.until("web", "another value is tried", tried).await;
    assert_eq!(rotations.data("web-tls").await["text"], format!("3 {} ", there["key"]));
}

/// One that went when others were made does not come back with what is gone back to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_before_does_not_come_back() {
    let cluster = Cluster::without_node().await;
    let (world, operator, first) = delivered_beside_a_value_before(&cluster, "1h").await;
    let rotations = Rotations(&world.namespace);
    let second = rotations.data("web-tls").await["key"].clone();
    rotations.ask("web", "rotate", "2").await;
    let waits = |object: &SecretRotation| said(object, "Ready").is_some_and(|(.., message)| message.contains("new values are due"));
    rotations.until("web", "it waits", waits).await;
    operator.clock.advance(HOUR * 3);
    rotations.ask("web", "look", "1").await;
    world.crashes("b").await;
    assert_ne!(rotations.data("web-tls").await["key"], second);
    operator.clock.advance(HOUR);
    let back = |object: &SecretRotation| object.status.as_ref().is_some_and(|status| status.revision == Some(5));
    rotations.until("web", "the one that was delivered is back", back).await;
    is_gone(&rotations, &first).await;
    let data = rotations.data("web-tls").await;
    assert_eq!((&data["key"], &data["text"]), (&second, &format!("1 {second} ")));
    assert_eq!(synced_revision(&rotations).await, Some(5));
}

/// Nor does it stay for as long as others are being delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_before_goes_though_others_are_being_delivered() {
    let cluster = Cluster::without_node().await;
    let (world, operator, first) = delivered_beside_a_value_before(&cluster, "24h").await;
    let rotations = Rotations(&world.namespace);
    rotations.edit("source", json!({"value": "2"})).await;
    world.crashes("b").await;
    operator.clock.advance(HOUR * 3);
    rotations.ask("web", "look", "1").await;
    let kept = |object: &SecretRotation| {
        let status = object.status.as_ref().unwrap();
        status.previous_kept_until.is_some() && status.consumers.as_ref().is_some_and(|all| all.summary != "4/4")
    };
    rotations.until("web", "somebody runs it", kept).await;
    assert_eq!(rotations.data("web-tls").await["key-previous"], first);
    operator.clock.advance(HOUR * 2);
    rotations.ask("web", "look", "2").await;
    is_gone(&rotations, &first).await;
    let data = rotations.data("web-tls").await;
    assert_eq!(data["text"], format!("2 {} ", data["key"]), "what is being delivered goes on");
}

/// Values that are on their way and do not get there keep no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_before_goes_though_another_is_on_its_way() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("on-its-way").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let hex = |name: &str| json!({"secretKey": name, "hex": {}});
    let previous = json!({"keepFor": "1h", "maxKeep": "2h"});
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "rotation": {"generate": [hex("key")], "previous": previous}})).await;
    rotations.ready("jwt", 1).await;
    rotations.ask("jwt", "rotate", "1").await;
    rotations.ready("jwt", 2).await;
    let text = |text: &str| json!({"mergePolicy": "Merge", "data": {"text": text}});
    rotations.change("jwt", json!({"rotation": {"generate": [hex("key"), hex("more")]}, "template": text("{{ nothing }}")})).await;
    rotations.says("jwt", "Ready", "False", "TemplateInvalid").await;
    let pending = async || namespace.secrets().get("jwt-pending").await.ok().and_then(|secret| secret.data?.remove("more"));
    let more = pending().await.expect("it is on its way");
    operator.clock.advance(HOUR * 3);
    rotations.ask("jwt", "look", "1").await;
    eventually("the one before is gone", || async {
        let keys: Vec<String> = rotations.data("jwt").await.into_keys().collect();
        if keys == ["key"] { Ok(()) } else { Err(keys.join(" ")) }
    })
    .await;
    assert_eq!(pending().await.as_ref(), Some(&more), "it still is");
    rotations.change("jwt", json!({"template": text("{{ more }}")})).await;
    rotations.ready("jwt", 3).await;
    let data = rotations.data("jwt").await;
    assert_eq!((data["more"].as_bytes(), &data["text"]), (&*more.0, &data["more"]));
    eventually("it has arrived", || async { if pending().await.is_none() { Ok(()) } else { Err(String::new()) } }).await;
}

/// Nor are they lost that were made in the very look in which those before went, and could not be brought to the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_take_the_place_of_those_before_are_made_once() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("made-once").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let store = by_role(&vault, &namespace).await;
    let push = json!([{"secretKey": "key", "remoteRef": {"key": "app/jwt", "property": "key"}}]);
    let rotation = json!({"generate": [{"secretKey": "key", "hex": {}}], "previous": {"keepFor": "1h", "maxKeep": "2h"}, "push": push});
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "store": store, "rotation": rotation})).await;
    rotations.ready("jwt", 1).await;
    rotations.ask("jwt", "rotate", "1").await;
    rotations.ready("jwt", 2).await;
    rotations.ask("jwt", "rotate", "2").await;
    let waits = |object: &SecretRotation| said(object, "Ready").is_some_and(|(.., message)| message.contains("new values are due"));
    rotations.until("jwt", "it waits", waits).await;
    let allow = async |policy: &str| vault.call("POST", "sys/policies/acl/app", json!({"policy": policy})).await;
    allow(&POLICY.replace(r#", "create", "update""#, "")).await;
    operator.clock.advance(HOUR * 3);
    rotations.ask("jwt", "look", "1").await;
    rotations.says("jwt", "Ready", "False", "StoreDenied").await;
    eventually("the one before is gone", || async {
        let keys: Vec<String> = rotations.data("jwt").await.into_keys().collect();
        if keys == ["key"] { Ok(()) } else { Err(keys.join(" ")) }
    })
    .await;
    let pending = async || namespace.secrets().get("jwt-pending").await.ok().and_then(|secret| secret.data?.remove("key"));
    let new = pending().await.expect("it is on its way");
    allow(POLICY).await;
    rotations.ask("jwt", "look", "2").await;
    rotations.ready("jwt", 3).await;
    let data = rotations.data("jwt").await;
    assert_eq!(data["key"].as_bytes(), &*new.0);
    assert_eq!(vault.get("app/jwt").await, (json!({"key": data["key"]}), 3));
    eventually("it has arrived", || async { if pending().await.is_none() { Ok(()) } else { Err(String::new()) } }).await;
}

/// Values that have arrived, whose process died just then, are not on their way, though the store is away and the text changes beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_have_arrived_do_not_arrive_again() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("arrived").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let push = json!([{"secretKey": "key", "remoteRef": {"key": "jwt", "property": "key"}}]);
    let rotation = json!({"generate": [{"secretKey": "key", "hex": {}}], "previous": {"keepFor": "1h", "maxKeep": "2h"}, "push": push});
    let template = json!({"mergePolicy": "Merge", "data": {"keys": "{{ key }} {{ key_previous | default('') }}"}});
    let spec = json!({"target": {"name": "jwt"}, "store": namespace.store_in(&vault).await, "rotation": rotation, "template": template});
    rotations.create("jwt", spec).await;
    rotations.ready("jwt", 1).await;
    let first = rotations.data("jwt").await["key"].clone();
    operator.failpoint.arm("drop-pending", false, None);
    rotations.ask("jwt", "rotate", "1").await;
    operator.failpoint.reached().await;
    operator.kill().await;
    let second = rotations.data("jwt").await["key"].clone();
    let pending = async || namespace.secrets().get_metadata_opt("jwt-pending").await.unwrap();
    assert!(second != first && pending().await.is_some());
    vault.seal().await;
    let clock = seaworthy::clock::Clock::default();
    clock.advance(HOUR * 3);
    let _operator = cluster.operator_with(&namespace, clock);
    let wanted = [("key".to_owned(), second.clone()), ("keys".to_owned(), format!("{second} "))].into();
    eventually("the one before is gone, and nothing is on its way", || async {
        let (data, pending) = (rotations.data("jwt").await, pending().await);
        if data == wanted && pending.is_none() { Ok(()) } else { Err(format!("{:?} {:?}", data.keys(), pending.is_some())) }
    })
    .await;
    rotations.says("jwt", "Ready", "False", "StoreUnavailable").await;
    vault.unseal().await;
    rotations.ask("jwt", "look", "1").await;
    rotations.ready("jwt", 3).await;
    assert_eq!((rotations.data("jwt").await, vault.get("jwt").await), (wanted, (json!({"key": second}), 2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_before_stays_while_somebody_runs_it_but_not_for_ever() {
    let cluster = Cluster::without_node().await; // without a node, where the test says what runs
    let namespace = cluster.namespace("stale").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let mut spec = spec();
    spec["store"] = Value::Null;
    spec["rotation"].as_object_mut().unwrap().remove("push");
    spec["rotation"]["previous"] = json!({"keepFor": "1h", "maxKeep": "10h"});
    spec.as_object_mut().unwrap().remove("store");
    rotations.create("jwt", spec).await;
    rotations.ready("jwt", 1).await;
    let workload = Workload::start(&namespace, "jwt", "jwt").await;
    next_second().await;
    let (kept, gone) = (true, false);
    let is = async |wanted: bool, hours: i64| {
        operator.clock.advance(HOUR * i32::try_from(hours).unwrap());
        rotations.ask("jwt", "look", &jiff::Timestamp::now().to_string()).await;
        eventually(&format!("previous is there: {wanted}"), || async {
            let there = rotations.data("jwt").await.contains_key("key-previous");
            if there == wanted { Ok(()) } else { Err(format!("{there}")) }
        })
        .await;
    };
    rotations.ask("jwt", "rotate", "1").await;
    rotations.ready("jwt", 2).await;
    let stale = |object: &SecretRotation| {
        object.status.as_ref().and_then(|status| status.consumers.as_ref()).is_some_and(|consumers| consumers.summary == "0/1")
    };
    rotations.until("jwt", "the Pod runs the one before", stale).await;
    is(kept, 3).await;
    next_second().await;
    workload.restart().await;
    rotations.until("jwt", "the Pod runs the new one", |object| !stale(object)).await;
    is(gone, 0).await;
    next_second().await;
    rotations.ask("jwt", "rotate", "2").await;
    rotations.ready("jwt", 3).await;
    rotations.until("jwt", "the Pod runs the one before", stale).await;
    is(kept, 3).await;
    is(gone, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_values_wait_until_those_before_are_over() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("wait").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let push = json!([{"secretKey": "key", "remoteRef": {"key": "jwt", "property": "key"}}]);
    let rotation = json!({"generate": [{"secretKey": "key", "hex": {}}], "previous": {"keepFor": "24h"}, "push": push});
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "store": namespace.store_in(&vault).await, "rotation": rotation})).await;
    rotations.ready("jwt", 1).await;
    let first = rotations.data("jwt").await["key"].clone();
    rotations.ask("jwt", "rotate", "1").await;
    rotations.ready("jwt", 2).await;
    let second = rotations.data("jwt").await;
    assert_eq!(second["key-previous"], first);
    let far = Far::Vault(&vault);
    let waits = async || {
        let message = |object: &SecretRotation| said(object, "Ready").map(|(.., message)| message).unwrap_or_default();
        let object = rotations.until("jwt", "it says that it waits", |object| message(object).contains("new values are due")).await;
        assert!(
            message(&object).contains("are kept until") && message(&object).contains("without rotation.previous"),
            "{}",
            message(&object)
        );
        rotations.data("jwt").await
    };
    rotations.ask("jwt", "rotate", "2").await;
    assert_eq!(waits().await, second, "the first one is promised for a day");
    assert!(!far.has_given_up("jwt", 1).await);
    operator.clock.advance(HOUR * 25);
    rotations.ask("jwt", "look", "1").await;
    rotations.ready("jwt", 3).await;
    let third = rotations.data("jwt").await;
    assert!(third["key-previous"] == second["key"] && third["key"] != second["key"]);
    assert!(far.has_given_up("jwt", 1).await && !far.has_given_up("jwt", 2).await);
    // Who cannot wait gives the one before up.
    rotations.ask("jwt", "rotate", "3").await;
    assert_eq!(waits().await, third);
    rotations.change("jwt", json!({"rotation": {"previous": null}})).await;
    rotations.ready("jwt", 4).await;
    let fourth = rotations.data("jwt").await;
    assert!(fourth["key"] != third["key"] && !fourth.contains_key("key-previous"), "{:?}", fourth.keys());
}

/// What is kept goes from where it was put, and what waits for it does not wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_goes_although_the_spec_has_changed() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("changed").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let rotation = json!({"generate": [{"secretKey": "key", "hex": {}}], "previous": {}});
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "rotation": rotation})).await;
    rotations.ready("jwt", 1).await;
    let kept = |object: &SecretRotation| object.status.as_ref().is_some_and(|status| status.previous_kept_until.is_some());
    // Another suffix is for the next ones, and does not give up the one that is there.
    let first = rotations.data("jwt").await["key"].clone();
    rotations.ask("jwt", "rotate", "1").await;
    rotations.ready("jwt", 2).await;
    rotations.change("jwt", json!({"rotation": {"previous": {"suffix": "_old"}}})).await;
    rotations.ask("jwt", "rotate", "2").await;
    let waits = |object: &SecretRotation| said(object, "Ready").is_some_and(|(.., message)| message.contains("new values are due"));
    rotations.until("jwt", "it waits", waits).await;
    assert_eq!(rotations.data("jwt").await["key-previous"], first);
    // Nor is it in the way of another generator for longer than it is kept.
    let (text, keys) = (json!({"secretKey": "key", "hex": {}}), json!({"secretKey": "key", "ed25519Key": {}}));
    rotations.change("jwt", json!({"rotation": {"generate": [keys]}})).await;
    operator.clock.advance(HOUR * 25);
    rotations.ask("jwt", "look", "1").await;
    rotations.ready("jwt", 3).await;
    let third = rotations.data("jwt").await;
    assert!(third["key"].contains("PRIVATE KEY") && third["key.pub"].contains("PUBLIC KEY"));
    assert!(third.contains_key("key_old") && !third.contains_key("key-previous"), "{:?}", third.keys());
    // Who does not want it any more has it no longer, and nobody is restarted for that.
    rotations.change("jwt", json!({"rotation": {"generate": [text], "previous": null}})).await;
    rotations.until("jwt", "it is over", |object| !kept(object)).await;
    rotations.ask("jwt", "rotate", "3").await;
    rotations.ready("jwt", 4).await;
    rotations.change("jwt", json!({"rotation": {"previous": {}}})).await;
    rotations.ask("jwt", "rotate", "4").await;
    rotations.ready("jwt", 5).await;
    rotations.until("jwt", "it is kept", kept).await;
    rotations.change("jwt", json!({"rotation": {"previous": null}})).await;
    rotations.until("jwt", "it is over", |object| !kept(object)).await;
    let object = rotations.ready("jwt", 5).await;
    let data = rotations.data("jwt").await;
    assert!(!data.contains_key("key-previous"), "{:?} {:?}", data.keys(), object.status);
}

/// What somebody else wrote into the Secret is not taken for ours when the value before goes, nor does it keep that from going.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_before_goes_and_an_edit_beside_it_stays_one() {
    let cluster = Cluster::shared().await;
    // With a store that has other keys it is the same.
    let of_store = json!({"store": {"memory": {"data": {"d": "1"}}}, "data": [{"secretKey": "d", "remoteRef": {"key": "d"}}]});
    for (edit, more) in [(json!("dGhlaXJz"), json!({})), (Value::Null, json!({})), (json!("dGhlaXJz"), of_store)] {
        let edit = json!({"key": edit, "mine": "dGhlaXJz"});
        let namespace = cluster.namespace("edited").await;
        let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
        let generate = json!([{"secretKey": "key", "hex": {}}, {"secretKey": "other", "hex": {}}]);
        let rotation = json!({"generate": generate, "previous": {"keepFor": "24h"}});
        let texts =
            json!({"text": "{{ other }} {{ other_previous | default('') }}", "mine": "{{ other }} {{ other_previous | default('') }}"});
        let template = json!({"mergePolicy": "Merge", "data": texts});
        let mut spec = json!({"target": {"name": "jwt"}, "rotation": rotation, "template": template});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rotations.create("jwt", spec).await;
        rotations.ready("jwt", 1).await;
        let first = rotations.data("jwt").await["other"].clone();
        rotations.ask("jwt", "rotate", "1").await;
        rotations.ready("jwt", 2).await;
        let edit = Patch::Merge(json!({"data": edit}));
        namespace.secrets().patch("jwt", &PatchParams::default(), &edit).await.unwrap();
        let message = rotations.says("jwt", "Ready", "False", "Modified").await;
        assert!(message.contains(r#"key "key""#), "{message}");
        operator.clock.advance(HOUR * 25);
        rotations.ask("jwt", "look", "1").await;
        let kept = |object: &SecretRotation| object.status.as_ref().is_some_and(|status| status.previous_kept_until.is_some());
        rotations.until("jwt", "those before are gone", |object| !kept(object)).await;
        let keys: Vec<_> = rotations.data("jwt").await.into_keys().collect();
        assert!(keys.iter().all(|key| !key.ends_with("-previous")) && keys.contains(&"other".into()), "{keys:?}");
        let data = rotations.data("jwt").await;
        assert!(data.values().all(|value| !value.contains(&first)), "nor does a text hold one");
        assert_eq!((&data["text"], data["mine"].as_str()), (&format!("{} ", data["other"]), "theirs"));
        rotations.ask("jwt", "look", "2").await;
        rotations.says("jwt", "Ready", "False", "Modified").await;
        rotations.ask("jwt", "rotate", "2").await;
        rotations.ready("jwt", 4).await;
        assert_eq!(rotations.data("jwt").await["key"].len(), 64);
    }
    // Nor does a value that the generator of the next one would not make.
    let namespace = cluster.namespace("another").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let rotation = json!({"generate": [{"secretKey": "key", "hex": {}}], "previous": {}});
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "rotation": rotation})).await;
    rotations.ready("jwt", 1).await;
    rotations.ask("jwt", "rotate", "1").await;
    rotations.ready("jwt", 2).await;
    rotations.change("jwt", json!({"rotation": {"generate": [{"secretKey": "key", "ed25519Key": {}}]}})).await;
    operator.clock.advance(HOUR * 25);
    rotations.ask("jwt", "look", "1").await;
    let kept = |object: &SecretRotation| object.status.as_ref().is_some_and(|status| status.previous_kept_until.is_some());
    rotations.until("jwt", "the one before is gone", |object| !kept(object)).await;
    assert_eq!(rotations.data("jwt").await.into_keys().collect::<Vec<_>>(), ["key"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_before_has_a_suffix_of_ones_own_and_its_place_for_itself() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("suffix").await;
    let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let data = |key: &str| json!([{"secretKey": key, "remoteRef": {"key": "a"}}]);
    let spec = json!({
        "target": {"name": "app"}, "store": {"memory": {"data": {"a": "v"}}}, "data": data("other"),
        "rotation": {"generate": [{"secretKey": "jwt", "hex": {}}], "previous": {"suffix": "_old"}},
    });
    rotations.create("app", spec).await;
    rotations.ready("app", 1).await;
    let first = rotations.data("app").await;
    rotations.ask("app", "rotate", "1").await;
    rotations.ready("app", 2).await;
    let second = rotations.data("app").await;
    assert!(second["jwt_old"] == first["jwt"] && second["jwt"] != first["jwt"] && second["other"] == "v", "{:?}", second.keys());
    rotations.change("app", json!({"data": data("jwt_old")})).await;
    let message = rotations.says("app", "Ready", "False", "ValueInvalid").await;
    assert!(message.contains("\"jwt_old\"") && message.contains("rotation.previous.suffix"), "{message}");
    assert_eq!(rotations.data("app").await, second, "the Secret stays as it is");
}
