//! CertificateRotation: a certificate in a Secret, issued, renewed, and told about.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use super::x509::{Algorithm, Encoding, NameConstraintItem, NameConstraints, PrivateKey, RotationPolicy, Subject, Usage};
use super::{
    Duration, SECRET_KEY,
    restart::Restart,
    schedule::Window,
    status::{Consumers, LastFailure},
    verify::Verify,
};
use crate::certificates::issuers::IssuerSpec;

/// A certificate that is kept valid in a Secret of the same namespace.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "seaworthy.dev",
    version = "v1alpha1",
    kind = "CertificateRotation",
    namespaced,
    status = "CertificateRotationStatus",
    derive = "PartialEq",
    shortname = "certrot",
    category = "seaworthy",
    doc = "A certificate that is kept valid in a Secret of the same namespace: issued, renewed in time, the previous pair kept.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Secret", type_ = "string", json_path = ".spec.secretName"),
    printcolumn(name = "Issuer", type_ = "string", json_path = ".status.issuer"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.notAfter"),
    printcolumn(name = "Renews", type_ = "string", json_path = ".status.renewalTime"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision"),
    printcolumn(name = "Consumers", type_ = "string", json_path = ".status.consumers.summary"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.issuer) != has(self.issuerRef)").message("set exactly one of issuer and issuerRef"),
    validation = Rule::new("(has(self.commonName) && size(self.commonName) > 0) || (has(self.dnsNames) && size(self.dnsNames) > 0) || (has(self.ipAddresses) && size(self.ipAddresses) > 0) || (has(self.uris) && size(self.uris) > 0) || (has(self.emailAddresses) && size(self.emailAddresses) > 0)").message("name at least one subject: commonName, dnsNames, ipAddresses, uris or emailAddresses"),
    validation = Rule::new("duration(self.duration) >= duration('1h')").message("duration must be at least 1h"),
    validation = Rule::new("!(has(self.renewBefore) && has(self.renewBeforePercentage))").message("set at most one of renewBefore and renewBeforePercentage"),
    validation = Rule::new("!has(self.renewBefore) || (duration(self.renewBefore) < duration(self.duration) && duration(self.renewBefore) >= duration('5m'))").message("renewBefore must be at least 5m and shorter than duration"),
    validation = Rule::new("!self.isCA || (has(self.commonName) && size(self.commonName) > 0) || has(self.subject)").message("a CA needs a subject: set commonName (RFC 5280, section 4.1.2.6)"),
    validation = Rule::new("!has(self.nameConstraints) || self.isCA").message("nameConstraints need isCA: true")
)]
pub struct CertificateRotationSpec {
    /// The Secret that holds the certificate, of type kubernetes.io/tls. It is made if it is not there; one of somebody else is never touched.
    /// At most 244 characters, because the previous pair is kept in a second Secret with the suffix `-previous`.
    #[schemars(length(min = 1, max = 244), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub secret_name: String,
    /// The common name of the subject (RFC 5280: at most 64 characters). TLS clients ignore it: put host names into dnsNames.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub common_name: String,
    /// DNS names of the subject; a name may begin with the wildcard `*.`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 100),
        inner(
            length(min = 1, max = 253),
            regex(
                pattern = r"^(\*\.)?([A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?\.?$"
            )
        )
    )]
    pub dns_names: Vec<String>,
    /// IP addresses of the subject, IPv4 or IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 2, max = 45)))]
    #[x_kube(validation = Rule::new("self.all(a, isIP(a))").message("each of ipAddresses must be an IPv4 or IPv6 address"))]
    pub ip_addresses: Vec<String>,
    /// URIs of the subject, such as SPIFFE ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 3, max = 512), regex(pattern = r"^[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+$")))]
    pub uris: Vec<String>,
    /// Mail addresses of the subject.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 3, max = 254), regex(pattern = r"^[\x21-\x3f\x41-\x7e]+@[A-Za-z0-9.-]+$")))]
    pub email_addresses: Vec<String>,
    /// Further parts of the subject's distinguished name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// What the key may be used for, in cert-manager's words. Default: digital signature, key encipherment, server auth.
    #[serde(default = "default_usages")]
    #[schemars(length(min = 1, max = 23))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub usages: Vec<Usage>,
    /// How long a certificate is valid; at least 1h. An issuer may give less.
    #[serde(default = "default_duration")]
    pub duration: Duration,
    /// How long before its end a certificate is renewed. Default: a third of its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_before: Option<Duration>,
    /// The same in percent of its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub renew_before_percentage: Option<i32>,
    /// Also rotate at these times, due or not: a cron expression of five fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = Rule::new("self.matches('^ *[^ ]+( +[^ ]+){4} *$')").message("write five fields: minute, hour, day of month, month, day of week, such as 0 3 1 */3 *"))]
    pub schedule: Option<String>,
    /// The IANA time zone of `schedule`. Default Etc/UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// What is not urgent waits for this window, but never until the certificate has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// The kind of key, and whether it changes.
    #[serde(default)]
    pub private_key: PrivateKey,
    /// Who signs: exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<IssuerSpec>,
    /// A CertificateIssuer that allows this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
    /// Whether the certificate may sign others.
    #[serde(default, rename = "isCA")]
    pub is_ca: bool,
    /// Which names a CA may sign for (RFC 5280, section 4.2.1.10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_constraints: Option<NameConstraints>,
    /// Labels and annotations for the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,
    /// Further keys in the Secret, beside tls.crt, tls.key and ca.crt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Outputs>,
    /// How many previous pairs are kept, in the Secret `<secretName>-previous`: 0 or 1.
    #[serde(default = "default_history")]
    #[schemars(range(min = 0, max = 1))]
    pub history: i32,
    /// Whether the Secret goes when this object goes.
    #[serde(default)]
    pub creation_policy: CreationPolicy,
    /// Who is restarted when the certificate has changed. Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// How it is proved that the certificate is served. Ready then means served. Default: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// Leave everything as it is until this is false again.
    #[serde(default)]
    pub suspend: bool,
}

fn default_usages() -> Vec<Usage> {
    vec![Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth]
}

fn default_duration() -> Duration {
    Duration::hours(2160)
}

fn default_history() -> i32 {
    1
}

/// Names a CertificateIssuer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct IssuerRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Metadata for the Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct SecretTemplate {
    /// Labels of the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('seaworthy.dev/'))").message("labels with the prefix seaworthy.dev/ are reserved"))]
    #[x_kube(validation = Rule::new("self.all(k, self[k].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))").message("the value of a label holds letters, digits, '-', '_' and '.', and begins and ends with a letter or digit"))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('seaworthy.dev/'))").message("annotations with the prefix seaworthy.dev/ are reserved"))]
    pub annotations: BTreeMap<String, String>,
}

/// Further keys in the Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.combinedPem) ? self.combinedPem.key : '/1', has(self.files) && has(self.files.certificate) ? self.files.certificate : '/2', has(self.files) && has(self.files.privateKey) ? self.files.privateKey : '/3', has(self.files) && has(self.files.ca) ? self.files.ca : '/4'].all(n, [has(self.combinedPem) ? self.combinedPem.key : '/1', has(self.files) && has(self.files.certificate) ? self.files.certificate : '/2', has(self.files) && has(self.files.privateKey) ? self.files.privateKey : '/3', has(self.files) && has(self.files.ca) ? self.files.ca : '/4'].exists_one(m, m == n))").message("the keys under outputs must be different"))]
pub struct Outputs {
    /// Private key, certificate and chain in one PEM text, as HAProxy and others read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combined_pem: Option<CombinedPem>,
    /// The same data under further names, as some servers want them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
}

/// The combined PEM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct CombinedPem {
    /// The key of the Secret. Default tls-combined.pem.
    #[serde(default = "default_combined_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_KEY))]
    #[x_kube(validation = Rule::new("!(self in ['tls.crt', 'tls.key', 'ca.crt'])").message("tls.crt, tls.key and ca.crt keep their meaning; choose another name"))]
    pub key: String,
}

fn default_combined_key() -> String {
    "tls-combined.pem".into()
}

/// Further names for the parts; those that are left out are not written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.certificate) ? self.certificate : 'tls.crt/', has(self.privateKey) ? self.privateKey : 'tls.key/', has(self.ca) ? self.ca : 'ca.crt/'].all(k, !(k in ['tls.crt', 'tls.key', 'ca.crt']))").message("tls.crt, tls.key and ca.crt keep their meaning; choose other names"))]
pub struct Files {
    /// Another name for tls.crt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_KEY))]
    pub certificate: Option<String>,
    /// Another name for tls.key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_KEY))]
    pub private_key: Option<String>,
    /// Another name for ca.crt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_KEY))]
    pub ca: Option<String>,
}

/// Whether the Secret goes when its owner goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum CreationPolicy {
    /// It stays, and a new object of the same name takes it back.
    #[default]
    Orphan,
    /// It goes, by owner reference.
    Owner,
}

/// What is so, as the operator saw it last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRotationStatus {
    /// The generation of the spec that this status is about; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: consumers get a valid certificate. Reconciling: a rotation is going on or tried again. Stalled: a person is needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Who signed: selfSigned, ca/NAME, CertificateIssuer/NAME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Counts the certificates that were written, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// Serial number, hexadecimal in upper case with colons, as openssl prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// SHA-256 of the certificate's DER, hexadecimal in upper case with colons, as openssl prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Valid from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Valid until.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// When it will be renewed at the latest moment planned; earlier than asked by a jitter that comes from the object's uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_time: Option<Time>,
    /// The Pods that use the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumers: Option<Consumers>,
    /// What the operator was given when it asked for the certificate, with `verify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// The last rotation: under way, completed, or taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation: Option<LastRotation>,
    /// The last attempt that failed; goes with the next success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
}

/// Handshakes with the endpoints that have to serve the certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// `SERVING/ASKED`.
    pub summary: String,
    /// The fingerprint of the certificate that they have to serve.
    pub fingerprint: String,
    /// A hash of where and how it was asked; another question has another answer.
    #[serde(default)]
    pub question: String,
    /// How many ready Pods used the Secret then: when there are others, they are asked again.
    #[serde(default)]
    pub consumers: i64,
    /// When all of them did, last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Time>,
    /// What those show that do not, the first three.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Since when not all of them do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Time>,
}

/// A rotation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRotation {
    /// Unique for each rotation; also an annotation of the Secret.
    pub id: String,
    /// Why it was due.
    pub reason: String,
    /// When it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the Secret was written and, with `restart` or `verify`, who uses it has the new pair. Absent while it is under way, or taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// What was done, and when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<RotationStep>,
}

/// A step of a rotation that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct RotationStep {
    /// Which step.
    pub name: RotationStepName,
    /// When it was done.
    pub time: Time,
}

/// The steps of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum RotationStepName {
    /// The issuer has signed.
    Issued,
    /// The Secret was written.
    Stored,
    /// Who uses it was restarted, or needed no restart.
    Restarted,
    /// Its endpoints serve it.
    Verified,
    /// The pair of before was put back.
    RolledBack,
}
