//! Area 3: certificates are issued, renewed in time, and replaced when something no longer fits.
//!
//! ```text
//!   CertificateRotation ──┐
//!   CertificateIssuer ────┤   controller ── observe ──► Observed
//!   Secret (metadata) ────┘        │                       │
//!                                  │◄────── Plan ── decide (pure)
//!                                  ├─ act: issuer ─► key, certificate ─► <secretName>-previous ─► <secretName> ─► deliver
//!                                  └─ report: conditions, events, metrics, audit line
//! ```

pub mod area;
pub mod constraints;
pub mod controller;
pub mod decide;
pub mod deliver;
pub mod index;
pub mod issuer;
pub mod issuer_controller;
pub mod issuers;
pub mod memory;
pub mod outputs;
pub mod permissions;
pub mod reason;
pub mod request;
pub mod resolve;
pub mod rotate;
pub mod sign;
pub mod status;
pub mod verify;
pub mod x509;
