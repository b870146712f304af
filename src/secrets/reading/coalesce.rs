//! Calls whose answer serves several: whoever asks for the same while a call is under way, or shortly after, gets its answer.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use jiff::Timestamp;

use crate::secrets::{
    index::Key,
    store::{Answer, StoreError},
};

/// A value is kept for so long at most, for those who are still to come for it.
const VALUE_TTL: Duration = Duration::from_mins(1);

/// Which answers somebody takes, and how many will.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// An answer to a call that began before this is too old.
    pub fresh_since: Timestamp,
    /// The answer is kept until so many have taken it.
    pub readers: usize,
}

/// Calls under way and answers that are still wanted, by what was asked for.
pub struct Coalesced<K, T>(Mutex<HashMap<K, Call<T>>>);

struct Call<T> {
    /// When it began, by the clock that [`Demand::fresh_since`] is of.
    since: Timestamp,
    begun: Instant,
    /// Who has taken the answer.
    readers: BTreeSet<Key>,
    answer: Shared<BoxFuture<'static, Answer<T>>>,
}

impl<T> Call<T> {
    /// Whether the store failed as a whole. That is nothing to keep: the breaker tells the others, and who asks after it asks the store.
    fn has_failed(&self) -> bool {
        self.answer.peek().is_some_and(|answer| answer.as_ref().as_ref().is_err_and(StoreError::is_store_wide))
    }
}

impl<K, T> Default for Coalesced<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, T> Coalesced<K, T> {
    /// The answer of a call for `key` that `demand` allows, or of the one that `call` begins `now`. `who` reads it.
    pub fn share(
        &self,
        (key, who): (&K, &Key),
        demand: Demand,
        now: Timestamp,
        call: impl FnOnce() -> BoxFuture<'static, Answer<T>>,
    ) -> Shared<BoxFuture<'static, Answer<T>>> {
        let mut calls = self.lock();
        let is_usable = |call: &&Call<T>| call.since >= demand.fresh_since && call.begun.elapsed() < VALUE_TTL && !call.has_failed();
        let known = calls.get(key).filter(is_usable).map(|call| call.answer.clone());
        let answer = known.unwrap_or_else(|| {
            let answer = call().shared();
            calls.insert(key.clone(), Call { since: now, begun: Instant::now(), readers: BTreeSet::new(), answer: answer.clone() });
            answer
        });
        if let Some(call) = calls.get_mut(key) {
            call.readers.insert(who.clone());
            if call.readers.len() >= demand.readers {
                calls.remove(key);
            }
        }
        answer
    }

    /// Drops the answers for which `is_outdated` says so.
    pub fn invalidate(&self, is_outdated: impl Fn(&K) -> bool) {
        self.lock().retain(|key, _| !is_outdated(key));
    }

    /// Drops answers that nobody has come for in time.
    pub fn sweep(&self) {
        self.lock().retain(|_, call| call.begun.elapsed() < VALUE_TTL);
    }

    /// Whether nothing is kept.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Call<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
