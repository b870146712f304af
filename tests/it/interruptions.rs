//! A rotation is interrupted at every step: the process dies, the store goes away and comes back, the lease is lost.

use futures::{StreamExt, stream};
use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use seaworthy::{
    api::SecretRotation,
    clock::Clock,
    secrets::{controller, rotate},
};
use serde_json::{Value, json};

use crate::support::{Between, Cluster, Namespace, Operator, PATIENCE, Rotations, Vault, eventually, said};

#[derive(Clone, Copy, Debug)]
enum Interruption {
    Killed,
    StoreAway,
    LeaseLost,
}

/// A generated value that goes to Vault, and a text made of it that is brought there as well.
struct App<'a> {
    namespace: &'a Namespace,
    vault: &'a Vault,
    between: Between,
    generated: String,
    copied: String,
    what: String,
}

impl App<'_> {
    async fn spec(&self) -> Value {
        let store = self.namespace.store_through(&self.between, self.vault).await;
        let remote = |key: &str| json!({"key": key, "property": "p"});
        json!({
            "target": {"name": "app"}, "store": store,
            "rotation": {"generate": [{"secretKey": "k", "hex": {}}], "push": [{"secretKey": "k", "remoteRef": remote(&self.generated)}]},
            "template": {"mergePolicy": "Merge", "data": {"text": "k={{ k }}"}},
            "push": [{"secretKey": "text", "remoteRef": remote(&self.copied)}],
        })
    }

    /// Which versions of a value are deleted.
    async fn versions(&self, key: &str) -> Vec<bool> {
        let (_, answer) = self.vault.try_call("GET", &format!("secret/metadata/{key}"), Value::Null).await;
        let Some(versions) = answer["data"]["versions"].as_object() else { return Vec::new() };
        (1..=versions.len()).map(|number| versions[&number.to_string()]["deletion_time"] != "").collect()
    }

    /// Waits until all is as if nothing had happened: one rotation, each value written once.
    async fn settled(&self) {
        let (rotations, what) = (Rotations(self.namespace), &self.what);
        eventually(&format!("{what}: the store has it all"), || async {
            let (there, of_it) = (self.vault.get(&self.generated).await.0, self.versions(&self.generated).await);
            let copies = self.versions(&self.copied).await;
            let here = rotations.data("app").await;
            let same = there["p"] == here["k"] && self.vault.get(&self.copied).await.0["p"] == here["text"];
            // The version before of what was generated is deleted, of the copy it is not.
            if same && of_it == [true, false] && copies == [false, false] { Ok(()) } else { Err(format!("{same} {of_it:?} {copies:?}")) }
        })
        .await;
        let object = rotations.ready("app", 2).await;
        assert!(said(&object, "Stalled").is_none() && object.status.unwrap().pushed.len() == 1, "{what}");
        let left = self.namespace.secrets().get("app").await.unwrap().metadata.annotations.unwrap();
        assert!(!left.contains_key("seaworthy.dev/superseded-versions"), "{what}");
        assert!(self.namespace.secrets().get_opt("app-pending").await.unwrap().is_none(), "{what}");
    }
}

/// What stands in a namespace: each object in which version.
async fn standing(namespace: &Namespace) -> Vec<(String, Option<String>)> {
    fn versions<K: kube::Resource + Clone>(objects: kube::core::ObjectList<K>) -> impl Iterator<Item = (String, Option<String>)> {
        objects.items.into_iter().map(|object| (object.name_any(), object.resource_version()))
    }
    let all = kube::api::ListParams::default();
    let secrets = namespace.secrets().list(&all).await.unwrap();
    let rotations = Rotations(namespace).api().list(&all).await.unwrap();
    versions(secrets).chain(versions(rotations)).collect()
}

/// Somebody else takes the lease in `namespace`, and the operator sees that.
pub async fn lease_is_taken(namespace: &Namespace, operator: &Operator) {
    let leases: Api<Lease> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let taken = json!({"spec": {"holderIdentity": "somebody else", "leaseDurationSeconds": 1}});
    leases.patch("seaworthy", &PatchParams::default(), &Patch::Merge(taken)).await.unwrap();
    operator.stops().await;
}

/// Takes the lease away from an operator that has stopped at a failpoint, and lets it go on: it does nothing any more.
pub async fn loses_its_lease(namespace: &Namespace, operator: Operator, between: &Between, what: &str) {
    lease_is_taken(namespace, &operator).await;
    let before = standing(namespace).await;
    between.take_asked();
    operator.failpoint.release();
    let ended = operator.ended().await.unwrap_err().to_string();
    assert!(ended.contains("taken over by somebody else"), "{what}: {ended}");
    let asked = between.take_asked();
    assert!(asked.iter().all(|asked| asked.starts_with("GET")), "{what}: who does not lead writes nothing to a store: {asked:?}");
    assert_eq!(standing(namespace).await, before, "{what}: nor to the cluster");
}

async fn interrupted(cluster: &Cluster, vault: &Vault, (step, done, by): (&'static str, bool, Interruption)) {
    let namespace = &cluster.namespace("interrupted").await;
    let (rotations, between) = (Rotations(namespace), Between::to(&vault.address).await);
    let what = format!("{by:?} {} {step}", if done { "after" } else { "before" });
    let (generated, copied) = (format!("{}-generated", namespace.name), format!("{}-copied", namespace.name));
    let app = App { namespace, vault, between, generated, copied, what };
    let what = &app.what;
    // With rights of its own, as it keeps its lease beside the resource.
    let start = |name: &str| match by {
        Interruption::LeaseLost => {
            Operator::elected(cluster.client.clone(), vec![namespace.name.clone()], &namespace.name, (name, Clock::default()))
        }
        Interruption::Killed | Interruption::StoreAway => cluster.operator(namespace),
    };
    let operator = start("first");
    rotations.create("app", app.spec().await).await;
    rotations.ready("app", 1).await;
    assert_eq!(app.versions(&app.copied).await, [false], "Ready says that it is there");
    // Reading, reporting and what follows are parts of every look; what is meant is that of the rotation.
    let of_every_look = step == "report" || controller::STEPS.contains(&step);
    operator.failpoint.arm(step, done, of_every_look.then_some("store"));
    rotations.ask("app", "rotate", "1").await;
    tokio::time::timeout(PATIENCE, operator.failpoint.reached()).await.unwrap_or_else(|_| panic!("{what}: it was not reached"));
    match by {
        Interruption::Killed => {
            operator.kill().await;
            let _operator = start("second");
            app.settled().await;
        }
        Interruption::StoreAway => {
            app.between.cut(true);
            operator.failpoint.release();
            let is_away = |object: &SecretRotation| {
                said(object, "Ready").is_some_and(|(status, reason, _)| status == "False" && reason == "StoreUnavailable")
            };
            rotations.until("app", &format!("{what}: it says that the store is away"), is_away).await;
            let here = rotations.data("app").await;
            assert_eq!(here["text"], format!("k={}", here["k"]), "{what}: no half of it is changed");
            app.between.cut(false);
            operator.clock.advance(SignedDuration::from_mins(6));
            rotations.ask("app", "look", "1").await;
            app.settled().await;
        }
        Interruption::LeaseLost => {
            loses_its_lease(namespace, operator, &app.between, what).await;
            let _operator = start("second");
            app.settled().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_every_step_in_every_way() {
    let (cluster, vault) = (&Cluster::shared().await, &Vault::start().await);
    let steps = || rotate::STEPS.iter().chain(controller::STEPS).flat_map(|step| [(*step, false), (*step, true)]);
    // Killed at the steps of the rotation itself: with three stores in `secret_faults`.
    let killed = controller::STEPS.iter().flat_map(|step| [(*step, false), (*step, true)]);
    let cases = killed.map(|(step, done)| (step, done, Interruption::Killed));
    let cases = cases.chain(steps().map(|(step, done)| (step, done, Interruption::LeaseLost)));
    let cases = cases.chain(steps().map(|(step, done)| (step, done, Interruption::StoreAway)));
    stream::iter(cases).for_each_concurrent(12, |case| interrupted(cluster, vault, case)).await;
}
