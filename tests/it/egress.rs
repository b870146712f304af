//! What the server of a tenant may do to the operator: nothing but take a little of its time.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use seaworthy::secrets::store::{Find, Place, StoreError};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{Cluster, ControlPlane, Operator, Rotations, Vault, command, eventually, oci::Oci, open, said, tls::tls};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// 307: the same request, with its method and body, to another place.
    Redirects(SocketAddr),
    NeverEnds,
    NeverAnswers,
    /// A byte from time to time.
    Drips,
    /// This, with this status.
    Says(u16, &'static str),
    /// This, so often, between these two.
    Floods([&'static str; 3], usize),
}

impl Manner {
    fn all(elsewhere: SocketAddr) -> [Self; 4] {
        [Self::Redirects(elsewhere), Self::NeverEnds, Self::NeverAnswers, Self::Drips]
    }
}

/// What a server was asked, and how much it could say.
#[derive(Clone, Default)]
struct Record {
    asked: Arc<Mutex<Vec<String>>>,
    longest: Arc<AtomicUsize>,
}

impl Record {
    fn all(&self) -> String {
        self.asked.lock().unwrap().concat()
    }

    /// Answers until the other side has enough.
    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, manner: Manner) -> std::io::Result<()> {
        let (mut asked, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        while !is_whole(&asked) {
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                read => asked.extend_from_slice(&buffer[..read]),
            }
        }
        self.asked.lock().unwrap().push(String::from_utf8_lossy(&asked).into_owned());
        let spaces = vec![b' '; 64 * 1024]; // what JSON may begin with
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
        match manner {
            Manner::Redirects(to) => {
                let head =
                    format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{to}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
            }
            Manner::NeverEnds => {
                stream.write_all(head.as_bytes()).await?;
                let mut sent = 0;
                loop {
                    sent += stream.write(&spaces).await?;
                    self.longest.fetch_max(sent, Ordering::SeqCst);
                }
            }
            Manner::Says(status, body) => {
                let length = body.len();
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await?;
            }
            Manner::Floods([begin, each, end], times) => {
                let body = [begin, &each.repeat(times), end].concat();
                stream.write_all(format!("{head}{body}").as_bytes()).await?;
            }
            Manner::NeverAnswers => while stream.read(&mut buffer).await? > 0 {},
            Manner::Drips => {
                stream.write_all(head.as_bytes()).await?;
                let mut time = tokio::time::interval(Duration::from_millis(200));
                loop {
                    time.tick().await;
                    stream.write_all(b" ").await?;
                    stream.flush().await?;
                }
            }
        }
        stream.shutdown().await
    }
}

/// A head, and so much of a body as it says.
fn is_whole(asked: &[u8]) -> bool {
    let text = String::from_utf8_lossy(asked).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    body.len() >= length
}

/// A server of that manner; `tls` wraps what it speaks.
async fn serve(manner: Manner, tls: Option<tokio_rustls::TlsAcceptor>) -> (SocketAddr, Record) {
    let (listener, record) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Record::default());
    let (address, kept) = (listener.local_addr().unwrap(), record.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (record, tls) = (record.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    Some(tls) => record.answer(tls.accept(stream).await?, manner).await,
                    None => record.answer(stream, manner).await,
                }
            });
        }
    });
    (address, kept)
}

/// Counts who comes.
async fn elsewhere() -> (SocketAddr, Record) {
    serve(Manner::NeverAnswers, None).await
}

/// The stores that a tenant may write an address of, and the part of the tenant's credential that is seen on the way.
fn of_tenants(address: SocketAddr) -> [(&'static str, &'static str, Value); 4] {
    let (url, key) = (format!("http://{address}"), json!({"name": "own", "key": "k"}));
    let fingerprint = "20:3b:97:13:55:1c:5b:0d:d3:37:d8:50:4e:c5:3a:34";
    [
        ("vault", "x-vault-token: of-the-tenant", json!({"vault": {"server": url, "auth": {"token": {"secretRef": key}}}})),
        (
            "vault-account",
            r#""role":"of-the-tenant""#,
            json!({"vault": {"server": url, "auth": {"kubernetes": {"role": "of-the-tenant", "serviceAccountRef": {"name": "own"}}}}}),
        ),
        (
            "aws",
            "Credential=of-the-tenant/",
            json!({"aws": {"region": "us-east-1", "endpoint": url, "auth": {"secretRef": {"accessKeyID": key, "secretAccessKey": key}}}}),
        ),
        (
            "oci",
            r#"keyId="of-the-tenant/"#,
            json!({"oci": {"region": "eu-frankfurt-1", "vault": "v", "endpoints": {"secrets": url, "vaults": url}, "auth": {"apiKey":
                {"tenancy": "of-the-tenant", "user": "u", "fingerprint": fingerprint, "privateKeySecretRef": {"name": "own", "key": "pem"}}}}}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_means_ill_gets_nothing_and_holds_up_nobody() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("egress").await;
    let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let pem = Oci::start().await.private.clone();
    namespace.secret("own", "Opaque", &[("k", "of-the-tenant"), ("pem", &pem)]).await;
    let account = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "own"}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "own"},
            "rules": [{"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["own"], "verbs": ["create"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "own"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "own"},
            "subjects": [{"kind": "ServiceAccount", "name": "seaworthy", "namespace": "seaworthy"}]},
    ]});
    let kubeconfig = std::env::var("SEAWORTHY_TEST_KUBECONFIG").unwrap();
    command("kubectl", &["--kubeconfig", &kubeconfig, "-n", &namespace.name, "apply", "-f", "-"], account.to_string().as_bytes());

    let (target, visits) = elsewhere().await;
    let mut servers = Vec::new();
    for (number, manner) in Manner::all(target).into_iter().enumerate() {
        // Each store has a server of its own, so that none is spared because another one has failed.
        for place in 0..of_tenants(target).len() {
            let (address, record) = serve(manner, None).await;
            let (name, credential, store) = of_tenants(address).into_iter().nth(place).unwrap();
            let name = format!("{name}-{number}");
            let data = json!([{"secretKey": "x", "remoteRef": {"key": "app"}}]);
            rotations.create(&name, json!({"target": {"name": name}, "store": store, "data": data})).await;
            servers.push((name, credential, manner, record));
        }
    }
    let one_more = json!({"target": {"name": "other"}, "store": {"memory": {"data": {"a": "v"}}}, "data": [{"secretKey": "x", "remoteRef": {"key": "a"}}]});
    rotations.create("other", one_more).await;
    rotations.ready("other", 1).await;

    for (name, credential, manner, record) in &servers {
        let object = rotations
            .until(name, "a verdict", |object| said(object, "Ready").is_some_and(|(_, reason, _)| reason.starts_with("Store")))
            .await;
        let (status, reason, message) = said(&object, "Ready").unwrap();
        assert_eq!(status, "False", "{name}, which {manner:?}: {reason}: {message}");
        let asked = record.all();
        assert!(asked.contains(credential), "{name} was asked as the tenant: {asked}");
        assert!(!asked.contains(&cluster.token), "{name} was given the operator's own token");
        let sent = record.longest.load(Ordering::SeqCst);
        // What the sockets hold comes on top of the limits.
        assert!(sent < 24 * 1024 * 1024, "{name} could send {sent} bytes");
        assert!(*manner != Manner::NeverEnds || sent > 4 * 1024 * 1024, "{name} sent {sent} bytes");
    }
    assert_eq!(visits.all(), "", "nobody followed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_never_answer_hold_up_only_their_tenant() {
    const SERVERS: usize = 30; // more than are looked at at a time
    let (_own, cluster) = ControlPlane::start().await;
    let (tenant, other) = (cluster.namespace("tenant").await, cluster.namespace("other").await);
    tenant.secret("own", "Opaque", &[("k", "of-the-tenant")]).await;
    let rotations = Rotations(&tenant);
    let mut servers = Vec::new();
    for number in 0..SERVERS {
        let (address, record) = serve(Manner::NeverAnswers, None).await;
        let [(_, _, store), ..] = of_tenants(address);
        let data = json!([{"secretKey": "x", "remoteRef": {"key": "app"}}]);
        rotations.create(&format!("r{number}"), json!({"target": {"name": format!("r{number}")}, "store": store, "data": data})).await;
        servers.push(record);
    }
    let _operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    eventually("some were asked", || async {
        let asked = servers.iter().filter(|record| !record.all().is_empty()).count();
        if asked >= 3 { Ok(()) } else { Err(asked.to_string()) }
    })
    .await;
    let store = json!({"memory": {"data": {"a": "v"}}});
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "a"}}]);
    Rotations(&other).create("other", json!({"target": {"name": "other"}, "store": store, "data": data})).await;
    Rotations(&other).ready("other", 1).await;
    let told = rotations.api().list(&kube::api::ListParams::default()).await.unwrap();
    let told = told.iter().filter(|object| said(object, "Ready").is_some()).count();
    assert_eq!(told, 0, "while the first of the tenant's were still being waited for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_that_means_ill() {
    let (tls, ca) = tls();
    let (target, visits) = elsewhere().await;
    let ask = async |manner: Manner| {
        let (address, record) = serve(manner, Some(tls.clone())).await;
        let server =
            json!({"url": format!("https://{address}"), "caBundle": ca, "auth": {"token": {"secretRef": {"name": "own", "key": "k"}}}});
        let open = open(&json!({"kubernetes": {"namespace": "n", "server": server}}), "own", &[("k", "of-the-tenant")]).await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(30), open.read(&Place { key: "app".into(), version: None })).await;
        assert!(record.all().to_lowercase().contains("authorization: bearer of-the-tenant"), "{manner:?}");
        (read, record.longest.load(Ordering::SeqCst))
    };
    for manner in [Manner::Redirects(target), Manner::NeverEnds, Manner::NeverAnswers] {
        let (read, sent) = ask(manner).await;
        assert!(matches!(read, Ok(Err(StoreError::Unavailable(_)))), "{manner:?}: {read:?}");
        assert!(sent < 64 * 1024 * 1024, "it could send {sent} bytes");
    }
    assert!(ask(Manner::Drips).await.0.is_err(), "this is ended by who asks: no read lasts longer than 30 s");
    eventually("nobody followed", || async { if visits.all().is_empty() { Ok(()) } else { Err(visits.all()) } }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_without_end_are_not_taken_in() {
    let pem = Oci::start().await.private.clone();
    let find: Find = serde_json::from_value(json!({"name": {"regexp": "^app"}})).unwrap();
    for (name, flood, times) in [
        ("aws", [r#"{"SecretList":["#, "{},", "{}]}"], 1_000_000),
        ("vault", [r#"{"data":{"keys":["#, r#""a/","#, r#""a"]}}"#], 500_000),
        ("oci", ["[", "{},", "{}]"], 1_000_000),
    ] {
        let (address, _) = serve(Manner::Floods(flood, times), None).await;
        let (.., mut spec) = of_tenants(address).into_iter().find(|(kind, ..)| *kind == name).unwrap();
        if name == "oci" {
            spec["oci"]["compartment"] = "c".into();
        }
        let open = open(&spec, "own", &[("k", "of-the-tenant"), ("pem", &pem)]).await.unwrap();
        let found = tokio::time::timeout(Duration::from_secs(30), open.find(&find)).await;
        assert!(matches!(found, Ok(Err(_))), "{name}: {:?}", found.map(|found| found.map(|found| found.len())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vault_by_tls_and_in_a_namespace() {
    let (vault, (tls, ca)) = (Vault::start().await, tls());
    vault.put("app", json!({"a": "b"})).await;
    // A real Vault behind TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (front, behind) = (listener.local_addr().unwrap(), vault.address.trim_start_matches("http://").to_owned());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, behind) = (tls.clone(), behind.clone());
            tokio::spawn(async move {
                let (mut from, mut to) = (tls.accept(stream).await?, tokio::net::TcpStream::connect(behind).await?);
                tokio::io::copy_bidirectional(&mut from, &mut to).await
            });
        }
    });
    let own = [("k", vault.root.as_str()), ("ca", &ca)];
    let spec = |address: &str, more: Value| {
        let mut spec = json!({"server": address, "auth": {"token": {"secretRef": {"name": "own", "key": "k"}}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "vault": spec })
    };
    let (address, place) = (format!("https://{front}"), Place { key: "app".into(), version: None });
    for trusted in [json!({"caBundle": ca}), json!({"caSecretRef": {"name": "own", "key": "ca"}})] {
        let store = open(&spec(&address, trusted), "own", &own).await.unwrap();
        assert!(store.read(&place).await.is_ok());
    }
    let untrusted = open(&spec(&address, json!({})), "own", &own).await.unwrap().read(&place).await;
    assert!(matches!(&untrusted, Err(StoreError::Unavailable(why)) if why.contains("certificate")), "{untrusted:?}");

    let (other, record) = serve(Manner::Redirects(front), None).await;
    let answer = open(&spec(&format!("http://{other}"), json!({"namespace": "team/a"})), "own", &own).await.unwrap().read(&place).await;
    assert!(matches!(&answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert!(record.all().to_lowercase().contains("x-vault-namespace: team/a"), "{}", record.all());
    // Control characters would be dropped from the address, and what is left would be another path.
    let odd = open(&spec(&vault.address, json!({})), "own", &own).await.unwrap();
    for key in [".\t./auth/token/lookup-self", "a\nb", "../../sys/health"] {
        let answer = odd.read(&Place { key: key.into(), version: None }).await;
        assert!(matches!(&answer, Err(StoreError::Invalid(why)) if why.contains("is no path")), "{key:?}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_of_aws_that_may_not_be_assumed_is_told() {
    const REFUSED: &str = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>AccessDenied</Code>\
        <Message>not authorized to perform: sts:AssumeRole</Message></Error><RequestId>r</RequestId></ErrorResponse>";
    let (address, record) = serve(Manner::Says(403, REFUSED), None).await;
    let (.., mut spec) = of_tenants(address).into_iter().find(|(kind, ..)| *kind == "aws").unwrap();
    (spec["aws"]["role"], spec["aws"]["externalID"]) = (json!("arn:aws:iam::123456789012:role/reader"), json!("of-tmi"));
    let checked = open(&spec, "own", &[("k", "of-the-tenant")]).await.unwrap().check().await;
    assert!(matches!(&checked, Err(StoreError::Unauthenticated(why)) if why.contains("AssumeRole")), "{checked:?}");
    for code in ["InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken"] {
        let said: &'static str = Box::leak(REFUSED.replace("AccessDenied", code).into_boxed_str());
        let (address, _) = serve(Manner::Says(403, said), None).await;
        let mut spec = spec.clone();
        spec["aws"]["endpoint"] = format!("http://{address}").into();
        let checked = open(&spec, "own", &[("k", "of-the-tenant")]).await.unwrap().check().await;
        assert!(matches!(&checked, Err(StoreError::Unauthenticated(_))), "{code}: {checked:?}");
    }
    let asked = record.all();
    assert!(asked.contains("Action=AssumeRole") && asked.contains("ExternalId=of-tmi") && asked.contains("role%2Freader"), "{asked}");
    // Who is known and may only read certain values is let in.
    let (address, _) = serve(Manner::Says(400, r#"{"__type":"AccessDeniedException","Message":"not authorized"}"#), None).await;
    spec["aws"]["endpoint"] = format!("http://{address}").into();
    spec["aws"]["role"] = Value::Null;
    open(&spec, "own", &[("k", "of-the-tenant")]).await.unwrap().check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_by_client_certificate() {
    const SECRET: &str = r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "app", "namespace": "n", "resourceVersion": "7"}, "data": {"k": "dg=="}}"#;
    seaworthy::install_crypto_provider();
    let of = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (server, client) = (of("127.0.0.1"), of("reader"));
    let mut believed = rustls::RootCertStore::empty();
    believed.add(client.cert.der().clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder(believed.into()).build().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(server.signing_key.serialize_der()).unwrap();
    let tls =
        rustls::ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(vec![server.cert.der().clone()], key).unwrap();
    let (address, record) = serve(Manner::Says(200, SECRET), Some(tokio_rustls::TlsAcceptor::from(Arc::new(tls)))).await;
    let (cert, key) = (client.cert.pem(), client.signing_key.serialize_pem());
    let own = [("cert", cert.as_str()), ("key", &key), ("k", "of-nobody")];
    let read = async |auth: Value| {
        let server = json!({"url": format!("https://{address}"), "caBundle": server.cert.pem(), "auth": auth});
        let store = open(&json!({"kubernetes": {"namespace": "n", "server": server}}), "own", &own).await.unwrap();
        store.read(&Place { key: "app".into(), version: None }).await
    };
    let by = |key: &str| json!({"name": "own", "key": key});
    let stored = read(json!({"clientCertificate": {"certSecretRef": by("cert"), "keySecretRef": by("key")}})).await.unwrap();
    assert_eq!(stored.version.as_deref(), Some("7"));
    assert!(!record.all().to_lowercase().contains("authorization"), "the certificate says who it is");
    assert!(read(json!({"token": {"secretRef": by("k")}})).await.is_err(), "who shows none is not let in");
}
