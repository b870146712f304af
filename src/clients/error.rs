//! How an outside system may fail, in the same words for all clients: what they mean for a resource, the areas say.

use std::time::Duration;

/// The message says what was tried and what the other side said, which never holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// It says that there is nothing.
    #[error("{0}")]
    NotFound(String),
    /// It is not there, or not for us; some do not say which.
    #[error("{0}")]
    NotFoundOrDenied(String),
    /// It refuses us, or what we ask.
    #[error("{0}")]
    Denied(String),
    /// What was asked, an address or a key cannot be used, or the answer is none of that system's.
    #[error("{0}")]
    Invalid(String),
    /// It is another by now, or exists already.
    #[error("{0}")]
    Conflict(String),
    /// Its state does not allow that, now or for good.
    #[error("{0}")]
    WrongState(String),
    /// It asks to wait, and perhaps says how long.
    #[error("{0}")]
    Throttled(String, Option<Duration>),
    /// It cannot be reached, or is not in service.
    #[error("{0}")]
    Unavailable(String),
}
