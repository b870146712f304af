//! HashiCorp Vault and OpenBao: the key/value engine, versions 2 and 1. A value is the JSON object under a path.

use futures::{FutureExt, future::BoxFuture};
use kube::KubeSchema;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use zeroize::Zeroizing;

use crate::{
    api::Duration,
    clients::{
        egress::Egress,
        error::ClientError,
        vault::{
            Connection, Login, Vault,
            approle::Role,
            kv::{Described, History, Listed, Versioned, Written},
        },
    },
    cluster::token::ServiceAccountRef,
    ids,
    secrets::store::{
        Content, Find, Matcher, NewCredential, OpenStore, Opening, OwnCredential, Place, SecretKeyRef, Store, StoreError, Stored, Write,
        authority, text_of,
    },
};

/// Where it is, and how to log in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.caBundle) && has(self.caSecretRef))").message("set at most one of caBundle and caSecretRef"))]
pub struct Spec {
    /// Its address: `https://HOST:PORT`.
    #[schemars(length(min = 8, max = 253), regex(pattern = r#"^https?://[^/?#@\s"]+/?$"#))]
    pub server: String,
    /// Where the key/value engine is mounted. Default `secret`.
    #[serde(default = "secret")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[^/?#]+(/[^/?#]+)*$"))]
    pub path: String,
    /// Of the key/value engine. Default v2.
    #[serde(default)]
    pub version: Version,
    /// The namespace (Vault Enterprise, OpenBao).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[\x21-\x7e]+$"))]
    pub namespace: Option<String>,
    /// The certificates that sign the server's, in PEM, or that in base64. Default: those of the operator's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
    /// The same in a key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// How to log in: exactly one.
    pub auth: Auth,
}

fn secret() -> String {
    "secret".into()
}

/// Of the key/value engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Version {
    /// With versions and check-and-set.
    #[default]
    V2,
    /// Without.
    V1,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Auth {
    /// With a role id and a secret id.
    AppRole(AppRole),
    /// With the token of a ServiceAccount, which Vault reviews in this cluster.
    Kubernetes(KubernetesLogin),
    /// With the token of a ServiceAccount, whose signature Vault verifies.
    Jwt(JwtLogin),
    /// With a token that somebody else keeps alive.
    Token(TokenLogin),
}

/// AppRole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppRole {
    /// Where the method is mounted. Default `approle`.
    #[serde(default = "approle")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[^/?#]+(/[^/?#]+)*$"))]
    pub path: String,
    /// The role id.
    #[schemars(length(min = 1, max = 253))]
    pub role_id: String,
    /// The secret id.
    pub secret_ref: SecretKeyRef,
    /// The operator replaces the secret id by itself; in a SecretStore only. Default: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_secret_id: Option<RotateSecretId>,
}

/// How often a secret id is replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("duration(self.every) >= duration('1h')").message("every must be at least 1h"))]
pub struct RotateSecretId {
    /// How long one is used; at least 1h. The first one is replaced at once.
    pub every: Duration,
}

fn approle() -> String {
    "approle".into()
}

/// A login as a ServiceAccount of the same namespace, by Vault's method `kubernetes`. Its token is asked for with the rights that your Role gives the
/// operator: `create` on `serviceaccounts/token`, for that name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesLogin {
    /// Where the method is mounted. Default `kubernetes`.
    #[serde(default = "kubernetes")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[^/?#]+(/[^/?#]+)*$"))]
    pub mount_path: String,
    /// The role in Vault.
    #[schemars(length(min = 1, max = 253))]
    pub role: String,
    /// Whose token.
    pub service_account_ref: ServiceAccountRef,
}

fn kubernetes() -> String {
    "kubernetes".into()
}

/// The same by Vault's method `jwt`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtLogin {
    /// Where the method is mounted. Default `jwt`.
    #[serde(default = "jwt")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[^/?#]+(/[^/?#]+)*$"))]
    pub path: String,
    /// The role in Vault.
    #[schemars(length(min = 1, max = 253))]
    pub role: String,
    /// Whose token.
    pub service_account_ref: ServiceAccountRef,
}

fn jwt() -> String {
    "jwt".into()
}

/// A token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenLogin {
    /// Where it is.
    pub secret_ref: SecretKeyRef,
}

/// The search for secret ids that were made in vain takes no longer.
const SEARCH_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// `find` looks no deeper,
const MAX_DEPTH: usize = 10;
/// finds no more values,
const MAX_FOUND: usize = 10_000;
/// and looks into no more folders.
const MAX_FOLDERS: usize = 200;

struct Open {
    vault: Vault,
    mount: String,
    version: Version,
    credential: Option<Credential>,
}

/// What is needed to replace a secret id: where, which, and what another one is tried with.
struct Credential {
    role: AppRole,
    secret_id: Zeroizing<String>,
    connection: Connection,
    egress: Egress,
}

impl Store for Spec {
    fn validate(&self, shared: bool) -> Result<(), StoreError> {
        if !shared && matches!(&self.auth, Auth::AppRole(role) if role.rotate_secret_id.is_some()) {
            let why = "spec.store.vault.auth.appRole.rotateSecretId: it replaces the secret id of a SecretStore only (spec.storeRef)";
            return Err(StoreError::Denied(why.into()));
        }
        Ok(())
    }

    fn own_credential(&self) -> Option<OwnCredential> {
        let Auth::AppRole(role) = &self.auth else { return None };
        Some(OwnCredential { place: role.secret_ref.clone(), every: role.rotate_secret_id.as_ref()?.every })
    }

    fn secrets(&self) -> Vec<String> {
        let credential = match &self.auth {
            Auth::AppRole(role) => Some(&role.secret_ref),
            Auth::Token(token) => Some(&token.secret_ref),
            Auth::Kubernetes(_) | Auth::Jwt(_) => None,
        };
        credential.into_iter().chain(&self.ca_secret_ref).map(|reference| reference.name.clone()).collect()
    }

    fn location(&self) -> String {
        let server = self.server.trim_end_matches('/');
        format!("{server} {} {} {:?}", self.namespace.as_deref().unwrap_or_default(), self.path, self.version)
    }

    fn open<'a>(&'a self, opening: Opening<'a>) -> BoxFuture<'a, Result<Box<dyn OpenStore>, StoreError>> {
        async move {
            let ca = authority(opening.secrets, self.ca_bundle.as_deref(), self.ca_secret_ref.as_ref()).await?;
            let connection = Connection { server: self.server.clone(), namespace: self.namespace.clone(), ca };
            let egress = &opening.allowed.egress;
            let credential = match &self.auth {
                Auth::AppRole(role) if role.rotate_secret_id.is_some() => {
                    let secret_id = text_of(opening.secrets, &role.secret_ref).await?;
                    Some(Credential { role: role.clone(), secret_id, connection: connection.clone(), egress: egress.clone() })
                }
                _ => None,
            };
            let vault = Vault::new(connection, self.login(&opening).await?, egress)?;
            Ok(Box::new(Open { vault, mount: self.path.clone(), version: self.version, credential }) as Box<dyn OpenStore>)
        }
        .boxed()
    }
}

impl Spec {
    async fn login(&self, opening: &Opening<'_>) -> Result<Login, StoreError> {
        Ok(match &self.auth {
            Auth::Token(TokenLogin { secret_ref }) => {
                Login::Token { token: text_of(opening.secrets, secret_ref).await?, with: format!("the token in {secret_ref}") }
            }
            Auth::AppRole(role) => role.login(text_of(opening.secrets, &role.secret_ref).await?),
            Auth::Kubernetes(KubernetesLogin { mount_path, role, service_account_ref }) => {
                as_service_account(mount_path, role, service_account_ref, opening)?
            }
            Auth::Jwt(JwtLogin { path, role, service_account_ref }) => as_service_account(path, role, service_account_ref, opening)?,
        })
    }
}

impl AppRole {
    fn login(&self, secret_id: Zeroizing<String>) -> Login {
        let (id, with) = (self.role_id.clone(), format!("the secret id in {} (role id {:?})", self.secret_ref, self.role_id));
        let body = move || {
            let body = json!({"role_id": id, "secret_id": *secret_id});
            async move { Ok(body) }.boxed()
        };
        Login::At { path: self.path.clone(), with, body: Box::new(body) }
    }
}

/// A login at `auth/MOUNT/login` with a token of `account`, asked for anew each time.
fn as_service_account(mount: &str, role: &str, account: &ServiceAccountRef, opening: &Opening<'_>) -> Result<Login, StoreError> {
    let client = opening.cluster("a login as a ServiceAccount")?;
    let (client, namespace) = (client.clone(), opening.namespace.to_owned());
    let (role, account) = (role.to_owned(), account.clone());
    let with = format!("role {role} and a token of ServiceAccount {namespace}/{}", account.name);
    let body = move || {
        let (client, namespace, role, account) = (client.clone(), namespace.clone(), role.clone(), account.clone());
        async move {
            let token = account.token(&client, &namespace, "vault").await?;
            Ok(json!({"role": role, "jwt": *token}))
        }
        .boxed()
    };
    Ok(Login::At { path: mount.to_owned(), with, body: Box::new(body) })
}

impl Open {
    fn path<'a>(&'a self, folder: Option<&'a str>, key: &'a str) -> Vec<&'a str> {
        self.mount.split('/').chain(folder.filter(|_| self.version == Version::V2)).chain(key.split('/')).collect()
    }

    fn unreadable(key: &str) -> StoreError {
        StoreError::Invalid(format!("what Vault has at {key} cannot be read; is vault.version right?"))
    }

    async fn list(&self, find: &Find) -> Result<Vec<String>, StoreError> {
        let start = find.path.as_deref().unwrap_or_default().trim_matches('/').to_owned();
        let (mut folders, mut found, mut asked) = (vec![(start, 0)], Vec::new(), 0);
        while let Some((folder, depth)) = folders.pop() {
            asked += 1;
            if asked > MAX_FOLDERS || depth > MAX_DEPTH {
                return Err(StoreError::Invalid(format!(
                    "find looks through more than {MAX_FOLDERS} folders or {MAX_DEPTH} levels; narrow find.path"
                )));
            }
            let path: Vec<&str> = self.path(Some("metadata"), &folder).into_iter().filter(|part| !part.is_empty()).collect();
            let listed = match self.vault.request(&Method::GET, &path, &[("list", "true")], None).await {
                Ok(listed) => listed,
                Err(ClientError::NotFound(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let listed: Listed = serde_json::from_slice(&listed).map_err(|_| Self::unreadable(&folder))?;
            for name in listed.keys {
                let whole = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                if found.len() + folders.len() > MAX_FOUND {
                    return Err(StoreError::Invalid(format!("find looks through more than {MAX_FOUND} values; narrow find.path")));
                }
                match whole.strip_suffix('/') {
                    Some(below) => folders.push((below.into(), depth + 1)),
                    None => found.push(whole),
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Custom metadata: what version 2 has in the place of tags.
    async fn has_tags(&self, key: &str, find: &Find) -> Result<bool, StoreError> {
        if find.tags.is_empty() {
            return Ok(true);
        }
        if self.version == Version::V1 {
            return Err(StoreError::Invalid("find.tags: version 1 of the key/value engine has no metadata".into()));
        }
        let described = self.vault.request(&Method::GET, &self.path(Some("metadata"), key), &[], None).await?;
        let described: Described = serde_json::from_slice(&described).unwrap_or_default();
        let tags = described.custom_metadata.unwrap_or_default();
        Ok(find.tags.iter().all(|(name, value)| tags.get(name) == Some(value)))
    }
}

impl OpenStore for Open {
    fn read<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Stored, StoreError>> {
        async move {
            let key = place.key.trim_matches('/');
            let query: Vec<(&str, &str)> = place.version.iter().map(|version| ("version", version.as_str())).collect();
            if self.version == Version::V1 {
                if place.version.is_some() {
                    let why = format!("remoteRef.version of {key}: version 1 of the key/value engine has no versions");
                    return Err(StoreError::Invalid(why));
                }
                let data = self.vault.request(&Method::GET, &self.path(None, key), &[], None).await?;
                // Without versions, what was read is told apart by what it is.
                return Ok(Stored { version: Some(ids::hash(&data)), content: Content::Bytes(data) });
            }
            let answer = self.vault.request(&Method::GET, &self.path(Some("data"), key), &query, None).await?;
            let answer: Versioned<'_> = serde_json::from_slice(&answer).map_err(|_| Self::unreadable(key))?;
            let data = answer.data.filter(|data| data.get() != "null").ok_or_else(|| Self::unreadable(key))?;
            let content = Content::Bytes(Zeroizing::new(data.get().as_bytes().to_vec()));
            Ok(Stored { content, version: Some(answer.metadata.version.to_string()) })
        }
        .boxed()
    }

    fn find<'a>(&'a self, find: &'a Find) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        async move {
            let (below, mut found) = (Find { path: None, ..find.clone() }, Vec::new());
            let matcher = Matcher::of(&below)?;
            for key in self.list(find).await? {
                if matcher.matches(&key) && self.has_tags(&key, find).await? {
                    found.push(key);
                }
            }
            Ok(found)
        }
        .boxed()
    }

    fn write<'a>(&'a self, write: Write<'a>) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        async move {
            let key = write.key.trim_matches('/');
            let object: Option<&RawValue> = match write.content {
                Content::Bytes(bytes) => serde_json::from_slice::<&RawValue>(bytes).ok().filter(|text| text.get().starts_with('{')),
                Content::Map(_) => None,
            };
            let no_object = || StoreError::Invalid("Vault holds JSON objects: name a member in remoteRef.property".into());
            let object = object.ok_or_else(no_object)?;
            if self.version == Version::V1 {
                // There is no check-and-set: what is there is looked at just before.
                let there = match self.vault.request(&Method::GET, &self.path(None, key), &[], None).await {
                    Ok(data) => Some(ids::hash(&data)),
                    Err(ClientError::NotFound(_)) => None,
                    Err(error) => return Err(error.into()),
                };
                if there.as_deref() != write.expected {
                    return Err(StoreError::Conflict(format!("{key} was written by somebody else since it was read")));
                }
                let sent = Zeroizing::new(object.get().as_bytes().to_vec());
                self.vault.request(&Method::POST, &self.path(None, key), &[], Some(&sent)).await?;
                return Ok(None);
            }
            let cas = match write.expected {
                Some(version) => version.to_owned(),
                None => self.deleted_version(key).await?.to_string(),
            };
            let sent = Zeroizing::new(format!(r#"{{"options":{{"cas":{cas}}},"data":{}}}"#, object.get()).into_bytes());
            let answer = self.vault.request(&Method::POST, &self.path(Some("data"), key), &[], Some(&sent)).await?;
            let written: Written = serde_json::from_slice(&answer).unwrap_or_default();
            Ok(Some(written.version.to_string()))
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async { Ok(self.vault.check().await?) }.boxed()
    }

    fn can_retire(&self) -> bool {
        self.version == Version::V2
    }

    /// Deleted as Vault deletes: it can be undone.
    fn retire<'a>(&'a self, key: &'a str, version: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            let key = key.trim_matches('/');
            let Some(number) = version.parse::<u64>().ok().filter(|_| self.version == Version::V2) else { return Ok(true) };
            let answer = self.vault.request(&Method::GET, &self.path(Some("metadata"), key), &[], None).await?;
            let history: History = serde_json::from_slice(&answer).map_err(|_| Self::unreadable(key))?;
            // It may be another Vault by now, or have been restored.
            if number < history.current_version {
                let sent = json!({"versions": [number]}).to_string();
                self.vault.request(&Method::POST, &self.path(Some("delete"), key), &[], Some(sent.as_bytes())).await?;
            }
            Ok(true)
        }
        .boxed()
    }

    fn make_credential<'a>(&'a self, mark: &'a str) -> BoxFuture<'a, Result<NewCredential, StoreError>> {
        async move {
            let own = self.own()?;
            let name = self.vault.role_name().await?;
            let role = Role { mount: &own.role.path, name: &name };
            let replaces = self.vault.accessor_of(role, &own.secret_id).await?;
            let value = self.vault.new_secret_id(role, mark).await?;
            let other = Vault::new(own.connection.clone(), own.role.login(value.clone()), &own.egress)?;
            let lets_in = other.check().await;
            other.close().await;
            if let Err(error) = lets_in {
                let made = self.vault.accessor_of(role, &value).await?;
                self.vault.destroy_secret_id(role, &made).await?;
                return Err(error.into());
            }
            Ok(NewCredential { value, replaces })
        }
        .boxed()
    }

    fn destroy_credentials<'a>(&'a self, mark: &'a str, replaced: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let own = self.own()?;
            let name = self.vault.role_name().await?;
            let role = Role { mount: &own.role.path, name: &name };
            let keep = self.vault.accessor_of(role, &own.secret_id).await?;
            if keep != replaced {
                self.vault.destroy_secret_id(role, replaced).await?;
            }
            let lost = tokio::time::timeout(SEARCH_TIMEOUT, self.vault.destroy_lost_secret_ids(role, &keep, mark)).await;
            match lost {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::info!(%error, "secret ids that were lost half way could not be looked for"),
                Err(_) => tracing::info!("there are too many secret ids to find those that were lost half way"),
            }
            Ok(())
        }
        .boxed()
    }

    fn renew(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        async { Ok(self.vault.renew().await?) }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.vault.close().boxed()
    }
}

impl Open {
    fn own(&self) -> Result<&Credential, StoreError> {
        self.credential.as_ref().ok_or_else(|| StoreError::Invalid("auth.appRole.rotateSecretId is not set".into()))
    }

    /// The `cas` with which a key is created: 0, or the number of its latest version if that was deleted. For a key that is there it is 0, too, so that the
    /// write is a conflict.
    async fn deleted_version(&self, key: &str) -> Result<u64, StoreError> {
        let answer = match self.vault.request(&Method::GET, &self.path(Some("metadata"), key), &[], None).await {
            Ok(answer) => answer,
            // Who may not read metadata may still make what never was.
            Err(ClientError::NotFound(_) | ClientError::Denied(_)) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let history: History = serde_json::from_slice(&answer).unwrap_or_default();
        let last = history.versions.get(&history.current_version.to_string());
        let deleted = last.is_some_and(|last| last.destroyed || !last.deletion_time.is_empty());
        Ok(if deleted { history.current_version } else { 0 })
    }
}
