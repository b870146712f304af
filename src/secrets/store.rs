//! The port: what a store must be able to do, and how it may fail. No I/O.

use std::{borrow::Cow, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{FutureExt, future::BoxFuture};
use kube::KubeSchema;
use regex::Regex;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use super::opening::{Allowed, Opening};
use super::reason::Reason;
use crate::clients::error::ClientError;
pub use crate::{
    api::secret_rotation::Find,
    cluster::references::{ReadSecrets, ReferenceError, SecretData},
};

/// How a store may fail. Which variant it is decides what happens next; the message says what was tried, on what, and what to do, and holds no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store says that it has no such value.
    #[error("{0}")]
    NotFound(String),
    /// The store does not accept the credentials: whatever is asked with them is refused, until they are others or the store accepts them.
    #[error("{0}")]
    Unauthenticated(String),
    /// The value may not be read or written with these credentials, or from here: a person is needed.
    #[error("{0}")]
    Denied(String),
    /// It is configured wrongly, or cannot do what is asked: a person is needed.
    #[error("{0}")]
    Invalid(String),
    /// Somebody else has written since it was read.
    #[error("{0}")]
    Conflict(String),
    /// It asks to wait.
    #[error("{message}")]
    Throttled {
        /// For how long; None: it did not say.
        after: Option<Duration>,
        /// What it said.
        message: String,
    },
    /// It cannot be reached, or it cannot be told what is so: tried again later, nothing is concluded from it.
    #[error("{0}")]
    Unavailable(String),
}

impl StoreError {
    /// The word for it.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NotFound(_) => Reason::ValueNotFound,
            Self::Unauthenticated(_) | Self::Denied(_) => Reason::StoreDenied,
            Self::Invalid(_) => Reason::StoreInvalid,
            Self::Conflict(_) => Reason::StoreConflict,
            Self::Throttled { .. } => Reason::StoreThrottled,
            Self::Unavailable(_) => Reason::StoreUnavailable,
        }
    }

    /// Whether it is about the store as a whole and not about one value: whoever asks it now for another one would get the same error.
    pub const fn is_store_wide(&self) -> bool {
        matches!(self, Self::Unauthenticated(_) | Self::Throttled { .. } | Self::Unavailable(_))
    }
}

impl From<ClientError> for StoreError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NotFound(why) => Self::NotFound(why),
            ClientError::Unauthenticated(why) => Self::Unauthenticated(why),
            // Nothing is concluded from it.
            ClientError::NotFoundOrDenied(why) | ClientError::Denied(why) => Self::Denied(why),
            ClientError::Invalid(why) => Self::Invalid(why),
            ClientError::Conflict(why) | ClientError::WrongState(why) => Self::Conflict(why),
            ClientError::Throttled(message, after) => Self::Throttled { after, message },
            ClientError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl From<ReferenceError> for StoreError {
    fn from(error: ReferenceError) -> Self {
        match error {
            // The credentials of a store: without them nothing can be told about a value.
            ReferenceError::NotFound(_) => Self::Invalid(error.to_string()),
            ReferenceError::Unavailable(..) => Self::Unavailable(error.to_string()),
        }
    }
}

/// What a store has under a key. Overwritten when dropped; `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// Bytes, which may be JSON.
    Bytes(Zeroizing<Vec<u8>>),
    /// Several values, each with a name: a Secret.
    Map(SecretData),
}

impl Content {
    /// Bytes of its values.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Map(map) => map.values().map(|value| value.len()).sum(),
        }
    }

    /// All of it as bytes, the same for the same content.
    pub fn bytes(&self) -> Cow<'_, Zeroizing<Vec<u8>>> {
        match self {
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
            Self::Map(map) => {
                let parts = map.iter().flat_map(|(key, value)| [key.as_bytes(), value.as_slice()]);
                let mut all = Zeroizing::new(Vec::new());
                for part in parts {
                    all.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                    all.extend_from_slice(part);
                }
                Cow::Owned(all)
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bytes(_) => "Bytes(…)",
            Self::Map(_) => "Map(…)",
        })
    }
}

/// What a call to a store gives, for all who wait for it.
pub type Answer<T = Stored> = Arc<Result<T, StoreError>>;

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The value.
    pub content: Content,
    /// The store's name for this version, as `remoteRef.version` has it where versions can be read; for a write that rests on it.
    pub version: Option<String>,
}

/// A value of a store by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The name or path.
    pub key: String,
    /// Which version; None: the current one.
    pub version: Option<String>,
}

/// What a write rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// Where.
    pub key: &'a str,
    /// What.
    pub content: &'a Content,
    /// The version that was read; None: nothing was there. Anything else there now is a [`StoreError::Conflict`].
    pub expected: Option<&'a str>,
    /// The same for each attempt to write the same value, so that a store that knows it does not write twice.
    pub token: &'a str,
}

/// No value that is read or written is longer: Kubernetes allows a Secret 1 MiB.
pub const MAX_VALUE: usize = 1024 * 1024;

/// A store whose credentials were read; it logs in with the first call. [`OpenStore::close`] gives back what it has issued, dropping it forgets the
/// credentials. Every method may be cancelled; only a write may then have taken effect.
pub trait OpenStore: Send + Sync {
    /// Reads one value.
    fn read<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Stored, StoreError>>;

    /// How many [`OpenStore::read_many`] reads at a time; 1: it has no call for that.
    fn batch(&self) -> usize {
        1
    }

    /// Reads the current versions of several values with one call; as many answers as `keys`, in that order. An error is of the call.
    fn read_many<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Vec<Result<Stored, StoreError>>, StoreError>> {
        let _ = keys;
        async { Err(StoreError::Invalid("this store reads one value at a time".into())) }.boxed()
    }

    /// The names of all values that match.
    fn find<'a>(&'a self, find: &'a Find) -> BoxFuture<'a, Result<Vec<String>, StoreError>>;

    /// Writes one value, if what is there is what the write rests on. Returns the new version. Cancelling may leave it written.
    fn write<'a>(&'a self, write: Write<'a>) -> BoxFuture<'a, Result<Option<String>, StoreError>>;

    /// Makes a version that is not the current one unreadable, as far as the store can; one that is gone already is no error, and the current one is
    /// left. Returns whether that is all: false asks to come again when there are newer versions.
    fn retire<'a>(&'a self, key: &'a str, version: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        let _ = (key, version);
        async { Ok(true) }.boxed()
    }

    /// Whether [`OpenStore::retire`] does anything: as a rule where older versions are of any use.
    fn can_retire(&self) -> bool {
        self.can_promote()
    }

    /// Whether [`OpenStore::promote`] does anything.
    fn can_promote(&self) -> bool {
        false
    }

    /// Makes an older version the current one again, if `expected` is the current one; anything else there now is a [`StoreError::Conflict`].
    fn promote<'a>(&'a self, key: &'a str, version: &'a str, expected: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        let _ = (version, expected);
        async move { Err(StoreError::Invalid(format!("{key}: this store makes no old version the current one again"))) }.boxed()
    }

    /// What stands under a key before anything does: an empty JSON object.
    fn blank(&self) -> Content {
        Content::Bytes(Zeroizing::new(b"{}".to_vec()))
    }

    /// Whether it lets us in: what a SecretStore's condition says.
    fn check(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Makes another credential to open the store with, marked so that it can be found again, and makes sure that it lets us in.
    fn make_credential<'a>(&'a self, mark: &'a str) -> BoxFuture<'a, Result<NewCredential, StoreError>> {
        let _ = mark;
        async { Err(StoreError::Invalid("this store has no credential that could be replaced".into())) }.boxed()
    }

    /// Destroys the credentials that were made with `mark`, and `replaced`, but for the one that the store is open with.
    fn destroy_credentials<'a>(&'a self, mark: &'a str, replaced: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        let _ = (mark, replaced);
        async { Ok(()) }.boxed()
    }

    /// Renews what the store has issued to us, such as a token, if that ends soon. Returns whether the store was asked; an error is of the store as a
    /// whole. What it does not renew ends, and the next read asks for another.
    fn renew(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        async { Ok(false) }.boxed()
    }

    /// Gives back what the store has issued to us.
    fn close(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

/// A credential that takes the place of another.
pub struct NewCredential {
    /// Itself.
    pub value: Zeroizing<String>,
    /// What the store calls the one before: no secret.
    pub replaces: String,
}

/// A credential that the operator replaces by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnCredential {
    /// Where it is.
    pub place: SecretKeyRef,
    /// How long one is used.
    pub every: crate::api::Duration,
}

/// What every backend's `Spec` does.
pub trait Store {
    /// What the API server could not judge. Pure. `shared`: it stands in a SecretStore, which alone may use the operator's own identity, other
    /// namespaces and the operator's own files.
    fn validate(&self, shared: bool) -> Result<(), StoreError>;

    /// The Secrets with its credentials: a change of one of them opens it anew.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    /// Its credential that is replaced by itself; in a SecretStore only.
    fn own_credential(&self) -> Option<OwnCredential> {
        None
    }

    /// Whether it can be written to.
    fn can_write(&self) -> bool {
        true
    }

    /// The keys that are Secrets of the resource's own namespace: a change of one of them is known at once.
    fn is_own_namespace(&self) -> bool {
        false
    }

    /// Where its values are, whoever reads them: the same for all specs that lead to the same values, with whatever credentials. Versions that were
    /// replaced are found again by it.
    fn location(&self) -> String;

    /// Reads its credentials and makes a client for it; no call to the store is needed.
    fn open<'a>(&'a self, opening: Opening<'a>) -> BoxFuture<'a, Result<Box<dyn OpenStore>, StoreError>>;
}

/// A key of a Secret: of the resource's own namespace, in a SecretStore of the operator's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct SecretKeyRef {
    /// The Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

impl std::fmt::Display for SecretKeyRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "key {:?} of Secret {}", self.key, self.name)
    }
}

/// The text of a key of a Secret, without white space around it: a credential that was put there with a line's end is meant without it.
pub async fn text_of(secrets: &dyn ReadSecrets, reference: &SecretKeyRef) -> Result<Zeroizing<String>, StoreError> {
    let data = secrets.secret(&reference.name).await?;
    let SecretKeyRef { name, key } = reference;
    let value =
        data.get(key).ok_or_else(|| StoreError::Invalid(format!("Secret {name} has no key {key:?}: add it, or correct the secretRef")))?;
    let text = std::str::from_utf8(value).map_err(|_| StoreError::Invalid(format!("key {key:?} of Secret {name} is no text")))?;
    if text.trim().is_empty() {
        return Err(StoreError::Invalid(format!("key {key:?} of Secret {name} is empty")));
    }
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// The certificates that a server's is checked with: as they stand in the spec, also in base64, as others have them, or in a key of a Secret. None: those
/// that everybody trusts.
pub async fn authority(
    secrets: &dyn ReadSecrets,
    bundle: Option<&str>,
    reference: Option<&SecretKeyRef>,
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(match (bundle, reference) {
        (Some(bundle), _) if !bundle.contains("-----BEGIN") => {
            let text: String = bundle.split_whitespace().collect();
            Some(STANDARD.decode(text).map_err(|_| StoreError::Invalid("caBundle holds neither PEM nor that in base64".into()))?)
        }
        (Some(bundle), _) => Some(bundle.as_bytes().to_vec()),
        (None, Some(reference)) => Some(text_of(secrets, reference).await?.as_bytes().to_vec()),
        (None, None) => None,
    })
}

/// What `find` looks for, tags aside; its expression read once.
pub struct Matcher<'a> {
    path: Option<&'a str>,
    name: Option<Regex>,
}

impl<'a> Matcher<'a> {
    /// Of `find`.
    pub fn of(find: &'a Find) -> Result<Self, StoreError> {
        let compiled = |pattern: &str| {
            super::contents::pattern::compile(pattern)
                .map_err(|error| StoreError::Invalid(format!("find.name.regexp {pattern:?} cannot be used: {error}")))
        };
        Ok(Self { path: find.path.as_deref(), name: find.name.as_ref().map(|name| compiled(&name.regexp)).transpose()? })
    }

    /// Whether `name` is meant.
    pub fn matches(&self, name: &str) -> bool {
        self.path.is_none_or(|path| name.starts_with(path)) && self.name.as_ref().is_none_or(|pattern| pattern.is_match(name))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::testing::secrets::Secrets;

    #[tokio::test]
    async fn certificates_may_stand_in_base64() {
        let pem = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
        let of = async |bundle: &str| authority(&Secrets::default(), Some(bundle), None).await;
        assert_eq!(of(pem).await.unwrap().unwrap(), pem.as_bytes());
        let coded = STANDARD.encode(pem);
        let (first, second) = coded.split_at(40);
        assert_eq!(of(&format!("{first}\n{second}\n")).await.unwrap().unwrap(), pem.as_bytes());
        assert!(matches!(of("no certificate").await, Err(StoreError::Invalid(_))));
    }

    #[test]
    fn debug_output_shows_no_value() {
        let bytes = Content::Bytes(b"canary".to_vec().into());
        let map = Content::Map([("key".to_owned(), b"canary".to_vec().into())].into());
        for content in [bytes, map] {
            let write = Write { key: "k", content: &content, expected: None, token: "t" };
            let shown = format!("{content:?} {write:?} {:?}", Stored { content: content.clone(), version: None });
            assert!(shown.contains('…') && !shown.contains("canary") && !shown.contains("99, 97"), "{shown}");
        }
    }
}
