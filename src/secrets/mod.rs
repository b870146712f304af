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
pub mod contents;
pub mod context;
pub mod controller;
mod decide;
pub mod deliver;
mod gauges;
mod index;
mod memory;
mod opening;
pub mod own_credential;
pub mod permissions;
pub mod reading;
pub mod reason;
mod report;
mod status;
pub mod store;
mod store_controller;
pub mod stores;
pub mod vault_policy;
pub mod writing;
