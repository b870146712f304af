//! Talking to the API server: what every area shares.

pub mod apply;
pub mod backoff;
pub mod conditions;
pub mod contest;
pub mod current;
pub mod edits;
pub mod error;
pub mod events;
pub mod fields;
pub mod halt;
pub mod index;
pub mod lanes;
pub mod lease;
pub mod noticed;
pub mod owner;
pub mod pace;
pub mod permissions;
pub mod references;
pub mod run;
pub mod steps;
pub mod token;
pub mod unreadable;
