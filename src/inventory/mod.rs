//! What runs here: one watch for each built-in kind, kept as small facts; no object and no value is kept.
//!
//! ```text
//!   watch (metadata) ──► fact ──► map ──► what changed ──► areas wake what depends on it
//! ```

pub mod namespaces;
pub mod secrets;
mod watch;

pub use watch::{Facts, Key};
