//! How it is proved that a value has arrived.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::Duration;

/// Ready then means served: the operator shakes hands with every endpoint and is given the certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.discover != has(self.tls)").message("say either tls or discover: true"))]
pub struct Verify {
    /// The TLS ports of all Services of the namespace that lead to Pods that use the Secret. Default false.
    #[serde(default)]
    pub discover: bool,
    /// This Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<VerifyTls>,
}

/// A TLS server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.timeout) >= duration('1s') && duration(self.timeout) <= duration('24h')").message("timeout must lie between 1s and 24h")
)]
pub struct VerifyTls {
    /// A Service of the same namespace and its port: `api:443`, `api.shop:443` or `api.shop.svc:443`. Every ready endpoint of it is asked. Anything
    /// else is dialed only where the operator's `--verify-networks` allow it.
    #[schemars(length(min = 3, max = 259), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?:[1-9][0-9]{0,4}$"))]
    pub address: String,
    /// The name that is asked for (SNI). Default: the host of `address` if the certificate has it, else the certificate's first DNS name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// How long the servers may take to serve it, after all restarts. Default 5m.
    #[serde(default = "five_minutes")]
    pub timeout: Duration,
    /// What is said before TLS begins. Default none.
    #[serde(default)]
    pub start_tls: StartTls,
    /// A Secret of the same namespace, of type kubernetes.io/tls, with the client certificate that the server wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub client_secret_name: Option<String>,
}

/// How long it may take where nothing else is said.
pub fn five_minutes() -> Duration {
    Duration::minutes(5)
}

/// How a connection becomes one of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StartTls {
    /// It begins with TLS.
    #[default]
    None,
    /// PostgreSQL's SSLRequest.
    Postgres,
    /// SMTP's STARTTLS (RFC 3207).
    Smtp,
}
