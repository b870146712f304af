//! The issuers that there are: one file and one line each.

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::issuer::{Issuer, IssuerError, OpenIssuer, ReadSecrets};

macro_rules! registry {
    ($($(#[doc = $doc:literal])+ $module:ident => $variant:ident, $word:literal;)+) => {
        $(pub mod $module;)+

        /// Who signs: exactly one.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
        pub enum IssuerSpec {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $variant($module::Spec),)+
        }

        impl IssuerSpec {
            /// The words of all issuers, as they stand in a resource.
            pub const KINDS: &[&str] = &[$($word,)+];

            /// Its word.
            pub const fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $word,)+ }
            }

            fn backend(&self) -> &dyn Issuer {
                match self { $(Self::$variant(spec) => spec,)+ }
            }
        }
    };
}

registry! {
    /// Each certificate is signed by its own key, and trusted by who trusts it.
    self_signed => SelfSigned, "selfSigned";
    /// A CA whose certificate and key lie in a Secret.
    ca => Ca, "ca";
}

impl Issuer for IssuerSpec {
    fn validate(&self) -> Result<(), IssuerError> {
        self.backend().validate()
    }
    fn identity(&self) -> String {
        self.backend().identity()
    }
    fn secrets(&self) -> Vec<String> {
        self.backend().secrets()
    }
    fn open<'a>(&'a self, secrets: &'a dyn ReadSecrets, now: Timestamp) -> BoxFuture<'a, Result<Box<dyn OpenIssuer>, IssuerError>> {
        self.backend().open(secrets, now)
    }
}
