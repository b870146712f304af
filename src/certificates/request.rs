//! What a CertificateRotation asks an issuer for, and whether an answer is what was asked. No I/O.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::x509::{Certificate, Name, path};
use crate::{
    api::{
        Duration,
        certificate_rotation::{Algorithm, CertificateRotationSpec, NameConstraints, Subject, Usage},
    },
    keys::{self, Key},
};

/// A request to an issuer: everything that goes into the certificate, and the key that it is for.
#[derive(Debug)]
pub struct Request<'a> {
    /// Subject, names, usages.
    pub spec: &'a CertificateRotationSpec,
    /// The key to be certified.
    pub key: &'a Key,
    /// When the request is made.
    pub now: Timestamp,
}

/// What an issuer gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub leaf: Certificate,
    /// The chain behind it, without the root.
    pub intermediates: Vec<Certificate>,
    /// What consumers have to trust: `ca.crt`.
    pub roots: Vec<Certificate>,
}

/// Why an answer is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Not the public key that was sent.
    #[error("the certificate has another public key than the one that was sent")]
    OtherKey,
    /// A name is missing.
    #[error("the certificate does not hold the requested name {0}")]
    NameMissing(String),
    /// It begins in the future.
    #[error("the certificate is not valid before {0}")]
    NotYetValid(Timestamp),
    /// It is over already.
    #[error("the certificate was valid until {0} only")]
    Expired(Timestamp),
    /// It lives longer than asked.
    #[error("the certificate is valid until {0}, longer than was asked")]
    TooLong(Timestamp),
    /// CA or not is another than asked.
    #[error("the certificate {}", if *.0 { "is one of a CA, which was not asked for" } else { "is not one of a CA, which was asked for" })]
    CaFlag(bool),
    /// No path to the root, or only over a certificate that may not sign or is not valid now.
    #[error(
        "the chain does not lead, over certificates that are valid and may sign, from the certificate to the CA certificate that came with it"
    )]
    BrokenChain,
    /// The chain ends before the certificate does.
    #[error("a certificate of the chain ends at {0}, before the certificate itself")]
    OutlivesIssuer(Timestamp),
}

/// How far an issuer's clock may be off.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

impl Request<'_> {
    /// Refuses an answer that is not what was asked. Shorter lives and added names are accepted.
    pub fn verify(&self, issued: &Issued) -> Result<(), Unfit> {
        let leaf = &issued.leaf;
        if leaf.public_key != self.key.public_key() {
            return Err(Unfit::OtherKey);
        }
        if let Some(missing) = names(self.spec).into_iter().find(|name| !leaf.names.contains(name)) {
            return Err(Unfit::NameMissing(format!("{missing:?}")));
        }
        if !self.spec.common_name.is_empty() && leaf.common_name.as_deref() != Some(self.spec.common_name.as_str()) {
            return Err(Unfit::NameMissing(format!("CommonName({:?})", self.spec.common_name)));
        }
        if leaf.not_before > self.now + CLOCK_SKEW {
            return Err(Unfit::NotYetValid(leaf.not_before));
        }
        if leaf.not_after <= self.now {
            return Err(Unfit::Expired(leaf.not_after));
        }
        if leaf.not_after > self.now + self.spec.duration.signed() + CLOCK_SKEW {
            return Err(Unfit::TooLong(leaf.not_after));
        }
        if leaf.is_ca != self.spec.is_ca {
            return Err(Unfit::CaFlag(leaf.is_ca));
        }
        // Of several paths (a CA that was signed twice) one that lasts is enough.
        let lasting = |above: &Certificate| above.is_valid(self.now) && above.not_after >= leaf.not_after;
        let path = |fit: &dyn Fn(&Certificate) -> bool| path(leaf, &issued.intermediates, &issued.roots, fit);
        if path(&lasting).is_some() {
            return Ok(());
        }
        let ends = path(&|above| above.is_valid(self.now)).and_then(|above| above.iter().map(|above| above.not_after).min());
        Err(ends.map_or(Unfit::BrokenChain, Unfit::OutlivesIssuer))
    }
}

/// All names that `spec` asks for. Addresses that cannot be read are left out here; [`invalid`] reports them.
pub fn names(spec: &CertificateRotationSpec) -> BTreeSet<Name> {
    let addresses = spec.ip_addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok()).map(Name::Ip);
    spec.dns_names
        .iter()
        .map(|name| Name::Dns(name.to_ascii_lowercase()))
        .chain(addresses)
        .chain(spec.uris.iter().cloned().map(Name::Uri))
        .chain(spec.email_addresses.iter().cloned().map(Name::Email))
        .collect()
}

/// What the API server could not judge, or did not because its schema is another one: the first field that is wrong and what to write there.
pub fn invalid(spec: &CertificateRotationSpec) -> Option<String> {
    if let Some(address) = spec.ip_addresses.iter().find(|address| address.parse::<IpAddr>().is_err()) {
        return Some(format!("spec.ipAddresses: {address:?} is no IP address"));
    }
    for (field, values) in [("dnsNames", &spec.dns_names), ("uris", &spec.uris), ("emailAddresses", &spec.email_addresses)] {
        if let Some(value) = values.iter().find(|value| value.is_empty() || value.chars().any(|letter| !letter.is_ascii_graphic())) {
            return Some(format!("spec.{field}: {value:?} is not ASCII; write internationalized domain names in their xn-- form"));
        }
    }
    if names(spec).is_empty() && spec.common_name.is_empty() {
        return Some("spec: name at least one subject: commonName, dnsNames, ipAddresses, uris or emailAddresses".into());
    }
    let sizes: &[i32] = match spec.private_key.algorithm {
        Algorithm::Rsa => &[2048, 3072, 4096],
        Algorithm::Ecdsa => &[256, 384, 521],
        Algorithm::Ed25519 => &[],
    };
    if let Some(size) = spec.private_key.size.filter(|size| !sizes.contains(size)) {
        return Some(format!(
            "spec.privateKey.size: {size} is not possible with {:?}; choose one of {sizes:?}",
            spec.private_key.algorithm
        ));
    }
    if let Some(percent) = spec.renew_before_percentage.filter(|percent| !(1..=99).contains(percent)) {
        return Some(format!("spec.renewBeforePercentage: {percent} does not lie between 1 and 99"));
    }
    if !(0..=1).contains(&spec.history) {
        return Some(format!("spec.history: {} is neither 0 nor 1", spec.history));
    }
    if spec.duration < Duration::hours(1) {
        return Some(format!("spec.duration: {} is less than 1h", spec.duration));
    }
    None
}

/// What is hashed for `SpecChanged`: what an issuer is asked for, and nothing that only changes how it is stored.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked<'a> {
    common_name: &'a str,
    names: Vec<String>,
    subject: Option<&'a Subject>,
    usages: BTreeSet<Usage>,
    seconds: i64,
    is_ca: bool,
    name_constraints: Option<&'a NameConstraints>,
    algorithm: Algorithm,
    size: i32,
}

/// A hash of what `spec` asks an issuer for: the same text for the same request, whatever the order of names and usages.
pub fn hash(spec: &CertificateRotationSpec) -> String {
    let asked = Asked {
        common_name: &spec.common_name,
        names: names(spec).into_iter().map(|name| format!("{name:?}")).collect(),
        subject: spec.subject.as_ref(),
        usages: spec.usages.iter().copied().collect(),
        seconds: spec.duration.signed().as_secs(),
        is_ca: spec.is_ca,
        name_constraints: spec.name_constraints.as_ref(),
        algorithm: spec.private_key.algorithm,
        size: keys::size(&spec.private_key),
    };
    crate::ids::hash(&serde_json::to_vec(&asked).unwrap_or_default())
}
