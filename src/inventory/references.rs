//! What hands Secrets on without being a workload: ServiceAccounts (pull secrets), Ingresses and Gateways (TLS). Pure.

use std::sync::Arc;

use k8s_openapi::api::{core::v1::ServiceAccount, networking::v1::Ingress};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};

use super::{
    facts::{Fact, Term},
    template::{How, Source, Use},
};

/// The Secrets that an object names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceFact {
    /// In order, each once.
    pub uses: Arc<[Use]>,
}

impl Fact for ReferenceFact {
    fn terms(&self) -> Vec<Term> {
        self.uses.iter().map(|found| Term::Uses(found.source.clone())).collect()
    }
}

/// Those of a ServiceAccount with which images are pulled; None without any.
pub fn of_account(account: &ServiceAccount) -> Option<ReferenceFact> {
    fact(account.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()), How::PullSecret)
}

/// Those that an Ingress serves; None without any.
pub fn of_ingress(ingress: &Ingress) -> Option<ReferenceFact> {
    let blocks = ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
    fact(blocks.filter_map(|tls| tls.secret_name.clone()), How::IngressTls)
}

/// The Gateways of the Gateway API, which a cluster may be without.
pub fn gateways() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway"))
}

/// Those of its own namespace that a Gateway serves; None without any. (Of another namespace, a ReferenceGrant decides.)
pub fn of_gateway(gateway: &DynamicObject) -> Option<ReferenceFact> {
    let own = gateway.metadata.namespace.as_deref();
    let listeners = gateway.data.pointer("/spec/listeners").and_then(|list| list.as_array()).into_iter().flatten();
    let references =
        listeners.flat_map(|listener| listener.pointer("/tls/certificateRefs").and_then(|list| list.as_array()).into_iter().flatten());
    let text = |reference: &serde_json::Value, key: &str| reference.get(key).and_then(|value| value.as_str()).map(ToOwned::to_owned);
    let of_here = references.filter(|reference| {
        text(reference, "kind").is_none_or(|kind| kind == "Secret")
            && text(reference, "group").is_none_or(|group| group.is_empty())
            && text(reference, "namespace").is_none_or(|namespace| Some(namespace.as_str()) == own)
    });
    fact(of_here.filter_map(|reference| text(reference, "name")), How::GatewayTls)
}

fn fact(names: impl Iterator<Item = String>, how: How) -> Option<ReferenceFact> {
    let mut names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
    names.sort();
    names.dedup();
    let uses: Arc<[Use]> = names.into_iter().map(|name| Use { source: Source::Secret(name.into()), how, container: None }).collect();
    (!uses.is_empty()).then_some(ReferenceFact { uses })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(fact: Option<ReferenceFact>) -> Vec<String> {
        let name = |found: &Use| match &found.source {
            Source::Secret(name) | Source::ConfigMap(name) => name.to_string(),
        };
        fact.iter().flat_map(|fact| fact.uses.iter().map(name)).collect()
    }

    #[test]
    fn named_secrets() {
        let account = json!({"metadata": {"name": "a"}, "imagePullSecrets": [{"name": "b"}, {"name": "a"}, {"name": "b"}, {}]});
        assert_eq!(names(of_account(&serde_json::from_value(account).unwrap())), ["a", "b"]);
        let ingress = json!({"metadata": {"name": "i"}, "spec": {"tls": [{"secretName": "x", "hosts": ["a"]}, {"hosts": ["b"]}]}});
        assert_eq!(names(of_ingress(&serde_json::from_value(ingress).unwrap())), ["x"]);
        let gateway = json!({"metadata": {"name": "g", "namespace": "shop"}, "spec": {"listeners": [
            {"name": "a", "tls": {"certificateRefs": [{"name": "own"}, {"name": "here", "namespace": "shop", "kind": "Secret", "group": ""}]}},
            {"name": "b", "tls": {"certificateRefs": [{"name": "there", "namespace": "other"}, {"name": "map", "kind": "ConfigMap"}]}},
            {"name": "c"}]}});
        assert_eq!(names(of_gateway(&serde_json::from_value(gateway).unwrap())), ["here", "own"]);
        for nothing in [json!({}), json!({"spec": {"listeners": "x"}})] {
            assert_eq!(of_gateway(&serde_json::from_value(nothing).unwrap_or_else(|_| DynamicObject::new("g", &gateways()))), None);
        }
    }
}
