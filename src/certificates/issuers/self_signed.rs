//! `selfSigned: {}`: each certificate is signed by its own key.

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::certificates::{
    issuer::{Authority, Issuer, IssuerError, OpenIssuer, ReadSecrets},
    request::{Issued, Request},
    sign::sign,
    x509::Certificate,
};

/// There is nothing to configure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Spec {}

impl Issuer for Spec {
    fn identity(&self) -> String {
        "selfSigned".into()
    }

    fn open<'a>(&'a self, _: &'a dyn ReadSecrets, _: Timestamp) -> BoxFuture<'a, Result<Box<dyn OpenIssuer>, IssuerError>> {
        async { Ok(Box::new(Open(Authority::default())) as Box<dyn OpenIssuer>) }.boxed()
    }
}

struct Open(Authority);

impl OpenIssuer for Open {
    fn authority(&self) -> &Authority {
        &self.0
    }

    fn bundle(&self, leaf: &Certificate) -> Option<Issued> {
        Some(Issued { leaf: leaf.clone(), intermediates: Vec::new(), roots: vec![leaf.clone()] })
    }

    fn issue<'a>(&'a self, request: &'a Request<'a>) -> BoxFuture<'a, Result<Issued, IssuerError>> {
        async move {
            let leaf = sign(request, None).map_err(|error| IssuerError::Invalid(error.to_string()))?;
            Ok(Issued { roots: vec![leaf.clone()], intermediates: Vec::new(), leaf })
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{issuer_contract, secrets};

    #[tokio::test]
    async fn keeps_the_contract() {
        issuer_contract::run(&Spec {}, &secrets::Secrets::default()).await;
    }
}
