//! What a CertificateRotation has to do with others. Pure.

use super::issuer::Issuer;
use crate::{api::CertificateRotation, cluster::index::Entry};

/// The suffix of the Secret with the previous pair.
pub const PREVIOUS: &str = "-previous";

/// For the index.
pub fn entry(rotation: &CertificateRotation) -> Entry {
    Entry {
        age: Entry::age(&rotation.metadata),
        writes: targets(rotation),
        reads: reads(rotation),
        names: rotation.spec.issuer_ref.as_ref().map(|reference| reference.name.clone()),
        wants: Vec::new(),
    }
}

/// The Secrets that a rotation writes.
pub fn targets(rotation: &CertificateRotation) -> Vec<String> {
    vec![rotation.spec.secret_name.clone(), format!("{}{PREVIOUS}", rotation.spec.secret_name)]
}

/// The Secrets that it reads: its issuer's, and the client certificate of its handshakes.
fn reads(rotation: &CertificateRotation) -> Vec<String> {
    let client = rotation.spec.verify.iter().filter_map(|verify| verify.tls.as_ref()?.client_secret_name.clone());
    rotation.spec.issuer.iter().flat_map(Issuer::secrets).chain(client).collect()
}
