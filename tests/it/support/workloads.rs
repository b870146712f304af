//! Workloads that use a certificate, where there is no node.

use futures::StreamExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use seaworthy::{api::CertificateRotation, certificates::x509::Certificate};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Cluster, Namespace, Operator, Rotations, condition, eventually};

/// Plays the kubelet where there is no node: every Pod is Ready at once, but for those of `crashing` that get the second revision; `NAME@NUMBER`: that one.
pub struct Kubelet {
    task: JoinHandle<()>,
}

impl Kubelet {
    pub fn start(namespace: &Namespace, crashing: &'static str) -> Self {
        let (crashing, number) = crashing.split_once('@').unwrap_or((crashing, "2"));
        let (pods, secrets): (Api<Pod>, _) = (Api::namespaced(namespace.client.clone(), &namespace.name), namespace.secrets());
        let task = tokio::spawn(async move {
            let mut events = watcher(pods.clone(), watcher::Config::default()).default_backoff().applied_objects().boxed();
            while let Some(event) = events.next().await {
                let Ok(pod) = event else { continue }; // the API server is gone for a while
                if pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()).is_some() {
                    continue;
                }
                let secret = secrets.get_metadata_opt("web-tls").await.ok().flatten();
                let bad = secret
                    .is_some_and(|secret| secret.annotations().get("seaworthy.dev/revision").is_some_and(|revision| revision == number));
                let crashes = bad && pod.labels().get("app").is_some_and(|app| app == crashing);
                let _ = pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status(crashes))).await;
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
pub fn deployment(name: &str, image: &str) -> Deployment {
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

/// A Deployment of one Pod, which has the values of a Secret in its environment.
pub struct Workload {
    deployments: Api<Deployment>,
    name: String,
    _kubelet: Kubelet,
}

impl Workload {
    /// Available, and known to be.
    pub async fn start(namespace: &Namespace, name: &str, secret: &str) -> Self {
        let kubelet = Kubelet::start(namespace, "");
        let deployments: Api<Deployment> = Api::namespaced(namespace.client.clone(), &namespace.name);
        let labels = json!({"app": name});
        let object = json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "none.example/c:1", "envFrom": [{"secretRef": {"name": secret}}]}]}}}});
        deployments.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        Rotations(namespace).consumers(name, "1/1").await;
        Self { deployments, name: name.into(), _kubelet: kubelet }
    }

    /// Restarts it, as a person does.
    pub async fn restart(&self) {
        let note = json!({"spec": {"template": {"metadata": {"annotations": {"restarted": jiff::Timestamp::now().to_string()}}}}});
        self.deployments.patch(&self.name, &PatchParams::default(), &Patch::Merge(note)).await.unwrap();
    }

    /// What stands on its template.
    pub async fn template(&self) -> String {
        serde_json::to_string(&self.deployments.get(&self.name).await.unwrap().spec.template.metadata).unwrap()
    }

    /// Waits until its template was changed so often.
    pub async fn restarted(&self, times: i64) {
        eventually(&format!("{} is restarted", self.name), || async {
            let found = revision(&self.deployments.get(&self.name).await.map_err(|error| error.to_string())?) - 1;
            if found == times { Ok(()) } else { Err(format!("{found} times")) }
        })
        .await;
    }
}

/// A namespace with a certificate `web`, and Deployments that use it.
pub struct World {
    pub namespace: Namespace,
    pub deployments: Api<Deployment>,
    _kubelet: Kubelet,
}

impl World {
    /// A certificate, and Deployments that have it.
    pub async fn new(cluster: &Cluster, restart: Value, names: &[&str], crashing: &'static str) -> (Self, Operator) {
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

    /// The same with a SecretRotation `web` in the place of the certificate: one value, of the Secret `source`.
    pub async fn of_secrets(cluster: &Cluster, restart: Value, names: &[&str], crashing: &'static str) -> (Self, Operator) {
        let namespace = cluster.namespace("delivery").await;
        let deployments: Api<Deployment> = Api::namespaced(namespace.client.clone(), &namespace.name);
        namespace.secret("source", "Opaque", &[("value", "1")]).await;
        let data = json!([{"secretKey": "value", "remoteRef": {"key": "source", "property": "value"}}]);
        let rotations = Rotations(&namespace);
        rotations
            .create("web", json!({"target": {"name": "web-tls"}, "store": {"kubernetes": {}}, "data": data, "restart": restart}))
            .await;
        let operator = Operator::start_restless(cluster.operator.clone(), vec![namespace.name.clone()], &namespace.name);
        rotations.ready("web", 1).await;
        let kubelet = Kubelet::start(&namespace, crashing);
        for name in names {
            deployments.create(&PostParams::default(), &deployment(name, "none.example/c:1")).await.unwrap();
        }
        let world = Self { namespace, deployments, _kubelet: kubelet };
        Rotations(&world.namespace).consumers("web", &format!("{0}/{0}", names.len() * 2)).await;
        world.available().await;
        (world, operator)
    }

    /// All of these Deployments are available, and the certificate knows them.
    pub async fn settled(&self, summary: &str) {
        self.namespace
            .until("web", summary, |object| {
                let status = object.status.clone().unwrap_or_default();
                status.consumers.is_some_and(|consumers| consumers.summary == summary) && condition(object, "Reconciling").is_none()
            })
            .await;
        self.available().await;
    }

    async fn available(&self) {
        eventually("they are available", || async {
            let all = self.deployments.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
            let waiting = all.items.iter().find(|one| one.status.as_ref().and_then(|status| status.available_replicas) != Some(2));
            waiting.map_or(Ok(()), |one| Err(format!("{}: {:?}", one.name_any(), one.status)))
        })
        .await;
    }

    /// How often its template was changed, and when we say that we did.
    pub async fn restarts(&self, name: &str) -> (i64, Option<jiff::Timestamp>) {
        let found = self.deployments.get(name).await.unwrap();
        let note = found.annotations().get("restart.seaworthy.dev/secret.web-tls").and_then(|note| note.split(' ').nth(1)?.parse().ok());
        (revision(&found) - 1, note)
    }

    /// Its restart is over, and the operator has noted it.
    pub async fn finished(&self, name: &str) {
        eventually(&format!("the restart of {name} is over"), || async {
            let found = self.deployments.get(name).await.map_err(|error| error.to_string())?;
            let note = found.annotations().get("restart.seaworthy.dev/secret.web-tls").cloned().unwrap_or_default();
            if note.ends_with(" done") { Ok(()) } else { Err(note) }
        })
        .await;
    }

    /// Times of the API server are whole seconds: what is done from now on is later than all Pods that there are, and than their containers.
    pub async fn a_second_later(&self) {
        let pods: Api<Pod> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        let all = pods.list(&ListParams::default()).await.unwrap().items;
        assert!(all.iter().all(|pod| pod.status.as_ref().is_some_and(|status| status.container_statuses.is_some())), "they have started");
        next_second().await;
    }

    /// All their Pods are made anew, in a later second than the last change: whatever is there, they have it.
    pub async fn anew(&self) {
        self.a_second_later().await;
        let pods: Api<Pod> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        let before: Vec<_> = pods.list(&ListParams::default()).await.unwrap().items.iter().map(ResourceExt::name_any).collect();
        pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
        eventually("others have started", || async {
            let all = pods.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
            let has_started = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.container_statuses.is_some());
            let others = all.iter().filter(|pod| has_started(pod) && !before.contains(&pod.name_any())).count();
            if others == before.len() && others == all.len() { Ok(()) } else { Err(format!("{others} of {}", all.len())) }
        })
        .await;
    }

    /// Three Deployments, of which b crashes with the second certificate, which has just been tried. Returns the serial number of the first.
    pub async fn failing(cluster: &Cluster) -> (Self, Operator, String) {
        let (world, operator) = Self::new(cluster, json!({"discover": true, "timeout": "1h"}), &["a", "b", "c"], "b").await;
        world.settled("6/6").await;
        let before = world.serial().await;
        world.a_second_later().await;
        world.rotate("1").await;
        world.crashes("b").await;
        (world, operator, before)
    }

    /// Changes a Deployment, as a person does.
    pub async fn change(&self, name: &str, change: Value) {
        self.deployments.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    }

    /// The certificate is Ready, and says this.
    pub async fn says(&self, what: &str) -> CertificateRotation {
        self.namespace.until("web", what, |object| condition(object, "Ready").is_some_and(|(_, _, said)| said.contains(what))).await
    }

    /// The last rotation was asked for, and everybody has it.
    pub async fn completed(&self, name: &str) -> CertificateRotation {
        self.namespace
            .until(name, "it is complete", |object| {
                let last = object.status.as_ref().and_then(|status| status.last_rotation.as_ref());
                last.is_some_and(|last| last.reason == "Requested" && last.completed_at.is_some())
            })
            .await
    }

    /// It was restarted, and a Pod of it crashes.
    pub async fn crashes(&self, name: &str) {
        let pods: Api<Pod> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        eventually("a Pod of it crashes", || async {
            let found = pods.list(&ListParams::default().labels(&format!("app={name}"))).await.map_err(|error| error.to_string())?;
            let crashes = |pod: &Pod| serde_json::to_string(&pod.status).is_ok_and(|status| status.contains("CrashLoopBackOff"));
            if found.items.iter().any(crashes) { Ok(()) } else { Err("none does".into()) }
        })
        .await;
    }

    /// Of the stored certificate.
    pub async fn serial(&self) -> String {
        let chain = Certificate::chain(self.namespace.text("web-tls", "tls.crt").await.as_bytes()).unwrap();
        chain[0].serial.clone()
    }

    /// Asks for a rotation.
    pub async fn rotate(&self, value: &str) {
        self.namespace.annotate("web", "seaworthy.dev/rotate", value).await;
    }
}

/// Returns when the next second of the clock has begun.
pub async fn next_second() {
    let now = jiff::Timestamp::now().as_second();
    eventually("a second is over", || async { if jiff::Timestamp::now().as_second() > now { Ok(()) } else { Err(String::new()) } }).await;
}
