//! What this area may do in the cluster. Pure.

use crate::cluster::permissions::{Permission, Scope};

/// The rules.
pub const PERMISSIONS: &[Permission] = &[
    Permission {
        scope: Scope::Namespaces,
        api_groups: &["seaworthy.dev"],
        resources: &["certificaterotations"],
        // get: once more before its Secret is written, which does not rest on a cache.
        verbs: &["get", "list", "watch"],
    },
    Permission { scope: Scope::Namespaces, api_groups: &["seaworthy.dev"], resources: &["certificaterotations/status"], verbs: &["patch"] },
    // Reads of CAs and pairs, and the pairs that are written; delete is for `history: 0`.
    Permission { scope: Scope::Namespaces, api_groups: &[""], resources: &["secrets"], verbs: &["get", "create", "patch", "delete"] },
    // Restarts: our annotations on a Pod template. The key of the marks lies in the operator's namespace.
    Permission {
        scope: Scope::Namespaces,
        api_groups: &["apps"],
        resources: &["deployments", "statefulsets", "daemonsets"],
        verbs: &["get", "patch"],
    },
    // verify: which Pods stand behind a Service.
    Permission { scope: Scope::Namespaces, api_groups: &[""], resources: &["services"], verbs: &["get"] },
    Permission { scope: Scope::Namespaces, api_groups: &["discovery.k8s.io"], resources: &["endpointslices"], verbs: &["list"] },
    Permission { scope: Scope::Operator, api_groups: &[""], resources: &["secrets"], verbs: &["get", "create"] },
    Permission {
        scope: Scope::Cluster,
        api_groups: &["seaworthy.dev"],
        resources: &["certificateissuers"],
        verbs: &["get", "list", "watch"],
    },
    Permission { scope: Scope::Cluster, api_groups: &["seaworthy.dev"], resources: &["certificateissuers/status"], verbs: &["patch"] },
];
