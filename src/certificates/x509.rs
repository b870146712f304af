//! Certificates as they are read: PEM, the facts that decisions need, signatures. No I/O.

use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
};

use aws_lc_rs::{digest, signature};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{
    asn1_rs::Oid,
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE, OID_X509_EXT_NAME_CONSTRAINTS, OID_X509_EXT_SUBJECT_ALT_NAME},
    prelude::FromDer,
};

use super::constraints::Constraints;
use crate::keys::{MAX_PEM_BYTES, pem::pem};

/// More certificates than any real chain has; what is beyond is refused.
pub const MAX_CHAIN: usize = 32;

/// Why certificates cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum X509Error {
    /// Larger than a Secret can hold.
    #[error("the certificates are larger than 1 MiB")]
    TooLarge,
    /// More than [`MAX_CHAIN`].
    #[error("there are more than {MAX_CHAIN} certificates")]
    TooMany,
    /// No PEM block `CERTIFICATE`, or a broken one.
    #[error("there is no certificate in PEM form")]
    NotPem,
    /// Broken DER.
    #[error("certificate {index} of the chain cannot be read")]
    Broken {
        /// Counts from 1.
        index: usize,
    },
}

/// A name that a certificate is valid for (subjectAltName, RFC 5280 section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// dNSName, in lower case
    Dns(String),
    /// iPAddress
    Ip(IpAddr),
    /// uniformResourceIdentifier
    Uri(String),
    /// rfc822Name
    Email(String),
}

/// A certificate and the facts that decisions need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    /// Hexadecimal in upper case, with colons.
    pub serial: String,
    /// First moment of validity.
    pub not_before: Timestamp,
    /// Last moment of validity.
    pub not_after: Timestamp,
    /// The subject's name in DER.
    pub subject: Vec<u8>,
    /// The issuer's name in DER.
    pub issuer: Vec<u8>,
    /// The subject as text, for people.
    pub subject_text: String,
    /// The subject's first common name.
    pub common_name: Option<String>,
    /// SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
    /// subjectAltName.
    pub names: BTreeSet<Name>,
    /// basicConstraints say CA.
    pub is_ca: bool,
    /// keyUsage is absent or has keyCertSign.
    pub may_sign: bool,
    /// subjectKeyIdentifier.
    pub key_id: Option<Vec<u8>>,
    /// How many CAs may follow below it (pathLenConstraint); None: any number.
    pub path_len: Option<u32>,
    /// Which names it may sign for.
    pub constraints: Constraints,
}

/// Extensions that decisions rest on.
const DECISIVE: &[Oid<'_>] =
    &[OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE, OID_X509_EXT_NAME_CONSTRAINTS, OID_X509_EXT_SUBJECT_ALT_NAME];

impl Certificate {
    /// Reads one certificate. None if it is broken or something follows it.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let (mut names, mut is_ca, mut may_sign, mut key_id) = (BTreeSet::new(), false, true, None);
        let (mut path_len, mut constraints) = (None, Constraints::default());
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                // What cannot be read may forbid what would be done; but an extension that only informs may be as it likes.
                ParsedExtension::ParseError { .. } if extension.critical || DECISIVE.contains(&extension.oid) => return None,
                ParsedExtension::SubjectAlternativeName(alternative) => names.extend(alternative.general_names.iter().filter_map(name)),
                ParsedExtension::BasicConstraints(basic) => (is_ca, path_len) = (basic.ca, basic.path_len_constraint),
                ParsedExtension::NameConstraints(names) => constraints = Constraints::from(names),
                ParsedExtension::KeyUsage(usage) => may_sign = usage.key_cert_sign(),
                ParsedExtension::SubjectKeyIdentifier(id) => key_id = Some(id.0.to_vec()),
                _ => {}
            }
        }
        Some(Self {
            serial: hex(parsed.raw_serial()),
            not_before: time(parsed.validity().not_before.timestamp()),
            not_after: time(parsed.validity().not_after.timestamp()),
            subject: parsed.subject().as_raw().to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
            subject_text: parsed.subject().to_string().chars().take(200).collect(),
            common_name: parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).map(ToOwned::to_owned),
            public_key: parsed.public_key().raw.to_vec(),
            names,
            is_ca,
            may_sign,
            key_id,
            path_len,
            constraints,
            der: der.to_vec(),
        })
    }

    /// Reads all certificates of a PEM text, in their order; at least one.
    pub fn chain(pem: &[u8]) -> Result<Vec<Self>, X509Error> {
        if pem.len() > MAX_PEM_BYTES {
            return Err(X509Error::TooLarge);
        }
        let mut chain = Vec::new();
        for der in CertificateDer::pem_slice_iter(pem) {
            let der = der.map_err(|_| X509Error::NotPem)?;
            if chain.len() == MAX_CHAIN {
                return Err(X509Error::TooMany);
            }
            chain.push(Self::from_der(&der).ok_or(X509Error::Broken { index: chain.len() + 1 })?);
        }
        if chain.is_empty() { Err(X509Error::NotPem) } else { Ok(chain) }
    }

    /// Whether `now` lies in its life.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// Its DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its PEM.
    pub fn to_pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    /// SHA-256 of the DER, hexadecimal in upper case with colons, as `openssl x509 -fingerprint -sha256` prints it.
    pub fn fingerprint(&self) -> String {
        hex(digest::digest(&digest::SHA256, &self.der).as_ref())
    }

    /// Whether it names itself as its issuer.
    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether `issuer` signed it: its name stands there as the issuer, it may sign, and the signature verifies.
    pub fn is_signed_by(&self, issuer: &Self) -> bool {
        self.issuer == issuer.subject && self.verifies_with(&issuer.public_key)
    }

    fn verifies_with(&self, public_key: &[u8]) -> bool {
        use x509_parser::x509::SubjectPublicKeyInfo;
        let Ok((_, certificate)) = X509Certificate::from_der(&self.der) else { return false };
        let Ok((_, key)) = SubjectPublicKeyInfo::from_der(public_key) else { return false };
        let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok()).map(|oid| oid.to_id_string());
        if let Some(algorithm) = ecdsa(&algorithm, curve.as_deref()) {
            let signature = certificate.signature_value.data.as_ref();
            let point = key.subject_public_key.data.as_ref();
            return signature::UnparsedPublicKey::new(algorithm, point).verify(certificate.tbs_certificate.as_ref(), signature).is_ok();
        }
        certificate.verify_signature(Some(&key)).is_ok()
    }
}

/// The pairs of hash and curve that occur (RFC 5758); the parser's own verification knows fewer of them.
fn ecdsa(algorithm: &str, curve: Option<&str>) -> Option<&'static signature::EcdsaVerificationAlgorithm> {
    const SHA256: &str = "1.2.840.10045.4.3.2";
    const SHA384: &str = "1.2.840.10045.4.3.3";
    const SHA512: &str = "1.2.840.10045.4.3.4";
    const P256: &str = "1.2.840.10045.3.1.7";
    const P384: &str = "1.3.132.0.34";
    const P521: &str = "1.3.132.0.35";
    Some(match (algorithm, curve?) {
        (SHA256, P256) => &signature::ECDSA_P256_SHA256_ASN1,
        (SHA384, P256) => &signature::ECDSA_P256_SHA384_ASN1,
        (SHA512, P256) => &signature::ECDSA_P256_SHA512_ASN1,
        (SHA256, P384) => &signature::ECDSA_P384_SHA256_ASN1,
        (SHA384, P384) => &signature::ECDSA_P384_SHA384_ASN1,
        (SHA512, P384) => &signature::ECDSA_P384_SHA512_ASN1,
        (SHA256, P521) => &signature::ECDSA_P521_SHA256_ASN1,
        (SHA384, P521) => &signature::ECDSA_P521_SHA384_ASN1,
        (SHA512, P521) => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return None,
    })
}

/// RFC 5280 writes "no end" as 9999-12-31T23:59:59Z, some hours after the last time that can be calculated with in every time zone.
fn time(second: i64) -> Timestamp {
    const LAST: i64 = 253_402_100_000; // 9999-12-29
    Timestamp::from_second(second.clamp(0, LAST)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn name(general: &GeneralName<'_>) -> Option<Name> {
    Some(match general {
        GeneralName::DNSName(name) => Name::Dns(name.to_ascii_lowercase()),
        GeneralName::URI(uri) => Name::Uri((*uri).to_owned()),
        GeneralName::RFC822Name(email) => Name::Email((*email).to_owned()),
        GeneralName::IPAddress(bytes) => Name::Ip(match bytes.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?),
            16 => IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?),
            _ => return None,
        }),
        _ => return None,
    })
}

/// The shortest path of signatures from `leaf` over any of `intermediates` to one of `roots`: what stands above the leaf, the root last; empty
/// if the leaf is itself a root. None: there is no path on which each certificate is `fit` and may sign what is below it (RFC 5280, section 6.1.4).
pub fn path<'a>(
    leaf: &'a Certificate,
    intermediates: &'a [Certificate],
    roots: &'a [Certificate],
    fit: impl Fn(&Certificate) -> bool,
) -> Option<Vec<&'a Certificate>> {
    if roots.iter().any(|root| root.der == leaf.der) {
        return Some(Vec::new());
    }
    let mut paths = VecDeque::from([Vec::new()]);
    let mut seen = vec![leaf];
    while let Some(below) = paths.pop_front() {
        let top = below.last().copied().unwrap_or(leaf);
        let depth = below.iter().copied().chain([leaf]).filter(|below: &&Certificate| below.is_ca && !below.is_self_issued()).count();
        let signs = |above: &&Certificate| {
            let deep_enough = above.path_len.is_none_or(|most| usize::try_from(most).is_ok_and(|most| depth <= most));
            above.is_ca && above.may_sign && deep_enough && fit(above) && top.is_signed_by(above)
        };
        let with = |above| below.iter().copied().chain([above]).collect::<Vec<_>>();
        if let Some(root) = roots.iter().find(signs) {
            return Some(with(root));
        }
        for above in intermediates.iter().filter(|above| !seen.iter().any(|seen| seen.der == above.der)).filter(signs).collect::<Vec<_>>() {
            seen.push(above);
            paths.push_back(with(above));
        }
    }
    None
}

/// Hexadecimal in upper case, with colons.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn pem_is_read_back() {
        for length in [0usize, 1, 2, 3, 47, 48, 49, 96, 500] {
            let der: Vec<u8> = (0..length).map(|byte| u8::try_from(byte % 251).unwrap()).collect();
            let text = pem("CERTIFICATE", &der);
            assert!(text.lines().all(|line| line.len() <= 64));
            let read = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
            assert_eq!(read.as_ref(), der, "{length}");
        }
    }

    #[test]
    fn what_is_no_chain_is_refused() {
        assert_eq!(Certificate::chain(b"").unwrap_err(), X509Error::NotPem);
        assert_eq!(Certificate::chain(b"-----BEGIN CERTIFICATE-----\n").unwrap_err(), X509Error::NotPem);
        assert_eq!(Certificate::chain(pem("CERTIFICATE", b"x").as_bytes()).unwrap_err(), X509Error::Broken { index: 1 });
        assert_eq!(Certificate::chain(&vec![b' '; MAX_PEM_BYTES + 1]).unwrap_err(), X509Error::TooLarge);
    }

    #[test]
    fn paths() {
        use crate::certificates::sign::tests::{ca, child};
        let (root_key, root) = ca("root");
        let (middle_key, middle) = child("middle", &root_key, &root);
        let (_, leaf) = child("leaf", &middle_key, &middle);
        let (_, stranger) = ca("stranger");
        let now = Timestamp::now();
        let names =
            |path: Option<Vec<&Certificate>>| path.map(|path| path.iter().map(|above| above.subject_text.clone()).collect::<Vec<_>>());
        let over = |certificate: &Certificate| Certificate { not_after: now, ..certificate.clone() };
        let most = |certificate: &Certificate, most| Certificate { path_len: Some(most), ..certificate.clone() };
        let found = Some(vec!["CN=middle".to_owned(), "CN=root".to_owned()]);
        for (intermediates, roots, wanted) in [
            (vec![middle.clone()], vec![root.clone()], found.clone()),
            (vec![stranger.clone(), middle.clone()], vec![stranger.clone(), root.clone()], found.clone()),
            (vec![], vec![root.clone()], None),
            (vec![middle.clone()], vec![stranger.clone()], None),
            (vec![], vec![leaf.clone()], Some(Vec::new())),
            // What has ended matters on the path only.
            (vec![middle.clone()], vec![over(&stranger), root.clone()], found.clone()),
            (vec![over(&middle)], vec![root.clone()], None),
            (vec![middle.clone()], vec![over(&root)], None),
            // One way is closed, another is open.
            (vec![over(&middle), middle.clone()], vec![root.clone()], found.clone()),
            // The leaf is a CA too, so that there are one and two below.
            (vec![most(&middle, 1)], vec![most(&root, 2)], found),
            (vec![most(&middle, 0)], vec![root.clone()], None),
            (vec![middle.clone()], vec![most(&root, 1)], None),
        ] {
            assert_eq!(names(path(&leaf, &intermediates, &roots, |above| above.is_valid(now))), wanted);
        }
        assert!(path(&leaf, &[over(&middle)], std::slice::from_ref(&root), |_| true).is_some());
    }

    #[test]
    fn a_constraint_that_cannot_be_read_is_not_ignored() {
        let key = rcgen::KeyPair::generate().unwrap();
        for (oid, critical, readable) in [([2, 5, 29, 30], false, false), ([2, 5, 29, 15], false, false), ([2, 5, 29, 31], false, true)] {
            let mut params = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap();
            let mut extension = rcgen::CustomExtension::from_oid_content(&oid, vec![0x30, 0x05, 0x01]);
            extension.set_criticality(critical);
            params.custom_extensions.push(extension);
            let der = params.self_signed(&key).unwrap();
            assert_eq!(Certificate::from_der(der.der()).is_some(), readable, "{oid:?}");
        }
    }

    #[test]
    fn no_input_makes_it_panic() {
        let valid = crate::certificates::sign::tests::ca("fuzz").1;
        bolero::check!().with_iterations(20_000).for_each(|input: &[u8]| {
            let _ = Certificate::chain(input);
            let _ = Certificate::from_der(input);
            let mut broken = valid.der().to_vec();
            for (index, byte) in input.iter().enumerate() {
                let place = (index * 37 + usize::from(*byte)) % broken.len();
                broken[place] ^= byte;
            }
            if let Some(read) = Certificate::from_der(&broken) {
                let _ = read.is_signed_by(&valid);
            }
        });
    }
}
