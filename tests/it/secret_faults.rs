//! What may go wrong in the middle of a rotation of values, at every step: a write that fails, a process that dies.

use futures::{StreamExt, future::join_all, stream};
use seaworthy::{
    api::SecretRotation,
    secrets::{deliver::STEPS, writing::rotate},
};
use serde_json::{Value, json};

use crate::{
    rotation,
    support::{Cluster, Far, Fault, Faults, Moto, Operator, PATIENCE, Rotations, Vault, World, eventually},
};

/// A generated key, pushed to the Secret `remote`, the one before kept.
fn pushed_here() -> Value {
    json!({
        "target": {"name": "jwt"}, "store": {"kubernetes": {}},
        "rotation": {
            "generate": [{"secretKey": "key", "hex": {}}], "previous": {"keepFor": "24h"},
            "push": [{"secretKey": "key", "remoteRef": {"key": "remote", "property": "jwt"}}],
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_may_fail_in_every_way() {
    let cluster = Cluster::shared().await;
    let faults = [Fault::Answer(409), Fault::Answer(429), Fault::Answer(500), Fault::AnswerLost];
    // A rotation writes: the pending value, the create's entry of the store's Secret, that Secret, the create's entry of the target, the target, the time of
    // that; it deletes the pending value; and writes the status.
    let cases = faults.into_iter().flat_map(|fault| (0..8).map(move |number| (fault, number)));
    stream::iter(cases)
        .for_each_concurrent(6, |(fault, number)| {
            let cluster = &cluster;
            async move {
                let namespace = cluster.namespace("faulty").await;
                let (connection, rotations) = (Faults::default(), Rotations(&namespace));
                let client = connection.client(cluster.operator_config.clone());
                let _operator = Operator::start(client, vec![namespace.name.clone()], &namespace.name);
                rotations.create("jwt", pushed_here()).await;
                rotations.ready("jwt", 1).await;
                let before = rotations.data("jwt").await["key"].clone();
                connection.arm(number, fault);
                rotations.ask("jwt", "rotate", "now").await;
                let what = format!("{fault:?} at write {number}");
                rotations.ready("jwt", 2).await;
                eventually(&format!("{what}: nothing is pending"), || async {
                    match namespace.secrets().get_opt("jwt-pending").await.map_err(|error| error.to_string())? {
                        None => Ok(()),
                        Some(_) => Err("it is there".into()),
                    }
                })
                .await;
                assert!(connection.struck(), "{what}: there was no such write");
                let data = rotations.data("jwt").await;
                assert_eq!(data["key-previous"], before, "{what}: one rotation, and the previous value is kept");
                assert!(data["key"] != before && rotations.data("remote").await["jwt"] == data["key"], "{what}");
                // Looked at once more, nothing changes.
                rotations.ask("jwt", "look", "1").await;
                rotations.ready("jwt", 2).await;
                assert_eq!(rotations.data("jwt").await, data, "{what}");
            }
        })
        .await;
}

/// The value is pushed to `far`, or into another Secret of the namespace.
async fn killed_and_resumed(cluster: &Cluster, far: Option<&Far<'_>>, (step, done, first): (&'static str, bool, bool)) {
    let namespace = cluster.namespace("killed").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let (mut spec, remote) = (rotation::spec(), format!("jwt-{}", namespace.name));
    if let Some(far) = far {
        spec["store"] = far.store(&namespace, &far.server()).await["store"].take();
        spec["rotation"]["push"][0]["remoteRef"]["key"] = remote.clone().into();
    }
    let settled = async |revision: i64| {
        rotations.ready("jwt", revision).await;
        let Some(far) = far else { return rotation::settled(&namespace, revision).await };
        let here = rotations.data("jwt").await["key"].clone();
        assert_eq!(far.get(&remote).await, json!({"jwt": here}));
        let versions = far.versions(&remote).await.map(|(count, _)| i64::try_from(count).unwrap());
        assert!(versions.is_none_or(|count| count == revision), "each value was written once: {versions:?}");
        here
    };
    let mut before = None;
    if !first {
        rotations.create("jwt", spec.clone()).await;
        before = Some(settled(1).await);
    }
    // Reading and reporting are parts of every look; what is meant is that of the rotation.
    operator.failpoint.arm(step, done, (step == "report").then_some("store"));
    if first {
        rotations.create("jwt", spec).await;
    } else {
        rotations.ask("jwt", "rotate", "now").await;
    }
    tokio::time::timeout(PATIENCE, operator.failpoint.reached()).await.unwrap_or_else(|_| panic!("{step} was not reached"));
    operator.kill().await;
    let pending = namespace.secrets().get_opt("jwt-pending").await.unwrap().map(|secret| secret.data.unwrap()["key"].0.clone());

    let _operator = cluster.operator(&namespace);
    let revision = if first { 1 } else { 2 };
    let after = settled(revision).await;
    if let Some(pending) = pending {
        assert_eq!(after.as_bytes(), pending, "{step}, done: {done}: the value that was made is the one that is used");
    }
    assert_ne!(Some(&after), before.as_ref(), "{step}: the rotation was done");
    let previous = rotations.data("jwt").await.get("key-previous").cloned();
    assert_eq!(previous, before, "{step}, done: {done}: the one before is kept");
    // Something that makes it look once more, and then: still one rotation.
    rotations.change("jwt", json!({"template": {"mergePolicy": "Merge", "metadata": {"labels": {"looked": "again"}}}})).await;
    eventually("the label is there", || async {
        let labels = namespace.secrets().get("jwt").await.map_err(|error| error.to_string())?.metadata.labels.unwrap_or_default();
        if labels.contains_key("looked") { Ok(()) } else { Err(format!("{labels:?}")) }
    })
    .await;
    assert_eq!(settled(revision).await, after, "{step}, done: {done}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_around_every_step_of_a_rotation() {
    let (cluster, vault, moto) = (&Cluster::shared().await, &Vault::start().await, &Moto::start().await);
    let stores = [None, Some(Far::Vault(vault)), Some(Far::Aws(moto))];
    let cases = rotate::STEPS
        .iter()
        .flat_map(|step| [(false, false), (false, true), (true, false), (true, true)].map(|(done, first)| (*step, done, first)))
        .flat_map(|case| stores.iter().map(move |far| (far.as_ref(), case)));
    stream::iter(cases).for_each_concurrent(8, |(far, case)| killed_and_resumed(cluster, far, case)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_around_every_step_of_a_delivery() {
    let cluster = Cluster::without_node().await;
    let cluster = &cluster;
    let steps = STEPS.iter().filter(|step| **step != "roll-back"); // which is gone through below
    let cases = steps.flat_map(|step| [(*step, false), (*step, true)]);
    join_all(cases.map(|(step, done)| async move {
        let (world, operator) = World::of_secrets(cluster, json!({"discover": true}), &["a"], "none").await;
        let rotations = Rotations(&world.namespace);
        world.a_second_later().await;
        operator.failpoint.arm(step, done, None);
        rotations.edit("source", json!({"value": "2"})).await;
        operator.failpoint.reached().await;
        operator.kill().await;
        let _operator = cluster.operator(&world.namespace);
        rotations.complete("web", 2).await;
        let what = format!("killed {} {step}", if done { "after" } else { "before" });
        assert_eq!(world.restarts("a").await.0, 1, "{what}");
        assert_eq!(rotations.data("web-tls").await["value"], "2", "{what}");
        eventually(&format!("{what}: what all have left behind is not kept"), || async {
            match world.namespace.secrets().get_opt("web-tls-previous").await.map_err(|error| error.to_string())? {
                None => Ok(()),
                Some(_) => Err("it is there".into()),
            }
        })
        .await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_while_going_back_is_followed_by_one_that_goes_on() {
    let cluster = Cluster::without_node().await;
    let cluster = &cluster;
    let cases = [("roll-back", false), ("roll-back", true), ("restart", false), ("restart", true)];
    join_all(cases.map(|(step, done)| async move {
        let (world, operator) = World::of_secrets(cluster, json!({"discover": true, "timeout": "1h"}), &["a", "b"], "b").await;
        let rotations = Rotations(&world.namespace);
        world.a_second_later().await;
        rotations.edit("source", json!({"value": "2"})).await;
        world.crashes("b").await;
        operator.failpoint.arm(step, done, (step == "restart").then_some("roll-back"));
        operator.clock.advance(jiff::SignedDuration::from_hours(2));
        let clock = operator.clock.clone();
        rotations.ask("web", "look", "1").await;
        operator.failpoint.reached().await;
        operator.kill().await;
        let _operator = cluster.operator_with(&world.namespace, clock);
        rotations.says("web", "Stalled", "True", "RolledBack").await;
        assert_eq!(rotations.data("web-tls").await["value"], "1");
        rotations.consumers("web", "4/4").await;
        assert_eq!(world.restarts("a").await.0, 2, "forth and back, killed {} {step}", if done { "after" } else { "before" });
    }))
    .await;
}

/// Whether values have arrived is not guessed where it cannot be read: they are neither dropped nor made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_and_cannot_be_read_stays() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("unread-pending").await;
    let (connection, rotations) = (Faults::default(), Rotations(&namespace));
    let client = connection.client(cluster.operator_config.clone());
    let _operator = Operator::start(client, vec![namespace.name.clone()], &namespace.name);
    rotations.create("jwt", pushed_here()).await;
    rotations.ready("jwt", 1).await;
    connection.hide("/secrets/jwt-pending");
    rotations.ask("jwt", "rotate", "1").await;
    let failed = |object: &SecretRotation| object.status.as_ref().is_some_and(|status| status.last_failure.is_some());
    let object = rotations.until("jwt", "it says so", failed).await;
    let message = object.status.unwrap().last_failure.unwrap().message;
    assert!(message.contains("Secret jwt-pending could not be read"), "{message}");
    let (pending, made) = (rotations.data("jwt-pending").await["key"].clone(), rotations.data("jwt").await["key"].clone());
    assert_eq!(pending, made, "it has arrived");
    connection.show();
    rotations.ready("jwt", 2).await;
    eventually("nothing is on its way", || async {
        let there = namespace.secrets().get_metadata_opt("jwt-pending").await.map_err(|error| error.to_string())?;
        there.map_or(Ok(()), |_| Err("it is there".into()))
    })
    .await;
    assert_eq!(rotations.data("jwt").await["key"], made, "one rotation");
}

/// Suspended is suspended, whatever cannot be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_restarted_for_what_is_suspended_and_cannot_be_read() {
    let cluster = Cluster::without_node().await;
    let (world, operator) = World::of_secrets(&cluster, json!({"discover": true}), &["a"], "none").await;
    let (connection, rotations) = (Faults::default(), Rotations(&world.namespace));
    world.a_second_later().await;
    operator.failpoint.arm("drop-pending", false, None);
    rotations.change("web", json!({"rotation": {"generate": [{"secretKey": "key", "hex": {}}]}})).await;
    operator.failpoint.reached().await;
    operator.kill().await;
    world.a_second_later().await; // they could be restarted at once
    connection.hide("/secrets/web-tls-pending");
    rotations.change("web", json!({"suspend": true})).await;
    let client = connection.client(cluster.operator_config.clone());
    let _operator = Operator::start_restless(client, vec![world.namespace.name.clone()], &world.namespace.name);
    let failed = |object: &SecretRotation| object.status.as_ref().is_some_and(|status| status.last_failure.is_some());
    rotations.until("web", "it says so", failed).await;
    assert_eq!((world.restarts("a").await.0, rotations.data("web-tls").await["key"].len()), (0, 64));
    connection.show();
    rotations.change("web", json!({"suspend": false})).await;
    rotations.complete("web", 2).await;
    assert_eq!(world.restarts("a").await.0, 1);
}

/// Nothing is brought to workloads that cannot be taken back again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_values_wait_until_there_is_something_to_go_back_to() {
    let cluster = Cluster::without_node().await;
    let (world, _operator) = World::of_secrets(&cluster, json!({"discover": true}), &["a"], "none").await;
    let rotations = Rotations(&world.namespace);
    world.namespace.secret("web-tls-previous", "Opaque", &[("mine", "1")]).await;
    world.a_second_later().await;
    rotations.edit("source", json!({"value": "2"})).await;
    let message = rotations.says("web", "Stalled", "True", "NotOurs").await;
    assert!(message.contains("Secret web-tls-previous exists"), "{message}");
    assert_eq!((rotations.data("web-tls").await["value"].as_str(), world.restarts("a").await.0), ("1", 0));
    world.namespace.delete_secret("web-tls-previous").await;
    rotations.complete("web", 2).await;
    assert_eq!((rotations.data("web-tls").await["value"].as_str(), world.restarts("a").await.0), ("2", 1));
}
