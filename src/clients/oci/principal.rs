//! Who asks Oracle Cloud: a user with an API key, the machine that this runs on, or a ServiceAccount of an OKE cluster. The latter two get a token for
//! a key that lives here only, and get another one in time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    digest,
    encoding::{AsDer, PublicKeyX509Der},
    rsa::KeySize,
    signature::{KeyPair, RsaKeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use reqwest::{Client, Method, Url};
use serde::Deserialize;
use serde_json::json;
use x509_parser::{pem::Pem, prelude::FromDer};
use zeroize::Zeroizing;

use super::{
    answer,
    sign::{CONTENT_TYPE, Signed, date, hash},
};
use crate::{
    clients::{egress::chain, error::ClientError},
    keys::Key,
};

/// A token is not used any more when it ends so soon.
const EARLY: Duration = Duration::from_mins(5);
/// No token is used for longer, whatever it says.
const LONGEST: Duration = Duration::from_hours(24);
/// Of a token that does not say when it ends.
const SHORT: Duration = Duration::from_mins(10);

/// Who asks.
pub enum Principal {
    /// A user.
    User(Identity),
    /// The machine that this runs on, as its metadata service says.
    Instance {
        /// `http://169.254.169.254/opc/v2/`
        metadata: Url,
        /// `https://auth.REGION.oraclecloud.com/v1/x509`
        federation: Url,
    },
    /// A ServiceAccount of an OKE cluster.
    Workload {
        /// `https://HOST:12250/resourcePrincipalSessionTokens`
        proxy: Url,
        /// For `proxy`, which has a certificate of the cluster's own.
        http: Client,
        /// Asks for a token of the ServiceAccount.
        token: Box<dyn Fn() -> BoxFuture<'static, Result<Zeroizing<String>, ClientError>> + Send + Sync>,
    },
}

/// What requests are signed with.
#[derive(Clone)]
pub struct Identity {
    /// Names the key.
    pub key_id: Arc<str>,
    /// Itself.
    pub key: Arc<RsaKeyPair>,
}

/// An identity that ends.
pub struct Session {
    /// Itself.
    pub identity: Identity,
    /// When another one is asked for.
    pub until: Instant,
}

impl Identity {
    /// A user's: `TENANCY/USER/FINGERPRINT`, and an RSA key in PEM.
    pub fn of_user(key_id: String, pem: &[u8]) -> Result<Self, ClientError> {
        let invalid = |why: String| ClientError::Invalid(format!("the API key: {why}"));
        let pkcs8 = Key::from_pem(pem).and_then(|key| key.pkcs8()).map_err(|error| invalid(error.to_string()))?;
        let key = RsaKeyPair::from_pkcs8(&pkcs8).map_err(|_| invalid("it is no RSA key of 2048 bits or more".into()))?;
        Ok(Self { key_id: key_id.into(), key: Arc::new(key) })
    }
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "Token")]
    token: Zeroizing<String>,
}

impl Principal {
    /// Another identity of those that end. None: a user's does not.
    pub async fn session(&self, http: &Client) -> Result<Option<Session>, ClientError> {
        let work = || RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| ClientError::Unavailable("no session key could be made".into()));
        let make = || async {
            tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(ClientError::Unavailable("no session key could be made".into())))
        };
        Ok(match self {
            Self::User(_) => None,
            Self::Instance { metadata, federation } => Some(of_instance(http, metadata, federation, make().await?).await?),
            Self::Workload { proxy, http, token } => {
                let token = token().await?;
                Some(of_workload(http, proxy, &token, make().await?).await?)
            }
        })
    }
}

fn public(key: &RsaKeyPair) -> Result<String, ClientError> {
    let der: PublicKeyX509Der<'_> =
        key.public_key().as_der().map_err(|_| ClientError::Unavailable("no session key could be made".into()))?;
    Ok(STANDARD.encode(der.as_ref()))
}

fn session(key: RsaKeyPair, token: &str) -> Session {
    let identity = Identity { key_id: format!("ST${token}").into(), key: Arc::new(key) };
    Session { identity, until: Instant::now() + left(token, Timestamp::now()).unwrap_or(SHORT) }
}

/// How long a token (JWT) is used: to a while before its end.
fn left(token: &str, now: Timestamp) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    let left = u64::try_from(claims.exp.checked_sub(now.as_second())?).ok()?;
    Some(Duration::from_secs(left).saturating_sub(EARLY).min(LONGEST))
}

/// By the certificate that the metadata service gives the machine.
async fn of_instance(http: &Client, metadata: &Url, federation: &Url, session_key: RsaKeyPair) -> Result<Session, ClientError> {
    let get = async |path: &str| -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let url = metadata.join(path).map_err(|error| ClientError::Invalid(error.to_string()))?;
        let sent = http.get(url).header("Authorization", "Bearer Oracle").send().await;
        let sent = sent.map_err(|error| ClientError::Unavailable(format!("the metadata service cannot be reached: {}", chain(&error))))?;
        Ok(answer(sent, "the metadata service").await?.body)
    };
    let (certificate, key, between) =
        (get("identity/cert.pem").await?, get("identity/key.pem").await?, get("identity/intermediate.pem").await?);
    let unreadable = |what: &str| ClientError::Invalid(format!("the metadata service gave no {what} in PEM"));
    let der = |pem: &[u8]| Pem::iter_from_buffer(pem).next().and_then(Result::ok).map(|pem| pem.contents);
    let (leaf, between) =
        (der(&certificate).ok_or_else(|| unreadable("certificate"))?, der(&between).ok_or_else(|| unreadable("certificate"))?);
    let tenancy = tenancy(&leaf).ok_or_else(|| ClientError::Invalid("the machine's certificate names no tenancy".into()))?;
    let fingerprint: Vec<String> = digest::digest(&digest::SHA256, &leaf).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let identity = Identity::of_user(format!("{tenancy}/fed-x509-sha256/{}", fingerprint.join(":")), &key)?;
    let body = json!({
        "certificate": STANDARD.encode(&leaf), "fingerprintAlgorithm": "SHA256",
        "intermediateCertificates": [STANDARD.encode(&between)], "publicKey": public(&session_key)?,
    });
    let body = body.to_string().into_bytes();
    let date = date(Timestamp::now());
    let signed = Signed { method: "POST", target: federation.path(), host: None, date: &date, body: Some(&body) };
    let authorization = signed.authorization(&identity.key_id, &identity.key).ok_or_else(|| unreadable("usable key"))?;
    let request = http
        .request(Method::POST, federation.clone())
        .header("Date", &date)
        .header("Content-Type", CONTENT_TYPE)
        .header("X-Content-SHA256", hash(&body))
        .header("Authorization", authorization)
        .body(body);
    let sent = request.send().await;
    let sent = sent.map_err(|error| ClientError::Unavailable(format!("the federation service cannot be reached: {}", chain(&error))))?;
    let given = answer(sent, "the federation service").await?.body;
    let token: Token = serde_json::from_slice(&given).map_err(|_| ClientError::Invalid("the federation service gave no token".into()))?;
    Ok(session(session_key, &token.token))
}

/// `opc-tenant:OCID`, wherever it stands in the subject.
fn tenancy(der: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
    let attributes = certificate.subject().iter_attributes();
    attributes.filter_map(|attribute| attribute.as_str().ok()).find_map(|text| text.strip_prefix("opc-tenant:")).map(ToOwned::to_owned)
}

/// By a token of a ServiceAccount, which the cluster's proxy changes into one of Oracle's.
async fn of_workload(http: &Client, proxy: &Url, token: &str, session_key: RsaKeyPair) -> Result<Session, ClientError> {
    let body = json!({"podKey": public(&session_key)?}).to_string();
    let request = http.post(proxy.clone()).bearer_auth(token).header("Content-Type", CONTENT_TYPE).body(body);
    let sent = request.send().await;
    let sent =
        sent.map_err(|error| ClientError::Unavailable(format!("the workload identity proxy cannot be reached: {}", chain(&error))))?;
    let given = answer(sent, "the workload identity proxy").await.map_err(|error| match error {
        ClientError::Denied(why) | ClientError::Unauthenticated(why) => {
            ClientError::Denied(format!("{why} (the cluster has to be an enhanced one)"))
        }
        error => error,
    })?;
    let read = || -> Option<Zeroizing<String>> {
        let text: Zeroizing<String> = serde_json::from_slice(&given.body).ok()?;
        let json = Zeroizing::new(STANDARD.decode(text.as_bytes()).ok()?);
        Some(serde_json::from_slice::<Token>(&json).ok()?.token)
    };
    let token = read().ok_or_else(|| ClientError::Invalid("the workload identity proxy gave no token".into()))?;
    Ok(session(session_key, token.trim_start_matches("ST$")))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_says_that_it_never_ends_is_used_for_a_day() {
        let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp": {}}}"#, i64::MAX)));
        assert_eq!(left(&token, Timestamp::from_second(0).unwrap()), Some(LONGEST));
    }

    #[test]
    fn a_token_is_given_up_before_it_ends() {
        let token = |claims: &str| format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(left(&token(r#"{"exp": 2000}"#), now), Some(Duration::from_secs(700)));
        assert_eq!(left(&token(r#"{"exp": 1100}"#), now), Some(Duration::ZERO));
        bolero::check!().with_iterations(10_000).for_each(|input: &[u8]| {
            let _ = left(&String::from_utf8_lossy(input), now);
            let _ = tenancy(input);
        });
        for other in ["", "a.b", &token("{}"), &token(r#"{"exp": 1}"#)] {
            assert_eq!(left(other, now), None, "{other}");
        }
    }
}
