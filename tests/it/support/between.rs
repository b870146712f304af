//! What stands between the operator and a server: it knows what was asked, and fails when a test says so.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use reqwest::Client;
use serde_json::json;
use tokio::sync::Notify;

use super::Fault;

/// Which request: method, path with query, and for AWS the action (of STS, all that is asked), the access key and the session token, one after the other.
type Matching = fn(&str) -> bool;

/// The operator's own tokens: no store is ever given one.
static OWN_TOKENS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on a request that has it in it fails the test that sees it.
pub fn is_never_sent(token: &str) {
    OWN_TOKENS.lock().unwrap_or_else(PoisonError::into_inner).push(token.to_owned());
}

/// Whether a request has one of the operator's own tokens in it.
pub fn has_own_token(headers: &HeaderMap, body: &[u8]) -> bool {
    let sent: Vec<&[u8]> = headers.values().map(http::HeaderValue::as_bytes).chain([body]).collect();
    let is_in = |token: &String| sent.iter().any(|part| part.windows(token.len()).any(|part| part == token.as_bytes()));
    OWN_TOKENS.lock().unwrap_or_else(PoisonError::into_inner).iter().any(is_in)
}

#[derive(Default)]
struct World {
    server: String,
    /// One of the operator's own tokens came by.
    leaked: bool,
    asked: Vec<String>,
    /// After so many of those that match, the next one.
    armed: Option<(Matching, usize, Fault)>,
    /// Nothing gets through.
    cut: bool,
    /// Somebody waits for an answer that does not come.
    waits: Arc<Notify>,
    /// Until this comes.
    goes_on: Arc<Notify>,
}

/// Dropping it cuts the way.
pub struct Between {
    pub address: String,
    world: Arc<Mutex<World>>,
    task: tokio::task::JoinHandle<()>,
}

impl Between {
    pub async fn to(server: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let world = Arc::new(Mutex::new(World { server: server.into(), ..World::default() }));
        // A server with a certificate of its own is believed: what is tested stands on this side.
        let http = Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
        let service = Router::new().fallback(pass).with_state((world.clone(), http));
        let task = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { address, world, task }
    }

    /// Lets the `n`-th request that matches fail, from now on (from 0).
    pub fn arm(&self, matching: Matching, n: usize, fault: Fault) {
        self.world.lock().unwrap().armed = Some((matching, n, fault));
    }

    /// From now on nothing gets through, or all does again.
    pub fn cut(&self, cut: bool) {
        self.world.lock().unwrap().cut = cut;
    }

    /// Whether it has failed.
    pub fn struck(&self) -> bool {
        self.world.lock().unwrap().armed.is_none()
    }

    /// Returns when somebody waits for an answer that does not come ([`Fault::NoAnswer`], [`Fault::Held`]).
    pub async fn waits(&self) {
        let waits = self.world.lock().unwrap().waits.clone();
        waits.notified().await;
    }

    /// Lets through what was held.
    pub fn go_on(&self) {
        self.world.lock().unwrap().goes_on.notify_one();
    }

    /// Whether something was asked that contains this, since [`Between::take_asked`] was called last.
    pub fn asked(&self, what: &str) -> bool {
        self.world.lock().unwrap().asked.iter().any(|asked| asked.contains(what))
    }

    /// What was asked since this was called last.
    pub fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.world.lock().unwrap().asked)
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
        let leaked = self.world.lock().unwrap_or_else(PoisonError::into_inner).leaked;
        assert!(!leaked || std::thread::panicking(), "the operator's own token was sent to a store");
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// As a [`Matching`] sees it.
fn described((method, uri): (&Method, &Uri), headers: &HeaderMap, body: &[u8]) -> String {
    let header = |name: &str| header(headers, name);
    let form = header("content-type").starts_with("application/x-www-form-urlencoded").then(|| String::from_utf8_lossy(body));
    let action = form.as_deref().unwrap_or(header("x-amz-target"));
    let whose = header("authorization").split_once("Credential=").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let asked = format!("{method} {uri} {action} {whose}");
    if headers.contains_key("x-amz-security-token") { format!("{asked} {}", header("x-amz-security-token")) } else { asked }
}

async fn pass(
    State((world, http)): State<(Arc<Mutex<World>>, Client)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let asked = described((&method, &uri), &headers, &body);
    let (server, fault) = {
        let mut world = world.lock().unwrap();
        world.leaked |= has_own_token(&headers, &body);
        let fault = match &mut world.armed {
            Some((matching, n, fault)) if matching(&asked) => {
                let now = (*n == 0).then_some(*fault);
                *n = n.saturating_sub(1);
                now
            }
            _ => None,
        };
        if fault.is_some() {
            world.armed = None;
        }
        world.asked.push(asked);
        (world.server.clone(), if world.cut { Some(Fault::Answer(503)) } else { fault })
    };
    if let Some(Fault::Answer(code)) = fault {
        let kind = match code {
            403 => "AccessDeniedException",
            429 => "ThrottlingException",
            _ => "InternalServiceError",
        };
        let said = json!({"errors": ["made to fail"], "__type": kind, "message": "made to fail"});
        return (StatusCode::from_u16(code).unwrap(), said.to_string()).into_response();
    }
    if fault == Some(Fault::Held) {
        let (waits, goes_on) = {
            let world = world.lock().unwrap();
            (world.waits.clone(), world.goes_on.clone())
        };
        waits.notify_one();
        goes_on.notified().await;
    }
    // A client that signs the Host header has signed our name.
    let mut request = http.request(method, format!("{server}{uri}")).header("x-forwarded-host", header(&headers, "host")).body(body);
    for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
        request = request.header(name, value);
    }
    let Ok(answer) = request.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = answer.bytes().await.unwrap_or_default();
    if fault == Some(Fault::NoAnswer) {
        let waits = world.lock().unwrap().waits.clone();
        waits.notify_one();
        return std::future::pending().await;
    }
    if fault == Some(Fault::AnswerLost) {
        let cut = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("the connection was cut")) });
        return Body::from_stream(cut).into_response();
    }
    let mut response = (status, body).into_response();
    let of_the_connection = ["connection", "content-length", "transfer-encoding"];
    for (name, value) in headers.iter().filter(|(name, _)| !of_the_connection.contains(&name.as_str())) {
        response.headers_mut().insert(name, value.clone());
    }
    response
}
