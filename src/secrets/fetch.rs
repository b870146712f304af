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
    store::{Find, MAX_VALUE, OpenStore, Place, StoreError, Stored},
};
use crate::{clock::Clock, cluster::backoff::retry_after};

/// What a call gives, for all who wait for it.
pub type Answer<T = Stored> = Arc<Result<T, StoreError>>;

/// A value waits so long for those who want it.
const HOLD: Duration = Duration::from_mins(1);
/// So long a call for several values waits for others: less than anybody notices.
const GATHER: Duration = Duration::from_millis(10);
/// No call to a store takes longer.
const MOST: Duration = Duration::from_secs(30);
/// To prolong what it has lent a store has so long.
const KEEP: Duration = Duration::from_secs(5);
/// No store is left alone for longer.
const LONGEST: SignedDuration = SignedDuration::from_mins(5);

/// Wakes a resource.
pub type Wake = Arc<dyn Fn(&Key) + Send + Sync>;

/// One store, as somebody with certain credentials sees it.
pub struct Door {
    identity: String,
    clock: Clock,
    wake: Wake,
    open: tokio::sync::Mutex<Option<Arc<dyn OpenStore>>>,
    reads: Reads<Place, Stored>,
    finds: Reads<Find, Vec<String>>,
    health: Mutex<Health>,
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

impl<T> Read<T> {
    /// The store did not answer, and others are told that by the store as a whole; who asks again asks it.
    fn has_failed(&self) -> bool {
        self.answer.peek().is_some_and(|answer| answer.as_ref().as_ref().is_err_and(StoreError::is_of_the_store))
    }
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
        let known = reads.get(key).filter(|read| read.since >= fresh && read.begun.elapsed() < HOLD && !read.has_failed());
        let known = known.map(|read| read.answer.clone());
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

/// Whether a store is left alone until then. None is for so long: the clock has been set back.
fn rests(until: Timestamp, now: Timestamp) -> bool {
    now < until && until.duration_since(now) <= LONGEST
}

/// Refuses what no Secret has room for.
fn small(stored: Stored, place: &Place) -> Result<Stored, StoreError> {
    match stored.content.len() {
        0..=MAX_VALUE => Ok(stored),
        length => {
            Err(StoreError::Invalid(format!("{} has {length} bytes, more than the {MAX_VALUE} that a Secret has room for", place.key)))
        }
    }
}

/// Opens a store.
pub type Opener<'a> = BoxFuture<'a, Result<Box<dyn OpenStore>, StoreError>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Door {
    /// Nothing is opened yet. `identity`: the store, and the credentials that it is to be opened with; no secret.
    pub fn new(identity: String, clock: Clock, wake: Wake) -> Self {
        Self {
            identity,
            clock,
            wake,
            open: tokio::sync::Mutex::default(),
            reads: Reads::new(),
            finds: Reads::new(),
            health: Mutex::default(),
            batch: Mutex::default(),
            single: AtomicBool::new(false),
        }
    }

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
                let answer = door.ask(&store, &asked).await.and_then(|stored| small(stored, &asked));
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
                let late = |_| Err(StoreError::Invalid(format!("find did not come to an end within {MOST:?}; narrow it")));
                // That there is much to look through says nothing about the store.
                let answer = tokio::time::timeout(MOST, store.find(&asked)).await.unwrap_or_else(late);
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
        if rests(until, self.clock.now()) || health.probe.is_some_and(|since| since.elapsed() < MOST) {
            return Err(error);
        }
        health.probe = Some(Instant::now());
        Ok(())
    }

    /// Until when it is to be left alone, if it is, and what it said: who is in the middle of asking asks no more.
    pub fn left_alone(&self) -> Option<(Timestamp, StoreError)> {
        lock(&self.health).down.clone().filter(|(until, _)| rests(*until, self.clock.now()))
    }

    /// How many values are asked for at a time, where `few` single calls may be under way: one call tells of a store that was away, and one reads
    /// several where the store has such a call.
    pub fn at_once(&self, store: &dyn OpenStore, few: usize) -> usize {
        match (self.is_probed(), self.single.load(Ordering::Relaxed)) {
            (true, _) => 1,
            (false, true) => few,
            (false, false) => store.batch().max(few),
        }
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

    /// The store, and the credentials that it is opened with: no secret.
    pub fn identity(&self) -> &str {
        &self.identity
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
        if health.down.as_ref().is_some_and(|(until, _)| rests(*until, now)) {
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

    /// Forgets values that nobody has come for.
    pub fn sweep(&self) {
        self.reads.sweep();
        self.finds.sweep();
    }

    /// Prolongs what the store has lent to us. One that is left alone is not asked, and one that is being opened lends only now.
    pub async fn keep(&self) {
        let open = self.open.try_lock().ok().and_then(|open| open.clone());
        let Some(store) = open.filter(|_| self.left_alone().is_none()) else { return };
        // One that is slow keeps nobody else waiting; it is asked again.
        let Ok(kept) = tokio::time::timeout(KEEP, store.keep()).await else { return };
        if kept != Ok(false) {
            self.heard(&kept);
        }
    }

    /// Gives back what the store has lent to us.
    pub async fn close(&self) {
        if let Some(store) = self.open.lock().await.take() {
            store.close().await;
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::atomic::AtomicUsize;

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

    fn who(number: usize) -> Key {
        ("n".into(), format!("r{number}"))
    }

    fn place(key: &str) -> Place {
        Place { key: key.into(), version: None }
    }

    struct World {
        door: Arc<Door>,
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
            let door = Arc::new(Door::new("n spec 1".into(), clock.clone(), wake));
            Self { door, clock, woken, store: counted.clone(), counted }
        }

        /// So many want each of `keys` at the same time.
        async fn read(&self, keys: &[String], each: usize) -> Vec<Answer> {
            let (door, fresh) = (&self.door, self.clock.now());
            let reads = keys.iter().flat_map(|key| (0..each).map(move |number| (key, number)));
            join_all(reads.map(|(key, number)| async move { door.read(&self.store, &place(key), &who(number), (fresh, each)).await })).await
        }
    }

    #[tokio::test]
    async fn one_call_serves_all_who_want_the_same() {
        let world = World::new(Counted::default());
        let keys: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
        assert!(world.read(&keys, 50).await.iter().all(|answer| answer.is_ok()));
        assert_eq!(world.counted.counts(), [20, 0, 0]);
        assert!(lock(&world.door.reads.0).is_empty(), "no value is kept when all have it");
        world.read(&keys, 1).await;
        assert_eq!(world.counted.counts(), [20, 0, 0], "and the next round asks again");
        let (door, fresh, find) = (&world.door, world.clock.now(), Find { path: None, name: None, tags: BTreeMap::new() });
        let (find, store) = (&find, &world.store);
        join_all((0..50).map(|number| async move { door.find(store, find, &who(number), (fresh, 50)).await })).await;
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
    async fn a_store_that_fails_is_left_alone_and_asked_again_once() {
        let world = World::new(Counted::default());
        world.counted.fail(Some(StoreError::Unavailable("away".into())));
        world.read(&["a".into()], 1).await;
        let door = &world.door;
        assert!(door.may().is_err() && door.left_alone().is_some());
        for number in 0..100 {
            door.waits(&who(number)).unwrap();
        }
        world.clock.advance(SignedDuration::from_mins(6));
        assert!(door.left_alone().is_none() && door.is_probed());
        assert!(door.may().is_ok(), "the first asks");
        assert!(door.may().is_err(), "the others wait for what it hears");
        world.read(&["a".into()], 1).await;
        assert!(door.may().is_err(), "it is still away");
        world.clock.advance(SignedDuration::from_mins(6));
        world.counted.fail(None);
        assert!(door.may().is_ok());
        world.read(&["a".into()], 1).await;
        assert_eq!(lock(&world.woken).len(), 100, "who waited is told");
        assert!(door.may().is_ok() && door.may().is_ok() && !door.is_probed());
        // What is about one value says nothing about the store.
        for error in [StoreError::Denied("d".into()), StoreError::NotFound("n".into()), StoreError::Invalid("i".into())] {
            world.counted.fail(Some(error));
            world.read(&["a".into()], 1).await;
            assert!(door.may().is_ok());
        }
    }

    #[tokio::test]
    async fn a_store_that_asks_to_wait_is_left_alone_for_so_long_but_not_for_ever() {
        for (asks, waits) in [(90, 90), (0, 1), (86_400, LONGEST.as_secs())] {
            let world = World::new(Counted::default());
            let after = Some(Duration::from_secs(asks));
            world.counted.fail(Some(StoreError::Throttled { after, message: "wait".into() }));
            world.read(&["a".into()], 1).await;
            let (door, now) = (&world.door, world.clock.now());
            let until = door.waits(&who(0)).unwrap().duration_since(now).as_secs_f64();
            let waits = f64::from(i32::try_from(waits).unwrap());
            assert!((waits - 1.0..=waits).contains(&until), "it asks for {asks} s and has {until} s");
            assert!(door.is_probed());
            world.counted.fail(None);
            world.read(&["a".into()], 1).await;
            assert!(!door.is_probed());
        }
    }

    #[tokio::test]
    async fn that_the_store_did_not_answer_is_no_answer_for_who_asks_later() {
        let world = World::new(Counted::default());
        let (door, fresh) = (&world.door, world.clock.now());
        let read = async |number| door.read(&world.store, &place("a"), &who(number), (fresh, 3)).await;
        for (error, calls) in [(StoreError::Unavailable("away".into()), 2), (StoreError::Denied("no".into()), 1)] {
            world.counted.fail(Some(error));
            assert!(read(0).await.is_err());
            world.counted.fail(None);
            assert_eq!(read(1).await.is_ok(), calls == 2);
            assert_eq!(world.counted.counts(), [calls, 0, 0]);
            door.forget("a");
        }
    }

    #[tokio::test]
    async fn what_no_secret_has_room_for_is_not_kept() {
        let world = World::new(Counted { length: MAX_VALUE + 1, ..Counted::default() });
        let answers = world.read(&["a".into()], 1).await;
        assert!(matches!(answers[0].as_ref(), Err(StoreError::Invalid(why)) if why.contains("more than")));
        assert!(world.door.may().is_ok());
    }

    #[test]
    fn no_store_is_left_alone_for_long_when_the_clock_is_set_back() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert!(rests(now + LONGEST, now) && rests(now + SignedDuration::from_secs(1), now));
        assert!(!rests(now, now) && !rests(now + LONGEST + SignedDuration::from_secs(1), now));
    }
}
