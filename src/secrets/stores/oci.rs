//! Oracle Cloud: OCI Vault. A value is a secret of one vault, by its name. Read from the service for retrieval, written to the one for management:
//! <https://docs.oracle.com/en-us/iaas/api/#/en/secretretrieval/20190301/> and <https://docs.oracle.com/en-us/iaas/api/#/en/secretmgmt/20180608/>.
//!
//! Oracle answers the same to what is not there and to what one may not see. What is missing is told by a list of the compartment, which is denied
//! where nothing can be told.

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{FutureExt, future::BoxFuture};
use kube::KubeSchema;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    clients::{
        error::ClientError,
        oci::{
            Oci,
            principal::{Identity, Principal},
            secrets::{Bundle, Described, VaultClient},
        },
    },
    cluster::token::ServiceAccountRef,
    ids,
    secrets::store::{Content, Find, Matcher, OpenStore, Opening, Place, SecretKeyRef, Store, StoreError, Stored, Write, text_of},
};

/// Which vault, and as whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The region: `eu-frankfurt-1`.
    #[schemars(length(min = 4, max = 32), regex(pattern = "^[a-z0-9-]+$"))]
    pub region: String,
    /// The domain of the region's realm. Default `oraclecloud.com`.
    #[serde(default = "domain")]
    #[schemars(length(min = 4, max = 64), regex(pattern = r"^[a-z0-9-]+(\.[a-z0-9-]+)+$"))]
    pub domain: String,
    /// The OCID of the vault.
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    pub vault: String,
    /// The OCID of the secrets' compartment: to find and to push, and to tell a secret that is missing from one that may not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    pub compartment: Option<String>,
    /// The OCID of the key that new secrets are encrypted with: to push what is not there yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    pub encryption_key: Option<String>,
    /// Other addresses of the services: private endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// As whom: exactly one.
    pub auth: Auth,
}

fn domain() -> String {
    "oraclecloud.com".into()
}

/// Addresses of the services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Endpoints {
    /// For reads.
    #[schemars(length(min = 8, max = 253), regex(pattern = r#"^https?://[^/?#@\s"]+/?$"#))]
    pub secrets: String,
    /// For lists and writes.
    #[schemars(length(min = 8, max = 253), regex(pattern = r#"^https?://[^/?#@\s"]+/?$"#))]
    pub vaults: String,
}

/// As whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Auth {
    /// A user's API key.
    ApiKey(ApiKey),
    /// The machine that the operator runs on; in a SecretStore only.
    InstancePrincipal(InstancePrincipal),
    /// A ServiceAccount of the OKE cluster that the operator runs in; in a SecretStore only.
    WorkloadIdentity(WorkloadIdentity),
}

/// A user's API key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// The OCID of the tenancy.
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[A-Za-z0-9._:-]+$"))]
    pub tenancy: String,
    /// The OCID of the user.
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[A-Za-z0-9._:-]+$"))]
    pub user: String,
    /// The fingerprint of the key, as the console shows it.
    #[schemars(length(equal = 47), regex(pattern = "^([0-9a-fA-F]{2}:){15}[0-9a-fA-F]{2}$"))]
    pub fingerprint: String,
    /// The private key: PEM, without a passphrase.
    pub private_key_secret_ref: SecretKeyRef,
}

/// Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct InstancePrincipal {}

/// A ServiceAccount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadIdentity {
    /// Of the operator's namespace. Its token is asked for with the rights that your Role gives the operator: `create` on
    /// `serviceaccounts/token`, for that name.
    pub service_account_ref: ServiceAccountRef,
}

/// What the machine's metadata service is reached at, unless the operator's own environment says otherwise in the variable that Oracle's SDKs read.
const METADATA: (&str, &str) = ("OCI_METADATA_BASE_URL", "http://169.254.169.254/opc/v2");
/// The variable for the federation service, of which each region has one.
const FEDERATION: &str = "OCI_SDK_AUTH_CLIENT_REGION_URL";
/// What a cluster's proxy for workload identity listens at.
const PROXY_PORT: u16 = 12250;
/// The certificates of the cluster's own services, and the variable for another place.
const CLUSTER_CA: (&str, &str) = ("OCI_KUBERNETES_SERVICE_ACCOUNT_CERT_PATH", "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt");
/// What a SecretStore that names no compartment asks for: whoever is let in is told that it is not there.
const NOBODYS: &str = "seaworthy-check";

struct Open {
    client: VaultClient,
    spec: Spec,
}

impl Store for Spec {
    fn validate(&self, shared: bool) -> Result<(), StoreError> {
        if !shared && !matches!(self.auth, Auth::ApiKey(_)) {
            let why = "spec.store.oci.auth: the identity of the operator's machine or cluster can be used through a SecretStore only (spec.storeRef)";
            return Err(StoreError::Denied(why.into()));
        }
        Ok(())
    }

    fn secrets(&self) -> Vec<String> {
        match &self.auth {
            Auth::ApiKey(key) => vec![key.private_key_secret_ref.name.clone()],
            Auth::InstancePrincipal(_) | Auth::WorkloadIdentity(_) => Vec::new(),
        }
    }

    fn location(&self) -> String {
        format!("{} {}", self.region, self.vault)
    }

    fn open<'a>(&'a self, opening: Opening<'a>) -> BoxFuture<'a, Result<Box<dyn OpenStore>, StoreError>> {
        async move {
            let (region, domain) = (&self.region, &self.domain);
            let endpoints = self.endpoints.clone().unwrap_or_else(|| Endpoints {
                secrets: format!("https://secrets.vaults.{region}.oci.{domain}"),
                vaults: format!("https://vaults.{region}.oci.{domain}"),
            });
            let (retrieval, management) = (parse(&endpoints.secrets)?, parse(&endpoints.vaults)?);
            let egress = &opening.allowed.egress;
            egress.check_literal(&management).map_err(StoreError::Invalid)?;
            let http = egress.client(&retrieval, |builder| builder).map_err(StoreError::Invalid)?;
            let oci = Oci::new(http, self.principal(&opening).await?);
            let client = VaultClient { oci, retrieval, management, vault: self.vault.clone() };
            Ok(Box::new(Open { client, spec: self.clone() }) as Box<dyn OpenStore>)
        }
        .boxed()
    }
}

fn parse(url: &str) -> Result<Url, StoreError> {
    url.parse().map_err(|error| StoreError::Invalid(format!("the address {url}: {error}")))
}

/// Of the operator's own environment.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The address in a variable of the operator's own environment, or another one, and `path` below it.
fn address(name: &str, default: impl Into<String>, path: &str) -> Result<Url, StoreError> {
    let base = variable(name).unwrap_or_else(|| default.into());
    let url = format!("{}/{path}", base.trim_end_matches('/')).parse();
    url.map_err(|error| StoreError::Invalid(format!("{base} (the operator's variable {name}, or its default) is no address: {error}")))
}

impl Spec {
    async fn principal(&self, opening: &Opening<'_>) -> Result<Principal, StoreError> {
        Ok(match &self.auth {
            Auth::ApiKey(key) => {
                let pem = text_of(opening.secrets, &key.private_key_secret_ref).await?;
                Principal::User(Identity::of_user(format!("{}/{}/{}", key.tenancy, key.user, key.fingerprint), pem.as_bytes())?)
            }
            Auth::InstancePrincipal(_) => Principal::Instance {
                metadata: address(METADATA.0, METADATA.1, "")?,
                federation: address(FEDERATION, format!("https://auth.{}.{}", self.region, self.domain), "v1/x509")?,
            },
            Auth::WorkloadIdentity(workload) => {
                let lacking = || StoreError::Invalid("auth.workloadIdentity: the operator does not run in an OKE cluster".into());
                let host = variable("KUBERNETES_SERVICE_HOST").ok_or_else(lacking)?;
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                let proxy = parse(&format!("https://{host}:{PROXY_PORT}/resourcePrincipalSessionTokens"))?;
                let path = variable(CLUSTER_CA.0).unwrap_or_else(|| CLUSTER_CA.1.into());
                let unreadable = |why: String| StoreError::Invalid(format!("auth.workloadIdentity: the certificates in {path}: {why}"));
                let ca = tokio::fs::read(&path).await.map_err(|error| unreadable(error.to_string()))?;
                let ca = reqwest::Certificate::from_pem_bundle(&ca).map_err(|error| unreadable(error.to_string()))?;
                let http = opening.allowed.egress.client(&proxy, |builder| builder.tls_certs_only(ca)).map_err(StoreError::Invalid)?;
                let client = opening.cluster("a token of a ServiceAccount")?.clone();
                let (account, namespace) = (workload.service_account_ref.clone(), opening.namespace.to_owned());
                let token = move || {
                    let (client, account, namespace) = (client.clone(), account.clone(), namespace.clone());
                    async move { Ok(account.token(&client, &namespace, "api").await?) }.boxed()
                };
                Principal::Workload { proxy, http, token: Box::new(token) }
            }
        })
    }
}

/// What a secret can be called.
fn check_name(key: &str) -> Result<(), StoreError> {
    let fits = !key.is_empty() && key.chars().all(|sign| sign.is_ascii_alphanumeric() || "-_.".contains(sign));
    let why = || StoreError::Invalid(format!("{key:?} is no name of a secret of OCI Vault: it has letters, digits, '-', '_' and '.'"));
    if fits { Ok(()) } else { Err(why()) }
}

impl Open {
    async fn bundle(&self, place: &Place) -> Result<Bundle, ClientError> {
        check_name(&place.key).map_err(|error| ClientError::Invalid(error.to_string()))?;
        let selector = place.version.as_deref().map(|version| {
            let name = match version {
                number if number.bytes().all(|byte| byte.is_ascii_digit()) => "versionNumber",
                "CURRENT" | "PENDING" | "LATEST" | "PREVIOUS" | "DEPRECATED" => "stage",
                _ => "secretVersionName",
            };
            (name, version)
        });
        self.client.bundle(&place.key, selector).await
    }

    fn compartment(&self, what: &str) -> Result<&str, StoreError> {
        let lacking = || StoreError::Invalid(format!("{what} needs oci.compartment: the OCID of the compartment of the secrets"));
        self.spec.compartment.as_deref().ok_or_else(lacking)
    }

    /// Whether a secret is missing, or only not for us.
    async fn explain(&self, key: &str, said: String) -> StoreError {
        let Some(compartment) = &self.spec.compartment else {
            return StoreError::Denied(format!(
                "{key}: it is not there, or may not be read ({said}); with oci.compartment and the right to inspect secrets that can be told"
            ));
        };
        match self.client.list(compartment, Some(key)).await {
            Ok(listed) if listed.iter().any(|one| one.secret_name == key && one.is_there()) => {
                StoreError::Denied(format!("{key}: it is there and may not be read ({said}), or has no such version"))
            }
            Ok(_) => StoreError::NotFound(format!("{key} is not in the vault")),
            Err(error @ (ClientError::Unauthenticated(_) | ClientError::Throttled(..) | ClientError::Unavailable(_))) => error.into(),
            Err(error) => StoreError::Denied(format!("{key}: it is not there, or may not be read ({said}; nor listed: {error})")),
        }
    }

    async fn create(&self, key: &str, value: &[u8], token: &str) -> Result<Option<u64>, StoreError> {
        let compartment = self.compartment("pushing a secret that is not there")?;
        let Some(encryption) = &self.spec.encryption_key else {
            return Err(StoreError::Invalid("pushing a secret that is not there needs oci.encryptionKey: the OCID of a key".into()));
        };
        let content = Zeroizing::new(STANDARD.encode(value));
        let content = json!({"contentType": "BASE64", "content": *content});
        let secret = json!({"compartmentId": compartment, "keyId": encryption, "secretName": key, "vaultId": self.spec.vault, "secretContent": content});
        Ok(self.client.create(&secret, &ids::hash([token, key].join(" ").as_bytes())).await?.current_version_number)
    }

    async fn replace(&self, key: &str, expected: u64, value: &[u8]) -> Result<u64, StoreError> {
        Ok(self.client.replace((key, &self.id(key).await?), expected, value).await?)
    }

    /// The OCID of a secret that was there a moment ago.
    async fn id(&self, key: &str) -> Result<String, StoreError> {
        match self.bundle(&Place { key: key.into(), version: None }).await {
            Err(ClientError::NotFoundOrDenied(_)) => {
                Err(StoreError::Conflict(format!("{key} was deleted by somebody else since it was read")))
            }
            bundle => Ok(bundle?.secret_id),
        }
    }
}

impl OpenStore for Open {
    fn read<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Stored, StoreError>> {
        async move {
            let bundle = match self.bundle(place).await {
                Err(ClientError::NotFoundOrDenied(said)) => return Err(self.explain(&place.key, said).await),
                bundle => bundle?,
            };
            Ok(Stored { content: Content::Bytes(bundle.value()?), version: Some(bundle.version_number.to_string()) })
        }
        .boxed()
    }

    fn find<'a>(&'a self, find: &'a Find) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        async move {
            let (matcher, mut found) = (Matcher::of(find)?, Vec::new());
            for one in self.client.list(self.compartment("find")?, None).await?.into_iter().filter(Described::is_there) {
                let tags = one.freeform_tags.unwrap_or_default();
                let tagged = find.tags.iter().all(|(name, value)| tags.get(name) == Some(value));
                if tagged && matcher.matches(&one.secret_name) {
                    found.push(one.secret_name);
                }
            }
            Ok(found)
        }
        .boxed()
    }

    fn write<'a>(&'a self, write: Write<'a>) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        async move {
            let key = write.key;
            check_name(key)?;
            let Content::Bytes(bytes) = write.content else {
                return Err(StoreError::Invalid(format!("{key}: only one value can be written")));
            };
            let written = match write.expected {
                None => self.create(key, bytes, write.token).await?,
                Some(expected) => Some(self.replace(key, number(key, expected)?, bytes).await?),
            };
            Ok(written.map(|number| number.to_string()))
        }
        .boxed()
    }

    fn can_promote(&self) -> bool {
        true
    }

    fn promote<'a>(&'a self, key: &'a str, version: &'a str, expected: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let (version, expected) = (number(key, version)?, number(key, expected)?);
            match self.client.promote(&self.id(key).await?, version, expected).await {
                // Its deletion is scheduled.
                Err(ClientError::WrongState(why)) => Err(StoreError::Invalid(why)),
                done => Ok(done?),
            }
        }
        .boxed()
    }

    /// Oracle deletes what is deprecated, which is all but the current version and the one before, after a while in which that can be called off.
    fn retire<'a>(&'a self, key: &'a str, version: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            let bundle = match self.bundle(&Place { key: key.into(), version: Some(version.into()) }).await {
                Err(ClientError::NotFoundOrDenied(_)) => return Ok(true),
                bundle => bundle?,
            };
            if !bundle.stages.iter().any(|stage| stage == "DEPRECATED") {
                return Ok(false);
            }
            match self.client.schedule_deletion(&bundle.secret_id, version).await {
                // Or that is scheduled already.
                Ok(()) | Err(ClientError::NotFoundOrDenied(_) | ClientError::Conflict(_) | ClientError::WrongState(_)) => Ok(true),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            let Some(compartment) = &self.spec.compartment else {
                return match self.bundle(&Place { key: NOBODYS.into(), version: None }).await {
                    Ok(_) | Err(ClientError::NotFoundOrDenied(_)) => Ok(()),
                    Err(error) => Err(error.into()),
                };
            };
            match self.client.page(compartment, &[("limit", "1")]).await {
                // Who may only read certain values is let in, too.
                Ok(_) | Err(ClientError::NotFoundOrDenied(_)) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }
}

fn number(key: &str, version: &str) -> Result<u64, StoreError> {
    version.parse().map_err(|_| StoreError::Invalid(format!("{key}: {version:?} is no number of a version")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_secret_can_be_called() {
        for (name, fits) in
            [("tmi.production-1", true), ("A_b", true), ("tmi/production", false), ("a b", false), ("ä", false), ("", false)]
        {
            assert_eq!(check_name(name).is_ok(), fits, "{name:?}");
        }
    }
}
