//! The terms of X.509 in a resource: who a certificate is for, what its key may be used for, what kind of key it is. Names and values are those
//! of cert-manager.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The parts of a distinguished name beside the common name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// O
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(min = 1, max = 64)))]
    pub organizations: Vec<String>,
    /// OU
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(min = 1, max = 64)))]
    pub organizational_units: Vec<String>,
    /// C, two letters
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(min = 2, max = 2), regex(pattern = "^[A-Z]{2}$")))]
    pub countries: Vec<String>,
    /// ST
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(min = 1, max = 128)))]
    pub provinces: Vec<String>,
    /// L
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(min = 1, max = 128)))]
    pub localities: Vec<String>,
    /// STREET
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(min = 1, max = 128)))]
    pub street_addresses: Vec<String>,
    /// Postal code
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(min = 1, max = 40)))]
    pub postal_codes: Vec<String>,
    /// serialNumber of the subject, not of the certificate
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub serial_number: Option<String>,
}

/// What a key may be used for; the words are those of cert-manager and of Kubernetes' CertificateSigningRequest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Usage {
    /// digitalSignature, as `digital signature`
    #[serde(rename = "signing")]
    Signing,
    /// digitalSignature
    #[serde(rename = "digital signature")]
    DigitalSignature,
    /// contentCommitment
    #[serde(rename = "content commitment")]
    ContentCommitment,
    /// keyEncipherment
    #[serde(rename = "key encipherment")]
    KeyEncipherment,
    /// keyAgreement
    #[serde(rename = "key agreement")]
    KeyAgreement,
    /// dataEncipherment
    #[serde(rename = "data encipherment")]
    DataEncipherment,
    /// keyCertSign
    #[serde(rename = "cert sign")]
    CertSign,
    /// cRLSign
    #[serde(rename = "crl sign")]
    CrlSign,
    /// encipherOnly
    #[serde(rename = "encipher only")]
    EncipherOnly,
    /// decipherOnly
    #[serde(rename = "decipher only")]
    DecipherOnly,
    /// anyExtendedKeyUsage
    #[serde(rename = "any")]
    Any,
    /// id-kp-serverAuth
    #[serde(rename = "server auth")]
    ServerAuth,
    /// id-kp-clientAuth
    #[serde(rename = "client auth")]
    ClientAuth,
    /// id-kp-codeSigning
    #[serde(rename = "code signing")]
    CodeSigning,
    /// id-kp-emailProtection
    #[serde(rename = "email protection")]
    EmailProtection,
    /// id-kp-emailProtection
    #[serde(rename = "s/mime")]
    SMime,
    /// id-kp-ipsecEndSystem
    #[serde(rename = "ipsec end system")]
    IpsecEndSystem,
    /// id-kp-ipsecTunnel
    #[serde(rename = "ipsec tunnel")]
    IpsecTunnel,
    /// id-kp-ipsecUser
    #[serde(rename = "ipsec user")]
    IpsecUser,
    /// id-kp-timeStamping
    #[serde(rename = "timestamping")]
    Timestamping,
    /// id-kp-OCSPSigning
    #[serde(rename = "ocsp signing")]
    OcspSigning,
    /// 1.3.6.1.4.1.311.10.3.3
    #[serde(rename = "microsoft sgc")]
    MicrosoftSgc,
    /// 2.16.840.1.113730.4.1
    #[serde(rename = "netscape sgc")]
    NetscapeSgc,
}

/// The private key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.size) || (self.algorithm == 'RSA' ? self.size in [2048, 3072, 4096] : self.algorithm == 'ECDSA' ? self.size in [256, 384, 521] : false)").message("size must be 2048, 3072 or 4096 for RSA, 256, 384 or 521 for ECDSA, and absent for Ed25519"),
    validation = Rule::new("!(self.algorithm == 'Ed25519' && self.encoding == 'PKCS1')").message("an Ed25519 key has no PKCS1 encoding; use PKCS8")
)]
pub struct PrivateKey {
    /// RSA, ECDSA (default) or Ed25519.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Bits: 2048 (default), 3072 or 4096 for RSA; 256 (default), 384 or 521 for ECDSA; absent for Ed25519.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i32>,
    /// PKCS8 (default), or PKCS1, which for ECDSA means the SEC 1 form (`EC PRIVATE KEY`).
    #[serde(default)]
    pub encoding: Encoding,
    /// Always (default): a new key with each certificate. Never: the key stays as long as it fits the spec.
    #[serde(default)]
    pub rotation_policy: RotationPolicy,
}

/// The algorithm of a private key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Algorithm {
    /// RSA with PKCS #1 v1.5 signatures
    #[serde(rename = "RSA")]
    Rsa,
    /// ECDSA on the NIST curves
    #[default]
    #[serde(rename = "ECDSA")]
    Ecdsa,
    /// Ed25519
    Ed25519,
}

/// How a private key is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Encoding {
    /// The algorithm's own form: RFC 8017 for RSA, SEC 1 for ECDSA
    #[serde(rename = "PKCS1")]
    Pkcs1,
    /// PKCS #8 (RFC 5958)
    #[default]
    #[serde(rename = "PKCS8")]
    Pkcs8,
}

/// Whether the key changes with the certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum RotationPolicy {
    /// A new key each time
    #[default]
    Always,
    /// The stored key is used again while it fits `algorithm` and `size`
    Never,
}

/// Which names a CA may sign for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct NameConstraints {
    /// Whether who does not understand them has to refuse the CA, as RFC 5280 demands. Default true.
    #[serde(default = "yes")]
    pub critical: bool,
    /// Only these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permitted: Option<NameConstraintItem>,
    /// Not these, even where permitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<NameConstraintItem>,
}

const fn yes() -> bool {
    true
}

/// A set of names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameConstraintItem {
    /// Domains with all that is below them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 253)))]
    pub dns_domains: Vec<String>,
    /// Address ranges in CIDR notation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 3, max = 49)))]
    #[x_kube(validation = Rule::new("self.all(r, isCIDR(r))").message("each of ipRanges must be in CIDR notation, like 10.0.0.0/8"))]
    pub ip_ranges: Vec<String>,
    /// Mail addresses, or domains of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 254)))]
    pub email_addresses: Vec<String>,
    /// Hosts of URIs; with a leading dot, those below a domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 253)))]
    pub uri_domains: Vec<String>,
}
