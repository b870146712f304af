//! The run loop that every kind shares: caches filled on every replica, reconciles by the leader only, panics caught, outcomes counted.
//!
//! ```text
//!   watch of our kind ──► store ──┐ (every replica)
//!        └ generation or annotations changed ─► wake ─┐
//!   inventory: something it depends on changed ─► wake ┼─► kube's Controller ─► reconcile ─► next wake-up
//!   lease acquired: the whole store ────────────► wake ┘
//! ```

use std::{
    collections::HashSet,
    fmt::Debug,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use kube::{
    Api, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        Controller, WatchStreamExt, controller, predicates,
        reflector::{self, ObjectRef, Store},
        utils::Predicate,
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::lease::Leadership;
use crate::telemetry::metrics::{Metrics, Outcome};

/// An object as it came: readable as its kind or not.
pub type Guarded<K> = DeserializeGuard<K>;

/// How many objects are listed at a time; bounds the memory of a list.
pub const PAGE_SIZE: u32 = 250;

/// Asks for objects to be looked at. Before this process leads it does nothing: on becoming the leader everything is looked at anyway.
pub struct Waker<K: Resource<DynamicType = ()>> {
    sender: mpsc::UnboundedSender<ObjectRef<Guarded<K>>>,
    leadership: Leadership,
    waiting: Arc<Mutex<HashSet<ObjectRef<Guarded<K>>>>>,
}

impl<K: Resource<DynamicType = ()>> Clone for Waker<K> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), leadership: self.leadership.clone(), waiting: self.waiting.clone() }
    }
}

impl<K: Resource<DynamicType = ()>> Waker<K> {
    /// Looks at `NAMESPACE/NAME` soon.
    pub fn wake(&self, namespace: Option<&str>, name: &str) {
        if self.leadership.is_leading() {
            let mut object = ObjectRef::new(name);
            object.namespace = namespace.map(ToOwned::to_owned);
            if self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(object.clone()) {
                let _ = self.sender.send(object); // the receiver goes with the process only
            }
        }
    }

    /// The object is being looked at from now on; what happens to it later wakes it again.
    fn begun(&self, object: &ObjectRef<Guarded<K>>) -> usize {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(object);
        waiting.len()
    }
}

/// One kind in one scope: its store, its watch, its wake-ups.
pub struct Kind<K: Resource<DynamicType = ()> + 'static>
where
    Guarded<K>: Clone + Debug + Send + Sync + DeserializeOwned,
{
    /// The cache of the objects.
    pub store: Store<Guarded<K>>,
    /// Asks for objects to be looked at.
    pub waker: Waker<K>,
    wakes: mpsc::UnboundedReceiver<ObjectRef<Guarded<K>>>,
    writer: reflector::store::Writer<Guarded<K>>,
    api: Api<Guarded<K>>,
    leadership: Leadership,
}

/// What a reconcile ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// When to look again by itself.
    pub again: Option<Duration>,
    /// For the metrics.
    pub outcome: Outcome,
}

/// Something panicked while an object was looked at; it was counted and logged.
#[derive(Debug, thiserror::Error)]
#[error("a panic while reconciling")]
pub struct Panicked;

/// After a panic, the object rests for this long.
const AFTER_PANIC: Duration = Duration::from_mins(1);

impl<K> Kind<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + DeserializeOwned + 'static,
{
    /// Prepares the kind; nothing runs yet.
    pub fn new(api: Api<Guarded<K>>, leadership: Leadership) -> Self {
        let (store, writer) = reflector::store();
        let (sender, wakes) = mpsc::unbounded_channel();
        Self { store, waker: Waker { sender, leadership: leadership.clone(), waiting: Arc::default() }, wakes, writer, api, leadership }
    }

    /// Runs the watch and, once this process leads and the store is filled, the reconciles, until `stop`; then waits for those under way.
    ///
    /// `noticed` sees every event of the watch, on every replica, before anything is reconciled because of it.
    pub async fn run<C, F, N>(
        self,
        settings: Settings,
        stop: CancellationToken,
        context: Arc<C>,
        noticed: N,
        reconcile: fn(Arc<Guarded<K>>, Arc<C>) -> F,
    ) where
        C: Send + Sync + 'static,
        F: Future<Output = Done> + Send + 'static,
        N: Fn(&watcher::Event<Guarded<K>>) + Send + 'static,
    {
        let Self { store, waker, wakes, writer, api, leadership } = self;
        let watch = follow::<K>(api, writer, waker.clone(), noticed);
        let Settings { concurrency, metrics } = settings;
        let reconciles = {
            let (store, stop) = (store.clone(), stop.clone());
            async move {
                tokio::select! {
                    ready = async { leadership.acquired().await; store.wait_until_ready().await } => if ready.is_err() { return },
                    () = stop.cancelled() => return,
                }
                for object in store.state() {
                    waker.wake(object.namespace().as_deref(), &object.name_any());
                }
                let run = move |object: Arc<Guarded<K>>, context: Arc<C>| {
                    metrics.queued(&K::kind(&()), waker.begun(&ObjectRef::from_obj(&*object)));
                    guarded(object, context, reconcile, metrics.clone())
                };
                Controller::for_stream(stream::pending(), store)
                    .reconcile_on(wakes_of(wakes))
                    .with_config(controller::Config::default().concurrency(concurrency).debounce(Duration::from_millis(20)))
                    .graceful_shutdown_on(stop.cancelled_owned())
                    .run(run, |_, _: &Panicked, _| controller::Action::requeue(AFTER_PANIC), context)
                    .for_each(|result| async move {
                        match result {
                            Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
                            Err(error @ controller::Error::ObjectNotFound(_)) => tracing::debug!(%error, "gone before it was looked at"),
                            Err(error) => tracing::warn!(%error, kind = %K::kind(&()), "run loop"),
                        }
                    })
                    .await;
            }
        };
        tokio::select! {
            () = watch => {}
            () = reconciles => {}
        }
    }
}

/// How a kind runs.
#[derive(Clone)]
pub struct Settings {
    /// How many objects at once.
    pub concurrency: u16,
    /// Where outcomes are counted.
    pub metrics: Metrics,
}

fn wakes_of<T: Send + 'static>(receiver: mpsc::UnboundedReceiver<T>) -> impl Stream<Item = T> + Send {
    stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) })
}

async fn guarded<K, C, F>(
    object: Arc<Guarded<K>>,
    context: Arc<C>,
    reconcile: fn(Arc<Guarded<K>>, Arc<C>) -> F,
    metrics: Metrics,
) -> Result<controller::Action, Panicked>
where
    K: Resource<DynamicType = ()>,
    F: Future<Output = Done> + Send,
{
    let (kind, started) = (K::kind(&()), std::time::Instant::now());
    let (name, namespace) = (object.name_any(), object.namespace());
    let result = AssertUnwindSafe(reconcile(object, context)).catch_unwind().await;
    let outcome = result.as_ref().map_or(Outcome::Panic, |done| done.outcome);
    metrics.reconciled(&kind, outcome, started.elapsed());
    match result {
        Ok(Done { again: Some(again), .. }) => Ok(controller::Action::requeue(again)),
        Ok(_) => Ok(controller::Action::await_change()),
        Err(_) => {
            tracing::error!(%kind, name, namespace, "a panic while reconciling; the object rests for a minute, the others go on");
            Err(Panicked)
        }
    }
}

/// Keeps the store and wakes what changed. Goes on through every error, a missing CustomResourceDefinition included.
async fn follow<K>(
    api: Api<Guarded<K>>,
    writer: reflector::store::Writer<Guarded<K>>,
    waker: Waker<K>,
    noticed: impl Fn(&watcher::Event<Guarded<K>>) + Send + 'static,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + DeserializeOwned + 'static,
{
    let mut said = String::new();
    let changes =
        reflector::reflector(writer, watcher(api, watcher::Config::default().any_semantic().page_size(PAGE_SIZE)).modify(strip::<K>))
            .inspect_ok(noticed)
            .default_backoff()
            .inspect_err(move |error| explain::<K>(error, &mut said))
            .touched_objects()
            .predicate_filter(predicates::generation.combine(predicates::annotations), kube::runtime::PredicateConfig::default());
    futures::pin_mut!(changes);
    while let Some(change) = changes.next().await {
        if let Ok(object) = change {
            waker.wake(object.namespace().as_deref(), &object.name_any());
        }
    }
}

/// What nobody reads is not kept: who managed which field, and the copy that kubectl leaves behind.
fn strip<K: Resource<DynamicType = ()>>(object: &mut Guarded<K>) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.retain(|key, _| key.starts_with("seaworthy.dev/"));
    }
}

/// Says what is wrong with a watch, once for each new reason.
fn explain<K: Resource<DynamicType = ()>>(error: &watcher::Error, said: &mut String) {
    let text = error.to_string();
    if *said == text {
        return;
    }
    let kind = K::kind(&());
    if text.contains("404") || text.contains("NotFound") {
        tracing::error!(%kind, "the CustomResourceDefinition is not installed; waiting for it. Install it with: seaworthy crds | kubectl apply --server-side -f -");
    } else {
        tracing::warn!(%kind, %error, "the watch was interrupted; it is tried again");
    }
    *said = text;
}
