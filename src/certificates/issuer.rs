//! The port: what an issuer must be able to do, and how it may fail. No I/O.

use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;

use super::{
    reason::Reason,
    request::{Issued, Request},
    x509::Certificate,
};
pub use crate::cluster::references::{ReadSecrets, ReferenceError, SecretData};

/// How an issuer may fail. Which variant it is decides what happens next; the message says what was tried, on what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// Something that it needs is not there (yet): tried again when it appears.
    #[error("{0}")]
    NotFound(String),
    /// It may not be used from here, or it refuses: a person is needed.
    #[error("{0}")]
    Denied(String),
    /// It is configured wrongly, or cannot give what is asked: a person is needed.
    #[error("{0}")]
    Invalid(String),
    /// It is in a state that excludes the request: tried again later.
    #[error("{0}")]
    Conflict(String),
    /// It asks to wait.
    #[error("{message}")]
    Throttled {
        /// How long.
        after: Duration,
        /// What it said.
        message: String,
    },
    /// It cannot be reached, or it cannot be told what is so: tried again later, nothing is concluded from it.
    #[error("{0}")]
    Unavailable(String),
}

impl IssuerError {
    /// The word for it.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NotFound(_) => Reason::IssuerNotFound,
            Self::Denied(_) => Reason::IssuerDenied,
            Self::Invalid(_) => Reason::IssuerInvalid,
            Self::Conflict(_) => Reason::IssuerConflict,
            Self::Throttled { .. } => Reason::IssuerThrottled,
            Self::Unavailable(_) => Reason::IssuerUnavailable,
        }
    }
}

impl From<ReferenceError> for IssuerError {
    fn from(error: ReferenceError) -> Self {
        match error {
            ReferenceError::NotFound(_) => Self::NotFound(error.to_string()),
            ReferenceError::Unavailable(..) => Self::Unavailable(error.to_string()),
        }
    }
}

/// What is known of an issuer before it is asked for a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authority {
    /// The certificate that signs. None: each certificate signs itself.
    pub ca: Option<Certificate>,
    /// What stands between it and the root.
    pub intermediates: Vec<Certificate>,
    /// What consumers have to trust.
    pub roots: Vec<Certificate>,
}

impl Authority {
    /// Changes when another CA signs. Empty where there is none.
    pub fn fingerprint(&self) -> String {
        self.ca.as_ref().map(Certificate::fingerprint).unwrap_or_default()
    }
}

/// An issuer whose credentials were read and found usable. Dropping it forgets them.
pub trait OpenIssuer: Send + Sync {
    /// What it signs with.
    fn authority(&self) -> &Authority;

    /// What it would now put around `leaf`, a certificate that it issued; None if only the answer to a request tells.
    fn bundle(&self, leaf: &Certificate) -> Option<Issued> {
        let Authority { intermediates, roots, .. } = self.authority().clone();
        (!roots.is_empty()).then(|| Issued { leaf: leaf.clone(), intermediates, roots })
    }

    /// Asks for a certificate. What comes back is verified by the caller. Cancelling may leave an issued certificate that nobody uses.
    fn issue<'a>(&'a self, request: &'a Request<'a>) -> BoxFuture<'a, Result<Issued, IssuerError>>;
}

/// What every backend's `Spec` does.
pub trait Issuer {
    /// What the API server could not judge. Pure.
    fn validate(&self) -> Result<(), IssuerError> {
        Ok(())
    }

    /// Names it in status: `selfSigned`, `ca/NAME`. Changes when somebody else is to sign.
    fn identity(&self) -> String;

    /// The Secrets that it reads: a change of one of them wakes who uses it.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    /// Reads what it needs and makes sure that it can sign at `now`.
    fn open<'a>(&'a self, secrets: &'a dyn ReadSecrets, now: Timestamp) -> BoxFuture<'a, Result<Box<dyn OpenIssuer>, IssuerError>>;
}
