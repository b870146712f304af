//! What a store may do in the middle of a rotation: refuse, fail, do it and lose the answer. Real servers, with somebody in between.

use futures::{FutureExt, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use seaworthy::api::SecretStore;
use serde_json::{Value, json};

use crate::{
    own_credential::Own,
    support::{
        Between, Cluster, ControlPlane, Elsewhere, Far, Fault, Faults, Moto, Namespace, Operator, Process, Rotations, Vault, eventually,
        next_second, oci::Oci, said, vault_says,
    },
};

const FAULTS: [Fault; 3] = [Fault::Answer(429), Fault::Answer(500), Fault::AnswerLost];

/// A generated value, pushed to `key`; the previous values are kept nowhere, so that the version before is retired at once.
fn pushed(store: &Value, key: &str) -> Value {
    json!({
        "target": {"name": "app"}, "store": store, "refreshInterval": "0s",
        "rotation": {
            "generate": [{"secretKey": "k", "hex": {}}],
            "push": [{"secretKey": "k", "remoteRef": {"key": key, "property": "p"}}],
        },
    })
}

type Matching = fn(&str) -> bool;

/// The `number`-th of the requests that match (from 0) fails.
type Armed = (Matching, usize, Fault);

/// Rotates, with a fault on the way or without, and waits until all is as if there had been none. A store that `keeps` it does not give up the version
/// before.
async fn rotate(namespace: &Namespace, between: &Between, armed: Option<Armed>, keeps: bool) -> String {
    let what = armed.map_or("no fault".into(), |(_, number, fault)| format!("{fault:?} at request {number}"));
    let rotations = Rotations(namespace);
    let before = rotations.data("app").await["k"].clone();
    if let Some((matching, number, fault)) = armed {
        between.arm(matching, number, fault);
    }
    rotations.ask("app", "rotate", "1").await;
    rotations.ready("app", 2).await;
    eventually(&format!("{what}: nothing is left to be done"), || async {
        let secrets = namespace.secrets();
        let pending = secrets.get_opt("app-pending").await.map_err(|error| error.to_string())?;
        let notes = secrets.get("app").await.map_err(|error| error.to_string())?.metadata.annotations.unwrap_or_default();
        let retired = keeps || !notes.contains_key("seaworthy.dev/superseded-versions");
        if pending.is_none() && retired { Ok(()) } else { Err(format!("{notes:?}")) }
    })
    .await;
    assert!(between.struck(), "{what}: there was no such request");
    let now = rotations.data("app").await["k"].clone();
    assert_ne!(now, before, "{what}");
    now
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vault_fails_at_each_request_of_a_rotation() {
    let (cluster, vault) = (&Cluster::shared().await, &Vault::start().await);
    // It is read by the look, and before it is written; it is written; what versions there are is read, and the one before is deleted.
    let cases = FAULTS.into_iter().flat_map(|fault| (0..5).map(move |number| (number, fault)));
    stream::iter(cases)
        .for_each_concurrent(12, |(number, fault)| async move {
            let (namespace, between) = (cluster.namespace("vault-fails").await, Between::to(&vault.address).await);
            let rotations = Rotations(&namespace);
            let _operator = cluster.operator(&namespace);
            let store = namespace.store_through(&between, vault).await;
            rotations.create("app", pushed(&store, &namespace.name)).await;
            rotations.ready("app", 1).await;
            let what = format!("{fault:?} at request {number}");
            let now = rotate(&namespace, &between, Some((|asked| asked.contains("/v1/secret/"), number, fault)), false).await;
            assert_eq!(vault.get(&namespace.name).await, (json!({"p": now}), 2), "{what}: it was written once");
            let answer = vault.call("GET", &format!("secret/metadata/{}", namespace.name), Value::Null).await;
            assert_ne!(answer["data"]["versions"]["1"]["deletion_time"], "", "{what}: the version before is deleted");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aws_fails_at_each_request_of_a_rotation() {
    let (cluster, moto) = (&Cluster::shared().await, &Moto::start().await);
    // It is read by the look, and before it is written; the new version under a stage of its own, the stage AWSCURRENT, the end of the one of its own, and that of AWSPREVIOUS.
    let cases = FAULTS.into_iter().flat_map(|fault| (0..6).map(move |number| (number, fault)));
    stream::iter(cases)
        .for_each_concurrent(12, |(number, fault)| async move {
            let (namespace, between) = (cluster.namespace("aws-fails").await, Between::to(&moto.address).await);
            let rotations = Rotations(&namespace);
            let _operator = cluster.operator(&namespace);
            let store = namespace.store_in_aws(&between.address).await;
            rotations.create("app", pushed(&store, &namespace.name)).await;
            rotations.ready("app", 1).await;
            let what = format!("{fault:?} at request {number}");
            let now = rotate(&namespace, &between, Some((|asked| asked.starts_with("POST"), number, fault)), false).await;
            assert_eq!(moto.get(&namespace.name).await, json!({"p": now}), "{what}");
            let listed = moto.call("ListSecretVersionIds", json!({"SecretId": namespace.name, "IncludeDeprecated": true})).await;
            let versions = listed["Versions"].as_array().unwrap();
            let stages: Vec<_> = versions.iter().map(|version| version["VersionStages"].to_string()).collect();
            assert_eq!(versions.len(), 2, "{what}: it was written once: {stages:?}");
            assert!(!stages.concat().contains("AWSPREVIOUS"), "{what}: {stages:?}");
        })
        .await;
}

/// A store that asks to wait is said, everything stays as it is, and it is asked again when it wanted to be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_throttles_is_said() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let (namespace, between) = (cluster.namespace("throttled").await, Between::to(&vault.address).await);
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let store = namespace.store_through(&between, &vault).await;
    vault.put("app", json!({"p": "1"})).await;
    let data = json!([{"secretKey": "k", "remoteRef": {"key": "app", "property": "p"}}]);
    for name in ["one", "two"] {
        rotations.create(name, json!({"target": {"name": name}, "store": store, "data": data})).await;
        rotations.ready(name, 1).await;
    }
    vault.put("app", json!({"p": "2"})).await;
    between.arm(|asked| asked.contains("/v1/secret/data/app"), 0, Fault::Answer(429));
    rotations.ask("one", "refresh", "1").await;
    let message = rotations.says("one", "Ready", "False", "StoreThrottled").await;
    assert!(message.contains("429"), "{message}");
    between.take_asked();
    rotations.ask("two", "refresh", "1").await;
    rotations.says("two", "Ready", "False", "StoreThrottled").await;
    assert_eq!(between.take_asked(), [""; 0], "it is left alone for whoever uses it");
    assert_eq!(rotations.data("one").await["k"], "1", "what is there stays");
    operator.clock.advance(SignedDuration::from_mins(6));
    for name in ["one", "two"] {
        rotations.ask(name, "look", "1").await;
        rotations.ready(name, 2).await;
    }
}

/// Between the read and the write of a push somebody else writes: that is not overwritten, by a generated value neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_faster_is_not_overwritten() {
    let (cluster, vault) = (&Cluster::shared().await, &Vault::start().await);
    let (moto, oci) = (&Moto::start().await, &Oci::start().await);
    let writes: [(Far<'_>, Matching); 3] = [
        (Far::Vault(vault), |asked| asked.starts_with("POST /v1/secret/data/")),
        (Far::Aws(moto), |asked| asked.contains("UpdateSecretVersionStage")),
        (Far::Oci(oci), |asked| asked.starts_with("PUT")),
    ];
    let cases = writes.iter().flat_map(|(far, write)| [true, false].map(|generated| (far, *write, generated)));
    stream::iter(cases)
        .for_each_concurrent(6, |(far, write, generated)| async move {
            let (namespace, between) = (cluster.namespace("faster").await, Between::to(&far.server()).await);
            let (rotations, key, _operator) = (Rotations(&namespace), &namespace.name, cluster.operator(&namespace));
            far.put(key, json!({"p": "1"})).await;
            let mut spec = pushed(&Value::Null, key);
            if !generated {
                namespace.secret("app", "Opaque", &[("k", "1")]).await;
                spec["target"]["creationPolicy"] = "Merge".into();
                (spec["push"], spec["rotation"]) = (spec["rotation"]["push"].take(), Value::Null);
            }
            spec.as_object_mut().unwrap().extend(far.store(&namespace, &between.address).await.as_object().unwrap().clone());
            rotations.create("app", spec).await;
            rotations.until("app", "it is Ready", |object| said(object, "Ready").is_some_and(|(status, ..)| status == "True")).await;
            between.arm(write, 0, Fault::Held);
            if generated {
                rotations.ask("app", "rotate", "1").await;
            } else {
                rotations.edit("app", json!({"k": "2"})).await;
            }
            between.waits().await;
            far.replace(key, json!({"p": "theirs"})).await;
            between.go_on();
            rotations.says("app", "Ready", "False", "StoreConflict").await;
            assert_eq!(far.get(key).await, json!({"p": "theirs"}), "{far}, generated: {generated}");
        })
        .await;
}

/// The SecretStore `vault`, which all namespaces may use, and `app` in it.
async fn store_for_all(cluster: &Cluster, vault: &Vault, address: &str) -> Api<SecretStore> {
    cluster.operators_secret("vault", json!({"token": vault.root})).await;
    vault.put("app", json!({"p": "1"})).await;
    let login = json!({"token": {"secretRef": {"name": "vault", "key": "token"}}});
    cluster.secret_store("vault", json!({"allowedNamespaces": {}, "vault": {"server": address, "auth": login}})).await
}

/// A store for many is read once for all of them, and asked by one when it is away: not by each that names it, nor once more for its own status.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_for_many_is_asked_by_one() {
    let ((_own, cluster), vault) = (ControlPlane::start().await, Vault::start().await);
    let between = Between::to(&vault.address).await;
    let stores = store_for_all(&cluster, &vault, &between.address).await;
    let namespaces = [cluster.namespace("one").await, cluster.namespace("two").await];
    let all = namespaces.each_ref().map(Rotations);
    let create = async |rotations: &Rotations<'_>, name: &str| {
        let data = json!([{"secretKey": "x", "remoteRef": {"key": "app", "property": "p"}}]);
        rotations.create(name, json!({"target": {"name": name}, "storeRef": {"name": "vault"}, "data": data})).await;
    };
    for name in ["a", "b", "c", "d"] {
        create(&all[0], name).await;
        create(&all[1], name).await;
    }
    let operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    for name in ["a", "b", "c", "d"] {
        all[0].ready(name, 1).await;
        all[1].ready(name, 1).await;
    }
    let reads = between.take_asked().into_iter().filter(|asked| asked.contains("/v1/secret/data/app")).count();
    assert_eq!(reads, 1, "for all of both namespaces");
    let ready = async |wanted: &str| vault_says(&stores, wanted).await;
    ready("True").await;
    let look = async |what: String| {
        let patch = json!({"metadata": {"annotations": {"seaworthy.dev/look": what}}});
        stores.patch("vault", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    let told = async |wanted: &str| {
        eventually(&format!("it is told: {wanted}"), || async {
            let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
            let all = events.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
            let of_store = all.iter().filter(|event| event.regarding.as_ref().is_some_and(|of| of.kind.as_deref() == Some("SecretStore")));
            let said: Vec<_> = of_store.filter_map(|event| event.note.clone()).collect();
            if said.iter().any(|said| said.contains(wanted)) { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
    };
    eventually("its check is not due", || async {
        between.take_asked();
        look(Timestamp::now().to_string()).await;
        next_second().await;
        if between.take_asked().is_empty() { Ok(()) } else { Err(String::new()) }
    })
    .await;
    vault.seal().await;
    // Who uses it is heard, and believed.
    all[0].ask("a", "refresh", "0").await;
    ready("False").await;
    told("Vault is sealed").await;
    assert!(!between.asked("lookup-self"), "that is no reason to ask it");
    // It is left alone for longer and longer, until nothing comes by itself while this goes on.
    for round in 0..8 {
        between.take_asked();
        eventually("it is asked again", || async {
            operator.clock.advance(SignedDuration::from_mins(16));
            look(format!("{round} {}", operator.clock.now())).await;
            next_second().await;
            if between.take_asked().is_empty() { Err(String::new()) } else { Ok(()) }
        })
        .await;
    }
    ready("False").await;
    between.take_asked();
    for rotations in &all {
        for name in ["e", "f", "g", "h"] {
            create(rotations, name).await;
            rotations.says(name, "Ready", "False", "StoreUnavailable").await;
        }
        rotations.ask("a", "refresh", "1").await;
        rotations.says("a", "Ready", "False", "StoreUnavailable").await;
    }
    look("now".into()).await;
    next_second().await;
    assert_eq!(between.take_asked(), [""; 0], "it is left alone");
    vault.unseal().await;
    operator.clock.advance(SignedDuration::from_mins(6));
    look("then".into()).await;
    for rotations in &all {
        for name in ["a", "e", "h"] {
            rotations.ready(name, 1).await;
        }
    }
    ready("True").await;
    told("lets us in again").await;
}

/// That the API server does not give out the credentials of a store just now says nothing about who is logged in with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_cannot_be_made_stops_nobody() {
    let ((_own, cluster), vault, faults) = (ControlPlane::start().await, Vault::start().await, Faults::default());
    let stores = store_for_all(&cluster, &vault, &vault.address).await;
    let namespace = cluster.namespace("users").await;
    let rotations = Rotations(&namespace);
    let operator = Operator::start(faults.client(cluster.operator_config.clone()), Vec::new(), "seaworthy");
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "app", "property": "p"}}]);
    rotations.create("app", json!({"target": {"name": "app"}, "storeRef": {"name": "vault"}, "data": data})).await;
    rotations.ready("app", 1).await;
    let ready = async |wanted: &str| {
        let look = Patch::Merge(json!({"metadata": {"annotations": {"seaworthy.dev/look": wanted}}}));
        stores.patch("vault", &PatchParams::default(), &look).await.unwrap();
        vault_says(&stores, wanted).await;
    };
    ready("True").await;
    faults.hide("/namespaces/seaworthy/secrets/vault");
    operator.clock.advance(SignedDuration::from_mins(16));
    ready("False").await;
    vault.put("app", json!({"p": "2"})).await;
    rotations.ask("app", "refresh", "1").await;
    rotations.ready("app", 2).await;
    let events = Api::<Event>::namespaced(namespace.client.clone(), &namespace.name).list(&ListParams::default()).await.unwrap();
    let away: Vec<_> = events.items.iter().filter(|event| event.reason.as_deref() == Some("StoreUnavailable")).collect();
    assert!(away.is_empty(), "{away:#?}");
    faults.show();
    operator.clock.advance(SignedDuration::from_mins(16));
    ready("True").await;
    // What its users have found is believed, and asked again when they find out nothing more.
    vault.seal().await;
    rotations.ask("app", "refresh", "2").await;
    ready("False").await;
    namespace.secret("theirs", "Opaque", &[("x", "theirs")]).await;
    rotations.change("app", json!({"target": {"name": "theirs"}})).await;
    rotations.says("app", "Stalled", "True", "NotOurs").await;
    vault.unseal().await;
    eventually("it is asked again", || async {
        operator.clock.advance(SignedDuration::from_mins(6));
        let look = Patch::Merge(json!({"metadata": {"annotations": {"seaworthy.dev/look": operator.clock.now().to_string()}}}));
        let store = stores.patch("vault", &PatchParams::default(), &look).await.map_err(|error| error.to_string())?;
        let status = store.status.unwrap_or_default();
        let is_ready = status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        if is_ready { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

/// What a check itself has met is asked about again by the check, as soon as the store may be asked: there is nobody else to do it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_has_failed_is_made_again_without_users() {
    let ((_own, cluster), vault) = (ControlPlane::start().await, Vault::start().await);
    let stores = store_for_all(&cluster, &vault, &vault.address).await;
    let namespace = cluster.namespace("users").await;
    let rotations = Rotations(&namespace);
    let operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "app", "property": "p"}}]);
    let spec = json!({"target": {"name": "app"}, "storeRef": {"name": "vault"}, "data": data, "refreshPolicy": "CreatedOnce"});
    rotations.create("app", spec).await;
    rotations.ready("app", 1).await;
    vault_says(&stores, "True").await;
    let looked = async |wanted: &str, after: SignedDuration| {
        operator.clock.advance(after);
        let look = Patch::Merge(json!({"metadata": {"annotations": {"seaworthy.dev/look": wanted}}}));
        stores.patch("vault", &PatchParams::default(), &look).await.unwrap();
        vault_says(&stores, wanted).await;
    };
    vault.seal().await;
    looked("False", SignedDuration::from_mins(16)).await;
    vault.unseal().await;
    eventually("Vault is active", || async {
        let (status, answer) = vault.try_call("GET", "sys/health", json!({})).await;
        if status == 200 { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    looked("True", SignedDuration::from_mins(2)).await;
}

/// Each request of a rotation fails in each way: how many there are is counted in a rotation without a fault.
async fn each_request(cluster: &Cluster, far: &Far<'_>, matching: Matching) -> usize {
    let fails = async |case: Option<(usize, Fault)>| {
        let (namespace, between) = (cluster.namespace("store-fails").await, Between::to(&far.server()).await);
        let (rotations, what) = (Rotations(&namespace), format!("{far}: {case:?}"));
        let mut spec = pushed(&Value::Null, &namespace.name);
        spec.as_object_mut().unwrap().extend(far.store(&namespace, &between.address).await.as_object().unwrap().clone());
        let _operator = spec.get("storeRef").is_none().then(|| cluster.operator(&namespace));
        rotations.create("app", spec).await;
        rotations.ready("app", 1).await;
        between.take_asked();
        let keeps = matches!(far, Far::Oci(_)); // the version before the current one
        let now = rotate(&namespace, &between, case.map(|(number, fault)| (matching, number, fault)), keeps).await;
        assert_eq!(far.get(&namespace.name).await["p"], now, "{what}");
        let versions = far.versions(&namespace.name).await;
        assert!(versions.is_none_or(|(count, _)| count == 2), "{what}: it was written once: {versions:?}");
        between.take_asked().into_iter().filter(|asked| matching(asked)).count()
    };
    let number = fails(None).await;
    let cases = FAULTS.into_iter().flat_map(|fault| (0..number).map(move |number| (number, fault)));
    stream::iter(cases).for_each_concurrent(12, |case| fails(Some(case)).map(|_| ())).await;
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-all"]
async fn a_vault_without_versions_fails_at_each_request_of_a_rotation() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let requests = each_request(&cluster, &Far::VaultV1(&vault), |asked| asked.contains("/v1/old/")).await;
    assert_eq!(requests, 4, "it is read by the look, before it is made, and just before it is written; it is written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-all"]
async fn oracle_fails_at_each_request_of_a_rotation() {
    let (cluster, oci) = (Cluster::shared().await, Oci::start().await);
    let matching: Matching = |asked| !asked.contains("versionNumber="); // nothing rests on whether the version before can go, which Oracle keeps
    let requests = each_request(&cluster, &Far::Oci(&oci), matching).await;
    let why = "it is read by the look, and before it is made, and for its id; its etag, and what is pending, are asked for; it is written; while that is under \
        way it is asked again; what is pending is read, and made the current one";
    assert_eq!(requests, 10, "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-all"]
async fn another_cluster_fails_at_each_request_of_a_rotation() {
    let ((_own, cluster), other) = (ControlPlane::start().await, Cluster::shared().await);
    let _operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    let elsewhere = Elsewhere::new(&cluster, &other, Some("seaworthy")).await;
    let matching: Matching = |asked| asked.contains("/secrets/"); // lists are what the SecretStore's own check asks for
    let requests = each_request(&cluster, &Far::Cluster(&elsewhere), matching).await;
    assert_eq!(
        requests, 5,
        "it is read by the look, and before it is made; whose it is is read; what was created becomes ours, and is written"
    );
}

/// A process that is killed, the one true kill -9 of each of the two kinds: what it asked of the store is done, and it never hears so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_for_real_while_it_waits_for_the_store() {
    let ((_own, cluster), vault) = (ControlPlane::start().await, Vault::start().await);
    let (between, namespace) = (Between::to(&vault.address).await, cluster.namespace("killed-for-real").await);
    let rotations = Rotations(&namespace);
    let store = namespace.store_through(&between, &vault).await;
    let process = Process::start(&cluster);
    rotations.create("app", pushed(&store, "app")).await;
    rotations.ready("app", 1).await;
    between.arm(|asked| asked.starts_with("POST /v1/secret/data/app "), 0, Fault::NoAnswer);
    rotations.ask("app", "rotate", "1").await;
    between.waits().await;
    drop(process);
    let process = Process::start(&cluster);
    rotations.ready("app", 2).await;
    assert_eq!(vault.get("app").await, (json!({"p": rotations.data("app").await["k"]}), 2), "it was written once");

    between.arm(|asked| asked.ends_with("/secret-id  "), 0, Fault::NoAnswer);
    let own = Own::new(&cluster, &vault, &between.address, "own").await;
    let first = own.now().await;
    between.waits().await;
    drop(process);
    let _process = Process::start(&cluster);
    let second = eventually("the secret id is another one", || async {
        let now = own.now().await;
        if now == first { Err("it is the first".into()) } else { Ok(now) }
    })
    .await;
    assert!(own.lets_in(&first).await && own.lets_in(&second).await);
    assert_eq!(own.left().await, 3, "the first, the one that nobody knows, which goes with it in a while, and the second");
}
