//! Values are read: which store is meant, the connection to it that all resources share, and when which key is read again.
//!
//! ```text
//!   resolve (which store) ─► pool ─► connection ─┬─ coalesce   one call for all who read a key
//!                                                ├─ batch      several keys with one call
//!                                                └─ breaker    all calls pause while the store is away
//!   refresh_times (when a key is due) ─► refresh_cache (is it as it was?) ─► read (all that a resource needs)
//! ```

mod batch;
pub(super) mod breaker;
pub(super) mod coalesce;
pub(super) mod connection;
pub(super) mod pool;
pub(super) mod read;
pub(super) mod refresh_cache;
pub mod refresh_times;
pub(super) mod resolve;
