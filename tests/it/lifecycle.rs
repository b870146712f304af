//! The whole life of a certificate, with a clock that is moved.

use jiff::SignedDuration;
use seaworthy::{api::CertificateRotation, certificates::x509::Certificate};
use serde_json::json;

use crate::support::{Cluster, Namespace, command, condition};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn serial(object: &CertificateRotation) -> String {
    object.status.as_ref().unwrap().serial_number.clone().unwrap()
}

fn reason(object: &CertificateRotation) -> String {
    object.status.as_ref().unwrap().last_rotation.as_ref().unwrap().reason.clone()
}

/// The annotation that says when the data of a Secret became what it is, if it ever was another.
async fn changed_at(namespace: &Namespace) -> Option<jiff::Timestamp> {
    let annotations = namespace.secrets().get("web-tls").await.unwrap().metadata.annotations.unwrap();
    annotations.get("seaworthy.dev/data-changed-at").map(|time| time.parse().unwrap())
}

async fn stored(namespace: &Namespace, secret: &str) -> Certificate {
    Certificate::chain(namespace.text(secret, "tls.crt").await.as_bytes()).unwrap().remove(0)
}

/// openssl agrees that the certificate in the Secret leads to its ca.crt and belongs to its key.
async fn openssl_agrees(namespace: &Namespace, secret: &str) {
    let dir = std::env::temp_dir().join(format!("seaworthy-openssl-{}-{secret}", namespace.name));
    std::fs::create_dir_all(&dir).unwrap();
    for key in ["tls.crt", "tls.key", "ca.crt"] {
        std::fs::write(dir.join(key), namespace.text(secret, key).await).unwrap();
    }
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    command("openssl", &["verify", "-x509_strict", "-CAfile", &file("ca.crt"), "-untrusted", &file("tls.crt"), &file("tls.crt")], b"");
    let of_certificate = command("openssl", &["x509", "-in", &file("tls.crt"), "-noout", "-pubkey"], b"");
    let of_key = command("openssl", &["pkey", "-in", &file("tls.key"), "-pubout"], b"");
    assert_eq!(of_certificate, of_key);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn issued_kept_renewed_requested_and_made_again() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("life").await;
    let operator = cluster.operator(&namespace);
    namespace.create("web", json!({"duration": "240h", "commonName": "web"})).await;
    let first = namespace.ready("web", 1).await;
    assert_eq!(reason(&first), "Missing");
    openssl_agrees(&namespace, "web-tls").await;
    assert_eq!(stored(&namespace, "web-tls").await.serial, serial(&first));
    assert!(namespace.secrets().get_opt("web-tls-previous").await.unwrap().is_none(), "there was no previous pair");
    assert_eq!(changed_at(&namespace).await, None, "its data is as old as it is");

    // Another process finds everything as it should be.
    let clock = operator.clock.clone();
    operator.shut_down().await;
    let operator =
        crate::support::Operator::start_with(cluster.operator.clone(), vec![namespace.name.clone()], &namespace.name, clock.clone());
    namespace.annotate("web", "seaworthy.dev/look", "1").await;
    assert_eq!(serial(&namespace.ready("web", 1).await), serial(&first));

    // Two thirds of its life later it is renewed, and the previous pair is kept.
    clock.advance(DAY * 7);
    let before = jiff::Timestamp::now() - SignedDuration::from_secs(1); // the API server keeps whole seconds
    namespace.annotate("web", "seaworthy.dev/look", "2").await;
    let second = namespace.ready("web", 2).await;
    let changed = changed_at(&namespace).await.unwrap();
    assert!(before <= changed && changed <= jiff::Timestamp::now(), "by the API server's clock, whatever ours says");
    namespace.change("web", json!({"secretTemplate": {"labels": {"app": "web"}}})).await;
    crate::support::eventually("the label is there", || async {
        let labels = namespace.secrets().get("web-tls").await.unwrap().metadata.labels.unwrap();
        labels.contains_key("app").then_some(()).ok_or_else(|| format!("{labels:?}"))
    })
    .await;
    assert_eq!(changed_at(&namespace).await, Some(changed), "a label is no data");
    assert_eq!(reason(&second), "RenewalDue");
    assert_eq!(stored(&namespace, "web-tls-previous").await.serial, serial(&first));
    openssl_agrees(&namespace, "web-tls-previous").await;

    // A person asks; each new value counts once.
    namespace.annotate("web", "seaworthy.dev/rotate", "please").await;
    let third = namespace.ready("web", 3).await;
    assert_eq!(reason(&third), "Requested");
    assert_eq!(stored(&namespace, "web-tls-previous").await.serial, serial(&second));

    // The Secret is deleted: a new pair, and the count goes on.
    namespace.delete_secret("web-tls").await;
    let fourth = namespace.ready("web", 4).await;
    assert_eq!(reason(&fourth), "Missing");
    assert_eq!(stored(&namespace, "web-tls-previous").await.serial, serial(&second), "what was deleted cannot be kept");

    for (reason, times) in [("Missing", 2), ("RenewalDue", 1), ("Requested", 1)] {
        namespace.told(reason, times).await;
    }
    operator.shut_down().await;
}

#[tokio::test]
async fn what_is_asked_for_decides_and_not_how_it_is_stored() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("spec").await;
    let _operator = cluster.operator(&namespace);
    let spec = json!({"outputs": {"combinedPem": {}, "files": {"certificate": "cert.pem", "privateKey": "key.pem", "ca": "ca.pem"}},
        "secretTemplate": {"labels": {"app": "web"}, "annotations": {"note": "hello"}}, "creationPolicy": "Owner"});
    namespace.create("web", spec).await;
    let first = namespace.ready("web", 1).await;
    let secret = namespace.secrets().get("web-tls").await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    let data = secret.data.clone().unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["ca.crt", "ca.pem", "cert.pem", "key.pem", "tls-combined.pem", "tls.crt", "tls.key"]);
    assert_eq!(data["cert.pem"], data["tls.crt"]);
    assert_eq!(data["tls-combined.pem"].0, [data["tls.key"].0.clone(), data["tls.crt"].0.clone()].concat());
    let meta = secret.metadata;
    assert_eq!(meta.labels.as_ref().unwrap()["app"], "web");
    assert_eq!(meta.annotations.as_ref().unwrap()["note"], "hello");
    assert_eq!(meta.owner_references.unwrap()[0].uid, first.metadata.uid.clone().unwrap());

    // Fewer outputs, no template, another owner policy, another encoding: the Secret changes, the certificate does not.
    namespace
        .change("web", json!({"outputs": null, "secretTemplate": null, "creationPolicy": "Orphan", "privateKey": {"encoding": "PKCS1"}}))
        .await;
    crate::support::eventually("the Secret has the new shape", || async {
        let secret = namespace.secrets().get("web-tls").await.map_err(|error| error.to_string())?;
        let keys: Vec<_> = secret.data.as_ref().unwrap().keys().cloned().collect();
        let plain = keys == ["ca.crt", "tls.crt", "tls.key"]
            && secret.metadata.owner_references.is_none()
            && !secret.metadata.labels.unwrap().contains_key("app");
        if plain { Ok(()) } else { Err(format!("{keys:?}")) }
    })
    .await;
    assert!(namespace.text("web-tls", "tls.key").await.starts_with("-----BEGIN EC PRIVATE KEY-----"));
    assert_eq!(serial(&namespace.ready("web", 1).await), serial(&first));
    openssl_agrees(&namespace, "web-tls").await;

    // Another name: a new certificate. Without history the previous pair goes with the next rotation.
    namespace.change("web", json!({"dnsNames": ["a.example", "b.example"]})).await;
    assert_eq!(reason(&namespace.ready("web", 2).await), "SpecChanged");
    namespace.secrets().get("web-tls-previous").await.unwrap();
    namespace.change("web", json!({"history": 0, "dnsNames": ["c.example"]})).await;
    namespace.ready("web", 3).await;
    assert!(namespace.secrets().get_opt("web-tls-previous").await.unwrap().is_none());

    // A key that may stay, stays.
    let key = namespace.text("web-tls", "tls.key").await;
    namespace.change("web", json!({"privateKey": {"rotationPolicy": "Never"}, "dnsNames": ["d.example"]})).await;
    namespace.ready("web", 4).await;
    assert_eq!(namespace.text("web-tls", "tls.key").await, key);
}

#[tokio::test]
async fn what_somebody_breaks_is_mended() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("broken").await;
    let _operator = cluster.operator(&namespace);
    namespace.create("web", json!({})).await;
    namespace.create("other", json!({})).await;
    let foreign = namespace.ready("other", 1).await;
    namespace.ready("web", 1).await;
    let patch = async |data: serde_json::Value| {
        let patch = kube::api::Patch::Merge(json!({"stringData": data}));
        namespace.secrets().patch("web-tls", &kube::api::PatchParams::default(), &patch).await.unwrap();
    };
    patch(json!({"tls.key": namespace.text("other-tls", "tls.key").await})).await;
    assert_eq!(reason(&namespace.ready("web", 2).await), "KeyMismatch");
    patch(json!({"tls.crt": "no certificate"})).await;
    assert_eq!(reason(&namespace.ready("web", 3).await), "Unreadable");
    // An added key of somebody else is theirs; a changed output of ours is put back without a rotation.
    patch(json!({"mine": "kept", "ca.crt": "changed"})).await;
    crate::support::eventually("ca.crt is put back", || async {
        let text = namespace.text("web-tls", "ca.crt").await;
        if text.starts_with("-----BEGIN") { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(namespace.text("web-tls", "mine").await, "kept");
    namespace.ready("web", 3).await;
    // Another valid pair is left where it is, and its users are counted from then on.
    let before = jiff::Timestamp::now() - SignedDuration::from_secs(1);
    patch(json!({"tls.crt": namespace.text("other-tls", "tls.crt").await, "tls.key": namespace.text("other-tls", "tls.key").await})).await;
    let fingerprint = foreign.status.unwrap().fingerprint.unwrap();
    crate::support::eventually("it is noted that the pair is another one", || async {
        let annotations = namespace.secrets().get("web-tls").await.unwrap().metadata.annotations.unwrap();
        let noted = annotations.get("seaworthy.dev/fingerprint") == Some(&fingerprint);
        if noted { Ok(()) } else { Err(format!("{annotations:?}")) }
    })
    .await;
    assert!(changed_at(&namespace).await.unwrap() >= before);
}

#[tokio::test]
async fn a_window_is_waited_for_and_an_expiry_is_said() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("window").await;
    let operator = cluster.operator(&namespace);
    // Open in one minute of the year that is not soon.
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let month = (now.month() + 5) % 12 + 1;
    let window = json!({"schedule": format!("0 0 1 {month} *"), "duration": "1m"});
    namespace.create("web", json!({"duration": "240h", "window": window})).await;
    namespace.ready("web", 1).await;
    namespace.change("web", json!({"dnsNames": ["b.example"]})).await;
    let message = namespace.says("web", "Ready", "True", "SpecChanged").await;
    assert!(message.contains("waits until"), "{message}");
    // What the Secret looks like does not wait.
    namespace.change("web", json!({"outputs": {"combinedPem": {}}})).await;
    crate::support::eventually("the further key is there", || async {
        let data = namespace.secrets().get("web-tls").await.unwrap().data.unwrap();
        data.contains_key("tls-combined.pem").then_some(()).ok_or_else(|| format!("{:?}", data.keys()))
    })
    .await;
    assert_eq!(namespace.ready("web", 1).await.status.unwrap().revision, Some(1));
    // Half an hour before its end it waits no more.
    operator.clock.advance(DAY * 10 - SignedDuration::from_mins(30));
    namespace.annotate("web", "seaworthy.dev/look", "1").await;
    assert_eq!(reason(&namespace.ready("web", 2).await), "SpecChanged");
    // Suspended: nothing is renewed, and when it ends that is said.
    namespace.change("web", json!({"suspend": true})).await;
    namespace.says("web", "Ready", "True", "Suspended").await;
    operator.clock.advance(DAY * 11);
    namespace.annotate("web", "seaworthy.dev/look", "2").await;
    namespace.says("web", "Ready", "False", "Expired").await;
    namespace.change("web", json!({"suspend": false})).await;
    assert_eq!(reason(&namespace.ready("web", 3).await), "Expired");
}

#[tokio::test]
async fn a_ca_signs_and_when_it_changes_its_leaves_follow() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("ca").await;
    let _operator = cluster.operator(&namespace);
    // The leaf is there first: it waits for its CA and goes on by itself.
    namespace.create("leaf", json!({"issuer": {"ca": {"secretName": "middle-tls"}}, "duration": "8760h"})).await;
    namespace.says("leaf", "Ready", "False", "IssuerNotFound").await;
    let ca = |name: &str| json!({"isCA": true, "commonName": name, "dnsNames": null, "duration": "720h", "subject": {"organizations": ["A", "B"], "countries": ["DE"]}});
    namespace.create("root", ca("Root")).await;
    namespace.ready("root", 1).await;
    let mut middle = ca("Middle");
    middle["issuer"] = json!({"ca": {"secretName": "root-tls"}});
    middle["duration"] = json!("480h");
    namespace.create("middle", middle).await;
    let leaf = namespace.ready("leaf", 1).await;
    openssl_agrees(&namespace, "leaf-tls").await;
    let chain = Certificate::chain(namespace.text("leaf-tls", "tls.crt").await.as_bytes()).unwrap();
    assert_eq!(chain.len(), 2, "the leaf, then the intermediate, without the root");
    assert!(chain[0].not_after <= chain[1].not_after, "a leaf never outlives its issuer");
    assert_eq!(leaf.status.unwrap().issuer.as_deref(), Some("ca/middle-tls"));
    // The intermediate gets a new key: what it signed is issued again.
    namespace.annotate("middle", "seaworthy.dev/rotate", "now").await;
    assert_eq!(reason(&namespace.ready("leaf", 2).await), "CaChanged");
    openssl_agrees(&namespace, "leaf-tls").await;
    assert!(condition(&namespace.ready("root", 1).await, "Stalled").is_none());
}

#[tokio::test]
async fn openssl_reads_every_kind_of_key() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("keys").await;
    let _operator = cluster.operator(&namespace);
    let kinds = [
        ("rsa2048", json!({"algorithm": "RSA"}), "RSA Public-Key: (2048 bit)"),
        ("rsa4096", json!({"algorithm": "RSA", "size": 4096, "encoding": "PKCS1"}), "RSA Public-Key: (4096 bit)"),
        ("p256", json!({"algorithm": "ECDSA", "encoding": "PKCS1"}), "NIST CURVE: P-256"),
        ("p384", json!({"algorithm": "ECDSA", "size": 384}), "NIST CURVE: P-384"),
        ("p521", json!({"algorithm": "ECDSA", "size": 521, "encoding": "PKCS1"}), "NIST CURVE: P-521"),
        ("ed25519", json!({"algorithm": "Ed25519"}), "ED25519 Public-Key"),
    ];
    for (name, key, _) in &kinds {
        let spec = json!({"privateKey": key, "commonName": name, "ipAddresses": ["192.0.2.1", "2001:db8::1"], "uris": ["spiffe://a.example/web"],
            "emailAddresses": ["a@a.example"], "usages": ["digital signature", "client auth", "server auth", "ipsec tunnel", "code signing"]});
        namespace.create(name, spec).await;
    }
    for (name, _, shown) in &kinds {
        namespace.ready(name, 1).await;
        openssl_agrees(&namespace, &format!("{name}-tls")).await;
        let text = command("openssl", &["x509", "-noout", "-text"], namespace.text(&format!("{name}-tls"), "tls.crt").await.as_bytes());
        let wanted = [
            "DNS:a.example",
            "IP Address:192.0.2.1",
            "IP Address:2001:DB8:0:0:0:0:0:1",
            "URI:spiffe://a.example/web",
            "email:a@a.example",
            "TLS Web Client Authentication",
            "CA:FALSE",
        ];
        for wanted in wanted {
            assert!(text.contains(wanted), "{name}: {wanted}: {text}");
        }
        assert!(
            text.replace("RSA Public-Key", "Public-Key")
                .replace("ED25519 Public-Key", "Public-Key")
                .contains(&shown.replace("RSA Public-Key", "Public-Key").replace("ED25519 Public-Key", "Public-Key")),
            "{name}: {text}"
        );
    }
}
