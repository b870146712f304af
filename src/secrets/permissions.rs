//! What this area may do in the cluster. Pure.

use crate::cluster::permissions::{Permission, Scope};

/// The rules.
pub const PERMISSIONS: &[Permission] = &[
    Permission {
        scope: Scope::Namespaces,
        api_groups: &["seaworthy.dev"],
        resources: &["secretrotations"],
        // get: once more before its Secret is written, which does not rest on a cache.
        verbs: &["get", "list", "watch"],
    },
    Permission { scope: Scope::Namespaces, api_groups: &["seaworthy.dev"], resources: &["secretrotations/status"], verbs: &["patch"] },
    // Credentials of stores, the values of the store `kubernetes`, and the Secrets that are written; list is for `find`.
    Permission {
        scope: Scope::Namespaces,
        api_groups: &[""],
        resources: &["secrets"],
        verbs: &["get", "list", "create", "patch", "delete"],
    },
    // Restarts: our annotations on a Pod template. The key of the marks lies in the operator's namespace.
    Permission {
        scope: Scope::Namespaces,
        api_groups: &["apps"],
        resources: &["deployments", "statefulsets", "daemonsets"],
        verbs: &["get", "patch"],
    },
    // patch: the credential of a SecretStore that is replaced.
    Permission { scope: Scope::Operator, api_groups: &[""], resources: &["secrets"], verbs: &["get", "create", "patch"] },
    Permission { scope: Scope::Cluster, api_groups: &["seaworthy.dev"], resources: &["secretstores"], verbs: &["get", "list", "watch"] },
    Permission { scope: Scope::Cluster, api_groups: &["seaworthy.dev"], resources: &["secretstores/status"], verbs: &["patch"] },
];
