//! What is written: to the Secret, to the two beside it, and to the store.
//!
//! ```text
//!   desired (what the Secret is to hold) ─► rotate (new values, kept as pending) ─► push (to the store) ─► update (the Secret)
//!   previous (kept beside) and previous_over (taken out in time), retire (versions in the store that were replaced), withdraw (keys in Secrets of others)
//! ```

pub(super) mod desired;
pub(super) mod managed_secret;
pub(super) mod previous;
pub(super) mod previous_over;
pub(super) mod push;
pub(super) mod rejected;
pub(super) mod retire;
pub mod rotate;
pub(super) mod update;
pub(super) mod withdraw;
