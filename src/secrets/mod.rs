//! Area: values that live in a store or are generated, kept in Secrets, replaced, and brought to who uses them.
//!
//! ```text
//!   SecretRotation ─► controller ─► observe: the Secret, what is pending, who uses it
//!                        │
//!                        ├─► decide (pure): read the store? generate? since when, until when
//!                        │
//!                        ├─► act: sync    refresh_cache (is what is due as it was?) ─► connection (one call for each remote key) ─► compose ─► template
//!                        │        rotate  generate ─► keep as pending ─► push ─► the Secret
//!                        │        deliver restart ─► complete, or put the values of before back
//!                        │
//!                        └─► report: conditions, events, audit, metrics
//!
//!   SecretStore ───► store_controller ─► is it usable, and by how many
//! ```
//!
//! A store is one file in `stores/` and one line in `stores/mod.rs`; `store.rs` is the port.

pub mod area;
pub mod batch;
pub mod breaker;
pub mod coalesce;
pub mod compose;
pub mod connection;
pub mod context;
pub mod controller;
pub mod count;
pub mod decide;
pub mod deliver;
pub mod generate;
pub mod index;
mod make;
pub mod memory;
pub mod opening;
pub mod own_credential;
pub mod pattern;
pub mod permissions;
pub mod pool;
pub mod property;
pub mod push;
mod put;
pub mod reason;
pub mod refresh_cache;
pub mod refresh_times;
mod report;
pub mod resolve;
pub mod retire;
pub mod rotate;
pub mod status;
pub mod store;
pub mod store_controller;
pub mod stores;
pub mod sync;
pub mod target;
pub mod template;
pub mod vault_policy;
pub mod withdraw;
