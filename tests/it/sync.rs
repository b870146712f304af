//! Values of a store in a Secret: all of it or nothing of it, and nothing is written that has not changed.

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use seaworthy::api::{SecretRotation, SecretStore};
use serde_json::{Value, json};

use crate::support::{Cluster, ControlPlane, Operator, Rotations, eventually, said};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_secret_of_the_namespace() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("sync").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    namespace.secret("source", "Opaque", &[("password", "p/1"), ("json", r#"{"user": "u", "port": 5432}"#)]).await;
    let spec = json!({
        "target": {"name": "app"}, "store": {"kubernetes": {}},
        "data": [
            {"secretKey": "db-password", "remoteRef": {"key": "source", "property": "password"}},
            {"secretKey": "user", "remoteRef": {"key": "source", "property": "json.user"}},
        ],
        "dataFrom": [{"extract": {"key": "source", "property": "json"}, "rewrite": [{"regexp": {"source": "^(.*)$", "target": "db.$1"}}]}],
        "template": {
            "mergePolicy": "Merge",
            "data": {"url": "postgres://{{ user }}:{{ db_password | urlencode }}@db:{{ db_port }}/x"},
            "metadata": {"labels": {"team": "a"}, "annotations": {"note": "n"}},
        },
    });
    rotations.create("app", spec).await;
    let object = rotations.ready("app", 1).await;
    assert_eq!(object.status.as_ref().unwrap().source.as_deref(), Some("kubernetes"));
    let wanted = [("db-password", "p/1"), ("user", "u"), ("db.user", "u"), ("db.port", "5432"), ("url", "postgres://u:p%2F1@db:5432/x")];
    assert_eq!(rotations.data("app").await, wanted.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let secret = namespace.secrets().get("app").await.unwrap();
    assert_eq!((secret.labels()["team"].as_str(), secret.annotations()["note"].as_str()), ("a", "n"));
    assert_eq!(secret.owner_references()[0].name, "app");

    // What changes in this cluster is there at once.
    rotations.edit("source", json!({"password": "p2"})).await;
    rotations.ready("app", 2).await;
    assert_eq!(rotations.data("app").await["url"], "postgres://u:p2@db:5432/x");

    // A key that is not wanted any more goes.
    rotations.change("app", json!({"dataFrom": null, "template": {"data": {"url": "{{ user }}"}, "metadata": null}})).await;
    rotations.ready("app", 3).await;
    let secret = namespace.secrets().get("app").await.unwrap();
    assert!(!secret.labels().contains_key("team"));
    assert_eq!(rotations.data("app").await.keys().collect::<Vec<_>>(), ["db-password", "url", "user"]);

    // No change, no write.
    let before = secret.resource_version();
    rotations.ask("app", "look", "1").await;
    rotations.ask("app", "refresh", "1").await;
    rotations.handled("app", "refresh", "1").await;
    rotations.change("app", json!({"refreshInterval": "2h"})).await;
    rotations.ready("app", 3).await;
    assert_eq!(namespace.secrets().get("app").await.unwrap().resource_version(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_does_to_the_secret_is_put_right() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("restored").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    let spec = json!({"target": {"name": "app"}, "store": {"memory": {"data": {"a": "1"}}}, "data": [{"secretKey": "x", "remoteRef": {"key": "a"}}]});
    rotations.create("app", spec).await;
    rotations.ready("app", 1).await;
    rotations.edit("app", json!({"x": "edited", "other": "stays"})).await;
    rotations.ready("app", 2).await;
    assert_eq!(rotations.data("app").await, [("x", "1"), ("other", "stays")].map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    namespace.delete_secret("app").await;
    rotations.ready("app", 3).await;
    assert_eq!(rotations.data("app").await["x"], "1");
    // One that is not ours is not touched.
    namespace.secret("theirs", "Opaque", &[("x", "theirs")]).await;
    rotations.change("app", json!({"target": {"name": "theirs"}})).await;
    let message = rotations.says("app", "Ready", "False", "NotOurs").await;
    assert!(message.contains("theirs exists and was not made by Seaworthy"), "{message}");
    assert_eq!(rotations.data("theirs").await["x"], "theirs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_that_cannot_be_had_changes_nothing_and_is_named() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("partial").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    let value = |key: &str, property: &str| json!({"secretKey": key, "remoteRef": {"key": "j", "property": property}});
    let store = |json: &str| json!({"memory": {"data": {"j": json, "t": "text"}}});
    let spec = json!({"target": {"name": "app"}, "store": store(r#"{"a": "1", "b": "2"}"#), "data": [value("x", "a"), value("y", "b")]});
    rotations.create("app", spec).await;
    rotations.ready("app", 1).await;
    for (change, reason, said) in [
        (json!({"store": store(r#"{"a": "other"}"#)}), "ValueNotFound", r#"data "y": j: property "b" is not in it"#),
        (json!({"store": store(r#"{"a": "other", "b": null}"#)}), "ValueInvalid", r#"property "b" is null"#),
        (json!({"store": store("no json")}), "ValueInvalid", r#"data "x": j, property "a": it is no JSON"#),
        (json!({"store": {"memory": {"data": {"j": null}}}}), "ValueNotFound", "j is not in spec.store.memory.data"),
        (
            json!({"store": store(r#"{"a": "other", "b": "2"}"#), "template": {"data": {"z": "{{ nothing }}"}}}),
            "TemplateInvalid",
            "no such variable",
        ),
        (json!({"template": null, "dataFrom": [{"extract": {"key": "t"}}]}), "ValueInvalid", "dataFrom[0]: t: it is no JSON object"),
    ] {
        rotations.change("app", change).await;
        let object = rotations
            .until("app", said, |object| {
                crate::support::said(object, "Ready").is_some_and(|(_, why, text)| why == reason && text.contains(said))
            })
            .await;
        assert!(!serde_json::to_string(&object.status).unwrap().contains("other"), "no value in a status");
        assert_eq!(rotations.data("app").await, [("x", "1"), ("y", "2")].map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }
    rotations.change("app", json!({"dataFrom": null})).await;
    rotations.ready("app", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_from_the_store() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("gone").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    namespace.secret("source", "Opaque", &[("a", "1")]).await;
    namespace.secret("second", "Opaque", &[("b", "2")]).await;
    for policy in ["Retain", "Delete", "Merge"] {
        let spec = json!({"target": {"name": policy.to_lowercase(), "deletionPolicy": policy}, "store": {"kubernetes": {}}, "data": [
            {"secretKey": "x", "remoteRef": {"key": "source", "property": "a"}}, {"secretKey": "y", "remoteRef": {"key": "second", "property": "b"}}]});
        rotations.create(&policy.to_lowercase(), spec).await;
        rotations.ready(&policy.to_lowercase(), 1).await;
    }
    namespace.delete_secret("source").await;
    rotations.says("retain", "Ready", "False", "ValueNotFound").await;
    rotations.says("delete", "Ready", "False", "ValueNotFound").await;
    rotations.ready("merge", 2).await;
    assert_eq!(rotations.data("retain").await.len(), 2);
    assert_eq!(rotations.data("delete").await.len(), 2, "the other value is still there");
    assert_eq!(rotations.data("merge").await.keys().collect::<Vec<_>>(), ["y"]);
    namespace.delete_secret("second").await;
    rotations
        .until("delete", "it went with its values", |object| said(object, "Ready").is_some_and(|(_, _, text)| text.contains("was deleted")))
        .await;
    assert!(namespace.secrets().get_opt("delete").await.unwrap().is_none());
    namespace.secret("source", "Opaque", &[("a", "3")]).await;
    namespace.secret("second", "Opaque", &[("b", "4")]).await;
    // It may have been looked at between the two, which for `merge` is a revision of its own.
    for name in ["retain", "delete", "merge"] {
        rotations.until(name, "it is Ready again", |object| said(object, "Ready").is_some_and(|(status, ..)| status == "True")).await;
        eventually(&format!("{name} has both values"), || async {
            let data = namespace.secrets().get_opt(name).await.map_err(|error| error.to_string())?.and_then(|secret| secret.data);
            let data = data.unwrap_or_default();
            let has = |key: &str, value: &str| data.get(key).is_some_and(|there| there.0 == value.as_bytes());
            if has("x", "3") && has("y", "4") { Ok(()) } else { Err(format!("{:?}", data.keys())) }
        })
        .await;
    }
}

/// The same of what was extracted and found, and beside what is generated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_beside_what_is_not() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("gone-beside").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    namespace.secret("source", "Opaque", &[("a", "1"), ("b", "2")]).await;
    let extract = json!([{"extract": {"key": "source"}}]);
    let find = json!([{"find": {"name": {"regexp": "^source$"}}, "rewrite": [{"regexp": {"source": "^", "target": "found-"}}]}]);
    let generate = json!({"generate": [{"secretKey": "k", "hex": {}}]});
    let pushed =
        json!({"generate": [{"secretKey": "k", "hex": {}}], "push": [{"secretKey": "k", "remoteRef": {"key": "pushed", "property": "k"}}]});
    let cases =
        [("extract", &extract, Value::Null), ("find", &find, Value::Null), ("made", &extract, generate), ("pushed", &extract, pushed)];
    let name = |case: &str, policy: &str| format!("{case}-{}", policy.to_lowercase());
    let mut before = std::collections::BTreeMap::new();
    for policy in ["Retain", "Delete", "Merge"] {
        for (case, from, rotation) in &cases {
            let name = name(case, policy);
            let mut spec = json!({"target": {"name": name, "deletionPolicy": policy}, "store": {"kubernetes": {}}, "dataFrom": from});
            if !rotation.is_null() {
                spec["rotation"] = rotation.clone();
                if let Some(key) = spec.pointer_mut("/rotation/push/0/remoteRef/key") {
                    *key = format!("at-{name}").into();
                }
            }
            rotations.create(&name, spec).await;
            rotations.ready(&name, 1).await;
            before.insert(name.clone(), rotations.data(&name).await);
        }
    }
    namespace.delete_secret("source").await;
    for (case, _, rotation) in &cases {
        let (retain, delete, merge) = (name(case, "Retain"), name(case, "Delete"), name(case, "Merge"));
        if *case == "find" {
            // Which names there are is asked at the interval.
            for name in [&retain, &delete, &merge] {
                rotations.ask(name, "refresh", "1").await;
            }
        }
        let message = rotations.says(&retain, "Ready", "False", "ValueNotFound").await;
        assert!(message.contains("dataFrom[0]") && message.contains("stays as it is"), "{message}");
        assert_eq!(rotations.data(&retain).await, before[&retain]);
        let made: Vec<&String> = before[&merge].keys().filter(|key| *key == "k").collect();
        assert_eq!(made.is_empty(), rotation.is_null());
        rotations.ready(&merge, 2).await;
        let left = rotations.data(&merge).await;
        assert_eq!(left.keys().collect::<Vec<_>>(), made, "{merge}: what was generated stays");
        assert_eq!(left.get("k"), before[&merge].get("k"));
        if rotation.is_null() {
            let gone = |object: &SecretRotation| said(object, "Ready").is_some_and(|(_, _, text)| text.contains("was deleted"));
            rotations.until(&delete, "it went with its values", gone).await;
            assert!(namespace.secrets().get_opt(&delete).await.unwrap().is_none());
        } else {
            // What was generated is not gone.
            rotations.says(&delete, "Ready", "False", "ValueNotFound").await;
            assert_eq!(rotations.data(&delete).await, before[&delete]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_store_is_read() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("refresh").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "a"}}]);
    for (name, policy) in [("periodic", "Periodic"), ("change", "OnChange"), ("once", "CreatedOnce")] {
        let target = json!({"name": name, "immutable": policy == "CreatedOnce"});
        let spec = json!({"target": target, "refreshPolicy": policy, "refreshInterval": "1h", "store": {"memory": {"data": {"a": "1"}}}, "data": data});
        rotations.create(name, spec).await;
        rotations.ready(name, 1).await;
    }
    let synced = |object: &seaworthy::api::SecretRotation| object.status.as_ref().unwrap().last_sync_time.as_ref().map(|time| time.0);
    let before = synced(&rotations.ready("periodic", 1).await);
    operator.clock.advance(jiff::SignedDuration::from_hours(2));
    rotations.ask("periodic", "look", "1").await; // a timer would have come by itself; the clock of the test has jumped over it
    rotations.until("periodic", "it was read again", |object| synced(object) > before).await;
    for name in ["change", "once"] {
        rotations.change(name, json!({"store": {"memory": {"data": {"a": "2"}}}})).await;
    }
    rotations.ready("change", 2).await;
    rotations.ready("once", 1).await;
    assert_eq!(rotations.data("once").await["x"], "1");
    assert_eq!(namespace.secrets().get("once").await.unwrap().immutable, Some(true));
}

/// The salt of a hash comes from the value: whoever makes it again makes the same, and nobody is restarted for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hash_of_a_value_that_stays_the_same_does() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("hash").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let spec = json!({
        "target": {"name": "web"}, "store": {"memory": {"data": {"p": "pass"}}}, "data": [{"secretKey": "p", "remoteRef": {"key": "p"}}],
        "template": {"data": {"a": "{{ p | bcrypt }}", "b": "{{ p | htpasswd('u') }}"}},
    });
    rotations.create("web", spec).await;
    rotations.ready("web", 1).await;
    let (data, clock) = (rotations.data("web").await, operator.clock.clone());
    assert!(data["a"].starts_with("$2") && data["b"].starts_with("u:$2"), "{data:?}");
    operator.kill().await;
    let _operator = cluster.operator_with(&namespace, clock);
    rotations.ask("web", "refresh", "again").await;
    rotations.handled("web", "refresh", "again").await;
    assert_eq!(rotations.data("web").await, data);
    rotations.ready("web", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_becomes_keys() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("find").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    let spec = json!({"target": {"name": "app"}, "store": {"memory": {"data": {"app/a": "1", "app/b": "2", "other/c": "3"}}}, "dataFrom": [
        {"find": {"path": "app/", "name": {"regexp": "[ab]$"}}, "rewrite": [{"regexp": {"source": "^app/", "target": ""}}]},
        {"find": {"name": {"regexp": "c$"}}}]});
    rotations.create("app", spec).await;
    rotations.ready("app", 1).await;
    let wanted = [("a", "1"), ("b", "2"), ("other_c", "3")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(rotations.data("app").await, wanted.into());
    rotations.change("app", json!({"dataFrom": [{"find": {"name": {"regexp": "nothing"}}}]})).await;
    rotations.says("app", "Ready", "False", "ValueNotFound").await;
    assert_eq!(rotations.data("app").await.len(), 3, "what is not found empties nothing");
    // What a resource writes itself is no source of it.
    for (name, key) in [("own", "own"), ("other", "other-pending")] {
        let spec = json!({"target": {"name": name}, "store": {"kubernetes": {}}, "data": [{"secretKey": "x", "remoteRef": {"key": key, "property": "x"}}]});
        rotations.create(name, spec).await;
        let message = rotations.says(name, "Stalled", "True", "InvalidSpec").await;
        assert!(message.contains(&format!("Secret {key} is written by this resource itself")), "{message}");
    }
    // What only the operator can judge names the field.
    let generate = json!([{"secretKey": "x", "hex": {}}]);
    let window = |zone: &str| json!({"schedule": "0 3 * * *", "duration": "1h", "timeZone": zone});
    for (name, when, field) in [
        ("zone", json!({"schedule": "0 3 * * *", "timeZone": "Mars/Base"}), "spec.rotation.timeZone: "),
        ("cron", json!({"schedule": "0 0 31 2 *"}), "spec.rotation.schedule: "),
        ("window", json!({"window": window("Mars/Base")}), "spec.rotation.window: "),
    ] {
        let mut rotation = json!({"generate": generate});
        rotation.as_object_mut().unwrap().extend(when.as_object().unwrap().clone());
        rotations.create(name, json!({"target": {"name": name}, "rotation": rotation})).await;
        let message = rotations.says(name, "Stalled", "True", "InvalidSpec").await;
        assert!(message.starts_with(field), "{message}");
    }
    // By label, of the own namespace; and without any merging, only what the template says.
    for (name, team) in [("one", "x"), ("two", "y")] {
        namespace.secret(name, "Opaque", &[("k", name)]).await;
        let label = Patch::Merge(json!({"metadata": {"labels": {"team": team}}}));
        namespace.secrets().patch(name, &PatchParams::default(), &label).await.unwrap();
    }
    let spec = json!({"target": {"name": "labelled"}, "store": {"kubernetes": {}}, "dataFrom": [{"find": {"tags": {"team": "x"}}}], "template": {"data": {"t": "<{{ one }}>"}}});
    rotations.create("labelled", spec).await;
    rotations.ready("labelled", 1).await;
    assert_eq!(rotations.data("labelled").await, [("t".to_owned(), r#"<{"k":"one"}>"#.to_owned())].into());
    rotations.change("app", json!({"dataFrom": [{"find": {"name": {"regexp": "("}}}]})).await;
    let message = rotations.says("app", "Stalled", "True", "StoreInvalid").await;
    assert!(message.contains("dataFrom[0].find: ") && message.contains("find.name.regexp"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_for_many_is_for_those_that_it_allows() {
    let (_own, cluster) = ControlPlane::start().await;
    let _operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    let (allowed, other, shared) =
        (cluster.namespace("allowed").await, cluster.namespace("other").await, cluster.namespace("shared").await);
    shared.secret("db", "Opaque", &[("password", "p")]).await;
    let stores: Api<SecretStore> = Api::all(cluster.client.clone());
    let store = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretStore", "metadata": {"name": "shared"},
        "spec": {"allowedNamespaces": {"matchLabels": {"test": "allowed"}}, "kubernetes": {"namespace": shared.name}}});
    stores.create(&PostParams::default(), &serde_json::from_value(store).unwrap()).await.unwrap();
    let spec = json!({"target": {"name": "app"}, "storeRef": {"name": "shared"}, "data": [{"secretKey": "x", "remoteRef": {"key": "db", "property": "password"}}]});
    for namespace in [&allowed, &other] {
        Rotations(namespace).create("app", spec.clone()).await;
    }
    let object = Rotations(&allowed).ready("app", 1).await;
    assert_eq!(object.status.unwrap().source.as_deref(), Some("SecretStore/shared"));
    assert_eq!(Rotations(&allowed).data("app").await["x"], "p");
    let message = Rotations(&other).says("app", "Ready", "False", "StoreDenied").await;
    assert!(message.contains("do not match its spec.allowedNamespaces"), "{message}");
    eventually("the store counts its users", || async {
        let store = stores.get("shared").await.map_err(|error| error.to_string())?;
        let status = store.status.unwrap_or_default();
        let ready = status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        if ready && status.resources == Some(2) && status.last_check_time.is_some() { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    // Who is allowed later is served then; who names another namespace without a SecretStore is refused by the API server.
    stores
        .patch("shared", &PatchParams::default(), &Patch::Merge(json!({"spec": {"allowedNamespaces": {"matchLabels": null}}})))
        .await
        .unwrap();
    Rotations(&other).ready("app", 1).await;
    let inline = json!({"target": {"name": "b"}, "store": {"kubernetes": {"namespace": shared.name}}, "data": [{"secretKey": "x", "remoteRef": {"key": "db"}}]});
    let refused = Rotations(&other).try_create("b", inline).await.unwrap_err().to_string();
    assert!(refused.contains("another namespace needs a SecretStore"), "{refused}");
    // The operator's own namespace is given out only where that is said; a Secret there may be called as the one that is made of it.
    cluster.operators_secret("named-alike", json!({"password": "q"})).await;
    cluster.secret_store("own", json!({"allowedNamespaces": {}, "kubernetes": {"namespace": "seaworthy"}})).await;
    let of = json!([{"secretKey": "x", "remoteRef": {"key": "named-alike", "property": "password"}}]);
    let find = json!([{"find": {"name": {"regexp": "^named-alike$"}}, "rewrite": [{"regexp": {"source": "^", "target": "found-"}}]}]);
    let spec = json!({"target": {"name": "named-alike"}, "storeRef": {"name": "own"}, "data": of, "dataFrom": find});
    Rotations(&other).create("alike", spec).await;
    Rotations(&other).ready("alike", 1).await;
    let wanted = [("found-named-alike", r#"{"password":"q"}"#), ("x", "q")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(Rotations(&other).data("named-alike").await, wanted.into());
    stores.delete("shared", &DeleteParams::default()).await.unwrap();
    Rotations(&allowed).says("app", "Ready", "False", "StoreNotFound").await;
    assert_eq!(Rotations(&allowed).data("app").await["x"], "p", "what is there stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_operator_has_itself_is_given_out_as_its_settings_allow() {
    let (_own, cluster) = ControlPlane::start().await;
    let _operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    let namespace = cluster.namespace("local").await;
    let rotations = Rotations(&namespace);
    let stores: Api<SecretStore> = Api::all(cluster.client.clone());
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    for (name, part) in
        [("variables", json!({"env": {}})), ("files", json!({"file": {"path": examples}})), ("etc", json!({"file": {"path": "/etc"}}))]
    {
        let mut spec = part;
        spec["allowedNamespaces"] = json!({});
        let store = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretStore", "metadata": {"name": name}, "spec": spec});
        stores.create(&PostParams::default(), &serde_json::from_value(store).unwrap()).await.unwrap();
    }
    let of = |name: &str, store: &str, key: &str| json!({"target": {"name": name}, "storeRef": {"name": store}, "data": [{"secretKey": "x", "remoteRef": {"key": key}}]});
    rotations.create("name", of("name", "variables", "CARGO_PKG_NAME")).await;
    rotations.create("file", of("file", "files", "secret-store.yaml")).await;
    for name in ["name", "file"] {
        rotations.ready(name, 1).await;
    }
    assert_eq!(rotations.data("name").await["x"], "seaworthy");
    assert!(rotations.data("file").await["x"].contains("kind: SecretStore"));
    for (name, store, key) in [("path", "variables", "PATH"), ("passwd", "etc", "passwd"), ("up", "files", "../Cargo.toml")] {
        rotations.create(name, of(name, store, key)).await;
        rotations.says(name, "Stalled", "True", "StoreDenied").await;
    }
    // Nothing is generated for a store that cannot take it; and nobody but an administrator names these stores.
    let push = json!({"generate": [{"secretKey": "k", "hex": {}}], "push": [{"secretKey": "k", "remoteRef": {"key": "K"}}]});
    rotations.create("push", json!({"target": {"name": "push"}, "storeRef": {"name": "variables"}, "rotation": push})).await;
    let message = rotations.says("push", "Stalled", "True", "StoreInvalid").await;
    assert!(message.contains("cannot be written to"), "{message}");
    assert!(namespace.secrets().get_opt("push-pending").await.unwrap().is_none());
    for store in [json!({"env": {}}), json!({"file": {"path": "/etc"}})] {
        let spec = json!({"target": {"name": "inline"}, "store": store, "data": [{"secretKey": "x", "remoteRef": {"key": "PATH"}}]});
        let refused = rotations.try_create("inline", spec).await.unwrap_err().to_string();
        assert!(refused.contains("they need a SecretStore"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_of_resources_that_read_each_other_is_slowed_down() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("ring").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    let reads = |from: &str, grows: &str| {
        json!({
            "store": {"kubernetes": {}}, "data": [{"secretKey": "x", "remoteRef": {"key": from, "property": "x"}}],
            "template": {"data": {"x": format!("{{{{ x }}}}{grows}")}},
        })
    };
    let of = |target: &str, mut spec: serde_json::Value| {
        spec["target"] = json!({"name": target});
        spec
    };
    let first = json!({"store": {"memory": {"data": {"x": "x"}}}, "data": [{"secretKey": "x", "remoteRef": {"key": "x"}}]});
    rotations.create("a", of("a", first)).await;
    rotations.ready("a", 1).await;
    rotations.create("b", of("b", reads("a", "b"))).await;
    rotations.ready("b", 1).await;
    let mut change = reads("b", "a");
    change["store"]["memory"] = json!(null);
    rotations.change("a", change).await;
    let restless = |object: &seaworthy::api::SecretRotation| said(object, "Ready").is_some_and(|(_, reason, _)| reason == "Restless");
    let slowed = tokio::select! {
        object = rotations.until("a", "it is slowed down", restless) => object,
        object = rotations.until("b", "it is slowed down", restless) => object,
    };
    let revision = slowed.status.clone().unwrap().revision.unwrap();
    assert!((10..14).contains(&revision), "{revision}");
    assert!(said(&slowed, "Ready").unwrap().2.contains("in a ring"), "{slowed:?}");
}
