//! What the operator tells about itself: logs, metrics, audit lines.

pub mod audit;
pub mod logging;
pub mod metrics;
