//! The run loop that every kind shares: caches filled on every replica, reconciles by the leader only, panics caught, outcomes counted.
//!
//! ```text
//!   watch of our kind ──► store ──┐ (every replica)
//!        └ generation or annotations changed ─► wake ─┐
//!   inventory: something it depends on changed ─► wake ┼─► kube's Controller ─► reconcile ─► next wake-up
//!   lease acquired: the whole store ────────────► wake ┘
//! ```

use std::{
    collections::{HashMap, HashSet, hash_map::DefaultHasher},
    fmt::Debug,
    future::Future,
    hash::{Hash, Hasher},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use kube::{
    Api, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        Controller, WatchStreamExt, controller,
        reflector::{self, ObjectRef, Store},
        utils::Backoff,
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
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
        if self.leadership.was_acquired() {
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
    /// Whether the first list is complete. A channel of our own, because of several that wait for kube's store only the last is woken.
    filled: watch::Sender<bool>,
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

/// A look that takes longer hangs: on a connection that died without a word. It is dropped, as its steps can be repeated.
const MOST: Duration = Duration::from_mins(3);

impl<K> Kind<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + DeserializeOwned + 'static,
{
    /// Prepares the kind; nothing runs yet.
    pub fn new(api: Api<Guarded<K>>, leadership: Leadership) -> Self {
        let (store, writer) = reflector::store();
        let (sender, wakes) = mpsc::unbounded_channel();
        Self {
            store,
            waker: Waker { sender, leadership: leadership.clone(), waiting: Arc::default() },
            wakes,
            writer,
            api,
            leadership,
            filled: watch::Sender::new(false),
        }
    }

    /// Returns when the store holds the first complete list.
    pub fn filled(&self) -> impl Future<Output = ()> + Send + use<K> {
        has_filled(self.filled.subscribe())
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
        let Self { store, waker, wakes, writer, api, leadership, filled } = self;
        let ready = has_filled(filled.subscribe());
        let watch = follow::<K>(api, writer, filled, waker.clone(), noticed);
        let Settings { concurrency, metrics } = settings;
        let reconciles = {
            let (store, stop) = (store.clone(), stop.clone());
            async move {
                tokio::select! {
                    () = async { leadership.acquired().await; ready.await; } => {}
                    () = stop.cancelled() => return,
                }
                for object in store.state() {
                    waker.wake(object.namespace().as_deref(), &object.name_any());
                }
                let begun = waker.clone();
                let run = move |object: Arc<Guarded<K>>, context: Arc<C>| {
                    metrics.queued(&K::kind(&()), begun.begun(&ObjectRef::from_obj(&*object)));
                    guarded(object, context, reconcile, metrics.clone())
                };
                Controller::for_stream(stream::pending(), store)
                    .reconcile_on(wakes_of(wakes))
                    .with_config(controller::Config::default().concurrency(concurrency).debounce(Duration::from_millis(20)))
                    .graceful_shutdown_on(stop.cancelled_owned())
                    .run(run, |_, _: &Panicked, _| controller::Action::requeue(AFTER_PANIC), context)
                    .for_each(async |result| {
                        match result {
                            Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
                            Err(controller::Error::ObjectNotFound(gone)) => {
                                let mut object = ObjectRef::new(&gone.name);
                                object.namespace = gone.namespace;
                                waker.begun(&object); // so that one of the same name that comes later is woken
                                tracing::debug!(%object, "gone before it was looked at");
                            }
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

async fn has_filled(mut filled: watch::Receiver<bool>) {
    if filled.wait_for(|filled| *filled).await.is_err() {
        std::future::pending::<()>().await; // the watch went with the process
    }
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
    let work = tokio::time::timeout(MOST, reconcile(object, context));
    let result = AssertUnwindSafe(work).catch_unwind().await;
    let result = result.map(|done| {
        done.unwrap_or_else(|_| {
            tracing::warn!(%kind, name, namespace, "not done within {MOST:?}; it is tried again");
            Done { again: Some(AFTER_PANIC), outcome: Outcome::Retry }
        })
    });
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

/// Keeps the store and wakes what changed: its uid, its generation or its annotations. Goes on through every error, a missing
/// CustomResourceDefinition included.
async fn follow<K>(
    api: Api<Guarded<K>>,
    writer: reflector::store::Writer<Guarded<K>>,
    filled: watch::Sender<bool>,
    waker: Waker<K>,
    noticed: impl Fn(&watcher::Event<Guarded<K>>) + Send + 'static,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + DeserializeOwned + 'static,
{
    let mut said = String::new();
    let mut known: HashMap<ObjectRef<Guarded<K>>, u64> = HashMap::new();
    let mut listed: Vec<ObjectRef<Guarded<K>>> = Vec::new();
    let events =
        reflector::reflector(writer, watcher(api, watcher::Config::default().any_semantic().page_size(PAGE_SIZE)).modify(strip::<K>))
            .backoff(Capped::default())
            .inspect_err(move |error| explain::<K>(error, &mut said));
    futures::pin_mut!(events);
    while let Some(event) = events.next().await {
        let Ok(event) = event else { continue }; // said above; the watch starts again by itself
        noticed(&event);
        match &event {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                let version = version(object);
                if known.insert(ObjectRef::from_obj(object), version) != Some(version) {
                    if matches!(event, watcher::Event::InitApply(_)) {
                        listed.push(ObjectRef::from_obj(object));
                    } else {
                        waker.wake(object.namespace().as_deref(), &object.name_any());
                    }
                }
            }
            watcher::Event::Delete(object) => {
                known.remove(&ObjectRef::from_obj(object));
            }
            watcher::Event::InitDone => {
                filled.send_replace(true);
                // Only now does the store hold what was listed.
                for object in listed.drain(..) {
                    waker.wake(object.namespace.as_deref(), &object.name);
                }
            }
            watcher::Event::Init => {}
        }
    }
}

/// Changes when there is a reason to look: another object of that name, another spec, another annotation of ours. Not with status.
fn version<K: Resource<DynamicType = ()>>(object: &Guarded<K>) -> u64 {
    let meta = object.meta();
    let mut hasher = DefaultHasher::new();
    (&meta.uid, meta.generation, &meta.annotations, meta.deletion_timestamp.is_some()).hash(&mut hasher);
    hasher.finish()
}

/// The usual backoff of watches, but at most ten seconds: somebody may be waiting for a CustomResourceDefinition to be noticed.
#[derive(Default)]
struct Capped(watcher::DefaultBackoff);

impl Iterator for Capped {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(Duration::from_secs(10)))
    }
}

impl Backoff for Capped {
    fn reset(&mut self) {
        self.0.reset();
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
