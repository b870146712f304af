//! What a Secret holds: values out of what the store gave and what is generated, and texts made of them. Pure.

pub(super) mod compose;
pub mod generate;
pub(super) mod pattern;
pub mod property;
pub(super) mod template;
mod template_error;
