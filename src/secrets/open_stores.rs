//! Which stores are open: one door for each store and credential, for as long as there is somebody who uses it, however seldom; what a store has lent is
//! prolonged meanwhile, and given back then.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::fetch::{Door, Wake};
use crate::clock::Clock;

/// What nobody came for in this time may have no user any more.
const IDLE: SignedDuration = SignedDuration::from_mins(1);
/// Who uses a store that is away comes again within twice the time for which it is left alone at most.
const USED: SignedDuration = SignedDuration::from_mins(10);
/// A namespace has no more stores open at a time.
const MOST: usize = 64;
/// So many stores that nobody uses are closed at a time.
const CLOSED_AT_ONCE: usize = 32;
/// And so many wait for it.
const MOST_LEFT: usize = 256;
/// When the process ends, what was lent is given back so long.
const CLOSE: Duration = Duration::from_secs(5);

/// All stores that are in use.
#[derive(Clone)]
pub struct Stores {
    clock: Clock,
    wake: Wake,
    doors: Arc<Mutex<Doors>>,
}

/// Whose it is, and a hash of what it is.
type DoorKey = (String, String);

#[derive(Default)]
struct Doors {
    open: HashMap<DoorKey, Open>,
    /// Those that were replaced by one with other credentials, are too many, or that nobody uses: closed when nobody is in them any more.
    left: Vec<Arc<Door>>,
}

/// What tells stores apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A namespace, or a SecretStore.
    pub owner: String,
    /// A hash of what it is.
    pub spec: String,
    /// Which credentials it is opened with: no secret.
    pub credentials: String,
}

impl Identity {
    fn key(&self) -> DoorKey {
        (self.owner.clone(), self.spec.clone())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.owner, self.spec, self.credentials)
    }
}

struct Open {
    door: Arc<Door>,
    /// When somebody came for it.
    last_used: Timestamp,
    /// When a resource was known to refer to it.
    last_referenced: Timestamp,
}

impl Stores {
    /// None yet. `wake` is called for those who waited for a store that is back.
    pub fn new(clock: Clock, wake: Wake) -> Self {
        Self { clock, wake, doors: Arc::default() }
    }

    /// The store, opened with these credentials: with others it is opened anew.
    pub fn door(&self, identity: &Identity) -> Arc<Door> {
        let now = self.clock.now();
        let mut doors = self.lock();
        let (owner, key, identity) = (&identity.owner, identity.key(), identity.to_string());
        if let Some(open) = doors.open.get_mut(&key).filter(|open| open.door.identity() == identity) {
            (open.last_used, open.last_referenced) = (now, now);
            return open.door.clone();
        }
        let of_owner = doors.open.iter().filter(|((whose, _), _)| whose == owner);
        let mut others: Vec<(Timestamp, String)> = of_owner.map(|((_, spec), open)| (open.last_used, spec.clone())).collect();
        others.sort();
        let too_many = others.len().saturating_sub(MOST - 1);
        for (_, spec) in others.into_iter().take(too_many) {
            doors.leave(&(owner.clone(), spec));
        }
        doors.leave(&key);
        let door = Arc::new(Door::new(identity, self.clock.clone(), self.wake.clone()));
        doors.open.insert(key, Open { door: door.clone(), last_used: now, last_referenced: now });
        door
    }

    /// The same, if it is open: who only wants to know how it is does not keep it so.
    pub fn opened(&self, identity: &Identity) -> Option<Arc<Door>> {
        let doors = self.lock();
        doors.open.get(&identity.key()).map(|open| open.door.clone()).filter(|door| door.identity() == identity.to_string())
    }

    /// Forgets values that nobody has come for, and stores that no resource refers to. `referenced`: those that one does, as [`Identity`] is written; it is
    /// only asked if nobody came for one.
    pub fn sweep(&self, referenced: impl FnOnce() -> HashSet<String>) {
        let now = self.clock.now();
        let is_idle = |open: &Open| now.duration_since(open.last_referenced) > IDLE;
        let some = self.lock().open.values().any(is_idle);
        let referenced = if some { referenced() } else { HashSet::new() };
        let mut doors = self.lock();
        doors.open.values().map(|open| &open.door).chain(&doors.left).for_each(|door| door.sweep());
        let idle: Vec<_> = doors.open.iter().filter(|(_, open)| is_idle(open)).map(|(key, _)| key.clone()).collect();
        for key in idle {
            match doors.open.get_mut(&key) {
                Some(open) if referenced.contains(open.door.identity()) => open.last_referenced = now,
                _ => doors.leave(&key),
            }
        }
        let (busy, mut free): (Vec<_>, Vec<_>) = doors.left.drain(..).partition(|door| Arc::strong_count(door) > 1);
        doors.left = busy;
        // What has to wait is closed with a later round; if it is very much, what was lent ends by itself.
        doors.left.extend(free.split_off(free.len().min(CLOSED_AT_ONCE)).into_iter().take(MOST_LEFT));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        for door in free {
            runtime.spawn(async move { door.close().await });
        }
    }

    /// Prolongs what stores have lent to us, where it ends soon.
    pub async fn keep(&self) {
        let doors: Vec<_> = self.lock().open.values().map(|open| open.door.clone()).collect();
        join_all(doors.iter().map(|door| door.keep())).await;
    }

    /// How many are in use that have not answered since they failed or asked to wait.
    pub fn away(&self) -> usize {
        let now = self.clock.now();
        self.lock().open.values().filter(|open| open.door.is_probed() && now.duration_since(open.last_used) < USED).count()
    }

    /// Gives back what stores have lent to us.
    pub async fn close(&self) {
        let doors: Vec<_> = {
            let mut doors = self.lock();
            let left = std::mem::take(&mut doors.left);
            doors.open.drain().map(|(_, open)| open.door).chain(left).collect()
        };
        // One that does not answer is no reason to keep what others have lent.
        join_all(doors.iter().map(|door| tokio::time::timeout(CLOSE, door.close()))).await;
    }

    fn lock(&self) -> MutexGuard<'_, Doors> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doors {
    fn leave(&mut self, key: &DoorKey) {
        let open = self.open.remove(key);
        self.left.extend(open.map(|open| open.door));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use futures::{FutureExt, future::BoxFuture};

    use super::*;
    use crate::secrets::store::{Find, OpenStore, Place, StoreError, Stored, Write};

    /// Counts how often it is prolonged and closed.
    #[derive(Clone, Default)]
    struct Lent {
        kept: Arc<AtomicUsize>,
        closed: Arc<AtomicUsize>,
        fails: Arc<AtomicBool>,
    }

    impl OpenStore for Lent {
        fn read<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Stored, StoreError>> {
            async { Err(StoreError::NotFound(place.key.clone())) }.boxed()
        }

        fn find<'a>(&'a self, _: &'a Find) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
            async { Ok(Vec::new()) }.boxed()
        }

        fn write<'a>(&'a self, _: Write<'a>) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
            async { Ok(None) }.boxed()
        }

        fn check(&self) -> BoxFuture<'_, Result<(), StoreError>> {
            async { Ok(()) }.boxed()
        }

        fn keep(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
            async {
                self.kept.fetch_add(1, Ordering::SeqCst);
                if self.fails.load(Ordering::SeqCst) { Err(StoreError::Unavailable("sealed".into())) } else { Ok(true) }
            }
            .boxed()
        }

        fn close(&self) -> BoxFuture<'_, ()> {
            async {
                self.closed.fetch_add(1, Ordering::SeqCst);
            }
            .boxed()
        }
    }

    fn stores() -> (Stores, Clock) {
        let clock = Clock::default();
        (Stores::new(clock.clone(), Arc::new(|_| {})), clock)
    }

    fn door(stores: &Stores, (owner, spec, credentials): (&str, &str, &str)) -> Arc<Door> {
        stores.door(&Identity { owner: owner.into(), spec: spec.into(), credentials: credentials.into() })
    }

    async fn open(door: &Door, store: &Lent) {
        let store: Box<dyn OpenStore> = Box::new(store.clone());
        door.open(async { Ok(store) }.boxed()).await.unwrap();
    }

    async fn closed(store: &Lent) -> usize {
        tokio::task::yield_now().await;
        store.closed.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn stores_of_one_namespace_do_not_pile_up() {
        let (stores, _) = stores();
        let other = door(&stores, ("other", "spec", "1"));
        for number in 0..3 * MOST {
            door(&stores, ("n", "spec", &format!("credentials {number}")));
            door(&stores, ("n", &format!("spec {number}"), "1"));
        }
        assert_eq!(stores.lock().open.len(), MOST + 1);
        assert!(Arc::ptr_eq(&other, &door(&stores, ("other", "spec", "1"))), "that of others stays");
        for _ in 0..20 {
            stores.sweep(HashSet::new);
        }
        assert!(stores.lock().left.is_empty());
        assert!(!Arc::ptr_eq(&door(&stores, ("n", "spec", "1")), &door(&stores, ("n", "spec", "2"))), "other credentials, another login");
    }

    #[tokio::test]
    async fn a_store_is_open_for_as_long_as_somebody_uses_it_however_seldom() {
        let ((stores, clock), store) = (stores(), Lent::default());
        open(&door(&stores, ("n", "spec", "1")), &store).await;
        let used = || HashSet::from(["n spec 1".to_owned()]);
        stores.sweep(|| unreachable!("somebody has just come"));
        for _ in 0..10 {
            clock.advance(SignedDuration::from_hours(100));
            stores.sweep(used);
            assert_eq!((closed(&store).await, stores.lock().open.len()), (0, 1), "it is there");
        }
        stores.sweep(|| unreachable!("it was just seen that somebody uses it"));
        clock.advance(IDLE + SignedDuration::from_secs(1));
        stores.sweep(|| HashSet::from(["other spec 1".to_owned(), "n spec 2".to_owned()]));
        assert_eq!((closed(&store).await, stores.lock().open.len()), (1, 0), "it is given back");
    }

    #[tokio::test]
    async fn who_is_in_a_store_is_not_shut_out() {
        let ((stores, clock), store) = (stores(), Lent::default());
        let inside = door(&stores, ("n", "spec", "1"));
        open(&inside, &store).await;
        clock.advance(SignedDuration::from_hours(2));
        stores.sweep(HashSet::new);
        assert_eq!(closed(&store).await, 0);
        drop(inside);
        stores.sweep(HashSet::new);
        assert_eq!(closed(&store).await, 1);
    }

    #[tokio::test]
    async fn what_was_lent_is_prolonged_but_not_by_a_store_that_is_away() {
        let ((stores, clock), store) = (stores(), Lent::default());
        let failing = Lent::default();
        failing.fails.store(true, Ordering::SeqCst);
        stores.keep().await;
        open(&door(&stores, ("n", "spec", "1")), &store).await;
        open(&door(&stores, ("n", "failing", "1")), &failing).await;
        door(&stores, ("n", "not opened", "1"));
        for _ in 0..3 {
            stores.keep().await;
        }
        assert_eq!(store.kept.load(Ordering::SeqCst), 3);
        assert_eq!(failing.kept.load(Ordering::SeqCst), 1);
        assert_eq!(stores.away(), 1, "that it is away is known before somebody needs it");
        failing.fails.store(false, Ordering::SeqCst);
        clock.advance(SignedDuration::from_mins(6));
        stores.keep().await;
        assert_eq!((failing.kept.load(Ordering::SeqCst), stores.away()), (2, 0), "it is asked again when its time has come");
        stores.close().await;
        assert_eq!((closed(&store).await, closed(&failing).await), (1, 1));
    }
}
