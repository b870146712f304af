//! What several want is read once, and what is asked for later is read then.

use serde_json::{Value, json};

use crate::support::{Between, Cluster, Rotations, Vault, eventually, next_second};

/// Many that come, or are changed, at the same time ask once, also where nothing is read again by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_want_for_the_first_time_is_read_once() {
    let (cluster, vault) = (Cluster::without_node().await, Vault::start().await);
    let between = Between::to(&vault.address).await;
    let namespace = cluster.namespace("first").await;
    let (rotations, store) = (Rotations(&namespace), namespace.store_through(&between, &vault).await);
    vault.put("a", json!({"p": "1"})).await;
    let data = json!([{"secretKey": "p", "remoteRef": {"key": "a", "property": "p"}}]);
    let policies = [json!({"refreshPolicy": "OnChange"}), json!({"refreshPolicy": "CreatedOnce"}), json!({"refreshInterval": "0s"})];
    let named: Vec<(String, &Value)> = (0..9).map(|number| (format!("app-{number}"), &policies[number % 3])).collect();
    for (name, policy) in &named {
        let mut spec = json!({"target": {"name": name}, "store": store, "data": data});
        json_patch::merge(&mut spec, policy);
        rotations.create(name, spec).await;
    }
    let _operator = cluster.operator(&namespace);
    for (name, _) in &named {
        rotations.ready(name, 1).await;
    }
    assert_eq!(between.take_asked().iter().filter(|asked| asked.contains("/v1/secret/data/a")).count(), 1);
}

/// What was read for others is too old for what has happened since then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_later_is_read_then() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("later").await;
    let (rotations, store) = (Rotations(&namespace), namespace.store_in(&vault).await);
    let _operator = cluster.operator(&namespace);
    vault.put("a", json!({"p": "0"})).await;
    let data = json!([{"secretKey": "p", "remoteRef": {"key": "a", "property": "p"}}]);
    let create = async |name: &str, target: &str| {
        let spec = json!({"target": {"name": target}, "store": store, "data": data, "refreshPolicy": "CreatedOnce"});
        rotations.create(name, spec).await;
    };
    for name in ["asked", "changed", "deleted", "last"] {
        create(name, name).await;
        rotations.ready(name, 1).await;
    }
    // One that wants it, too, and never comes for it, so that what is read is kept for a while.
    next_second().await;
    create("waits", "last").await;
    rotations.says("waits", "Stalled", "True", "TargetConflict").await;
    for name in ["asked", "changed"] {
        rotations.change(name, json!({"refreshPolicy": "OnChange"})).await;
    }
    for (number, name) in ["deleted", "changed", "asked", "deleted"].into_iter().enumerate() {
        let value = (number + 1).to_string();
        vault.put("a", json!({"p": value})).await;
        match name {
            "deleted" => namespace.delete_secret(name).await,
            "changed" => rotations.change(name, json!({"template": {"mergePolicy": "Merge", "data": {"text": "t"}}})).await,
            _ => rotations.ask(name, "refresh", &value).await,
        }
        eventually(&format!("{name} has what there is now"), || async {
            let secret = namespace.secrets().get_opt(name).await.map_err(|error| error.to_string())?;
            let there = secret.and_then(|secret| secret.data?.remove("p")).map(|there| String::from_utf8(there.0).unwrap());
            if there.as_ref() == Some(&value) { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
    }
}
