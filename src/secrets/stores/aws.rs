//! AWS Secrets Manager, by the official SDK.
//!
//! A write is two calls: the new version is put under a label of our own, then the stage AWSCURRENT is moved to it from the version that was read, which AWS refuses if
//! it is somewhere else by then. <https://docs.aws.amazon.com/secretsmanager/latest/apireference/>

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, sts::AssumeRoleProvider, timeout::TimeoutConfig};
use aws_sdk_secretsmanager::{
    Client,
    config::{Credentials, SharedCredentialsProvider},
    error::{ProvideErrorMetadata, SdkError},
    operation::update_secret_version_stage::builders::UpdateSecretVersionStageFluentBuilder,
    primitives::Blob,
    types::{Filter, FilterNameStringType},
};
use aws_smithy_async::{
    rt::sleep::{SharedAsyncSleep, TokioSleep},
    time::SystemTimeSource,
};
use futures::{FutureExt, future::BoxFuture};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    clients::{aws::http, error::one_line},
    ids,
    secrets::store::{Content, Find, Matcher, OpenStore, Opening, Place, SecretKeyRef, Store, StoreError, Stored, Write, text_of},
};

/// Where, and as whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.externalID) || has(self.role)").message("externalID is for a role: set role, too"))]
pub struct Spec {
    /// The region: `eu-central-1`.
    #[schemars(length(min = 4, max = 32), regex(pattern = "^[a-z0-9-]+$"))]
    pub region: String,
    /// Another address of the service: a VPC endpoint, or an emulator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 253), regex(pattern = r#"^https?://[^/?#@\s"]+/?$"#))]
    pub endpoint: Option<String>,
    /// The ARN of a role that is assumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 20, max = 2048), regex(pattern = "^arn:[^:]+:iam::[0-9]{12}:role/.+$"))]
    pub role: Option<String>,
    /// What the trust policy of the role wants to hear.
    #[serde(default, rename = "externalID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1224))]
    pub external_id: Option<String>,
    /// As whom: exactly one.
    pub auth: Auth,
}

/// As whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Auth {
    /// With the keys in a Secret.
    SecretRef(Keys),
    /// As the operator's Pod (IRSA, Pod Identity, the node's role); in a SecretStore only.
    Ambient(Ambient),
}

/// Access keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Keys {
    /// The access key id.
    #[serde(rename = "accessKeyID")]
    pub access_key_id: SecretKeyRef,
    /// The secret access key.
    #[serde(rename = "secretAccessKey")]
    pub secret_access_key: SecretKeyRef,
    /// The session token of temporary keys.
    #[serde(default, rename = "sessionToken", skip_serializing_if = "Option::is_none")]
    pub session_token: Option<SecretKeyRef>,
}

/// Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Ambient {}

/// BatchGetSecretValue: the API's own limit.
const BATCH: usize = 20;
/// ListSecrets gives at most a hundred a page; nobody needs more pages.
const PAGES: usize = 50;
const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";
/// A label of our own: AWSPENDING belongs to a rotation by AWS.
const PENDING: &str = "SEAWORTHYPENDING";
/// What a version id begins with, so that it is told from a stage.
const ID: &str = "uuid/";

struct Open {
    client: Client,
    /// Region and endpoint, for messages.
    location: String,
}

impl Store for Spec {
    fn validate(&self, shared: bool) -> Result<(), StoreError> {
        if matches!(self.auth, Auth::Ambient(_)) && !shared {
            let why = "spec.store.aws.auth.ambient: the operator's own identity can be used through a SecretStore only (spec.storeRef)";
            return Err(StoreError::Denied(why.into()));
        }
        Ok(())
    }

    fn secrets(&self) -> Vec<String> {
        let Auth::SecretRef(keys) = &self.auth else { return Vec::new() };
        [Some(&keys.access_key_id), Some(&keys.secret_access_key), keys.session_token.as_ref()]
            .into_iter()
            .flatten()
            .map(|reference| reference.name.clone())
            .collect()
    }

    fn location(&self) -> String {
        format!("{} {}", self.region, self.endpoint.as_deref().unwrap_or_default().trim_end_matches('/'))
    }

    fn open<'a>(&'a self, opening: Opening<'a>) -> BoxFuture<'a, Result<Box<dyn OpenStore>, StoreError>> {
        async move {
            let config = self.config(&opening).await?;
            let client = Client::from_conf(match &self.endpoint {
                Some(endpoint) => {
                    let invalid = |why: String| StoreError::Invalid(format!("aws.endpoint {endpoint:?}: {why}"));
                    let url = endpoint.parse().map_err(|_| invalid("write https://HOST".into()))?;
                    opening.allowed.egress.check_literal(&url).map_err(invalid)?;
                    aws_sdk_secretsmanager::config::Builder::from(&config).endpoint_url(endpoint).build()
                }
                None => aws_sdk_secretsmanager::config::Builder::from(&config).build(),
            });
            Ok(Box::new(Open { client, location: self.location().trim_end().into() }) as Box<dyn OpenStore>)
        }
        .boxed()
    }
}

impl Spec {
    async fn config(&self, opening: &Opening<'_>) -> Result<SdkConfig, StoreError> {
        let timeouts = TimeoutConfig::builder().connect_timeout(Duration::from_secs(5)).operation_timeout(Duration::from_secs(20)).build();
        let region = Region::new(self.region.clone());
        let once = RetryConfig::disabled(); // a store that fails is left alone as a whole, and that is not decided here
        let config = match &self.auth {
            Auth::Ambient(_) => {
                let defaults = aws_config::defaults(BehaviorVersion::latest()).region(region).timeout_config(timeouts).retry_config(once);
                defaults.http_client(http(&opening.allowed.egress)).load().await
            }
            Auth::SecretRef(keys) => {
                let (id, secret) =
                    (text_of(opening.secrets, &keys.access_key_id).await?, text_of(opening.secrets, &keys.secret_access_key).await?);
                let token = match &keys.session_token {
                    Some(reference) => Some(text_of(opening.secrets, reference).await?.to_string()),
                    None => None,
                };
                let credentials = Credentials::new(id.to_string(), secret.to_string(), token, None, "Secret");
                // Nothing of the operator's own surroundings: no profile, no environment, no metadata service.
                SdkConfig::builder()
                    .behavior_version(BehaviorVersion::latest())
                    .region(region)
                    .timeout_config(timeouts)
                    .retry_config(once)
                    .credentials_provider(SharedCredentialsProvider::new(credentials))
                    .http_client(http(&opening.allowed.egress))
                    .time_source(SystemTimeSource::new())
                    .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
                    .build()
            }
        };
        let Some(role) = &self.role else { return Ok(config) };
        let mut provider = AssumeRoleProvider::builder(role).session_name("seaworthy").configure(&self.for_sts(&config));
        if let Some(id) = &self.external_id {
            provider = provider.external_id(id);
        }
        Ok(config.into_builder().credentials_provider(SharedCredentialsProvider::new(provider.build().await)).build())
    }

    /// An emulator answers for STS at the same address.
    fn for_sts(&self, config: &SdkConfig) -> SdkConfig {
        match &self.endpoint {
            Some(endpoint) if !endpoint.contains(".amazonaws.com") && !endpoint.contains(".vpce.") => {
                config.clone().into_builder().endpoint_url(endpoint).build()
            }
            _ => config.clone(),
        }
    }
}

/// How the codes begin of credentials that AWS does not accept.
const UNAUTHENTICATED: [&str; 7] = [
    "UnrecognizedClient",
    "InvalidClientTokenId",
    "InvalidIdentityToken",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidSignature",
    "MissingAuthenticationToken",
];

/// The same of what they may not do.
const DENIED: [&str; 3] = ["AccessDenied", "DecryptionFailure", "EncryptionFailure"];

fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    all.collect::<Vec<_>>().join(": ").chars().take(400).collect()
}

fn by_code((location, key): (&str, &str), code: &str, said: &str) -> StoreError {
    let text = format!("AWS Secrets Manager ({location}), {key}: {}: {}", one_line(code, 100), one_line(said, 400));
    match code {
        "ResourceNotFoundException" => StoreError::NotFound(text),
        "ResourceExistsException" => StoreError::Conflict(text),
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" => StoreError::Throttled { after: None, message: text },
        code if UNAUTHENTICATED.iter().any(|beginning| code.starts_with(beginning)) => StoreError::Unauthenticated(text),
        code if DENIED.iter().any(|beginning| code.starts_with(beginning)) => StoreError::Denied(text),
        // Deleted, and not yet gone: nobody can read it.
        "InvalidRequestException" if said.contains("deletion") || said.contains("deleted") => StoreError::NotFound(text),
        // The last one is a quota, of versions of one secret for instance.
        "InvalidRequestException" | "InvalidParameterException" | "ValidationException" | "LimitExceededException" => {
            StoreError::Invalid(text)
        }
        _ => StoreError::Unavailable(text),
    }
}

fn stored(string: Option<String>, binary: Option<Blob>, version: Option<String>) -> Stored {
    let bytes = string.map(String::into_bytes).or_else(|| binary.map(Blob::into_inner)).unwrap_or_default();
    Stored { content: Content::Bytes(Zeroizing::new(bytes)), version: version.map(|id| named(&id)) }
}

fn named(id: &str) -> String {
    format!("{ID}{id}")
}

fn id(version: &str) -> &str {
    version.strip_prefix(ID).unwrap_or(version)
}

impl OpenStore for Open {
    fn read<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Stored, StoreError>> {
        async move {
            let request = self.client.get_secret_value().secret_id(&place.key);
            let request = match place.version.as_deref() {
                None => request.version_stage(CURRENT),
                Some(version) => match version.strip_prefix(ID) {
                    Some(id) => request.version_id(id),
                    None => request.version_stage(version),
                },
            };
            let answer = request.send().await.map_err(|error| self.explain(&place.key, &error))?;
            Ok(stored(answer.secret_string, answer.secret_binary, answer.version_id))
        }
        .boxed()
    }

    fn batch(&self) -> usize {
        BATCH
    }

    fn read_many<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Vec<Result<Stored, StoreError>>, StoreError>> {
        async move {
            let request = self.client.batch_get_secret_value().set_secret_id_list(Some(keys.to_vec()));
            let answer = request.send().await.map_err(|error| self.explain("BatchGetSecretValue", &error))?;
            let (values, errors) = (answer.secret_values.unwrap_or_default(), answer.errors.unwrap_or_default());
            let mut given = Vec::new();
            for key in keys {
                let value = values.iter().find(|value| value.name.as_ref() == Some(key) || value.arn.as_ref() == Some(key));
                let error = errors.iter().find(|error| error.secret_id.as_ref() == Some(key));
                given.push(match (value, error) {
                    (Some(value), _) => Ok(stored(value.secret_string.clone(), value.secret_binary.clone(), value.version_id.clone())),
                    (None, Some(error)) => Err(by_code(
                        (&self.location, key),
                        error.error_code.as_deref().unwrap_or_default(),
                        error.message.as_deref().unwrap_or_default(),
                    )),
                    // Named by a part of its ARN, or on a further page: that it is not in the answer says nothing.
                    (None, None) => self.read(&Place { key: key.clone(), version: None }).await,
                });
            }
            Ok(given)
        }
        .boxed()
    }

    fn find<'a>(&'a self, find: &'a Find) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        async move {
            let filter = |name: FilterNameStringType, value: &str| Filter::builder().key(name).values(value).build();
            let mut filters = Vec::new();
            // Ten filters are taken; all tags are looked at here anyway.
            for (name, value) in find.tags.iter().take(5) {
                filters.push(filter(FilterNameStringType::TagKey, name));
                filters.push(filter(FilterNameStringType::TagValue, value));
            }
            let (matcher, mut found, mut next) = (Matcher::of(find)?, Vec::new(), None);
            for _ in 0..PAGES {
                let request = self.client.list_secrets().set_filters((!filters.is_empty()).then(|| filters.clone())).set_next_token(next);
                let page = request.max_results(100).send().await.map_err(|error| self.explain("ListSecrets", &error))?;
                for secret in page.secret_list.unwrap_or_default() {
                    let Some(name) = secret.name else { continue };
                    // The filters take keys and values apart: that the two belong together is looked at here.
                    let tags = secret.tags.unwrap_or_default();
                    let tagged = |(name, value): (&String, &String)| {
                        tags.iter().any(|tag| tag.key.as_ref() == Some(name) && tag.value.as_ref() == Some(value))
                    };
                    if matcher.matches(&name) && find.tags.iter().all(tagged) {
                        found.push(name);
                    }
                }
                next = page.next_token;
                if next.is_none() {
                    return Ok(found);
                }
            }
            Err(StoreError::Invalid(format!("find looks through more than {} values; narrow it by tags", PAGES * 100)))
        }
        .boxed()
    }

    fn write<'a>(&'a self, write: Write<'a>) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        async move {
            let key = write.key;
            let Content::Bytes(bytes) = write.content else {
                return Err(StoreError::Invalid(format!("{key}: only one value can be written")));
            };
            // The same for each attempt that rests on the same version, so that one whose answer was lost is not done twice.
            let token = ids::hash([write.token, key, write.expected.unwrap_or_default()].join(" ").as_bytes());
            let (mut text, blob) = match std::str::from_utf8(bytes) {
                Ok(text) => (Some(text.to_owned()), None),
                Err(_) => (None, Some(Blob::new(bytes.to_vec()))),
            };
            let done = match write.expected {
                None => {
                    let request = self.client.create_secret().name(key).client_request_token(&token);
                    let request = request.set_secret_string(text.clone()).set_secret_binary(blob.clone());
                    let created = request.send().await.map(|answer| answer.version_id.map(|id| named(&id)));
                    match created.map_err(|error| self.explain(key, &error)) {
                        Err(StoreError::Conflict(_)) if self.is_empty(key).await? => self.fill(key, &token, (text.clone(), blob)).await,
                        created => created,
                    }
                }
                Some(expected) => self.replace(key, expected, &token, (text.clone(), blob)).await,
            };
            text.zeroize();
            done
        }
        .boxed()
    }

    fn can_promote(&self) -> bool {
        true
    }

    fn promote<'a>(&'a self, key: &'a str, version: &'a str, expected: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        self.make_current(key, id(version), id(expected)).boxed()
    }

    /// Without a stage AWS deletes it in time.
    fn retire<'a>(&'a self, key: &'a str, version: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            match self.stage(key, PREVIOUS).remove_from_version_id(id(version)).send().await.map_err(|error| self.explain(key, &error)) {
                Err(StoreError::Invalid(_)) => Ok(true), // the stage is somewhere else
                done => done.map(|_| true),
            }
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            match self.client.list_secrets().max_results(1).send().await {
                Ok(_) => Ok(()),
                // Who may only read certain values is let in, too: the service knows who we are.
                Err(error) if error.code().is_some_and(|code| code.starts_with("AccessDenied")) => Ok(()),
                Err(error) => Err(self.explain("ListSecrets", &error)),
            }
        }
        .boxed()
    }
}

impl Open {
    /// By the code, never by the HTTP status, which emulators take otherwise.
    fn explain<E: ProvideErrorMetadata + std::error::Error + 'static>(&self, key: &str, error: &SdkError<E>) -> StoreError {
        let location = &self.location;
        let Some(service) = error.as_service_error() else {
            let why = match error {
                SdkError::TimeoutError(_) => "it took too long".into(),
                SdkError::DispatchFailure(failure) => {
                    failure.as_connector_error().map_or_else(|| "it could not be sent".into(), |error| causes(error))
                }
                SdkError::ConstructionFailure(_) => "the request could not be made; are there credentials?".into(),
                _ => "the answer cannot be read".into(),
            };
            let hint = if why.contains("dns error") { "; is the region right?" } else { "" };
            let text = format!("AWS Secrets Manager ({location}) cannot be asked for {key}: {why}{hint}");
            // A role that may not be assumed, or credentials that STS does not accept, are seen before anything is sent.
            let causes = causes(error);
            let is_refused = UNAUTHENTICATED.iter().chain(&DENIED).any(|code| causes.contains(code));
            return if is_refused { StoreError::Unauthenticated(text) } else { StoreError::Unavailable(text) };
        };
        by_code((location, key), service.code().unwrap_or_default(), service.message().unwrap_or_default())
    }

    /// Whether a secret exists that never had a value, as tools leave it that make secrets for others to fill.
    async fn is_empty(&self, key: &str) -> Result<bool, StoreError> {
        let described = self.client.describe_secret().secret_id(key).send().await.map_err(|error| self.explain(key, &error))?;
        Ok(described.deleted_date.is_none() && described.version_ids_to_stages.is_none_or(|versions| versions.is_empty()))
    }

    /// Gives such a secret its first value. If somebody else was faster, AWSCURRENT is at theirs, and AWS refuses to move it without their version.
    async fn fill(&self, key: &str, token: &str, (text, blob): (Option<String>, Option<Blob>)) -> Result<Option<String>, StoreError> {
        let request = self.client.put_secret_value().secret_id(key).client_request_token(token).version_stages(PENDING);
        let put = request.set_secret_string(text).set_secret_binary(blob).send().await.map_err(|error| self.explain(key, &error))?;
        let version = put.version_id.unwrap_or_else(|| token.to_owned());
        // The first version of a secret is the current one, whatever stage was asked for.
        let is_current = put.version_stages.is_some_and(|stages| stages.iter().any(|stage| stage == CURRENT));
        let moved = if is_current { Ok(()) } else { self.moved(key, self.stage(key, CURRENT).move_to_version_id(&version)).await };
        let _ = self.stage(key, PENDING).remove_from_version_id(&version).send().await;
        moved.map(|()| Some(named(&version)))
    }

    async fn replace(
        &self,
        key: &str,
        expected: &str,
        token: &str,
        (text, blob): (Option<String>, Option<Blob>),
    ) -> Result<Option<String>, StoreError> {
        let request = self.client.put_secret_value().secret_id(key).client_request_token(token).version_stages(PENDING);
        let put = request.set_secret_string(text).set_secret_binary(blob).send().await.map_err(|error| self.explain(key, &error))?;
        let version = put.version_id.unwrap_or_else(|| token.to_owned());
        let moved = self.make_current(key, &version, id(expected)).await;
        // Nobody is to take it for one that is on its way.
        let _ = self.stage(key, PENDING).remove_from_version_id(&version).send().await;
        moved.map(|()| Some(named(&version)))
    }

    fn stage(&self, key: &str, name: &str) -> UpdateSecretVersionStageFluentBuilder {
        self.client.update_secret_version_stage().secret_id(key).version_stage(name)
    }

    /// AWS refuses it if the stage is not at `expected`.
    async fn make_current(&self, key: &str, version: &str, expected: &str) -> Result<(), StoreError> {
        self.moved(key, self.stage(key, CURRENT).move_to_version_id(version).remove_from_version_id(expected)).await
    }

    async fn moved(&self, key: &str, request: UpdateSecretVersionStageFluentBuilder) -> Result<(), StoreError> {
        request.send().await.map(|_| ()).map_err(|error| match self.explain(key, &error) {
            // The stage is not where it was.
            StoreError::Invalid(why) => StoreError::Conflict(format!("{why}: it was written by somebody else since it was read")),
            error => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_code_means() {
        for (code, said, wanted) in [
            ("ResourceNotFoundException", "can't find it", StoreError::NotFound as fn(String) -> StoreError),
            ("InvalidRequestException", "it was marked for deletion", StoreError::NotFound),
            ("InvalidRequestException", "a secret with this name is already scheduled for deletion", StoreError::NotFound),
            ("InvalidRequestException", "no such stage", StoreError::Invalid),
            ("LimitExceededException", "too many versions", StoreError::Invalid),
            ("ResourceExistsException", "it is there", StoreError::Conflict),
            ("AccessDeniedException", "not authorized", StoreError::Denied),
            ("UnrecognizedClientException", "the security token is invalid", StoreError::Unauthenticated),
            ("ExpiredTokenException", "it has expired", StoreError::Unauthenticated),
            ("DecryptionFailure", "the key may not be used", StoreError::Denied),
            ("ThrottlingException", "rate exceeded", |message| StoreError::Throttled { after: None, message }),
            ("InternalServiceError", "", StoreError::Unavailable),
            ("", "", StoreError::Unavailable),
        ] {
            assert_eq!(
                by_code(("eu-central-1", "app"), code, said),
                wanted(format!("AWS Secrets Manager (eu-central-1), app: {code}: {said}")),
                "{code}"
            );
        }
    }
}
