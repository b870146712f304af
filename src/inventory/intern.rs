//! Equal values are kept once: the Pods of a workload consume the same things and run the same images. No I/O.

use std::{
    collections::HashSet,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// Values that are kept once.
#[derive(Debug)]
pub struct Interned<T> {
    values: Mutex<HashSet<Arc<[T]>>>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { values: Mutex::default() }
    }
}

impl<T: Eq + Hash> Interned<T> {
    /// Those that nobody holds any more are dropped when there are twice as many as after the last time.
    const FEW: usize = 256;

    /// The one that is equal to `list`, or `list` itself from now on.
    pub fn of(&self, list: Vec<T>) -> Arc<[T]> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = values.get(list.as_slice()) {
            return known.clone();
        }
        if values.len() == values.capacity() && values.len() >= Self::FEW {
            values.retain(|value| Arc::strong_count(value) > 1);
        }
        let list: Arc<[T]> = list.into();
        values.insert(list.clone());
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_is_the_same_and_what_is_forgotten_is_dropped() {
        let interned = Interned::default();
        let kept = interned.of(vec![0]);
        assert!(Arc::ptr_eq(&kept, &interned.of(vec![0])));
        for number in 1..100_000 {
            interned.of(vec![number]);
        }
        assert!(interned.values.lock().is_ok_and(|values| values.len() < 10_000), "they do not pile up");
        assert!(Arc::ptr_eq(&kept, &interned.of(vec![0])));
    }
}
