//! What the area watches, and what wakes what.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{FutureExt, future::join_all};
use jiff::Timestamp;
use kube::{Api, runtime::reflector::Store};
use tokio::{sync::Semaphore, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    context, controller, gauges,
    index::{entry, refresh_keys},
    reading::{
        pool::StorePool,
        refresh_cache::RefreshCache,
        resolve::{self, ClusterStores},
    },
    store::{Allowed, Store as _},
    store_controller,
    writing::{
        overdue::{self, Over, Overdue},
        withdraw::Withdrawal,
    },
};
use crate::{
    api::{SecretRotation, SecretStore},
    area::{self, Parts, Running},
    cluster::{
        apply::Writer,
        backoff::Failures,
        contest::Contest,
        edits::Edits,
        index::{Key, Shared},
        noticed,
        pace::Pace,
        run::{Guarded, Kind, Settings},
    },
    inventory::{Facts, Inventory, secrets::SecretFact},
    rollout::{act::Restarter, roll::Roller},
    telemetry::metrics::Secrets,
};

/// The field manager of everything that this area writes.
pub const MANAGER: &str = "seaworthy-secrets";

/// So many resources have values put together at a time: work that takes a core.
const MAX_CPU_JOBS: usize = 4;

/// How often it is checked whether a token or another lease has to be renewed; short enough for a TTL of 15 s.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// How often values that nobody has come for are dropped, keys withdrawn whose resources are gone, and previous values taken out that no look does.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The caches of one scope, for who counts and shows.
pub struct Caches {
    rotations: Store<Guarded<SecretRotation>>,
    shared: Option<Store<Guarded<SecretStore>>>,
    secrets: Facts<SecretFact>,
    pool: StorePool,
}

impl Caches {
    /// Adds what is in them.
    pub fn count(&self, counts: &mut Secrets, now: Timestamp) {
        self.rotations.state().iter().for_each(|rotation| gauges::rotation(counts, rotation.0.as_ref().ok(), now));
        let kept = overdue::overdue(&self.rotations, &self.secrets, (Over::Previous, now, gauges::GRACE));
        counts.previous_overdue += i64::try_from(kept.len()).unwrap_or(i64::MAX);
        let shared = self.shared.iter().flat_map(Store::state);
        shared.for_each(|store| gauges::store(counts, store.0.as_ref().ok()));
        counts.stores_away += i64::try_from(self.pool.away()).unwrap_or(i64::MAX);
    }
}

/// Everything of one scope: the whole cluster (`namespace` None) or one namespace, without the cluster-scoped kinds.
pub fn run(parts: &Parts, allowed: Allowed, (namespace, inventory): (Option<&str>, Inventory), stop: CancellationToken) -> Running<Caches> {
    let (client, leadership) = (parts.client.clone(), parts.leadership.clone());
    let api = namespace.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace));
    let mut rotations = Kind::<SecretRotation>::new(api, leadership.clone());
    // One read serves all who want the same value, and it does not lie about until the last of them comes.
    rotations.together = Some(|rotation| refresh_keys(&rotation.spec).pop_first().unwrap_or_default());
    let shared = namespace.is_none().then(|| Kind::<SecretStore>::new(Api::all(client), leadership));
    let place = namespace.map(|namespace| format!(" in {namespace}")).unwrap_or_default();
    parts.readiness.wait_for(&format!("SecretRotations{place}"), rotations.filled());
    if let Some(shared) = &shared {
        parts.readiness.wait_for("SecretStores", shared.filled());
    }

    let (index, waker, wakes) = (Shared::default(), rotations.waker.clone(), rotations.waker.clone());
    let pool = StorePool::new(parts.clock.clone(), Arc::new(move |key: &Key| wakes.wake(Some(&key.0), &key.1)));
    let caches = Caches {
        rotations: rotations.store.clone(),
        shared: shared.as_ref().map(|shared| shared.store.clone()),
        secrets: inventory.secrets.clone(),
        pool: pool.clone(),
    };
    let cluster_stores = shared.as_ref().map(|shared| cluster_stores(parts, shared, &inventory));
    let context = Arc::new(rotation_context(parts, &index, (inventory.clone(), pool.clone(), allowed.clone()), cluster_stores));
    let named = shared.as_ref().map(|shared| noticed::Named {
        waker: shared.waker.clone(),
        store: shared.store.clone(),
        operator_namespace: parts.operator_namespace.clone(),
        secrets: |store| store.spec.store.secrets(),
    });
    let hear = area::hear(index.clone(), waker.clone(), named, (context.writer.clone(), inventory.secrets.clone()));

    let settings = |first| Settings { concurrency: parts.concurrency, metrics: parts.metrics.clone(), stop: stop.clone(), first };
    let (shared_waker, listed) = (shared.as_ref().map(|shared| shared.waker.clone()), shared.as_ref().map(Kind::filled));
    let mut loops = Vec::new();
    if let Some(shared) = shared {
        let store_context = Arc::new(store_context(parts, &index, (inventory.clone(), pool.clone(), allowed.clone())));
        let noticed = noticed::of_named_kind(index.clone(), waker.clone());
        loops.push(shared.run(settings(std::future::ready(()).boxed()), store_context, noticed, store_controller::reconcile).boxed());
    }
    let withdrawal = withdrawal(&context, rotations.store.clone());
    let filled = (rotations.filled(), inventory.clone());
    // Who uses a Secret cannot be told before the inventory is filled; whether a store allows a namespace, not before they are listed, too.
    let first = async move {
        inventory.filled().await;
        if let Some(listed) = listed {
            listed.await;
        }
    };
    let noticed = noticed::of_own_kind(index, waker, shared_waker, entry);
    loops.push(rotations.run(settings(first.boxed()), context.clone(), noticed, controller::reconcile).boxed());
    let work = async move {
        tokio::select! {
            () = area::until_all_ended(loops, stop, "secrets") => {}
            () = keep_house(&context, &withdrawal, filled) => {}
        }
        pool.close().await;
    };
    Running { store: caches, hear, work: work.boxed() }
}

fn cluster_stores(parts: &Parts, shared: &Kind<SecretStore>, inventory: &Inventory) -> ClusterStores {
    ClusterStores {
        store: shared.store.clone(),
        waker: shared.waker.clone(),
        namespaces: inventory.namespaces.clone(),
        operator_namespace: parts.operator_namespace.clone(),
    }
}

/// Drops values that nobody has come for, renews leases, and withdraws what resources that are gone, or whose spec has led elsewhere, have left, once it is
/// known which are there.
async fn keep_house(context: &context::Context, withdrawal: &Withdrawal, filled: (impl Future<Output = ()>, Inventory)) {
    let sweep = async {
        let mut round = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            round.tick().await;
            context.pool.sweep(|| resolve::referenced(context, &withdrawal.rotations));
        }
    };
    let renew = async {
        let mut round = tokio::time::interval(RENEW_INTERVAL);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            round.tick().await;
            context.pool.renew().await;
        }
    };
    let withdraw = async {
        filled.0.await;
        filled.1.filled().await;
        let mut round = tokio::time::interval(SWEEP_INTERVAL);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Who waits for a store holds up nobody else.
        let rounds = [Overdue::of(Over::Previous), Overdue::of(Over::Versions)].map(|mut overdue| async move {
            let mut round = tokio::time::interval(SWEEP_INTERVAL);
            round.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                round.tick().await;
                Box::pin(overdue.round(context, &withdrawal.rotations)).await;
            }
        });
        let withdraw = async {
            let mut resting = HashMap::new();
            loop {
                round.tick().await;
                withdrawal.round(&mut resting).await;
            }
        };
        tokio::join!(withdraw, join_all(rounds));
    };
    tokio::join!(sweep, renew, withdraw);
}

fn store_context(parts: &Parts, index: &Shared, (inventory, pool, allowed): (Inventory, StorePool, Allowed)) -> store_controller::Context {
    store_controller::Context {
        client: parts.client.clone(),
        writer: Writer::new(parts.client.clone(), parts.leadership.clone(), MANAGER),
        clock: parts.clock.clone(),
        index: index.clone(),
        operator_namespace: parts.operator_namespace.clone(),
        allowed,
        events: parts.events.clone(),
        audit: parts.audit.clone(),
        steps: parts.steps.on(store_controller::KIND),
        failures: Failures::default(),
        pool,
        secrets: inventory.secrets,
        checks: store_controller::Checks::default(),
    }
}

fn withdrawal(context: &context::Context, rotations: Store<Guarded<SecretRotation>>) -> Withdrawal {
    Withdrawal {
        rotations,
        secrets: context.roller.inventory.secrets.clone(),
        client: context.client.clone(),
        writer: context.writer.clone(),
        audit: context.audit.clone(),
        clock: context.clock.clone(),
    }
}

fn rotation_context(
    parts: &Parts,
    index: &Shared,
    (inventory, pool, allowed): (Inventory, StorePool, Allowed),
    cluster_stores: Option<ClusterStores>,
) -> context::Context {
    context::Context {
        writer: Writer::new(parts.client.clone(), parts.leadership.clone(), MANAGER),
        client: parts.client.clone(),
        events: parts.events.clone(),
        audit: parts.audit.clone(),
        metrics: parts.metrics.clone(),
        steps: parts.steps.clone(),
        clock: parts.clock.clone(),
        index: index.clone(),
        cluster_stores,
        pool,
        allowed,
        refresh_cache: RefreshCache::default(),
        compute: Semaphore::new(MAX_CPU_JOBS),
        failures: Failures::default(),
        races: Failures::default(),
        roller: Roller {
            inventory,
            restarter: Restarter::new(parts.client.clone(), parts.leadership.clone(), &parts.operator_namespace, parts.budget.clone()),
            steps: parts.steps.clone(),
        },
        contest: Contest::default(),
        edits: Edits::default(),
        pace: Pace::default(),
    }
}
