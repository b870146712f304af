//! Area 3: certificates are issued, renewed in time, and replaced when something no longer fits.
//!
//! ```text
//!   CertificateRotation ──┐
//!   CertificateIssuer ────┤   controller ── observe ──► Observed
//!   Secret (metadata) ────┘        │                       │
//!                                  │◄────── Plan ── decide (pure)
//!                                  ├─ act: issuer ─► key, certificate ─► <secretName>-previous ─► <secretName>
//!                                  └─ report: conditions, events, metrics, audit line
//! ```

pub mod decide;
pub mod issuer;
pub mod issuers;
pub mod keys;
pub mod outputs;
pub mod reason;
pub mod request;
pub mod sign;
pub mod x509;
