//! Everything that is refused, and how it is said.

use kube::api::{Patch, PatchParams};
use seaworthy::{
    api::certificate_rotation::Encoding,
    certificates::{request::Request, sign::sign},
    keys::Key,
};
use serde_json::{Value, json};

use crate::support::{Cluster, ControlPlane, Namespace, Operator, Rotations, condition, eventually};

/// Asserts that the object is not Ready and Stalled for this reason; returns what it says.
async fn refused(namespace: &Namespace, name: &str, reason: &str) -> String {
    namespace.says(name, "Ready", "False", reason).await;
    namespace.says(name, "Stalled", "True", reason).await
}

#[tokio::test]
async fn secrets_that_are_not_ours_are_left_alone() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("foreign").await;
    namespace.secret("theirs", "Opaque", &[("password", "p")]).await;
    namespace.secret("token", "bootstrap.kubernetes.io/token", &[]).await;
    let before = namespace.secrets().get("theirs").await.unwrap();
    let _operator = cluster.operator(&namespace);
    namespace.create("a", json!({"secretName": "theirs"})).await;
    namespace.create("b", json!({"secretName": "token"})).await;
    let said = refused(&namespace, "a", "NotOurs").await;
    assert!(said.contains("Secret theirs exists and was not made by Seaworthy"), "{said}");
    let said = refused(&namespace, "b", "ReservedType").await;
    assert!(said.contains("bootstrap.kubernetes.io/token"), "{said}");
    assert_eq!(namespace.secrets().get("theirs").await.unwrap(), before);
    // It is deleted: the resource goes on by itself.
    namespace.delete_secret("theirs").await;
    namespace.ready("a", 1).await;
}

#[tokio::test]
async fn a_previous_pair_is_not_written_over_somebody_elses_secret() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("previous").await;
    let _operator = cluster.operator(&namespace);
    namespace.create("web", json!({})).await;
    let first = namespace.ready("web", 1).await;
    namespace.secret("web-tls-previous", "Opaque", &[("a", "b")]).await;
    namespace.annotate("web", "seaworthy.dev/rotate", "now").await;
    let said = refused(&namespace, "web", "NotOurs").await;
    assert!(said.contains("web-tls-previous"), "{said}");
    assert_eq!(namespace.text("web-tls-previous", "a").await, "b");
    let now = namespace.rotations().get("web").await.unwrap();
    assert_eq!(now.status.unwrap().serial_number, first.status.unwrap().serial_number);
}

#[tokio::test]
async fn a_write_that_is_refused_costs_no_previous_pair() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("immutable").await;
    let _operator = cluster.operator(&namespace);
    namespace.create("web", json!({})).await;
    namespace.ready("web", 1).await;
    namespace.annotate("web", "seaworthy.dev/rotate", "1").await;
    namespace.ready("web", 2).await;
    let previous = namespace.text("web-tls-previous", "tls.crt").await;
    let freeze = Patch::Merge(json!({"immutable": true}));
    namespace.secrets().patch("web-tls", &PatchParams::default(), &freeze).await.unwrap();
    namespace.annotate("web", "seaworthy.dev/rotate", "2").await;
    let said = namespace.says("web", "Reconciling", "True", "Requested").await;
    assert!(said.contains("immutable"), "{said}");
    assert_eq!(namespace.text("web-tls-previous", "tls.crt").await, previous);
    assert_eq!(condition(&namespace.rotations().get("web").await.unwrap(), "Ready").unwrap().0, "True", "what is there is valid");
    namespace.delete_secret("web-tls").await;
    namespace.ready("web", 3).await;
}

#[tokio::test]
async fn who_undoes_it_again_and_again_is_answered_more_slowly() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("contest").await;
    let operator = cluster.operator(&namespace);
    namespace.create("web", json!({})).await;
    namespace.ready("web", 1).await;
    let right = namespace.text("web-tls", "ca.crt").await;
    let undo = async || {
        let params = PatchParams { field_manager: Some("stubborn".into()), ..PatchParams::default() };
        namespace.secrets().patch("web-tls", &params, &Patch::Merge(json!({"stringData": {"ca.crt": "mine"}}))).await.unwrap();
    };
    let put_right = async || {
        eventually("ca.crt is put right", || async {
            let text = namespace.text("web-tls", "ca.crt").await;
            if text == right { Ok(()) } else { Err(text) }
        })
        .await;
    };
    for _ in 0..5 {
        undo().await;
        put_right().await;
    }
    undo().await;
    namespace.until("web", "it says so", |object| object.status.as_ref().unwrap().last_failure.is_some()).await;
    let failure = namespace.rotations().get("web").await.unwrap().status.unwrap().last_failure.unwrap();
    assert_eq!(failure.reason, "Contested");
    assert!(failure.message.contains("the last writer was \"stubborn\""), "{}", failure.message);
    assert_eq!(namespace.text("web-tls", "ca.crt").await, "mine", "it waits");
    operator.clock.advance(jiff::SignedDuration::from_mins(2));
    namespace.annotate("web", "seaworthy.dev/look", "1").await;
    put_right().await;
    namespace.ready("web", 1).await;
}

#[tokio::test]
async fn of_two_writers_the_older_keeps_the_secret() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("two").await;
    let _operator = cluster.operator(&namespace);
    namespace.create("old", json!({"secretName": "shared"})).await;
    namespace.ready("old", 1).await;
    // A second later, so that the times differ.
    crate::support::eventually("a second has passed", || async {
        let old = namespace.rotations().get("old").await.map_err(|error| error.to_string())?;
        let age = jiff::Timestamp::now().duration_since(old.metadata.creation_timestamp.unwrap().0);
        if age.as_millis() > 1100 { Ok(()) } else { Err(format!("{age}")) }
    })
    .await;
    namespace.create("young", json!({"secretName": "shared"})).await;
    namespace.create("derived", json!({"secretName": "shared-previous"})).await;
    for name in ["young", "derived"] {
        let said = refused(&namespace, name, "TargetConflict").await;
        assert!(said.contains("CertificateRotation old"), "{said}");
    }
    namespace.rotations().delete("derived", &kube::api::DeleteParams::default()).await.unwrap();
    namespace.rotations().delete("old", &kube::api::DeleteParams::default()).await.unwrap();
    // Its Secret is still there and says whose it was.
    let said = refused(&namespace, "young", "NotOurs").await;
    assert!(said.contains("belongs to CertificateRotation/old"), "{said}");
    // A resource of that name takes it back.
    namespace.change("young", json!({"secretName": "elsewhere"})).await;
    namespace.create("old", json!({"secretName": "shared"})).await;
    namespace.ready("old", 1).await;
    namespace.ready("young", 1).await;
}

fn pems(
    spec: Value,
    parent: Option<(&Key, &seaworthy::certificates::x509::Certificate)>,
    at: jiff::Timestamp,
) -> (Key, seaworthy::certificates::x509::Certificate) {
    let mut whole = json!({"secretName": "x", "commonName": "CA", "isCA": true});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let spec: seaworthy::api::certificate_rotation::CertificateRotationSpec = serde_json::from_value(whole).unwrap();
    let key = Key::generate(&spec.private_key).unwrap();
    let certificate = sign(&Request { spec: &spec, key: &key, now: at }, parent.map(|(key, certificate)| (certificate, key))).unwrap();
    (key, certificate)
}

#[tokio::test]
async fn a_ca_that_cannot_sign_is_refused_with_what_is_wrong_about_it() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("badca").await;
    let now = jiff::Timestamp::now();
    let text = |key: &Key| key.to_pem(Encoding::Pkcs8).unwrap().to_string();
    let (key, good) = pems(json!({}), None, now);
    let (other, _) = pems(json!({}), None, now);
    let (leaf_key, leaf) = pems(json!({"isCA": false}), None, now);
    let (old_key, old) = pems(json!({"duration": "1h"}), None, now - jiff::SignedDuration::from_hours(5));
    let (middle_key, middle) = pems(json!({"commonName": "Middle"}), Some((&key, &good)), now);
    for (name, certificate, private) in [
        ("mismatch", good.to_pem(), text(&other)),
        ("leaf", leaf.to_pem(), text(&leaf_key)),
        ("expired", old.to_pem(), text(&old_key)),
        ("garbage", "garbage".to_owned(), "garbage".to_owned()),
        ("middle", middle.to_pem(), text(&middle_key)),
    ] {
        namespace.secret(name, "kubernetes.io/tls", &[("tls.crt", &certificate), ("tls.key", &private)]).await;
    }
    let _operator = cluster.operator(&namespace);
    let rows = [
        ("mismatch", "IssuerInvalid", "tls.key is not the key of the certificate"),
        ("leaf", "IssuerInvalid", "may not sign others"),
        ("expired", "IssuerInvalid", "has expired"),
        ("garbage", "IssuerInvalid", "there is no certificate in PEM form"),
    ];
    for (name, reason, said) in rows {
        namespace.create(name, json!({"issuer": {"ca": {"secretName": name}}})).await;
        let message = refused(&namespace, name, reason).await;
        assert!(message.contains(said), "{name}: {message}");
    }
    // An intermediate alone is an anchor: consumers trust it.
    namespace.create("anchored", json!({"issuer": {"ca": {"secretName": "middle"}}})).await;
    namespace.ready("anchored", 1).await;
    // A CA that is mended wakes who waits for it.
    let mended = json!({"stringData": {"tls.key": text(&key)}});
    namespace.secrets().patch("mismatch", &PatchParams::default(), &Patch::Merge(mended)).await.unwrap();
    namespace.ready("mismatch", 1).await;
}

#[tokio::test]
async fn what_only_the_operator_can_judge_names_the_field() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("fields").await;
    let _operator = cluster.operator(&namespace);
    let rows = [
        ("cron", json!({"schedule": "every other day at noon"}), "spec.schedule: "),
        ("never", json!({"schedule": "0 0 31 2 *"}), "spec.schedule: "),
        ("zone", json!({"timeZone": "Mars/Base"}), "spec.timeZone: "),
        ("window", json!({"window": {"schedule": "61 * * * *", "duration": "1h"}}), "spec.window: "),
    ];
    for (name, spec, field) in rows {
        namespace.create(name, spec).await;
        namespace.says(name, "Ready", "False", "InvalidSpec").await;
        let message = namespace.says(name, "Stalled", "True", "InvalidSpec").await;
        assert!(message.starts_with(field), "{name}: {message}");
    }
    // Corrected, it goes on; made wrong, what consumers get stays Ready.
    namespace.change("zone", json!({"timeZone": "Europe/Berlin"})).await;
    namespace.ready("zone", 1).await;
    namespace.change("zone", json!({"timeZone": "Mars/Base"})).await;
    namespace.says("zone", "Stalled", "True", "InvalidSpec").await;
    namespace.ready("zone", 1).await;
    // An operator that is limited to namespaces follows no issuerRef.
    namespace.create("cluster-wide", json!({"issuer": null, "issuerRef": {"name": "any"}})).await;
    let message = refused(&namespace, "cluster-wide", "InvalidSpec").await;
    assert!(message.contains("--namespaces"), "{message}");
    // Nor a storeRef.
    let (rotations, data) = (Rotations(&namespace), json!([{"secretKey": "x", "remoteRef": {"key": "x"}}]));
    rotations.create("shared", json!({"target": {"name": "shared"}, "storeRef": {"name": "any"}, "data": data})).await;
    let message = rotations.says("shared", "Stalled", "True", "InvalidSpec").await;
    assert!(message.contains("--namespaces") && message.contains("use spec.store"), "{message}");
}

#[tokio::test]
async fn a_cluster_wide_issuer_serves_whom_it_allows() {
    let (_own, cluster) = ControlPlane::start().await;
    let (allowed, denied, home) = (cluster.namespace("allowed").await, cluster.namespace("denied").await, cluster.home());
    let _operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    let issuers: kube::Api<seaworthy::api::CertificateIssuer> = kube::Api::all(cluster.client.clone());
    let issuer = async |name: &str, spec: Value| {
        let object = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "CertificateIssuer", "metadata": {"name": name}, "spec": spec});
        issuers.patch(name, &PatchParams::apply("test"), &Patch::Apply(object)).await.unwrap();
    };
    issuer("internal", json!({"allowedNamespaces": {"matchLabels": {"test": "allowed"}}, "ca": {"secretName": "root-tls"}})).await;
    issuer("nobody", json!({"ca": {"secretName": "root-tls"}})).await;
    issuer("everybody", json!({"allowedNamespaces": {}, "selfSigned": {}})).await;
    let by = |name: &str| json!({"issuer": null, "issuerRef": {"name": name}});
    allowed.create("web", by("internal")).await;
    allowed.create("none", by("nobody")).await;
    allowed.create("absent", by("absent")).await;
    denied.create("web", by("internal")).await;
    denied.create("open", by("everybody")).await;
    // Not before the operator has heard of the issuer, which was made just now.
    let named = |object: &seaworthy::api::CertificateRotation| {
        condition(object, "Ready").is_some_and(|(_, reason, said)| reason == "IssuerNotFound" && said.contains("seaworthy/root-tls"))
    };
    allowed.until("web", "its Secret lies in the operator's namespace", named).await;
    assert!(refused(&denied, "web", "IssuerDenied").await.contains("labels do not match"));
    assert!(refused(&allowed, "none", "IssuerDenied").await.contains("absent, which allows none"));
    allowed.says("absent", "Ready", "False", "IssuerNotFound").await;
    denied.ready("open", 1).await;
    // The CA comes into being in the operator's namespace: who waits for it goes on.
    home.create("root", json!({"isCA": true, "commonName": "Root", "dnsNames": null})).await;
    let ready = allowed.ready("web", 1).await;
    assert_eq!(ready.status.unwrap().issuer.as_deref(), Some("CertificateIssuer/internal"));
    crate::support::eventually("the issuer says that it can sign and for how many", || async {
        let status = issuers.get("internal").await.map_err(|error| error.to_string())?.status.unwrap_or_default();
        let fine = status.certificates == Some(2)
            && status.not_after.is_some()
            && status.kind.as_deref() == Some("ca")
            && status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        if fine { Ok(()) } else { Err(serde_json::to_string(&status).unwrap()) }
    })
    .await;
    // The namespace is allowed later, and the issuer that was absent comes.
    let label = json!({"metadata": {"labels": {"test": "allowed"}}});
    kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(cluster.client.clone())
        .patch(&denied.name, &PatchParams::default(), &Patch::Merge(label))
        .await
        .unwrap();
    denied.ready("web", 1).await;
    issuer("absent", json!({"allowedNamespaces": {}, "selfSigned": {}})).await;
    allowed.ready("absent", 1).await;
}

/// A Secret of another namespace cannot even be named: there is no field for it.
#[test]
fn no_reference_has_a_namespace() {
    let schema = serde_json::to_string(&seaworthy::api::crds()[1].spec.versions[0].schema).unwrap();
    let spec = schema.split("\"status\":{\"default\"").next().unwrap();
    assert!(!spec.contains("\"namespace\""), "a namespaced kind has no namespace field");
}
