//! Secrets of this cluster, or of another one. A value is a Secret; a property is one of its keys, or a path into the JSON of one.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{FutureExt, future::BoxFuture};
use http_body_util::Limited;
use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, KubeSchema, ResourceExt, api::ListParams, client::ClientBuilder, core::PartialObjectMeta};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use tower::util::MapResponseLayer;

use crate::{
    cluster::{
        apply::{WriteError, Writer},
        error::message,
        owner,
        references::{self, ReadSecrets, SecretData},
    },
    secrets::store::{
        Content, Find, Matcher, OpenStore, Opening, Place, SecretKeyRef, Store, StoreError, Stored, Write, authority, text_of,
    },
};

/// Which Secrets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!has(self.server) || has(self.__namespace__)").message("another cluster (server) needs its namespace, too"))]
pub struct Spec {
    /// Their namespace; in a SecretStore only, and needed there. Default: the resource's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Another cluster; in a SecretStore only. Default: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
}

/// Another cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.caBundle) && has(self.caSecretRef))").message("set at most one of caBundle and caSecretRef"))]
pub struct Server {
    /// The address of its API server: `https://HOST:PORT`.
    #[schemars(length(min = 9, max = 253), regex(pattern = r#"^https://[^/?#@\s"]+/?$"#))]
    pub url: String,
    /// The certificates that sign the API server's, in PEM, or that in base64. Default: those of the operator's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
    /// The same in a key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// Who asks: exactly one.
    pub auth: Auth,
}

/// Who asks another cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Auth {
    /// The token of a ServiceAccount there.
    Token(Token),
    /// A client certificate.
    ClientCertificate(ClientCertificate),
}

/// A token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Where it is.
    pub secret_ref: SecretKeyRef,
}

/// A client certificate with its key, in PEM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificate {
    /// Where the certificate is.
    pub cert_secret_ref: SecretKeyRef,
    /// Where its key is.
    pub key_secret_ref: SecretKeyRef,
}

/// Time for a connection, and for an answer.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(20);
/// No answer of another cluster is longer: a Secret has 1 MiB, the names of all take more.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;
/// So many Secrets are listed at a time: each may have 256 KiB of annotations.
const PAGE: u32 = 50;
/// `find` finds no more.
const MAX_FOUND: usize = 10_000;

impl Server {
    fn secrets(&self) -> impl Iterator<Item = &SecretKeyRef> {
        let login = match &self.auth {
            Auth::Token(token) => vec![&token.secret_ref],
            Auth::ClientCertificate(pair) => vec![&pair.cert_secret_ref, &pair.key_secret_ref],
        };
        login.into_iter().chain(&self.ca_secret_ref)
    }

    async fn client(&self, secrets: &dyn ReadSecrets, namespace: &str) -> Result<Client, StoreError> {
        let invalid = |what: &str, why: &dyn std::fmt::Display| StoreError::Invalid(format!("kubernetes.server.{what}: {why}"));
        let mut config = kube::Config::new(self.url.parse().map_err(|error| invalid("url", &error))?);
        (config.connect_timeout, config.read_timeout, config.write_timeout) = (Some(CONNECT), Some(ANSWER), Some(ANSWER));
        // One that is away is left alone as a store, and asked again by one call.
        config.default_retry = false;
        config.default_namespace = namespace.into();
        if let Some(ca) = authority(secrets, self.ca_bundle.as_deref(), self.ca_secret_ref.as_ref()).await? {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&ca).map(|one| one.map(|one| one.to_vec())).collect();
            config.root_cert = Some(certificates.map_err(|error| invalid("caBundle", &error))?);
        }
        match &self.auth {
            Auth::Token(token) => config.auth_info.token = Some(text_of(secrets, &token.secret_ref).await?.to_string().into()),
            Auth::ClientCertificate(pair) => {
                let (certificate, key) = (text_of(secrets, &pair.cert_secret_ref).await?, text_of(secrets, &pair.key_secret_ref).await?);
                config.auth_info.client_certificate_data = Some(STANDARD.encode(certificate.as_bytes()));
                config.auth_info.client_key_data = Some(STANDARD.encode(key.as_bytes()).into());
            }
        }
        let builder = ClientBuilder::try_from(config).map_err(|error| invalid("auth", &error))?;
        Ok(builder
            .with_layer(&MapResponseLayer::new(|answer: http::Response<_>| answer.map(|body| Limited::new(body, MAX_BODY_BYTES))))
            .build())
    }
}

struct Open {
    client: Client,
    writer: Option<Writer>,
    namespace: String,
}

/// Whose a Secret is that was written as a value of a store.
const PUSHED: &str = "SecretStore/kubernetes";

impl Store for Spec {
    fn validate(&self, shared: bool) -> Result<(), StoreError> {
        if self.namespace.is_some() && !shared {
            let why = "spec.store.kubernetes.namespace: another namespace can be read through a SecretStore only (spec.storeRef)";
            return Err(StoreError::Denied(why.into()));
        }
        if self.namespace.is_none() && shared {
            let why = "spec.kubernetes.namespace: say which namespace's Secrets the SecretStore gives out";
            return Err(StoreError::Invalid(why.into()));
        }
        if self.server.is_some() && !shared {
            let why = "spec.store.kubernetes.server: another cluster can be read through a SecretStore only (spec.storeRef)";
            return Err(StoreError::Denied(why.into()));
        }
        Ok(())
    }

    fn secrets(&self) -> Vec<String> {
        self.server.iter().flat_map(Server::secrets).map(|reference| reference.name.clone()).collect()
    }

    fn is_own_namespace(&self) -> bool {
        self.namespace.is_none() && self.server.is_none()
    }

    fn location(&self) -> String {
        let server = self.server.as_ref().map(|server| server.url.as_str()).unwrap_or_default();
        format!("{server} {}", self.namespace.as_deref().unwrap_or_default())
    }

    fn open<'a>(&'a self, opening: Opening<'a>) -> BoxFuture<'a, Result<Box<dyn OpenStore>, StoreError>> {
        let namespace = self.namespace.clone().unwrap_or_else(|| opening.namespace.to_owned());
        async move {
            if let Some(server) = &self.server {
                let client = server.client(opening.secrets, &namespace).await?;
                let writer = opening.writer.map(|writer| writer.of(client.clone()));
                return Ok(Box::new(Open { client, writer, namespace }) as Box<dyn OpenStore>);
            }
            let client = opening.cluster("the store kubernetes")?.clone();
            let opened = Open { client, writer: opening.writer.cloned(), namespace };
            Ok(Box::new(opened) as Box<dyn OpenStore>)
        }
        .boxed()
    }
}

/// A name that none can have would lead somewhere else in a path.
fn check_name(name: &str) -> Result<(), StoreError> {
    let why = || StoreError::Invalid(format!("{name:?} is no name of a Secret: it has lower-case letters, digits, '-' and '.'"));
    if references::is_name(name) { Ok(()) } else { Err(why()) }
}

impl Open {
    /// Who may not look at namespaces is not told.
    async fn has_no_namespace(&self) -> bool {
        matches!(Api::<Namespace>::all(self.client.clone()).get_metadata_opt(&self.namespace).await, Ok(None))
    }

    fn api(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn explain(&self, name: &str, error: &kube::Error) -> StoreError {
        let said = message(error);
        let text = format!("Secret {}/{name}: {said}", self.namespace);
        match error {
            kube::Error::Api(status) if status.is_not_found() => {
                StoreError::NotFound(format!("Secret {}/{name} is not there", self.namespace))
            }
            kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => StoreError::Conflict(text),
            kube::Error::Api(status) if status.code == 401 => StoreError::Unauthenticated(text),
            kube::Error::Api(status) if status.code == 403 => StoreError::Denied(text),
            kube::Error::Api(status) if status.code == 429 => {
                let after = status.details.as_ref().map(|details| u64::from(details.retry_after_seconds)).filter(|seconds| *seconds > 0);
                StoreError::Throttled { after: after.map(Duration::from_secs), message: text }
            }
            // What is asked in a way that no server takes says nothing about the store.
            kube::Error::BuildRequest(_) => StoreError::Invalid(text),
            kube::Error::Api(status) if (400..500).contains(&status.code) && ![408, 410].contains(&status.code) => {
                StoreError::Invalid(text)
            }
            _ => StoreError::Unavailable(text),
        }
    }
}

impl OpenStore for Open {
    fn read<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Stored, StoreError>> {
        async move {
            if place.version.is_some() {
                return Err(StoreError::Invalid(format!("remoteRef.version of {}: the store kubernetes has no versions", place.key)));
            }
            check_name(&place.key)?;
            let secret = self.api().get(&place.key).await.map_err(|error| self.explain(&place.key, &error))?;
            let version = secret.resource_version();
            Ok(Stored { content: Content::Map(references::data(secret)), version })
        }
        .boxed()
    }

    /// By name and label: Kubernetes' word for tags. Metadata only; no value is read.
    fn find<'a>(&'a self, find: &'a Find) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        async move {
            let labels: Vec<String> = find.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let (matcher, mut found) = (Matcher::of(find)?, Vec::new());
            let mut params = ListParams::default().labels(&labels.join(",")).limit(PAGE);
            loop {
                let page = self.api().list_metadata(&params).await.map_err(|error| self.explain("*", &error))?;
                let names = page.items.iter().map(|secret: &PartialObjectMeta<Secret>| secret.name_any());
                found.extend(names.filter(|name| matcher.matches(name)));
                if found.len() > MAX_FOUND {
                    return Err(StoreError::Invalid(format!("find finds more than {MAX_FOUND} Secrets; narrow it")));
                }
                let Some(next) = page.metadata.continue_.filter(|next| !next.is_empty()) else { return Ok(found) };
                params = params.continue_token(&next);
            }
        }
        .boxed()
    }

    /// A Secret that was not made here, or by another resource of ours, is never written to.
    fn write<'a>(&'a self, write: Write<'a>) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        async move {
            let name = write.key;
            check_name(name)?;
            let Content::Map(data) = write.content else {
                return Err(StoreError::Invalid(format!("remoteRef.property of {name}: say which key of the Secret is written")));
            };
            let Some(writer) = &self.writer else { return Err(StoreError::Denied("nothing is written from here".into())) };
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(name.into()),
                    namespace: Some(self.namespace.clone()),
                    annotations: Some([(owner::OWNER.to_owned(), PUSHED.to_owned())].into()),
                    ..ObjectMeta::default()
                },
                data: Some(data.iter().map(|(key, value)| (key.clone(), ByteString(value.to_vec()))).collect()),
                ..Secret::default()
            };
            let written = match write.expected {
                None => match writer.create(secret).await {
                    Err(WriteError::Superseded(object)) if self.has_no_namespace().await => {
                        Err(WriteError::Refused { object, message: format!("there is no namespace {}", self.namespace) })
                    }
                    created => created,
                },
                Some(version) => {
                    let there = self.api().get_metadata(name).await.map_err(|error| self.explain(name, &error))?;
                    if there.metadata.resource_version.as_deref() != Some(version) {
                        return Err(StoreError::Conflict(format!("Secret {}/{name} was changed since it was read", self.namespace)));
                    }
                    if owner::of(&there.metadata) != Some(PUSHED) {
                        let whose = owner::of(&there.metadata).unwrap_or("somebody else");
                        let message = format!(
                            "Secret {}/{name} belongs to {whose} and is not written to; choose another remoteRef.key",
                            self.namespace
                        );
                        return Err(StoreError::Denied(message));
                    }
                    writer.apply(secret, &there.metadata).await
                }
            };
            written.map(|meta| meta.resource_version).map_err(|error| match error {
                WriteError::Refused { .. } | WriteError::Owned { .. } => StoreError::Invalid(error.to_string()),
                WriteError::Superseded(_) | WriteError::Exists(_) => StoreError::Conflict(error.to_string()),
                WriteError::NotLeading | WriteError::Unavailable { .. } => StoreError::Unavailable(error.to_string()),
            })
        }
        .boxed()
    }

    fn blank(&self) -> Content {
        Content::Map(SecretData::new())
    }

    fn check(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            let found = self.api().list_metadata(&ListParams::default().limit(1)).await.map_err(|error| self.explain("*", &error))?;
            // The list of a namespace that is not there is an empty one.
            if found.items.is_empty() && self.has_no_namespace().await {
                return Err(StoreError::Invalid(format!("there is no namespace {}", self.namespace)));
            }
            Ok(())
        }
        .boxed()
    }
}
