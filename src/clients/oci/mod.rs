//! Oracle Cloud: signed requests, as whoever we are there, and what their errors mean.

pub mod principal;
pub mod secrets;
pub mod sign;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use self::{
    principal::{Identity, Principal, Session},
    sign::{CONTENT_TYPE, Signed, date, hash},
};
use crate::clients::{
    egress::{body, chain},
    error::{ClientError, one_line},
};

/// No answer is longer: a secret has 25 KiB, a page of a list a hundred entries.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Requests, signed.
pub struct Oci {
    http: Client,
    principal: Principal,
    session: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    session: Option<Session>,
    /// When another one was refused last, and how.
    refused: Option<(Instant, ClientError)>,
}

/// Who needs a session within this time after one was refused is refused with it: they were waiting for the same one.
const SAME_REFUSAL: Duration = Duration::from_secs(1);

/// What is asked.
#[derive(Default)]
pub struct Request<'a> {
    /// JSON, empty or not; None: GET without.
    pub body: Option<Vec<u8>>,
    /// Headers that are not signed: `if-match`, `opc-retry-token`.
    pub headers: &'a [(&'static str, &'a str)],
}

/// An answer.
pub struct Answer {
    /// JSON.
    pub body: Zeroizing<Vec<u8>>,
    /// Of what it tells of.
    pub etag: Option<String>,
    /// Where a list goes on.
    pub next: Option<String>,
}

impl Oci {
    /// Makes ready; nothing is sent yet.
    pub fn new(http: Client, principal: Principal) -> Self {
        Self { http, principal, session: Mutex::default() }
    }

    async fn identity(&self) -> Result<Identity, ClientError> {
        if let Principal::User(identity) = &self.principal {
            return Ok(identity.clone());
        }
        let mut held = self.session.lock().await;
        if let Some(session) = held.session.as_ref().filter(|session| session.until > Instant::now()) {
            return Ok(session.identity.clone());
        }
        if let Some((_, error)) = held.refused.as_ref().filter(|(at, _)| at.elapsed() < SAME_REFUSAL) {
            return Err(error.clone());
        }
        let session = self.principal.session(&self.http).await.map_err(|error| error.of_login("the operator's own identity"));
        match session.and_then(|session| session.ok_or_else(|| ClientError::Invalid("there is nobody to ask as".into()))) {
            Ok(session) => Ok(held.session.insert(session).identity.clone()),
            Err(error) => {
                held.refused = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Sends a request.
    pub async fn request(&self, method: Method, url: Url, asked: Request<'_>) -> Result<Answer, ClientError> {
        let identity = self.identity().await?;
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let date = date(Timestamp::now());
        let signed = Signed { method: method.as_str(), target: &target, host: Some(&host), date: &date, body: asked.body.as_deref() };
        let authorization = signed.authorization(&identity.key_id, &identity.key);
        let authorization = authorization.ok_or_else(|| ClientError::Invalid("the key cannot sign".into()))?;
        let mut request = self.http.request(method, url).header("Date", &date).header("Authorization", authorization);
        for (name, value) in asked.headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = asked.body {
            request = request.header("Content-Type", CONTENT_TYPE).header("X-Content-SHA256", hash(&body));
            request = request.header("Content-Length", body.len()).body(body);
        }
        let sent =
            request.send().await.map_err(|error| ClientError::Unavailable(format!("{host} cannot be reached: {}", chain(&error))))?;
        let answered = answer(sent, &host).await;
        // A token may have been revoked, or the clock been set.
        if matches!(&answered, Err(ClientError::Unauthenticated(_))) {
            self.session.lock().await.session.take();
        }
        answered
    }
}

#[derive(Default, Deserialize)]
struct Said {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Reads an answer of `named`.
async fn answer(response: Response, named: &str) -> Result<Answer, ClientError> {
    let status = response.status();
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    let (etag, next) = (header("etag"), header("opc-next-page").filter(|next| !next.is_empty()));
    let after = header("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    let body = body(response, named, MAX_BODY_BYTES).await?;
    if status.is_success() {
        return Ok(Answer { body, etag, next });
    }
    let said: Said = serde_json::from_slice(&body).unwrap_or_default();
    let (message, code) = (one_line(&said.message, 400), one_line(&said.code, 100));
    let text = format!("{named} answered {} {code}: {message}", status.as_u16());
    Err(match status {
        StatusCode::NOT_FOUND if said.code.is_empty() => ClientError::Unavailable(format!("{text}that is not Oracle's answer")),
        StatusCode::NOT_FOUND => ClientError::NotFoundOrDenied(text),
        StatusCode::UNAUTHORIZED => ClientError::Unauthenticated(text),
        StatusCode::FORBIDDEN => ClientError::Denied(text),
        StatusCode::CONFLICT if said.code == "IncorrectState" => ClientError::WrongState(text),
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => ClientError::Conflict(text),
        StatusCode::TOO_MANY_REQUESTS => ClientError::Throttled(text, after),
        status if status.is_server_error() => ClientError::Unavailable(text),
        _ => ClientError::Invalid(text),
    })
}
