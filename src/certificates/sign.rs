//! Making certificates with a key that we hold: what the issuers `selfSigned` and `ca` share. No I/O.
//!
//! The extensions are written by rcgen. The two names are written here, because rcgen holds one value for each attribute type and would
//! lose a second `DC` or `OU`; a chain whose names do not match byte for byte is broken.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, SigningKey, date_time_ymd,
};
use x509_parser::asn1_rs::{Any, FromDer};

use super::{
    constraints,
    request::Request,
    x509::{Certificate, Name},
};
use crate::{
    api::certificate_rotation::{CertificateRotationSpec, Subject, Usage},
    keys::Key,
};

/// A certificate begins a little in the past, so that a consumer whose clock is behind accepts it.
const BACKDATE: SignedDuration = SignedDuration::from_mins(1);

/// Signing failed: the request holds something that cannot be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate cannot be made: {0}")]
pub struct SignError(String);

/// Signs `request` with its own key (`authority` None) or with a CA's certificate and key.
///
/// The end is `now + duration`, or the CA's end if that is earlier; the beginning a minute ago, or the CA's.
pub fn sign(request: &Request<'_>, authority: Option<(&Certificate, &Key)>) -> Result<Certificate, SignError> {
    let wrong = |error: rcgen::Error| SignError(error.to_string());
    let spec = request.spec;
    let mut params = params(spec)?;
    let (mut begin, mut end) = (request.now - BACKDATE, request.now + spec.duration.signed());
    if let Some((ca, _)) = authority {
        (begin, end) = (begin.max(ca.not_before), end.min(ca.not_after));
        params.use_authority_key_identifier_extension = ca.key_id.is_some();
    }
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(begin)?;
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(end)?;
    params.serial_number = Some(serial()?);
    let key = authority.map_or(request.key, |(_, key)| key);
    let shape = Shape(key.pair());
    let mut issuer = CertificateParams::default();
    if let Some(id) = authority.and_then(|(ca, _)| ca.key_id.clone()) {
        issuer.key_identifier_method = KeyIdMethod::PreSpecified(id);
    }
    let unsigned = params.signed_by(request.key.pair(), &rcgen::Issuer::from_params(&issuer, shape)).map_err(wrong)?;
    let subject = subject(spec);
    let issuer_name = authority.map_or(subject.as_slice(), |(ca, _)| ca.subject.as_slice());
    let der = rename_and_sign(unsigned.der(), issuer_name, &subject, key.pair())?;
    Certificate::from_der(&der).ok_or_else(|| SignError("what was encoded cannot be read back".into()))
}

/// Says which algorithm will sign, without signing: the first encoding is thrown away.
struct Shape<'a>(&'a KeyPair);

impl PublicKeyData for Shape<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for Shape<'_> {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Vec::new())
    }
}

/// Puts the names into the to-be-signed part (RFC 5280, section 4.1: version, serialNumber, signature, **issuer**, validity, **subject**,
/// and the rest as it is) and signs it.
fn rename_and_sign(certificate: &[u8], issuer: &[u8], subject: &[u8], key: &KeyPair) -> Result<Vec<u8>, SignError> {
    let broken = || SignError("unexpected encoding".into());
    let outer = fields(contents(certificate).ok_or_else(broken)?);
    let [tbs, algorithm, _] = outer.as_slice() else { return Err(broken()) };
    let mut parts = fields(contents(tbs).ok_or_else(broken)?);
    if parts.len() < 7 {
        return Err(broken());
    }
    (parts[3], parts[5]) = (issuer, subject);
    let tbs = tlv(0x30, &parts.concat());
    let signature = key.sign(&tbs).map_err(|error| SignError(error.to_string()))?;
    let signature = tlv(0x03, &[&[0u8], signature.as_slice()].concat());
    Ok(tlv(0x30, &[tbs.as_slice(), algorithm, &signature].concat()))
}

/// The content of one DER element.
fn contents(element: &[u8]) -> Option<&[u8]> {
    Any::from_der(element).ok().map(|(_, any)| any.data)
}

/// The elements that stand one after the other, each with its header.
fn fields(mut content: &[u8]) -> Vec<&[u8]> {
    let mut fields = Vec::new();
    while let Ok((rest, _)) = Any::from_der(content) {
        let (field, behind) = content.split_at(content.len() - rest.len());
        fields.push(field);
        content = behind;
    }
    fields
}

/// One DER element.
pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut out = vec![tag];
    match significant.as_slice() {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(0x7f));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

/// The subject as an X.501 Name: general parts first, the common name last, each attribute in its own RDN, UTF8String (country and
/// serialNumber PrintableString, as RFC 5280 appendix A wants).
fn subject(spec: &CertificateRotationSpec) -> Vec<u8> {
    const UTF8: u8 = 0x0c;
    const PRINTABLE: u8 = 0x13;
    let none = Subject::default();
    let subject = spec.subject.as_ref().unwrap_or(&none);
    let attribute = |oid: &[u8], tag: u8, value: &str| {
        let pair = [tlv(0x06, oid), tlv(tag, value.as_bytes())].concat();
        tlv(0x31, &tlv(0x30, &pair))
    };
    let lists: [(u8, u8, &[String]); 7] = [
        (6, PRINTABLE, &subject.countries),
        (8, UTF8, &subject.provinces),
        (7, UTF8, &subject.localities),
        (9, UTF8, &subject.street_addresses),
        (17, UTF8, &subject.postal_codes),
        (10, UTF8, &subject.organizations),
        (11, UTF8, &subject.organizational_units),
    ];
    let mut name: Vec<u8> = lists
        .into_iter()
        .flat_map(|(arc, tag, values)| values.iter().map(move |value| (arc, tag, value)))
        .flat_map(|(arc, tag, value)| attribute(&[0x55, 4, arc], tag, value)) // 2.5.4.arc
        .collect();
    if let Some(serial) = &subject.serial_number {
        name.extend(attribute(&[0x55, 4, 5], PRINTABLE, serial));
    }
    if !spec.common_name.is_empty() {
        name.extend(attribute(&[0x55, 4, 3], UTF8, &spec.common_name));
    }
    tlv(0x30, &name)
}

fn params(spec: &CertificateRotationSpec) -> Result<CertificateParams, SignError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if subject(spec).len() > 2 {
        params.distinguished_name.push(DnType::CommonName, "replaced"); // an empty subject would make subjectAltName critical
    }
    for name in super::request::names(spec) {
        params.subject_alt_names.push(alternative_name(name)?);
    }
    params.is_ca = if spec.is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    for usage in &spec.usages {
        match purpose(*usage) {
            Purpose::Key(purpose) if !params.key_usages.contains(&purpose) => params.key_usages.push(purpose),
            Purpose::Extended(purpose) if !params.extended_key_usages.contains(&purpose) => params.extended_key_usages.push(purpose),
            _ => {}
        }
    }
    if spec.is_ca {
        for needed in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
            if !params.key_usages.contains(&needed) {
                params.key_usages.push(needed);
            }
        }
    }
    if let Some(constraints) = &spec.name_constraints
        && let Some(der) = constraints::encode(constraints).map_err(SignError)?
    {
        // Not rcgen's own: it knows no URIs, and marks it always critical.
        let mut extension = CustomExtension::from_oid_content(constraints::OID, der);
        extension.set_criticality(constraints.critical);
        params.custom_extensions.push(extension);
    }
    Ok(params)
}

fn alternative_name(name: Name) -> Result<SanType, SignError> {
    let ascii = |text: String| text.try_into().map_err(|_| SignError("a name is not ASCII".into()));
    Ok(match name {
        Name::Dns(name) => SanType::DnsName(ascii(name)?),
        Name::Uri(uri) => SanType::URI(ascii(uri)?),
        Name::Email(email) => SanType::Rfc822Name(ascii(email)?),
        Name::Ip(address) => SanType::IpAddress(address),
    })
}

enum Purpose {
    Key(KeyUsagePurpose),
    Extended(ExtendedKeyUsagePurpose),
}

fn purpose(usage: Usage) -> Purpose {
    use ExtendedKeyUsagePurpose as E;
    use KeyUsagePurpose as K;
    let ipsec = |arc| Purpose::Extended(E::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, arc]));
    match usage {
        Usage::Signing | Usage::DigitalSignature => Purpose::Key(K::DigitalSignature),
        Usage::ContentCommitment => Purpose::Key(K::ContentCommitment),
        Usage::KeyEncipherment => Purpose::Key(K::KeyEncipherment),
        Usage::KeyAgreement => Purpose::Key(K::KeyAgreement),
        Usage::DataEncipherment => Purpose::Key(K::DataEncipherment),
        Usage::CertSign => Purpose::Key(K::KeyCertSign),
        Usage::CrlSign => Purpose::Key(K::CrlSign),
        Usage::EncipherOnly => Purpose::Key(K::EncipherOnly),
        Usage::DecipherOnly => Purpose::Key(K::DecipherOnly),
        Usage::Any => Purpose::Extended(E::Any),
        Usage::ServerAuth => Purpose::Extended(E::ServerAuth),
        Usage::ClientAuth => Purpose::Extended(E::ClientAuth),
        Usage::CodeSigning => Purpose::Extended(E::CodeSigning),
        Usage::EmailProtection | Usage::SMime => Purpose::Extended(E::EmailProtection),
        Usage::IpsecEndSystem => ipsec(5),
        Usage::IpsecTunnel => ipsec(6),
        Usage::IpsecUser => ipsec(7),
        Usage::Timestamping => Purpose::Extended(E::TimeStamping),
        Usage::OcspSigning => Purpose::Extended(E::OcspSigning),
        Usage::MicrosoftSgc => Purpose::Extended(E::Other(vec![1, 3, 6, 1, 4, 1, 311, 10, 3, 3])),
        Usage::NetscapeSgc => Purpose::Extended(E::Other(vec![2, 16, 840, 1, 113_730, 4, 1])),
    }
}

/// 127 random bits: unique without memory (RFC 5280, section 4.1.2.2: positive, at most 20 octets), and new for a key that is kept.
fn serial() -> Result<SerialNumber, SignError> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SignError("no random numbers".into()))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn since_1970(time: Timestamp) -> Result<Duration, SignError> {
    u64::try_from(time.as_second()).map(Duration::from_secs).map_err(|_| SignError("a time before 1970".into()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(super) mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::{
        api::certificate_rotation::{Algorithm, Encoding},
        certificates::issuer::SecretData,
        testing::issuer_contract::spec,
    };

    pub(crate) fn spec_of_ca(name: &str) -> CertificateRotationSpec {
        CertificateRotationSpec { is_ca: true, dns_names: Vec::new(), ..spec(name) }
    }

    pub(crate) fn ca(name: &str) -> (Key, Certificate) {
        let spec = spec_of_ca(name);
        let key = Key::generate(&spec.private_key).unwrap();
        let certificate = sign(&Request { spec: &spec, key: &key, now: Timestamp::now() }, None).unwrap();
        (key, certificate)
    }

    pub(crate) fn child(name: &str, parent_key: &Key, parent: &Certificate) -> (Key, Certificate) {
        let spec = spec_of_ca(name);
        let key = Key::generate(&spec.private_key).unwrap();
        let certificate = sign(&Request { spec: &spec, key: &key, now: Timestamp::now() }, Some((parent, parent_key))).unwrap();
        (key, certificate)
    }

    pub(crate) fn pair(key: &Key, chain: &[&Certificate]) -> SecretData {
        let pem: String = chain.iter().map(|certificate| certificate.to_pem()).collect();
        let key = key.to_pem(Encoding::Pkcs8).unwrap();
        [("tls.crt", pem.into_bytes()), ("tls.key", key.as_bytes().to_vec())]
            .map(|(name, value)| (name.to_owned(), Zeroizing::new(value)))
            .into()
    }

    #[test]
    fn a_subject_keeps_every_value_in_both_names() {
        let mut spec = spec_of_ca("Example CA");
        spec.subject =
            Some(Subject { organizations: vec!["One".into(), "Two".into()], countries: vec!["DE".into()], ..Subject::default() });
        let key = Key::generate(&spec.private_key).unwrap();
        let root = sign(&Request { spec: &spec, key: &key, now: Timestamp::now() }, None).unwrap();
        assert_eq!(root.subject_text, "C=DE, O=One, O=Two, CN=Example CA");
        let (_, leaf) = child("leaf", &key, &root);
        assert_eq!(leaf.issuer, root.subject);
        assert!(leaf.is_signed_by(&root));
    }

    #[test]
    fn every_algorithm_signs_for_every_other() {
        let kinds = [
            (Algorithm::Rsa, None),
            (Algorithm::Ecdsa, Some(256)),
            (Algorithm::Ecdsa, Some(384)),
            (Algorithm::Ecdsa, Some(521)),
            (Algorithm::Ed25519, None),
        ];
        let of = |(algorithm, size)| {
            let mut spec = spec_of_ca("x");
            (spec.private_key.algorithm, spec.private_key.size) = (algorithm, size);
            (Key::generate(&spec.private_key).unwrap(), spec)
        };
        for parent in kinds {
            let (parent_key, parent_spec) = of(parent);
            let parent = sign(&Request { spec: &parent_spec, key: &parent_key, now: Timestamp::now() }, None).unwrap();
            assert!(parent.is_signed_by(&parent));
            for kind in kinds {
                let (key, spec) = of(kind);
                let leaf = sign(&Request { spec: &spec, key: &key, now: Timestamp::now() }, Some((&parent, &parent_key))).unwrap();
                assert!(leaf.is_signed_by(&parent), "{kind:?}");
                assert!(!parent.is_signed_by(&leaf));
            }
        }
    }

    #[test]
    fn an_empty_subject_is_allowed_and_lengths_are_encoded() {
        let mut spec = spec("x");
        spec.common_name.clear();
        let key = Key::generate(&spec.private_key).unwrap();
        assert_eq!(sign(&Request { spec: &spec, key: &key, now: Timestamp::now() }, None).unwrap().subject, [0x30, 0]);
        for (length, header) in [(0usize, vec![4u8, 0]), (127, vec![4, 127]), (128, vec![4, 0x81, 128]), (256, vec![4, 0x82, 1, 0])] {
            assert_eq!(tlv(4, &vec![0; length])[..header.len()], header, "{length}");
        }
    }
}
