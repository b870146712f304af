//! Who consumes a value, and whether they have the one that is there now.

pub mod consumption;
