//! When the previous value goes, whatever else happens to be the case.

use jiff::SignedDuration;
use k8s_openapi::ByteString;
use kube::api::{Patch, PatchParams};
use seaworthy::api::SecretRotation;
use serde_json::{Value, json};

use crate::{
    support::{Cluster, Namespace, Rotations, Vault, Workload, eventually, keeps_previous, next_second, said, waits_for_previous},
    vault::{POLICY, by_role},
};

pub const HOUR: SignedDuration = SignedDuration::from_hours(1);

pub const TEXT: &str = "{{ key }} {{ key_previous | default('') }}";

/// A value; the one before is kept for an hour or two.
pub fn rotation() -> Value {
    json!({"generate": [hex("key")], "previous": {"keepFor": "1h", "maxKeep": "2h"}})
}

pub fn hex(name: &str) -> Value {
    json!({"secretKey": name, "hex": {}})
}

/// The same, which stands in the store as well.
fn pushed(key: &str) -> Value {
    let mut rotation = rotation();
    rotation["push"] = json!([{"secretKey": "key", "remoteRef": {"key": key, "property": "key"}}]);
    rotation
}

pub fn texts(texts: Value) -> Value {
    json!({"mergePolicy": "Merge", "data": texts})
}

/// The second value is there. Returns the first one.
async fn rotated(rotations: &Rotations<'_>) -> String {
    rotations.ready("jwt", 1).await;
    let first = rotations.data("jwt").await["key"].clone();
    rotations.ask("jwt", "rotate", "1").await;
    rotations.ready("jwt", 2).await;
    first
}

/// No key has it, and no text.
pub async fn is_gone(rotations: &Rotations<'_>, name: &str, before: &str) {
    eventually("the previous value is gone", || async {
        let data = rotations.data(name).await;
        if data.values().any(|value| value.contains(before)) { Err(format!("{:?}", data.keys())) } else { Ok(()) }
    })
    .await;
}

async fn pending(namespace: &Namespace, key: &str) -> Option<ByteString> {
    namespace.secrets().get("jwt-pending").await.ok().and_then(|secret| secret.data?.remove(key))
}

async fn has_arrived(namespace: &Namespace) {
    eventually("it has arrived", || async {
        let there = namespace.secrets().get_metadata_opt("jwt-pending").await.map_err(|error| error.to_string())?;
        there.map_or(Ok(()), |_| Err("it is on its way".into()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_goes_though_the_store_is_away() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("away").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let mut rotation = pushed("app");
    rotation["generate"] = json!([hex("key"), {"secretKey": "set", "jwks": {}}]);
    let (store, template) = (
        namespace.store_in(&vault).await,
        texts(json!({"keys": format!("{TEXT}{{{{ nothing | default('') }}}}"), "published": "{{ set_pub }}"})),
    );
    let spec = json!({"target": {"name": "jwt"}, "store": store, "refreshInterval": "10s", "rotation": rotation, "template": template});
    rotations.create("jwt", spec).await;
    let first = rotated(&rotations).await;
    let data = rotations.data("jwt").await;
    assert_eq!((&data["key-previous"], &data["keys"]), (&first, &format!("{} {first}", data["key"])));
    let public = |text: &str| serde_json::from_str::<Value>(text).unwrap()["keys"].as_array().unwrap().len();
    assert_eq!((public(&data["set.pub"]), public(&data["published"])), (2, 2));
    vault.seal().await;
    rotations.says("jwt", "Ready", "False", "StoreUnavailable").await;
    operator.clock.advance(HOUR * 3);
    rotations.ask("jwt", "look", "1").await;
    is_gone(&rotations, "jwt", &first).await;
    let data = rotations.data("jwt").await;
    assert_eq!((data.len(), &data["keys"]), (5, &format!("{} ", data["key"])));
    assert_eq!((public(&data["set.pub"]), public(&data["published"])), (1, 1));
    rotations.says("jwt", "Ready", "False", "StoreUnavailable").await;
    let told = |object: &SecretRotation| {
        object.status.as_ref().and_then(|status| status.last_rotation.as_ref()).is_some_and(|last| last.reason == "PreviousOver")
    };
    rotations.until("jwt", "nobody has rotated it", told).await;
}

/// A text that holds it is made anew of what stands beside it by then, whoever has changed that; and goes where that cannot be done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_goes_though_its_text_is_not_what_it_was() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let text = |name: &str| format!("{{{{ {name} }}}} {TEXT}");
    let (edited, without) = (json!({"user": "dGhlaXJz"}), json!({"user": Value::Null}));
    for (edit, change, wanted) in [
        (edited, Value::Null, Some("theirs")),
        (without, Value::Null, None),
        (json!({"keys": "bWluZQ=="}), Value::Null, Some("u")),
        // What the spec says by now cannot be followed yet.
        (json!({}), texts(json!({"keys": "{{ user }}"})), Some("u")),
        (json!({}), texts(json!({"keys": null, "more": "{{ user }}"})), Some("u")),
    ] {
        let namespace = cluster.namespace("its-text").await;
        let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
        vault.put(&namespace.name, json!({"user": "u"})).await;
        let data = json!([{"secretKey": "user", "remoteRef": {"key": namespace.name, "property": "user"}}]);
        let (store, template) = (namespace.store_in(&vault).await, texts(json!({"keys": text("user")})));
        let mut spec = json!({"target": {"name": "jwt"}, "store": store, "data": data, "template": template});
        spec["rotation"] = pushed(&namespace.name);
        rotations.create("jwt", spec).await;
        let first = rotated(&rotations).await;
        let key = rotations.data("jwt").await["key"].clone();
        assert_eq!(rotations.data("jwt").await["keys"], format!("u {key} {first}"));
        vault.seal().await;
        let edit = Patch::Merge(json!({ "data": edit }));
        namespace.secrets().patch("jwt", &PatchParams::default(), &edit).await.unwrap();
        if !change.is_null() {
            rotations.change("jwt", json!({ "template": change })).await;
        }
        operator.clock.advance(HOUR * 3);
        rotations.ask("jwt", "look", "1").await;
        is_gone(&rotations, "jwt", &first).await;
        let found = rotations.data("jwt").await.get("keys").cloned();
        assert_eq!(found, wanted.map(|user| format!("{user} {key} ")), "{edit:?}");
        rotations.says("jwt", "Ready", "False", "StoreUnavailable").await;
        // As soon as the store is back, all is as the spec says.
        vault.unseal().await;
        rotations.ask("jwt", "look", "2").await;
        rotations.until("jwt", "Ready", |object| said(object, "Ready").is_some_and(|(status, ..)| status == "True")).await;
        let data = rotations.data("jwt").await;
        let text = if change.is_null() { format!("u {key} ") } else { "u".into() };
        assert_eq!((&data["user"], data.get("keys").or(data.get("more"))), (&"u".into(), Some(&text)));
    }
}

/// The place of another suffix may be where a value of the store stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_suffix_takes_nothing_of_the_store_along() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("suffix").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    namespace.secret("source", "Opaque", &[("key_old", "of the store")]).await;
    let from = json!([{"extract": {"key": "source"}}]);
    let spec = json!({"target": {"name": "jwt"}, "store": {"kubernetes": {}}, "dataFrom": from, "rotation": rotation()});
    rotations.create("jwt", spec).await;
    let first = rotated(&rotations).await;
    rotations.change("jwt", json!({"rotation": {"previous": {"suffix": "_old"}}})).await;
    rotations.says("jwt", "Stalled", "True", "ValueInvalid").await;
    operator.clock.advance(HOUR * 3);
    rotations.ask("jwt", "look", "1").await;
    is_gone(&rotations, "jwt", &first).await;
    assert_eq!(rotations.data("jwt").await["key_old"], "of the store");
}

/// Nobody can tell either when workloads may be restarted for what changes with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_goes_though_nobody_can_read_the_times() {
    let cluster = Cluster::without_node().await;
    let namespace = cluster.namespace("unreadable-times").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let (restart, template) = (json!({"discover": true}), texts(json!({"keys": TEXT})));
    let spec = json!({"target": {"name": "jwt"}, "restart": restart, "rotation": rotation(), "template": template});
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
    rotations.at("jwt", 3).await;
    let data = rotations.data("jwt").await;
    assert_eq!((data.len(), &data["keys"]), (2, &format!("{} ", data["key"])));
    let message = rotations.says("jwt", "Stalled", "True", "InvalidSpec").await;
    assert!(message.contains("spec.rotation.window"), "{message}");
    assert_eq!(workload.template().await, template, "it is not restarted");
    rotations.change("jwt", json!({"rotation": {"window": null}})).await;
    workload.restarted(2).await;
}

/// Values that are on their way and do not get there keep no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_goes_though_another_is_on_its_way() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("on-its-way").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "rotation": rotation()})).await;
    let first = rotated(&rotations).await;
    let template = texts(json!({"text": "{{ nothing }}"}));
    rotations.change("jwt", json!({"rotation": {"generate": [hex("key"), hex("more")]}, "template": template})).await;
    rotations.says("jwt", "Ready", "False", "TemplateInvalid").await;
    let more = pending(&namespace, "more").await.expect("it is on its way");
    operator.clock.advance(HOUR * 3);
    rotations.ask("jwt", "look", "1").await;
    is_gone(&rotations, "jwt", &first).await;
    assert_eq!(pending(&namespace, "more").await.as_ref(), Some(&more), "it still is");
    rotations.change("jwt", json!({"template": texts(json!({"text": "{{ more }}"}))})).await;
    rotations.ready("jwt", 3).await;
    let data = rotations.data("jwt").await;
    assert_eq!((data["more"].as_bytes(), &data["text"]), (&*more.0, &data["more"]));
    has_arrived(&namespace).await;
}

/// Nor are they lost that were made in the very look in which those before went, and could not be brought to the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_take_the_place_of_those_before_are_made_once() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("made-once").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let store = by_role(&vault, &namespace).await;
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "store": store, "rotation": pushed("app/jwt")})).await;
    let first = rotated(&rotations).await;
    rotations.ask("jwt", "rotate", "2").await;
    rotations.until("jwt", "it waits", waits_for_previous).await;
    let allow = async |policy: &str| vault.call("POST", "sys/policies/acl/app", json!({"policy": policy})).await;
    allow(&POLICY.replace(r#", "create", "update""#, "")).await;
    operator.clock.advance(HOUR * 3);
    rotations.ask("jwt", "look", "1").await;
    rotations.says("jwt", "Ready", "False", "StoreDenied").await;
    is_gone(&rotations, "jwt", &first).await;
    let new = pending(&namespace, "key").await.expect("it is on its way");
    allow(POLICY).await;
    rotations.ask("jwt", "look", "2").await;
    rotations.ready("jwt", 3).await;
    let data = rotations.data("jwt").await;
    assert_eq!(data["key"].as_bytes(), &*new.0);
    assert_eq!(vault.get("app/jwt").await, (json!({"key": data["key"]}), 3));
    has_arrived(&namespace).await;
}

/// Values that have arrived, whose process died just then, are not on their way, though the store is away and the text changes beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_have_arrived_do_not_arrive_again() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("arrived").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let (store, template) = (namespace.store_in(&vault).await, texts(json!({"keys": TEXT})));
    let spec = json!({"target": {"name": "jwt"}, "store": store, "rotation": pushed("jwt"), "template": template});
    rotations.create("jwt", spec).await;
    rotations.ready("jwt", 1).await;
    let first = rotations.data("jwt").await["key"].clone();
    operator.failpoint.arm("drop-pending", false, Some("store"));
    rotations.ask("jwt", "rotate", "1").await;
    operator.failpoint.reached().await;
    operator.kill().await;
    let second = rotations.data("jwt").await["key"].clone();
    assert!(second != first && pending(&namespace, "key").await.is_some());
    vault.seal().await;
    let clock = seaworthy::clock::Clock::default();
    clock.advance(HOUR * 3);
    let _operator = cluster.operator_with(&namespace, clock);
    let wanted = [("key".to_owned(), second.clone()), ("keys".to_owned(), format!("{second} "))].into();
    is_gone(&rotations, "jwt", &first).await;
    has_arrived(&namespace).await;
    assert_eq!(rotations.data("jwt").await, wanted);
    rotations.says("jwt", "Ready", "False", "StoreUnavailable").await;
    vault.unseal().await;
    rotations.ask("jwt", "look", "1").await;
    rotations.ready("jwt", 3).await;
    assert_eq!((rotations.data("jwt").await, vault.get("jwt").await), (wanted, (json!({"key": second}), 2)));
}

/// Nor do they replace what they are themselves, when another value came in between and the process died once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_have_arrived_replace_nothing() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("replace-nothing").await;
    let rotations = Rotations(&namespace);
    namespace.secret("source", "Opaque", &[("d", "1")]).await;
    let data = json!([{"secretKey": "d", "remoteRef": {"key": "source", "property": "d"}}]);
    let spec = json!({"target": {"name": "jwt"}, "store": {"kubernetes": {}}, "data": data, "rotation": rotation()});
    rotations.create("jwt", spec).await;
    let operator = cluster.operator(&namespace);
    rotations.ready("jwt", 1).await;
    let first = rotations.data("jwt").await["key"].clone();
    operator.failpoint.arm("drop-pending", false, Some("store"));
    rotations.ask("jwt", "rotate", "1").await;
    operator.failpoint.reached().await;
    operator.kill().await;
    let second = rotations.data("jwt").await["key"].clone();
    rotations.edit("source", json!({"d": "2"})).await;
    let operator = cluster.operator(&namespace);
    operator.failpoint.arm("drop-pending", false, Some("store"));
    operator.failpoint.reached().await;
    operator.kill().await;
    let there = [("d", "2".to_owned()), ("key", second), ("key-previous", first)].map(|(key, value)| (key.to_owned(), value)).into();
    assert_eq!(rotations.data("jwt").await, there);
    assert!(pending(&namespace, "key").await.is_some(), "that, too, was not noted");
    let _operator = cluster.operator(&namespace);
    rotations.ready("jwt", 3).await;
    has_arrived(&namespace).await;
    assert_eq!(rotations.data("jwt").await, there);
}

/// Of what is not generated any more nothing stays, though the store is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_goes_though_nothing_is_generated_there_any_more() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("no-more").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let mut rotation = pushed("app");
    rotation["generate"] = json!([hex("key"), hex("more")]);
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "store": namespace.store_in(&vault).await, "rotation": rotation})).await;
    rotated(&rotations).await;
    vault.seal().await;
    rotations.change("jwt", json!({"rotation": {"generate": [hex("key")]}})).await;
    rotations.says("jwt", "Ready", "False", "StoreUnavailable").await;
    let keys = async || rotations.data("jwt").await.into_keys().collect::<Vec<_>>();
    assert_eq!(keys().await, ["key", "key-previous", "more", "more-previous"], "the Secret stays as it is");
    operator.clock.advance(HOUR * 3);
    rotations.ask("jwt", "look", "1").await;
    rotations.until("jwt", "those before are gone", |object| !keeps_previous(object)).await;
    assert_eq!(keys().await, ["key", "more"]);
    vault.unseal().await;
    rotations.ask("jwt", "look", "2").await;
    rotations.until("jwt", "Ready", |object| said(object, "Ready").is_some_and(|(status, ..)| status == "True")).await;
    assert_eq!(keys().await, ["key"]);
}

/// What somebody else wrote into the Secret is not taken for ours when the previous value goes, nor does it keep that from going.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_goes_and_an_edit_beside_it_stays_one() {
    let cluster = Cluster::shared().await;
    // With a store that has other keys it is the same.
    let of_store = json!({"store": {"memory": {"data": {"d": "1"}}}, "data": [{"secretKey": "d", "remoteRef": {"key": "d"}}]});
    for (edit, more) in [(json!("dGhlaXJz"), json!({})), (Value::Null, json!({})), (json!("dGhlaXJz"), of_store)] {
        let edit = json!({"key": edit, "mine": "dGhlaXJz"});
        let namespace = cluster.namespace("edited").await;
        let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
        let rotation = json!({"generate": [hex("key"), hex("other"), {"secretKey": "set", "jwks": {}}], "previous": {"keepFor": "24h"}});
        let text = "{{ other }} {{ other_previous | default('') }}";
        let template = texts(json!({"text": text, "mine": text}));
        let mut spec = json!({"target": {"name": "jwt"}, "rotation": rotation, "template": template});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rotations.create("jwt", spec).await;
        rotations.ready("jwt", 1).await;
        let first = rotations.data("jwt").await["other"].clone();
        rotations.ask("jwt", "rotate", "1").await;
        rotations.ready("jwt", 2).await;
        let mut edit = json!({"data": edit});
        edit["data"]["set"] = "dGhlaXJz".into();
        namespace.secrets().patch("jwt", &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
        let message = rotations.says("jwt", "Ready", "False", "Modified").await;
        assert!(message.contains(r#"key "key""#), "{message}");
        operator.clock.advance(HOUR * 25);
        rotations.ask("jwt", "look", "1").await;
        rotations.until("jwt", "those before are gone", |object| !keeps_previous(object)).await;
        let keys: Vec<_> = rotations.data("jwt").await.into_keys().collect();
        assert!(keys.iter().all(|key| !key.ends_with("-previous")) && keys.contains(&"other".into()), "{keys:?}");
        let data = rotations.data("jwt").await;
        assert!(data.values().all(|value| !value.contains(&first)), "nor does a text hold one");
        let set: Value = serde_json::from_str(&data["set.pub"]).unwrap();
        assert_eq!(set["keys"].as_array().unwrap().len(), 1, "nor does what is public of it stay");
        let wanted = format!("{} ", data["other"]);
        assert_eq!((&data["text"], &data["mine"]), (&wanted, &wanted), "what they wrote into it is put right");
        rotations.ask("jwt", "look", "2").await;
        rotations.says("jwt", "Ready", "False", "Modified").await;
        rotations.ask("jwt", "rotate", "2").await;
        rotations.ready("jwt", 4).await;
        assert_eq!(rotations.data("jwt").await["key"].len(), 64);
    }
    // Nor does a value that the generator of the next one would not make.
    let namespace = cluster.namespace("another").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "rotation": rotation()})).await;
    rotated(&rotations).await;
    rotations.change("jwt", json!({"rotation": {"generate": [{"secretKey": "key", "ed25519Key": {}}]}})).await;
    operator.clock.advance(HOUR * 25);
    rotations.ask("jwt", "look", "1").await;
    rotations.until("jwt", "the one before is gone", |object| !keeps_previous(object)).await;
    assert_eq!(rotations.data("jwt").await.into_keys().collect::<Vec<_>>(), ["key"]);
}

/// A text that cannot be made without it is refused while it is there, and not found out when it goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_cannot_do_without_the_previous_value_is_refused() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("needs-it").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "rotation": rotation(), "template": texts(json!({"keys": TEXT}))})).await;
    let first = rotated(&rotations).await;
    let there = rotations.data("jwt").await;
    rotations.change("jwt", json!({"template": texts(json!({"keys": "{{ key_previous }}"}))})).await;
    let message = rotations.says("jwt", "Stalled", "True", "TemplateInvalid").await;
    assert!(message.contains("template.data \"keys\"") && message.contains("| default('')"), "{message}");
    assert_eq!(rotations.data("jwt").await, there);
    operator.clock.advance(HOUR * 3);
    rotations.ask("jwt", "look", "1").await;
    is_gone(&rotations, "jwt", &first).await;
    assert_eq!(rotations.data("jwt").await["keys"], format!("{} ", there["key"]));
}

/// Nor does somebody else's Secret, which stands where new values would be on their way, keep it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_goes_though_nothing_can_be_on_its_way() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("in-the-way").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let spec =
        json!({"target": {"name": "jwt"}, "rotation": rotation(), "template": texts(json!({"keys": TEXT})), "restart": {"discover": true}});
    rotations.create("jwt", spec).await;
    let first = rotated(&rotations).await;
    has_arrived(&namespace).await;
    for beside in ["jwt-pending", "jwt-previous"] {
        namespace.secret(beside, "Opaque", &[("theirs", "t")]).await;
    }
    rotations.ask("jwt", "look", "1").await;
    rotations.says("jwt", "Stalled", "True", "NotOurs").await;
    operator.clock.advance(HOUR * 3);
    rotations.ask("jwt", "look", "2").await;
    is_gone(&rotations, "jwt", &first).await;
    rotations.says("jwt", "Stalled", "True", "NotOurs").await;
}
