//! `seaworthy crds`: prints the CustomResourceDefinitions.

use super::{Failure, print};

/// Print the CustomResourceDefinitions, to be applied with kubectl.
///
/// Example: seaworthy crds | kubectl apply --server-side -f -
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    for crd in crate::api::crds() {
        print("---");
        print(crate::api::to_yaml(&crd).map_err(|error| Failure::Unreachable(error.to_string()))?.trim_end());
    }
    Ok(())
}
