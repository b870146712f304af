//! What is read when: each remote key once in a round, whoever wants it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt, api::ListParams};
use seaworthy::{
    api::{SecretRotation, secret_rotation::SecretRotationSpec},
    secrets::reading::refresh_times::next_refresh,
};
use serde_json::{Value, json};

use crate::support::{Between, Cluster, Fault, Moto, Operator, Rotations, Vault, World, eventually, keeps_previous, next_second, said};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
/// Each pair of them is wanted by somebody.
const WANTS: [[&str; 2]; 5] = [["a", "b"], ["b", "c"], ["a", "c"], ["c", "d"], ["a", "d"]];

fn name(number: usize) -> String {
    format!("app-{number}")
}

/// Two properties of each of the two values.
fn spec(number: usize, store: &Value) -> Value {
    let one =
        |key: &str, property: &str| json!({"secretKey": format!("{key}-{property}"), "remoteRef": {"key": key, "property": property}});
    let data: Vec<Value> = WANTS[number].iter().flat_map(|key| [one(key, "p"), one(key, "q")]).collect();
    json!({"target": {"name": name(number)}, "store": store, "refreshInterval": "1h", "data": data})
}

/// Resources that want `keys` of a Vault, by their names.
struct Round<'a> {
    rotations: &'a Rotations<'a>,
    operator: &'a Operator,
    between: &'a Between,
    keys: Vec<&'a str>,
    names: Vec<String>,
}

impl Round<'_> {
    /// Goes through one round, from one time at which something is read to the next. Returns how often each value was read.
    async fn run(&self) -> BTreeMap<String, usize> {
        let start = self.operator.clock.now();
        let spec: SecretRotationSpec = serde_json::from_value(spec(0, &json!({"memory": {}}))).unwrap();
        let time = |key: &str| next_refresh(&spec, &[key.to_owned()].into(), Some(start)).unwrap();
        let mut times: Vec<(Timestamp, &str)> = self.keys.iter().map(|key| (time(key), *key)).collect();
        times.sort();
        self.between.take_asked();
        let counts = std::sync::Mutex::new(BTreeMap::<String, usize>::new());
        for (time, key) in times {
            let wait = time.duration_since(self.operator.clock.now()) + SignedDuration::from_secs(2);
            self.operator.clock.advance(wait.max(SignedDuration::ZERO));
            for name in &self.names {
                self.rotations.ask(name, "look", &time.to_string()).await;
            }
            eventually(&format!("{key} is read"), || async {
                let (mut counts, mut is_read) = (counts.lock().unwrap(), false);
                for asked in self.between.take_asked() {
                    if let Some(asked) = asked.strip_prefix("GET /v1/secret/data/") {
                        *counts.entry(asked.trim().to_owned()).or_default() += 1;
                        is_read |= asked.trim() == key;
                    }
                }
                if is_read { Ok(()) } else { Err(format!("{counts:?}")) }
            })
            .await;
        }
        counts.into_inner().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_several_resources_share_in_part_are_read_once_in_a_round() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let between = Between::to(&vault.address).await;
    let namespace = cluster.namespace("rounds").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let store = namespace.store_through(&between, &vault).await;
    for key in KEYS {
        vault.put(key, json!({"p": "1", "q": "1"})).await;
    }
    for number in 0..WANTS.len() {
        rotations.create(&name(number), spec(number, &store)).await;
        rotations.ready(&name(number), 1).await;
    }
    let names = (0..WANTS.len()).map(name).collect();
    let round = Round { rotations: &rotations, operator: &operator, between: &between, keys: KEYS.to_vec(), names };
    let once: BTreeMap<String, usize> = KEYS.map(|key| (key.to_owned(), 1)).into();
    let versions = async || {
        let all = namespace.secrets().list_metadata(&ListParams::default()).await.unwrap().items;
        all.into_iter().map(|secret| (secret.name_any(), secret.resource_version())).collect::<Vec<_>>()
    };
    let before = versions().await;
    for number in 0..3 {
        assert_eq!(round.run().await, once, "round {number}");
    }
    assert_eq!(versions().await, before, "no change, no write");

    // One of them changes: who wants it reads what else it wants as well, and the others notice nothing.
    vault.put("d", json!({"p": "2", "q": "1"})).await;
    round.run().await;
    for (number, wants) in WANTS.iter().enumerate() {
        let changed = wants.contains(&"d");
        rotations.ready(&name(number), if changed { 2 } else { 1 }).await;
        assert!(!changed || rotations.data(&name(number)).await["d-p"] == "2");
    }
    // One that is gone is told by who wants it, and the others go on.
    vault.call("DELETE", "secret/metadata/a", Value::Null).await;
    round.run().await;
    for (number, wants) in WANTS.iter().enumerate() {
        if wants.contains(&"a") {
            let said = rotations.says(&name(number), "Ready", "False", "ValueNotFound").await;
            assert!(said.contains("a-p"), "{said}");
        } else {
            rotations.ready(&name(number), if wants.contains(&"d") { 2 } else { 1 }).await;
        }
        assert_eq!(rotations.data(&name(number)).await.len(), 4, "what is there stays");
    }
}

/// What the store has is held back after a roll-back; that is no reason to read it more often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_read_once_in_a_round_after_a_roll_back() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let between = Between::to(&vault.address).await;
    let (world, operator) = World::of_secrets(&cluster, json!({"discover": true, "timeout": "10m"}), &["a", "b"], "b@3").await;
    let rotations = Rotations(&world.namespace);
    let mut wanted = spec(0, &world.namespace.store_through(&between, &vault).await);
    for key in ["a", "b"] {
        vault.put(key, json!({"p": "1", "q": "1"})).await;
    }
    wanted["store"]["kubernetes"] = Value::Null;
    wanted.as_object_mut().unwrap().remove("target");
    world.a_second_later().await;
    rotations.change("web", wanted).await;
    rotations.complete("web", 2).await;
    world.a_second_later().await;
    vault.put("a", json!({"p": "2", "q": "1"})).await;
    rotations.ask("web", "refresh", "1").await;
    world.crashes("b").await;
    operator.clock.advance(SignedDuration::from_mins(10));
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    for name in ["a", "b"] {
        world.finished(name).await;
    }
    assert_eq!(rotations.data("web-tls").await["a-p"], "1");
    let round = Round { rotations: &rotations, operator: &operator, between: &between, keys: vec!["a", "b"], names: vec!["web".into()] };
    rotations.ask("web", "refresh", "2").await;
    rotations.handled("web", "refresh", "2").await;
    for number in 0..2 {
        assert_eq!(round.run().await, ["a", "b"].map(|key| (key.to_owned(), 1)).into(), "round {number}");
    }
    assert_eq!(rotations.data("web-tls").await["a-p"], "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_several_push_to_and_others_read_are_read_once_in_a_round() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let between = Between::to(&vault.address).await;
    let namespace = cluster.namespace("pushed-by-many").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let store = namespace.store_through(&between, &vault).await;
    for key in KEYS {
        vault.put(key, json!({"p": "1", "q": "1"})).await;
    }
    // Every other one brings a property of its own to each of its keys, and the last one reads one of them as well.
    let bring = |number: usize, key: &str| json!({"secretKey": "v", "remoteRef": {"key": key, "property": format!("of-{number}")}});
    let is_ready = |object: &SecretRotation| said(object, "Ready").is_some_and(|(status, ..)| status == "True");
    for (number, wants) in WANTS.iter().enumerate().filter(|(number, _)| number % 2 == 0) {
        namespace.secret(&name(number), "Opaque", &[("v", "1")]).await;
        let mut spec = spec(number, &store);
        spec["target"]["creationPolicy"] = "Merge".into();
        spec["data"] = json!([]);
        spec["push"] = wants.iter().map(|key| bring(number, key)).collect();
        if number == 4 {
            spec["data"] = json!([{"secretKey": "read", "remoteRef": {"key": wants[0], "property": "p"}}]);
            spec["push"] = json!([bring(number, wants[0]), bring(number, wants[1])]);
        }
        rotations.create(&name(number), spec).await;
        rotations.until(&name(number), "Ready", is_ready).await;
    }
    for number in [1, 3] {
        rotations.create(&name(number), spec(number, &store)).await;
        rotations.until(&name(number), "Ready", is_ready).await;
    }
    let names = (0..WANTS.len()).map(name).collect();
    let round = Round { rotations: &rotations, operator: &operator, between: &between, keys: KEYS.to_vec(), names };
    let once: BTreeMap<String, usize> = KEYS.map(|key| (key.to_owned(), 1)).into();
    for number in 0..3 {
        assert_eq!(round.run().await, once, "round {number}");
    }
    // What somebody else has put there is told by who pushes there, as long as it is there, and the others go on.
    let mut there = vault.get("a").await.0;
    there["of-2"] = "theirs".into();
    vault.put("a", there.clone()).await;
    round.run().await;
    rotations.says(&name(2), "Ready", "False", "StoreConflict").await;
    operator.clock.advance(SignedDuration::from_mins(10));
    rotations.ask(&name(2), "look", "again").await;
    operator.clock.advance(SignedDuration::from_mins(10));
    rotations.ask(&name(2), "look", "and again").await;
    rotations.says(&name(2), "Ready", "False", "StoreConflict").await;
    for number in [0, 1, 3, 4] {
        rotations.until(&name(number), "Ready", is_ready).await;
    }
    there["of-2"] = "1".into();
    vault.put("a", there).await;
    operator.clock.advance(SignedDuration::from_hours(1));
    rotations.ask(&name(2), "look", "put right").await;
    rotations.until(&name(2), "Ready", is_ready).await;
}

/// However often a value was not there: it is read when it is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_back_is_seen_within_the_interval() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("comes-back").await;
    let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let data = json!([{"secretKey": "p", "remoteRef": {"key": "a", "property": "p"}}]);
    let spec = json!({"target": {"name": "app"}, "store": namespace.store_in(&vault).await, "refreshInterval": "10s", "data": data});
    rotations.create("app", spec).await;
    rotations.says("app", "Ready", "False", "ValueNotFound").await;
    // Each time it waits twice as long, up to an hour.
    for turn in 0..6 {
        let looked = namespace.told("ValueNotFound", 1);
        rotations.ask("app", "refresh", &turn.to_string()).await;
        looked.await;
        next_second().await;
    }
    vault.put("a", json!({"p": "1"})).await;
    rotations.ready("app", 1).await;
}

/// Who reads a key every hour takes what was read for who reads it every quarter of an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_read_once_for_different_intervals() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let between = Between::to(&vault.address).await;
    let namespace = cluster.namespace("intervals").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let store = namespace.store_through(&between, &vault).await;
    vault.put("a", json!({"p": "1"})).await;
    let spec = |name: &str, interval: &str| {
        let data = json!([{"secretKey": "p", "remoteRef": {"key": "a", "property": "p"}}]);
        json!({"target": {"name": name}, "store": store, "refreshInterval": interval, "data": data})
    };
    let intervals = [("quarter", "15m"), ("hour", "1h")];
    for (name, interval) in intervals {
        rotations.create(name, spec(name, interval)).await;
        rotations.ready(name, 1).await;
    }
    between.take_asked();
    let times = intervals.map(|(name, interval)| serde_json::from_value::<SecretRotationSpec>(spec(name, interval)).unwrap());
    let next = |number: usize, last: Timestamp| next_refresh(&times[number], &["a".to_owned()].into(), Some(last)).unwrap();
    let (mut now, mut reads) = (operator.clock.now(), 0);
    let hourly = next(1, now);
    for turn in 1..=8 {
        let time = next(0, now);
        operator.clock.advance((time - operator.clock.now()).try_into().unwrap());
        now = time;
        for (name, _) in intervals {
            rotations.ask(name, "look", &turn.to_string()).await;
        }
        let synced = |object: &SecretRotation| {
            object.status.as_ref().and_then(|status| status.last_sync_time.as_ref()).is_some_and(|last| last.0 >= time)
        };
        rotations.until("quarter", "it has read", synced).await;
        if (time.as_second() - hourly.as_second()) % 3600 == 0 {
            rotations.until("hour", "it has read", synced).await;
        }
        reads += between.take_asked().iter().filter(|asked| asked.contains("/v1/secret/data/a")).count();
        assert_eq!(reads, turn, "{time}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_by_several_is_read_once_in_a_round() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let between = Between::to(&vault.address).await;
    let namespace = cluster.namespace("found").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let store = namespace.store_through(&between, &vault).await;
    let keys = ["team/one", "team/two", "team/three"];
    for key in keys {
        vault.put(key, json!({"p": "1"})).await;
    }
    let names: Vec<String> = (0..3).map(name).collect();
    for name in &names {
        let spec = json!({"target": {"name": name}, "store": store, "refreshInterval": "1h", "dataFrom": [{"find": {"path": "team"}}]});
        rotations.create(name, spec).await;
        rotations.ready(name, 1).await;
    }
    let round = Round { rotations: &rotations, operator: &operator, between: &between, keys: keys.to_vec(), names };
    let once: BTreeMap<String, usize> = keys.map(|key| (key.to_owned(), 1)).into();
    for number in 0..3 {
        assert_eq!(round.run().await, once, "round {number}");
    }
    // Another one is found, and one is gone.
    vault.put("team/four", json!({"p": "1"})).await;
    vault.call("DELETE", "secret/metadata/team/two", Value::Null).await;
    operator.clock.advance(SignedDuration::from_hours(1));
    for name in &round.names {
        rotations.ask(name, "look", "all").await;
        eventually(&format!("{name} has what is found now"), || async {
            let names: Vec<String> = rotations.data(name).await.into_keys().collect();
            if names == ["team_four", "team_one", "team_three"] { Ok(()) } else { Err(names.join(" ")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_and_a_secret_that_go_back_are_noticed() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let namespace = cluster.namespace("back").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    vault.put("b", json!({"p": "b1"})).await;
    let of = |key: &str| json!({"key": key, "property": "p"});
    let spec = json!({
        "target": {"name": "app"}, "store": namespace.store_in(&vault).await, "refreshInterval": "1h",
        "data": [{"secretKey": "b", "remoteRef": of("b")}],
        "rotation": {"generate": [{"secretKey": "a", "hex": {}}], "push": [{"secretKey": "a", "remoteRef": of("a")}]},
    });
    rotations.create("app", spec).await;
    rotations.ready("app", 1).await;
    let first = rotations.data("app").await["a"].clone();
    let an_interval_later = async |what: &str| {
        operator.clock.advance(SignedDuration::from_hours(1) + SignedDuration::from_mins(1));
        rotations.ask("app", "look", what).await;
    };
    // What is restored in the store just after a rotation is what was there before it.
    rotations.ask("app", "rotate", "1").await;
    rotations.ready("app", 2).await;
    assert_ne!(rotations.data("app").await["a"], first);
    vault.put("a", json!({"p": first})).await;
    an_interval_later("1").await;
    rotations.ready("app", 3).await;
    assert_eq!(rotations.data("app").await["a"], first);
    // An older Secret that is restored with all that is noted with it is brought up to date.
    let mut backup = namespace.secrets().get("app").await.unwrap();
    vault.put("b", json!({"p": "b2"})).await;
    an_interval_later("2").await;
    rotations.ready("app", 4).await;
    assert_eq!(rotations.data("app").await["b"], "b2");
    (backup.metadata.resource_version, backup.metadata.managed_fields) = (None, None);
    namespace.secrets().replace("app", &kube::api::PostParams::default(), &backup).await.unwrap();
    assert_eq!(rotations.data("app").await["b"], "b1");
    an_interval_later("3").await;
    eventually("the value of the store is there", || async {
        let now = rotations.data("app").await["b"].clone();
        if now == "b2" { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_sealed_is_asked_once_and_when_it_is_back_all_are_told() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let between = Between::to(&vault.address).await;
    let namespace = cluster.namespace("sealed").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let store = namespace.store_through(&between, &vault).await;
    let names: Vec<String> = (0..20).map(name).collect();
    for name in &names {
        vault.put(name, json!({"p": "1"})).await;
        let data = json!([{"secretKey": "x", "remoteRef": {"key": name, "property": "p"}}]);
        rotations.create(name, json!({"target": {"name": name}, "store": store, "data": data})).await;
    }
    for name in &names {
        rotations.ready(name, 1).await;
    }
    // All are called for, and after them one that asks no server: when it is there, they have been looked at.
    let all_look = async |what: &str| {
        for name in &names {
            rotations.ask(name, "refresh", what).await;
        }
        let last = format!("after-{what}");
        let data = json!([{"secretKey": "x", "remoteRef": {"key": "x"}}]);
        rotations.create(&last, json!({"target": {"name": last}, "store": {"memory": {"data": {"x": "1"}}}, "data": data})).await;
        rotations.ready(&last, 1).await;
    };
    let is = |status: &'static str| move |object: &SecretRotation| said(object, "Ready").is_some_and(|(now, ..)| now == status);
    vault.seal().await;
    all_look("down").await;
    for name in &names {
        rotations.until(name, "the store is away", is("False")).await;
    }
    // It is left alone for longer and longer.
    for _ in 0..8 {
        between.take_asked();
        // More than once, if need be: the answer to the one before may come only now, and hold from now on.
        eventually("it is asked again", || async {
            operator.clock.advance(SignedDuration::from_mins(6));
            rotations.ask(&names[0], "refresh", &operator.clock.now().to_string()).await;
            next_second().await;
            if between.take_asked().is_empty() { Err(String::new()) } else { Ok(()) }
        })
        .await;
    }
    all_look("meanwhile").await;
    between.take_asked();
    all_look("still").await;
    assert_eq!(between.take_asked().len(), 0, "it is left alone");
    operator.clock.advance(SignedDuration::from_mins(6));
    all_look("probe").await;
    assert_eq!(between.take_asked().len(), 1, "one asks");
    vault.unseal().await;
    operator.clock.advance(SignedDuration::from_mins(6));
    rotations.ask(&names[7], "refresh", "back").await;
    for name in &names {
        rotations.until(name, "the store is back", is("True")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_values_are_read_with_one_call_and_one_by_one_where_that_is_denied() {
    let (cluster, moto) = (Cluster::shared().await, Moto::start().await);
    let between = Between::to(&moto.address).await;
    let namespace = cluster.namespace("batch").await;
    let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let store = namespace.store_in_aws(&between.address).await;
    // More than single calls would be under way at a time.
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    for key in keys {
        moto.call("CreateSecret", json!({"Name": key, "SecretString": key})).await;
    }
    let data: Vec<Value> = keys.map(|key| json!({"secretKey": key, "remoteRef": {"key": key}})).into();
    rotations.create("app", json!({"target": {"name": "app"}, "store": store, "data": data})).await;
    rotations.ready("app", 1).await;
    let calls = || {
        let asked = between.take_asked();
        let of = |action: &str| asked.iter().filter(|asked| asked.contains(&format!("secretsmanager.{action} "))).count();
        (of("BatchGetSecretValue"), of("GetSecretValue"))
    };
    assert_eq!(calls(), (1, 0));
    between.arm(|asked| asked.contains("BatchGetSecretValue"), 0, Fault::Answer(403));
    let refreshed = async |value: &str| {
        moto.call("PutSecretValue", json!({"SecretId": "a", "SecretString": value})).await;
        rotations.ask("app", "refresh", value).await;
        eventually("what has changed is there", || async {
            let now = rotations.data("app").await["a"].clone();
            if now == value { Ok(()) } else { Err(now) }
        })
        .await;
    };
    refreshed("2").await;
    assert_eq!(calls(), (1, keys.len()));
    refreshed("3").await;
    assert_eq!(calls(), (0, keys.len()), "that is remembered");
}

/// A request whose values come to nothing is not answered by what is written meanwhile, as a previous value goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_answered_by_what_was_read() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("unanswered").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    namespace.secret("source", "Opaque", &[("json", r#"{"p": "1"}"#)]).await;
    let rotation = json!({"generate": [{"secretKey": "key", "hex": {}}], "previous": {"keepFor": "1h", "maxKeep": "2h"}});
    let data = json!([{"secretKey": "json", "remoteRef": {"key": "source", "property": "json"}}]);
    let template = json!({"mergePolicy": "Merge", "data": {"p": "{{ (json | fromjson).p }}"}});
    let spec = json!({"target": {"name": "app"}, "store": {"kubernetes": {}}, "data": data, "rotation": rotation, "template": template});
    rotations.create("app", spec).await;
    rotations.ready("app", 1).await;
    rotations.ask("app", "rotate", "1").await;
    rotations.ready("app", 2).await;
    rotations.until("app", "it is kept", keeps_previous).await;
    rotations.change("app", json!({"suspend": true})).await;
    rotations.says("app", "Ready", "True", "Suspended").await;
    rotations.edit("source", json!({"json": "{"})).await;
    rotations.ask("app", "refresh", "1").await;
    operator.clock.advance(SignedDuration::from_hours(3));
    rotations.change("app", json!({"suspend": false})).await;
    rotations.until("app", "the previous value is gone", |object| !keeps_previous(object)).await;
    rotations.says("app", "Ready", "False", "TemplateInvalid").await;
    let handled = |object: &SecretRotation| object.status.as_ref().and_then(|status| status.handled_refresh.clone());
    assert_eq!(handled(&rotations.api().get("app").await.unwrap()), None);
    rotations.edit("source", json!({"json": r#"{"p": "2"}"#})).await;
    operator.clock.advance(SignedDuration::from_mins(10));
    rotations.ask("app", "look", "1").await;
    rotations.handled("app", "refresh", "1").await;
    assert_eq!(rotations.data("app").await["p"], "2");
}
