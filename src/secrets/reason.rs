//! Every reason that this area gives: one closed set of words for conditions, events, metrics and audit lines.

use crate::cluster::halt::{Word, reasons};

reasons! {
    // Why the store is read or values are generated.
    /// There is no Secret.
    Missing,
    /// Somebody else changed the Secret.
    Modified,
    /// The spec asks for something else.
    SpecChanged,
    /// `refreshInterval` is over, or what was read in this cluster has changed.
    RefreshDue,
    /// A person asked to read the store, by annotation.
    RefreshRequested,
    /// The time to generate new values has come.
    RotationDue,
    /// A person asked for new values, by annotation.
    Requested,
    /// A rotation that was begun is brought to its end.
    Resumed,
    /// The previous values are not needed any more.
    PreviousOver,
    /// The resource that had added keys to a Secret of somebody else is gone, or adds them elsewhere.
    Withdrawn,
    /// Nothing has to be done.
    Current,
    // What keeps it from being done.
    /// `suspend` is set.
    Suspended,
    /// The spec has a value that only the operator can judge, and it is wrong.
    InvalidSpec,
    /// The object cannot be read as its kind.
    Malformed,
    /// The Secret belongs to somebody else.
    NotOurs,
    /// Somebody else keeps changing the Secret.
    Contested,
    /// The values change all the time.
    Restless,
    /// Another resource of ours writes this Secret.
    TargetConflict,
    /// The Secret has a type that is not written to.
    ReservedType,
    /// The SecretStore is not there.
    StoreNotFound,
    /// The store does not have a value.
    ValueNotFound,
    /// A value is not as the spec needs it.
    ValueInvalid,
    /// A template cannot be rendered.
    TemplateInvalid,
    /// The store may not be used from here, or refuses.
    StoreDenied,
    /// The store is configured wrongly, or cannot do what is asked.
    StoreInvalid,
    /// Somebody else has written to the store meanwhile.
    StoreConflict,
    /// The store asks to wait.
    StoreThrottled,
    /// The store cannot be reached now.
    StoreUnavailable,
    /// No value could be made.
    GenerateFailed,
    /// Who uses the Secret is being restarted.
    Restarting,
    /// Who was restarted did not become healthy.
    RestartFailed,
    /// The values of before were put back, because who uses the Secret could not live with the new ones.
    RolledBack,
    /// The API server did not accept a write, or could not be reached.
    WriteFailed,
}

impl Word for Reason {
    const WRITE_FAILED: Self = Self::WriteFailed;

    fn as_str(self) -> &'static str {
        self.as_str()
    }

    fn needs_a_person(self) -> bool {
        matches!(
            self,
            Self::InvalidSpec
                | Self::Malformed
                | Self::Modified
                | Self::NotOurs
                | Self::TargetConflict
                | Self::ReservedType
                | Self::ValueInvalid
                | Self::TemplateInvalid
                | Self::StoreDenied
                | Self::StoreInvalid
        )
    }
}
