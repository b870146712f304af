//! The time of day, as everything but the lease asks for it.

use jiff::Timestamp;

/// Tells the time. Only with the feature `testing` it can be moved, for all clones at once.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    #[cfg(feature = "testing")]
    offset: std::sync::Arc<std::sync::atomic::AtomicI64>,
}

impl Clock {
    /// Now.
    #[cfg(not(feature = "testing"))]
    #[expect(clippy::unused_self, reason = "with the feature `testing` it has an offset")]
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Now, moved by the offset.
    #[cfg(feature = "testing")]
    pub fn now(&self) -> Timestamp {
        let seconds = self.offset.load(std::sync::atomic::Ordering::SeqCst);
        Timestamp::now() + jiff::SignedDuration::from_secs(seconds)
    }

    /// Moves it on.
    #[cfg(feature = "testing")]
    pub fn advance(&self, by: jiff::SignedDuration) {
        self.offset.fetch_add(by.as_secs(), std::sync::atomic::Ordering::SeqCst);
    }
}
