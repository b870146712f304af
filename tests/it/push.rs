//! Secrets that somebody else made: keys are added to them, and theirs go to a store.

use futures::future::join_all;
use jiff::SignedDuration;
use kube::api::{Patch, PatchParams};
use seaworthy::{api::SecretRotation, clock::Clock};
use serde_json::{Value, json};

use crate::support::{Cluster, Far, Fault, Faults, Moto, Namespace, Operator, Rotations, Vault, eventually, next_second, oci::Oci, said};

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
    let operator = cluster.operator(&namespace);
    namespace.secret("source", "Opaque", &[("p", "1")]).await;
    let data = json!([{"secretKey": "b", "remoteRef": {"key": "source", "property": "p"}}]);
    let spec = json!({"target": {"name": "theirs", "creationPolicy": "Merge"}, "store": {"kubernetes": {}}, "data": data.clone()});
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
    // A key that is not meant any more goes, and with the resource all that it added; the rest stays.
    rotations.change("m", json!({"data": [{"secretKey": "c", "remoteRef": {"key": "source", "property": "p"}}]})).await;
    holds(&namespace, "theirs", &[("c", "2"), ("password", "y"), ("username", "u")]).await;
    rotations.api().delete("m", &kube::api::DeleteParams::default()).await.unwrap();
    holds(&namespace, "theirs", &[("password", "y"), ("username", "u")]).await;
    let left = namespace.secrets().get("theirs").await.unwrap().metadata.annotations.unwrap_or_default();
    assert!(left.keys().all(|key| !key.contains("seaworthy")), "{left:?}");
    // Also when it goes while nobody looks.
    rotations
        .create("m", json!({"target": {"name": "theirs", "creationPolicy": "Merge"}, "store": {"kubernetes": {}}, "data": data}))
        .await;
    holds(&namespace, "theirs", &[("b", "2"), ("password", "y"), ("username", "u")]).await;
    operator.shut_down().await;
    rotations.api().delete("m", &kube::api::DeleteParams::default()).await.unwrap();
    let _operator = cluster.operator(&namespace);
    holds(&namespace, "theirs", &[("password", "y"), ("username", "u")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_suspended_resource_has_added_stays() {
    let cluster = Cluster::shared().await;
    let (namespace, faults) = (cluster.namespace("merged-suspended").await, Faults::default());
    let operator = Operator::start(faults.client(cluster.operator_config.clone()), vec![namespace.name.clone()], &namespace.name);
    let rotations = Rotations(&namespace);
    // What says that keys were added to it, and was never written to by us, is left alone, whatever who says so calls himself.
    for (name, manager) in [("copied", "somebody"), ("forged", "somebody-note")] {
        namespace.secret(name, "Opaque", &[("own", "x")]).await;
        let note = Patch::Merge(json!({"metadata": {"annotations": {"seaworthy.dev/merged-note": "{}"}}}));
        let params = PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() };
        namespace.secrets().patch(name, &params, &note).await.unwrap();
    }
    namespace.secret("source", "Opaque", &[("p", "1")]).await;
    let data = json!([{"secretKey": "ours", "remoteRef": {"key": "source", "property": "p"}}]);
    for name in ["a", "b", "c"] {
        namespace.secret(&format!("of-{name}"), "Opaque", &[("own", "x")]).await;
        let target = json!({"name": format!("of-{name}"), "creationPolicy": "Merge"});
        rotations.create(name, json!({"target": target, "store": {"kubernetes": {}}, "data": data})).await;
        rotations.ready(name, 1).await;
    }
    rotations.change("a", json!({"suspend": true, "target": {"name": "of-nobody"}})).await;
    // Those that go are withdrawn, one after the other, and the suspended one is not.
    for name in ["b", "c"] {
        rotations.api().delete(name, &kube::api::DeleteParams::default()).await.unwrap();
        holds(&namespace, &format!("of-{name}"), &[("own", "x")]).await;
        holds(&namespace, "of-a", &[("ours", "1"), ("own", "x")]).await;
    }
    let looked_at = |name: &str| faults.asked().into_iter().filter(|path| path.ends_with(&format!("/secrets/{name}"))).count();
    assert_eq!((looked_at("copied"), looked_at("forged")), (0, 1), "once, and not in each round");
    rotations.change("a", json!({"suspend": false})).await;
    holds(&namespace, "of-a", &[("own", "x")]).await;
    drop(operator);
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
    assert!(said(&object, "Ready").unwrap().2.ends_with("; the store has what is pushed"));
    let pushed = object.status.unwrap().pushed;
    assert!(
        pushed.len() == 2
            && pushed.iter().all(|pushed| pushed.hash.as_ref().is_some_and(|hash| hash.len() == 16) && pushed.next.is_empty())
    );
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

/// Whose status cannot be written in the moment in which a conflict is found tells it with the next look, not an interval later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_is_told_although_the_status_could_not_be_written_at_first() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    for code in [409, 500] {
        let namespace = cluster.namespace("told-later").await;
        let (rotations, faults, clock) = (Rotations(&namespace), Faults::default(), Clock::default());
        let client = faults.client(cluster.operator_config.clone());
        let _operator = Operator::start_with(client, vec![namespace.name.clone()], &namespace.name, clock.clone());
        let (store, key) = (namespace.store_in(&vault).await, format!("told-{code}"));
        namespace.secret("made", "Opaque", &[("password", "one")]).await;
        let spec = json!({
            "target": {"name": "made", "creationPolicy": "Merge"}, "store": store, "refreshInterval": "1h",
            "push": [push(&key, "p", "Replace")],
        });
        rotations.create("p", spec).await;
        rotations.until("p", "Ready", |object| said(object, "Ready").is_some_and(|(status, ..)| status == "True")).await;
        vault.put(&key, json!({"p": "theirs"})).await;
        faults.arm(0, Fault::Answer(code));
        clock.advance(SignedDuration::from_hours(1));
        rotations.ask("p", "look", "1").await;
        rotations.says("p", "Ready", "False", "StoreConflict").await;
        assert!(faults.struck(), "{code}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_that_vault_gives_back_in_another_order_is_the_same() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("canonical").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    namespace.secret("made", "Opaque", &[("doc", "{\"b\": 1, \"a\": \"<x>\"}")]).await;
    let store = namespace.store_in(&vault).await;
    let push = json!([{"secretKey": "doc", "remoteRef": {"key": "doc"}}]);
    rotations.create("p", json!({"target": {"name": "made", "creationPolicy": "Merge"}, "store": store, "push": push})).await;
    let push = json!([{"secretKey": "set", "remoteRef": {"key": "set"}}]);
    let rotation = json!({"generate": [{"secretKey": "set", "jwks": {}}], "push": push});
    rotations.create("jwks", json!({"target": {"name": "jwks"}, "store": store, "rotation": rotation})).await;
    rotations.ready("jwks", 1).await;
    eventually("the document is there", || async {
        let (status, there) = vault.try_call("GET", "secret/data/doc", Value::Null).await;
        if there["data"]["data"] == json!({"a": "<x>", "b": 1}) { Ok(()) } else { Err(format!("{status} {there}")) }
    })
    .await;
    let started = operator.clock.now();
    operator.clock.advance(SignedDuration::from_hours(2));
    for name in ["p", "jwks"] {
        rotations.ask(name, "look", "1").await;
        let looked = |object: &seaworthy::api::SecretRotation| {
            object
                .status
                .as_ref()
                .is_some_and(|status| status.last_sync_time.as_ref().is_some_and(|time| time.0 > started + SignedDuration::from_hours(1)))
        };
        let object = rotations.until(name, "it was compared", looked).await;
        assert_eq!(said(&object, "Ready").unwrap().0, "True", "{name}: {:?}", object.status);
    }
    assert_eq!((vault.get("doc").await.1, vault.get("set").await.1), (1, 1), "each was written once");
    rotations.ready("jwks", 1).await;
    rotations.ask("jwks", "rotate", "1").await;
    rotations.ready("jwks", 2).await;
    assert_eq!(vault.get("set").await.1, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_resources_do_with_one_secret_does_not_touch_each_other() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("neighbours").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    // One that is only read, of another resource of ours: it stays theirs, with all that is noted with it.
    let rotation = |key: &str| json!({"generate": [{"secretKey": key, "hex": {}}], "push": [{"secretKey": key, "remoteRef": {"key": "remote", "property": "p"}}]});
    rotations.create("a", json!({"target": {"name": "ours"}, "store": {"kubernetes": {}}, "rotation": rotation("k")})).await;
    rotations.ready("a", 1).await;
    let push = json!([{"secretKey": "k", "remoteRef": {"key": "copy", "property": "p"}}]);
    rotations.create("b", json!({"target": {"name": "ours", "creationPolicy": "Merge"}, "store": {"kubernetes": {}}, "push": push})).await;
    for revision in [2, 3] {
        rotations.ask("a", "rotate", &revision.to_string()).await;
        rotations.ready("a", revision).await;
        let value = rotations.data("ours").await["k"].clone();
        holds(&namespace, "copy", &[("p", &value)]).await;
    }
    let annotations = namespace.secrets().get("ours").await.unwrap().metadata.annotations.unwrap();
    assert_eq!(annotations["seaworthy.dev/owner"], "SecretRotation/a");
    let status = rotations.api().get("b").await.unwrap().status.unwrap();
    assert_eq!((status.revision, status.last_rotation_time), (None, None), "what is noted there is not its own");

    // Two that add keys to one Secret, one after the other.
    namespace.secret("theirs", "Opaque", &[("x", "1")]).await;
    let merge = |key: &str| json!({"target": {"name": "theirs", "creationPolicy": "Merge"}, "rotation": {"generate": [{"secretKey": key, "hex": {}}]}});
    rotations.create("c", merge("c")).await;
    rotations.ready("c", 1).await;
    let value = rotations.data("theirs").await["c"].clone();
    next_second().await; // who is older keeps it
    rotations.create("d", merge("d")).await;
    rotations.says("d", "Ready", "False", "TargetConflict").await;
    rotations.api().delete("c", &kube::api::DeleteParams::default()).await.unwrap();
    rotations.ready("d", 1).await;
    let data = rotations.data("theirs").await;
    assert_eq!((&data["c"], &data["x"], data["d"].len()), (&value, &"1".to_owned(), 64));
    // A key that somebody else has set is not generated over, and nobody hears of a value that cannot be kept.
    rotations.api().delete("d", &kube::api::DeleteParams::default()).await.unwrap();
    let push = json!([{"secretKey": "x", "remoteRef": {"key": "never", "property": "p"}}]);
    let rotation = json!({"generate": [{"secretKey": "x", "hex": {}}], "push": push});
    rotations
        .create("e", json!({"target": {"name": "theirs", "creationPolicy": "Merge"}, "store": {"kubernetes": {}}, "rotation": rotation}))
        .await;
    rotations.says("e", "Stalled", "True", "NotOurs").await;
    assert!(namespace.secrets().get_opt("never").await.unwrap().is_none());
    assert_eq!(rotations.data("theirs").await["x"], "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_to_one_key_is_written_at_once() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("at-once").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let store = namespace.store_in(&vault).await;
    let remote = |key: &str| json!({"secretKey": key, "remoteRef": {"key": "app", "property": key}});
    let generate = ["a", "b", "c"].map(|key| json!({"secretKey": key, "hex": {}}));
    let push = ["a", "b", "c"].map(remote);
    rotations.create("app", json!({"target": {"name": "app"}, "store": store, "rotation": {"generate": generate, "push": push}})).await;
    rotations.ready("app", 1).await;
    rotations.ask("app", "rotate", "1").await;
    rotations.ready("app", 2).await;
    let (there, version) = vault.get("app").await;
    let here = rotations.data("app").await;
    assert!(["a", "b", "c"].iter().all(|key| there[key] == here[*key]));
    assert_eq!(version, 2, "nobody could read a half of it");
    // A push alone: both keys with one write; `refresh` has it compared now, not when the interval is over.
    namespace.secret("made", "Opaque", &[("x", "1"), ("y", "2")]).await;
    let push = ["x", "y"].map(|key| json!({"secretKey": key, "remoteRef": {"key": "copy", "property": key}}));
    rotations
        .create("p", json!({"target": {"name": "made", "creationPolicy": "Merge"}, "store": store, "refreshInterval": "24h", "push": push}))
        .await;
    eventually("it is there", || async {
        let (status, there) = vault.try_call("GET", "secret/data/copy", Value::Null).await;
        if there["data"]["data"] == json!({"x": "1", "y": "2"}) { Ok(()) } else { Err(format!("{status} {there}")) }
    })
    .await;
    assert_eq!(vault.get("copy").await.1, 1);
    vault.call("DELETE", "secret/metadata/copy", Value::Null).await;
    rotations.ask("p", "refresh", "1").await;
    eventually("it is brought there again", || async {
        let (status, there) = vault.try_call("GET", "secret/data/copy", Value::Null).await;
        if there["data"]["data"] == json!({"x": "1", "y": "2"}) { Ok(()) } else { Err(format!("{status} {there}")) }
    })
    .await;
    // What somebody puts there meanwhile is seen without waiting for the interval, and what was asked for once is not done for ever.
    let object = rotations
        .until("p", "it is answered", |object| object.status.as_ref().is_some_and(|status| status.handled_refresh.as_deref() == Some("1")))
        .await;
    assert!(said(&object, "Ready").is_some());
    operator.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_generated_into_the_store_for_a_secret_that_does_not_take_it() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("untaken").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    namespace.secret("source", "Opaque", &[("json", r#"{"password": "p"}"#)]).await;
    namespace.secret("theirs", "Opaque", &[("password", "x")]).await;
    // One of the keys that are found only when it is read is theirs.
    let spec = json!({
        "target": {"name": "theirs", "creationPolicy": "Merge"}, "store": {"kubernetes": {}},
        "dataFrom": [{"extract": {"key": "source", "property": "json"}}],
        "rotation": {"generate": [{"secretKey": "k", "hex": {}}], "push": [{"secretKey": "k", "remoteRef": {"key": "remote", "property": "k"}}]},
    });
    rotations.create("m", spec).await;
    let message = rotations.says("m", "Stalled", "True", "NotOurs").await;
    assert!(message.contains(".data.password"), "{message}");
    assert!(namespace.secrets().get_opt("remote").await.unwrap().is_none(), "nothing was pushed");
    holds(&namespace, "theirs", &[("password", "x")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_value_is_only_for_a_store_that_has_none() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("kept").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    // A Secret that pushing made, as somebody else's would not be written to at all.
    namespace.secret("first", "Opaque", &[("a", "there")]).await;
    let push = |from: &str, key: &str| json!([{"secretKey": from, "remoteRef": {"key": "remote", "property": key}}]);
    let only = json!({"target": {"name": "first", "creationPolicy": "Merge"}, "store": {"kubernetes": {}}, "push": push("a", "a")});
    rotations.create("first", only).await;
    rotations.until("first", "it is pushed", |object| said(object, "Ready").is_some_and(|(status, ..)| status == "True")).await;
    let generate = json!([{"secretKey": "a", "hex": {}}, {"secretKey": "b", "hex": {}}]);
    let to = |key: &str| json!({"secretKey": key, "remoteRef": {"key": "remote", "property": key}, "updatePolicy": "IfNotExists"});
    let spec =
        json!({"target": {"name": "app"}, "store": {"kubernetes": {}}, "rotation": {"generate": generate, "push": [to("a"), to("b")]}});
    rotations.create("app", spec).await;
    rotations.ready("app", 1).await;
    let first = rotations.data("app").await;
    assert_eq!(first["a"], "there", "what the store has is taken over");
    holds(&namespace, "remote", &[("a", "there"), ("b", &first["b"])]).await;
    // Also when others are generated: the store keeps what it has, and so does the Secret.
    rotations.ask("app", "rotate", "1").await;
    rotations
        .until("app", "that is answered", |object| {
            object.status.as_ref().is_some_and(|status| status.last_rotation.as_ref().is_some_and(|last| last.completed_at.is_some()))
        })
        .await;
    holds(&namespace, "remote", &[("a", "there"), ("b", &first["b"])]).await;
    assert_eq!(rotations.data("app").await, first);
}

/// Whatever the store is: what it has stays, beside what it has not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_store_has_stays_there_if_it_is_to() {
    let (cluster, vault) = (&Cluster::shared().await, &Vault::start().await);
    let (moto, oci) = (&Moto::start().await, &Oci::start().await);
    join_all([Far::Vault(vault), Far::VaultV1(vault), Far::Aws(moto), Far::Oci(oci)].map(|far| async move {
        let namespace = cluster.namespace("keeps").await;
        let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
        let [old, new] = ["old", "new"].map(|name| format!("{}-{name}", namespace.name));
        far.put(&old, json!({"a": "there", "o": "other"})).await;
        let store = far.store(&namespace, &far.server()).await["store"].take();
        let to = |from: &str, key: &str, property: &str| json!({"secretKey": from, "remoteRef": {"key": key, "property": property}, "updatePolicy": "IfNotExists"});
        let generate = json!([{"secretKey": "a", "hex": {}}, {"secretKey": "b", "hex": {}}]);
        let rotation = json!({"generate": generate, "push": [to("a", &old, "a"), to("b", &old, "b")]});
        rotations.create("app", json!({"target": {"name": "app"}, "store": store, "rotation": rotation})).await;
        rotations.ready("app", 1).await;
        let data = rotations.data("app").await;
        assert_eq!(data["a"], "there", "{far}: what the store has is taken over");
        let whole = json!({"a": "there", "b": data["b"], "o": "other"});
        assert_eq!(far.get(&old).await, whole, "{far}");
        // And a Secret that is there.
        namespace.secret("made", "Opaque", &[("p", "mine")]).await;
        let target = json!({"name": "made", "creationPolicy": "Merge"});
        rotations.create("copy", json!({"target": target, "store": store, "push": [to("p", &old, "a"), to("p", &new, "p")]})).await;
        rotations.until("copy", "Ready", |object| said(object, "Ready").is_some_and(|(status, ..)| status == "True")).await;
        assert_eq!(far.get(&old).await, whole, "{far}");
        assert_eq!(far.get(&new).await, json!({"p": "mine"}), "{far}");
        let versions = (far.versions(&old).await, far.versions(&new).await);
        assert!(versions.0.zip(versions.1).is_none_or(|(old, new)| (old.0, new.0) == (2, 1)), "{far}: {versions:?}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_brought_to_one_store_is_brought_to_another_one_that_is_named_in_its_place() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("other-store").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    namespace.secret("made", "Opaque", &[("password", "one")]).await;
    let spec = json!({
        "target": {"name": "made", "creationPolicy": "Merge"}, "store": namespace.store_in(&vault).await, "refreshPolicy": "OnChange",
        "push": [push("copy", "p", "Replace")],
    });
    rotations.create("p", spec).await;
    let ready = |object: &SecretRotation| {
        let current = object.status.as_ref().is_some_and(|status| status.observed_generation == object.metadata.generation);
        current && said(object, "Ready").is_some_and(|(status, ..)| status == "True")
    };
    rotations.until("p", "Ready", ready).await;
    assert_eq!(vault.get("copy").await.0, json!({"p": "one"}));
    rotations.change("p", json!({"store": {"vault": {"path": "old", "version": "v1"}}})).await;
    rotations.until("p", "Ready", ready).await;
    assert_eq!(vault.call("GET", "old/copy", Value::Null).await["data"], json!({"p": "one"}));
}
