//! The run loop that every kind shares: caches filled on every replica, looks by the leader only, panics caught, outcomes counted.
//!
//! ```text
//!   watch of our kind ──► store (every replica)
//!        └ uid, generation or annotations changed ──► lane "changed" ─┐
//!   inventory: something that it depends on changed ─► lane "due" ────┼─► look ─► next time ─┐
//!   lease acquired: the whole store ─────────────────► lane "due" ────┤                      │
//!                                                      timers ◄───────┴──────────────────────┘
//! ```
//!
//! kube's Controller has one queue, in which a thousand renewals stand before the object that somebody has just changed; hence this one.

use std::{
    collections::HashMap,
    fmt::Debug,
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        utils::Backoff,
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::{
    sync::CancellationToken,
    time::{DelayQueue, delay_queue},
};

use super::{
    backoff::{Failures, retry_after},
    lanes::{Lane, Lanes},
    lease::Leadership,
};
use crate::telemetry::metrics::{Metrics, Outcome};

/// An object as it came: readable as its kind or not.
pub type Guarded<K> = DeserializeGuard<K>;

/// How many objects are listed at a time; bounds the memory of a list.
const PAGE_SIZE: u32 = 250;

type Wake<K> = (ObjectRef<Guarded<K>>, When);

/// When a look is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// As soon as its lane allows.
    Now(Lane),
    /// In [`SOON`]: what comes in swarms, as Pods that start, is looked at once.
    Soon,
}

/// Long enough for a swarm, short enough for who waits.
const SOON: Duration = Duration::from_millis(250);

/// Asks for objects to be looked at. Before the looks begin it does nothing: then everything is looked at anyway.
pub struct Waker<K: Resource<DynamicType = ()>> {
    sender: mpsc::UnboundedSender<Wake<K>>,
    begun: Arc<AtomicBool>,
}

impl<K: Resource<DynamicType = ()>> Clone for Waker<K> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), begun: self.begun.clone() }
    }
}

impl<K: Resource<DynamicType = ()>> Waker<K> {
    /// Looks at `NAMESPACE/NAME` because something that it depends on is another one.
    pub fn wake(&self, namespace: Option<&str>, name: &str) {
        self.send(named(namespace, name), When::Now(Lane::Due));
    }

    /// The same for what changes in swarms: a quarter of a second later, once.
    pub fn wake_soon(&self, namespace: Option<&str>, name: &str) {
        self.send(named(namespace, name), When::Soon);
    }

    fn send(&self, object: ObjectRef<Guarded<K>>, when: When) {
        if self.begun.load(Ordering::SeqCst) {
            let _ = self.sender.send((object, when)); // the receiver goes with the process only
        }
    }
}

/// Which object it is, without what it is at the moment: there are many of these.
fn reference<K: Resource<DynamicType = ()>>(object: &Guarded<K>) -> ObjectRef<Guarded<K>> {
    named(object.meta().namespace.as_deref(), object.meta().name.as_deref().unwrap_or_default())
}

fn named<K: Resource<DynamicType = ()>>(namespace: Option<&str>, name: &str) -> ObjectRef<Guarded<K>> {
    let mut object = ObjectRef::new(name);
    object.namespace = namespace.map(ToOwned::to_owned);
    object
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
    /// When everything is looked at, what has the same word comes together. Default: in no order.
    pub together: Option<fn(&K) -> String>,
    wakes: mpsc::UnboundedReceiver<Wake<K>>,
    writer: reflector::store::Writer<Guarded<K>>,
    api: Api<Guarded<K>>,
    leadership: Leadership,
    /// Whether the first list is complete. A channel of our own, because of several that wait for kube's store only the last is woken.
    filled: watch::Sender<bool>,
}

/// How a kind runs.
pub struct Settings {
    /// How many objects at once.
    pub concurrency: u16,
    /// Where outcomes are counted.
    pub metrics: Metrics,
    /// Ends it: nothing is begun any more, and what is under way is waited for.
    pub stop: CancellationToken,
    /// What has to be there before the first object is looked at: caches that its look asks.
    pub first: BoxFuture<'static, ()>,
}

/// What a look ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// When to look again by itself.
    pub again: Option<Duration>,
    /// For the metrics.
    pub outcome: Outcome,
}

impl Done {
    /// Looks again after `wait`.
    pub fn again(wait: SignedDuration, outcome: Outcome) -> Self {
        Self { again: Some(Duration::try_from(wait).unwrap_or(Duration::from_secs(5))), outcome }
    }

    /// What it rests on was superseded: read and decided again, at once, and after some times in a row more and more slowly.
    pub fn superseded(races: &Failures, uid: &str, now: Timestamp) -> Self {
        const AT_ONCE: u32 = 5;
        let failures = races.failed(uid, ("Superseded", None));
        let soon = SignedDuration::from_millis(300);
        Self::again(if failures < AT_ONCE { soon } else { retry_after(failures + 1 - AT_ONCE, None, now, uid) }, Outcome::Retry)
    }
}

/// After a panic, the object rests for this long.
const AFTER_PANIC: Duration = Duration::from_mins(1);

/// A look that takes longer hangs: on a connection that died without a word. It is dropped, as its steps can be repeated.
const RECONCILE_TIMEOUT: Duration = Duration::from_mins(3);

/// No timer is longer; the queue of timers ends at two years.
const LONGEST: Duration = Duration::from_hours(24);

impl<K> Kind<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + DeserializeOwned + 'static,
{
    /// Prepares the kind; nothing runs yet.
    pub fn new(api: Api<Guarded<K>>, leadership: Leadership) -> Self {
        let (store, writer) = reflector::store();
        let (sender, wakes) = mpsc::unbounded_channel();
        let waker = Waker { sender, begun: Arc::default() };
        Self { store, waker, together: None, wakes, writer, api, leadership, filled: watch::Sender::new(false) }
    }

    /// Returns when the store holds the first complete list.
    pub fn filled(&self) -> impl Future<Output = ()> + Send + use<K> {
        has_filled(self.filled.subscribe())
    }

    /// Runs the watch and, once this process leads and the store is filled, the looks, until it is stopped.
    ///
    /// `noticed` sees every event of the watch, on every replica, before anything is looked at because of it; and whether it tells of another
    /// object, another spec or another annotation of ours, rather than of a status only.
    pub async fn run<C, F, N>(self, settings: Settings, context: Arc<C>, noticed: N, reconcile: fn(Arc<Guarded<K>>, Arc<C>) -> F)
    where
        C: Send + Sync + 'static,
        F: Future<Output = Done> + Send + 'static,
        N: Fn(&watcher::Event<Guarded<K>>, bool) + Send + 'static,
    {
        let Self { store, waker, together, wakes, writer, api, leadership, filled } = self;
        let (ready, begun) = (has_filled(filled.subscribe()), waker.begun.clone());
        let watch = follow::<K>(api, writer, filled, (waker, noticed));
        let looks = async move {
            let Settings { concurrency, metrics, stop, first } = settings;
            tokio::select! {
                () = async { leadership.acquired().await; ready.await; first.await; } => {}
                () = stop.cancelled() => return,
            }
            begun.store(true, Ordering::SeqCst); // before the store is read
            let counted = metrics.clone();
            let look = Box::new(move |object| guarded(object, context.clone(), reconcile, counted.clone()).boxed());
            let mut looks = Looks::<K> {
                most: concurrency.max(1).into(),
                metrics,
                lanes: Lanes::new(concurrency.max(1).into(), |object| object.namespace.as_deref()),
                timers: Timers::default(),
                running: JoinSet::new(),
                store,
                together,
                look,
            };
            looks.run(wakes, stop).await;
        };
        tokio::select! {
            () = watch => {}
            () = looks => {}
        }
    }
}

/// Looks at one object. Counts and logs by itself.
type Look<K> = Box<dyn Fn(Arc<Guarded<K>>) -> BoxFuture<'static, Option<Duration>> + Send + Sync>;

/// What waits, what is under way, what comes later.
struct Looks<K: Resource<DynamicType = ()> + 'static> {
    most: usize,
    metrics: Metrics,
    lanes: Lanes<ObjectRef<Guarded<K>>>,
    timers: Timers<ObjectRef<Guarded<K>>>,
    running: JoinSet<(ObjectRef<Guarded<K>>, Option<Duration>)>,
    store: Store<Guarded<K>>,
    together: Option<fn(&K) -> String>,
    look: Look<K>,
}

impl<K> Looks<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + DeserializeOwned + 'static,
{
    async fn run(&mut self, mut wakes: mpsc::UnboundedReceiver<Wake<K>>, stop: CancellationToken) {
        let mut all = self.store.state();
        if let Some(together) = self.together {
            all.sort_by_cached_key(|object| object.0.as_ref().ok().map(together));
        }
        for object in all {
            self.lanes.push(reference(&*object), Lane::Due);
        }
        loop {
            self.start();
            self.metrics.queued(&K::kind(&()), self.lanes.len());
            tokio::select! {
                Some((object, when)) = wakes.recv() => match when {
                    When::Now(lane) => self.lanes.push(object, lane),
                    When::Soon => self.timers.at_latest(object, SOON),
                },
                object = self.timers.next() => self.lanes.push(object, Lane::Due),
                Some(ended) = self.running.join_next() => self.ended(ended),
                () = stop.cancelled() => break,
            }
        }
        while self.running.join_next().await.is_some() {}
    }

    /// Begins as many looks as there is room for.
    fn start(&mut self) {
        while self.running.len() < self.most {
            let Some(object) = self.lanes.take() else { return };
            self.timers.remove(&object);
            let Some(found) = self.store.get(&object) else {
                self.lanes.done(&object); // gone; one of the same name that comes later is woken by the watch
                continue;
            };
            let look = (self.look)(found);
            self.running.spawn(async move { (object, look.await) });
        }
    }

    fn ended(&mut self, ended: Result<(ObjectRef<Guarded<K>>, Option<Duration>), tokio::task::JoinError>) {
        let Ok((object, again)) = ended else { return }; // the runtime is shutting down: panics are caught within
        if !self.lanes.done(&object)
            && let Some(again) = again
        {
            self.timers.at_latest(object, again);
        }
    }
}

/// One timer for each object at most.
struct Timers<T> {
    queue: DelayQueue<T>,
    keys: HashMap<T, delay_queue::Key>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { queue: DelayQueue::new(), keys: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Timers<T> {
    /// Sets the timer, unless it is set to something earlier.
    fn at_latest(&mut self, object: T, wait: Duration) {
        let wait = wait.min(LONGEST); // a server may have asked for more than a clock can hold
        let deadline = tokio::time::Instant::now() + wait;
        if self.keys.get(&object).is_some_and(|key| self.queue.deadline(key) <= deadline) {
            return;
        }
        self.remove(&object);
        let key = self.queue.insert(object.clone(), wait);
        self.keys.insert(object, key);
    }

    fn remove(&mut self, object: &T) {
        if let Some(key) = self.keys.remove(object) {
            self.queue.try_remove(&key);
        }
    }

    /// The next one whose time has come; never, while there is none.
    async fn next(&mut self) -> T {
        match self.queue.next().await {
            Some(expired) => {
                let object = expired.into_inner();
                self.keys.remove(&object);
                object
            }
            None => std::future::pending().await,
        }
    }
}

async fn has_filled(mut filled: watch::Receiver<bool>) {
    if filled.wait_for(|filled| *filled).await.is_err() {
        std::future::pending::<()>().await; // the watch went with the process
    }
}

/// One look, bounded in time, its panic caught. Returns when to look again.
async fn guarded<K, C, F>(
    object: Arc<Guarded<K>>,
    context: Arc<C>,
    reconcile: fn(Arc<Guarded<K>>, Arc<C>) -> F,
    metrics: Metrics,
) -> Option<Duration>
where
    K: Resource<DynamicType = ()>,
    F: Future<Output = Done> + Send,
{
    let (kind, started) = (K::kind(&()), std::time::Instant::now());
    let (name, namespace) = (object.name_any(), object.namespace());
    let work = tokio::time::timeout(RECONCILE_TIMEOUT, reconcile(object, context));
    let done = match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => {
            tracing::warn!(%kind, name, namespace, "not done within {RECONCILE_TIMEOUT:?}; it is tried again");
            Done { again: Some(AFTER_PANIC), outcome: Outcome::Retry }
        }
        Err(_) => {
            tracing::error!(%kind, name, namespace, "a panic while reconciling; the object rests for a minute, the others go on");
            Done { again: Some(AFTER_PANIC), outcome: Outcome::Panic }
        }
    };
    metrics.reconciled(&kind, done.outcome, started.elapsed());
    done.again
}

/// Keeps the store and wakes what changed: its uid, its generation or its annotations. Goes on through every error, a missing
/// CustomResourceDefinition included.
async fn follow<K>(
    api: Api<Guarded<K>>,
    writer: reflector::store::Writer<Guarded<K>>,
    filled: watch::Sender<bool>,
    (waker, noticed): (Waker<K>, impl Fn(&watcher::Event<Guarded<K>>, bool) + Send + 'static),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + DeserializeOwned + 'static,
{
    let mut said = String::new();
    let mut known: HashMap<ObjectRef<Guarded<K>>, u64> = HashMap::new();
    let (mut listed, mut fresh) = (HashMap::new(), Vec::new());
    // What we decide on is listed as it is, not as some cache of an API server still has it.
    let config = watcher::Config::default().page_size(PAGE_SIZE);
    let events = reflector::reflector(writer, watcher(api, config).modify(strip::<K>))
        .backoff(Capped::default())
        .inspect_err(move |error| explain::<K>(error, &mut said));
    futures::pin_mut!(events);
    while let Some(event) = events.next().await {
        let Ok(event) = event else { continue }; // said above; the watch starts again by itself
        let news = match &event {
            watcher::Event::Apply(object) => known.insert(reference(object), version(object)) != Some(version(object)),
            watcher::Event::InitApply(object) => {
                listed.insert(reference(object), version(object));
                known.get(&reference(object)) != Some(&version(object))
            }
            watcher::Event::Delete(object) => {
                known.remove(&reference(object));
                true
            }
            watcher::Event::Init => {
                (listed, fresh) = (HashMap::new(), Vec::new());
                true
            }
            watcher::Event::InitDone => {
                known = std::mem::take(&mut listed);
                true
            }
        };
        noticed(&event, news);
        match &event {
            watcher::Event::Apply(object) if news => waker.send(reference(object), When::Now(Lane::Changed)),
            watcher::Event::InitApply(object) if news => fresh.push(reference(object)),
            // Only now does the store hold what was listed. After the first list everything is looked at anyway.
            watcher::Event::InitDone if filled.send_replace(true) => {
                fresh.drain(..).for_each(|object| waker.send(object, When::Now(Lane::Changed)));
            }
            _ => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_wait_that_somebody_asks_for_is_too_long() {
        let mut timers = Timers::default();
        for wait in [Duration::MAX, Duration::from_secs(u64::MAX / 2), Duration::ZERO] {
            timers.at_latest("a", wait);
        }
        assert_eq!(timers.next().await, "a", "the earliest counts");
    }
}
