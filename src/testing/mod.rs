//! Fakes of the ports and the contract suites that every backend runs. Only with the feature `testing`, never in the image.

pub mod failpoint;
pub mod issuer_contract;
pub mod secrets;
pub mod store_contract;
