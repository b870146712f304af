//! What is read when: each remote key once in a round, whoever wants it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use seaworthy::{api::secret_rotation::SecretRotationSpec, secrets::refresh::next_refresh};
use serde_json::{Value, json};

use crate::support::{Between, ControlPlane, Operator, Rotations, Vault, eventually};

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

/// Goes through one round, from one time at which something is read to the next. Returns how often each value was read.
async fn round(rotations: &Rotations<'_>, operator: &Operator, between: &Between, store: &Value) -> BTreeMap<String, usize> {
    let start = operator.clock.now();
    let spec: SecretRotationSpec = serde_json::from_value(spec(0, store)).unwrap();
    let time = |key: &str| next_refresh(&spec, &[key.to_owned()].into(), Some(start)).unwrap();
    let mut times: Vec<(Timestamp, &str)> = KEYS.iter().map(|key| (time(key), *key)).collect();
    times.sort();
    between.take_asked();
    let mut counts = BTreeMap::<String, usize>::new();
    for (time, key) in times {
        let wait = time.duration_since(operator.clock.now()) + SignedDuration::from_secs(2);
        operator.clock.advance(wait.max(SignedDuration::ZERO));
        for number in 0..WANTS.len() {
            rotations.ask(&name(number), "look", &time.to_string()).await;
        }
        let counts = std::sync::Mutex::new(&mut counts);
        eventually(&format!("{key} is read"), || async {
            let mut counts = counts.lock().unwrap();
            for asked in between.take_asked() {
                if let Some(key) = asked.strip_prefix("GET /v1/secret/data/") {
                    *counts.entry(key.trim().to_owned()).or_default() += 1;
                }
            }
            if counts.contains_key(key) { Ok(()) } else { Err(format!("{counts:?}")) }
        })
        .await;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_several_resources_share_in_part_are_read_once_in_a_round() {
    let ((_own, cluster), vault) = (ControlPlane::start().await, Vault::start().await);
    let between = Between::to(&vault.address).await;
    let namespace = cluster.namespace("rounds").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let mut store = namespace.store_in(&vault).await;
    store["vault"]["server"] = between.address.clone().into();
    for key in KEYS {
        vault.put(key, json!({"p": "1", "q": "1"})).await;
    }
    for number in 0..WANTS.len() {
        rotations.create(&name(number), spec(number, &store)).await;
        rotations.ready(&name(number), 1).await;
    }
    let once: BTreeMap<String, usize> = KEYS.map(|key| (key.to_owned(), 1)).into();
    for number in 0..3 {
        assert_eq!(round(&rotations, &operator, &between, &store).await, once, "round {number}");
    }

    // One of them changes: who wants it reads what else it wants as well, and the others notice nothing.
    vault.put("d", json!({"p": "2", "q": "1"})).await;
    round(&rotations, &operator, &between, &store).await;
    for (number, wants) in WANTS.iter().enumerate() {
        let changed = wants.contains(&"d");
        rotations.ready(&name(number), if changed { 2 } else { 1 }).await;
        assert!(!changed || rotations.data(&name(number)).await["d-p"] == "2");
    }
    // One that is gone is told by who wants it, and the others go on.
    vault.call("DELETE", "secret/metadata/a", Value::Null).await;
    round(&rotations, &operator, &between, &store).await;
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
