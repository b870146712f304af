//! Tokens of ServiceAccounts, for others than the API server. The operator's own is never given away.

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, Client, KubeSchema, api::PostParams};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    error::{is_refusal, message},
    references::is_name,
};

/// How long a token is valid, in seconds: the least that Kubernetes gives.
const SECONDS: i64 = 600;

/// Why there is no token; for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The API server refuses, or there is no such ServiceAccount.
    #[error("{0}")]
    Refused(String),
    /// The API server cannot be asked now.
    #[error("{0}")]
    Unavailable(String),
}

/// A ServiceAccount of the same namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct ServiceAccountRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// For whom the token is. Default: `vault`, for OCI `api`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), inner(length(min = 1, max = 253)))]
    pub audiences: Vec<String>,
}

impl ServiceAccountRef {
    /// Asks for a token.
    pub async fn token(&self, client: &Client, namespace: &str, audience: &str) -> Result<Zeroizing<String>, TokenError> {
        if !is_name(&self.name) {
            return Err(TokenError::Refused(format!("{:?} is no name of a ServiceAccount", self.name)));
        }
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let audiences = if self.audiences.is_empty() { vec![audience.to_owned()] } else { self.audiences.clone() };
        let spec = TokenRequestSpec { audiences: Some(audiences), expiration_seconds: Some(SECONDS), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let answer = api.create_token_request(&self.name, &PostParams::default(), &request).await.map_err(|error| {
            let why = format!("no token of ServiceAccount {} can be had: {}", self.name, message(&error));
            if is_refusal(&error) {
                TokenError::Refused(format!("{why}; allow the operator to create serviceaccounts/token for it"))
            } else {
                TokenError::Unavailable(why)
            }
        })?;
        Ok(Zeroizing::new(answer.status.and_then(|status| status.token).unwrap_or_default()))
    }
}
