//! What a tenant may make the operator do: nothing outside the tenant's own namespace, unless an administrator's resource allows it.
//!
//! Every text that can stand in a namespaced resource is listed here, so that a new field cannot be forgotten.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use kube::{
    Api, CustomResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    core::ApiResource,
};
use seaworthy::api::{CertificateIssuer, CertificateRotation, SecretRotation, SecretStore, crds};
use serde_json::{Value, json};

use crate::support::{Cluster, ControlPlane, Faults, Operator, eventually, oci::Oci};

/// Texts that name nothing outside the resource; of a store, what the tenant's own account is asked for, at the tenant's own server or at AWS and Oracle.
const PLAIN: &str = "
    data[].remoteRef.property data[].remoteRef.version data[].secretKey dataFrom[].extract.property dataFrom[].extract.version
    dataFrom[].find.name.regexp dataFrom[].find.tags.* dataFrom[].rewrite[].regexp.source dataFrom[].rewrite[].regexp.target
    push[].remoteRef.property push[].secretKey refreshInterval restart.timeout rotation.every rotation.generate[].password.exclude
    rotation.generate[].secretKey rotation.generate[].sshKey.comment rotation.previous.keepFor rotation.previous.maxKeep rotation.previous.suffix
    rotation.push[].remoteRef.property rotation.push[].secretKey rotation.schedule rotation.timeZone rotation.window.duration
    rotation.window.schedule rotation.window.timeZone store.aws.auth.secretRef.accessKeyID.key store.aws.auth.secretRef.secretAccessKey.key
    store.aws.auth.secretRef.sessionToken.key store.aws.externalID store.memory.data.*
    store.kubernetes.server.auth.clientCertificate.certSecretRef.key store.kubernetes.server.auth.clientCertificate.keySecretRef.key
    store.kubernetes.server.auth.token.secretRef.key store.kubernetes.server.caBundle store.kubernetes.server.caSecretRef.key store.aws.role
    store.vault.auth.appRole.path store.vault.auth.appRole.roleId store.vault.auth.appRole.secretRef.key
    store.vault.auth.appRole.rotateSecretId.every store.vault.auth.jwt.path store.vault.auth.jwt.role
    store.vault.auth.jwt.serviceAccountRef.audiences[] store.vault.auth.kubernetes.mountPath store.vault.auth.kubernetes.role
    store.vault.auth.kubernetes.serviceAccountRef.audiences[] store.vault.auth.token.secretRef.key store.vault.caBundle store.vault.caSecretRef.key
    store.vault.namespace store.vault.path store.oci.vault store.oci.compartment store.oci.encryptionKey store.oci.auth.apiKey.tenancy
    store.oci.auth.apiKey.user store.oci.auth.apiKey.fingerprint store.oci.auth.apiKey.privateKeySecretRef.key
    store.oci.auth.workloadIdentity.serviceAccountRef.audiences[] target.type template.data.* template.metadata.annotations.*
    template.metadata.labels.* template.type commonName dnsNames[] duration emailAddresses[] ipAddresses[] nameConstraints.excluded.dnsDomains[]
    nameConstraints.excluded.emailAddresses[] nameConstraints.excluded.ipRanges[] nameConstraints.excluded.uriDomains[]
    nameConstraints.permitted.dnsDomains[] nameConstraints.permitted.emailAddresses[] nameConstraints.permitted.ipRanges[]
    nameConstraints.permitted.uriDomains[] outputs.combinedPem.key outputs.files.ca outputs.files.certificate outputs.files.privateKey renewBefore
    schedule secretTemplate.annotations.* secretTemplate.labels.* subject.countries[] subject.localities[] subject.organizationalUnits[]
    subject.organizations[] subject.postalCodes[] subject.provinces[] subject.serialNumber subject.streetAddresses[] timeZone uris[]
    verify.tls.serverName verify.tls.timeout window.duration window.schedule window.timeZone
";

fn is_plain(text: &str) -> bool {
    PLAIN.split_whitespace().any(|plain| plain == text)
}

/// What a text names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// A Secret, a ServiceAccount, a workload: of the own namespace.
    Object,
    /// An address.
    Address,
    /// A part of a host's name.
    Host,
    /// A namespace.
    Namespace,
    /// A cluster-scoped object, which decides.
    Shared,
    /// A folder of the operator's.
    Folder,
}

/// What a tenant's region, or domain, is in the place of one of AWS' or Oracle's own.
const REGION: &str = "inside-1";
const DOMAIN: &str = "inside.example";
/// The hosts that are made with them. Whoever has the domain, or its DNS, says where they lead.
const HOSTS: [&str; 4] = [
    "secretsmanager.inside-1.amazonaws.com",
    "sts.inside-1.amazonaws.com",
    "secrets.vaults.inside-1.oci.oraclecloud.com",
    "secrets.vaults.eu-frankfurt-1.oci.inside.example",
];

/// At the hosts that are made of the region, and with a key that a request can be signed with.
fn at_large(mut spec: Value) -> Value {
    for (store, address) in [("aws", "endpoint"), ("oci", "endpoints")] {
        spec.pointer_mut(&format!("/store/{store}")).and_then(Value::as_object_mut).map(|store| store.remove(address));
    }
    if let Some(oci) = spec.pointer_mut("/store/oci") {
        (oci["domain"], oci["auth"]["apiKey"]["privateKeySecretRef"]["key"]) = ("oraclecloud.com".into(), "pem".into());
    }
    spec
}

/// Every reference, and a resource that it stands in.
#[expect(clippy::too_many_lines, reason = "a table")]
fn references() -> Vec<(&'static str, Names, Value)> {
    use Names::{Address, Folder, Host, Namespace, Object, Shared};
    let key = json!({"name": "own", "key": "k"});
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "own"}}]);
    let sync = |store: Value| json!({"target": {"name": "t"}, "store": store, "data": data});
    let generate = json!([{"secretKey": "k", "hex": {}}]);
    let vault = |auth: Value| sync(json!({"vault": {"server": "http://127.0.0.1:1", "auth": auth}}));
    let token = || vault(json!({"token": {"secretRef": key}}));
    let aws = || {
        sync(
            json!({"aws": {"region": "eu-central-1", "endpoint": "http://127.0.0.1:1", "auth": {"secretRef": {"accessKeyID": key, "secretAccessKey": key, "sessionToken": key}}}}),
        )
    };
    let oci = |auth: Value| {
        sync(
            json!({"oci": {"region": "eu-frankfurt-1", "vault": "v", "endpoints": {"secrets": "http://127.0.0.1:1", "vaults": "http://127.0.0.1:1"}, "auth": auth}}),
        )
    };
    let api_key = || {
        oci(
            json!({"apiKey": {"tenancy": "t", "user": "u", "fingerprint": "20:3b:97:13:55:1c:5b:0d:d3:37:d8:50:4e:c5:3a:34", "privateKeySecretRef": key}}),
        )
    };
    let own = || sync(json!({"kubernetes": {}}));
    let elsewhere = |auth: Value| {
        sync(json!({"kubernetes": {"namespace": "n", "server": {"url": "https://127.0.0.1:1", "caSecretRef": key, "auth": auth}}}))
    };
    let by_token = || elsewhere(json!({"token": {"secretRef": key}}));
    let by_certificate = || elsewhere(json!({"clientCertificate": {"certSecretRef": key, "keySecretRef": key}}));
    let certificate = |more: Value| {
        let mut spec = json!({"secretName": "c", "dnsNames": ["a.example"], "issuer": {"selfSigned": {}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let verify = || certificate(json!({"verify": {"tls": {"address": "127.0.0.1:1", "clientSecretName": "own"}}}));
    let memory = json!({"memory": {"data": {"own": "v"}}});
    vec![
        ("target.name", Object, sync(memory.clone())),
        ("storeRef.name", Shared, json!({"target": {"name": "t"}, "storeRef": {"name": "closed"}, "data": data})),
        (
            "storeRef.name",
            Shared,
            json!({"target": {"name": "t"}, "storeRef": {"name": "closed"}, "dataFrom": [{"extract": {"key": "own"}}, {"find": {}}]}),
        ),
        (
            "storeRef.name",
            Shared,
            json!({"target": {"name": "own", "creationPolicy": "Merge"}, "storeRef": {"name": "closed"}, "push": [{"secretKey": "k", "remoteRef": {"key": "own", "property": "p"}}]}),
        ),
        (
            "storeRef.name",
            Shared,
            json!({"target": {"name": "t"}, "storeRef": {"name": "closed"}, "rotation": {"generate": generate, "push": [{"secretKey": "k", "remoteRef": {"key": "own", "property": "p"}}]}}),
        ),
        ("data[].remoteRef.key", Object, own()),
        // Through a SecretStore that allows everybody: what lies in its namespace, and nothing else.
        ("data[].remoteRef.key", Object, json!({"target": {"name": "t"}, "storeRef": {"name": "open"}, "data": data})),
        (
            "rotation.push[].remoteRef.key",
            Object,
            json!({"target": {"name": "t"}, "storeRef": {"name": "open"}, "rotation": {"generate": generate, "push": [{"secretKey": "k", "remoteRef": {"key": "own", "property": "p"}}]}}),
        ),
        (
            "dataFrom[].extract.key",
            Object,
            json!({"target": {"name": "t"}, "store": {"kubernetes": {}}, "dataFrom": [{"extract": {"key": "own"}}]}),
        ),
        (
            "dataFrom[].find.path",
            Object,
            json!({"target": {"name": "t"}, "store": {"kubernetes": {}}, "dataFrom": [{"find": {"path": "own"}}]}),
        ),
        (
            "push[].remoteRef.key",
            Object,
            json!({"target": {"name": "own", "creationPolicy": "Merge"}, "store": {"kubernetes": {}}, "push": [{"secretKey": "k", "remoteRef": {"key": "own", "property": "p"}}]}),
        ),
        (
            "rotation.push[].remoteRef.key",
            Object,
            json!({"target": {"name": "t"}, "store": {"kubernetes": {}}, "rotation": {"generate": generate, "push": [{"secretKey": "k", "remoteRef": {"key": "own", "property": "p"}}]}}),
        ),
        (
            "restart.workloads[].name",
            Object,
            json!({"target": {"name": "t"}, "store": memory, "data": data, "restart": {"workloads": [{"kind": "Deployment", "name": "own"}]}}),
        ),
        ("store.aws.auth.secretRef.accessKeyID.name", Object, aws()),
        ("store.aws.auth.secretRef.secretAccessKey.name", Object, aws()),
        ("store.aws.auth.secretRef.sessionToken.name", Object, aws()),
        ("store.aws.endpoint", Address, aws()),
        ("store.aws.region", Host, at_large(aws())),
        (
            "store.aws.region",
            Host,
            at_large(sync(
                json!({"aws": {"region": "r", "role": "arn:aws:iam::123456789012:role/r", "auth": {"secretRef": {"accessKeyID": key, "secretAccessKey": key}}}}),
            )),
        ),
        ("store.vault.server", Address, token()),
        ("store.vault.auth.token.secretRef.name", Object, token()),
        ("store.vault.auth.appRole.secretRef.name", Object, vault(json!({"appRole": {"roleId": "r", "secretRef": key}}))),
        ("store.vault.auth.jwt.serviceAccountRef.name", Object, vault(json!({"jwt": {"role": "r", "serviceAccountRef": {"name": "own"}}}))),
        (
            "store.vault.auth.kubernetes.serviceAccountRef.name",
            Object,
            vault(json!({"kubernetes": {"role": "r", "serviceAccountRef": {"name": "own"}}})),
        ),
        (
            "store.vault.caSecretRef.name",
            Object,
            sync(json!({"vault": {"server": "https://127.0.0.1:1", "caSecretRef": key, "auth": {"token": {"secretRef": key}}}})),
        ),
        ("store.oci.endpoints.secrets", Address, api_key()),
        ("store.oci.endpoints.vaults", Address, api_key()),
        ("store.oci.region", Host, at_large(api_key())),
        ("store.oci.domain", Host, at_large(api_key())),
        ("store.oci.auth.apiKey.privateKeySecretRef.name", Object, api_key()),
        (
            "store.oci.auth.workloadIdentity.serviceAccountRef.name",
            Object,
            oci(json!({"workloadIdentity": {"serviceAccountRef": {"name": "own"}}})),
        ),
        ("store.kubernetes.namespace", Namespace, sync(json!({"kubernetes": {"namespace": "n"}}))),
        ("store.kubernetes.server.url", Address, by_token()),
        ("store.kubernetes.server.caSecretRef.name", Object, by_token()),
        ("store.kubernetes.server.auth.token.secretRef.name", Object, by_token()),
        ("store.kubernetes.server.auth.clientCertificate.certSecretRef.name", Object, by_certificate()),
        ("store.kubernetes.server.auth.clientCertificate.keySecretRef.name", Object, by_certificate()),
        ("store.file.path", Folder, sync(json!({"file": {"path": "/etc"}}))),
        ("secretName", Object, certificate(json!({}))),
        ("issuer.ca.secretName", Object, certificate(json!({"issuer": {"ca": {"secretName": "own"}}}))),
        ("issuerRef.name", Shared, json!({"secretName": "c", "dnsNames": ["a.example"], "issuerRef": {"name": "closed"}})),
        ("verify.tls.address", Address, verify()),
        ("verify.tls.clientSecretName", Object, verify()),
    ]
}

/// Every text below a schema, as `a.b[].c`; `*` stands for the keys of a map.
fn texts(schema: &Value, path: &str, found: &mut Vec<String>) {
    match schema["type"].as_str() {
        Some("object") => {
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                texts(inner, &format!("{path}.{name}"), found);
            }
            if schema["additionalProperties"].is_object() {
                texts(&schema["additionalProperties"], &format!("{path}.*"), found);
            }
        }
        Some("array") => texts(&schema["items"], &format!("{path}[]"), found),
        Some("string") if schema["enum"].is_null() => found.push(path.trim_start_matches('.').into()),
        _ => {}
    }
}

#[test]
fn every_text_of_a_namespaced_resource_is_known() {
    let mut found = Vec::new();
    for crd in crds().into_iter().filter(|crd| crd.spec.scope == "Namespaced") {
        let crd = serde_json::to_value(crd).unwrap();
        texts(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], "", &mut found);
    }
    let references = references();
    let is_known = |text: &str| is_plain(text) || references.iter().any(|(path, ..)| *path == text);
    let unknown: Vec<&String> = found.iter().filter(|text| !is_known(text)).collect();
    assert!(unknown.is_empty(), "what do these name? Add them to PLAIN, or to `references`: {unknown:#?}");
    let gone: Vec<&str> = PLAIN
        .split_whitespace()
        .chain(references.iter().map(|(path, ..)| *path))
        .filter(|known| !found.iter().any(|text| text == known))
        .collect();
    assert!(gone.is_empty(), "these are no fields any more: {gone:#?}");
}

/// What a cluster-scoped resource names is what can stand in a namespaced one, and whom it allows.
#[test]
fn every_text_of_a_cluster_scoped_resource_is_known() {
    let references = references();
    let fields = [(SecretStore::crd(), "store"), (CertificateIssuer::crd(), "issuer")];
    assert_eq!(crds().iter().filter(|crd| crd.spec.scope == "Cluster").count(), fields.len(), "all of them");
    for (crd, field) in fields {
        let (crd, mut found) = (serde_json::to_value(crd).unwrap(), Vec::new());
        texts(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], "", &mut found);
        assert!(found.iter().any(|text| text.starts_with("allowedNamespaces.")), "{field}: whom it allows");
        for text in found.iter().filter(|text| !text.starts_with("allowedNamespaces.")) {
            let inline = format!("{field}.{text}");
            let known = is_plain(&inline) || references.iter().any(|(path, ..)| *path == inline);
            assert!(known, "what does {text} name? Nothing of it can stand in a namespaced resource");
        }
    }
}

/// Puts `value` at `path`.
fn set(spec: &mut Value, path: &str, value: &str) {
    let pointer: String =
        path.split('.').map(|part| part.strip_suffix("[]").map_or_else(|| format!("/{part}"), |list| format!("/{list}/0"))).collect();
    *spec.pointer_mut(&pointer).expect(path) = json!(value);
}

/// Lets cluster-scoped resources name a Secret that is there in a namespace, but not in the operator's: none is Ready. Returns how many.
async fn cluster_scoped_ones_lead_to_the_operators_namespace(cluster: &Cluster) -> usize {
    let mut looked_at = 0;
    for (number, (path, names, spec)) in references().into_iter().enumerate() {
        let (kind, field, inner) = match (path.split_once('.'), names) {
            (Some(("store", inner)), Names::Object) => (ApiResource::erase::<SecretStore>(&()), "store", inner),
            (Some(("issuer", inner)), Names::Object) => (ApiResource::erase::<CertificateIssuer>(&()), "issuer", inner),
            _ => continue,
        };
        let mut spec = spec[field].clone();
        set(&mut spec, inner, "theirs");
        let object = json!({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": format!("c{number}")}, "spec": spec});
        let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &kind);
        api.patch(&format!("c{number}"), &PatchParams::apply("test"), &Patch::Apply(object)).await.unwrap();
        looked_at += 1;
        eventually(&format!("{path}: a verdict"), || async {
            let object = api.get(&format!("c{number}")).await.map_err(|error| error.to_string())?;
            let ready =
                object.data["status"]["conditions"].as_array().and_then(|all| all.iter().find(|one| one["type"] == "Ready")).cloned();
            if ready.as_ref().is_some_and(|ready| ready["status"] == "False") { Ok(()) } else { Err(format!("{ready:?}")) }
        })
        .await;
    }
    looked_at
}

/// An address of the machine's own, and how often somebody came there.
async fn forbidden() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let (address, visits) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = visits.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, visits)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reference_leads_out_of_the_namespace() {
    let (_own, cluster) = ControlPlane::start().await;
    let faults = Faults::default();
    // An address of the operator's own that its settings do not allow.
    let (address, visits) = forbidden().await;
    let names = HOSTS.map(|host| (host.to_owned(), address)).into();
    let _operator = Operator::with_names(faults.client(cluster.operator_config.clone()), "seaworthy", names);
    let (victim, tenant) = (cluster.namespace("victim").await, cluster.namespace("tenant").await);
    let canary = "the-value-of-the-victim";
    victim.secret("theirs", "Opaque", &[("k", canary), ("tls.crt", canary), ("tls.key", canary)]).await;
    tenant.secret("own", "Opaque", &[("k", "ours"), ("pem", &Oci::start().await.private)]).await;
    // One of that name lies beside the operator, too.
    let operators = cluster.operators_secret("theirs", json!({"k": canary, "tls.crt": canary, "tls.key": canary})).await;
    // Cluster-scoped objects that allow nobody, and what they would give.
    for (resource, object) in [
        (
            ApiResource::erase::<SecretStore>(&()),
            json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretStore", "metadata": {"name": "closed"}, "spec": {"memory": {"data": {"own": canary}}}}),
        ),
        (
            ApiResource::erase::<CertificateIssuer>(&()),
            json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "CertificateIssuer", "metadata": {"name": "closed"}, "spec": {"selfSigned": {}}}),
        ),
    ] {
        Api::<DynamicObject>::all_with(cluster.client.clone(), &resource)
            .patch("closed", &PatchParams::apply("test"), &Patch::Apply(object))
            .await
            .unwrap();
    }
    let open = json!({"allowedNamespaces": {}, "kubernetes": {"namespace": "default"}});
    cluster.secret_store("open", open).await;

    let (mut refused, mut looked_at) = (0, 0);
    for (number, (path, names, spec)) in references().into_iter().enumerate() {
        let out = format!("../../{}/secrets/theirs", victim.name);
        let values: Vec<String> = match names {
            Names::Object => vec!["theirs".into(), out],
            Names::Address if path == "verify.tls.address" => vec![address.to_string()],
            Names::Address if path.ends_with("server.url") => vec![format!("https://{address}")],
            Names::Address => vec![format!("http://{address}")],
            Names::Host if path.ends_with("domain") => vec![DOMAIN.into()],
            Names::Host => vec![REGION.into()],
            Names::Namespace => vec![victim.name.clone()],
            Names::Shared => vec!["closed".into()],
            Names::Folder => vec!["/etc".into()],
        };
        for (turn, value) in values.iter().enumerate() {
            let mut spec = spec.clone();
            set(&mut spec, path, value);
            let (kind, resource) = match spec.get("secretName") {
                Some(_) => ("CertificateRotation", ApiResource::erase::<CertificateRotation>(&())),
                None => ("SecretRotation", ApiResource::erase::<SecretRotation>(&())),
            };
            // Each writes a Secret of its own.
            let target = if kind == "CertificateRotation" { "secretName" } else { "target.name" };
            if path != target && spec["target"]["creationPolicy"] != "Merge" {
                set(&mut spec, target, &format!("t{number}-{turn}"));
            }
            let name = format!("r{number}-{turn}");
            let object = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
            let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &tenant.name, &resource);
            let applied = api.patch(&name, &PatchParams::apply("test"), &Patch::Apply(object)).await;
            if let Err(error) = applied {
                // Only what is an administrator's is refused by the API server, and a name that no schema allows.
                refused += 1;
                let administrators =
                    path.starts_with("store.kubernetes.") || path.starts_with("store.file.") || path.contains("workloadIdentity");
                assert!(administrators || turn == 1, "{path}: {error}");
                continue;
            }
            looked_at += 1;
            eventually(&format!("{path}: a verdict"), || async {
                let object = api.get(&name).await.map_err(|error| error.to_string())?;
                let status = &object.data["status"];
                let told = status["conditions"].as_array().is_some_and(|conditions| !conditions.is_empty());
                // Of a host it is told that it is refused, and not that nobody answers there.
                let told = told && (names != Names::Host || status.to_string().contains("special address, which is refused"));
                if status["observedGeneration"] == 1 && told { Ok(()) } else { Err(status.to_string()) }
            })
            .await;
        }
    }
    // With what they hold, Secrets of the tenant were read, those that a SecretStore gives to everybody, and the operator's key.
    let may = [
        format!("/namespaces/{}/secrets", tenant.name),
        "/namespaces/default/secrets".into(),
        "/namespaces/seaworthy/secrets/seaworthy-rollout".into(),
    ];
    let out: Vec<String> = faults.secrets_read().into_iter().filter(|path| !may.iter().any(|part| path.contains(part))).collect();
    assert!(out.is_empty(), "Secrets were read: {out:#?}");
    operators.delete("theirs", &DeleteParams::default()).await.unwrap();
    assert!(cluster_scoped_ones_lead_to_the_operators_namespace(&cluster).await >= 10);
    assert!(refused >= 10 && looked_at >= 30, "{refused} refused, {looked_at} looked at");
    let out: Vec<String> = faults.asked().into_iter().filter(|path| path.contains(&victim.name) || path.contains("..")).collect();
    assert!(out.is_empty(), "the operator asked for {out:#?}");
    assert!(
        faults.secrets_read().iter().any(|path| path.contains(&format!("/{}/secrets/", tenant.name))),
        "it did ask in the tenant's namespace"
    );
    assert_eq!(visits.load(Ordering::SeqCst), 0, "nobody was called at {address}");
    let secrets = tenant.secrets().list(&kube::api::ListParams::default()).await.unwrap();
    for secret in secrets {
        let leaked = secret.data.unwrap_or_default().into_values().any(|value| String::from_utf8_lossy(&value.0).contains(canary));
        assert!(!leaked, "{:?}", secret.metadata.name);
    }
}
