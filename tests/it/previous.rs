//! The previous value: where it is kept, and for how long.

use jiff::SignedDuration;
use kube::api::{Patch, PatchParams};
use seaworthy::api::SecretRotation;
use serde_json::json;

use crate::{
    rotation::spec,
    support::{Cluster, Far, Operator, Rotations, Vault, Workload, eventually, keeps_previous, next_second, said, waits_for_previous},
    vault::{POLICY, by_role},
};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_stays_while_somebody_runs_it_but_not_for_ever() {
    let cluster = Cluster::without_node().await;
    let namespace = cluster.namespace("stale").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let mut spec = spec();
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
        let object = rotations.until("jwt", "it says that it waits", waits_for_previous).await;
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
    // Another suffix is for the next ones, and does not give up the one that is there.
    let first = rotations.data("jwt").await["key"].clone();
    rotations.ask("jwt", "rotate", "1").await;
    rotations.ready("jwt", 2).await;
    rotations.change("jwt", json!({"rotation": {"previous": {"suffix": "_old"}}})).await;
    rotations.ask("jwt", "rotate", "2").await;
    rotations.until("jwt", "it waits", waits_for_previous).await;
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
    rotations.until("jwt", "it is over", |object| !keeps_previous(object)).await;
    rotations.ask("jwt", "rotate", "3").await;
    rotations.ready("jwt", 4).await;
    rotations.change("jwt", json!({"rotation": {"previous": {}}})).await;
    rotations.ask("jwt", "rotate", "4").await;
    rotations.ready("jwt", 5).await;
    rotations.until("jwt", "it is kept", keeps_previous).await;
    rotations.change("jwt", json!({"rotation": {"previous": null}})).await;
    rotations.until("jwt", "it is over", |object| !keeps_previous(object)).await;
    let object = rotations.ready("jwt", 5).await;
    let data = rotations.data("jwt").await;
    assert!(!data.contains_key("key-previous"), "{:?} {:?}", data.keys(), object.status);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_has_a_suffix_of_ones_own_and_its_place_for_itself() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("suffix").await;
    let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let spec = json!({
        "target": {"name": "app"}, "store": {"memory": {"data": {"a": "v", "all": r#"{"jwt_old": "v"}"#}}},
        "data": [{"secretKey": "other", "remoteRef": {"key": "a"}}],
        "rotation": {"generate": [{"secretKey": "jwt", "hex": {}}], "previous": {"suffix": "_old"}},
    });
    rotations.create("app", spec).await;
    rotations.ready("app", 1).await;
    let first = rotations.data("app").await;
    rotations.ask("app", "rotate", "1").await;
    rotations.ready("app", 2).await;
    let second = rotations.data("app").await;
    assert!(second["jwt_old"] == first["jwt"] && second["jwt"] != first["jwt"] && second["other"] == "v", "{:?}", second.keys());
    rotations.change("app", json!({"dataFrom": [{"extract": {"key": "all"}}]})).await;
    let message = rotations.says("app", "Ready", "False", "ValueInvalid").await;
    assert!(message.contains("\"jwt_old\"") && message.contains("rotation.previous.suffix"), "{message}");
    assert_eq!(rotations.data("app").await, second, "the Secret stays as it is");
}

/// What somebody does to the Secret while a new value is on its way does not take the place of the one that is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_is_the_one_that_was_replaced() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    for is_deleted in [true, false] {
        let namespace = cluster.namespace("replaced").await;
        let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
        vault.put("app/jwt", json!({"key": "first"})).await;
        let push = json!([{"secretKey": "key", "remoteRef": {"key": "app/jwt", "property": "key"}}]);
        let rotation = json!({"generate": [{"secretKey": "key", "hex": {}}], "previous": {}, "push": push});
        rotations.create("jwt", json!({"target": {"name": "jwt"}, "store": by_role(&vault, &namespace).await, "rotation": rotation})).await;
        rotations.ready("jwt", 1).await;
        let allow = async |policy: &str| vault.call("POST", "sys/policies/acl/app", json!({"policy": policy})).await;
        allow(&POLICY.replace(r#", "create", "update""#, "")).await;
        rotations.ask("jwt", "rotate", "1").await;
        rotations.says("jwt", "Ready", "False", "StoreDenied").await;
        rotations.change("jwt", json!({"suspend": true})).await;
        rotations.says("jwt", "Ready", "True", "Suspended").await;
        if is_deleted {
            namespace.delete_secret("jwt").await;
        } else {
            rotations.edit("jwt", json!({"key": "edited"})).await;
        }
        allow(POLICY).await;
        rotations.change("jwt", json!({"suspend": false})).await;
        eventually("the new value is there, and the store has it", || async {
            let data = namespace.secrets().get_opt("jwt").await.map_err(|error| error.to_string())?.and_then(|secret| secret.data);
            let data = data.ok_or("there is no Secret")?;
            let (key, previous) = (&data["key"], data.get("key-previous"));
            let same = vault.get("app/jwt").await.0 == json!({"key": String::from_utf8_lossy(&key.0)});
            if same && previous.is_some_and(|previous| previous.0 == b"first") { Ok(()) } else { Err(format!("{:?}", data.keys())) }
        })
        .await;
    }
}

/// The version that was replaced is found again, whatever the store is opened with by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_version_before_is_retired_with_other_credentials() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("others").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let mut store = by_role(&vault, &namespace).await;
    let push = json!([{"secretKey": "key", "remoteRef": {"key": "app/jwt", "property": "key"}}]);
    let rotation = json!({"generate": [{"secretKey": "key", "hex": {}}], "previous": {"keepFor": "24h"}, "push": push});
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "store": store, "rotation": rotation})).await;
    rotations.ready("jwt", 1).await;
    rotations.ask("jwt", "rotate", "1").await;
    rotations.ready("jwt", 2).await;
    store["vault"]["auth"] = namespace.store_in(&vault).await["vault"]["auth"].take();
    store["vault"]["auth"]["appRole"] = serde_json::Value::Null;
    rotations.change("jwt", json!({ "store": store })).await;
    rotations.ready("jwt", 2).await;
    operator.clock.advance(HOUR * 25);
    rotations.ask("jwt", "look", "1").await;
    eventually("it is retired", || async {
        if Far::Vault(&vault).has_given_up("app/jwt", 1).await { Ok(()) } else { Err("it is there".into()) }
    })
    .await;
}

/// What is late is counted, for whom alerts tell: here the Secret cannot be written any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_overdue_is_counted() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("overdue").await;
    let rotations = Rotations(&namespace);
    let (operator, address) = Operator::listening(cluster.operator.clone(), vec![namespace.name.clone()], &namespace.name);
    let rotation = json!({"every": "3h", "generate": [{"secretKey": "key", "hex": {}}], "previous": {"keepFor": "1h", "maxKeep": "2h"}});
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "rotation": rotation})).await;
    rotations.ready("jwt", 1).await;
    rotations.ask("jwt", "rotate", "1").await;
    rotations.ready("jwt", 2).await;
    rotations.until("jwt", "it is kept", keeps_previous).await;
    // Nothing can be taken out of it any more.
    let immutable = Patch::Merge(json!({"immutable": true}));
    namespace.secrets().patch("jwt", &PatchParams::default(), &immutable).await.unwrap();
    let counted = async |wanted: u8| {
        eventually(&format!("{wanted} of each"), || async {
            let metrics = reqwest::get(format!("http://{address}/metrics")).await.map_err(|error| error.to_string())?;
            let metrics = metrics.text().await.map_err(|error| error.to_string())?;
            let names = ["seaworthy_secret_rotations_overdue", "seaworthy_previous_values_overdue"];
            if names.iter().all(|name| metrics.contains(&format!("\n{name} {wanted}\n"))) { Ok(()) } else { Err(metrics) }
        })
        .await;
    };
    counted(0).await;
    operator.clock.advance(HOUR * 5);
    counted(1).await;
}
