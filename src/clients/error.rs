//! How an outside system may fail, in the same words for all clients: what they mean for a resource, the areas say.

use std::time::Duration;

use crate::cluster::token::TokenError;

/// The message says what was tried and what the other side said, which never holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// It says that there is nothing.
    #[error("{0}")]
    NotFound(String),
    /// It is not there, or not for us; some do not say which.
    #[error("{0}")]
    NotFoundOrDenied(String),
    /// It does not accept the credentials: whatever is asked with them is refused.
    #[error("{0}")]
    Unauthenticated(String),
    /// It knows us, and refuses what we ask.
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

impl ClientError {
    /// The same for what failed while we logged in: that we may not, or that somebody we log in by does not exist, is about the credentials.
    #[must_use]
    pub fn of_login(self, what: &str) -> Self {
        match self {
            Self::Unauthenticated(why) | Self::Denied(why) | Self::NotFound(why) | Self::NotFoundOrDenied(why) => {
                Self::Unauthenticated(format!("{what} was refused: {why}"))
            }
            error => error,
        }
    }
}

/// What another system said, on one line and at most `most` characters long.
pub fn one_line(text: &str, most: usize) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(most).collect()
}

impl From<TokenError> for ClientError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Refused(why) => Self::Denied(why),
            TokenError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}
