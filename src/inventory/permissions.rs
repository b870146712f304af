//! What the inventory may do in the cluster: look. Pure.

use crate::cluster::permissions::{Permission, Scope};

const LOOK: &[&str] = &["list", "watch"];

const fn look(api_groups: &'static [&'static str], resources: &'static [&'static str]) -> Permission {
    Permission { scope: Scope::Namespaces, api_groups, resources, verbs: LOOK }
}

/// The rules.
pub const PERMISSIONS: &[Permission] = &[
    // Of Secrets only the metadata is asked for; Kubernetes has no right for that alone.
    look(&[""], &["pods", "serviceaccounts", "secrets"]),
    // Their labels decide where a cluster-scoped issuer or store may be used.
    Permission { scope: Scope::Cluster, api_groups: &[""], resources: &["namespaces"], verbs: LOOK },
    look(&["apps"], &["deployments", "statefulsets", "daemonsets", "replicasets"]),
    look(&["batch"], &["jobs", "cronjobs"]),
    look(&["argoproj.io"], &["rollouts"]),
    look(&["networking.k8s.io"], &["ingresses"]),
    look(&["gateway.networking.k8s.io"], &["gateways"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::workloads::KINDS;

    #[test]
    fn every_kind_may_be_looked_at() {
        for kind in KINDS {
            let allowed = |rule: &Permission| rule.api_groups.contains(&kind.group) && rule.resources.contains(&kind.plural);
            assert!(PERMISSIONS.iter().any(allowed), "{}", kind.kind);
        }
    }
}
