//! A rotation is interrupted at every step: the process dies, the store goes away and comes back, the lease is lost.

use futures::{StreamExt, stream};
use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use seaworthy::{
    api::SecretRotation,
    clock::Clock,
    secrets::{controller, writing::rotate},
};
use serde_json::{Value, json};

use crate::support::{
    Between, Cluster, ControlPlane, Elsewhere, Far, Moto, Namespace, Operator, PATIENCE, Rotations, Vault, eventually, oci::Oci, said,
};

#[derive(Clone, Copy, Debug)]
enum Interruption {
    Killed,
    StoreAway,
    LeaseLost,
}

/// A generated value that goes to the store, and a text made of it that is brought there as well.
struct App<'a> {
    namespace: &'a Namespace,
    far: &'a Far<'a>,
    between: Between,
    generated: String,
    copied: String,
    what: String,
}

impl App<'_> {
    async fn spec(&self) -> Value {
        let mut spec = self.far.store(self.namespace, &self.between.address).await;
        let remote = |key: &str| json!({"key": key, "property": "p"});
        spec["target"] = json!({"name": "app"});
        spec["rotation"] =
            json!({"generate": [{"secretKey": "k", "hex": {}}], "push": [{"secretKey": "k", "remoteRef": remote(&self.generated)}]});
        spec["template"] = json!({"mergePolicy": "Merge", "data": {"text": "k={{ k }}"}});
        spec["push"] = json!([{"secretKey": "text", "remoteRef": remote(&self.copied)}]);
        spec
    }

    /// Waits until all is as if nothing had happened: one rotation, each value written once.
    async fn settled(&self) {
        let (rotations, far, what) = (Rotations(self.namespace), self.far, &self.what);
        eventually(&format!("{what}: the store has it all"), || async {
            let (there, copy) = (far.get(&self.generated).await, far.get(&self.copied).await);
            let here = rotations.data("app").await;
            let same = there["p"] == here["k"] && copy["p"] == here["text"];
            let versions = (far.versions(&self.generated).await, far.versions(&self.copied).await);
            // The version before of what was generated goes, where the store lets it; of the copy it does not.
            let once =
                versions.0.is_none_or(|versions| versions == (2, !far.retires())) && versions.1.is_none_or(|copies| copies == (2, true));
            if same && once { Ok(()) } else { Err(format!("{same} {versions:?}")) }
        })
        .await;
        let object = rotations.ready("app", 2).await;
        assert!(said(&object, "Stalled").is_none() && object.status.unwrap().pushed.len() == 1, "{what}");
        let left = self.namespace.secrets().get("app").await.unwrap().metadata.annotations.unwrap();
        assert!(matches!(far, Far::Oci(_)) || !left.contains_key("seaworthy.dev/superseded-versions"), "{what}");
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
    let is_read = |asked: &String| asked.starts_with("GET") || asked.contains(".GetSecretValue") || asked.contains("/actions/getByName?");
    assert!(asked.iter().all(is_read), "{what}: who does not lead writes nothing to a store: {asked:?}");
    assert_eq!(standing(namespace).await, before, "{what}: nor to the cluster");
}

async fn interrupted(cluster: &Cluster, far: &Far<'_>, (step, done, by): (&'static str, bool, Interruption)) {
    let namespace = &cluster.namespace("interrupted").await;
    let (rotations, between) = (Rotations(namespace), Between::to(&far.server()).await);
    let what = format!("{far}: {by:?} {} {step}", if done { "after" } else { "before" });
    let (generated, copied) = (format!("{}-generated", namespace.name), format!("{}-copied", namespace.name));
    let app = App { namespace, far, between, generated, copied, what };
    let what = &app.what;
    // A SecretStore is only for an operator that looks after all namespaces.
    let namespaces = || if matches!(far, Far::Cluster(_)) { Vec::new() } else { vec![namespace.name.clone()] };
    // With rights of its own, as it keeps its lease beside the resource.
    let start = |name: &str| match by {
        Interruption::LeaseLost => Operator::elected(cluster.client.clone(), namespaces(), &namespace.name, (name, Clock::default())),
        Interruption::Killed | Interruption::StoreAway => Operator::start(cluster.operator.clone(), namespaces(), &namespace.name),
    };
    let operator = start("first");
    rotations.create("app", app.spec().await).await;
    rotations.ready("app", 1).await;
    assert!(far.versions(&app.copied).await.is_none_or(|(count, _)| count == 1), "Ready says that it is there");
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
    rotations.api().delete("app", &DeleteParams::default()).await.unwrap();
}

fn around(steps: &[&'static str], by: Interruption) -> impl Iterator<Item = (&'static str, bool, Interruption)> {
    steps.iter().flat_map(move |step| [(*step, false, by), (*step, true, by)])
}

/// All of them. Those in which it is killed at the steps of the rotation itself are in `secret_faults` as well.
fn all() -> impl Iterator<Item = (&'static str, bool, Interruption)> {
    let ways = [Interruption::Killed, Interruption::LeaseLost, Interruption::StoreAway];
    ways.into_iter().flat_map(|by| around(rotate::STEPS, by).chain(around(controller::STEPS, by)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_every_step_in_every_way() {
    let (cluster, vault) = (&Cluster::shared().await, &Vault::start().await);
    let cases = all().filter(|(step, _, by)| !matches!(by, Interruption::Killed) || !rotate::STEPS.contains(step));
    stream::iter(cases).for_each_concurrent(12, |case| async move { interrupted(cluster, &Far::Vault(vault), case).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-all"]
async fn with_other_stores_too() {
    let cluster = &Cluster::shared().await;
    let (vault, moto, oci) = (&Vault::start().await, &Moto::start().await, &Oci::start().await);
    let stores = [Far::VaultV1(vault), Far::Aws(moto), Far::Oci(oci)];
    let cases = stores.iter().flat_map(|far| all().map(move |case| (far, case)));
    stream::iter(cases).for_each_concurrent(12, |(far, case)| interrupted(cluster, far, case)).await;
}

/// One after the other, because who uses another cluster looks after all namespaces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-all"]
async fn with_another_cluster_too() {
    let ((_own, cluster), other) = (ControlPlane::start().await, Cluster::shared().await);
    let far = Far::Cluster(&Elsewhere::new(&cluster, &other, None).await);
    for case in all() {
        interrupted(&cluster, &far, case).await;
    }
}
