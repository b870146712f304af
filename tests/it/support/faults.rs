//! A connection to the API server that fails when a test says so.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Bytes;
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tokio::sync::Notify;
use tower::{BoxError, Layer, Service};

/// What happens to one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The API server answers this instead of doing it.
    Answer(u16),
    /// It is done, and the answer is lost.
    AnswerLost,
    /// It is done, and no answer ever comes: time to kill who waits for it.
    NoAnswer,
    /// It is done when a test says so ([`super::Between::go_on`]): time for somebody else to be faster.
    Held,
}

/// Lets the `n`-th write from now on (from 0) fail, or all reads of single Secrets.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    armed: Arc<Mutex<Option<(usize, Fault)>>>,
    writes: Arc<AtomicUsize>,
    unreadable: Arc<Mutex<Option<String>>>,
    held: Arc<Held>,
    unwritable: Arc<Mutex<Option<String>>>,
    paths: Arc<Mutex<Vec<String>>>,
    written: Arc<Mutex<Vec<String>>>,
    whole_secrets: Arc<Mutex<Vec<String>>>,
}

/// The next read whose path ends so.
#[derive(Debug, Default)]
struct Held {
    path: Mutex<Option<String>>,
    waits: Notify,
    goes_on: Notify,
}

impl Faults {
    /// The next read whose path ends with this is sent when a test says so ([`Self::go_on`]).
    pub fn hold(&self, path: &str) {
        *self.held.path.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.into());
    }

    /// Returns when it waits.
    pub async fn held(&self) {
        tokio::time::timeout(super::PATIENCE, self.held.waits.notified()).await.expect("it is not read");
    }

    pub fn go_on(&self) {
        self.held.goes_on.notify_one();
    }

    pub fn arm(&self, n: usize, fault: Fault) {
        self.writes.store(0, Ordering::SeqCst);
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some((n, fault));
    }

    /// Whether the fault has happened.
    pub fn struck(&self) -> bool {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// From now on no Secret that is there can be read whose path has this in it.
    pub fn hide(&self, path: &str) {
        *self.unreadable.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.into());
    }

    /// All can again.
    pub fn show(&self) {
        *self.unreadable.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// From now on nothing can be written whose path ends with this.
    pub fn refuse_writes(&self, path: &str) {
        *self.unwritable.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.into());
    }

    /// What was asked for so far: paths of the API server.
    pub fn asked(&self) -> Vec<String> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was written to so far: paths of the API server.
    pub fn written(&self) -> Vec<String> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where Secrets were read so far with what they hold, one or all of a list.
    pub fn secrets_read(&self) -> Vec<String> {
        self.whole_secrets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, request: &Request<Body>) {
        let of_metadata =
            request.headers().get(http::header::ACCEPT).is_some_and(|accept| accept.to_str().unwrap().contains("PartialObject"));
        let path = request.uri().path();
        if request.method() == Method::GET && !of_metadata && path.split('/').any(|part| part == "secrets") {
            self.whole_secrets.lock().unwrap_or_else(PoisonError::into_inner).push(path.into());
        }
    }

    fn holds(&self, method: &Method, path: &str) -> bool {
        let mut held = self.held.path.lock().unwrap_or_else(PoisonError::into_inner);
        method == Method::GET && held.take_if(|held| path.ends_with(&**held)).is_some()
    }

    fn hides(&self, method: &Method, path: &str) -> bool {
        let hidden = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        method == Method::GET && hidden.as_ref().is_some_and(|hidden| path.contains(hidden))
    }

    fn next(&self, method: &Method, path: &str) -> Option<Fault> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).push(path.into());
        if method == Method::GET {
            return None;
        }
        // Events are told beside the work, whenever there is time.
        if path.contains("/events") {
            return None;
        }
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(path.into());
        let unwritable = self.unwritable.lock().unwrap_or_else(PoisonError::into_inner);
        if unwritable.as_ref().is_some_and(|unwritable| path.ends_with(unwritable)) {
            return Some(Fault::Answer(500));
        }
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).take_if(|(n, _)| *n == number).map(|(_, fault)| fault)
    }

    /// A client whose writes go through this.
    pub fn client(&self, config: Config) -> Client {
        ClientBuilder::try_from(config).unwrap().with_layer(&FaultLayer(self.clone())).build()
    }
}

/// The body of an answer, passed on or made up.
pub type Answer = UnsyncBoxBody<Bytes, BoxError>;

struct FaultLayer(Faults);

impl<S> Layer<S> for FaultLayer {
    type Service = FaultService<S>;
    fn layer(&self, inner: S) -> FaultService<S> {
        FaultService { inner, faults: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct FaultService<S> {
    inner: S,
    faults: Faults,
}

impl<S, B> Service<Request<Body>> for FaultService<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.faults.note(&request);
        let fault = self.faults.next(request.method(), request.uri().path());
        if let Some(Fault::Answer(code)) = fault {
            return Box::pin(async move { Ok(answer(code)) });
        }
        let hides = self.faults.hides(request.method(), request.uri().path());
        let held = self.faults.holds(request.method(), request.uri().path()).then(|| self.faults.held.clone());
        let sent = self.inner.call(request); // as soon as somebody waits for the answer
        Box::pin(async move {
            if let Some(held) = held {
                held.waits.notify_one();
                held.goes_on.notified().await;
            }
            let response = sent.await?;
            if hides && response.status().is_success() {
                return Ok(answer(500));
            }
            if fault == Some(Fault::AnswerLost) {
                return Err("the connection was cut".into());
            }
            Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
        })
    }
}

fn answer(code: u16) -> Response<Answer> {
    let status = serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "made to fail", "reason": match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        _ => "InternalError",
    }, "code": code});
    let mut response =
        Response::new(Full::new(Bytes::from(serde_json::to_vec(&status).unwrap())).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}
