//! What every issuer must keep, whoever signs.

use jiff::{SignedDuration, Timestamp};

use crate::{
    api::certificate_rotation::{Algorithm, CertificateRotationSpec, PrivateKey},
    certificates::{
        issuer::{Issuer, ReadSecrets},
        request::Request,
        x509::path,
    },
    keys::Key,
};

/// A spec with a name and the defaults, as the API server would fill it in.
pub fn spec(name: &str) -> CertificateRotationSpec {
    serde_json::from_value(serde_json::json!({"secretName": name, "commonName": name, "dnsNames": [name]}))
        .unwrap_or_else(|error| unreachable!("{error}"))
}

/// Runs the suite.
///
/// # Panics
/// At the first thing that is not kept.
#[expect(clippy::expect_used, reason = "a contract suite fails by panicking")]
pub async fn run(issuer: &dyn Issuer, secrets: &dyn ReadSecrets) {
    let now = Timestamp::now();
    issuer.validate().expect("a valid configuration is accepted");
    assert!(!issuer.identity().is_empty(), "an issuer has an identity");
    let open = issuer.open(secrets, now).await.expect("a valid issuer opens");
    for algorithm in [Algorithm::Rsa, Algorithm::Ecdsa, Algorithm::Ed25519] {
        let mut spec = spec("contract.example");
        spec.private_key = PrivateKey { algorithm, ..PrivateKey::default() };
        let key = Key::generate(&spec.private_key).expect("a key is made");
        let request = Request { spec: &spec, key: &key, now };
        let first = open.issue(&request).await.expect("a certificate is issued");
        request.verify(&first).expect("it is what was asked");
        assert!(path(&first.leaf, &first.intermediates, &first.roots, |above| above.is_valid(now)).is_some(), "the chain leads to a root");
        let second = open.issue(&request).await.expect("a second one is issued");
        assert_ne!(first.leaf.serial, second.leaf.serial, "serial numbers are unique, also for the same key");
        // A life beyond the issuer's own is cut, never overrun.
        let mut long = spec.clone();
        long.duration = crate::api::Duration::hours(800_000);
        let cut = open.issue(&Request { spec: &long, key: &key, now }).await.expect("a long life is no error");
        for above in cut.intermediates.iter().chain(&cut.roots) {
            assert!(cut.leaf.not_after <= above.not_after, "a leaf never outlives its issuer");
        }
        assert!(cut.leaf.not_before <= now && cut.leaf.not_after > now + SignedDuration::from_hours(1));
    }
}
