//! What may go wrong while a value that was pushed is brought to who uses it, and taken back: the store fails or goes away, the lease is lost.

use futures::{StreamExt, stream};
use jiff::SignedDuration;
use seaworthy::{api::SecretRotation, secrets::deliver::STEPS};
use serde_json::{Value, json};

use crate::{
    delivery::{pushing, rotated_and_crashing},
    interruptions::loses_its_lease,
    support::{Between, Cluster, Far, Fault, Faults, Moto, Namespace, Operator, PATIENCE, Rotations, Vault, eventually, oci::Oci, said},
};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Which one: of those that match, the so-many-th (from 0).
type Request = (fn(&str) -> bool, usize);

/// What is in the store before.
fn before() -> Value {
    json!({"value": "1", "other": "o"})
}

/// The values of before are back in the Secret, and that is said.
async fn is_back(namespace: &Namespace) {
    let rotations = Rotations(namespace);
    rotations.says("web", "Stalled", "True", "RolledBack").await;
    assert_eq!(rotations.data("web-tls").await["value"], "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-all"]
async fn each_request_of_a_roll_back_may_fail() {
    let (cluster, vault) = (&Cluster::without_node().await, &Vault::start().await);
    let (moto, oci) = (&Moto::start().await, &Oci::start().await);
    // It is read before it is written, and written; with AWS and OCI the version before is read as well, and promoted. A look that begins later reads it,
    // too.
    let of_vault: &[Request] =
        &[(|asked| asked.starts_with("GET /v1/secret/data/"), 0), (|asked| asked.starts_with("POST /v1/secret/data/"), 0)];
    let of_v1: &[Request] = &[(|asked| asked.starts_with("GET /v1/old/"), 0), (|asked| asked.starts_with("POST /v1/old/"), 0)];
    let of_aws: &[Request] = &[
        (|asked| asked.contains("GetSecretValue"), 0),
        (|asked| asked.contains("GetSecretValue"), 1),
        (|asked| asked.contains("UpdateSecretVersionStage"), 0),
    ];
    let of_oci: &[Request] = &[
        (|asked| asked.contains("/secretbundles/"), 0),
        (|asked| asked.contains("/secretbundles/"), 1),
        (|asked| asked.starts_with("PUT"), 0),
    ];
    let stores = [(Far::Vault(vault), of_vault), (Far::VaultV1(vault), of_v1), (Far::Aws(moto), of_aws), (Far::Oci(oci), of_oci)];
    let requests = stores.iter().flat_map(|(far, requests)| requests.iter().map(move |request| (far, *request))).enumerate();
    let cases = requests.flat_map(|request| [Fault::Answer(500), Fault::AnswerLost].map(|fault| (request, fault)));
    stream::iter(cases)
        .for_each_concurrent(5, |((number, (far, (matching, n))), fault)| async move {
            let what = format!("{far}: {fault:?} at request {number}");
            let between = Between::to(&far.server()).await;
            let key = format!("back-{number}-{}", fault == Fault::AnswerLost);
            let store = async |namespace: &Namespace| far.store(namespace, &between.address).await["store"].take();
            far.put(&key, before()).await;
            let (world, operator) = rotated_and_crashing(cluster, &key, store, "1h").await;
            between.arm(matching, n, fault);
            operator.clock.advance(HOUR);
            is_back(&world.namespace).await;
            assert!(between.struck(), "{what}: there was no such request");
            is_as_before(far, &key, &what).await;
        })
        .await;
}

/// Vault has another version that is as the first; where the first can be made the current one again, there is none.
async fn is_as_before(far: &Far<'_>, key: &str, what: &str) {
    assert_eq!(far.get(key).await, before(), "{what}");
    let (versions, wanted) = (far.versions(key).await, if matches!(far, Far::Vault(_)) { 3 } else { 2 });
    assert!(versions.is_none_or(|(count, _)| count == wanted), "{what}: it was written once: {versions:?}");
}

/// The versions in the store that the Secret names under this annotation, each with what proves that the operator has noted it.
async fn noted(namespace: &Namespace, annotation: &str) -> String {
    let secret = namespace.secrets().get("web-tls").await.unwrap();
    secret.metadata.annotations.unwrap_or_default().remove(annotation).unwrap_or_default()
}

/// Killed when the store has the value of before, and the Secret has not: who goes on with it gives up the version that was taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_the_store_and_the_secret() {
    let (cluster, vault) = (&Cluster::without_node().await, &Vault::start().await);
    let (moto, oci) = (&Moto::start().await, &Oci::start().await);
    let stores = [Far::Vault(vault), Far::Aws(moto), Far::Oci(oci)];
    stream::iter(&stores)
        .for_each_concurrent(3, |far| async move {
            far.put("taken-back", before()).await;
            let store = async |namespace: &Namespace| far.store(namespace, &far.server()).await["store"].take();
            let (world, operator) = rotated_and_crashing(cluster, "taken-back", store, "1h").await;
            let (namespace, rotations) = (&world.namespace, Rotations(&world.namespace));
            let rejected = noted(namespace, "seaworthy.dev/current-versions").await;
            let rejected = serde_json::from_str::<Value>(&rejected).unwrap().as_object().unwrap().values().next().unwrap().to_string();
            let (faults, clock) = (Faults::default(), operator.clock.clone());
            operator.kill().await;
            faults.refuse_writes("/secrets/web-tls");
            clock.advance(HOUR);
            let client = faults.client(cluster.operator_config.clone());
            let unlucky = Operator::start_with(client, vec![namespace.name.clone()], &namespace.name, clock.clone());
            eventually("the store has the value of before", || async {
                let there = far.get("taken-back").await;
                if there == before() { Ok(()) } else { Err(there.to_string()) }
            })
            .await;
            assert_ne!(rotations.data("web-tls").await["value"], "1", "{far}");
            unlucky.kill().await;
            let operator = cluster.operator_with(namespace, clock);
            is_back(namespace).await;
            is_as_before(far, "taken-back", "killed").await;
            let superseded = noted(namespace, "seaworthy.dev/superseded-versions").await;
            assert!(superseded.contains(&rejected), "{far}: {rejected} is not in {superseded}");
            rotations.consumers("web", "4/4").await;
            // Nobody is restarted twice within a minute, and what is being restarted has an hour: of the clock, if it moves after the restarts.
            world.finished("b").await;
            // With the next one, which nobody crashes with, it goes.
            operator.clock.advance(HOUR);
            rotations.ask("web", "rotate", "2").await;
            eventually(&format!("{far}: the version that was rejected is given up"), || async {
                let superseded = noted(namespace, "seaworthy.dev/superseded-versions").await;
                if superseded.contains(&rejected) || !far.has_given_up("taken-back", 2).await {
                    Err(format!(
                        "{superseded} {:?} {:?}",
                        rotations.api().get("web").await.unwrap().status,
                        namespace.secrets().get("web-tls").await.unwrap().metadata.annotations
                    ))
                } else {
                    Ok(())
                }
            })
            .await;
        })
        .await;
}

#[derive(Clone, Copy, Debug)]
enum Interruption {
    StoreAway,
    LeaseLost,
}

async fn interrupted(cluster: &Cluster, far: &Far<'_>, (step, done, by): (&'static str, bool, Interruption)) {
    let what = format!("{far}: {by:?} {} {step}", if done { "after" } else { "before" });
    let (between, key) = (Between::to(&far.server()).await, format!("delivered-{step}-{done}-{by:?}"));
    far.put(&key, before()).await;
    let goes_back = step == "roll-back";
    let store = async |namespace: &Namespace| far.store(namespace, &between.address).await["store"].take();
    let (world, mut operator) = pushing(cluster, (&key, store), ("1h", if goes_back { "b" } else { "none" })).await;
    let (namespace, rotations) = (&world.namespace, Rotations(&world.namespace));
    let clock = operator.clock.clone();
    let elected =
        |name: &str| Operator::elected(cluster.client.clone(), vec![namespace.name.clone()], &namespace.name, (name, clock.clone()));
    if matches!(by, Interruption::LeaseLost) {
        operator.kill().await;
        operator = elected("first");
    }
    if goes_back {
        rotations.ask("web", "rotate", "1").await;
        world.crashes("b").await;
        operator.failpoint.arm(step, done, None);
        operator.clock.advance(HOUR);
        rotations.ask("web", "look", "1").await;
    } else {
        operator.failpoint.arm(step, done, None);
        rotations.ask("web", "rotate", "1").await;
    }
    tokio::time::timeout(PATIENCE, operator.failpoint.reached()).await.unwrap_or_else(|_| panic!("{what}: it was not reached"));
    let _operator = match by {
        Interruption::StoreAway => {
            between.cut(true);
            operator.failpoint.release();
            if goes_back && !done {
                let is_away = |object: &SecretRotation| said(object, "Ready").is_some_and(|(_, reason, _)| reason == "StoreUnavailable");
                rotations.until("web", &format!("{what}: it says that the store is away"), is_away).await;
                between.cut(false);
                operator.clock.advance(SignedDuration::from_mins(6));
                rotations.ask("web", "look", "2").await;
            }
            operator // what is in the Secret already is delivered without the store
        }
        Interruption::LeaseLost => {
            loses_its_lease(namespace, operator, &between, &what).await;
            elected("second")
        }
    };
    if goes_back {
        is_back(namespace).await;
        return is_as_before(far, &key, &what).await;
    }
    rotations.complete("web", 2).await;
    rotations.consumers("web", "4/4").await;
    let now = rotations.data("web-tls").await["value"].clone();
    assert_eq!(far.get(&key).await, json!({"value": now, "other": "o"}), "{what}");
    let versions = far.versions(&key).await;
    assert!(versions.is_none_or(|(count, _)| count == 2), "{what}: {versions:?}");
    assert_eq!(world.restarts("a").await.0, 1, "{what}");
}

fn all() -> impl Iterator<Item = (&'static str, bool, Interruption)> {
    let cases = STEPS.iter().flat_map(|step| [(*step, false), (*step, true)]);
    cases.flat_map(|(step, done)| [Interruption::StoreAway, Interruption::LeaseLost].map(|by| (step, done, by)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_at_every_step_of_a_delivery() {
    let (cluster, vault) = (&Cluster::without_node().await, &Vault::start().await);
    stream::iter(all()).for_each_concurrent(6, |case| async move { interrupted(cluster, &Far::Vault(vault), case).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-all"]
async fn interrupted_at_every_step_of_a_delivery_with_other_stores() {
    let (cluster, vault) = (&Cluster::without_node().await, &Vault::start().await);
    let (moto, oci) = (&Moto::start().await, &Oci::start().await);
    let stores = [Far::VaultV1(vault), Far::Aws(moto), Far::Oci(oci)];
    let cases = stores.iter().flat_map(|far| all().map(move |case| (far, case)));
    stream::iter(cases).for_each_concurrent(6, |(far, case)| interrupted(cluster, far, case)).await;
}
