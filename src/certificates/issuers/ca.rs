//! `ca: {secretName}`: a CA whose certificate (with its chain) and key lie in a Secret of type kubernetes.io/tls.

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{
    certificates::{
        issuer::{Authority, Issuer, IssuerError, OpenIssuer, ReadSecrets, SecretData},
        request::{Issued, Request, names},
        sign::sign,
        x509::{Certificate, path},
    },
    keys::Key,
};

/// A CA in a Secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The Secret with `tls.crt` (the CA's certificate, then what leads to the root), `tls.key` and, where the root is not in `tls.crt`,
    /// `ca.crt`. For a CertificateIssuer it lies in the operator's namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub secret_name: String,
}

impl Issuer for Spec {
    fn identity(&self) -> String {
        format!("ca/{}", self.secret_name)
    }

    fn secrets(&self) -> Vec<String> {
        vec![self.secret_name.clone()]
    }

    fn open<'a>(&'a self, secrets: &'a dyn ReadSecrets, now: Timestamp) -> BoxFuture<'a, Result<Box<dyn OpenIssuer>, IssuerError>> {
        async move {
            let data = secrets.secret(&self.secret_name).await?;
            Ok(Box::new(read(&self.secret_name, &data, now)?) as Box<dyn OpenIssuer>)
        }
        .boxed()
    }
}

struct Open {
    authority: Authority,
    ca: Certificate,
    key: Key,
    /// What stands above the CA, the root last.
    above: Vec<Certificate>,
}

/// Refuses a CA that cannot sign at `now`, saying what is wrong with which Secret.
fn read(secret: &str, data: &SecretData, now: Timestamp) -> Result<Open, IssuerError> {
    let invalid = |what: String| IssuerError::Invalid(format!("the CA in Secret {secret}: {what}"));
    let get = |key: &str| {
        data.get(key).ok_or_else(|| invalid(format!("key {key} is missing; put the CA certificate into tls.crt and its key into tls.key")))
    };
    let mut chain = Certificate::chain(get("tls.crt")?).map_err(|error| invalid(format!("tls.crt: {error}")))?;
    let key = Key::from_pem(get("tls.key")?).map_err(|error| invalid(format!("tls.key: {error}")))?;
    let mut extra = match data.get("ca.crt") {
        Some(pem) if !pem.is_empty() => Certificate::chain(pem).map_err(|error| invalid(format!("ca.crt: {error}")))?,
        _ => Vec::new(),
    };
    let ca = chain.remove(0);
    let name = &ca.subject_text;
    usable(&ca, &key, now).map_err(invalid)?;
    // The root is what is trusted: from ca.crt, or the self-issued one of tls.crt; without any, the CA itself is the anchor.
    extra.retain(|certificate| certificate.der() != ca.der() || certificate.is_self_issued());
    let (roots, intermediates): (Vec<_>, Vec<_>) = chain.into_iter().partition(Certificate::is_self_issued);
    let roots = if !extra.is_empty() {
        extra
    } else if roots.is_empty() || ca.is_self_issued() {
        vec![ca.clone()]
    } else {
        roots
    };
    let Some(above) = path(&ca, &intermediates, &roots, |above| above.is_valid(now)) else {
        return Err(invalid(
            match path(&ca, &intermediates, &roots, |_| true).and_then(|path| path.into_iter().find(|above| above.not_after <= now)) {
                Some(over) => {
                    format!("{}, which stands above {name}, has expired at {}; put a new chain there", over.subject_text, over.not_after)
                }
                None => format!(
                    "no path of signatures that are valid now leads from {name} to the root; put the whole chain into tls.crt, or the root into ca.crt"
                ),
            },
        ));
    };
    let above: Vec<Certificate> = above.into_iter().cloned().collect();
    if let Some((ca, kind)) = std::iter::once(&ca).chain(&above).find_map(|ca| Some((ca, ca.constraints.unknown()?))) {
        return Err(invalid(format!(
            "the nameConstraints of {} are about {kind}, which cannot be checked here; use another CA",
            ca.subject_text
        )));
    }
    // What is handed out with a leaf: the CA and what stands above it, without the root.
    let anchored = roots.iter().any(|root| root.der() == ca.der());
    let between = std::iter::once(&ca).chain(above.iter().rev().skip(1).rev());
    let intermediates = if anchored { Vec::new() } else { between.cloned().collect() };
    Ok(Open { authority: Authority { ca: Some(ca.clone()), intermediates, roots }, ca, key, above })
}

/// Whether the certificate and the key are a pair that signs at `now`. Err: what is wrong, and what to do about it.
fn usable(ca: &Certificate, key: &Key, now: Timestamp) -> Result<(), String> {
    let name = &ca.subject_text;
    if ca.public_key != key.public_key() {
        return Err(format!("tls.key is not the key of the certificate {name} in tls.crt; put a pair there"));
    }
    if !ca.is_ca || !ca.may_sign {
        return Err(format!("the certificate {name} may not sign others (basicConstraints CA:TRUE and keyUsage keyCertSign are needed)"));
    }
    if ca.not_after <= now {
        return Err(format!("the certificate {name} has expired at {}; put a new CA there", ca.not_after));
    }
    if ca.not_before > now {
        return Err(format!("the certificate {name} is not valid before {}", ca.not_before));
    }
    Ok(())
}

impl Open {
    /// Refuses what every client would refuse: a name outside the constraints of the CA or of one above it, a CA below one that may have none.
    fn may_sign_for(&self, request: &Request<'_>) -> Result<(), IssuerError> {
        let invalid = |what: String| Err(IssuerError::Invalid(format!("the CA {} {what}", self.ca.subject_text)));
        let above = || std::iter::once(&self.ca).chain(&self.above);
        let too_deep =
            above().enumerate().find(|(below, ca)| ca.path_len.is_some_and(|most| usize::try_from(most).is_ok_and(|most| most <= *below)));
        if request.spec.is_ca
            && let Some((_, ca)) = too_deep
        {
            return invalid(format!("may not sign another CA (pathLenConstraint of {})", ca.subject_text));
        }
        match names(request.spec).into_iter().find(|name| !above().all(|ca| ca.constraints.allow(name))) {
            Some(name) => invalid(format!("may not sign for {name:?} (nameConstraints); ask for another name, or use another CA")),
            None => Ok(()),
        }
    }
}

impl OpenIssuer for Open {
    fn authority(&self) -> &Authority {
        &self.authority
    }

    fn issue<'a>(&'a self, request: &'a Request<'a>) -> BoxFuture<'a, Result<Issued, IssuerError>> {
        async move {
            self.may_sign_for(request)?;
            // A leaf may not outlive anything above it.
            let ends = self.above.iter().map(|above| above.not_after).min();
            let mut ca = self.ca.clone();
            ca.not_after = ends.map_or(ca.not_after, |end| end.min(ca.not_after));
            let leaf = sign(request, Some((&ca, &self.key))).map_err(|error| IssuerError::Invalid(error.to_string()))?;
            Ok(Issued { leaf, intermediates: self.authority.intermediates.clone(), roots: self.authority.roots.clone() })
        }
        .boxed()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{
        certificates::sign::tests::{ca, child, pair, spec_of_ca},
        testing::{issuer_contract, secrets::Secrets},
    };

    fn spec() -> Spec {
        Spec { secret_name: "the-ca".into() }
    }

    async fn refusal(secrets: &Secrets, now: Timestamp) -> String {
        match spec().open(secrets, now).await {
            Ok(_) => "accepted".into(),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn keeps_the_contract_with_a_root() {
        let (key, root) = ca("root");
        issuer_contract::run(&spec(), &Secrets::default().with("the-ca", pair(&key, &[&root]))).await;
    }

    #[tokio::test]
    async fn keeps_the_contract_with_a_chain() {
        let (root_key, root) = ca("root");
        let (key, middle) = child("middle", &root_key, &root);
        for data in [pair(&key, &[&middle, &root]), {
            let mut data = pair(&key, &[&middle]);
            data.insert("ca.crt".into(), zeroize::Zeroizing::new(root.to_pem().into_bytes()));
            data
        }] {
            let secrets = Secrets::default().with("the-ca", data);
            issuer_contract::run(&spec(), &secrets).await;
            let open = spec().open(&secrets, Timestamp::now()).await.unwrap();
            assert_eq!(open.authority().roots, vec![root.clone()]);
            assert_eq!(open.authority().intermediates, vec![middle.clone()]);
        }
    }

    #[tokio::test]
    async fn refuses_what_cannot_sign() {
        let now = Timestamp::now();
        let (key, root) = ca("root");
        let (other_key, other) = ca("other");
        let leaf_spec = crate::api::certificate_rotation::CertificateRotationSpec { is_ca: false, ..spec_of_ca("leaf") };
        let leaf = sign(&Request { spec: &leaf_spec, key: &other_key, now }, None).unwrap();
        let (_, orphan) = child("orphan", &key, &root);
        let mut stray = pair(&other_key, &[&other]);
        stray.insert("ca.crt".into(), zeroize::Zeroizing::new(root.to_pem().into_bytes()));
        for (data, at, said) in [
            (pair(&other_key, &[&root]), now, "not the key of the certificate"),
            (pair(&other_key, &[&leaf]), now, "may not sign others"),
            (pair(&key, &[&root]), root.not_after, "has expired"),
            (pair(&key, &[&root]), root.not_before - jiff::SignedDuration::from_secs(1), "is not valid before"),
            (SecretData::new(), now, "key tls.crt is missing"),
            (stray, now, "no path of signatures"),
        ] {
            let message = refusal(&Secrets::default().with("the-ca", data), at).await;
            assert!(message.contains(said) && message.contains("Secret the-ca"), "{said}: {message}");
        }
        assert!(orphan.is_signed_by(&root));
        assert!(matches!(spec().open(&Secrets::default(), now).await.err(), Some(IssuerError::NotFound(_))));
    }

    #[tokio::test]
    async fn keeps_to_the_constraints_of_the_ca() {
        use crate::api::certificate_rotation::{CertificateRotationSpec, NameConstraintItem, NameConstraints};
        let permitted =
            NameConstraintItem { dns_domains: vec!["a.example".into()], ip_ranges: vec!["10.0.0.0/8".into()], ..Default::default() };
        let constraints = NameConstraints { critical: true, permitted: Some(permitted), excluded: None };
        let ca_spec = CertificateRotationSpec { name_constraints: Some(constraints), ..spec_of_ca("Constrained") };
        let key = Key::generate(&ca_spec.private_key).unwrap();
        let now = Timestamp::now();
        let root = sign(&Request { spec: &ca_spec, key: &key, now }, None).unwrap();
        let open = spec().open(&Secrets::default().with("the-ca", pair(&key, &[&root])), now).await.unwrap();
        for (names, addresses, said) in [
            (vec!["x.a.example"], vec!["10.1.1.1"], "ok"),
            (vec!["b.example"], vec![], "b.example"),
            (vec![], vec!["192.0.2.1"], "192.0.2.1"),
        ] {
            let mut leaf = issuer_contract::spec("leaf");
            leaf.dns_names = names.into_iter().map(ToOwned::to_owned).collect();
            leaf.ip_addresses = addresses.into_iter().map(ToOwned::to_owned).collect();
            let outcome =
                open.issue(&Request { spec: &leaf, key: &key, now }).await.map_or_else(|error| error.to_string(), |_| "ok".into());
            assert!(outcome.contains(said), "{said}: {outcome}");
        }
    }
}
