//! The stores that there are: one file and one line each.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::store::{OpenStore, Opening, OwnCredential, Store, StoreError};

macro_rules! registry {
    ($($(#[doc = $doc:literal])+ $module:ident => $variant:ident, $word:literal;)+) => {
        $(pub mod $module;)+

        /// Where values live: exactly one.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
        pub enum StoreSpec {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $variant(Box<$module::Spec>),)+
        }

        impl StoreSpec {
            /// The words of all stores, as they stand in a resource.
            pub const KINDS: &[&str] = &[$($word,)+];

            /// Its word.
            pub const fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $word,)+ }
            }

            fn backend(&self) -> &dyn Store {
                match self { $(Self::$variant(spec) => spec.as_ref(),)+ }
            }
        }
    };
}

registry! {
    /// Secrets of this cluster: of the resource's own namespace, or in a SecretStore of another one.
    kubernetes => Kubernetes, "kubernetes";
    /// AWS Secrets Manager.
    aws => Aws, "aws";
    /// HashiCorp Vault or OpenBao: the key/value engine.
    vault => Vault, "vault";
    /// Oracle Cloud: OCI Vault.
    oci => Oci, "oci";
    /// Environment variables of the operator; in a SecretStore only.
    env => Env, "env";
    /// Files of the operator: a mounted folder, also of a CSI driver; in a SecretStore only.
    file => File, "file";
    /// Values that stand in the resource itself: for tests and examples.
    memory => Memory, "memory";
}

impl Store for StoreSpec {
    fn validate(&self, shared: bool) -> Result<(), StoreError> {
        self.backend().validate(shared)
    }
    fn secrets(&self) -> Vec<String> {
        self.backend().secrets()
    }
    fn own_credential(&self) -> Option<OwnCredential> {
        self.backend().own_credential()
    }
    fn can_write(&self) -> bool {
        self.backend().can_write()
    }
    fn is_own_namespace(&self) -> bool {
        self.backend().is_own_namespace()
    }
    fn location(&self) -> String {
        format!("{} {}", self.kind(), self.backend().location())
    }
    fn open<'a>(&'a self, opening: Opening<'a>) -> BoxFuture<'a, Result<Box<dyn OpenStore>, StoreError>> {
        self.backend().open(opening)
    }
}
