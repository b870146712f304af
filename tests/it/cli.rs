//! The command line, as a person uses it.

use kube::api::PostParams;
use serde_json::{Value, json};

use crate::support::{ControlPlane, Operator, Vault, command, try_command};

/// Runs it against a cluster; exit code, standard output and error together.
pub fn seaworthy(kubeconfig: &str, arguments: &[&str]) -> (i32, String) {
    seaworthy_in(&[], kubeconfig, arguments)
}

/// The same with other variables of the environment.
pub fn seaworthy_in(environment: &[(&str, &str)], kubeconfig: &str, arguments: &[&str]) -> (i32, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_seaworthy"));
    let output = command.args(arguments).envs(environment.iter().copied()).env("KUBECONFIG", kubeconfig).output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_rotate_and_what_they_say() {
    let (own, cluster) = ControlPlane::start().await;
    let namespace = cluster.namespace("cli").await;
    let _operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    let run = |arguments: &[&str]| seaworthy(&own.kubeconfig, arguments);
    let name = namespace.name.as_str();
    assert_eq!(run(&["status", "-n", name]), (0, format!("Nothing is managed in namespace {name}; -A shows all.\n")));
    namespace.create("web", json!({})).await;
    namespace.ready("web", 1).await;
    let (code, table) = run(&["status", "-n", name]);
    assert_eq!(code, 0, "{table}");
    assert!(
        table.contains("True") && table.contains("web") && table.contains("renews in") && table.contains("1 managed, 0 not ready"),
        "{table}"
    );

    let (code, said) = run(&["rotate", "certificaterotation/web", "-n", name, "--wait", "--timeout", "60s"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("revision 2, valid until"), "{said}");

    // The same for values.
    let values = crate::support::Rotations(&namespace);
    values.create("jwt", json!({"target": {"name": "jwt"}, "rotation": {"generate": [{"secretKey": "key", "hex": {}}]}})).await;
    values.ready("jwt", 1).await;
    let before = values.data("jwt").await["key"].clone();
    let (code, said) = run(&["rotate", "secretrotation/jwt", "-n", name, "--wait", "--timeout", "60s"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("revision 2") && values.data("jwt").await["key"] != before, "{said}");
    // What was wrong before, and is put right by it, is no answer.
    values.edit("jwt", json!({"key": "somebody else's"})).await;
    values.says("jwt", "Stalled", "True", "Modified").await;
    let (code, said) = run(&["rotate", "secretrotation/jwt", "-n", name, "--wait", "--timeout", "60s"]);
    assert!(code == 0 && said.contains("revision 3"), "{code} {said}");
    let (code, table) = run(&["status", "-n", name]);
    assert!(code == 0 && table.contains("jwt") && table.contains("2 managed, 0 not ready"), "{table}");
    // The one before is not thrown away for it.
    values.change("jwt", json!({"rotation": {"previous": {}}})).await;
    let (code, said) = run(&["rotate", "secretrotation/jwt", "-n", name, "--wait", "--timeout", "60s"]);
    assert!(code == 0 && said.contains("revision 4"), "{code} {said}");
    let (code, said) = run(&["rotate", "secretrotation/jwt", "-n", name, "--wait", "--timeout", "60s"]);
    assert!(code == 1 && said.contains("the previous values are kept until") && said.contains("the request stays"), "{code} {said}");
    values.api().delete("jwt", &kube::api::DeleteParams::default()).await.unwrap();

    // What is wrong comes first, and is the exit code.
    namespace.secret("theirs", "Opaque", &[]).await;
    namespace.create("zz-bad", json!({"secretName": "theirs"})).await;
    namespace.says("zz-bad", "Stalled", "True", "NotOurs").await;
    let (code, text) = run(&["status", "-A", "-o", "json"]);
    assert_eq!(code, 1);
    let rows: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (rows[0]["name"].as_str(), rows[0]["ready"].as_bool(), rows[0]["reason"].as_str()),
        (Some("zz-bad"), Some(false), Some("NotOurs"))
    );
    assert_eq!(rows[1]["revision"], 2);
    assert!(run(&["status", "-A", "-o", "yaml"]).1.contains("name: zz-bad"));
    let (code, said) = run(&["rotate", "certrot/zz-bad", "-n", name, "--wait", "--timeout", "60s"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("NotOurs"), "{said}");
}

#[test]
fn exit_codes() {
    let nowhere = "/does/not/exist";
    for (arguments, code, said) in [
        (vec!["--help"], 0, "Exit codes"),
        (vec!["--version"], 0, env!("CARGO_PKG_VERSION")),
        (vec!["cook"], 2, "unrecognized subcommand"),
        (vec!["status", "--output", "xml"], 2, "possible values"),
        (vec!["controller", "--areas", "cooking"], 2, "possible values"),
        (vec!["rotate", "secret/x"], 2, "only certificaterotation/NAME"),
        (vec!["status"], 3, "no cluster is configured"),
        (vec!["crds"], 0, "kind: CustomResourceDefinition"),
    ] {
        let (got, text) = seaworthy(nowhere, &arguments);
        assert_eq!(got, code, "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}

#[test]
fn completions_are_valid_shell() {
    let (_, script) = seaworthy("", &["completion", "bash"]);
    let (fine, said) = try_command("bash", &["-n"], script.as_bytes());
    assert!(fine && script.contains("rotate"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_a_store() {
    let (own, cluster) = ControlPlane::start().await;
    let namespace = cluster.namespace("store").await;
    namespace.secret("db", "Opaque", &[("password", "hidden"), ("user", "u")]).await;
    let run = |arguments: &[&str]| seaworthy(&own.kubeconfig, arguments);
    let store = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretStore", "metadata": {"name": "own"}, "spec": {"kubernetes": {"namespace": namespace.name}}});
    let file = std::env::temp_dir().join(format!("seaworthy-store-{}.yaml", std::process::id()));
    std::fs::write(&file, store.to_string()).unwrap();
    let file = file.to_str().unwrap().to_owned();
    assert_eq!(run(&["store", "check", "-f", &file]), (0, "SecretStore own lets us in\n".into()));
    let (code, list) = run(&["store", "list", "-f", &file, "--path", "d"]);
    assert_eq!((code, list.as_str()), (0, "db\n"));
    let (code, table) = run(&["store", "get", "-f", &file, "db"]);
    assert!(code == 0 && table.contains("password") && table.contains(" 6 ") && !table.contains("hidden"), "{table}");
    assert_eq!(run(&["store", "get", "-f", &file, "db", "--property", "password", "--reveal"]), (0, "hidden\n".into()));
    let binary = json!({"metadata": {"name": "binary"}, "data": {"b": "//4A"}});
    namespace.secrets().create(&PostParams::default(), &serde_json::from_value(binary).unwrap()).await.unwrap();
    let revealed = run(&["store", "get", "-f", &file, "binary", "--property", "b", "--reveal"]);
    assert_eq!(revealed, (0, "\u{fffd}\u{fffd}\0".into()), "as it is, without a line's end");
    let (code, rows) = run(&["store", "get", "-f", &file, "db", "-o", "json"]);
    let rows: Value = serde_json::from_str(&rows).unwrap();
    assert_eq!((code, rows[0]["name"].as_str(), rows[0]["bytes"].as_u64()), (0, Some("password"), Some(6)));
    let sum = command("sha256sum", &[], b"hidden");
    assert!(sum.starts_with(rows[0]["hash"].as_str().unwrap()) && rows[0]["hash"].as_str().unwrap().len() == 32, "{rows} {sum}");
    for (arguments, code, wanted) in [
        (vec!["store", "get", "-f", &file, "none"], 1, "is not there"),
        (vec!["store", "get", "-f", &file, "db", "--property", "x"], 1, "is not in it"),
        (vec!["store", "check", "none"], 2, "SecretStore none is not there"),
        (vec!["store", "check"], 2, "name a SecretStore"),
        (vec!["store", "check", "-f", "/nowhere"], 2, "/nowhere: "),
    ] {
        let (found, said) = run(&arguments);
        assert!(found == code && said.contains(wanted), "{arguments:?}: {found} {said}");
    }
    // By its name; a version; one that is away; a folder that the command itself is given.
    cluster.secret_store("own", json!({"kubernetes": {"namespace": namespace.name}})).await;
    assert_eq!(run(&["store", "get", "own", "db", "--property", "user", "--reveal"]), (0, "u\n".into()));
    let with = |spec: Value| {
        let store = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretStore", "metadata": {"name": "x"}, "spec": spec});
        std::fs::write(&file, store.to_string()).unwrap();
    };
    with(json!({"memory": {"data": {"a": "v"}}}));
    assert_eq!(run(&["store", "get", "-f", &file, "a", "--version", "1", "--reveal"]), (0, "v\n".into()));
    assert_eq!(run(&["store", "get", "-f", &file, "a", "--version", "2"]).0, 1);
    with(json!({"vault": {"server": "http://127.0.0.1:1", "auth": {"token": {"secretRef": {"name": "none", "key": "k"}}}}}));
    assert_eq!(run(&["store", "check", "-f", &file]).0, 1, "its credentials are not there");
    cluster.operators_secret("none", json!({"k": "t"})).await;
    let (code, said) = run(&["store", "check", "-f", &file]);
    assert!(code == 3 && said.contains("127.0.0.1:1 "), "{code} {said}");
    // That of a tenant leads where the operator's settings let it.
    let vault = json!({"vault": {"server": "http://127.0.0.1:1", "auth": {"token": {"secretRef": {"name": "db", "key": "user"}}}}});
    let tenants = json!({"target": {"name": "t"}, "store": vault, "data": [{"secretKey": "k", "remoteRef": {"key": "k"}}]});
    let metadata = json!({"name": "tenants", "namespace": namespace.name});
    let tenants = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretRotation", "metadata": metadata, "spec": tenants});
    std::fs::write(&file, tenants.to_string()).unwrap();
    let (code, said) = run(&["store", "check", "-f", &file]);
    assert!(code == 1 && said.contains("--store-networks allows more"), "{code} {said}");
    let (code, said) = run(&["store", "check", "-f", &file, "--store-networks", "127.0.0.0/8"]);
    assert!(code == 3 && said.contains("127.0.0.1:1 "), "{code} {said}");
    with(json!({"kubernetes": {"namespace": "nowhere"}}));
    let (code, said) = run(&["store", "check", "-f", &file]);
    assert!(code == 1 && said.contains("there is no namespace nowhere"), "{code} {said}");
    // A file may hold more than the store, but one store.
    let (store, other) = ("{kind: SecretStore, metadata: {name: x}, spec: {memory: {data: {a: v}}}}", "{kind: SecretRotation}");
    std::fs::write(&file, format!("{store}\n---\n{other}\n")).unwrap();
    assert_eq!(run(&["store", "list", "-f", &file]), (0, "a\n".into()));
    for text in [other.to_owned(), format!("{store}\n---\n{store}\n")] {
        std::fs::write(&file, text).unwrap();
        let (code, said) = run(&["store", "list", "-f", &file]);
        assert!(code == 2 && said.contains("it has to hold one SecretStore"), "{code} {said}");
    }
    // A tenant's own: with the Secrets of the namespace, and as a tenant.
    let tenant = |store: Value| {
        let spec = json!({"target": {"name": "t"}, "store": store, "data": [{"secretKey": "a", "remoteRef": {"key": "db"}}]});
        let object = json!({"kind": "SecretRotation", "metadata": {"name": "app", "namespace": namespace.name}, "spec": spec});
        std::fs::write(&file, object.to_string()).unwrap();
    };
    tenant(json!({"kubernetes": {}}));
    assert_eq!(run(&["store", "check", "-f", &file]), (0, "the store of SecretRotation app lets us in\n".into()));
    assert_eq!(run(&["store", "get", "-f", &file, "db", "--property", "user", "--reveal"]), (0, "u\n".into()));
    tenant(json!({"env": {}}));
    let (code, said) = run(&["store", "get", "-f", &file, "HOME", "--store-env", "HOM*"]);
    assert!(code == 1 && said.contains("SecretStore"), "{code} {said}");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    with(json!({"file": {"path": folder}}));
    assert_eq!(run(&["store", "list", "-f", &file]).0, 1, "no folder is allowed");
    let (code, list) = run(&["store", "list", "-f", &file, "--store-folders", folder]);
    assert!(code == 0 && list.contains(".yaml"), "{list}");
    with(json!({"env": {}}));
    assert_eq!(run(&["store", "get", "-f", &file, "HOME"]).0, 1, "no variable is allowed");
    assert_eq!(run(&["store", "get", "-f", &file, "HOME", "--store-env", "HOM*"]).0, 0);
    std::fs::remove_file(file).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_vault_gives_nothing() {
    let ((own, cluster), vault) = (ControlPlane::start().await, Vault::start().await);
    vault.put("app/mine", json!({"p": "1"})).await;
    vault.put("app/theirs", json!({"p": "1"})).await;
    vault.call("PUT", "sys/policies/acl/mine", json!({"policy": "path \"secret/data/app/mine\" { capabilities = [\"read\"] }"})).await;
    let token = vault.call("POST", "auth/token/create", json!({"policies": ["mine"]})).await;
    cluster.operators_secret("vault", json!({"token": token["auth"]["client_token"]})).await;
    let auth = json!({"token": {"secretRef": {"name": "vault", "key": "token"}}});
    cluster.secret_store("vault", json!({"vault": {"server": vault.address, "auth": auth}})).await;
    let run = |arguments: &[&str]| seaworthy(&own.kubeconfig, arguments);
    assert_eq!(run(&["store", "get", "vault", "app/mine", "--property", "p", "--reveal"]), (0, "1\n".into()));
    let (code, said) = run(&["store", "get", "vault", "app/theirs"]);
    assert!(code == 1 && said.contains("app/theirs") && said.contains("permission denied"), "{code} {said}");
    let (code, said) = run(&["store", "get", "vault", "app/none"]);
    assert!(code == 1 && said.contains("permission denied"), "what may not be read may be there: {code} {said}");
    vault.seal().await;
    let (code, said) = run(&["store", "check", "vault"]);
    assert!(code == 3 && said.contains("sealed"), "{code} {said}");
}

#[test]
fn the_policy_for_vault_of_files() {
    let (folder, nowhere) = (std::env::temp_dir().join(format!("seaworthy-policy-{}", std::process::id())), "/does/not/exist");
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, kind: &str, spec: Value| {
        let object = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": kind, "metadata": {"name": "shared"}, "spec": spec});
        std::fs::write(folder.join(name), object.to_string()).unwrap();
        folder.join(name).to_str().unwrap().to_owned()
    };
    let data = json!([{"secretKey": "a", "remoteRef": {"key": "app/db", "property": "p"}}]);
    let rotation = file("r.yaml", "SecretRotation", json!({"target": {"name": "t"}, "storeRef": {"name": "shared"}, "data": data}));
    let auth = json!({"token": {"secretRef": {"name": "a", "key": "b"}}});
    let store =
        file("s.yaml", "SecretStore", json!({"vault": {"server": "https://vault:8200", "version": "v1", "path": "kv", "auth": auth}}));
    let (code, said) = seaworthy(nowhere, &["vault-policy", "-f", &rotation]);
    assert!(code == 1 && said.contains("SecretStore shared is not among the files") && !said.contains("path"), "{said}");
    let policy = "# https://vault:8200, the token in key \"b\" of Secret a of SecretStore shared; beside Vault's own policy \"default\"\npath \"kv/app/db\" { capabilities = [\"read\"] }\n";
    assert_eq!(seaworthy(nowhere, &["vault-policy", "-f", &rotation, "-f", &store]), (0, policy.into()));
    assert_eq!(seaworthy(nowhere, &["vault-policy", "-f", &rotation, &store]), (0, policy.into()));
    assert_eq!(seaworthy(nowhere, &["vault-policy", "-f", nowhere]).0, 2);
    // Nobody writes a rule of his own into it.
    let server = "https://v\npath \"*\" { capabilities = [\"sudo\"] }";
    let inline = json!({"vault": {"server": server, "namespace": "n\npath", "auth": auth}});
    let forged = file("forged.yaml", "SecretRotation", json!({"target": {"name": "t"}, "store": inline, "data": data}));
    let (code, said) = seaworthy(nowhere, &["vault-policy", "-f", &forged]);
    assert!(
        code == 0 && said.lines().filter(|line| line.starts_with("path")).eq([r#"path "secret/data/app/db" { capabilities = ["read"] }"#]),
        "{said}"
    );
    let data = json!([{"secretKey": "a", "remoteRef": {"key": "*"}}]);
    let greedy = file("greedy.yaml", "SecretRotation", json!({"target": {"name": "t"}, "storeRef": {"name": "shared"}, "data": data}));
    let (code, said) = seaworthy(nowhere, &["vault-policy", "-f", &greedy, &store]);
    assert!(
        code == 1 && said.contains("SecretRotation shared") && said.contains("is a pattern") && !said.contains("capabilities"),
        "{said}"
    );
    // A SecretStore that replaces its own secret id, whoever uses it.
    let role = json!({"roleId": "r", "secretRef": {"name": "a", "key": "b"}, "rotateSecretId": {"every": "720h"}});
    let store = file("own.yaml", "SecretStore", json!({"vault": {"server": "https://vault:8200", "auth": {"appRole": role}}}));
    let (code, said) = seaworthy(nowhere, &["vault-policy", "-f", &store]);
    assert!(code == 0 && said.contains("auth/approle/role/ROLE/secret-id-accessor/destroy"), "{said}");
    std::fs::remove_dir_all(folder).unwrap();
}
