//! Oracle Cloud: OCI Vault. A value is a secret of one vault, by its name. Read from the service for retrieval, written to the one for management:
//! <https://docs.oracle.com/en-us/iaas/api/#/en/secretretrieval/20190301/> and <https://docs.oracle.com/en-us/iaas/api/#/en/secretmgmt/20180608/>.
//!
//! Oracle answers the same to what is not there and to what one may not see. What is missing is told by a list of the compartment, which is denied
//! where nothing can be told.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{FutureExt, future::BoxFuture};
use kube::KubeSchema;
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    clients::{
        error::ClientError,
        oci::{
            Oci, Request,
            principal::{Identity, Principal},
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
    #[schemars(length(min = 8, max = 253), regex(pattern = "^https?://[^/?#@]+/?$"))]
    pub secrets: String,
    /// For lists and writes.
    #[schemars(length(min = 8, max = 253), regex(pattern = "^https?://[^/?#@]+/?$"))]
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
/// So many are listed.
const FOUND: usize = 10_000;
/// A page of a list.
const PAGE: &str = "100";

struct Open {
    oci: Oci,
    secrets: Url,
    vaults: Url,
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

    fn open<'a>(&'a self, opening: Opening<'a>) -> BoxFuture<'a, Result<Box<dyn OpenStore>, StoreError>> {
        async move {
            let (region, domain) = (&self.region, &self.domain);
            let endpoints = self.endpoints.clone().unwrap_or_else(|| Endpoints {
                secrets: format!("https://secrets.vaults.{region}.oci.{domain}"),
                vaults: format!("https://vaults.{region}.oci.{domain}"),
            });
            let (secrets, vaults) = (parse(&endpoints.secrets)?, parse(&endpoints.vaults)?);
            let egress = &opening.allowed.egress;
            egress.check_literal(&vaults).map_err(StoreError::Invalid)?;
            let http = egress.client(&secrets, |builder| builder).map_err(StoreError::Invalid)?;
            let principal = self.principal(&opening).await?;
            Ok(Box::new(Open { oci: Oci::new(http, principal), secrets, vaults, spec: self.clone() }) as Box<dyn OpenStore>)
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

/// What is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    secret_id: String,
    version_number: u64,
    secret_bundle_content: BundleContent,
    #[serde(default)]
    stages: Vec<String>,
}

#[derive(Deserialize)]
struct BundleContent {
    content: Zeroizing<String>,
}

/// One of a list, and what a write gives.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    #[serde(default)]
    secret_name: String,
    #[serde(default)]
    lifecycle_state: String,
    #[serde(default)]
    freeform_tags: Option<BTreeMap<String, String>>,
    #[serde(default)]
    current_version_number: Option<u64>,
}

fn unreadable(key: &str) -> StoreError {
    StoreError::Invalid(format!("what Oracle Cloud says of {key} cannot be read"))
}

/// What a secret can be called.
fn check_name(key: &str) -> Result<(), StoreError> {
    let fits = !key.is_empty() && key.chars().all(|sign| sign.is_ascii_alphanumeric() || "-_.".contains(sign));
    let why = || StoreError::Invalid(format!("{key:?} is no name of a secret of OCI Vault: it has letters, digits, '-', '_' and '.'"));
    if fits { Ok(()) } else { Err(why()) }
}

impl Open {
    fn url(base: &Url, path: &[&str], query: &[(&str, &str)]) -> Result<Url, StoreError> {
        let mut url = base.clone();
        url.path_segments_mut()
            .map_err(|()| StoreError::Invalid("an endpoint is no address of a server".into()))?
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    async fn bundle(&self, place: &Place) -> Result<Bundle, ClientError> {
        let key = &place.key;
        let invalid = |error: StoreError| ClientError::Invalid(error.to_string());
        check_name(key).map_err(invalid)?;
        let selector = place.version.as_deref().map(|version| {
            let name = match version {
                number if number.bytes().all(|byte| byte.is_ascii_digit()) => "versionNumber",
                "CURRENT" | "PENDING" | "LATEST" | "PREVIOUS" | "DEPRECATED" => "stage",
                _ => "secretVersionName",
            };
            (name, version)
        });
        let query: Vec<(&str, &str)> =
            [("secretName", key.as_str()), ("vaultId", self.spec.vault.as_str())].into_iter().chain(selector).collect();
        let url = Self::url(&self.secrets, &["20190301", "secretbundles", "actions", "getByName"], &query).map_err(invalid)?;
        let answer = self.oci.request(Method::POST, url, Request { body: Some(Vec::new()), headers: &[] }).await?;
        serde_json::from_slice(&answer.body).map_err(|_| invalid(unreadable(key)))
    }

    fn compartment(&self, what: &str) -> Result<&str, StoreError> {
        let lacking = || StoreError::Invalid(format!("{what} needs oci.compartment: the OCID of the compartment of the secrets"));
        self.spec.compartment.as_deref().ok_or_else(lacking)
    }

    async fn list(&self, compartment: &str, name: Option<&str>) -> Result<Vec<Summary>, StoreError> {
        let (mut all, mut page) = (Vec::new(), None::<String>);
        loop {
            let query = [
                ("compartmentId", Some(compartment)),
                ("vaultId", Some(&self.spec.vault)),
                ("limit", Some(PAGE)),
                ("name", name),
                ("page", page.as_deref()),
            ];
            let query: Vec<(&str, &str)> = query.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            let url = Self::url(&self.vaults, &["20180608", "secrets"], &query)?;
            let answer = self.oci.request(Method::GET, url, Request::default()).await?;
            // An entry that says what it is has more bytes than this.
            if answer.body.split(|byte| *byte == b'{').count() > 1 + answer.body.len() / 16 {
                return Err(unreadable("the list of secrets"));
            }
            let listed = serde_json::from_slice::<Vec<Summary>>(&answer.body).map_err(|_| unreadable("the list of secrets"))?;
            if listed.is_empty() {
                return Ok(all);
            }
            all.extend(listed);
            if all.len() > FOUND {
                return Err(StoreError::Invalid(format!("the vault holds more than {FOUND} secrets, more than are looked through")));
            }
            let Some(next) = answer.next else { return Ok(all) };
            page = Some(next);
        }
    }

    /// Whether a secret is missing, or only not for us.
    async fn explain(&self, key: &str, said: String) -> StoreError {
        let Some(compartment) = &self.spec.compartment else {
            return StoreError::Denied(format!(
                "{key}: it is not there, or may not be read ({said}); with oci.compartment and the right to inspect secrets that can be told"
            ));
        };
        match self.list(compartment, Some(key)).await {
            Ok(listed) if listed.iter().any(|one| one.secret_name == key && one.lifecycle_state == "ACTIVE") => {
                StoreError::Denied(format!("{key}: it is there and may not be read ({said}), or has no such version"))
            }
            Ok(_) => StoreError::NotFound(format!("{key} is not in the vault")),
            Err(error @ (StoreError::Throttled { .. } | StoreError::Unavailable(_))) => error,
            Err(error) => StoreError::Denied(format!("{key}: it is not there, or may not be read ({said}; nor listed: {error})")),
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
            let content = STANDARD.decode(bundle.secret_bundle_content.content.as_bytes()).map_err(|_| unreadable(&place.key))?;
            Ok(Stored { content: Content::Bytes(Zeroizing::new(content)), version: Some(bundle.version_number.to_string()) })
        }
        .boxed()
    }

    fn find<'a>(&'a self, find: &'a Find) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        async move {
            let (matcher, mut found) = (Matcher::of(find)?, Vec::new());
            for one in self.list(self.compartment("find")?, None).await? {
                let tags = one.freeform_tags.unwrap_or_default();
                let tagged = find.tags.iter().all(|(name, value)| tags.get(name) == Some(value));
                if one.lifecycle_state == "ACTIVE" && tagged && matcher.matches(&one.secret_name) {
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
            let content = Zeroizing::new(STANDARD.encode(bytes));
            let content = json!({"contentType": "BASE64", "content": *content});
            let answer = match write.expected {
                None => self.create(key, content, write.token).await,
                Some(expected) => self.update(key, json!({"secretContent": content}), expected).await,
            };
            let answer = answer.map_err(|error| match error {
                // Of this one secret, which is being changed or deleted.
                StoreError::Unavailable(why) if why.contains(" 409 ") => StoreError::Conflict(why),
                error => error,
            });
            let written: Summary = serde_json::from_slice(&answer?).map_err(|_| unreadable(key))?;
            Ok(written.current_version_number.map(|number| number.to_string()))
        }
        .boxed()
    }

    fn can_promote(&self) -> bool {
        true
    }

    fn promote<'a>(&'a self, key: &'a str, version: &'a str, expected: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let no_number = |_| StoreError::Invalid(format!("{key}: {version:?} is no number of a version"));
            let change = json!({"currentVersionNumber": version.parse::<u64>().map_err(no_number)?});
            match self.update(key, change, expected).await {
                // Its deletion is scheduled; it says nothing about the service.
                Err(StoreError::Unavailable(why)) if why.contains("IncorrectState") => Err(StoreError::Invalid(why)),
                done => done.map(|_| ()),
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
            let path = ["20180608", "secrets", &bundle.secret_id, "version", version, "actions", "scheduleDeletion"];
            let url = Self::url(&self.vaults, &path, &[])?;
            match self.oci.request(Method::POST, url, Request { body: Some(b"{}".to_vec()), headers: &[] }).await {
                Ok(_) | Err(ClientError::NotFoundOrDenied(_) | ClientError::Conflict(_)) => Ok(true),
                // That is scheduled already; it says nothing about the service.
                Err(ClientError::Unavailable(why)) if why.contains("IncorrectState") => Ok(true),
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
            let query = [("compartmentId", compartment.as_str()), ("vaultId", self.spec.vault.as_str()), ("limit", "1")];
            let url = Self::url(&self.vaults, &["20180608", "secrets"], &query)?;
            match self.oci.request(Method::GET, url, Request::default()).await {
                // Who may only read certain values is let in, too.
                Ok(_) | Err(ClientError::NotFoundOrDenied(_)) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }
}

impl Open {
    async fn create(&self, key: &str, content: Value, token: &str) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let compartment = self.compartment("pushing a secret that is not there")?;
        let Some(encryption) = &self.spec.encryption_key else {
            return Err(StoreError::Invalid("pushing a secret that is not there needs oci.encryptionKey: the OCID of a key".into()));
        };
        let body = json!({"compartmentId": compartment, "keyId": encryption, "secretName": key, "vaultId": self.spec.vault, "secretContent": content});
        let body = serde_json::to_vec(&body).map_err(|_| unreadable(key))?;
        let token = ids::hash([token, key].join(" ").as_bytes());
        let url = Self::url(&self.vaults, &["20180608", "secrets"], &[])?;
        let headers = [("opc-retry-token", token.as_str())];
        Ok(self.oci.request(Method::POST, url, Request { body: Some(body), headers: &headers }).await?.body)
    }

    /// The version that was read is compared, and what was compared is fenced by its etag.
    async fn update(&self, key: &str, change: Value, expected: &str) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let conflict = || StoreError::Conflict(format!("{key} was written by somebody else since it was read"));
        let id = match self.bundle(&Place { key: key.into(), version: None }).await {
            Err(ClientError::NotFoundOrDenied(_)) => return Err(conflict()),
            bundle => bundle?.secret_id,
        };
        let url = Self::url(&self.vaults, &["20180608", "secrets", &id], &[])?;
        let there = self.oci.request(Method::GET, url.clone(), Request::default()).await?;
        let now: Summary = serde_json::from_slice(&there.body).map_err(|_| unreadable(key))?;
        let etag = there.etag.filter(|_| now.current_version_number.map(|number| number.to_string()).as_deref() == Some(expected));
        let etag = etag.ok_or_else(conflict)?;
        let body = serde_json::to_vec(&change).map_err(|_| unreadable(key))?;
        Ok(self.oci.request(Method::PUT, url, Request { body: Some(body), headers: &[("if-match", &etag)] }).await?.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_makes_it_panic() {
        let bundle = br#"{"secretId": "s", "versionNumber": 3, "secretBundleContent": {"contentType": "BASE64", "content": "eA=="}}"#;
        assert!(serde_json::from_slice::<Bundle>(bundle).is_ok_and(|bundle| bundle.version_number == 3));
        bolero::check!().with_iterations(10_000).for_each(|input: &[u8]| {
            let _ = serde_json::from_slice::<Bundle>(input).map(|bundle| STANDARD.decode(bundle.secret_bundle_content.content.as_bytes()));
            let _ = serde_json::from_slice::<Vec<Summary>>(input);
            let _ = check_name(&String::from_utf8_lossy(input));
        });
    }
}
