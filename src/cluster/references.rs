//! The only way to read a Secret on a user's behalf: from one namespace, which is settled when the reader is made.

use std::collections::BTreeMap;

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use zeroize::Zeroizing;

/// The keys of a Secret that was read. Overwritten when dropped.
pub type SecretData = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Why a reference could not be followed. "Not there" and "cannot tell" are different answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The API server says that it is not there.
    #[error("Secret {0} is not there; create it, or correct the reference")]
    NotFound(String),
    /// It cannot be told.
    #[error("Secret {0} could not be read: {1}")]
    Unavailable(String, String),
}

/// Reads Secrets of one namespace.
pub trait ReadSecrets: Send + Sync {
    /// The data of the Secret `name`.
    fn secret<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<SecretData, ReferenceError>>;
}

/// The Secrets of one namespace of the cluster.
pub struct NamespaceSecrets {
    api: Api<Secret>,
    namespace: String,
}

impl NamespaceSecrets {
    /// Those of `namespace`: the referring object's own, or the operator's for cluster-scoped kinds.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.into() }
    }
}

impl ReadSecrets for NamespaceSecrets {
    fn secret<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<SecretData, ReferenceError>> {
        async move {
            let named = format!("{}/{name}", self.namespace);
            if !is_name(name) {
                return Err(ReferenceError::NotFound(named)); // it cannot be, and would lead somewhere else in a path
            }
            match self.api.get_opt(name).await {
                Ok(Some(secret)) => Ok(data(secret)),
                Ok(None) => Err(ReferenceError::NotFound(named)),
                Err(error) => Err(ReferenceError::Unavailable(named, super::error::message(&error))),
            }
        }
        .boxed()
    }
}

/// Whether an object can be called that: a DNS subdomain (RFC 1123), which most names of Kubernetes are.
pub fn is_name(name: &str) -> bool {
    let fits = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(fits)
}

/// The data of a Secret, moved, so that no second copy stays behind.
pub fn data(secret: Secret) -> SecretData {
    secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, Zeroizing::new(value.0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_object_can_be_called() {
        for (name, fits) in [
            ("a", true),
            ("a.b-c.9", true),
            ("", false),
            (".", false),
            ("..", false),
            ("../x", false),
            ("a/b", false),
            ("a?b", false),
            ("A", false),
            ("-a", false),
            ("a-.b", false),
            ("a%2e", false),
        ] {
            assert_eq!(is_name(name), fits, "{name}");
        }
        assert!(!is_name(&"a".repeat(254)));
    }
}
