//! Secrets that are read from memory.

use std::collections::BTreeMap;

use futures::{FutureExt, future::BoxFuture};

use crate::cluster::references::{ReadSecrets, ReferenceError, SecretData};

/// Secrets in memory.
#[derive(Clone, Debug, Default)]
pub struct Secrets(BTreeMap<String, SecretData>);

impl Secrets {
    /// With one more.
    #[must_use]
    pub fn with(mut self, name: &str, data: SecretData) -> Self {
        self.0.insert(name.into(), data);
        self
    }
}

impl ReadSecrets for Secrets {
    fn secret<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<SecretData, ReferenceError>> {
        async move { self.0.get(name).cloned().ok_or_else(|| ReferenceError::NotFound(name.into())) }.boxed()
    }
}
