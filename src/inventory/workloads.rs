//! Workloads: every kind that embeds a Pod template, one line each. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PodSpec;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};

use super::{
    facts::{Fact, Term},
    intern::Interned,
    pods::Owner,
    template::{How, Use, uses},
};

/// A kind of workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The API group.
    pub group: &'static str,
    /// The version that is read.
    pub version: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// Its plural.
    pub plural: &'static str,
    /// Where the Pod's spec stands, as a JSON pointer (RFC 6901).
    pub pod_spec: &'static str,
    /// Whether a cluster may be without it.
    pub optional: bool,
    /// How it says how far a restart is; None: a change of its template restarts nothing, it is restarted by hand.
    pub restart: Option<ProgressFields>,
}

/// Where a kind says how far its controller is, as JSON pointers (RFC 6901).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressFields {
    /// How many Pods there should be, and how many if nothing is said.
    wanted: (&'static str, i64),
    /// How many were made of the present template.
    updated: &'static str,
    /// How many have been ready for long enough.
    available: &'static str,
    /// How many there are.
    total: &'static str,
}

const BY_REPLICAS: Option<ProgressFields> = Some(ProgressFields {
    wanted: ("/spec/replicas", 1),
    updated: "/status/updatedReplicas",
    available: "/status/availableReplicas",
    total: "/status/replicas",
});
const BY_NODES: Option<ProgressFields> = Some(ProgressFields {
    wanted: ("/status/desiredNumberScheduled", 0),
    updated: "/status/updatedNumberScheduled",
    available: "/status/numberAvailable",
    total: "/status/currentNumberScheduled",
});

const fn built_in(group: &'static str, kind: &'static str, plural: &'static str, pod_spec: &'static str) -> Kind {
    Kind { group, version: "v1", kind, plural, pod_spec, optional: false, restart: None }
}

/// All of them. One that is added here is watched, found and shown like the others.
pub const KINDS: &[Kind] = &[
    Kind { restart: BY_REPLICAS, ..built_in("apps", "Deployment", "deployments", "/spec/template/spec") },
    Kind { restart: BY_REPLICAS, ..built_in("apps", "StatefulSet", "statefulsets", "/spec/template/spec") },
    Kind { restart: BY_NODES, ..built_in("apps", "DaemonSet", "daemonsets", "/spec/template/spec") },
    built_in("apps", "ReplicaSet", "replicasets", "/spec/template/spec"),
    built_in("batch", "Job", "jobs", "/spec/template/spec"),
    built_in("batch", "CronJob", "cronjobs", "/spec/jobTemplate/spec/template/spec"),
    Kind { version: "v1alpha1", optional: true, ..built_in("argoproj.io", "Rollout", "rollouts", "/spec/template/spec") },
];

impl Kind {
    /// For a client.
    pub fn resource(&self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group, self.version, self.kind), self.plural)
    }
}

/// What is kept of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadFact {
    /// Who controls it: of a ReplicaSet the Deployment, of a Job the CronJob.
    pub owner: Option<Owner>,
    /// What its Pods will consume.
    pub uses: Arc<[Use]>,
    /// The ServiceAccount of its Pods, if they name no pull secrets of their own and get those of the account.
    pub account: Option<Box<str>>,
    /// How far its controller is.
    pub progress: Progress,
    /// Why a change of its template does not make its Pods anew.
    pub held: Option<&'static str>,
    /// Our annotations of its template.
    pub marks: Annotations,
    /// Our annotations of itself.
    pub notes: Annotations,
}

/// Annotations of ours, with their whole names.
pub type Annotations = Box<[(Box<str>, Box<str>)]>;

/// How far a controller is with what was asked of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// metadata.generation
    pub generation: i64,
    /// The generation that the numbers are about.
    pub observed: i64,
    /// How many Pods there should be.
    pub wanted: i64,
    /// How many were made of the present template.
    pub updated: i64,
    /// How many have been ready for long enough.
    pub available: i64,
    /// How many there are.
    pub total: i64,
}

impl Progress {
    /// All Pods are of the present template, available, and there are no others.
    pub const fn is_complete(&self) -> bool {
        self.observed >= self.generation && self.updated >= self.wanted && self.available >= self.wanted && self.total <= self.wanted
    }
}

/// Those of ours among the annotations at `place`.
fn annotations(object: &serde_json::Value, place: &str) -> Annotations {
    let all = object.pointer(place).and_then(|annotations| annotations.as_object()).into_iter().flatten();
    all.filter(|(key, _)| key.starts_with(PREFIX)).filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into()))).collect()
}

fn held(object: &serde_json::Value) -> Option<&'static str> {
    let text = |place: &str| object.pointer(place).and_then(|value| value.as_str());
    if object.pointer("/spec/paused").and_then(serde_json::Value::as_bool) == Some(true) {
        return Some("it is paused");
    }
    if text("/spec/updateStrategy/type") == Some("OnDelete") {
        return Some("its updateStrategy is OnDelete; delete its Pods yourself");
    }
    let partition = object.pointer("/spec/updateStrategy/rollingUpdate/partition").and_then(serde_json::Value::as_i64);
    partition.is_some_and(|partition| partition > 0).then_some("its updateStrategy has a partition; restart it yourself")
}

impl Fact for WorkloadFact {
    fn terms(&self) -> Vec<Term> {
        let mut terms: Vec<Term> = self.uses.iter().map(|found| Term::Uses(found.source.clone())).collect();
        terms.dedup(); // uses are in the order of their sources
        terms.extend(self.owner.clone().map(|owner| Term::Owner(owner.kind, owner.name)));
        terms.extend(self.account.clone().map(Term::Account));
        terms
    }
}

/// Where the annotations of the template of a kind that can be restarted stand.
pub const TEMPLATE_ANNOTATIONS: &str = "/spec/template/metadata/annotations";

/// The prefix of annotations that are kept: what restarts write.
pub const PREFIX: &str = "restart.seaworthy.dev/";

/// Makes facts of workloads, equal parts kept once.
#[derive(Debug, Default)]
pub struct Reader {
    uses: Interned<Use>,
}

impl Reader {
    /// The fact about `object`; None if its template cannot be read, as one of a strange version.
    pub fn read(&self, kind: &Kind, object: &DynamicObject) -> Option<WorkloadFact> {
        let spec = object.data.pointer(kind.pod_spec)?;
        let spec = <PodSpec as serde::Deserialize>::deserialize(spec).ok()?;
        let uses = uses(&spec);
        let own_pull_secrets = uses.iter().any(|found| found.how == How::PullSecret);
        let count = |place: &str| object.data.pointer(place).and_then(serde_json::Value::as_i64);
        let progress = kind.restart.map(|restart| Progress {
            generation: object.metadata.generation.unwrap_or(0),
            observed: count("/status/observedGeneration").unwrap_or(0),
            wanted: count(restart.wanted.0).unwrap_or(restart.wanted.1),
            updated: count(restart.updated).unwrap_or(0),
            available: count(restart.available).unwrap_or(0),
            total: count(restart.total).unwrap_or(0),
        });
        let notes = object.metadata.annotations.iter().flatten().filter(|(key, _)| key.starts_with(PREFIX));
        let account = spec.service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
        Some(WorkloadFact {
            owner: Owner::of(&object.metadata),
            uses: self.uses.of(uses),
            account: (!own_pull_secrets).then(|| account.into()),
            progress: progress.unwrap_or_default(),
            held: kind.restart.and_then(|_| held(&object.data)),
            marks: if kind.restart.is_some() { annotations(&object.data, TEMPLATE_ANNOTATIONS) } else { Box::default() },
            notes: notes.map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect(),
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::{super::template::Source, *};

    #[test]
    fn every_kind_is_read_where_its_template_stands() {
        let reader = Reader::default();
        for kind in KINDS {
            let pod = json!({"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}], "serviceAccountName": "runner"});
            let mut spec = pod.clone();
            for part in kind.pod_spec.trim_start_matches('/').split('/').collect::<Vec<_>>().into_iter().rev() {
                spec = json!({ part: spec });
            }
            spec["apiVersion"] = json!(format!("{}/{}", kind.group, kind.version));
            spec["kind"] = json!(kind.kind);
            spec["metadata"] = json!({"name": "w"});
            let object: DynamicObject = serde_json::from_value(spec).unwrap();
            let fact = reader.read(kind, &object).unwrap();
            assert_eq!(fact.terms(), [Term::Uses(Source::Secret("s".into())), Term::Account("runner".into())], "{}", kind.kind);
        }
    }

    #[test]
    fn a_template_of_broken_types_is_no_workload() {
        let object: DynamicObject =
            serde_json::from_value(json!({"metadata": {"name": "w"}, "spec": {"template": {"spec": {"containers": 5}}}})).unwrap();
        assert_eq!(Reader::default().read(&KINDS[0], &object), None);
    }
}
