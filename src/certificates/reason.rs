//! Every reason that this area gives: one closed set of words for conditions, events, metrics and audit lines.

use crate::cluster::halt::{Word, reasons};

reasons! {
    // What the checks of `decide` find; the first that applies wins.
    /// There is no Secret, or it holds no certificate.
    Missing,
    /// The Secret's certificate or key cannot be read.
    Unreadable,
    /// Certificate and key are not a pair.
    KeyMismatch,
    /// The spec asks for something else than was issued.
    SpecChanged,
    /// Another issuer is named.
    IssuerChanged,
    /// The issuer's CA certificate is another one.
    CaChanged,
    /// The certificate was not signed by the issuer's CA.
    NotTrusted,
    /// It has expired.
    Expired,
    /// The time to renew has come.
    RenewalDue,
    /// The schedule says so.
    ScheduleDue,
    /// A person asked by annotation.
    Requested,
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
    /// Another resource of ours writes this Secret.
    TargetConflict,
    /// The Secret has a type that is not written to.
    ReservedType,
    /// What the issuer needs is not there.
    IssuerNotFound,
    /// The issuer may not be used from here, or refuses.
    IssuerDenied,
    /// The issuer cannot sign as it is configured.
    IssuerInvalid,
    /// The issuer is in a state that excludes the request.
    IssuerConflict,
    /// The issuer asks to wait.
    IssuerThrottled,
    /// The issuer cannot be reached now.
    IssuerUnavailable,
    /// The issuer returned something else than was asked.
    IssuerBadResponse,
    /// Who uses the Secret is being restarted.
    Restarting,
    /// Who was restarted did not become healthy.
    RestartFailed,
    /// The pair of before was put back, because who uses the Secret could not live with the new one.
    RolledBack,
    /// Whether servers give the certificate out is being asked.
    Verifying,
    /// A server does not give the certificate out.
    NotServed,
    /// No key could be made.
    KeyGenerationFailed,
    /// The API server did not accept a write, or could not be reached.
    WriteFailed,
}

impl Reason {
    /// Whether a rotation for this reason is done at once instead of waiting for the window: what is served is missing, broken or not
    /// trusted, or a person said "now".
    pub const fn is_urgent(self) -> bool {
        matches!(self, Self::Missing | Self::Unreadable | Self::KeyMismatch | Self::NotTrusted | Self::Expired | Self::Requested)
    }

    /// Whether something happened to the Secret that nobody asked for.
    pub const fn is_damage(self) -> bool {
        matches!(self, Self::Missing | Self::Unreadable | Self::KeyMismatch | Self::NotTrusted)
    }
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
                | Self::NotOurs
                | Self::TargetConflict
                | Self::ReservedType
                | Self::IssuerDenied
                | Self::IssuerInvalid
        )
    }
}
