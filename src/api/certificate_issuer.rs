//! CertificateIssuer: an issuer for many namespaces.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::certificates::issuers::IssuerSpec;

/// An issuer that CertificateRotations of the namespaces that it allows may name in `issuerRef`.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "seaworthy.dev",
    version = "v1alpha1",
    kind = "CertificateIssuer",
    status = "CertificateIssuerStatus",
    derive = "PartialEq",
    shortname = "certissuer",
    category = "seaworthy",
    doc = "An issuer for the namespaces that it allows. Secrets that it names lie in the operator's namespace.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Kind", type_ = "string", json_path = ".status.kind"),
    printcolumn(name = "Certificates", type_ = "integer", json_path = ".status.certificates"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.notAfter"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CertificateIssuerSpec {
    /// The namespaces that may use it, by their labels. Absent: none. `{}`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<LabelSelector>,
    /// Who signs: exactly one.
    #[serde(flatten)]
    pub issuer: IssuerSpec,
}

/// What is so, as the operator saw it last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateIssuerStatus {
    /// The generation of the spec that this status is about; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: it can sign now. Stalled: a person is needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Which kind of issuer it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// How many CertificateRotations name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<i64>,
    /// When its CA certificate expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
}
