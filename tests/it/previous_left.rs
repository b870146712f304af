//! A spec that leads away from a Secret, or cannot be followed, is no reason to keep previous values in it.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    previous_over::{HOUR, TEXT, hex, is_gone, rotation, texts},
    support::{Cluster, Faults, Namespace, Operator, Rotations, Vault, World, eventually, keeps_previous, log, next_second, said},
};

/// A second value is there, with the one before, which a text holds, too. Returns that.
async fn rotated(rotations: &Rotations<'_>, name: &str, change: Value) -> String {
    let mut spec = json!({"target": {"name": name}, "rotation": rotation(), "template": texts(json!({"both": TEXT}))});
    json_patch::merge(&mut spec, &change);
    let target = spec["target"]["name"].as_str().unwrap().to_owned();
    rotations.create(name, spec).await;
    rotations.ready(name, 1).await;
    let first = rotations.data(&target).await["key"].clone();
    rotations.ask(name, "rotate", "1").await;
    rotations.ready(name, 2).await;
    rotations.until(name, "it is kept", keeps_previous).await;
    let data = rotations.data(&target).await;
    assert_eq!((&data["key-previous"], &data["both"]), (&first, &format!("{} {first}", data["key"])));
    first
}

/// What the Secret has beside its values.
async fn around(namespace: &Namespace, name: &str) -> Value {
    let secret = namespace.secrets().get(name).await.unwrap();
    let annotations = secret.metadata.annotations.unwrap_or_default();
    json!({"type": secret.type_, "labels": secret.metadata.labels, "owners": secret.metadata.owner_references,
        "owner": annotations.get("seaworthy.dev/owner"), "note": annotations.get("note"), "revision": annotations.get("seaworthy.dev/revision")})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_goes_though_the_spec_leads_elsewhere() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("elsewhere").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let other = |name: &str| json!({"target": {"name": name}, "rotation": {"generate": [hex("other")]}});
    for name in ["older", "adding"] {
        rotations.create(name, other(name)).await;
        rotations.ready(name, 1).await;
    }
    next_second().await;
    namespace.secret("theirs", "Opaque", &[("user", "u")]).await;
    let template = json!({"template": {"metadata": {"labels": {"of": "the-spec"}}}});
    let merged = json!({"target": {"name": "theirs", "creationPolicy": "Merge"}});
    let orphan = json!({"target": {"creationPolicy": "Orphan"}});
    let mut before = std::collections::BTreeMap::new();
    for (name, change) in [
        ("renamed", template),
        ("typed", json!({})),
        ("merging", json!({})),
        ("wanted", json!({})),
        ("added", merged),
        ("suspended", json!({})),
        ("unwanted", json!({})),
        ("orphan", orphan),
        ("edited", json!({})),
        ("crossing", json!({})),
    ] {
        before.insert(name, rotated(&rotations, name, change).await);
    }
    // A copy that somebody has made is theirs, whatever it says.
    let mut copy = namespace.secrets().get("typed").await.unwrap();
    let (annotations, labels) = (copy.metadata.annotations.take(), copy.metadata.labels.take());
    copy.metadata = kube::core::ObjectMeta { name: Some("copy".into()), annotations, labels, ..Default::default() };
    let copy = namespace.secrets().create(&PostParams::default(), &copy).await.unwrap();
    let note = Patch::Merge(json!({"metadata": {"annotations": {"note": "mine"}, "labels": {"mine": "1"}}, "stringData": {"mine": "1"}}));
    namespace.secrets().patch("renamed", &PatchParams::default(), &note).await.unwrap();
    let looked = around(&namespace, "renamed").await;

    rotations.change("renamed", json!({"target": {"name": "new"}, "template": null})).await;
    rotations.ready("renamed", 3).await;
    // A text that somebody has changed may hold it all the same.
    rotations.change("edited", json!({"target": {"name": "new-as-well"}, "template": null})).await;
    rotations.ready("edited", 3).await;
    rotations.edit("edited", json!({"both": format!("mine {}", before["edited"])})).await;
    rotations.change("typed", json!({"target": {"type": "example.com/other"}})).await;
    rotations.says("typed", "Stalled", "True", "NotOurs").await;
    rotations.change("merging", json!({"target": {"creationPolicy": "Merge"}})).await;
    rotations.says("merging", "Stalled", "True", "NotOurs").await;
    rotations.change("unwanted", json!({"target": {"type": "example.com/other"}, "rotation": {"previous": null}})).await;
    rotations.says("unwanted", "Stalled", "True", "NotOurs").await;
    rotations.change("suspended", json!({"suspend": true, "target": {"name": "new-too"}})).await;
    // Others that are older want the same Secrets.
    rotations.change("older", other("wanted")).await;
    rotations.change("adding", json!({"target": {"name": "theirs", "creationPolicy": "Merge"}})).await;
    for name in ["wanted", "added"] {
        rotations.says(name, "Stalled", "True", "TargetConflict").await;
    }
    let places = [
        ("orphan", "orphan"),
        ("edited", "edited"),
        ("renamed", "renamed"),
        ("typed", "typed"),
        ("merging", "merging"),
        ("wanted", "wanted"),
        ("added", "theirs"),
        ("unwanted", "unwanted"),
        ("crossing", "crossing"),
    ];
    for (name, target) in places {
        assert!(rotations.data(target).await.contains_key("key-previous"), "{name}: it is not over");
    }

    rotations.api().delete("orphan", &DeleteParams::default()).await.unwrap();
    // What another keeps there is not kept by who is led there.
    rotations.change("crossing", json!({"target": {"name": "orphan"}})).await;
    rotations.says("crossing", "Stalled", "True", "NotOurs").await;
    rotations.until("crossing", "it keeps nothing there", |object| !keeps_previous(object)).await;
    operator.clock.advance(HOUR * 3);
    for (name, target) in places {
        is_gone(&rotations, target, &before[name]).await;
        let data = rotations.data(target).await;
        assert_eq!(data["both"], format!("{} ", data["key"]), "{name}");
    }
    // All else is as it was, and stays another's.
    let (data, after) = (rotations.data("renamed").await, around(&namespace, "renamed").await);
    assert_eq!((after, data["mine"].as_str(), data.len()), (looked, "1", 3));
    assert_eq!(namespace.secrets().get("copy").await.unwrap().resource_version(), copy.resource_version());
    assert_eq!(rotations.data("suspended").await["key-previous"], before["suspended"], "that is left as it is");
    rotations.change("suspended", json!({"suspend": false})).await;
    is_gone(&rotations, "suspended", &before["suspended"]).await;
    // Who comes back to it goes on with it.
    rotations.change("renamed", json!({"target": {"name": "renamed"}})).await;
    rotations.ready("renamed", 4).await;
    assert_eq!(rotations.data("renamed").await.keys().collect::<Vec<_>>(), ["key", "mine"]);
}

/// Who comes back to a Secret of before makes it what it is to be now, and does not do once more what was asked for meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_of_before_is_brought_up_to_date() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("back-again").await;
    let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
    vault.put("app", json!({"password": "one"})).await;
    let of = |key: &str| json!([{"secretKey": key, "remoteRef": {"key": "app", "property": key}}]);
    let rotation = json!({"every": "2400h", "generate": [hex("key")], "push": of("key")});
    let store = namespace.store_in(&vault).await;
    let target = |name: &str| json!({"target": {"name": name}});
    let mut spec = json!({"store": store, "data": of("password"), "rotation": rotation, "refreshInterval": "24h"});
    json_patch::merge(&mut spec, &target("before"));
    rotations.create("app", spec).await;
    rotations.ready("app", 1).await;
    rotations.change("app", target("between")).await;
    rotations.ready("app", 2).await;
    let first = rotations.data("between").await["key"].clone();
    rotations.ask("app", "rotate", "1").await;
    rotations.ready("app", 3).await;
    let rotated = vault.get("app").await.0;
    assert_ne!(rotated["key"], first);
    vault.put("app", json!({"password": "two", "key": rotated["key"]})).await;
    rotations.change("app", target("before")).await;
    rotations.ready("app", 4).await;
    let data = rotations.data("before").await;
    assert_eq!((data["password"].as_str(), data["key"].as_str()), ("two", rotated["key"].as_str().unwrap()));
    // Nothing else is on its way.
    rotations.change("app", json!({"refreshInterval": "25h"})).await;
    rotations.ready("app", 4).await;
    assert_eq!(vault.get("app").await.0["key"], rotated["key"]);
}

/// The version in the store goes with the value, or when the store answers again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_version_that_was_replaced_goes_though_the_spec_leads_elsewhere() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("elsewhere").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let push = json!([{"secretKey": "key", "remoteRef": {"key": "app", "property": "key"}}]);
    let first = rotated(&rotations, "jwt", json!({"store": namespace.store_in(&vault).await, "rotation": {"push": push}})).await;
    rotations.change("jwt", json!({"target": {"name": "new"}})).await;
    rotations.ready("jwt", 3).await;
    vault.seal().await;
    operator.clock.advance(HOUR * 3);
    is_gone(&rotations, "jwt", &first).await;
    // Beside it lies a value that was taken back, and could be kept nowhere else.
    let there = namespace.secrets().get("jwt").await.unwrap();
    let mut data = there.data.unwrap();
    data.insert("key.7".into(), ByteString(b"taken-back".to_vec()));
    let (labels, annotations, owners) = (there.metadata.labels, there.metadata.annotations, there.metadata.owner_references);
    let metadata = json!({"name": "jwt", "labels": labels, "annotations": annotations, "ownerReferences": owners});
    let kept = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": there.type_, "data": data});
    namespace.secrets().patch("jwt", &PatchParams::apply("seaworthy-secrets").force(), &Patch::Apply(kept)).await.unwrap();
    vault.unseal().await;
    eventually("the version is deleted", || async {
        operator.clock.advance(HOUR / 12);
        let answer = vault.call("GET", "secret/metadata/app", Value::Null).await;
        let versions = &answer["data"]["versions"];
        let deleted = |number: &str| versions[number]["deletion_time"].as_str().is_some_and(|time| !time.is_empty());
        if deleted("1") && !deleted("2") { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    eventually("that is noted", || async {
        let secret = namespace.secrets().get_metadata("jwt").await.map_err(|error| error.to_string())?;
        let noted = secret.metadata.annotations.unwrap_or_default().contains_key("seaworthy.dev/versions-over");
        if noted { Err(String::new()) } else { Ok(()) }
    })
    .await;
    assert_eq!(rotations.data("jwt").await["key.7"], "taken-back");
}

/// What the API server does not accept of the spec has nothing to do with the previous value. Who uses a text that holds it gets the other as soon as that
/// is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_value_goes_though_the_secret_cannot_be_what_the_spec_says() {
    let cluster = Cluster::without_node().await;
    let (world, operator) = World::of_secrets(&cluster, json!({"discover": true}), &["a"], "none").await;
    let rotations = Rotations(&world.namespace);
    world.a_second_later().await;
    rotations.change("web", json!({"rotation": rotation(), "template": texts(json!({"both": TEXT}))})).await;
    rotations.complete("web", 2).await;
    let first = rotations.data("web-tls").await["key"].clone();
    world.a_second_later().await;
    rotations.ask("web", "rotate", "1").await;
    rotations.complete("web", 3).await;
    world.a_second_later().await;
    // A Secret has room for 256 KiB of them.
    let annotations: serde_json::Map<String, Value> = (0..6).map(|number| (format!("a{number}"), "x".repeat(60_000).into())).collect();
    rotations.change("web", json!({"template": {"metadata": {"annotations": annotations}}})).await;
    let message = rotations.says("web", "Ready", "False", "WriteFailed").await;
    assert!(message.contains("annotations"), "{message}");
    let restarts = world.restarts("a").await.0;
    operator.clock.advance(HOUR * 3);
    is_gone(&rotations, "web-tls", &first).await;
    rotations.change("web", json!({"template": {"metadata": null}})).await;
    rotations.complete("web", 4).await;
    assert_eq!(world.restarts("a").await.0, restarts + 1);
}

/// What others have written as well, or have changed in their own Secret, stays with them. That is told, and is no reason to keep the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_keep_of_it_is_theirs() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("theirs").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    namespace.secret("shared", "Opaque", &[("user", "u")]).await;
    let merged = rotated(&rotations, "merged", json!({"target": {"name": "shared", "creationPolicy": "Merge"}})).await;
    rotations.edit("shared", json!({"both": "mine"})).await;
    rotations.says("merged", "Ready", "False", "NotOurs").await;
    // Or has set the same as we.
    namespace.secret("co-owned", "Opaque", &[("user", "u")]).await;
    rotated(&rotations, "co-owner", json!({"target": {"name": "co-owned", "creationPolicy": "Merge"}})).await;
    let both = namespace.secrets().get("co-owned").await.unwrap().data.unwrap().remove("both").unwrap();
    let same = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "co-owned"}, "data": {"both": both}});
    namespace.secrets().patch("co-owned", &PatchParams::apply("another"), &Patch::Apply(same)).await.unwrap();
    // A backup tool brings a Secret back, and has written all of it from then on.
    let push = |key: &str, to: &str| json!({"secretKey": key, "remoteRef": {"key": to, "property": "k"}});
    let with_push = json!({"store": {"kubernetes": {}}, "push": [push("key", "copy")]});
    let restored = rotated(&rotations, "restored", with_push).await;
    rotations.change("restored", json!({"suspend": true})).await;
    let mut secret = namespace.secrets().get("restored").await.unwrap();
    namespace.delete_secret("restored").await;
    let (annotations, labels) = (secret.metadata.annotations.take(), secret.metadata.labels.take());
    secret.metadata = kube::core::ObjectMeta { name: Some("restored".into()), annotations, labels, ..Default::default() };
    namespace.secrets().create(&PostParams { field_manager: Some("backup".into()), ..Default::default() }, &secret).await.unwrap();
    rotations.change("restored", json!({"suspend": false})).await;
    rotations.ready("restored", 2).await;

    // And where the spec leads away from, somebody sets the same.
    let left = rotated(&rotations, "left", json!({})).await;
    rotations.change("left", json!({"target": {"name": "new"}})).await;
    rotations.ready("left", 3).await;
    let same = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "left"}, "data": {"key-previous": ByteString(left.clone().into_bytes())}});
    let before = namespace.secrets().patch("left", &PatchParams::apply("another"), &Patch::Apply(same)).await.unwrap();

    let shared = namespace.secrets().get("shared").await.unwrap();
    operator.clock.advance(HOUR * 3);
    is_gone(&rotations, "shared", &merged).await;
    let revision = |secret: &Secret| {
        let note = secret.metadata.annotations.iter().flatten().find(|(key, _)| key.contains("merged-"));
        note.map(|(_, note)| serde_json::from_str::<Value>(note).unwrap()["seaworthy.dev/revision"].clone())
    };
    assert_eq!(revision(&namespace.secrets().get("shared").await.unwrap()), revision(&shared), "nothing that is used is another");
    rotations.ask("co-owner", "look", "1").await;
    eventually("what is ours alone goes", || async {
        let data = rotations.data("co-owned").await;
        if data.contains_key("key-previous") { Err(format!("{:?}", data.keys())) } else { Ok(()) }
    })
    .await;
    assert_eq!(rotations.data("co-owned").await["both"].as_bytes(), both.0, "that is theirs as well");
    let text = format!("{} ", rotations.data("left").await["key"]);
    eventually("the text holds it no longer", || async {
        let both = rotations.data("left").await.remove("both");
        if both.as_ref() == Some(&text) { Ok(()) } else { Err(format!("{both:?}")) }
    })
    .await;
    let after = namespace.secrets().get("left").await.unwrap();
    let since = |secret: &Secret| secret.metadata.annotations.as_ref().unwrap().get("seaworthy.dev/previous-since").cloned();
    assert_eq!(
        (rotations.data("left").await["key-previous"].as_str(), since(&after)),
        (left.as_str(), since(&before)),
        "it is there, and that is remembered"
    );
    assert_eq!(rotations.data("shared").await["both"], "mine");
    rotations.ask("restored", "look", "1").await;
    let message = rotations.says("restored", "Ready", "False", "NotOurs").await;
    assert!(message.contains("was written by \"backup\" as well"), "{message}");
    let data = rotations.data("restored").await;
    assert_eq!((&data["key-previous"], data["both"].contains(&restored)), (&restored, false));
    // That is no reason to bring nothing to the store.
    rotations.change("restored", json!({"push": [push("key", "copy"), push("both", "another-copy")]})).await;
    eventually("what is pushed is there", || async {
        let there = namespace.secrets().get_opt("another-copy").await.map_err(|error| error.to_string())?;
        there.map(|_| ()).ok_or_else(|| "it is not".to_owned())
    })
    .await;
    rotations.says("restored", "Ready", "False", "NotOurs").await;
    let gone = json!({"data": {"key-previous": null}, "metadata": {"annotations": {"seaworthy.dev/previous-since": null}}});
    namespace.secrets().patch("restored", &PatchParams::default(), &Patch::Merge(gone)).await.unwrap();
    rotations.until("restored", "it is as it should be", |object| !keeps_previous(object)).await;
    rotations.says("restored", "Ready", "True", "Current").await;
}

/// Once we have let go of what others have written as well, there is nothing to write again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stays_with_others_is_not_written_in_vain() {
    let cluster = Cluster::shared().await;
    let (namespace, faults) = (cluster.namespace("let-go").await, Faults::default());
    let operator = Operator::start(faults.client(cluster.operator_config.clone()), vec![namespace.name.clone()], &namespace.name);
    let rotations = Rotations(&namespace);
    namespace.secret("shared", "Opaque", &[("user", "u")]).await;
    rotated(&rotations, "merged", json!({"target": {"name": "shared", "creationPolicy": "Merge"}})).await;
    rotated(&rotations, "kept", json!({})).await;
    rotated(&rotations, "noted", json!({})).await;
    rotated(&rotations, "left", json!({})).await;
    rotations.change("left", json!({"target": {"name": "new"}})).await;
    rotations.ready("left", 3).await;
    let secrets = namespace.secrets();
    for name in ["shared", "kept", "noted", "left"] {
        let there = secrets.get(name).await.unwrap();
        let (data, annotations) = (there.data.unwrap(), there.metadata.annotations.unwrap());
        let mut same =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"key-previous": data["key-previous"]}});
        if name == "noted" {
            let since = "seaworthy.dev/previous-since";
            same = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "annotations": {since: annotations[since]}}});
        }
        secrets.patch(name, &PatchParams::apply("another"), &Patch::Apply(same)).await.unwrap();
    }
    // A copy of somebody else's Secret says the same.
    let shared = secrets.get("shared").await.unwrap();
    let meta = kube::core::ObjectMeta { name: Some("copy".into()), annotations: shared.metadata.annotations, ..Default::default() };
    secrets.create(&PostParams::default(), &Secret { metadata: meta, data: shared.data, ..Secret::default() }).await.unwrap();
    operator.clock.advance(HOUR * 3);
    for name in ["merged", "kept", "noted"] {
        rotations.ask(name, "look", "1").await;
        rotations.says(name, "Ready", "False", "NotOurs").await;
    }
    let to = |all: Vec<String>, name: &str| all.into_iter().filter(|path| path.ends_with(&format!("/secrets/{name}"))).count();
    eventually("the sweep has let go of it", || async {
        let owned = secrets.get_metadata("left").await.map_err(|error| error.to_string())?;
        let entries = owned.metadata.managed_fields.unwrap_or_default();
        let holds = |entry: &&_| serde_json::to_string(entry).is_ok_and(|entry| entry.contains("f:key-previous"));
        let owners: Vec<_> = entries.iter().filter(holds).filter_map(|entry| entry.manager.as_deref()).collect();
        if owners == ["another"] { Ok(()) } else { Err(format!("{owners:?}")) }
    })
    .await;
    for (secret, said) in [("left", "as well, and stays"), ("copy", "and its annotation seaworthy.dev/merged-")] {
        eventually("that is told, as nobody looks there", || async {
            let told = log::about(&namespace.name);
            let is_told = told.lines().any(|line| line.contains(&format!("secret={secret:?}")) && line.contains(said));
            if is_told { Ok(()) } else { Err(told) }
        })
        .await;
    }
    for (resource, name) in [("merged", "shared"), ("kept", "kept"), ("noted", "noted"), ("left", "left")] {
        let read = || to(faults.asked(), name) - to(faults.written(), name);
        let written = to(faults.written(), name);
        for round in 2..6 {
            let before = read();
            rotations.ask(resource, "look", &round.to_string()).await;
            operator.clock.advance(HOUR);
            eventually("it is read again", || async { if read() > before { Ok(()) } else { Err(format!("{before} times")) } }).await;
        }
        assert_eq!(to(faults.written(), name), written, "{name}");
    }
    rotations.ask("merged", "rotate", "2").await;
    rotations
        .until("merged", "that is in the way", |object| {
            said(object, "Ready")
                .is_some_and(|(_, reason, message)| reason == "NotOurs" && message.contains("another") && message.contains("conflict"))
        })
        .await;
}

/// What was written while the sweep was on its way to the Secret is not what it came for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_kept_since_just_now_stays() {
    let cluster = Cluster::shared().await;
    let (namespace, faults) = (cluster.namespace("just-now").await, Faults::default());
    let operator = Operator::start(faults.client(cluster.operator_config.clone()), vec![namespace.name.clone()], &namespace.name);
    let rotations = Rotations(&namespace);
    let first = rotated(&rotations, "left", json!({})).await;
    let of_other = rotated(&rotations, "other", json!({"rotation": {"previous": {"maxKeep": "4h"}}})).await;
    for name in ["left", "other"] {
        rotations.change(name, json!({"target": {"name": format!("new-{name}")}})).await;
        rotations.ready(name, 3).await;
    }
    faults.hold("/secrets/left");
    operator.clock.advance(HOUR * 3);
    faults.held().await;
    let now = operator.clock.now();
    let since = json!({"seaworthy.dev/previous-since": now.to_string(), "seaworthy.dev/previous-until": (now + HOUR * 2).to_string()});
    let since = Patch::Merge(json!({"metadata": {"annotations": since}}));
    namespace.secrets().patch("left", &PatchParams::default(), &since).await.unwrap();
    faults.go_on();
    operator.clock.advance(HOUR + HOUR / 2);
    is_gone(&rotations, "other", &of_other).await;
    assert_eq!(rotations.data("left").await["key-previous"], first, "a later round has gone by");
    operator.clock.advance(HOUR);
    is_gone(&rotations, "left", &first).await;
}
