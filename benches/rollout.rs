//! The rollout's figures of docs/performance.md: 3,000 workloads use one Secret, and it changes. How soon the first is restarted, how many at a
//! time, how long it takes. The part of the controller manager and the kubelet is played here, at once, so that it is the operator that is
//! measured. Run it with `make bench`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement ends at the first error, and prints")]

mod support;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Secret},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use seaworthy::api::CertificateRotation;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use self::support::{Operator, PARALLEL};

const NAMESPACE: &str = "rollout";
const WORKLOADS: usize = 3000;
const LIMIT: usize = 10;
const MARK: &str = "restart.seaworthy.dev/secret.web-tls";

#[tokio::main]
async fn main() {
    seaworthy::install_crypto_provider();
    let client = Client::try_default().await.unwrap();
    let limit = LIMIT.to_string();
    let operator = Operator::start("127.0.0.1:18098", &["--max-restarts", &limit, "--max-restarts-per-namespace", &limit]);
    let rotations: Api<CertificateRotation> = Api::namespaced(client.clone(), NAMESPACE);
    let rotation = json!({"metadata": {"name": "web"}, "spec": {"secretName": "web-tls", "dnsNames": ["a.example"], "issuer": {"selfSigned": {}},
        "restart": {"discover": true, "strategy": "AllAtOnce"}}});
    rotations.create(&PostParams::default(), &serde_json::from_value(rotation).unwrap()).await.unwrap();
    println!("creating {WORKLOADS} Deployments that use one Secret");
    let world = World { deployments: Api::namespaced(client.clone(), NAMESPACE), pods: Api::namespaced(client.clone(), NAMESPACE) };
    stream::iter(0..WORKLOADS).for_each_concurrent(PARALLEL, |number| world.create(number)).await;
    consumers(&rotations, &format!("{WORKLOADS}/{WORKLOADS}")).await;

    let seen = Arc::new(Mutex::new(Seen::default()));
    let playing = tokio::spawn(world.play(seen.clone()));
    let (begun, watching) = oneshot::channel();
    let changed = tokio::spawn(changed(Api::namespaced(client.clone(), NAMESPACE), begun));
    watching.await.unwrap();
    while seen.lock().unwrap().known < WORKLOADS {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rotate = Patch::Merge(json!({"metadata": {"annotations": {"seaworthy.dev/rotate": "now"}}}));
    rotations.patch("web", &PatchParams::default(), &rotate).await.unwrap();
    let changed = changed.await.unwrap();
    while seen.lock().unwrap().done < WORKLOADS {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let over = changed.elapsed();
    consumers(&rotations, &format!("{WORKLOADS}/{WORKLOADS}")).await;
    playing.abort();
    let seen = seen.lock().unwrap();
    assert!(seen.most <= LIMIT, "{} at a time", seen.most);
    assert_eq!(seen.begun, WORKLOADS, "each once");
    println!("\n  first restart after            {:6.2} s", seen.first.unwrap().duration_since(changed).as_secs_f64());
    println!("  at a time, at most             {:6} of {LIMIT} that are allowed", seen.most);
    println!("  all {WORKLOADS} restarted after      {:6.1} s", over.as_secs_f64());
    println!("  resident memory                {:6.1} MB, at most {:.1} MB", operator.memory("VmRSS"), operator.memory("VmHWM"));
}

#[derive(Default)]
struct Seen {
    known: usize,
    first: Option<Instant>,
    open: HashSet<String>,
    most: usize,
    begun: usize,
    done: usize,
}

/// When the Secret changed, as a watch tells it; `begun` hears of the first that it tells.
async fn changed(secrets: Api<PartialObjectMeta<Secret>>, begun: oneshot::Sender<()>) -> Instant {
    let mut begun = Some(begun);
    let events = watcher(secrets, watcher::Config::default().fields("metadata.name=web-tls")).applied_objects();
    let mut events = std::pin::pin!(events);
    while let Some(secret) = events.try_next().await.unwrap() {
        begun.take().map(|begun| begun.send(()));
        if secret.annotations().get("seaworthy.dev/revision").is_some_and(|revision| revision == "2") {
            break;
        }
    }
    Instant::now()
}

async fn consumers(rotations: &Api<CertificateRotation>, wanted: &str) {
    loop {
        let status = rotations.get("web").await.unwrap().status.unwrap_or_default();
        if status.consumers.is_some_and(|consumers| consumers.summary == wanted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[derive(Clone)]
struct World {
    deployments: Api<Deployment>,
    pods: Api<Pod>,
}

impl World {
    async fn create(&self, number: usize) {
        let name = format!("w{number}");
        let template = json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "none.example/c:1", "volumeMounts": [{"name": "tls", "mountPath": "/tls"}]}],
            "volumes": [{"name": "tls", "secret": {"secretName": "web-tls"}}]}});
        let object =
            json!({"metadata": {"name": name}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}});
        let created = self.deployments.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        self.settle(&created, &format!("{name}-0")).await;
    }

    /// Its one Pod is there and ready, and its status says so.
    async fn settle(&self, deployment: &Deployment, pod: &str) {
        let template = &deployment.spec.template;
        let owner = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment.name_any(), "uid": deployment.uid(), "controller": true}]);
        let annotations = template.metadata.as_ref().and_then(|meta| meta.annotations.clone());
        let object = json!({"metadata": {"name": pod, "ownerReferences": owner, "annotations": annotations}, "spec": template.spec});
        self.pods.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        let running = json!({"running": {"startedAt": jiff::Timestamp::now().to_string()}});
        let container = json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": running});
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [container]});
        self.patch_status(&self.pods, pod, status).await;
        let generation = deployment.metadata.generation;
        let status =
            json!({"observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1});
        self.patch_status(&self.deployments, &deployment.name_any(), status).await;
    }

    async fn patch_status<K>(&self, api: &Api<K>, name: &str, status: Value)
    where
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await.unwrap();
    }

    /// Makes Pods anew where a template has a mark, and counts.
    async fn play(self, seen: Arc<Mutex<Seen>>) {
        let events = watcher(self.deployments.clone(), watcher::Config::default()).applied_objects();
        let marked = events.try_filter_map(|deployment| {
            let seen = seen.clone();
            async move {
                let annotations = deployment.spec.template.metadata.as_ref().and_then(|meta| meta.annotations.as_ref());
                let generation = deployment.status.as_ref().and_then(|status| status.observed_generation);
                let new =
                    annotations.is_some_and(|annotations| annotations.contains_key(MARK)) && generation != deployment.metadata.generation;
                let mut seen = seen.lock().unwrap();
                seen.known += 1;
                // Its generation grows with a note of its own, too; it is made anew once.
                if !new || !seen.open.insert(deployment.name_any()) {
                    return Ok(None);
                }
                let first = !deployment.annotations().get(MARK).is_some_and(|note| note.ends_with(" done"));
                if first {
                    seen.first.get_or_insert_with(Instant::now);
                    seen.begun += 1;
                    seen.most = seen.most.max(seen.open.len());
                }
                Ok(Some((deployment, first)))
            }
        });
        let work = marked.try_for_each_concurrent(PARALLEL, |(deployment, first)| {
            let (world, seen) = (&self, seen.clone());
            async move {
                let name = deployment.name_any();
                if first {
                    let now = DeleteParams::default().grace_period(0);
                    world.pods.delete(&format!("{name}-0"), &now).await.unwrap();
                    world.settle(&deployment, &format!("{name}-1")).await;
                } else {
                    world.patch_status(&world.deployments, &name, json!({"observedGeneration": deployment.metadata.generation})).await;
                }
                let mut seen = seen.lock().unwrap();
                seen.open.remove(&name);
                seen.done += usize::from(first);
                Ok(())
            }
        });
        work.await.unwrap();
    }
}
