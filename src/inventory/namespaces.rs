//! Namespaces, by their labels: what `allowedNamespaces` selects.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::LabelSelector};
use kube::core::{PartialObjectMeta, Selector, SelectorExt};

use super::facts::{Fact, Facts};

/// The labels of a Namespace.
pub type NamespaceLabels = BTreeMap<String, String>;

impl Fact for NamespaceLabels {}

/// Of `object`.
pub fn labels(object: &PartialObjectMeta<Namespace>) -> NamespaceLabels {
    object.metadata.labels.clone().unwrap_or_default()
}

/// Whether `spec.allowedNamespaces` of a cluster-scoped resource selects a namespace. The error says why not.
pub fn check(allowed: Option<&LabelSelector>, namespaces: &Facts<NamespaceLabels>, namespace: &str) -> Result<(), String> {
    let allowed = allowed.ok_or("its spec.allowedNamespaces is absent, which allows none")?;
    let selector = Selector::try_from(allowed.clone());
    let selector = selector.map_err(|error| format!("its spec.allowedNamespaces is no valid selector: {error}"))?;
    if selector.selects_all() {
        return Ok(());
    }
    // Which labels a namespace lacks can be told only when it is known: it may be as new as who asks.
    let labels = namespaces.get("", namespace).ok_or("the namespace is not known yet")?;
    let allows = selector.matches(&labels);
    allows.then_some(()).ok_or_else(|| "the namespace's labels do not match its spec.allowedNamespaces".into())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_not_known_is_not_allowed() {
        let namespaces = Facts::default();
        namespaces.put(("".into(), "plain".into()), Some(NamespaceLabels::new()));
        namespaces.put(("".into(), "closed".into()), Some(NamespaceLabels::from([("restricted".into(), "true".into())])));
        let check = |allowed: Value, namespace: &str| {
            let allowed: Option<LabelSelector> = serde_json::from_value(allowed).unwrap();
            check(allowed.as_ref(), &namespaces, namespace).is_ok()
        };
        let open = json!({"matchExpressions": [{"key": "restricted", "operator": "DoesNotExist"}]});
        for (namespace, wanted) in
            [("plain", [false, true, true, false]), ("closed", [false, true, false, true]), ("new", [false, true, false, false])]
        {
            let allowed = [Value::Null, json!({}), open.clone(), json!({"matchLabels": {"restricted": "true"}})];
            assert_eq!(allowed.map(|allowed| check(allowed, namespace)), wanted, "{namespace}");
        }
    }
}
