//! Which issuer a resource means, and whether it may use it.

use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};

use super::{
    controller::Context,
    issuer::{Issuer, IssuerError, OpenIssuer},
    issuers::IssuerSpec,
    reason::Reason,
    rotate,
    status::Problem,
};
use crate::{
    api::{CertificateIssuer, CertificateRotation},
    cluster::{references::NamespaceSecrets, run::Guarded},
    inventory::{
        Facts,
        namespaces::{self, NamespaceLabels},
    },
};

/// What is needed to follow an `issuerRef`.
pub struct ClusterIssuers {
    /// The CertificateIssuers.
    pub store: Store<Guarded<CertificateIssuer>>,
    /// The labels of the Namespaces.
    pub namespaces: Facts<NamespaceLabels>,
    /// Where the Secrets of cluster-scoped issuers lie.
    pub operator_namespace: String,
}

/// Which issuer is meant, and what it is called. `issuerRef` is followed only where the issuer allows the namespace.
pub fn resolve(issuers: Option<&ClusterIssuers>, rotation: &CertificateRotation) -> Result<(IssuerSpec, String), Problem> {
    let spec = &rotation.spec;
    let (issuer, identity) = match (&spec.issuer, &spec.issuer_ref) {
        (Some(issuer), None) => (issuer.clone(), issuer.identity()),
        (None, Some(reference)) => {
            (named(issuers, &reference.name, &rotation.namespace().unwrap_or_default())?, format!("CertificateIssuer/{}", reference.name))
        }
        _ => return Err(Problem::new(Reason::InvalidSpec, "spec: set exactly one of issuer and issuerRef")),
    };
    issuer.validate()?;
    Ok((issuer, identity))
}

fn named(issuers: Option<&ClusterIssuers>, name: &str, namespace: &str) -> Result<IssuerSpec, Problem> {
    let Some(issuers) = issuers else {
        let message = format!(
            "spec.issuerRef: CertificateIssuer {name} cannot be used: this operator is limited to namespaces (--namespaces); use spec.issuer"
        );
        return Err(Problem::new(Reason::InvalidSpec, message));
    };
    let found = issuers.store.get(&ObjectRef::new(name));
    let issuer = match found.as_deref() {
        None => {
            return Err(Problem::new(
                Reason::IssuerNotFound,
                format!("CertificateIssuer {name} is not there; create it, or correct spec.issuerRef.name"),
            ));
        }
        Some(Guarded { 0: Err(invalid) }) => {
            return Err(Problem::new(Reason::IssuerInvalid, format!("CertificateIssuer {name} cannot be read: {}", invalid.error)));
        }
        Some(Guarded { 0: Ok(issuer) }) => issuer,
    };
    let denied = |why: String| {
        Problem::new(Reason::IssuerDenied, format!("CertificateIssuer {name} does not allow the namespace {namespace}: {why}"))
    };
    namespaces::check(issuer.spec.allowed_namespaces.as_ref(), &issuers.namespaces, namespace).map_err(denied)?;
    Ok(issuer.spec.issuer.clone())
}

/// Reads what the issuer needs: from the own namespace, or for a CertificateIssuer from the operator's.
pub async fn open(
    context: &Context,
    rotation: &CertificateRotation,
    issuer: &IssuerSpec,
    now: Timestamp,
) -> Result<Box<dyn OpenIssuer>, IssuerError> {
    let namespace = match (&rotation.spec.issuer_ref, &context.issuers) {
        (Some(_), Some(issuers)) => issuers.operator_namespace.clone(),
        _ => rotation.namespace().unwrap_or_default(),
    };
    let secrets = NamespaceSecrets::new(context.client.clone(), &namespace);
    rotate::open(issuer.open(&secrets, now)).await
}
