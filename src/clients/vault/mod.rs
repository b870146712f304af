//! HashiCorp Vault and OpenBao: logs in once, keeps its token alive, gives it back, and tells apart what failed.
//!
//! The API is the one that both document under `/v1`. A token is renewed when a third of its life is left, and asked for anew when that is refused.

pub mod approle;
pub mod kv;

use std::{
    sync::{MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use reqwest::{Client, Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::clients::{
    egress::{Egress, body, chain},
    error::{ClientError, one_line},
};

/// The least time between two logins after a refusal that does not say that it is the token's.
const AGAIN: Duration = Duration::from_secs(30);
/// The same after a login that was refused, while there is a token of before that lives: Vault locks who fails five times until a quarter of an hour goes by
/// without another try.
const AGAIN_WITH_TOKEN: Duration = Duration::from_mins(16);
/// Calls that need a login within this time after one was refused are refused with it: they were waiting for the same one.
const SAME_REFUSAL: Duration = Duration::from_secs(1);
/// No answer is longer: Vault's own limit of a request is 32 MiB, of a value 1 MiB.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// How long it takes until another login is tried after one that has failed, while there is a token of before that lives.
const fn patience(error: &ClientError) -> Duration {
    if matches!(error, ClientError::Unauthenticated(_)) { AGAIN_WITH_TOKEN } else { AGAIN }
}

/// Where Vault is.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `https://HOST:PORT`
    pub server: String,
    /// Vault Enterprise's and OpenBao's namespace.
    pub namespace: Option<String>,
    /// The certificates that sign the server's, in PEM. None: those of the system.
    pub ca: Option<Vec<u8>>,
}

/// What to log in with. `Debug` shows none of it.
pub enum Login {
    /// A token that somebody else made: renewed if it can be, and never revoked.
    Token {
        /// Itself.
        token: Zeroizing<String>,
        /// As a person knows it: where it is.
        with: String,
    },
    /// A login at `auth/PATH/login`; what is sent is made anew each time, because tokens of ServiceAccounts expire.
    At {
        /// Where the method is mounted.
        path: String,
        /// What is sent, as a person knows it: where it is, or whose it is.
        with: String,
        /// Makes the body.
        body: Box<dyn Fn() -> BoxFuture<'static, Result<Value, ClientError>> + Send + Sync>,
    },
}

struct Token {
    value: Zeroizing<String>,
    /// None: it does not end.
    lease: Option<Lease>,
    ours: bool,
}

#[derive(Clone, Copy)]
struct Lease {
    since: Instant,
    length: Duration,
    renewable: bool,
}

impl Token {
    fn can_be_renewed(&self) -> bool {
        self.lease.is_some_and(|lease| lease.renewable && !lease.left().is_zero())
    }

    fn ends_soon(&self) -> bool {
        self.lease.is_some_and(|lease| lease.left() <= lease.length / 3)
    }
}

impl Lease {
    fn of(auth: &Auth) -> Self {
        Self { since: Instant::now(), length: Duration::from_secs(auth.lease_duration), renewable: auth.renewable }
    }

    fn left(&self) -> Duration {
        self.length.saturating_sub(self.since.elapsed())
    }
}

/// A Vault that we are logged in at, as soon as that is needed.
pub struct Vault {
    http: Client,
    server: Url,
    namespace: Option<String>,
    login: Login,
    token: Mutex<Option<Token>>,
    /// When a login was refused last, and how. Held only with `token` locked.
    refused: std::sync::Mutex<Option<(Instant, ClientError)>>,
    /// When another token was asked for because one was refused.
    again: std::sync::Mutex<Option<Instant>>,
}

#[derive(Deserialize)]
struct Auth {
    client_token: Zeroizing<String>,
    lease_duration: u64,
    renewable: bool,
}

/// What is asked.
#[derive(Clone, Copy)]
struct Call<'a> {
    method: &'a Method,
    path: &'a [&'a str],
    query: &'a [(&'a str, &'a str)],
    sent: Option<&'a [u8]>,
}

impl<'a> Call<'a> {
    fn get(path: &'a [&'a str]) -> Self {
        Self { method: &Method::GET, path, query: &[], sent: None }
    }

    fn post(path: &'a [&'a str], sent: Option<&'a [u8]>) -> Self {
        Self { method: &Method::POST, path, query: &[], sent }
    }
}

/// An answer's parts that are used.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    auth: Option<Auth>,
}

impl Vault {
    /// Makes ready; nothing is sent yet.
    pub fn new(connection: Connection, login: Login, egress: &Egress) -> Result<Self, ClientError> {
        let invalid = |why: &dyn std::fmt::Display| ClientError::Invalid(format!("vault.server {:?}: {why}", connection.server));
        let mut server: Url = connection.server.parse().map_err(|error| invalid(&error))?;
        if !matches!(server.scheme(), "https" | "http") || !server.username().is_empty() || server.password().is_some() {
            return Err(invalid(&"write https://HOST:PORT"));
        }
        server.set_query(None);
        server.set_fragment(None);
        let roots = connection
            .ca
            .as_deref()
            .map(reqwest::Certificate::from_pem_bundle)
            .transpose()
            .map_err(|_| invalid(&"its CA cannot be read as PEM"))?;
        let http = egress
            .client(&server, |builder| match roots {
                Some(roots) => builder.tls_certs_only(roots),
                None => builder,
            })
            .map_err(|why| invalid(&why))?;
        Ok(Self {
            http,
            server,
            namespace: connection.namespace,
            login,
            token: Mutex::default(),
            refused: std::sync::Mutex::default(),
            again: std::sync::Mutex::default(),
        })
    }

    /// Sends a request with our token, and returns the answer's `data`; empty: there was none.
    pub async fn request(
        &self,
        method: &Method,
        path: &[&str],
        query: &[(&str, &str)],
        sent: Option<&[u8]>,
    ) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let token = self.token(None).await?;
        let call = Call { method, path, query, sent };
        match self.send(call, Some(&token)).await {
            // It may have been revoked by somebody, or Vault was restarted.
            Err(error) if matches!(self.login, Login::At { .. }) && self.is_dead(&token, &error).await => {
                let token = self.token(Some(&token)).await?;
                self.send(call, Some(&token)).await
            }
            Err(error @ ClientError::Unauthenticated(_)) => Err(match &self.login {
                Login::Token { with, .. } => error.of_login(with),
                Login::At { .. } => error,
            }),
            answer => answer,
        }
        .and_then(|answer| {
            let parsed: Answer<'_> = parse(&answer, path)?;
            Ok(Zeroizing::new(parsed.data.map(|data| data.get().as_bytes().to_vec()).unwrap_or_default()))
        })
    }

    /// Renews the token if it ends soon; returns whether Vault was asked. One that cannot be renewed is left to its end: who needs another one then
    /// logs in.
    pub async fn renew(&self) -> Result<bool, ClientError> {
        match self.token.lock().await.as_mut().filter(|token| token.ends_soon() && token.can_be_renewed()) {
            Some(token) => self.renewed(token).await.map(|_| true),
            None => Ok(false),
        }
    }

    /// Whether Vault lets us in.
    pub async fn check(&self) -> Result<(), ClientError> {
        let token = self.token(None).await?;
        let answer = self.send(Call::get(&["auth", "token", "lookup-self"]), Some(&token)).await.map(|_| ());
        answer.map_err(|error| match (&self.login, error) {
            (Login::Token { with, .. }, error @ ClientError::Unauthenticated(_)) => error.of_login(with),
            (_, error) => error,
        })
    }

    /// Gives the token back, if it is ours.
    pub async fn close(&self) {
        let token = self.token.lock().await.take();
        if let Some(token) = token.filter(|token| token.ours)
            && let Err(error) = self.send(Call::post(&["auth", "token", "revoke-self"], None), Some(&token.value)).await
        {
            tracing::debug!(%error, "a token could not be given back; it ends by itself");
        }
    }

    /// Whether it is the token that was refused. One that may not even look at itself cannot be told from one that was
    /// revoked otherwise, and who is refused all the time does not log in all the time.
    async fn is_dead(&self, token: &str, error: &ClientError) -> bool {
        match error {
            ClientError::Unauthenticated(_) => return true,
            ClientError::Denied(_) => {}
            _ => return false,
        }
        let seldom = || {
            let mut last = self.again.lock().unwrap_or_else(PoisonError::into_inner);
            let may = last.is_none_or(|last| last.elapsed() > AGAIN);
            if may {
                *last = Some(Instant::now());
            }
            may
        };
        !self.is_alive(token).await && seldom()
    }

    async fn is_alive(&self, token: &str) -> bool {
        self.send(Call::get(&["auth", "token", "lookup-self"]), Some(token)).await.is_ok()
    }

    /// The token, renewed or asked for if it has to be.
    async fn token(&self, refused: Option<&Zeroizing<String>>) -> Result<Zeroizing<String>, ClientError> {
        let mut held = self.token.lock().await;
        // Others may have been refused with the same one, and have asked for another already.
        held.take_if(|token| refused == Some(&token.value));
        if let Some(token) = held.as_mut()
            && (!token.ends_soon() || self.renewed(token).await.unwrap_or(false))
        {
            return Ok(token.value.clone());
        }
        // What is left of the life of the old one is better than nothing, while there is no other.
        let left = held.as_ref().filter(|old| old.lease.is_some_and(|lease| !lease.left().is_zero())).map(|old| old.value.clone());
        if let Some((at, error)) = &*self.refused() {
            match &left {
                Some(old) if at.elapsed() < patience(error) => return Ok(old.clone()),
                // Those who waited for the same login hear the same.
                None if at.elapsed() < SAME_REFUSAL => return Err(error.clone()),
                _ => {}
            }
        }
        let token = match self.log_in().await {
            Ok(token) => token,
            Err(error) => {
                *self.refused() = Some((Instant::now(), error.clone()));
                return left.ok_or(error);
            }
        };
        *self.refused() = None;
        let value = token.value.clone();
        let old = held.replace(token);
        if let Some(old) = old.filter(|old| old.ours) {
            let _ = self.send(Call::post(&["auth", "token", "revoke-self"], None), Some(&old.value)).await; // it ends soon anyway
        }
        Ok(value)
    }

    fn refused(&self) -> MutexGuard<'_, Option<(Instant, ClientError)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews a token. Returns whether that is enough to go on with it: at the end of its life Vault gives less and less.
    async fn renewed(&self, token: &mut Token) -> Result<bool, ClientError> {
        let Some(lease) = token.lease.filter(|_| token.can_be_renewed()) else { return Ok(false) };
        let renewed = self.send(Call::post(&["auth", "token", "renew-self"], None), Some(&token.value)).await;
        let auth = match renewed.and_then(|answer| Ok(parse::<Answer<'_>>(&answer, &["renew-self"])?.auth)) {
            Err(error @ (ClientError::Unavailable(_) | ClientError::Throttled(..))) => return Err(error),
            answer => answer.ok().flatten().filter(|auth| Duration::from_secs(auth.lease_duration) > lease.length / 2),
        };
        if auth.is_none() && !token.ours {
            token.lease = None; // there is no other: it is used to its end
            return Ok(true);
        }
        let goes_on = auth.is_some();
        // One that was refused is not asked for again.
        token.lease = Some(auth.as_ref().map_or(Lease { renewable: false, ..lease }, Lease::of));
        Ok(goes_on)
    }

    /// How long a token of somebody else lives, if it can be renewed, and may look at itself.
    async fn lease_of(&self, token: &str) -> Result<Option<Lease>, ClientError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Found {
            data: Life,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Life {
            ttl: u64,
            creation_ttl: u64,
            renewable: bool,
        }
        let path = &["auth", "token", "lookup-self"];
        let answer = match self.send(Call::get(path), Some(token)).await {
            Err(error @ (ClientError::Unavailable(_) | ClientError::Throttled(..))) => return Err(error),
            Err(_) => return Ok(None), // who uses it hears what is wrong with it
            Ok(answer) => answer,
        };
        let Life { ttl, creation_ttl, renewable } = parse::<Found>(&answer, path)?.data;
        let (left, length) = (Duration::from_secs(ttl), Duration::from_secs(creation_ttl.max(ttl)));
        let lease = |since| Lease { since, length, renewable };
        Ok(Instant::now().checked_sub(length.saturating_sub(left)).filter(|_| renewable && ttl > 0).map(lease))
    }

    async fn log_in(&self) -> Result<Token, ClientError> {
        let (path, with, body) = match &self.login {
            Login::Token { token, .. } => {
                let lease = self.lease_of(token).await?;
                return Ok(Token { value: token.clone(), lease, ours: false });
            }
            Login::At { path, with, body } => {
                (path, with, body().await.map_err(|error| error.of_login("the token of the ServiceAccount"))?)
            }
        };
        let what = format!("the login at auth/{path} with {with}");
        let segments: Vec<&str> = std::iter::once("auth").chain(path.split('/')).chain(["login"]).collect();
        let sent = Zeroizing::new(serde_json::to_vec(&body).unwrap_or_default());
        let answer = self.send(Call::post(&segments, Some(&sent)), None).await.map_err(|error| match error {
            // A role or a secret id that Vault does not know is a bad request to it.
            ClientError::Invalid(why) => ClientError::Denied(why).of_login(&what),
            error => error.of_login(&what),
        })?;
        let auth = parse::<Answer<'_>>(&answer, &["login"])?.auth;
        let auth = auth.ok_or_else(|| ClientError::Invalid(format!("the answer to the login at auth/{path} holds no token")))?;
        let lease = (auth.lease_duration > 0).then(|| Lease::of(&auth));
        Ok(Token { value: auth.client_token, lease, ours: true })
    }

    async fn send(&self, call: Call<'_>, token: Option<&str>) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let Call { method, path, query, sent } = call;
        let shown = path.join("/");
        let mut url = self.server.clone();
        // Control characters are dropped from addresses, so that what is left is another path.
        if path.iter().any(|segment| matches!(*segment, "" | "." | "..") || segment.contains(char::is_control)) {
            return Err(ClientError::Invalid(format!("{shown:?} is no path: it has an empty part, . or .., or a control character")));
        }
        url.path_segments_mut()
            .map_err(|()| ClientError::Invalid("vault.server is no address of a server".into()))?
            .pop_if_empty()
            .push("v1")
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        // What is asked of Vault and not of something between us and it.
        let mut request = self.http.request(method.clone(), url).header("X-Vault-Request", "true");
        if let Some(token) = token {
            request = request.header("X-Vault-Token", token);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(sent) = sent {
            request = request.header("Content-Type", "application/json").body(sent.to_vec());
        }
        let named = format!("Vault {}", self.server.authority());
        let response =
            request.send().await.map_err(|error| ClientError::Unavailable(format!("{named} cannot be reached: {}", chain(&error))))?;
        let (status, after) = (response.status(), retry_after(&response));
        let answer = body(response, &format!("{named}, {shown}"), MAX_BODY_BYTES).await?;
        if status.is_success() {
            return Ok(answer);
        }
        let said = said(&answer);
        let text = format!(
            "{named} answered {} to {method} {shown}{}",
            status.as_u16(),
            if said.is_empty() { String::new() } else { format!(": {said}") }
        );
        Err(match status {
            StatusCode::NOT_FOUND => not_found(&answer, text),
            // What it says, not the path that was asked for: that is a tenant's text.
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED if says_that_it_is_dead(&said) => ClientError::Unauthenticated(text),
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => ClientError::Denied(format!("{text}{}", remedy(path))),
            StatusCode::BAD_REQUEST if said.contains("check-and-set") => ClientError::Conflict(text),
            StatusCode::TOO_MANY_REQUESTS => ClientError::Throttled(text, after),
            StatusCode::TEMPORARY_REDIRECT => {
                ClientError::Unavailable(format!("{text}: it is a standby; name the address of the active one"))
            }
            status if status.is_server_error() => ClientError::Unavailable(text),
            // What a server that wants TLS says to who does not speak it.
            StatusCode::BAD_REQUEST if self.server.scheme() == "http" && said.is_empty() => {
                ClientError::Invalid(format!("{text}, which is not Vault's answer: is its address https://?"))
            }
            _ => ClientError::Invalid(text),
        })
    }
}

/// What to do about a path that is denied. A mount that is not there is denied as well.
fn remedy(path: &[&str]) -> &'static str {
    match path {
        ["auth" | "sys", ..] => "",
        path if path.windows(2).any(|two| two == ["data", "data"]) => {
            "; if vault.path ends with /data, leave that out; `seaworthy vault-policy` prints the policy that is needed"
        }
        _ => "; is vault.path the mount of the engine? `seaworthy vault-policy` prints the policy that is needed",
    }
}

/// Only Vault itself knows that there is nothing: then it says no more, or what became of it.
fn not_found(answer: &[u8], text: String) -> ClientError {
    match serde_json::from_slice::<Nothing>(answer) {
        Ok(nothing) if nothing.errors.as_ref().is_some_and(Vec::is_empty) || nothing.data.is_some() => {
            ClientError::NotFound(format!("{text}: nothing is there, or not any more"))
        }
        // Another version of the key/value engine says so in a warning.
        Ok(nothing) if nothing.errors.is_some() || nothing.warnings.is_some() => ClientError::Invalid(text),
        _ => ClientError::Unavailable(format!("{text}: that is not Vault's answer")),
    }
}

/// Newer versions of Vault say so.
fn says_that_it_is_dead(why: &str) -> bool {
    why.contains("invalid token") || why.contains("bad token")
}

/// What stands in a 404.
#[derive(Deserialize)]
struct Nothing {
    #[serde(default)]
    errors: Option<Vec<String>>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
    #[serde(default)]
    data: Option<serde::de::IgnoredAny>,
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    response.headers().get("retry-after")?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn parse<'a, T: Deserialize<'a>>(answer: &'a [u8], path: &[&str]) -> Result<T, ClientError> {
    let answer = if answer.is_empty() { b"{}" } else { answer };
    serde_json::from_slice(answer).map_err(|_| ClientError::Invalid(format!("the answer to {} is not Vault's", path.join("/"))))
}

/// What stands under `errors` and `warnings`; at most a few hundred characters.
fn said(answer: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(answer).unwrap_or_else(|_| json!({}));
    let texts = ["errors", "warnings"].iter().filter_map(|part| parsed[part].as_array()).flatten().filter_map(Value::as_str);
    one_line(&texts.map(str::trim).collect::<Vec<_>>().join("; "), 400)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_vault_says_is_cut_and_no_answer_makes_it_panic() {
        assert_eq!(
            said(br#"{"errors": ["1 error occurred:\n\t* permission denied\n\n", "x"]}"#),
            "1 error occurred: * permission denied; x"
        );
        assert_eq!(
            said(br#"{"data": null, "warnings": ["Invalid path for a versioned K/V secrets engine."]}"#),
            "Invalid path for a versioned K/V secrets engine."
        );
        assert_eq!(said(format!(r#"{{"errors": ["{}"]}}"#, "\u{e4}".repeat(1000)).as_bytes()).chars().count(), 400);
        let answer: Answer<'_> = parse(br#"{"auth": {"client_token": "t", "lease_duration": 60, "renewable": true}}"#, &[]).unwrap();
        assert!(answer.auth.is_some_and(|auth| *auth.client_token == "t") && answer.data.is_none());
        bolero::check!().with_iterations(20_000).for_each(|input: &[u8]| {
            let _ = said(input);
            let _ = parse::<Answer<'_>>(input, &["x"]).map(|answer| answer.data.map(|data| data.get().len()));
            let _ = serde_json::from_slice::<Nothing>(input);
        });
    }
}
