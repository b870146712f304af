//! The connections to stores: one for each store and credential, open for as long as a resource refers to it, however seldom that reads. What a store
//! has issued, such as a token, is renewed meanwhile, and given back when the connection is closed.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::connection::{StoreConnection, Wake};
use crate::clock::Clock;

/// A connection that nobody has used for so long may have no user any more: it is looked whether a resource refers to it.
const IDLE_AFTER: SignedDuration = SignedDuration::from_mins(1);
/// Who uses a store that is away comes again within twice the longest pause.
const RECENTLY_USED: SignedDuration = SignedDuration::from_mins(32);
/// A namespace has no more connections open at a time; of more, the one that was used least recently is closed.
const MAX_OPEN_PER_NAMESPACE: usize = 64;
/// So many connections are closed at a time.
const MAX_CLOSING: usize = 32;
/// So many wait to be closed; what was issued to further ones ends by itself.
const MAX_LEFT: usize = 256;
/// When the process ends, each store has so long to take back what it has issued.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// All connections.
#[derive(Clone)]
pub struct StorePool {
    clock: Clock,
    wake: Wake,
    connections: Arc<Mutex<Connections>>,
}

/// Whose it is, and a hash of what it is.
type PoolKey = (String, String);

#[derive(Default)]
struct Connections {
    open: HashMap<PoolKey, Open>,
    /// To be closed, as soon as no call of theirs is under way: those that nobody refers to, that are too many, or whose credentials are others now.
    left: Vec<Arc<StoreConnection>>,
}

/// What tells connections apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    /// A namespace, or a SecretStore.
    pub owner: String,
    /// A hash of what it is.
    pub spec: String,
    /// Which credentials it is opened with: no secret.
    pub credentials: String,
}

impl ConnectionId {
    fn key(&self) -> PoolKey {
        (self.owner.clone(), self.spec.clone())
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.owner, self.spec, self.credentials)
    }
}

struct Open {
    connection: Arc<StoreConnection>,
    /// When somebody came for it.
    last_used: Timestamp,
    /// When a resource was known to refer to it.
    last_referenced: Timestamp,
}

impl StorePool {
    /// None yet. `wake` is called for resources that waited for a store, when that answers again.
    pub fn new(clock: Clock, wake: Wake) -> Self {
        Self { clock, wake, connections: Arc::default() }
    }

    /// The connection of that id, made if there is none. One to the same store with other credentials is closed.
    pub fn connection(&self, id: &ConnectionId) -> Arc<StoreConnection> {
        let now = self.clock.now();
        let mut connections = self.lock();
        let (owner, key, id) = (&id.owner, id.key(), id.to_string());
        if let Some(open) = connections.open.get_mut(&key).filter(|open| open.connection.id() == id) {
            (open.last_used, open.last_referenced) = (now, now);
            return open.connection.clone();
        }
        let of_owner = connections.open.iter().filter(|((whose, _), _)| whose == owner);
        let mut others: Vec<(Timestamp, String)> = of_owner.map(|((_, spec), open)| (open.last_used, spec.clone())).collect();
        others.sort();
        let too_many = others.len().saturating_sub(MAX_OPEN_PER_NAMESPACE - 1);
        for (_, spec) in others.into_iter().take(too_many) {
            connections.leave(&(owner.clone(), spec));
        }
        connections.leave(&key);
        let connection = Arc::new(StoreConnection::new(id, self.clock.clone(), self.wake.clone()));
        connections.open.insert(key, Open { connection: connection.clone(), last_used: now, last_referenced: now });
        connection
    }

    /// The same, if there is one; asking for it does not count as use.
    pub fn opened(&self, id: &ConnectionId) -> Option<Arc<StoreConnection>> {
        let connections = self.lock();
        connections.open.get(&id.key()).map(|open| open.connection.clone()).filter(|connection| connection.id() == id.to_string())
    }

    /// Drops values that nobody has come for, and connections that no resource refers to. `referenced`: the [`ConnectionId`]s that one does refer to, as
    /// text; only asked for if a connection is idle.
    pub fn sweep(&self, referenced: impl FnOnce() -> HashSet<String>) {
        let now = self.clock.now();
        let is_idle = |open: &Open| now.duration_since(open.last_referenced) > IDLE_AFTER;
        let some = self.lock().open.values().any(is_idle);
        let referenced = if some { referenced() } else { HashSet::new() };
        let mut connections = self.lock();
        connections.open.values().map(|open| &open.connection).chain(&connections.left).for_each(|connection| connection.sweep());
        let idle: Vec<_> = connections.open.iter().filter(|(_, open)| is_idle(open)).map(|(key, _)| key.clone()).collect();
        for key in idle {
            match connections.open.get_mut(&key) {
                Some(open) if referenced.contains(open.connection.id()) => open.last_referenced = now,
                _ => connections.leave(&key),
            }
        }
        let (busy, mut free): (Vec<_>, Vec<_>) = connections.left.drain(..).partition(|connection| Arc::strong_count(connection) > 1);
        connections.left = busy;
        connections.left.extend(free.split_off(free.len().min(MAX_CLOSING)).into_iter().take(MAX_LEFT));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        for connection in free {
            runtime.spawn(async move { connection.close().await });
        }
    }

    /// Renews what stores have issued to us, where it ends soon.
    pub async fn renew(&self) {
        let connections: Vec<_> = self.lock().open.values().map(|open| open.connection.clone()).collect();
        join_all(connections.iter().map(|connection| connection.renew())).await;
    }

    /// How many are in use whose store has not answered since it failed, refused the credentials, or asked to wait.
    pub fn away(&self) -> usize {
        let now = self.clock.now();
        self.lock().open.values().filter(|open| open.connection.is_away() && now.duration_since(open.last_used) < RECENTLY_USED).count()
    }

    /// Closes all.
    pub async fn close(&self) {
        let connections: Vec<_> = {
            let mut connections = self.lock();
            let left = std::mem::take(&mut connections.left);
            connections.open.drain().map(|(_, open)| open.connection).chain(left).collect()
        };
        // Each in its own time: a store that does not answer holds up no other.
        join_all(connections.iter().map(|connection| tokio::time::timeout(CLOSE_TIMEOUT, connection.close()))).await;
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn leave(&mut self, key: &PoolKey) {
        let open = self.open.remove(key);
        self.left.extend(open.map(|open| open.connection));
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

        fn renew(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
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

    fn stores() -> (StorePool, Clock) {
        let clock = Clock::default();
        (StorePool::new(clock.clone(), Arc::new(|_| {})), clock)
    }

    fn connection(stores: &StorePool, (owner, spec, credentials): (&str, &str, &str)) -> Arc<StoreConnection> {
        stores.connection(&ConnectionId { owner: owner.into(), spec: spec.into(), credentials: credentials.into() })
    }

    async fn open(connection: &StoreConnection, store: &Lent) {
        let store: Box<dyn OpenStore> = Box::new(store.clone());
        connection.open(async { Ok(store) }.boxed()).await.unwrap();
    }

    async fn closed(store: &Lent) -> usize {
        tokio::task::yield_now().await;
        store.closed.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn stores_of_one_namespace_do_not_pile_up() {
        let (stores, _) = stores();
        let other = connection(&stores, ("other", "spec", "1"));
        for number in 0..3 * MAX_OPEN_PER_NAMESPACE {
            connection(&stores, ("n", "spec", &format!("credentials {number}")));
            connection(&stores, ("n", &format!("spec {number}"), "1"));
        }
        assert_eq!(stores.lock().open.len(), MAX_OPEN_PER_NAMESPACE + 1);
        assert!(Arc::ptr_eq(&other, &connection(&stores, ("other", "spec", "1"))), "that of others stays");
        for _ in 0..20 {
            stores.sweep(HashSet::new);
        }
        assert!(stores.lock().left.is_empty());
        assert!(
            !Arc::ptr_eq(&connection(&stores, ("n", "spec", "1")), &connection(&stores, ("n", "spec", "2"))),
            "other credentials, another login"
        );
    }

    #[tokio::test]
    async fn a_store_is_open_for_as_long_as_somebody_uses_it_however_seldom() {
        let ((stores, clock), store) = (stores(), Lent::default());
        open(&connection(&stores, ("n", "spec", "1")), &store).await;
        let used = || HashSet::from(["n spec 1".to_owned()]);
        stores.sweep(|| unreachable!("somebody has just come"));
        for _ in 0..10 {
            clock.advance(SignedDuration::from_hours(100));
            stores.sweep(used);
            assert_eq!((closed(&store).await, stores.lock().open.len()), (0, 1), "it is there");
        }
        stores.sweep(|| unreachable!("it was just seen that somebody uses it"));
        clock.advance(IDLE_AFTER + SignedDuration::from_secs(1));
        stores.sweep(|| HashSet::from(["other spec 1".to_owned(), "n spec 2".to_owned()]));
        assert_eq!((closed(&store).await, stores.lock().open.len()), (1, 0), "it is given back");
    }

    #[tokio::test]
    async fn who_is_in_a_store_is_not_shut_out() {
        let ((stores, clock), store) = (stores(), Lent::default());
        let inside = connection(&stores, ("n", "spec", "1"));
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
        stores.renew().await;
        open(&connection(&stores, ("n", "spec", "1")), &store).await;
        open(&connection(&stores, ("n", "failing", "1")), &failing).await;
        connection(&stores, ("n", "not opened", "1"));
        for _ in 0..3 {
            stores.renew().await;
        }
        assert_eq!(store.kept.load(Ordering::SeqCst), 3);
        assert_eq!(failing.kept.load(Ordering::SeqCst), 1);
        assert_eq!(stores.away(), 1, "that it is away is known before somebody needs it");
        failing.fails.store(false, Ordering::SeqCst);
        clock.advance(SignedDuration::from_mins(6));
        stores.renew().await;
        assert_eq!((failing.kept.load(Ordering::SeqCst), stores.away()), (2, 0), "it is asked again when its time has come");
        stores.close().await;
        assert_eq!((closed(&store).await, closed(&failing).await), (1, 1));
    }
}
