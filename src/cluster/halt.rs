//! Why something was not done, in the words of an area. Pure.

use jiff::SignedDuration;

use super::apply::WriteError;

/// An area's closed set of words for conditions, events, metrics and audit lines.
pub trait Word: Copy {
    /// The API server did not accept a write, or could not be reached.
    const WRITE_FAILED: Self;

    /// As it stands in a condition.
    fn as_str(self) -> &'static str;

    /// Whether only a person can end it, so that trying again changes nothing (`Stalled`).
    fn needs_a_person(self) -> bool;
}

/// Makes an area's closed set of words: the enum `Reason`, all of them in their order, and each as its own name.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Why something is so, is done, or cannot be done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All of them, in the order of their pages in the docs.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
        }

        impl std::fmt::Display for Reason {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use reasons;

/// What keeps something from being done, for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem<R> {
    /// The word for it.
    pub reason: R,
    /// What was tried, on which object, and what to do.
    pub message: String,
    /// When to try again, if the other side said so.
    pub after: Option<SignedDuration>,
}

impl<R> Problem<R> {
    /// Without a time to wait.
    pub fn new(reason: R, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), after: None }
    }
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt<R> {
    /// Something that a person is told.
    Problem(Problem<R>),
    /// What was decided rests on what is not so any more: another version of an object, a lease. Nobody is told; it is read and decided again.
    Superseded(WriteError),
}

impl<R> From<Problem<R>> for Halt<R> {
    fn from(problem: Problem<R>) -> Self {
        Self::Problem(problem)
    }
}

impl<R: Word> From<WriteError> for Halt<R> {
    fn from(error: WriteError) -> Self {
        if error.is_race() { Self::Superseded(error) } else { Self::Problem(Problem::new(R::WRITE_FAILED, error.to_string())) }
    }
}
