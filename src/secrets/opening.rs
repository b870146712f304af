//! What a store is opened with.

use kube::Client;

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
    /// Where calls may go.
    pub egress: &'a Egress,
}
