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
}

const fn built_in(group: &'static str, kind: &'static str, plural: &'static str, pod_spec: &'static str) -> Kind {
    Kind { group, version: "v1", kind, plural, pod_spec, optional: false }
}

/// All of them. One that is added here is watched, found and shown like the others.
pub const KINDS: &[Kind] = &[
    built_in("apps", "Deployment", "deployments", "/spec/template/spec"),
    built_in("apps", "StatefulSet", "statefulsets", "/spec/template/spec"),
    built_in("apps", "DaemonSet", "daemonsets", "/spec/template/spec"),
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
        let account = spec.service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
        Some(WorkloadFact {
            owner: Owner::of(&object.metadata),
            uses: self.uses.of(uses),
            account: (!own_pull_secrets).then(|| account.into()),
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
