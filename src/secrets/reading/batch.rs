//! Reads of several values with one call, where the store has such a call: keys that are asked for in the same moment go together.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use tokio::sync::oneshot;

use super::connection::in_time;
use crate::secrets::store::{OpenStore, Place, StoreError, Stored};

/// For so long a call for several values waits for further keys: less than anybody notices.
const WINDOW: Duration = Duration::from_millis(10);

/// Keys that wait for the next call.
#[derive(Default)]
pub struct Batches {
    waiting: Mutex<Vec<Asked>>,
    /// The call for several values is not allowed: values are read one by one.
    is_denied: AtomicBool,
}

/// A key, and who waits for its value.
type Asked = (String, oneshot::Sender<Result<Stored, StoreError>>);

impl Batches {
    /// How many values are read with one call; 1: they are read one by one.
    pub fn size(&self, store: &dyn OpenStore) -> usize {
        if self.is_denied.load(Ordering::Relaxed) { 1 } else { store.batch() }
    }

    /// Reads the current version of one value, with others that are asked for within [`WINDOW`].
    pub async fn read(self: &Arc<Self>, store: &Arc<dyn OpenStore>, key: &str) -> Result<Stored, StoreError> {
        let (sender, answer) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push((key.to_owned(), sender));
            waiting.len() == 1
        };
        if is_first {
            tokio::spawn(self.clone().read_all(store.clone()));
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the call was given up".into())))
    }

    async fn read_all(self: Arc<Self>, store: Arc<dyn OpenStore>) {
        tokio::time::sleep(WINDOW).await;
        loop {
            let asked: Vec<Asked> = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let most = waiting.len().min(store.batch());
                waiting.drain(..most).collect()
            };
            // Who asks for the same key gets the same answer.
            let mut waiting = BTreeMap::<String, Vec<_>>::new();
            for (key, answer) in asked {
                waiting.entry(key).or_default().push(answer);
            }
            let (keys, answers): (Vec<String>, Vec<_>) = waiting.into_iter().unzip();
            if keys.is_empty() {
                return;
            }
            for (answers, given) in answers.into_iter().zip(self.call(&*store, &keys).await) {
                for answer in answers {
                    let _ = answer.send(given.clone()); // who asked may have given up
                }
            }
        }
    }

    /// One call for all of `keys`; where that is refused, one for each.
    async fn call(&self, store: &dyn OpenStore, keys: &[String]) -> Vec<Result<Stored, StoreError>> {
        let single = async |key: &String| in_time(store.read(&Place { key: key.clone(), version: None })).await;
        if let [key] = keys {
            return vec![single(key).await];
        }
        match in_time(store.read_many(keys)).await {
            Ok(given) => given,
            Err(error) if error.is_store_wide() => vec![Err(error); keys.len()],
            // Reading several is another right than reading one; and one key may spoil the call for all.
            Err(error) => {
                tracing::info!(%error, "several values at a time cannot be read; they are read one by one");
                self.is_denied.fetch_or(matches!(error, StoreError::Denied(_)), Ordering::Relaxed);
                join_all(keys.iter().map(single)).await
            }
        }
    }
}
