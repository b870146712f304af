//! What the pages promise.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

use mlua::{Lua, LuaSerdeExt, Table};
use seaworthy::telemetry::metrics::{Certificates, Metrics, Secrets};
use serde_json::{Value, json};

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

#[test]
fn every_reason_has_its_row() {
    let page = page("certificate-rotation.md");
    for reason in seaworthy::certificates::reason::Reason::ALL {
        assert!(page.contains(&format!("| `{reason}` |")), "docs/certificate-rotation.md says nothing about {reason}");
    }
}

#[test]
fn every_reason_of_secrets_has_its_row() {
    let page = page("secret-rotation.md");
    for reason in seaworthy::secrets::reason::Reason::ALL {
        assert!(page.contains(&format!("| `{reason}` |")), "docs/secret-rotation.md says nothing about {reason}");
    }
}

#[test]
fn every_reason_of_a_store_has_its_row() {
    let page = page("secret-store.md");
    let of_values = ["StoreNotFound", "StoreConflict"]; // of who uses it
    let all = seaworthy::secrets::reason::Reason::ALL.iter().map(|reason| reason.as_str());
    let of_a_store = all.filter(|reason| reason.starts_with("Store") && !of_values.contains(reason)).chain(["Malformed", "WriteFailed"]);
    for reason in of_a_store {
        assert!(page.contains(&format!("| `{reason}` |")), "docs/secret-store.md says nothing about {reason}");
    }
}

#[test]
fn every_store_has_its_row() {
    let page = page("secret-store.md");
    for kind in seaworthy::secrets::stores::StoreSpec::KINDS {
        assert!(page.contains(&format!("| `{kind}: ")), "docs/secret-store.md says nothing about {kind}");
    }
}

#[test]
fn every_issuer_has_its_row() {
    let page = page("certificate-issuer.md");
    for kind in seaworthy::certificates::issuers::IssuerSpec::KINDS {
        assert!(page.contains(&format!("| `{kind}: ")), "docs/certificate-issuer.md says nothing about {kind}");
    }
}

#[test]
fn every_alert_is_about_a_metric_that_there_is() {
    let alerts = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/seaworthy/files/alerts.yaml")).unwrap();
    let metrics = Metrics::new();
    metrics.failed("kind", "reason"); // what was never counted is not told
    metrics.certificates(&Certificates::default());
    metrics.secrets(&Secrets::default());
    metrics.leading(true);
    let metrics = metrics.encode();
    let names: Vec<&str> =
        alerts.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_').filter(|word| word.starts_with("seaworthy_")).collect();
    assert!(names.len() > 7);
    for name in names {
        let of_counter = name.strip_suffix("_total").unwrap_or(name);
        assert!(metrics.lines().any(|line| line.starts_with(&format!("# TYPE {of_counter} "))), "there is no metric {name}:\n{metrics}");
    }
}

/// Argo CD runs it with a Lua 5.1 of its own.
#[test]
fn the_health_check_for_argo_cd() {
    let page = page("gitops.md");
    let manifest = page.split("```yaml\n").find(|block| block.contains("name: argocd-cm")).unwrap().split("```").next().unwrap();
    let manifest: Value = serde_saphyr::from_str(manifest).unwrap();
    let of = |status: Value, suspend: bool| json!({"metadata": {"generation": 2}, "spec": {"suspend": suspend}, "status": status});
    let with = |generation: i64, conditions: Value| json!({"observedGeneration": generation, "conditions": conditions});
    let ready = |status: &str| json!({"type": "Ready", "status": status, "message": "said"});
    let stalled = json!({"type": "Stalled", "status": "True", "message": "stalled"});
    let rows = [
        (json!({"metadata": {"generation": 1}, "spec": {}}), "Progressing"),
        (of(json!({"observedGeneration": -1}), false), "Progressing"),
        (of(with(1, json!([ready("True")])), false), "Progressing"),
        (of(with(2, json!([ready("True")])), false), "Healthy"),
        (of(with(2, json!([ready("True")])), true), "Suspended"),
        (of(with(2, json!([ready("False")])), false), "Progressing"),
        (of(with(2, json!([ready("True"), stalled.clone()])), false), "Degraded"),
        (of(with(2, json!([ready("False"), stalled])), false), "Degraded"),
    ];
    for kind in ["CertificateRotation", "CertificateIssuer", "SecretRotation", "SecretStore"] {
        let check = manifest["data"][format!("resource.customizations.health.seaworthy.dev_{kind}")].as_str().unwrap();
        for (object, health) in &rows {
            let lua = Lua::new();
            lua.globals().set("obj", lua.to_value(object).unwrap()).unwrap();
            let found: Table = lua.load(check).eval().unwrap();
            assert_eq!(found.get::<String>("status").unwrap(), *health, "{kind}: {object}");
        }
    }
}
