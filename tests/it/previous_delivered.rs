//! When the previous value goes while others are brought to workloads, or were taken back from them; it goes from what is kept to go back to as well.

use jiff::SignedDuration;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use seaworthy::api::SecretRotation;
use serde_json::json;

use crate::{
    previous_over::{HOUR, TEXT, hex, is_gone, rotation, texts},
    support::{Cluster, Namespace, Operator, Rotations, World, eventually, keeps_previous, waits_for_previous},
};

/// What is left as it was put back is left with the previous value only for as long as that is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_goes_though_what_was_added_was_taken_back() {
    let cluster = Cluster::without_node().await;
    let restart = json!({"discover": true, "timeout": "10m"});
    let (world, operator) = World::of_secrets(&cluster, restart, &["a", "b"], "b@4").await;
    let rotations = Rotations(&world.namespace);
    world.a_second_later().await;
    rotations.change("web", json!({"rotation": rotation()})).await;
    rotations.complete("web", 2).await;
    world.a_second_later().await;
    rotations.ask("web", "rotate", "1").await;
    rotations.complete("web", 3).await;
    let before = rotations.data("web-tls").await["key-previous"].clone();
    world.a_second_later().await;
    rotations.change("web", json!({"rotation": {"generate": [hex("key"), hex("more")]}})).await;
    world.crashes("b").await;
    operator.clock.advance(SignedDuration::from_mins(10));
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    assert_eq!(rotations.data("web-tls").await["key-previous"], before);
    operator.clock.advance(HOUR * 3);
    rotations.ask("web", "look", "1").await;
    is_gone(&rotations, "web-tls", &before).await;
    let object = rotations.until("web", "it is said", |object| !keeps_previous(object)).await;
    assert_eq!((object.status.unwrap().revision, rotations.data("web-tls").await.contains_key("more")), (Some(5), false));
}

/// A text names the previous value, and `b` will crash with what is delivered next. Returns the previous value.
async fn delivered_beside_a_previous_value(cluster: &Cluster, timeout: &str) -> (World, Operator, String) {
    let (world, operator) = World::of_secrets(cluster, json!({"discover": true, "timeout": timeout}), &["a", "b"], "b@4").await;
    let rotations = Rotations(&world.namespace);
    let delivered = async |revision: i64| {
        rotations.complete("web", revision).await;
        world.a_second_later().await;
    };
    let mut spec =
        json!({"rotation": rotation(), "template": texts(json!({"text": format!("{{{{ value }}}} {TEXT}"), "other": "{{ value }}"}))});
    spec["rotation"]["previous"] = json!({"keepFor": "2h", "maxKeep": "4h"});
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

/// Of the Secret itself, where it is written with the values.
async fn revision(namespace: &Namespace) -> String {
    namespace.secrets().get_metadata("web-tls").await.unwrap().annotations()["seaworthy.dev/revision"].clone()
}

/// What the store has was taken back. That is not made anew, and stays so, but for the previous value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_goes_though_others_were_taken_back() {
    let cluster = Cluster::without_node().await;
    let (world, operator, first) = delivered_beside_a_previous_value(&cluster, "1h").await;
    let rotations = Rotations(&world.namespace);
    rotations.edit("source", json!({"value": "2"})).await;
    world.crashes("b").await;
    operator.clock.advance(HOUR);
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    rotations.consumers("web", "4/4").await;
    let there = rotations.data("web-tls").await;
    assert!(there["value"] == "1" && there["key-previous"] == first);
    assert_eq!(rotations.data("web-tls-previous").await["key-previous"], first, "what was gone back to");
    operator.clock.advance(HOUR * 4);
    rotations.ask("web", "look", "1").await;
    is_gone(&rotations, "web-tls", &first).await;
    is_gone(&rotations, "web-tls-previous", &first).await;
    let synced = |object: &SecretRotation| object.status.as_ref().and_then(|status| status.last_sync_time.clone());
    let before = synced(&rotations.api().get("web").await.unwrap());
    operator.clock.advance(HOUR);
    rotations.ask("web", "refresh", "1").await;
    rotations.until("web", "it has looked again", |object| synced(object) != before).await;
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    let data = rotations.data("web-tls").await;
    let wanted = [("key", there["key"].clone()), ("other", "1".into()), ("text", format!("1 {} ", there["key"])), ("value", "1".into())];
    assert_eq!(data, wanted.map(|(key, value)| (key.to_owned(), value)).into());
    assert_eq!(revision(&world.namespace).await, "5", "that is no other revision");
    rotations.edit("source", json!({"value": "3"})).await;
    rotations.at("web", 6).await;
    assert_eq!(rotations.data("web-tls").await["text"], format!("3 {} ", there["key"]));
}

/// A text that was taken back does not come in with that either, nor is it tried again without the previous value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_goes_though_its_text_was_taken_back() {
    let cluster = Cluster::without_node().await;
    let (world, operator, first) = delivered_beside_a_previous_value(&cluster, "1h").await;
    let rotations = Rotations(&world.namespace);
    let before = rotations.data("web-tls").await;
    rotations.change("web", json!({"template": {"data": {"text": format!("broken {TEXT}")}}})).await;
    world.crashes("b").await;
    operator.clock.advance(HOUR);
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    rotations.consumers("web", "4/4").await;
    world.anew().await;
    rotations.consumers("web", "4/4").await;
    let restarts = world.restarts("a").await.0;
    let is_asked_again = async |number: &str, text: &str| {
        rotations.ask("web", "refresh", number).await;
        rotations.handled("web", "refresh", number).await;
        let data = rotations.data("web-tls").await;
        assert_eq!((data["text"].as_str(), world.restarts("a").await.0), (text, restarts));
        assert_eq!(revision(&world.namespace).await, "5");
    };
    is_asked_again("1", &before["text"]).await;
    operator.clock.advance(HOUR * 4);
    rotations.ask("web", "look", "1").await;
    is_gone(&rotations, "web-tls", &first).await;
    let after = format!("1 {} ", before["key"]);
    is_asked_again("2", &after).await;
    is_asked_again("3", &after).await;
    // Another one is another try.
    world.a_second_later().await;
    rotations.change("web", json!({"template": {"data": {"text": "mended {{ key }}"}}})).await;
    rotations.complete("web", 6).await;
    assert_eq!(rotations.data("web-tls").await["text"], format!("mended {}", before["key"]));
}

/// One that went when others were made does not come back with what is gone back to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_does_not_come_back() {
    let cluster = Cluster::without_node().await;
    let (world, operator, first) = delivered_beside_a_previous_value(&cluster, "1h").await;
    let rotations = Rotations(&world.namespace);
    let second = rotations.data("web-tls").await["key"].clone();
    rotations.ask("web", "rotate", "2").await;
    rotations.until("web", "it waits", waits_for_previous).await;
    operator.clock.advance(HOUR * 3);
    rotations.ask("web", "look", "1").await;
    world.crashes("b").await;
    is_gone(&rotations, "web-tls-previous", &first).await;
    assert_ne!(rotations.data("web-tls").await["key"], second);
    operator.clock.advance(HOUR);
    rotations.at("web", 5).await;
    is_gone(&rotations, "web-tls", &first).await;
    let data = rotations.data("web-tls").await;
    assert_eq!((&data["key"], &data["text"]), (&second, &format!("1 {second} ")));
    assert_eq!(revision(&world.namespace).await, "5");
}

/// Nor does it stay for as long as others are being delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_goes_though_others_are_being_delivered() {
    let cluster = Cluster::without_node().await;
    let (world, operator, first) = delivered_beside_a_previous_value(&cluster, "24h").await;
    let rotations = Rotations(&world.namespace);
    rotations.edit("source", json!({"value": "2"})).await;
    world.crashes("b").await;
    operator.clock.advance(HOUR * 3);
    rotations.ask("web", "look", "1").await;
    let kept = |object: &SecretRotation| {
        keeps_previous(object) && object.status.as_ref().unwrap().consumers.as_ref().is_some_and(|all| all.summary != "4/4")
    };
    rotations.until("web", "somebody runs it", kept).await;
    assert_eq!(rotations.data("web-tls").await["key-previous"], first);
    // One that nobody can change can be deleted.
    let immutable = Patch::Merge(json!({"immutable": true}));
    world.namespace.secrets().patch("web-tls-previous", &PatchParams::default(), &immutable).await.unwrap();
    operator.clock.advance(HOUR * 2);
    rotations.ask("web", "look", "2").await;
    is_gone(&rotations, "web-tls", &first).await;
    eventually("what could be gone back to is gone", || async {
        let there = world.namespace.secrets().get_metadata_opt("web-tls-previous").await.map_err(|error| error.to_string())?;
        there.map_or(Ok(()), |_| Err("it is there".into()))
    })
    .await;
    let data = rotations.data("web-tls").await;
    assert_eq!(data["text"], format!("2 {} ", data["key"]), "what is being delivered goes on");
}

/// What is kept to go back to goes with the Secret of which it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_is_not_kept_for_a_secret_that_is_gone() {
    let cluster = Cluster::without_node().await;
    let (world, _operator, first) = delivered_beside_a_previous_value(&cluster, "24h").await;
    let rotations = Rotations(&world.namespace);
    rotations.edit("source", json!({"value": "2"})).await;
    world.crashes("b").await;
    assert_eq!(rotations.data("web-tls-previous").await["key-previous"], first);
    world.namespace.delete_secret("web-tls").await;
    is_gone(&rotations, "web-tls-previous", &first).await;
}
