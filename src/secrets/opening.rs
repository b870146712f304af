//! What a store is opened with.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use kube::Client;
use tokio::sync::Semaphore;

use super::store::StoreError;
use crate::{
    clients::egress::Egress,
    cluster::{apply::Writer, references::ReadSecrets},
};

/// What a store is opened with.
pub struct Opening<'a> {
    /// The Secrets of the namespace of the resource, or for a SecretStore of the operator's.
    pub secrets: &'a dyn ReadSecrets,
    /// That namespace.
    pub namespace: &'a str,
    /// For stores in this cluster.
    pub cluster: Option<&'a Client>,
    /// The same, to write; None: nothing is to be written.
    pub writer: Option<&'a Writer>,
    /// What the operator's own settings allow.
    pub allowed: &'a Allowed,
}

impl<'a> Opening<'a> {
    /// This cluster, for `what` needs it.
    pub fn cluster(&self, what: &str) -> Result<&'a Client, StoreError> {
        self.cluster.ok_or_else(|| StoreError::Unavailable(format!("{what} needs a cluster")))
    }
}

/// What the operator's own settings allow stores to reach. By default nothing beyond the network.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Where calls may go.
    pub egress: Egress,
    /// Names of environment variables of the operator's own, or their beginnings with `*` behind.
    pub env: Vec<String>,
    /// Folders of the operator's own file system.
    pub folders: Vec<PathBuf>,
    /// Who looks into which folder.
    pub turns: Turns,
}

/// One look into a folder at a time, whoever asks: a mount that hangs takes one thread of the process and not all of them.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<HashMap<PathBuf, Arc<Semaphore>>>>);

impl Allowed {
    /// Whose turn it is to look into `folder`.
    pub fn turn(&self, folder: &Path) -> Arc<Semaphore> {
        let mut turns = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(folder.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
    }

    /// For what stands in cluster-scoped resources, which only administrators write.
    #[must_use]
    pub fn of_administrators(&self) -> Self {
        Self { egress: self.egress.of_administrators(), ..self.clone() }
    }
}
