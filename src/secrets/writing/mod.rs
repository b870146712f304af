//! What is written: to the Secret, to the three beside it, and to the store.
//!
//! ```text
//!   desired (what the Secret is to hold) ─► rotate (new values, kept as pending) ─► push (to the store) ─► update (the Secret)
//!   previous (kept beside), previous_over (taken out in time) and overdue (where no look does that), retire (versions in the store that were replaced),
//!   rejected (what was taken back), withdraw (keys in Secrets of others)
//! ```

pub(super) mod as_it_is;
pub(super) mod desired;
pub(super) mod managed_secret;
pub(super) mod overdue;
pub(super) mod previous;
pub(super) mod previous_over;
pub(super) mod push;
pub(super) mod rejected;
pub(super) mod retire;
pub mod rotate;
pub(super) mod update;
pub(super) mod withdraw;
