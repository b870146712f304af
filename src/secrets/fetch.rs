//! Reads of stores, shared by all resources: one call for each remote key, however many want it; one login for each store; and a store that fails is
//! left alone as a whole and asked again once.
//!
//! ```text
//!   resources ──► Stores ──► Door (one for each store and credential) ──► OpenStore
//!                               │ reads under way, and values until all who want them have them, for a minute at most
//!                               └ what the store as a whole said: when it may be asked again
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, join_all},
};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use super::{
    index::Key,
    store::{Find, OpenStore, Place, StoreError, Stored},
};
use crate::{clock::Clock, cluster::backoff::retry_after};

/// What a call gives, for all who wait for it.
pub type Answer<T = Stored> = Arc<Result<T, StoreError>>;

/// A value waits so long for those who want it.
const HOLD: Duration = Duration::from_mins(1);
/// A store that nobody asked for so long is forgotten, and with it what it has lent to us.
const IDLE: Duration = Duration::from_mins(30);
/// So long a call for several values waits for others: less than anybody notices.
const GATHER: Duration = Duration::from_millis(10);
/// No call to a store takes longer.
const MOST: Duration = Duration::from_secs(30);
/// No store is left alone for longer.
const LONGEST: SignedDuration = SignedDuration::from_mins(5);

/// Wakes a resource.
pub type Wake = Arc<dyn Fn(&Key) + Send + Sync>;

/// All stores that are in use.
#[derive(Clone)]
pub struct Stores {
    clock: Clock,
    wake: Wake,
    doors: Arc<Mutex<HashMap<String, Arc<Door>>>>,
}

/// One store, as somebody with certain credentials sees it.
pub struct Door {
    identity: String,
    clock: Clock,
    wake: Wake,
    open: tokio::sync::Mutex<Option<Arc<dyn OpenStore>>>,
    reads: Reads<Place, Stored>,
    finds: Reads<Find, Vec<String>>,
    health: Mutex<Health>,
    used: Mutex<Instant>,
    /// Who waits for the next call that reads several values.
    batch: Mutex<Vec<Asked>>,
    /// The call for several values is refused.
    single: AtomicBool,
}

/// A key, and who waits for its value.
type Asked = (String, oneshot::Sender<Result<Stored, StoreError>>);

/// Calls whose answer is for several.
struct Reads<K, T>(Mutex<HashMap<K, Read<T>>>);

struct Read<T> {
    /// When it was begun.
    since: Timestamp,
    begun: Instant,
    /// Who has taken it.
    takers: BTreeSet<Key>,
    answer: Shared<BoxFuture<'static, Answer<T>>>,
}

impl<K: Clone + Eq + Hash, T> Reads<K, T> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    /// What was asked since `fresh` for somebody else, or else what `ask` begins `now`. It is kept until `wanted` have it.
    fn share(
        &self,
        key: &K,
        who: &Key,
        (now, fresh, wanted): (Timestamp, Timestamp, usize),
        ask: impl FnOnce() -> BoxFuture<'static, Answer<T>>,
    ) -> Shared<BoxFuture<'static, Answer<T>>> {
        let mut reads = lock(&self.0);
        let known = reads.get(key).filter(|read| read.since >= fresh && read.begun.elapsed() < HOLD).map(|read| read.answer.clone());
        let answer = known.unwrap_or_else(|| {
            let answer = ask().shared();
            let read = Read { since: now, begun: Instant::now(), takers: BTreeSet::new(), answer: answer.clone() };
            reads.insert(key.clone(), read);
            answer
        });
        if let Some(read) = reads.get_mut(key) {
            read.takers.insert(who.clone());
            if read.takers.len() >= wanted {
                reads.remove(key);
            }
        }
        answer
    }

    /// Forgets what nobody has come for.
    fn sweep(&self) {
        lock(&self.0).retain(|_, read| read.begun.elapsed() < HOLD);
    }
}

/// What the store as a whole said.
#[derive(Default)]
struct Health {
    failures: u32,
    down: Option<(Timestamp, StoreError)>,
    /// Who asks whether it is back.
    probe: Option<Instant>,
    /// Who is told when it is.
    waiting: BTreeSet<Key>,
}

/// Opens a store.
pub type Opener<'a> = BoxFuture<'a, Result<Box<dyn OpenStore>, StoreError>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stores {
    /// None yet. `wake` is called for those who waited for a store that is back.
    pub fn new(clock: Clock, wake: Wake) -> Self {
        Self { clock, wake, doors: Arc::default() }
    }

    /// The store of that identity: what it is, whose it is, and the version of its credentials.
    pub fn door(&self, identity: &str) -> Arc<Door> {
        let mut doors = lock(&self.doors);
        doors.retain(|_, door| Arc::strong_count(door) > 1 || lock(&door.used).elapsed() < IDLE || door.leave());
        let door = doors.entry(identity.into()).or_insert_with(|| {
            Arc::new(Door {
                identity: identity.into(),
                clock: self.clock.clone(),
                wake: self.wake.clone(),
                open: tokio::sync::Mutex::default(),
                reads: Reads::new(),
                finds: Reads::new(),
                health: Mutex::default(),
                used: Mutex::new(Instant::now()),
                batch: Mutex::default(),
                single: AtomicBool::new(false),
            })
        });
        *lock(&door.used) = Instant::now();
        door.clone()
    }

    /// Forgets values that nobody has come for.
    pub fn sweep(&self) {
        for door in lock(&self.doors).values() {
            door.reads.sweep();
            door.finds.sweep();
        }
    }

    /// Gives back what stores have lent to us.
    pub async fn close(&self) {
        let doors: Vec<_> = lock(&self.doors).drain().map(|(_, door)| door).collect();
        for door in doors {
            if let Some(store) = door.open.lock().await.take() {
                store.close().await;
            }
        }
    }
}

impl Door {
    /// The store itself, opened once.
    pub async fn open(&self, opener: Opener<'_>) -> Result<Arc<dyn OpenStore>, StoreError> {
        let mut open = self.open.lock().await;
        if let Some(store) = &*open {
            return Ok(store.clone());
        }
        let opened = self.call(opener).await;
        self.heard(&opened);
        let store: Arc<dyn OpenStore> = Arc::from(opened?);
        *open = Some(store.clone());
        Ok(store)
    }

    /// Reads a value, or takes the one that was read since `fresh` for somebody else. It is kept until `wanted` have it.
    pub async fn read(
        self: &Arc<Self>,
        store: &Arc<dyn OpenStore>,
        place: &Place,
        who: &Key,
        (fresh, wanted): (Timestamp, usize),
    ) -> Answer {
        let ask = || {
            let (door, store, asked) = (self.clone(), store.clone(), place.clone());
            let answer = async move {
                let answer = door.ask(&store, &asked).await;
                door.heard(&answer);
                Arc::new(answer)
            };
            answer.boxed()
        };
        self.reads.share(place, who, (self.clock.now(), fresh, wanted), ask).await
    }

    /// The same for the names that can be found.
    pub async fn find(
        self: &Arc<Self>,
        store: &Arc<dyn OpenStore>,
        find: &Find,
        who: &Key,
        (fresh, wanted): (Timestamp, usize),
    ) -> Answer<Vec<String>> {
        let ask = || {
            let (door, store, asked) = (self.clone(), store.clone(), find.clone());
            let answer = async move {
                let answer = door.call(store.find(&asked)).await;
                door.heard(&answer);
                Arc::new(answer)
            };
            answer.boxed()
        };
        self.finds.share(find, who, (self.clock.now(), fresh, wanted), ask).await
    }

    /// Reads one value: alone, or with others that are asked for in the same moment.
    async fn ask(self: &Arc<Self>, store: &Arc<dyn OpenStore>, place: &Place) -> Result<Stored, StoreError> {
        if store.batch() == 1 || place.version.is_some() || self.single.load(Ordering::Relaxed) {
            return self.call(store.read(place)).await;
        }
        let (sender, answer) = oneshot::channel();
        let first = {
            let mut batch = lock(&self.batch);
            batch.push((place.key.clone(), sender));
            batch.len() == 1
        };
        if first {
            tokio::spawn(self.clone().read_batches(store.clone()));
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the call was given up".into())))
    }

    async fn read_batches(self: Arc<Self>, store: Arc<dyn OpenStore>) {
        tokio::time::sleep(GATHER).await;
        loop {
            let asked: Vec<Asked> = {
                let mut batch = lock(&self.batch);
                let most = batch.len().min(store.batch());
                batch.drain(..most).collect()
            };
            // Who asks for the same key gets the same answer.
            let mut waiting = BTreeMap::<String, Vec<_>>::new();
            for (key, answer) in asked {
                waiting.entry(key).or_default().push(answer);
            }
            let (keys, answers): (Vec<String>, Vec<_>) = waiting.into_iter().unzip();
            let place = |key: &String| Place { key: key.clone(), version: None };
            let given = match keys.as_slice() {
                [] => return,
                [key] => vec![self.call(store.read(&place(key))).await],
                keys => match self.call(store.read_many(keys)).await {
                    Ok(given) => given,
                    Err(error) if error.is_of_the_store() => vec![Err(error); keys.len()],
                    // It is another right than that of reading single values; and one key may spoil it for all.
                    Err(error) => {
                        tracing::info!(%error, "several values at a time cannot be read; they are read one by one");
                        self.single.fetch_or(matches!(error, StoreError::Denied(_)), Ordering::Relaxed);
                        join_all(keys.iter().map(|key| async { self.call(store.read(&place(key))).await })).await
                    }
                },
            };
            for (answers, given) in answers.into_iter().zip(given) {
                for answer in answers {
                    let _ = answer.send(given.clone()); // who asked may have given up
                }
            }
        }
    }

    /// Does a call, bounded in time.
    pub async fn call<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        tokio::time::timeout(MOST, call)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable(format!("the store did not answer within {MOST:?}"))))
    }

    /// Whether it may be asked now. `Err`: what it said. When its time has come, one may ask.
    pub fn may(&self) -> Result<(), StoreError> {
        let mut health = lock(&self.health);
        let Some((until, error)) = health.down.clone() else { return Ok(()) };
        if self.clock.now() < until || health.probe.is_some_and(|since| since.elapsed() < MOST) {
            return Err(error);
        }
        health.probe = Some(Instant::now());
        Ok(())
    }

    /// What it said, if it is to be left alone now: who is in the middle of asking asks no more.
    pub fn left_alone(&self) -> Option<StoreError> {
        lock(&self.health).down.as_ref().filter(|(until, _)| *until > self.clock.now()).map(|(_, error)| error.clone())
    }

    /// Whether it is being asked again for the first time: one call tells.
    pub fn is_probed(&self) -> bool {
        lock(&self.health).down.is_some()
    }

    /// `who` is told when it is back. Returns when it may be asked again; None: it is back already.
    pub fn waits(&self, who: &Key) -> Option<Timestamp> {
        let mut health = lock(&self.health);
        let until = health.down.as_ref().map(|(until, _)| *until)?;
        health.waiting.insert(who.clone());
        Some(until)
    }

    /// What was read of `place` is not so any more.
    pub fn forget(&self, key: &str) {
        lock(&self.reads.0).retain(|place, _| place.key != key);
    }

    /// Takes note of what a call gave.
    pub fn heard<T>(&self, answer: &Result<T, StoreError>) {
        let mut health = lock(&self.health);
        let Err(error) = answer else {
            return self.back(&mut health);
        };
        if !error.is_of_the_store() {
            return self.back(&mut health); // it answers
        }
        let now = self.clock.now();
        if health.down.as_ref().is_some_and(|(until, _)| *until > now) {
            return; // others that were under way say the same
        }
        health.failures = health.failures.saturating_add(1);
        health.probe = None;
        let said = match error {
            StoreError::Throttled { after, .. } => after.and_then(|after| SignedDuration::try_from(after).ok()),
            _ => None,
        };
        let wait =
            said.unwrap_or_else(|| retry_after(health.failures, None, now, &self.identity)).clamp(SignedDuration::from_secs(1), LONGEST);
        tracing::warn!(%error, seconds = wait.as_secs(), "a store is left alone for a while");
        health.down = Some((now + wait, error.clone()));
    }

    fn back(&self, health: &mut Health) {
        if health.down.take().is_some() {
            tracing::info!("a store that was left alone answers again");
        }
        (health.failures, health.probe) = (0, None);
        for who in std::mem::take(&mut health.waiting) {
            (self.wake)(&who);
        }
    }

    /// Forgotten; what was lent is given back beside.
    fn leave(&self) -> bool {
        if let Ok(mut open) = self.open.try_lock()
            && let Some(store) = open.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { store.close().await });
        }
        false
    }
}
