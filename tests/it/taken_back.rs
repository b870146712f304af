//! What was taken back because workloads could not live with it: it is not tried again by itself, and whoever asks for something else gets it.

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use seaworthy::api::SecretRotation;
use serde_json::{Value, json};

use crate::{
    delivery::{is_back, pushed_and_crashing, pushing},
    support::{Cluster, Operator, Rotations, Vault, World, eventually},
};

const HOUR: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// Nor is a value made anew that was made for the first time, and is nowhere any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_generated_and_taken_back_is_not_made_anew_by_itself() {
    let cluster = Cluster::without_node().await;
    let (world, operator) = World::of_secrets(&cluster, json!({"discover": true, "timeout": "1h"}), &["a", "b"], "b").await;
    let rotations = Rotations(&world.namespace);
    world.a_second_later().await;
    rotations.change("web", json!({"rotation": {"generate": [{"secretKey": "key", "hex": {}}]}})).await;
    world.crashes("b").await;
    operator.clock.advance(HOUR);
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    rotations.consumers("web", "4/4").await;
    for (what, value) in [("refresh", "1"), ("refresh", "2")] {
        rotations.ask("web", what, value).await;
        rotations.handled("web", what, value).await;
    }
    let data = rotations.data("web-tls").await;
    assert_eq!((data.len(), data["value"].as_str(), world.restarts("a").await.0), (1, "1", 2));
    // An edit is not put right with half of what would be made.
    rotations.edit("web-tls", json!({"value": "edited"})).await;
    let message = rotations.says("web", "Stalled", "True", "Modified").await;
    assert!(message.contains("a generated value was taken back with others"), "{message}");
    rotations.ask("web", "rotate", "1").await;
    rotations.at("web", 4).await;
    assert_eq!(rotations.data("web-tls").await["key"].len(), 64);
}

/// A key that was added, brought to the store, and taken back: who asks for new values gets them, for all keys, in the store as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_back_in_the_store_makes_room_for_new_values() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    vault.put("app", json!({"value": "1"})).await;
    let (world, operator) = pushing(&cluster, ("app", async |namespace| namespace.store_in(&vault).await), ("1h", "b")).await;
    let rotations = Rotations(&world.namespace);
    let of = |key: &str| json!({"secretKey": key, "remoteRef": {"key": "app", "property": key}});
    let generate = json!([{"secretKey": "value", "hex": {}}, {"secretKey": "more", "hex": {}}]);
    rotations.change("web", json!({"rotation": {"generate": generate, "push": [of("value"), of("more")]}})).await;
    world.crashes("b").await;
    let rejected = vault.get("app").await.0["more"].as_str().unwrap().to_owned();
    operator.clock.advance(HOUR);
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    rotations.consumers("web", "4/4").await;
    assert_eq!(
        rotations.data("web-tls-rejected").await,
        [("more.2".to_owned(), rejected.clone())].into(),
        "who had moved may have used it"
    );
    // What is left of it in the store is not tried again by itself.
    operator.clock.advance(HOUR);
    rotations.ask("web", "refresh", "1").await;
    rotations.handled("web", "refresh", "1").await;
    assert_eq!((rotations.data("web-tls").await.len(), world.restarts("a").await.0), (1, 2));
    world.a_second_later().await;
    rotations.ask("web", "rotate", "1").await;
    rotations.complete("web", 4).await;
    let (data, there) = (rotations.data("web-tls").await, vault.get("app").await.0);
    assert_eq!((data["value"].len(), data["more"].len()), (64, 64));
    assert!(data["more"] != rejected && there == json!({"value": data["value"], "more": data["more"]}), "{there}");
}

/// With `IfNotExists` the store keeps what was taken back: new values can go nowhere, and nobody is restarted for that again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_keeps_and_was_taken_back_is_not_tried_for_ever() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    vault.put("app", json!({"value": "1"})).await;
    let (world, operator) = pushing(&cluster, ("app", async |namespace| namespace.store_in(&vault).await), ("1h", "b")).await;
    let rotations = Rotations(&world.namespace);
    let push = json!([{"secretKey": "value", "remoteRef": {"key": "app", "property": "value"}, "updatePolicy": "IfNotExists"}]);
    rotations.change("web", json!({"rotation": {"push": push}})).await;
    rotations.ready("web", 1).await;
    vault.put("app", json!({"value": "theirs"})).await;
    rotations.ask("web", "refresh", "1").await;
    world.crashes("b").await;
    operator.clock.advance(HOUR);
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    rotations.consumers("web", "4/4").await;
    let restarts = world.restarts("a").await.0;
    rotations.ask("web", "rotate", "1").await;
    eventually("the request is answered, and nothing is on its way", || async {
        let secrets = world.namespace.secrets();
        let noted = secrets.get_metadata("web-tls").await.map_err(|error| error.to_string())?.metadata.annotations.unwrap_or_default();
        let pending = secrets.get_metadata_opt("web-tls-pending").await.map_err(|error| error.to_string())?.is_some();
        let handled = noted.get("seaworthy.dev/handled-rotate").cloned();
        if handled.as_deref() == Some("1") && !pending { Ok(()) } else { Err(format!("{handled:?} {pending}")) }
    })
    .await;
    assert_eq!((rotations.data("web-tls").await["value"].as_str(), world.restarts("a").await.0), ("1", restarts));
    assert_eq!(vault.get("app").await.0["value"], "theirs");
}

/// What the store has again after a roll-back is what an edit is put right with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_back_is_kept_as_anything_else() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let (world, operator) = pushed_and_crashing(&cluster, &vault, "1h").await;
    operator.clock.advance(HOUR);
    is_back(&world, &vault).await;
    let (rotations, secrets) = (Rotations(&world.namespace), world.namespace.secrets());
    let is_restored = async || {
        eventually("it is put right", || async {
            let data = rotations.data("web-tls").await;
            if data.get("value").is_some_and(|value| value == "1") { Ok(()) } else { Err(format!("{data:?}")) }
        })
        .await;
    };
    rotations.edit("web-tls", json!({"value": "edited"})).await;
    is_restored().await;
    secrets.patch("web-tls", &PatchParams::default(), &Patch::Merge(json!({"data": {"value": null}}))).await.unwrap();
    is_restored().await;
    assert_eq!(vault.get("app").await.0["value"], "1");
}

/// A part of what was taken back, which nobody has tried alone, is another try.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_mended_in_the_store_is_tried_though_a_part_of_it_was_taken_back() {
    let cluster = Cluster::without_node().await;
    let (world, operator) = World::of_secrets(&cluster, json!({"discover": true, "timeout": "1h"}), &["a", "b"], "b@3").await;
    let rotations = Rotations(&world.namespace);
    rotations.edit("source", json!({"other": "1"})).await;
    let of = |key: &str| json!({"secretKey": key, "remoteRef": {"key": "source", "property": key}});
    world.a_second_later().await;
    rotations.change("web", json!({"data": [of("value"), of("other")]})).await;
    rotations.complete("web", 2).await;
    world.a_second_later().await;
    rotations.edit("source", json!({"value": "2", "other": "2"})).await;
    world.crashes("b").await;
    operator.clock.advance(HOUR);
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    rotations.consumers("web", "4/4").await;
    world.a_second_later().await;
    rotations.edit("source", json!({"other": "1"})).await;
    rotations.complete("web", 5).await;
    assert_eq!(rotations.data("web-tls").await["value"], "2");
}

/// Beside the value that is pushed there is another one of the store; it has changed, which `asked` has brought to workloads, and was taken back with all
/// that came with it.
async fn with_another_taken_back(cluster: &Cluster, vault: &Vault, mut change: Value, asked: &str) -> (World, Operator) {
    vault.put("app", json!({"value": "1"})).await;
    vault.put("other", json!({"other": "1"})).await;
    let (world, operator) = pushing(cluster, ("app", async |namespace| namespace.store_in(vault).await), ("1h", "b@3")).await;
    let rotations = Rotations(&world.namespace);
    let of = |key: &str, property: &str| json!({"secretKey": property, "remoteRef": {"key": key, "property": property}});
    change["data"] = json!([of("app", "value"), of("other", "other")]);
    rotations.change("web", change).await;
    rotations.complete("web", 2).await;
    world.a_second_later().await;
    vault.put("other", json!({"other": "2"})).await;
    rotations.ask("web", asked, "1").await;
    world.crashes("b").await;
    assert_eq!(rotations.data("web-tls").await["other"], "2");
    operator.clock.advance(HOUR);
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    rotations.consumers("web", "4/4").await;
    (world, operator)
}

/// What is put together of values that were put back and others that were taken back is no other try, be it a text.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_in_the_store_is_not_tried_though_a_text_is_made_of_it() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let template = json!({"mergePolicy": "Merge", "data": {"both": "{{ value }} {{ other }}"}});
    let (world, _operator) = with_another_taken_back(&cluster, &vault, json!({"template": template}), "rotate").await;
    let rotations = Rotations(&world.namespace);
    let (back, restarts) = (rotations.data("web-tls").await, world.restarts("a").await.0);
    assert_eq!((back["both"].as_str(), vault.get("app").await.0["value"].as_str()), ("1 1", Some("1")));
    for value in ["1", "2"] {
        rotations.ask("web", "refresh", value).await;
        rotations.handled("web", "refresh", value).await;
    }
    assert_eq!((rotations.data("web-tls").await, world.restarts("a").await.0), (back, restarts));
    vault.put("other", json!({"other": "3"})).await;
    world.a_second_later().await;
    rotations.ask("web", "refresh", "3").await;
    rotations.complete("web", 5).await;
    assert_eq!(rotations.data("web-tls").await["both"], "1 3");
}

/// Who asks for new values before the store was read again gets them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_values_are_made_though_the_store_has_others_that_were_taken_back() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let (world, _operator) = with_another_taken_back(&cluster, &vault, json!({"refreshInterval": "24h"}), "refresh").await;
    let rotations = Rotations(&world.namespace);
    world.a_second_later().await;
    rotations.ask("web", "rotate", "1").await;
    rotations.complete("web", 5).await;
    let data = rotations.data("web-tls").await;
    assert_eq!((data["value"].len(), data["other"].as_str()), (64, "2"));
    assert_eq!(vault.get("app").await.0["value"], data["value"]);
}

/// Of several places to which a value is pushed, one that lacks it is not filled with what was taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_back_is_not_brought_to_other_places() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    vault.put("app", json!({"value": "1"})).await;
    let (world, operator) = pushing(&cluster, ("app", async |namespace| namespace.store_in(&vault).await), ("1h", "b")).await;
    let rotations = Rotations(&world.namespace);
    let to = |key: &str| json!({"secretKey": "value", "remoteRef": {"key": key, "property": "value"}, "updatePolicy": "IfNotExists"});
    rotations.change("web", json!({"rotation": {"push": [to("app"), to("second")]}})).await;
    let there = async |wanted: &str| {
        eventually("the second place has it", || async {
            let (_, answer) = vault.try_call("GET", "secret/data/second", Value::Null).await;
            if answer["data"]["data"]["value"] == wanted { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    };
    there("1").await;
    rotations.ready("web", 1).await;
    for key in ["app", "second"] {
        vault.put(key, json!({"value": "theirs"})).await;
    }
    rotations.ask("web", "refresh", "1").await;
    world.crashes("b").await;
    operator.clock.advance(HOUR);
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    rotations.consumers("web", "4/4").await;
    vault.put("second", json!({"note": "n"})).await;
    for value in ["2", "3"] {
        rotations.ask("web", "refresh", value).await;
        rotations.handled("web", "refresh", value).await;
    }
    assert_eq!(vault.get("second").await.0, json!({"note": "n"}));
}

/// All that was taken back is kept until others are everywhere, although nobody can write to what can be gone back to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_taken_back_is_kept_until_others_are_everywhere() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let (world, operator) = pushed_and_crashing(&cluster, &vault, "1h").await;
    let (rotations, secrets) = (Rotations(&world.namespace), world.namespace.secrets());
    let earlier = json!({"metadata": {"name": "web-tls-rejected", "annotations": {"seaworthy.dev/owner": "SecretRotation/web"}}, "stringData": {"value.0": "0"}});
    let as_operator = PostParams { field_manager: Some("seaworthy-secrets".into()), ..PostParams::default() };
    secrets.create(&as_operator, &serde_json::from_value(earlier).unwrap()).await.unwrap();
    let immutable = Patch::Merge(json!({"immutable": true}));
    secrets.patch("web-tls-previous", &PatchParams::default(), &immutable).await.unwrap();
    let taken = [("value.0".to_owned(), "0".to_owned()), ("value.2".to_owned(), rotations.data("web-tls").await["value"].clone())];
    operator.clock.advance(HOUR);
    is_back(&world, &vault).await;
    rotations.consumers("web", "4/4").await;
    assert_eq!(rotations.data("web-tls-rejected").await, taken.into());
    world.a_second_later().await;
    rotations.ask("web", "rotate", "2").await;
    rotations.complete("web", 4).await;
    eventually("nobody has to know them any more", || async {
        let there = secrets.get_metadata_opt("web-tls-rejected").await.map_err(|error| error.to_string())?;
        there.map_or(Ok(()), |_| Err("they are there".into()))
    })
    .await;
}

/// What cannot have a Secret of its own is kept beside what was put back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_back_is_kept_though_its_place_is_taken() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let (world, operator) = pushed_and_crashing(&cluster, &vault, "1h").await;
    let rotations = Rotations(&world.namespace);
    let taken = rotations.data("web-tls").await["value"].clone();
    world.namespace.secret("web-tls-rejected", "Opaque", &[("mine", "1")]).await;
    operator.clock.advance(HOUR);
    is_back(&world, &vault).await;
    assert_eq!(rotations.data("web-tls-previous").await["value.2"], taken);
    assert_eq!(rotations.data("web-tls-rejected").await, [("mine".to_owned(), "1".to_owned())].into());
    // Until others are everywhere.
    rotations.consumers("web", "4/4").await;
    world.a_second_later().await;
    operator.failpoint.arm("restart", false, Some("store"));
    rotations.ask("web", "rotate", "2").await;
    operator.failpoint.reached().await;
    let kept = rotations.data("web-tls-previous").await;
    assert_eq!((kept["value"].as_str(), kept.get("value.2")), ("1", Some(&taken)));
}

/// What who had moved may have used is kept first, however long that takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_used_is_kept_before_it_is_taken_back() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let (world, operator) = pushed_and_crashing(&cluster, &vault, "1h").await;
    let (rotations, secrets) = (Rotations(&world.namespace), world.namespace.secrets());
    let taken = rotations.data("web-tls").await["value"].clone();
    // The API server has trouble with this one.
    let webhook = json!({"name": "away.seaworthy.dev", "clientConfig": {"url": "https://127.0.0.1:1/"}, "failurePolicy": "Fail", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "timeoutSeconds": 1, "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace.name}},
        "matchConditions": [{"name": "one", "expression": "object.metadata.name == 'web-tls-rejected'"}],
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"]}]});
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let object = serde_json::from_value(json!({"metadata": {"name": world.namespace.name}, "webhooks": [webhook]})).unwrap();
    webhooks.create(&PostParams::default(), &object).await.unwrap();
    eventually("it cannot be written", || async {
        let (dry, secret) = (PostParams { dry_run: true, ..PostParams::default() }, json!({"metadata": {"name": "web-tls-rejected"}}));
        secrets.create(&dry, &serde_json::from_value(secret).unwrap()).await.map_or(Ok(()), |_| Err("it can".into()))
    })
    .await;
    operator.clock.advance(HOUR);
    let failed = |object: &SecretRotation| {
        object
            .status
            .as_ref()
            .and_then(|status| status.last_failure.as_ref())
            .is_some_and(|failure| failure.message.contains("web-tls-rejected"))
    };
    rotations.until("web", "it says so", failed).await;
    assert_eq!(rotations.data("web-tls").await["value"], taken, "it is nowhere else");
    webhooks.delete(&world.namespace.name, &DeleteParams::default()).await.unwrap();
    is_back(&world, &vault).await;
    assert_eq!(rotations.data("web-tls-rejected").await["value.2"], taken);
}

/// A Secret that goes with what the store had takes nobody along: who has not been restarted yet keeps what it runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_restarted_for_a_secret_that_is_gone() {
    let cluster = Cluster::without_node().await;
    let (world, operator) = World::of_secrets(&cluster, json!({"discover": true}), &["a", "b"], "none").await;
    let rotations = Rotations(&world.namespace);
    rotations.change("web", json!({"target": {"deletionPolicy": "Delete"}})).await;
    rotations.ready("web", 1).await;
    world.a_second_later().await;
    operator.failpoint.arm("restart", false, None);
    rotations.edit("source", json!({"value": "2"})).await;
    operator.failpoint.reached().await;
    operator.kill().await;
    world.namespace.delete_secret("source").await;
    let _operator = Operator::start_restless(cluster.operator.clone(), vec![world.namespace.name.clone()], &world.namespace.name);
    let message = rotations.says("web", "Ready", "False", "ValueNotFound").await;
    assert!(message.contains("was deleted with them"), "{message}");
    assert!(world.namespace.secrets().get_opt("web-tls").await.unwrap().is_none());
    assert_eq!((world.restarts("a").await.0, world.restarts("b").await.0), (0, 0));
}
