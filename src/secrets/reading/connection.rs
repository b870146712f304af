//! The connection to one store with one credential, shared by all resources that use it: one login, one call for each remote key however many want it,
//! and a pause for everybody when the store fails.
//!
//! ```text
//!   resources ──► StorePool ──► StoreConnection ─┬─ Coalesced: calls under way, and answers that are still wanted
//!                                                ├─ Batches: several keys with one call
//!                                                ├─ Breaker: pauses all calls while the store is away
//!                                                └─ OpenStore: the backend
//! ```

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use tokio::time::error::Elapsed;

use super::{
    batch::Batches,
    breaker::Breaker,
    coalesce::{Coalesced, Demand},
};
use crate::{
    clock::Clock,
    secrets::{
        index::Key,
        store::{Answer, Find, MAX_VALUE, OpenStore, Place, StoreError, Stored},
    },
};

/// No call to a store takes longer.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A store has so long to renew what it has issued.
const RENEW_TIMEOUT: Duration = Duration::from_secs(5);

/// Wakes a resource.
pub type Wake = Arc<dyn Fn(&Key) + Send + Sync>;

/// Opens a store.
pub type Opener<'a> = BoxFuture<'a, Result<Box<dyn OpenStore>, StoreError>>;

/// One store, as it is with one credential.
pub struct StoreConnection {
    id: String,
    clock: Clock,
    wake: Wake,
    open: tokio::sync::Mutex<Option<Arc<dyn OpenStore>>>,
    reads: Coalesced<Place, Stored>,
    finds: Coalesced<Find, Vec<String>>,
    breaker: Mutex<Breaker>,
    batches: Arc<Batches>,
}

/// Calls to a store are allowed. If this one is the probe, it is given back with it, so that one that has asked nothing is in nobody's way.
pub struct Admission(Option<(Arc<StoreConnection>, Instant)>);

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some((connection, probe)) = self.0.take() {
            connection.breaker().give_back(probe);
        }
    }
}

/// Does a call, bounded in time. An answer that does not come is [`StoreError::Unavailable`].
pub async fn in_time<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(CALL_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(StoreError::Unavailable(format!("the store did not answer within {CALL_TIMEOUT:?}"))))
}

/// Refuses what no Secret has room for.
fn check_size(stored: Stored, place: &Place) -> Result<Stored, StoreError> {
    match stored.content.len() {
        0..=MAX_VALUE => Ok(stored),
        length => {
            Err(StoreError::Invalid(format!("{} has {length} bytes, more than the {MAX_VALUE} that a Secret has room for", place.key)))
        }
    }
}

impl StoreConnection {
    /// Nothing is opened yet. `id`: the store, and the credentials that it is to be opened with; no secret.
    pub fn new(id: String, clock: Clock, wake: Wake) -> Self {
        Self {
            id,
            clock,
            wake,
            open: tokio::sync::Mutex::default(),
            reads: Coalesced::default(),
            finds: Coalesced::default(),
            breaker: Mutex::default(),
            batches: Arc::default(),
        }
    }

    /// The store, and the credentials that it is opened with: no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The store itself, opened once.
    pub async fn open(&self, opener: Opener<'_>) -> Result<Arc<dyn OpenStore>, StoreError> {
        let mut open = self.open.lock().await;
        if let Some(store) = &*open {
            return Ok(store.clone());
        }
        let opened = in_time(opener).await;
        self.record(&opened);
        let store: Arc<dyn OpenStore> = Arc::from(opened?);
        *open = Some(store.clone());
        Ok(store)
    }

    /// Reads a value for `who`, or takes the answer of a call for somebody else, as `demand` allows.
    pub async fn read(self: &Arc<Self>, store: &Arc<dyn OpenStore>, (place, who): (&Place, &Key), demand: Demand) -> Answer {
        let call = || {
            let (connection, store, place) = (self.clone(), store.clone(), place.clone());
            let answer = async move {
                let answer = connection.read_one(&store, &place).await.and_then(|stored| check_size(stored, &place));
                connection.record(&answer);
                Arc::new(answer)
            };
            answer.boxed()
        };
        self.reads.share((place, who), demand, self.clock.now(), call).await
    }

    /// The same for the names that can be found.
    pub async fn find(self: &Arc<Self>, store: &Arc<dyn OpenStore>, (find, who): (&Find, &Key), demand: Demand) -> Answer<Vec<String>> {
        let call = || {
            let (connection, store, find) = (self.clone(), store.clone(), find.clone());
            let answer = async move {
                let found = tokio::time::timeout(CALL_TIMEOUT, store.find(&find)).await;
                Arc::new(connection.found(found))
            };
            answer.boxed()
        };
        self.finds.share((find, who), demand, self.clock.now(), call).await
    }

    /// That there is much to look through says nothing about the store: neither that it is away nor that it answers.
    fn found(&self, found: Result<Result<Vec<String>, StoreError>, Elapsed>) -> Result<Vec<String>, StoreError> {
        match found {
            Ok(answer) => {
                self.record(&answer);
                answer
            }
            Err(_) => Err(StoreError::Invalid(format!("find did not come to an end within {CALL_TIMEOUT:?}; narrow it"))),
        }
    }

    async fn read_one(&self, store: &Arc<dyn OpenStore>, place: &Place) -> Result<Stored, StoreError> {
        if place.version.is_some() || self.batches.size(&**store) == 1 {
            return in_time(store.read(place)).await;
        }
        self.batches.read(store, &place.key).await
    }

    /// Forgets what was read of `key`: it is something else now.
    pub fn invalidate(&self, key: &str) {
        self.reads.invalidate(|place| place.key == key);
    }

    /// How many reads of one resource are under way at a time, where `few` single calls may be: one while the store is away, since one probe is enough;
    /// a whole batch where the store reads several with one call.
    pub fn max_reads(&self, store: &dyn OpenStore, few: usize) -> usize {
        if self.is_away() { 1 } else { self.batches.size(store).max(few) }
    }

    /// Asks to call the store for as long as what it returns is held: see [`Breaker::try_acquire`].
    pub fn try_acquire(self: &Arc<Self>) -> Result<Admission, StoreError> {
        let probe = self.breaker().try_acquire(self.clock.now())?;
        Ok(Admission(probe.map(|probe| (self.clone(), probe))))
    }

    /// Until when all calls pause, if they do, and why.
    pub fn pause(&self) -> Option<(Timestamp, StoreError)> {
        self.breaker().pause(self.clock.now())
    }

    /// Whether the store has failed as a whole and not answered since.
    pub fn is_away(&self) -> bool {
        self.breaker().is_open()
    }

    /// How the store has failed as a whole, if it has not answered since, and until when calls paused for that.
    pub fn failure(&self) -> Option<(Timestamp, StoreError)> {
        self.breaker().failure()
    }

    /// Wakes `who` when the store answers again. Returns when it may be probed; None: it has answered already.
    pub fn wake_on_recovery(&self, who: &Key) -> Option<Timestamp> {
        self.breaker().wake_on_recovery(who)
    }

    /// Records what a call gave: the store as a whole has failed, or it answers, be it by an error about one value.
    pub fn record<T>(&self, answer: &Result<T, StoreError>) {
        match answer {
            Err(error) if error.is_store_wide() => {
                let pause = self.breaker().failed(error, (self.clock.now(), &self.id));
                if let Some(pause) = pause {
                    tracing::warn!(%error, store = self.id, seconds = pause.as_secs(), "all calls to a store pause");
                }
            }
            _ => {
                let (had_failed, woken) = self.breaker().succeeded(self.clock.now());
                if had_failed {
                    tracing::info!(store = self.id, "a store that had failed answers again");
                }
                for who in woken {
                    (self.wake)(&who);
                }
            }
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops values that nobody has come for.
    pub fn sweep(&self) {
        self.reads.sweep();
        self.finds.sweep();
    }

    /// Renews what the store has issued to us, such as a token. Not while calls pause; and one that is just being opened has issued nothing yet.
    pub async fn renew(&self) {
        let open = self.open.try_lock().ok().and_then(|open| open.clone());
        let Some(store) = open.filter(|_| self.pause().is_none()) else { return };
        // One that is slow holds up nobody else; it is asked again soon.
        let Ok(renewed) = tokio::time::timeout(RENEW_TIMEOUT, store.renew()).await else { return };
        if renewed != Ok(false) {
            self.record(&renewed);
        }
    }

    /// Gives back what the store has issued to us.
    pub async fn close(&self) {
        if let Some(store) = self.open.lock().await.take() {
            store.close().await;
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use futures::future::join_all;
    use jiff::SignedDuration;

    use super::*;
    use crate::secrets::store::{Content, Write};

    /// Counts what it is asked.
    #[derive(Default)]
    struct Counted {
        batch: usize,
        reads: AtomicUsize,
        batches: AtomicUsize,
        finds: AtomicUsize,
        fails: Mutex<Option<StoreError>>,
        length: usize,
    }

    impl Counted {
        fn counts(&self) -> [usize; 3] {
            [&self.reads, &self.batches, &self.finds].map(|count| count.swap(0, Ordering::SeqCst))
        }

        fn fail(&self, error: Option<StoreError>) {
            *lock(&self.fails) = error;
        }

        fn answer(&self) -> Result<Stored, StoreError> {
            match lock(&self.fails).clone() {
                Some(error) => Err(error),
                None => Ok(Stored { content: Content::Bytes(vec![b'x'; self.length].into()), version: None }),
            }
        }
    }

    impl OpenStore for Counted {
        fn read<'a>(&'a self, _: &'a Place) -> BoxFuture<'a, Result<Stored, StoreError>> {
            async {
                self.reads.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                self.answer()
            }
            .boxed()
        }

        fn batch(&self) -> usize {
            self.batch.max(1)
        }

        fn read_many<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Vec<Result<Stored, StoreError>>, StoreError>> {
            async {
                self.batches.fetch_add(1, Ordering::SeqCst);
                let failure = lock(&self.fails).take();
                match failure {
                    Some(error) => Err(error),
                    None => Ok(keys.iter().map(|_| self.answer()).collect()),
                }
            }
            .boxed()
        }

        fn find<'a>(&'a self, _: &'a Find) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
            async {
                self.finds.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok(vec!["a".into()])
            }
            .boxed()
        }

        fn write<'a>(&'a self, _: Write<'a>) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
            async { Ok(None) }.boxed()
        }

        fn check(&self) -> BoxFuture<'_, Result<(), StoreError>> {
            async { Ok(()) }.boxed()
        }
    }

    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn who(number: usize) -> Key {
        ("n".into(), format!("r{number}"))
    }

    fn place(key: &str) -> Place {
        Place { key: key.into(), version: None }
    }

    struct World {
        connection: Arc<StoreConnection>,
        clock: Clock,
        woken: Arc<Mutex<Vec<Key>>>,
        counted: Arc<Counted>,
        store: Arc<dyn OpenStore>,
    }

    impl World {
        fn new(counted: Counted) -> Self {
            let (clock, woken, counted) = (Clock::default(), Arc::new(Mutex::new(Vec::new())), Arc::new(counted));
            let wake = woken.clone();
            let wake: Wake = Arc::new(move |key: &Key| lock(&wake).push(key.clone()));
            let connection = Arc::new(StoreConnection::new("n spec 1".into(), clock.clone(), wake));
            Self { connection, clock, woken, store: counted.clone(), counted }
        }

        /// So many want each of `keys` at the same time.
        async fn read(&self, keys: &[String], each: usize) -> Vec<Answer> {
            let (connection, fresh_since) = (&self.connection, self.clock.now());
            let reads = keys.iter().flat_map(|key| (0..each).map(move |number| (key, number)));
            join_all(reads.map(|(key, number)| async move {
                connection.read(&self.store, (&place(key), &who(number)), Demand { fresh_since, readers: each }).await
            }))
            .await
        }
    }

    #[tokio::test]
    async fn one_call_serves_all_who_want_the_same() {
        let world = World::new(Counted::default());
        let keys: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
        assert!(world.read(&keys, 50).await.iter().all(|answer| answer.is_ok()));
        assert_eq!(world.counted.counts(), [20, 0, 0]);
        assert!(world.connection.reads.is_empty(), "no value is kept when all have it");
        world.read(&keys, 1).await;
        assert_eq!(world.counted.counts(), [20, 0, 0], "and the next round asks again");
        let (connection, fresh_since, find) =
            (&world.connection, world.clock.now(), Find { path: None, name: None, tags: BTreeMap::new() });
        let (find, store) = (&find, &world.store);
        join_all(
            (0..50).map(|number| async move { connection.find(store, (find, &who(number)), Demand { fresh_since, readers: 50 }).await }),
        )
        .await;
        assert_eq!(world.counted.counts(), [0, 0, 1]);
    }

    #[tokio::test]
    async fn several_values_are_read_with_one_call_where_the_store_has_one() {
        let world = World::new(Counted { batch: 20, ..Counted::default() });
        let keys: Vec<String> = (0..50).map(|number| format!("k{number}")).collect();
        assert!(world.read(&keys, 3).await.iter().all(|answer| answer.is_ok()));
        assert_eq!(world.counted.counts(), [0, 3, 0]);
        world.counted.fail(Some(StoreError::Denied("no".into())));
        assert!(world.read(&keys, 1).await.iter().all(|answer| answer.is_ok()), "who may not do that reads one by one");
        assert_eq!(world.counted.counts(), [20, 3, 0], "of the three calls the first was refused");
        world.read(&keys, 1).await;
        assert_eq!(world.counted.counts(), [50, 0, 0], "and that is remembered");
    }

    #[tokio::test]
    async fn a_store_that_fails_is_probed_once_and_all_who_wait_are_woken() {
        let world = World::new(Counted::default());
        world.counted.fail(Some(StoreError::Unavailable("away".into())));
        world.read(&["a".into()], 1).await;
        let connection = &world.connection;
        assert!(connection.try_acquire().is_err() && connection.pause().is_some());
        for number in 0..100 {
            connection.wake_on_recovery(&who(number)).unwrap();
        }
        world.clock.advance(SignedDuration::from_mins(6));
        assert!(connection.pause().is_none() && connection.is_away());
        drop(connection.try_acquire().unwrap()); // who asks nothing is in nobody's way
        let _first = connection.try_acquire().unwrap();
        assert!(connection.try_acquire().is_err(), "the others wait for its result");
        world.read(&["a".into()], 1).await;
        assert!(connection.try_acquire().is_err(), "it is still away");
        world.clock.advance(SignedDuration::from_mins(6));
        world.counted.fail(None);
        let _second = connection.try_acquire().unwrap();
        world.read(&["a".into()], 1).await;
        assert_eq!(lock(&world.woken).len(), 100, "who waited is told");
        assert!(connection.try_acquire().is_ok() && connection.try_acquire().is_ok() && !connection.is_away());
        // What is about one value says nothing about the store.
        for error in [StoreError::Denied("d".into()), StoreError::NotFound("n".into()), StoreError::Invalid("i".into())] {
            world.counted.fail(Some(error));
            world.read(&["a".into()], 1).await;
            assert!(connection.try_acquire().is_ok());
        }
    }

    #[tokio::test]
    async fn that_the_store_did_not_answer_is_no_answer_for_who_asks_later() {
        let world = World::new(Counted::default());
        let (connection, fresh_since) = (&world.connection, world.clock.now());
        let read = async |number| connection.read(&world.store, (&place("a"), &who(number)), Demand { fresh_since, readers: 3 }).await;
        for (error, calls) in [(StoreError::Unavailable("away".into()), 2), (StoreError::Denied("no".into()), 1)] {
            world.counted.fail(Some(error));
            assert!(read(0).await.is_err());
            world.counted.fail(None);
            assert_eq!(read(1).await.is_ok(), calls == 2);
            assert_eq!(world.counted.counts(), [calls, 0, 0]);
            connection.invalidate("a");
        }
    }

    #[tokio::test]
    async fn a_find_that_comes_to_no_end_says_nothing_about_the_store() {
        let world = World::new(Counted::default());
        let elapsed = async || tokio::time::timeout(Duration::ZERO, std::future::pending()).await;
        assert!(matches!(world.connection.found(elapsed().await), Err(StoreError::Invalid(_))));
        assert!(world.connection.try_acquire().is_ok(), "it is not away for that");
        world.counted.fail(Some(StoreError::Unavailable("away".into())));
        world.read(&["a".into()], 1).await;
        assert!(world.connection.found(elapsed().await).is_err() && world.connection.is_away(), "nor back");
        assert!(world.connection.found(Ok(Ok(Vec::new()))).is_ok() && world.connection.is_away(), "nor what was under way");
        world.clock.advance(SignedDuration::from_mins(6));
        assert!(world.connection.found(Ok(Ok(Vec::new()))).is_ok() && !world.connection.is_away());
    }

    #[tokio::test]
    async fn what_no_secret_has_room_for_is_not_kept() {
        let world = World::new(Counted { length: MAX_VALUE + 1, ..Counted::default() });
        let answers = world.read(&["a".into()], 1).await;
        assert!(matches!(answers[0].as_ref(), Err(StoreError::Invalid(why)) if why.contains("more than")));
        assert!(world.connection.try_acquire().is_ok());
    }
}
