//! What may go wrong while a value that was pushed is brought to who uses it, and taken back: the store fails or goes away, the lease is lost.

use futures::{StreamExt, stream};
use jiff::SignedDuration;
use seaworthy::{api::SecretRotation, secrets::deliver::STEPS};
use serde_json::{Value, json};

use crate::{
    delivery::{pushing, rotated_and_crashing},
    interruptions::loses_its_lease,
    support::{Between, Cluster, ControlPlane, Fault, Moto, Namespace, Operator, PATIENCE, Rotations, Vault, said},
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
    let ((_own, cluster), vault, moto) = (&ControlPlane::start().await, &Vault::start().await, &Moto::start().await);
    // It is read before it is written, and written; with AWS the version before is read as well, and promoted. A look that begins later reads it, too.
    let of_vault: [Request; 2] =
        [(|asked| asked.starts_with("GET /v1/secret/data/"), 0), (|asked| asked.starts_with("POST /v1/secret/data/"), 0)];
    let of_aws: [Request; 3] = [
        (|asked| asked.contains("GetSecretValue"), 0),
        (|asked| asked.contains("GetSecretValue"), 1),
        (|asked| asked.contains("UpdateSecretVersionStage"), 0),
    ];
    let requests = of_vault.map(|request| (false, request)).into_iter().chain(of_aws.map(|request| (true, request))).enumerate();
    let cases = requests.flat_map(|request| [Fault::Answer(500), Fault::AnswerLost].map(|fault| (request, fault)));
    stream::iter(cases)
        .for_each_concurrent(5, |((number, (in_aws, (matching, n))), fault)| async move {
            let what = format!("{fault:?} at request {number}");
            let between = Between::to(if in_aws { &moto.address } else { &vault.address }).await;
            let key = format!("back-{number}-{}", fault == Fault::AnswerLost);
            let store = async |namespace: &Namespace| {
                if in_aws { namespace.store_in_aws(&between.address).await } else { namespace.store_through(&between, vault).await }
            };
            if in_aws {
                moto.call("CreateSecret", json!({"Name": key, "SecretString": before().to_string()})).await;
            } else {
                vault.put(&key, before()).await;
            }
            let (world, operator) = rotated_and_crashing(cluster, &key, store, "1h").await;
            between.arm(matching, n, fault);
            operator.clock.advance(HOUR);
            is_back(&world.namespace).await;
            assert!(between.struck(), "{what}: there was no such request");
            if in_aws {
                assert_eq!((moto.get(&key).await, moto.versions(&key).await), (before(), 2), "{what}");
            } else {
                assert_eq!(vault.get(&key).await, (before(), 3), "{what}: it was written once");
            }
        })
        .await;
}

#[derive(Clone, Copy, Debug)]
enum Interruption {
    StoreAway,
    LeaseLost,
}

async fn interrupted(cluster: &Cluster, vault: &Vault, (step, done, by): (&'static str, bool, Interruption)) {
    let what = format!("{by:?} {} {step}", if done { "after" } else { "before" });
    let (between, key) = (Between::to(&vault.address).await, format!("delivered-{step}-{done}-{by:?}"));
    vault.put(&key, before()).await;
    let goes_back = step == "roll-back";
    let store = async |namespace: &Namespace| namespace.store_through(&between, vault).await;
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
        assert_eq!(vault.get(&key).await, (before(), 3), "{what}");
        return;
    }
    let is_complete = |object: &SecretRotation| {
        let status = object.status.clone().unwrap_or_default();
        let all = status.consumers.is_some_and(|consumers| consumers.summary == "4/4");
        status.revision == Some(2) && all && status.last_rotation.is_some_and(|last| last.completed_at.is_some())
    };
    rotations.until("web", &format!("{what}: all have the new value"), is_complete).await;
    let now = rotations.data("web-tls").await["value"].clone();
    assert_eq!(vault.get(&key).await, (json!({"value": now, "other": "o"}), 2), "{what}");
    assert_eq!(world.restarts("a").await.0, 1, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_at_every_step_of_a_delivery() {
    let ((_own, cluster), vault) = (&ControlPlane::start().await, &Vault::start().await);
    let by = [Interruption::StoreAway, Interruption::LeaseLost];
    let cases = STEPS.iter().flat_map(|step| [(*step, false), (*step, true)]);
    let cases = cases.flat_map(|(step, done)| by.map(|by| (step, done, by)));
    stream::iter(cases).for_each_concurrent(6, |case| interrupted(cluster, vault, case)).await;
}
