//! Nothing prints a value: an operator of its own runs through what it does and what fails, with values that can be found again, and everything that
//! it says is searched for them.

use std::path::PathBuf;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret, events::v1::Event};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use seaworthy::api::{SecretRotation, SecretStore};
use serde_json::{Value, json};

use crate::{
    cli::seaworthy_in,
    stores::{account, authority},
    support::{
        Cluster, ControlPlane, Kubelet, Moto, Process, Rotations, Vault, deployment, eventually, keeps_previous, next_second, oci::Oci,
        said,
    },
    vault::{login_by_jwt, login_by_review},
};

/// No other text looks like it.
const CANARY: &str = "c4n4ry";

/// One of each, by its key in the Secret.
const GENERATORS: [(&str, &str); 9] = [
    ("ssh", "sshKey"),
    ("set", "jwks"),
    ("rsa", "rsaKey"),
    ("ecdsa", "ecdsaKey"),
    ("ed25519", "ed25519Key"),
    ("password", "password"),
    ("base64", "base64"),
    ("hex", "hex"),
    ("uuid", "uuid"),
];

/// A value.
fn value(name: &str) -> String {
    format!("{CANARY}-{name}-0123456789")
}

/// What the store `file` gives out.
fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("seaworthy-canary-{}", std::process::id()))
}

/// The value as it is, in base64 (whatever its place in it), in hexadecimal, and as the list of its bytes, which `Debug` makes of them.
fn forms(value: &str) -> Vec<String> {
    let hex = value.bytes().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let shifted = (0..3).map(|shift| {
        let text = STANDARD.encode(format!("{}{value}", "x".repeat(shift)));
        // What the neighbours have a part in is left out.
        text[(shift * 8).div_ceil(6)..text.trim_end_matches('=').len() - 2].to_owned()
    });
    let debug = format!("{:?}", value.as_bytes()).trim_matches(['[', ']']).to_owned();
    shifted.chain([value.to_owned(), hex, debug]).collect()
}

fn search(what: &str, text: &str, values: &[String]) {
    for form in values.iter().flat_map(|value| forms(value)) {
        let found =
            text.find(&form).map(|place| &text[text.floor_char_boundary(place.saturating_sub(200))..text.ceil_char_boundary(place + 40)]);
        assert!(found.is_none(), "{what} holds a value: …{}", found.unwrap_or_default());
    }
}

/// Searches all that the operator says of what is in its cluster, and what it is started with.
pub async fn search_everything(cluster: &Cluster, process: &Process, values: &[String]) {
    let (client, all) = (&cluster.client, ListParams::default());
    let events = Api::<Event>::all(client.clone()).list(&all).await.unwrap().items;
    assert!(!events.is_empty());
    search("an event", &serde_json::to_string(&events).unwrap(), values);
    let rotations = Api::<SecretRotation>::all(client.clone()).list(&all).await.unwrap().items;
    assert!(!rotations.is_empty());
    search("a status", &json!(rotations.iter().map(|object| &object.status).collect::<Vec<_>>()).to_string(), values);
    let stores = Api::<SecretStore>::all(client.clone()).list(&all).await.unwrap().items;
    assert!(!stores.is_empty());
    search("the status of a SecretStore", &json!(stores.iter().map(|store| &store.status).collect::<Vec<_>>()).to_string(), values);
    let secrets = Api::<Secret>::all(client.clone()).list(&all).await.unwrap().items;
    search("the metadata of a Secret", &json!(secrets.iter().map(|secret| &secret.metadata).collect::<Vec<_>>()).to_string(), values);
    let metrics = process.metrics().await;
    assert!(metrics.contains("seaworthy_secrets"), "{metrics}");
    search("a metric", &metrics, values);
    let arguments = std::fs::read(format!("/proc/{}/cmdline", process.child.id())).unwrap();
    search("an argument", &String::from_utf8_lossy(&arguments), values);
    let (audit, log) = process.said();
    assert!(audit.contains("\"action\"") && log.contains("TRACE"));
    search("the audit log", &audit, values);
    search("the log, at its most talkative", &log, values);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_prints_a_value() {
    let ((own_cluster, cluster), vault, moto) = (ControlPlane::start().await, Vault::start().await, Moto::start().await);
    let namespace = cluster.namespace("canary").await;
    let rotations = Rotations(&namespace);
    // What the stores env and file may give out.
    let folder = folder();
    let given = ["--store-env", "CANARY_*", "--store-folders", folder.to_str().unwrap()];
    let process = Process::with(&cluster, &given, &[("CANARY_VALUE", &value("env"))]);

    // The search finds what it looks for.
    let hidden = (0..6).map(|place| STANDARD.encode(format!("{}{CANARY}-and-more", "y".repeat(place))));
    assert!(hidden.into_iter().all(|text| forms(CANARY).iter().any(|form| text.contains(form))));

    // Credentials, values of a Secret and of Vault, JSON and not.
    let policy = r#"path "secret/data/app" { capabilities = ["read", "create", "update"] }
        path "secret/delete/app" { capabilities = ["update"] }
        path "secret/metadata/app" { capabilities = ["read"] }
        path "secret/data/team/*" { capabilities = ["read"] }
        path "secret/metadata/team/*" { capabilities = ["list"] }"#;
    let (id, secret_id) = vault.role("app", policy).await;
    namespace.secret("approle", "Opaque", &[("id", &secret_id), ("wrong", &value("credential"))]).await;
    namespace
        .secret("source", "Opaque", &[("plain", &value("plain")), ("json", &format!(r#"{{"a": "{}", "b": null}}"#, value("json")))])
        .await;
    vault.put("app", json!({"password": value("vault"), "key": value("key")})).await;
    let with = |secret: &str| json!({"vault": {"server": vault.address, "auth": {"appRole": {"roleId": id, "secretRef": {"name": "approle", "key": secret}}}}});
    let data = |key: &str, property: &str| json!([{"secretKey": "x", "remoteRef": {"key": key, "property": property}}]);
    let own = json!({"kubernetes": {}});
    let template = |text: &str| json!({"data": {"t": text}});
    let push = |key: &str| json!([{"secretKey": "plain", "remoteRef": {"key": key, "property": "id"}}]);
    let api_key = json!({"tenancy": "t", "user": "u", "fingerprint": "20:3b:97:13:55:1c:5b:0d:d3:37:d8:50:4e:c5:3a:34", "privateKeySecretRef": {"name": "approle", "key": "wrong"}});
    let oci = json!({"oci": {"region": "eu-frankfurt-1", "vault": "v", "auth": {"apiKey": api_key}}});
    let secret_ref = json!({"accessKeyID": {"name": "approle", "key": "wrong"}, "secretAccessKey": {"name": "approle", "key": "wrong"}});
    let aws = json!({"aws": {"region": "us-east-1", "endpoint": moto.address, "auth": {"secretRef": secret_ref}}});
    moto.call("CreateSecret", json!({"Name": "app", "SecretString": json!({"password": value("aws")}).to_string()})).await;
    let generators: Vec<Value> = GENERATORS.iter().map(|(name, kind)| json!({"secretKey": name, *kind: {}})).collect();
    namespace.secret("token", "Opaque", &[("token", &vault.root)]).await;
    let by_token = json!({"vault": {"server": vault.address, "auth": {"token": {"secretRef": {"name": "token", "key": "token"}}}}});
    let cases = [
        ("by-token", json!({"store": by_token, "data": data("app", "password")}), "True"),
        (
            "hashed",
            json!({"store": own, "data": data("source", "plain"), "template": template("{{ x | bcrypt }} {{ x | htpasswd('u') }}")}),
            "True",
        ),
        ("aws", json!({"store": aws, "data": data("app", "password")}), "True"),
        (
            "aws-pushed",
            json!({"store": aws, "rotation": {"generate": [{"secretKey": "k", "hex": {}}], "previous": {}, "push": [{"secretKey": "k", "remoteRef": {"key": "generated", "property": "k"}}]}}),
            "True",
        ),
        ("aws-brought", json!({"target": {"name": "source", "creationPolicy": "Merge"}, "store": aws, "push": push("new")}), "True"),
        (
            "fine",
            json!({"store": own, "data": data("source", "plain"), "template": template("{{ x | b64encode }}{{ x | sha256 }}")}),
            "True",
        ),
        ("vault", json!({"store": with("id"), "data": data("app", "password")}), "True"),
        ("login", json!({"store": with("wrong"), "data": data("app", "password")}), "False"),
        ("property", json!({"store": own, "data": data("source", "plain.x")}), "False"),
        ("null", json!({"store": own, "data": data("source", "json.b")}), "False"),
        ("extract", json!({"store": own, "dataFrom": [{"extract": {"key": "source", "property": "plain"}}]}), "False"),
        ("filter", json!({"store": own, "data": data("source", "plain"), "template": template("{{ x | fromjson }}")}), "False"),
        ("decode", json!({"store": own, "data": data("source", "plain"), "template": template("{{ x | b64decode }}")}), "False"),
        (
            "index",
            json!({"store": own, "data": data("source", "plain"), "template": template("{{ x[x] }}{{ x / 2 }}{% for a, b in x %}{% endfor %}")}),
            "False",
        ),
        (
            "rotated",
            json!({"store": with("id"), "rotation": {"generate": [{"secretKey": "k", "hex": {}}], "previous": {},
            "push": [{"secretKey": "k", "remoteRef": {"key": "app", "property": "key"}}]}}),
            "True",
        ),
        ("keys", json!({"rotation": {"generate": generators, "previous": {}}}), "True"),
        ("brought", json!({"target": {"name": "source", "creationPolicy": "Merge"}, "store": own, "push": push("copy")}), "True"),
        ("refused", json!({"target": {"name": "source", "creationPolicy": "Merge"}, "store": own, "push": push("approle")}), "False"),
        (
            "taken",
            json!({"target": {"name": "source", "creationPolicy": "Merge"}, "rotation": {"generate": [{"secretKey": "plain", "hex": {}}]}}),
            "False",
        ),
        ("oci", json!({"store": oci, "data": data("app", "x")}), "False"),
    ];
    // A SecretStore whose credentials are refused; they lie in the operator's namespace.
    cluster.operators_secret("refused", json!({"id": value("shared")})).await;
    let by_role = |id: &str, name: &str| {
        let role = json!({"roleId": id, "secretRef": {"name": name, "key": "id"}, "rotateSecretId": {"every": "720h"}});
        json!({"allowedNamespaces": {}, "vault": {"server": vault.address, "auth": {"appRole": role}}})
    };
    let stores = cluster.secret_store("refused", by_role(&id, "refused")).await;
    // And one whose credential replaces itself.
    let (renewed, first) = vault.role("renewed", &crate::own_credential::POLICY.replace("role/app/", "role/renewed/")).await;
    let renewing = cluster.operators_secret("renewed", json!({"id": first})).await;
    cluster.secret_store("renewed", by_role(&renewed, "renewed")).await;
    let second = eventually("the secret id is another one", || async {
        let data = renewing.get("renewed").await.map_err(|error| error.to_string())?.data.unwrap_or_default();
        let now = String::from_utf8_lossy(&data["id"].0).into_owned();
        if now == first { Err("it is the first".into()) } else { Ok(now) }
    })
    .await;
    eventually("the store is not Ready", || async {
        let store = stores.get("refused").await.map_err(|error| error.to_string())?;
        let ready = store.status.iter().flat_map(|status| &status.conditions).find(|condition| condition.type_ == "Ready");
        if ready.is_some_and(|ready| ready.status == "False" && ready.reason == "StoreDenied") {
            Ok(())
        } else {
            Err(json!(store.status).to_string())
        }
    })
    .await;
    // Stores that answer: the operator's own variables and files, another cluster, Oracle Cloud, Vault as a ServiceAccount.
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("password"), value("file")).unwrap();
    cluster.secret_store("given-env", json!({"allowedNamespaces": {}, "env": {}})).await;
    cluster.secret_store("given-file", json!({"allowedNamespaces": {}, "file": {"path": folder}})).await;
    let other = Cluster::shared().await;
    let there = other.namespace("canary-there").await;
    let token = account(&there).await;
    there.secret("db", "Opaque", &[("password", &value("far"))]).await;
    cluster.operators_secret("other-cluster", json!({"token": token})).await;
    let url = other.operator_config.cluster_url.to_string();
    let server = json!({"url": url.trim_end_matches('/'), "caBundle": authority(&other), "auth": {"token": {"secretRef": {"name": "other-cluster", "key": "token"}}}});
    cluster.secret_store("far", json!({"allowedNamespaces": {}, "kubernetes": {"namespace": there.name, "server": server.clone()}})).await;
    // One that does not know the client certificate.
    let client = rcgen::generate_simple_self_signed(vec!["reader".to_owned()]).unwrap();
    let pair = json!({"cert": client.cert.pem(), "key": client.signing_key.serialize_pem()});
    cluster.operators_secret("certificate", pair).await;
    let by = |key: &str| json!({"name": "certificate", "key": key});
    let mut server = server;
    server["auth"] = json!({"clientCertificate": {"certSecretRef": by("cert"), "keySecretRef": by("key")}});
    cluster
        .secret_store("far-certificate", json!({"allowedNamespaces": {}, "kubernetes": {"namespace": there.name, "server": server}}))
        .await;
    namespace.secret("brief", "Opaque", &[("plain", &value("brief"))]).await;
    let oracle = Oci::start().await;
    oracle.put("app", &json!({"password": value("oci")}).to_string());
    namespace.secret("oci", "Opaque", &[("key.pem", &oracle.private)]).await;
    vault.call("POST", "sys/policies/acl/jwt", json!({"policy": policy})).await;
    let login = login_by_jwt(&cluster, &vault, &namespace, "jwt").await;
    let by_jwt = json!({"vault": {"server": vault.address, "auth": {"jwt": login}}});
    let login = login_by_review(&cluster, &vault, &namespace, "jwt").await;
    let by_review = json!({"vault": {"server": vault.address, "auth": {"kubernetes": login}}});
    vault.put("team/one", json!({"password": value("team")})).await;
    // What a workload cannot live with, and is taken back.
    let _kubelet = Kubelet::start(&namespace, "web");
    let generated = json!({"generate": [{"secretKey": "value", "hex": {}}], "push": [{"secretKey": "value", "remoteRef": {"key": "back", "property": "k"}}]});
    let restart = json!({"discover": true, "timeout": "5s"});
    let shared = |name: &str, key: &str| json!({"storeRef": {"name": name}, "data": [{"secretKey": "x", "remoteRef": {"key": key}}]});
    // Stores of another make, what somebody else has put there, and one that is asked too much.
    let mut old = by_token.clone();
    (old["vault"]["path"], old["vault"]["version"]) = ("old".into(), "v1".into());
    vault.call("POST", "old/app", json!({"password": value("old")})).await;
    vault.put("theirs", json!({"id": value("theirs")})).await;
    let mut temporary = aws.clone();
    temporary["aws"]["auth"]["secretRef"]["sessionToken"] = json!({"name": "approle", "key": "wrong"});
    let busy = Oci::start().await;
    busy.broken(Some(429));
    namespace.secret("busy", "Opaque", &[("key.pem", &busy.private)]).await;
    let mut asked_too_much = busy.store();
    asked_too_much["oci"]["auth"]["apiKey"]["privateKeySecretRef"]["name"] = "busy".into();
    let unless_there = |key: &str, property: &str| json!([{"secretKey": "plain", "remoteRef": {"key": key, "property": property}, "updatePolicy": "IfNotExists"}]);
    let from_source = json!({"name": "source", "creationPolicy": "Merge"});
    let bring = json!({"generate": [{"secretKey": "k", "hex": {}}], "previous": {}, "push": [{"secretKey": "k", "remoteRef": {"key": "generated", "property": "k"}}]});
    let answering = [
        (
            "leaving",
            json!({"target": {"name": "leaving", "deletionPolicy": "Delete"}, "store": own, "data": data("brief", "plain")}),
            "True",
        ),
        ("adding", json!({"target": {"name": "brief", "creationPolicy": "Merge"}, "store": own, "data": data("source", "plain")}), "True"),
        ("by-certificate", json!({"storeRef": {"name": "far-certificate"}, "data": data("db", "password")}), "False"),
        ("from-old", json!({"store": old, "data": data("app", "password")}), "True"),
        ("to-old", json!({"store": old, "rotation": bring}), "True"),
        ("to-oci", json!({"store": oracle.store(), "rotation": bring}), "True"),
        ("to-far", json!({"target": from_source, "storeRef": {"name": "far"}, "push": push("copied")}), "True"),
        ("temporary", json!({"store": temporary, "data": data("app", "password")}), "True"),
        ("conflict", json!({"target": from_source, "store": by_token, "push": push("theirs")}), "False"),
        ("left-alone", json!({"target": from_source, "store": by_token, "push": unless_there("theirs", "id")}), "True"),
        ("not-there", json!({"target": from_source, "store": by_token, "push": unless_there("theirs", "other")}), "True"),
        ("throttled", json!({"store": asked_too_much, "data": data("app", "password")}), "False"),
        ("from-env", shared("given-env", "CANARY_VALUE"), "True"),
        ("from-file", shared("given-file", "password"), "True"),
        ("from-far", json!({"storeRef": {"name": "far"}, "data": data("db", "password")}), "True"),
        ("from-oci", json!({"store": oracle.store(), "data": data("app", "password")}), "True"),
        ("from-jwt", json!({"store": by_jwt, "data": data("app", "password")}), "True"),
        ("from-review", json!({"store": by_review, "data": data("app", "password")}), "True"),
        ("found", json!({"store": by_jwt, "dataFrom": [{"find": {"path": "team", "name": {"regexp": "^team/"}}}]}), "True"),
        ("found-aws", json!({"store": aws, "dataFrom": [{"find": {"name": {"regexp": "^app$"}}}, {"extract": {"key": "app"}}]}), "True"),
        ("memory", json!({"store": {"memory": {"data": {"a": value("memory")}}}, "dataFrom": [{"extract": {"key": "a"}}]}), "False"),
        ("web-tls", json!({"store": own, "rotation": generated, "restart": restart}), "True"),
    ];
    let cases: Vec<_> = cases.into_iter().chain(answering).collect();
    for (name, spec, _) in &cases {
        let mut spec = spec.clone();
        if spec["target"].is_null() {
            spec["target"] = json!({"name": name});
        }
        rotations.create(name, spec).await;
    }
    for (name, _, ready) in &cases {
        rotations.until(name, "it was looked at", |object| said(object, "Ready").is_some_and(|(status, ..)| status == *ready)).await;
    }
    let mut values: Vec<String> = vec![CANARY.to_owned(), secret_id.clone(), first, second];
    let keys = rotations.data("keys").await;
    let set: Value = serde_json::from_str(&keys["set"]).unwrap();
    values.push(set["keys"][0]["d"].as_str().unwrap().to_owned());
    for (name, kind) in GENERATORS.iter().filter(|(name, _)| *name != "set") {
        // The lines in the middle of a key are its secret part.
        let (skip, take) = match *kind {
            "sshKey" => (3, 2),
            "rsaKey" => (8, 3),
            "ecdsaKey" | "ed25519Key" => (1, 1),
            _ => (0, 1),
        };
        values.extend(keys[*name].lines().skip(skip).take(take).map(ToOwned::to_owned));
    }
    values.push(vault.root.clone());
    assert_eq!(rotations.data("copy").await["id"], value("plain"));
    // A new version takes the place of another in each store, which is retired where that can be.
    for name in ["rotated", "aws-pushed", "to-oci", "to-old"] {
        values.push(rotations.data(name).await["k"].clone());
        rotations.ask(name, "rotate", "1").await;
        rotations.at(name, 2).await;
        values.push(rotations.data(name).await["k"].clone());
        rotations.change(name, json!({"rotation": {"previous": null}})).await;
        rotations.until(name, "the previous value is gone", |object| !keeps_previous(object)).await;
    }
    let (theirs, _) = vault.get("theirs").await;
    assert_eq!((&theirs["id"], &theirs["other"]), (&json!(value("theirs")), &json!(value("plain"))));
    // The credential that was replaced is destroyed a minute later.
    eventually("it is made to be older", || async {
        let secret = renewing.get_metadata("renewed").await.map_err(|error| error.to_string())?;
        let notes = secret.metadata.annotations.unwrap_or_default();
        let made_at = notes.keys().find(|key| key.starts_with("seaworthy.dev/credential-made-at-")).ok_or("it is not noted")?;
        let earlier = (Timestamp::now() - SignedDuration::from_mins(2)).to_string();
        let older = Patch::Merge(json!({"metadata": {"annotations": {made_at: earlier}}}));
        renewing.patch("renewed", &PatchParams::default(), &older).await.map_err(|error| error.to_string())?;
        let look = Patch::Merge(json!({"metadata": {"annotations": {"seaworthy.dev/look": earlier}}}));
        stores.patch("renewed", &PatchParams::default(), &look).await.map_err(|error| error.to_string())?;
        if process.said().0.contains("\"action\":\"destroy\"") { Ok(()) } else { Err("it is not destroyed".into()) }
    })
    .await;
    rotations.edit("fine", json!({"t": value("edited")})).await;
    eventually("the edit is undone", || async {
        if rotations.data("fine").await["t"].contains(CANARY) { Err(String::new()) } else { Ok(()) }
    })
    .await;

    let deployments: Api<Deployment> = Api::namespaced(namespace.client.clone(), &namespace.name);
    deployments.create(&PostParams::default(), &deployment("web", "none.example/c:1")).await.unwrap();
    rotations.consumers("web-tls", "2/2").await;
    values.push(rotations.data("web-tls").await["value"].clone());
    next_second().await;
    rotations.ask("web-tls", "rotate", "1").await;
    let tried = eventually("another value is tried", || async {
        let now = rotations.data("web-tls").await["value"].clone();
        if values.contains(&now) { Err("it is the first".to_owned()) } else { Ok(now) }
    })
    .await;
    values.push(tried);
    values.push(rotations.data("back").await["k"].clone());
    rotations.says("web-tls", "Stalled", "True", "RolledBack").await;
    for (name, wanted) in
        [("env", "from-env"), ("file", "from-file"), ("far", "from-far"), ("oci", "from-oci"), ("vault", "from-jwt"), ("old", "from-old")]
    {
        assert_eq!(rotations.data(wanted).await["x"], value(name));
    }
    for (name, reason) in [("conflict", "StoreConflict"), ("throttled", "StoreThrottled")] {
        rotations.says(name, "Ready", "False", reason).await;
    }
    // What goes: keys that were added to somebody else's Secret, and a Secret with the values of its store.
    rotations.api().delete("adding", &DeleteParams::default()).await.unwrap();
    eventually("what was added is gone", || async {
        let data = rotations.data("brief").await;
        if data.contains_key("x") { Err(format!("{:?}", data.keys())) } else { Ok(()) }
    })
    .await;
    namespace.delete_secret("brief").await;
    rotations.says("leaving", "Ready", "False", "ValueNotFound").await;
    values.push(token);
    values.extend(client.signing_key.serialize_pem().lines().skip(1).take(1).map(ToOwned::to_owned));
    values.extend(busy.private.lines().skip(1).take(3).map(ToOwned::to_owned));
    values.extend(oracle.private.lines().skip(1).take(3).map(ToOwned::to_owned));
    // What tokens of ServiceAccounts and of Vault begin with, also those that nobody but the operator has seen.
    values.extend(["eyJhbGciOiJSUzI1NiIs", "hvs.CAES"].map(ToOwned::to_owned));

    // All that it says.
    search_everything(&cluster, &process, &values).await;
    let metrics = process.metrics().await;
    assert!(metrics.contains("seaworthy_stores{ready=\"false\"} 2"), "{metrics}");
    let at_least_one = |metric: &str| {
        metrics
            .lines()
            .any(|line| line.strip_prefix(metric).is_some_and(|value| value.trim().parse::<f64>().is_ok_and(|value| value >= 1.0)))
    };
    assert!(at_least_one("seaworthy_stores_away"), "one throttles us: {metrics}");
    let (audit, _) = process.said();
    for action in
        ["generate", "push", "rotate", "roll-back", "delete-previous", "retire", "restart", "sync", "delete", "withdraw", "destroy"]
    {
        assert!(audit.contains(&format!("\"action\":\"{action}\"")), "{action}");
    }
    // And what the command line says.
    let given = ["--store-env", "CANARY_*"];
    for arguments in [
        vec!["status", "-A"],
        vec!["status", "-A", "-o", "json"],
        vec!["consumers", "secret/web-tls", "-n", &namespace.name],
        vec!["store", "check", "refused"],
        vec!["rotate", "secretrotation/keys", "-n", &namespace.name],
        vec!["store", "list", "far"],
        vec!["store", "get", "far", "db"],
        vec!["store", "get", "far", "db", "-o", "json"],
        [&["store", "get", "given-env", "CANARY_VALUE"], given.as_slice()].concat(),
        vec!["vault-policy", "-n", &namespace.name],
    ] {
        let (code, said) = seaworthy_in(&[("CANARY_VALUE", &value("env"))], &own_cluster.kubeconfig, &arguments);
        assert!(code < 2 && !said.is_empty(), "{arguments:?}: {code} {said}");
        search(&format!("{arguments:?}"), &said, &values);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
