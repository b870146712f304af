//! Who uses a certificate is restarted, in order, once, and left alone by whoever said so.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use seaworthy::{api::certificate_rotation::RotationStepName, certificates::x509::Certificate};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Cluster, ControlPlane, Namespace, Operator, condition, eventually};

/// Plays the kubelet where there is no node: every Pod is Ready at once, but for those of `crashing` that get the second certificate.
struct Kubelet {
    task: JoinHandle<()>,
}

impl Kubelet {
    fn start(namespace: &Namespace, crashing: &'static str) -> Self {
        let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), &namespace.name);
        let secrets = namespace.secrets();
        let task = tokio::spawn(async move {
            loop {
                let secret = secrets.get_metadata_opt("web-tls").await.ok().flatten();
                let bad =
                    secret.is_some_and(|secret| secret.annotations().get("seaworthy.dev/revision").is_some_and(|revision| revision == "2"));
                for pod in pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default() {
                    let crashes = bad && pod.labels().get("app").is_some_and(|app| app == crashing);
                    let done = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()).is_some();
                    if !done {
                        let _ = pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status(crashes))).await;
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        });
        Self { task }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn status(crashes: bool) -> Value {
    let state = if crashes {
        json!({"waiting": {"reason": "CrashLoopBackOff"}})
    } else {
        json!({"running": {"startedAt": jiff::Timestamp::now().to_string()}})
    };
    let last = if crashes { json!({"terminated": {"exitCode": 7, "message": "cannot read tls.key"}}) } else { json!({}) };
    json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if crashes { "False" } else { "True" }}],
        "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": !crashes, "restartCount": 0, "state": state, "lastState": last}]}})
}

/// A Deployment of two Pods that mount the Secret `web-tls`.
fn deployment(name: &str, image: &str) -> Deployment {
    let labels = json!({"app": name});
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": image, "volumeMounts": [{"name": "tls", "mountPath": "/tls"}]}],
            "volumes": [{"name": "tls", "secret": {"secretName": "web-tls"}}]}}}}))
    .unwrap()
}

/// How many templates it has had; an annotation of the Deployment itself is none.
fn revision(deployment: &Deployment) -> i64 {
    deployment.annotations().get("deployment.kubernetes.io/revision").and_then(|revision| revision.parse().ok()).unwrap_or(1)
}

struct World {
    namespace: Namespace,
    deployments: Api<Deployment>,
    _kubelet: Kubelet,
}

impl World {
    /// A certificate, and Deployments that have it.
    async fn new(cluster: &Cluster, restart: Value, names: &[&str], crashing: &'static str) -> (Self, Operator) {
        let namespace = cluster.namespace("restarts").await;
        let deployments: Api<Deployment> = Api::namespaced(namespace.client.clone(), &namespace.name);
        namespace.create("web", json!({ "restart": restart })).await;
        let operator = cluster.operator(&namespace);
        namespace.ready("web", 1).await; // before it is there, no Pod that needs it starts
        let kubelet = Kubelet::start(&namespace, crashing);
        for name in names {
            deployments.create(&PostParams::default(), &deployment(name, "none.example/c:1")).await.unwrap();
        }
        (Self { namespace, deployments, _kubelet: kubelet }, operator)
    }

    /// All of these Deployments are available, and the certificate knows them.
    async fn settled(&self, summary: &str) {
        self.namespace
            .until("web", summary, |object| {
                let status = object.status.clone().unwrap_or_default();
                status.consumers.is_some_and(|consumers| consumers.summary == summary) && condition(object, "Reconciling").is_none()
            })
            .await;
        eventually("they are available", || async {
            let all = self.deployments.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
            let waiting = all.items.iter().find(|one| one.status.as_ref().and_then(|status| status.available_replicas) != Some(2));
            waiting.map_or(Ok(()), |one| Err(format!("{}: {:?}", one.name_any(), one.status)))
        })
        .await;
    }

    /// How often its template was changed, and when we say that we did.
    async fn restarts(&self, name: &str) -> (i64, Option<jiff::Timestamp>) {
        let found = self.deployments.get(name).await.unwrap();
        let note = found.annotations().get("restart.seaworthy.dev/secret.web-tls").and_then(|note| note.split(' ').nth(1)?.parse().ok());
        (revision(&found) - 1, note)
    }

    /// Times of the API server are whole seconds: what is done from now on is later than all Pods that there are, and than their containers.
    async fn a_second_later(&self) {
        let pods: Api<Pod> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        let all = pods.list(&ListParams::default()).await.unwrap().items;
        assert!(all.iter().all(|pod| pod.status.as_ref().is_some_and(|status| status.container_statuses.is_some())), "they have started");
        let now = jiff::Timestamp::now().as_second();
        eventually("a second is over", || async { if jiff::Timestamp::now().as_second() > now { Ok(()) } else { Err(String::new()) } })
            .await;
    }

    /// It was restarted, and a Pod of it crashes.
    async fn crashes(&self, name: &str) {
        let pods: Api<Pod> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        eventually("a Pod of it crashes", || async {
            let found = pods.list(&ListParams::default().labels(&format!("app={name}"))).await.map_err(|error| error.to_string())?;
            let crashes = |pod: &Pod| serde_json::to_string(&pod.status).is_ok_and(|status| status.contains("CrashLoopBackOff"));
            if found.items.iter().any(crashes) { Ok(()) } else { Err("none does".into()) }
        })
        .await;
    }

    async fn serial(&self) -> String {
        let chain = Certificate::chain(self.namespace.text("web-tls", "tls.crt").await.as_bytes()).unwrap();
        chain[0].serial.clone()
    }

    async fn rotate(&self, value: &str) {
        self.namespace.annotate("web", "seaworthy.dev/rotate", value).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_order_of_the_list_and_each_once() {
    let (_own, cluster) = ControlPlane::start().await;
    let restart = json!({"discover": true, "workloads": [{"kind": "Deployment", "name": "c"}]});
    let (world, operator) = World::new(&cluster, restart, &["a", "b", "c"], "").await;
    world.settled("6/6").await;
    assert_eq!(world.restarts("a").await, (0, None), "what was there before its users restarts nobody");
    world.rotate("1").await;
    world.namespace.ready("web", 2).await;
    world.settled("6/6").await;
    let (a, b, c) = (world.restarts("a").await, world.restarts("b").await, world.restarts("c").await);
    assert_eq!((a.0, b.0, c.0), (1, 1, 1));
    // It is over and noted: what is deployed later, and does not become healthy, is no failure of that restart.
    let note = world.deployments.get("a").await.unwrap().annotations()["restart.seaworthy.dev/secret.web-tls"].clone();
    assert!(note.ends_with(" done"), "{note}");
    assert!(c.1 <= a.1 && a.1 <= b.1, "{c:?} {a:?} {b:?}");
    // Nothing has changed: nobody is restarted, also by another process.
    operator.shut_down().await;
    let operator = cluster.operator(&world.namespace);
    world.namespace.change("web", json!({"secretTemplate": {"labels": {"looked": "again"}}})).await;
    world.namespace.ready("web", 2).await;
    world.settled("6/6").await;
    assert_eq!(world.restarts("a").await, a);
    // Again so soon: each workload has its rest first.
    world.rotate("2").await;
    let waits = world.namespace.says("web", "Reconciling", "True", "Restarting").await;
    assert!(waits.contains("3 of 3 workloads do not have certificate 3 yet"), "{waits}");
    assert_eq!(world.restarts("c").await, c);
    operator.clock.advance(jiff::SignedDuration::from_mins(2));
    world.namespace.annotate("web", "seaworthy.dev/look", "1").await;
    world.settled("6/6").await;
    assert_eq!(world.restarts("c").await.0, 2);
    let events = world.namespace.events().await;
    let told = events.iter().filter(|(reason, _)| reason == "Restarting").count();
    assert_eq!(told, 6, "{events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_become_healthy_ends_it_and_says_why() {
    let (_own, cluster) = ControlPlane::start().await;
    let (world, operator) =
        World::new(&cluster, json!({"discover": true, "timeout": "1h", "onFailure": "Pause"}), &["a", "b", "c"], "b").await;
    world.settled("6/6").await;
    world.rotate("1").await;
    world.crashes("b").await;
    operator.clock.advance(jiff::SignedDuration::from_hours(2));
    let said = world.namespace.says("web", "Stalled", "True", "RestartFailed").await;
    assert!(said.contains("Deployment b") && said.contains("CrashLoopBackOff, exit code 7: cannot read tls.key"), "{said}");
    assert_eq!((world.restarts("a").await.0, world.restarts("c").await.0), (1, 0));
    let object = world.namespace.rotations().get("web").await.unwrap();
    assert_eq!(condition(&object, "Ready").unwrap().0, "True", "the certificate is valid");
    assert_eq!(object.status.unwrap().last_failure.unwrap().reason, "RestartFailed");
}

/// The certificate of before is back, everybody has it, and nothing goes on.
async fn rolled_back(world: &World, before: &str, names: [&str; 3]) {
    let said = world.namespace.says("web", "Stalled", "True", "RolledBack").await;
    assert!(said.contains("Deployment b was restarted with certificate 2"), "{said}");
    assert!(said.contains("CrashLoopBackOff, exit code 7: cannot read tls.key"), "{said}");
    world.settled("6/6").await;
    assert_eq!(world.serial().await, before);
    let object = world.namespace.rotations().get("web").await.unwrap();
    let status = object.status.clone().unwrap();
    assert_eq!((status.revision, status.last_failure.unwrap().reason.as_str()), (Some(3), "RolledBack"));
    assert_eq!(condition(&object, "Ready").unwrap().0, "True", "what is there is valid");
    let last = status.last_rotation.unwrap();
    assert_eq!((last.reason.as_str(), last.completed_at), ("Requested", None));
    assert_eq!(last.steps.last().map(|step| step.name), Some(RotationStepName::RolledBack));
    let [a, b, c] = names;
    assert_eq!(
        (world.restarts(a).await.0, world.restarts(b).await.0, world.restarts(c).await.0),
        (2, 2, 0),
        "who had moved, and nobody else"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_cannot_live_with_is_taken_back_from_all() {
    let (_own, cluster) = ControlPlane::start().await;
    let (world, operator) = World::new(&cluster, json!({"discover": true, "timeout": "1h"}), &["a", "b", "c"], "b").await;
    world.settled("6/6").await;
    let before = world.serial().await;
    world.a_second_later().await;
    world.rotate("1").await;
    world.crashes("b").await;
    let object = world.namespace.rotations().get("web").await.unwrap();
    assert_eq!(object.status.unwrap().last_rotation.unwrap().completed_at, None, "not before all have it");
    operator.clock.advance(jiff::SignedDuration::from_hours(2));
    world.namespace.annotate("web", "seaworthy.dev/look", "1").await;
    rolled_back(&world, &before, ["a", "b", "c"]).await;
    // For the same cause it is not tried again, by another process neither.
    let clock = operator.clock.clone();
    operator.shut_down().await;
    let operator = cluster.operator_with(&world.namespace, clock);
    world.namespace.annotate("web", "seaworthy.dev/look", "2").await;
    world.settled("6/6").await;
    rolled_back(&world, &before, ["a", "b", "c"]).await;
    // A person has mended b and asks.
    operator.clock.advance(jiff::SignedDuration::from_hours(2));
    world.rotate("2").await;
    let object = world.namespace.ready("web", 4).await;
    world.settled("6/6").await;
    assert!(condition(&object, "Stalled").is_none());
    assert_ne!(world.serial().await, before);
    assert_eq!((world.restarts("a").await.0, world.restarts("b").await.0, world.restarts("c").await.0), (3, 3, 1));
    let done = world.namespace.until("web", "it is complete", |object| {
        object.status.as_ref().and_then(|status| status.last_rotation.as_ref()).is_some_and(|last| last.completed_at.is_some())
    });
    let steps: Vec<RotationStepName> = done.await.status.unwrap().last_rotation.unwrap().steps.iter().map(|step| step.name).collect();
    assert_eq!(steps, [RotationStepName::Issued, RotationStepName::Stored, RotationStepName::Restarted]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn going_back_needs_no_issuer() {
    let (_own, cluster) = ControlPlane::start().await;
    let (world, operator) = World::new(&cluster, json!({"discover": true, "timeout": "1h"}), &["a", "b", "c"], "b").await;
    world.settled("6/6").await;
    let before = world.serial().await;
    world.a_second_later().await;
    world.rotate("1").await;
    world.crashes("b").await;
    world.namespace.change("web", json!({"issuer": {"selfSigned": null, "ca": {"secretName": "none"}}})).await;
    world.namespace.says("web", "Reconciling", "True", "IssuerChanged").await;
    operator.clock.advance(jiff::SignedDuration::from_hours(2));
    world.namespace.annotate("web", "seaworthy.dev/look", "1").await;
    world.namespace.says("web", "Stalled", "True", "RolledBack").await;
    assert_eq!(world.serial().await, before);
    for (name, count) in [("a", 2), ("b", 2), ("c", 0)] {
        eventually(name, || async {
            let restarts = world.restarts(name).await.0;
            if restarts == count { Ok(()) } else { Err(restarts.to_string()) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_while_going_back_is_followed_by_one_that_goes_on() {
    let (_own, cluster) = ControlPlane::start().await;
    let cluster = &cluster;
    // Of the restarts, those after the first rotation are begun before and after the roll-back.
    let cases = [("roll-back", false), ("roll-back", true), ("restart", false), ("restart", true)];
    futures::future::join_all(cases.map(|(step, done)| async move {
        let (world, operator) = World::new(cluster, json!({"discover": true, "timeout": "1h"}), &["a", "b", "c"], "b").await;
        world.settled("6/6").await;
        let before = world.serial().await;
        world.a_second_later().await;
        world.rotate("1").await;
        world.crashes("b").await;
        operator.failpoint.arm(step, done, (step == "restart").then_some("roll-back"));
        operator.clock.advance(jiff::SignedDuration::from_hours(2));
        let clock = operator.clock.clone();
        world.namespace.annotate("web", "seaworthy.dev/look", "1").await;
        operator.failpoint.reached().await;
        operator.kill().await;
        let _operator = cluster.operator_with(&world.namespace, clock);
        rolled_back(&world, &before, ["a", "b", "c"]).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_pauses_undoes_or_makes_by_hand_is_left_alone() {
    let (own, cluster) = ControlPlane::start().await;
    let restart = json!({"discover": true, "workloads": [{"kind": "StatefulSet", "name": "gone"}], "strategy": "AllAtOnce"});
    let (world, operator) = World::new(&cluster, restart, &["paused", "undone"], "").await;
    let pods: Api<Pod> = Api::namespaced(world.namespace.client.clone(), &world.namespace.name);
    let template = serde_json::to_value(deployment("x", "none.example/c:1").spec.template.spec).unwrap();
    let bare: Pod = serde_json::from_value(json!({"metadata": {"name": "bare"}, "spec": template})).unwrap();
    pods.create(&PostParams::default(), &bare).await.unwrap();
    world.settled("5/5").await;
    let pause = Patch::Merge(json!({"spec": {"paused": true}}));
    world.deployments.patch("paused", &PatchParams::default(), &pause).await.unwrap();
    world.rotate("1").await;
    eventually("undone is restarted", || async { if world.restarts("undone").await.0 == 1 { Ok(()) } else { Err("not yet".into()) } })
        .await;
    // Some of its Pods are still of before when a person goes back, with kubectl, which takes the Deployment's annotations back too.
    let undo = ["--kubeconfig", &own.kubeconfig, "-n", &world.namespace.name, "rollout", "undo", "deployment/undone"];
    crate::support::command("kubectl", &undo, b"");
    let object = world
        .namespace
        .until("web", "it says who is left alone", |object| {
            condition(object, "Ready").is_some_and(|(_, _, said)| said.contains("Pod bare"))
        })
        .await;
    let said = condition(&object, "Ready").unwrap().2;
    for part in ["Deployment paused: it is paused", "Pod bare: restart it yourself"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(world.restarts("paused").await.0, 0);
    operator.clock.advance(jiff::SignedDuration::from_mins(5));
    world.namespace.annotate("web", "seaworthy.dev/look", "1").await;
    eventually("nothing goes on", || async {
        let object = world.namespace.rotations().get("web").await.map_err(|error| error.to_string())?;
        condition(&object, "Reconciling").map_or(Ok(()), |(_, _, said)| Err(said))
    })
    .await;
    assert_eq!(world.restarts("undone").await.0, 2, "the restart and the undo");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_pauses_in_the_middle_and_goes_on_later_is_not_late() {
    let (_own, cluster) = ControlPlane::start().await;
    let (world, operator) = World::new(&cluster, json!({"discover": true}), &["a"], "a").await;
    world.settled("2/2").await;
    world.rotate("1").await;
    world.crashes("a").await;
    let pause = async |paused: bool| {
        let patch = Patch::Merge(json!({"spec": {"paused": paused}}));
        world.deployments.patch("a", &PatchParams::default(), &patch).await.unwrap();
    };
    let says = async |what: &str| {
        let said =
            |object: &seaworthy::api::CertificateRotation| condition(object, "Ready").is_some_and(|(_, _, said)| said.contains(what));
        world.namespace.until("web", what, said).await
    };
    pause(true).await;
    says("Deployment a: it is paused").await;
    eventually("its restart is over for us", || async {
        let found = world.deployments.get("a").await.map_err(|error| error.to_string())?;
        let note = found.annotations().get("restart.seaworthy.dev/secret.web-tls").cloned().unwrap_or_default();
        if note.ends_with(" done") { Ok(()) } else { Err(note) }
    })
    .await;
    operator.clock.advance(jiff::SignedDuration::from_hours(1));
    pause(false).await;
    world.namespace.annotate("web", "seaworthy.dev/look", "1").await;
    let object = says("Deployment a: it has Pods of before its restart").await;
    assert!(condition(&object, "Stalled").is_none(), "nothing was taken back");
    assert_eq!(object.status.unwrap().revision, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_repeats_no_restart_and_loses_none() {
    let (_own, cluster) = ControlPlane::start().await;
    for done in [false, true] {
        let (world, mut operator) = World::new(&cluster, json!({"discover": true}), &["a", "b"], "").await;
        world.settled("4/4").await;
        operator.failpoint.arm("restart", done, None);
        world.rotate("1").await;
        for _ in 0..2 {
            operator.failpoint.reached().await;
            operator.kill().await;
            operator = cluster.operator(&world.namespace);
            operator.failpoint.arm("restart", done, None);
            if done {
                continue; // each of the two is done before the process dies
            }
            break;
        }
        operator.failpoint.disarm();
        world.namespace.ready("web", 2).await;
        world.settled("4/4").await;
        assert_eq!((world.restarts("a").await.0, world.restarts("b").await.0), (1, 1), "killed {}", if done { "after" } else { "before" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_around_what_completes_a_rotation() {
    let (_own, cluster) = ControlPlane::start().await;
    let cluster = &cluster;
    futures::future::join_all([false, true].map(|done| async move {
        let (world, operator) = World::new(cluster, json!({"discover": true}), &["a"], "").await;
        world.settled("2/2").await;
        operator.failpoint.arm("complete", done, None);
        world.rotate("1").await;
        operator.failpoint.reached().await;
        operator.kill().await;
        let _operator = cluster.operator(&world.namespace);
        let is_complete = |object: &seaworthy::api::CertificateRotation| {
            object
                .status
                .as_ref()
                .and_then(|status| status.last_rotation.as_ref())
                .is_some_and(|last| last.reason == "Requested" && last.completed_at.is_some())
        };
        world.namespace.until("web", "it is complete", is_complete).await;
        assert_eq!(world.restarts("a").await.0, 1, "killed {} it", if done { "after" } else { "before" });
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_together_is_brought_by_one_restart() {
    let (_own, cluster) = ControlPlane::start().await;
    let (world, operator) = World::new(&cluster, json!({"discover": true}), &[], "").await;
    world.namespace.create("other", json!({"restart": {"discover": true}})).await;
    world.namespace.ready("other", 1).await;
    let mut both = deployment("both", "none.example/c:1");
    let volumes = &mut both.spec.template.spec.as_mut().unwrap().volumes;
    volumes.get_or_insert_default().push(serde_json::from_value(json!({"name": "other", "secret": {"secretName": "other-tls"}})).unwrap());
    world.deployments.create(&PostParams::default(), &both).await.unwrap();
    world.settled("2/2").await;
    // The restart for whoever comes first is held until both have changed.
    operator.failpoint.arm("restart", false, None);
    world.rotate("1").await;
    world.namespace.annotate("other", "seaworthy.dev/rotate", "1").await;
    operator.failpoint.reached().await;
    for name in ["web-tls", "other-tls"] {
        eventually("it has changed", || async {
            let secret = world.namespace.secrets().get_metadata(name).await.map_err(|error| error.to_string())?;
            let revision = secret.annotations().get("seaworthy.dev/revision").cloned().unwrap_or_default();
            if revision == "2" { Ok(()) } else { Err(revision) }
        })
        .await;
    }
    let changed = jiff::Timestamp::now().as_second();
    eventually("a second is over", || async { if jiff::Timestamp::now().as_second() > changed { Ok(()) } else { Err(String::new()) } })
        .await;
    operator.failpoint.release();
    for name in ["web", "other"] {
        world
            .namespace
            .until(name, "it has been brought", |object| {
                let status = object.status.clone().unwrap_or_default();
                status.last_rotation.is_some_and(|last| last.reason == "Requested" && last.completed_at.is_some())
                    && status.consumers.is_some_and(|consumers| consumers.summary == "2/2")
            })
            .await;
    }
    assert_eq!(world.restarts("both").await.0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_wait_for_the_window_too() {
    let (_own, cluster) = ControlPlane::start().await;
    let (world, operator) = World::new(&cluster, json!({"discover": true}), &["a"], "").await;
    world.settled("2/2").await;
    // Open when it was issued, closed an hour later, and open again a day later.
    operator.failpoint.arm("restart", false, Some("store"));
    world.rotate("1").await;
    operator.failpoint.reached().await;
    let now = (jiff::Timestamp::now() - jiff::SignedDuration::from_mins(1)).to_zoned(jiff::tz::TimeZone::UTC);
    let schedule = format!("{} {} * * *", now.minute(), now.hour());
    world.namespace.change("web", json!({"window": {"schedule": schedule, "duration": "5m"}})).await;
    operator.kill().await;
    let clock = seaworthy::clock::Clock::default();
    clock.advance(jiff::SignedDuration::from_hours(1));
    let operator = cluster.operator_with(&world.namespace, clock);
    let waits = world.namespace.until("web", "it waits", |object| {
        condition(object, "Ready").is_some_and(|(_, _, said)| said.contains("restarts wait for the window, until"))
    });
    waits.await;
    assert_eq!(world.restarts("a").await.0, 0);
    // A window that cannot be read is not open.
    world.namespace.change("web", json!({"window": {"schedule": "when it suits"}})).await;
    world.namespace.says("web", "Stalled", "True", "InvalidSpec").await;
    world.namespace.annotate("web", "seaworthy.dev/look", "0").await;
    world.namespace.change("web", json!({"window": {"schedule": schedule}})).await;
    world
        .namespace
        .until("web", "it waits again", |object| {
            condition(object, "Ready").is_some_and(|(_, _, said)| said.contains("restarts wait for the window, until"))
                && condition(object, "Stalled").is_none()
        })
        .await;
    assert_eq!(world.restarts("a").await.0, 0);
    operator.clock.advance(jiff::SignedDuration::from_hours(23));
    world.namespace.annotate("web", "seaworthy.dev/look", "1").await;
    eventually("a is restarted in the window", || async { if world.restarts("a").await.0 == 1 { Ok(()) } else { Err("not yet".into()) } })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gitops_tool_applies_again_undoes_nothing() {
    let (own, cluster) = ControlPlane::start().await;
    let (world, _operator) = World::new(&cluster, json!({"discover": true}), &[], "").await;
    let manifest = |name: &str| {
        let mut manifest = serde_json::to_value(deployment(name, "none.example/c:1")).unwrap();
        manifest["apiVersion"] = json!("apps/v1");
        manifest["kind"] = json!("Deployment");
        manifest.to_string()
    };
    // As Argo CD and Flux do it, by server-side apply, and as `kubectl apply` does, by an update.
    let ways: [(&str, &[&str]); 3] = [
        ("argo", &["--server-side", "--field-manager=argocd-controller"]),
        ("flux", &["--server-side", "--field-manager=kustomize-controller", "--force-conflicts"]),
        ("client", &[]),
    ];
    let kubectl = |verb: &str, name: &str, more: &[&str]| {
        let common = [verb, "--kubeconfig", &own.kubeconfig, "-n", &world.namespace.name, "-f", "-"];
        crate::support::try_command("kubectl", &[&common, more].concat(), manifest(name).as_bytes())
    };
    for (name, how) in ways {
        let (done, said) = kubectl("apply", name, how);
        assert!(done, "{said}");
    }
    world.settled("6/6").await;
    world.rotate("1").await;
    world.namespace.ready("web", 2).await;
    world.settled("6/6").await;
    for (name, how) in ways {
        assert_eq!(world.restarts(name).await.0, 1, "{name}");
        let (same, diff) = kubectl("diff", name, how);
        assert!(same, "{name}: {diff}");
        let (done, said) = kubectl("apply", name, how);
        assert!(done, "{said}");
        assert_eq!(world.restarts(name).await.0, 1, "{name}: its restart is not undone");
        let marks = world.deployments.get(name).await.unwrap().spec.template.metadata.unwrap().annotations.unwrap();
        assert!(marks.contains_key("restart.seaworthy.dev/secret.web-tls"), "{name}: {marks:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_workloads_keep_to_the_budget() {
    const COUNT: usize = 50;
    let (_own, cluster) = ControlPlane::start().await;
    let names: Vec<String> = (0..COUNT).map(|number| format!("w{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (world, _operator) = World::new(&cluster, json!({"discover": true, "strategy": "AllAtOnce"}), &names, "").await;
    world.settled("100/100").await;
    world.rotate("1").await;
    world.namespace.ready("web", 2).await;
    let mut most = 0;
    let deadline = tokio::time::Instant::now() + 3 * crate::support::PATIENCE;
    loop {
        assert!(tokio::time::Instant::now() < deadline, "not all were begun");
        let all = world.deployments.list(&ListParams::default()).await.unwrap().items;
        let noted = |one: &Deployment| one.annotations().get("restart.seaworthy.dev/secret.web-tls").cloned();
        let begun: Vec<&Deployment> = all.iter().filter(|one| noted(one).is_some()).collect();
        let open = begun.iter().filter(|one| !noted(one).is_some_and(|note| note.ends_with(" done"))).filter(|one| {
            let status = one.status.clone().unwrap_or_default();
            status.observed_generation < one.metadata.generation
                || status.updated_replicas != Some(2)
                || status.available_replicas != Some(2)
                || status.replicas != Some(2)
        });
        most = most.max(open.count());
        if begun.len() == COUNT {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(most, 1, "one at a time in a namespace");
    world.settled("100/100").await;
    for name in names {
        assert_eq!(world.restarts(name).await.0, 1, "{name}");
    }
}
