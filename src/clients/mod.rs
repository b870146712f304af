//! Clients of outside systems that several areas use, and where they may go.

pub mod aws;
pub mod egress;
pub mod error;
pub mod oci;
pub mod vault;
