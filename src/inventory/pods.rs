//! Pods: since when each runs, whose it is, what it consumes, which images it really runs. Pure.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    facts::{Fact, Term},
    intern::Interned,
    template::{Use, uses},
    workloads::PREFIX,
};
use crate::cluster::conditions::cut;

/// Who controls an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Deployment, ReplicaSet, …
    pub kind: Box<str>,
    /// In the same namespace.
    pub name: Box<str>,
}

impl Owner {
    /// The controller among the owner references of `meta`.
    pub fn of(meta: &ObjectMeta) -> Option<Self> {
        let owner = meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))?;
        Some(Self { kind: owner.kind.as_str().into(), name: owner.name.as_str().into() })
    }
}

/// An image in a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Image {
    /// The container.
    pub container: Box<str>,
    /// As the spec names it.
    pub image: Box<str>,
    /// What the node runs: the digest of the manifest, or the node's own id where it has no digest. None: not pulled yet.
    pub digest: Option<Box<str>>,
}

/// What is kept of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFact {
    /// When it was created, by the API server's clock.
    pub created: Timestamp,
    /// When its first container started, by its node's clock; None: none has.
    pub started: Option<Timestamp>,
    /// When its last container started that runs now; None: none does.
    pub restarted: Option<Timestamp>,
    /// The Ready condition.
    pub ready: bool,
    /// It has ended, or is being deleted: it is no consumer any more.
    pub over: bool,
    /// Where it can be reached.
    pub addresses: Box<[IpAddr]>,
    /// These are its node's.
    pub host_network: bool,
    /// Who controls it.
    pub owner: Option<Owner>,
    /// What it consumes.
    pub uses: Arc<[Use]>,
    /// What it runs.
    pub images: Arc<[Image]>,
    /// Our annotations: those of the template that it was made of.
    pub marks: Arc<[(Box<str>, Box<str>)]>,
    /// Why one of its containers does not run, in its node's words.
    pub trouble: Option<Box<str>>,
}

impl Fact for PodFact {
    fn terms(&self) -> Vec<Term> {
        let mut terms: Vec<Term> = self.uses.iter().map(|found| Term::Uses(found.source.clone())).collect();
        terms.dedup(); // uses are in the order of their sources
        terms.extend(self.owner.clone().map(|owner| Term::Owner(owner.kind, owner.name)));
        terms
    }
}

/// Makes facts of Pods, equal parts kept once.
#[derive(Debug, Default)]
pub struct Reader {
    uses: Interned<Use>,
    images: Interned<Image>,
    marks: Interned<(Box<str>, Box<str>)>,
}

impl Reader {
    /// The fact about `pod`.
    pub fn read(&self, pod: &Pod) -> PodFact {
        let status = pod.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let states = [&status.init_container_statuses, &status.container_statuses].into_iter().flatten().flatten();
        PodFact {
            created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default(),
            started: states.clone().filter_map(started).min(),
            restarted: states.filter_map(|container| Some(container.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0)).max(),
            host_network: pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false),
            ready,
            over: ended || pod.metadata.deletion_timestamp.is_some(),
            addresses: status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect(),
            owner: Owner::of(&pod.metadata),
            uses: self.uses.of(pod.spec.as_ref().map(uses).unwrap_or_default()),
            images: self.images.of(images(pod)),
            marks: self.marks.of(marks(pod)),
            trouble: trouble(pod).map(|text| cut(&text, MAX_TROUBLE).into()),
        }
    }
}

/// A message of a container may be 4 kB.
const MAX_TROUBLE: usize = 200;

fn marks(pod: &Pod) -> Vec<(Box<str>, Box<str>)> {
    let ours = pod.metadata.annotations.iter().flatten().filter(|(key, _)| key.starts_with(PREFIX));
    ours.map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()
}

/// What keeps a container from running: why it waits, how it ended before, and what it left as its last words, unless these are its log.
fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let states = [&status.init_container_statuses, &status.container_statuses].into_iter().flatten().flatten();
    let of = |container: &ContainerStatus| {
        let state = container.state.as_ref()?;
        let waits = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        let waits = waits.filter(|reason| !["ContainerCreating", "PodInitializing"].contains(&reason.as_str()));
        let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0);
        let before = container.last_state.as_ref().and_then(|last| last.terminated.as_ref()).filter(|_| waits.is_some());
        let last = ended.or(before).map(|ended| {
            let words =
                ended.message.as_deref().filter(|_| !tells_its_log(pod, &container.name)).map(|words| format!(": {}", words.trim()));
            format!("{}exit code {}{}", if waits.is_some() { ", " } else { "" }, ended.exit_code, words.unwrap_or_default())
        });
        let text = format!("{}{}", waits.unwrap_or_default(), last.unwrap_or_default());
        (!text.is_empty()).then(|| format!("container {}: {text}", container.name))
    };
    states.into_iter().find_map(of)
}

fn tells_its_log(pod: &Pod, container: &str) -> bool {
    let spec = pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let mut of = spec.filter(|known| known.name == container);
    of.any(|container| container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"))
}

/// When the container started; of one that was started again, when it last did before.
fn started(container: &ContainerStatus) -> Option<Timestamp> {
    let of = |state: &k8s_openapi::api::core::v1::ContainerState| {
        let running = state.running.as_ref().and_then(|running| running.started_at.clone());
        running.or_else(|| state.terminated.as_ref().and_then(|ended| ended.started_at.clone())).map(|time| time.0)
    };
    [&container.last_state, &container.state].into_iter().flatten().filter_map(of).min()
}

fn images(pod: &Pod) -> Vec<Image> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let status = pod.status.as_ref();
    let states = status.map(|status| [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses]);
    let digest = |container: &str| {
        let state = states.into_iter().flatten().flatten().flatten().find(|state| state.name == container)?;
        let id = state.image_id.rsplit('@').next().unwrap_or_default();
        (!id.is_empty()).then(|| id.into())
    };
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| (&container.name, &container.image));
    let others = spec.init_containers.iter().flatten().chain(&spec.containers).map(|container| (&container.name, &container.image));
    others
        .chain(ephemeral)
        .map(|(name, image)| Image {
            container: name.as_str().into(),
            image: image.as_deref().unwrap_or_default().into(),
            digest: digest(name),
        })
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_kept_of_a_pod() {
        let reader = Reader::default();
        let pod = |change: fn(&mut serde_json::Value)| {
            let mut pod = json!({
                "metadata": {"name": "web-1", "creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"},
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "2", "controller": true}]},
                "spec": {"containers": [{"name": "web", "image": "web:1", "envFrom": [{"secretRef": {"name": "s"}}, {"secretRef": {"name": "s"}}]}, {"name": "late", "image": "late"}],
                         "initContainers": [{"name": "setup", "image": "web:1"}]},
                "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}, {"ip": "none"}], "conditions": [{"type": "Ready", "status": "True"}],
                    "initContainerStatuses": [{"name": "setup", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "startedAt": "2026-01-01T00:00:05Z"}}}],
                    "containerStatuses": [{"name": "web", "image": "", "imageID": "registry/web@sha256:abc", "ready": true, "restartCount": 1,
                        "state": {"running": {"startedAt": "2026-01-01T00:01:00Z"}}, "lastState": {"terminated": {"exitCode": 1, "startedAt": "2026-01-01T00:00:10Z"}}}]},
            });
            change(&mut pod);
            reader.read(&serde_json::from_value(pod).unwrap())
        };
        let fact = pod(|_| {});
        assert_eq!(fact.created.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(fact.started.unwrap().to_string(), "2026-01-01T00:00:05Z");
        assert_eq!(fact.restarted.unwrap().to_string(), "2026-01-01T00:01:00Z");
        assert!(fact.ready && !fact.over && !fact.host_network);
        assert_eq!(*fact.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        let secret = Term::Uses(super::super::template::Source::Secret("s".into()));
        assert_eq!(fact.terms(), [secret, Term::Owner("ReplicaSet".into(), "web".into())]);
        let image = |container: &str, image: &str, digest: Option<&str>| Image {
            container: container.into(),
            image: image.into(),
            digest: digest.map(Into::into),
        };
        assert_eq!(*fact.images, [image("setup", "web:1", None), image("web", "web:1", Some("sha256:abc")), image("late", "late", None)]);
        assert!(pod(|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")).over);
        assert!(pod(|pod| pod["status"]["phase"] = json!("Succeeded")).over);
        let bare = pod(|pod| pod["metadata"]["ownerReferences"] = json!(null));
        assert_eq!(bare.owner, None);
        assert!(Arc::ptr_eq(&bare.uses, &fact.uses));
        let crash = pod(|pod| {
            pod["metadata"]["annotations"] = json!({"restart.seaworthy.dev/secret.s": "m", "other": "x"});
            pod["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
            pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["message"] = json!("cannot read tls.key");
        });
        assert_eq!(crash.trouble.as_deref(), Some("container web: CrashLoopBackOff, exit code 1: cannot read tls.key"));
        assert_eq!(*crash.marks, [("restart.seaworthy.dev/secret.s".into(), "m".into())]);
        let log = pod(|pod| {
            pod["spec"]["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
            pod["status"]["containerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 2, "message": "a secret from the log"}});
        });
        assert_eq!(log.trouble.as_deref(), Some("container web: exit code 2"), "never its log");
        assert_eq!(fact.trouble, None);
        let new = pod(|pod| pod["status"] = json!(null));
        assert_eq!((new.started, new.ready, new.over), (None, false, false));
    }
}
