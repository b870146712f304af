//! What the operator may do, as data: the chart's RBAC is generated from it, for the areas that are enabled. Pure.

use serde::Serialize;

/// Where a right is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// In every namespace that is looked after: a ClusterRole, or with `--namespaces` a Role in each.
    Namespaces,
    /// For cluster-scoped kinds; not there with `--namespaces`.
    Cluster,
    /// In the operator's own namespace only.
    Operator,
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Permission {
    /// Where.
    #[serde(skip)]
    pub scope: Scope,
    /// Empty for the core group.
    pub api_groups: &'static [&'static str],
    /// Plural names; with `/status` for a subresource.
    pub resources: &'static [&'static str],
    /// Never `*`.
    pub verbs: &'static [&'static str],
}

/// What every replica needs, whatever is enabled: the lease, and to tell about objects.
pub const PERMISSIONS: &[Permission] = &[
    Permission {
        scope: Scope::Operator,
        api_groups: &["coordination.k8s.io"],
        resources: &["leases"],
        verbs: &["get", "create", "update"],
    },
    Permission { scope: Scope::Namespaces, api_groups: &["events.k8s.io"], resources: &["events"], verbs: &["create"] },
];
