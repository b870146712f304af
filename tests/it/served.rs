//! On a real node, with servers that really use the certificate: restarted in order, asked for what they serve, taken back from all of them.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
use seaworthy::{
    api::CertificateRotation,
    certificates::{verify::Networks, x509::Certificate},
    clock::Clock,
};
use serde_json::{Value, json};

use crate::support::{Cluster, Namespace, Operator, Postgres, condition, eventually, try_command};

/// The shared cluster, if it has a node.
pub async fn node() -> Option<Cluster> {
    if std::env::var("SEAWORTHY_TEST_NODE").as_deref() == Ok("1") {
        return Some(Cluster::shared().await);
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "there is no node; run as root, through `make test`");
    eprintln!("not tested: servers need a node, and that needs root");
    None
}

/// A Deployment of servers, and its Service.
async fn serve(namespace: &Namespace, name: &str, replicas: i32, arguments: &[&str]) {
    let labels = json!({"app": name});
    let all: Vec<&str> = ["serve"].iter().chain(arguments).copied().collect();
    let container = json!({"name": "server", "image": "localhost/tlsserver:1", "args": all, "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1}});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [container], "volumes": [{"name": "tls", "secret": {"secretName": "web-tls"}}]}});
    let deployment: Deployment = serde_json::from_value(
        json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}}),
    )
    .unwrap();
    let service: Service = serde_json::from_value(
        json!({"metadata": {"name": name}, "spec": {"selector": labels, "ports": [{"port": 443, "targetPort": 8443}]}}),
    )
    .unwrap();
    Api::<Deployment>::namespaced(namespace.client.clone(), &namespace.name).create(&PostParams::default(), &deployment).await.unwrap();
    Api::<Service>::namespaced(namespace.client.clone(), &namespace.name).create(&PostParams::default(), &service).await.unwrap();
}

async fn pods(namespace: &Namespace, app: &str) -> Vec<Pod> {
    let api: Api<Pod> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let all = api.list(&ListParams::default().labels(&format!("app={app}"))).await.unwrap().items;
    all.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
}

/// The serial numbers that the Pods of `app` serve, as OpenSSL is given them.
async fn serials(namespace: &Namespace, app: &str) -> Vec<String> {
    let addresses = pods(namespace, app).await.into_iter().filter_map(|pod| pod.status?.pod_ip);
    addresses
        .filter_map(|address| {
            let (_, said) = try_command("openssl", &["s_client", "-connect", &format!("{address}:8443"), "-showcerts"], b"");
            let begin = said.find("-----BEGIN CERTIFICATE-----")?;
            Some(Certificate::chain(&said.as_bytes()[begin..]).ok()?.first()?.serial.clone())
        })
        .collect()
}

/// How often each workload was restarted, and when it was last.
async fn restarts(namespace: &Namespace, name: &str) -> (i64, Option<String>) {
    let found = Api::<Deployment>::namespaced(namespace.client.clone(), &namespace.name).get(name).await.unwrap();
    let revision: i64 = found.annotations()["deployment.kubernetes.io/revision"].parse().unwrap();
    (
        revision - 1,
        found.annotations().get("restart.seaworthy.dev/secret.web-tls").and_then(|note| Some(note.split(' ').nth(1)?.to_owned())),
    )
}

fn is_served(object: &CertificateRotation, summary: &str, revision: i64) -> bool {
    let status = object.status.clone().unwrap_or_default();
    status.verification.is_some_and(|verification| verification.summary == summary && verification.failing_since.is_none())
        && status.revision == Some(revision)
        && status.observed_generation == object.metadata.generation
        && condition(object, "Ready").is_some_and(|(ready, ..)| ready == "True")
        && condition(object, "Reconciling").is_none()
}

fn serial_of(object: &CertificateRotation) -> String {
    object.status.as_ref().unwrap().serial_number.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_in_order_and_no_handshake_fails() {
    let Some(cluster) = node().await else { return };
    let namespace = cluster.namespace("served").await;
    let _operator = cluster.operator(&namespace);
    let restart = json!({"discover": true, "workloads": [{"kind": "Deployment", "name": "c"}]});
    namespace.create("web", json!({"restart": restart, "verify": {"discover": true}})).await;
    let said = namespace.says("web", "Ready", "False", "NotServed").await;
    assert!(said.contains("no Service leads to a ready Pod"), "{said}");
    for name in ["a", "b", "c"] {
        serve(&namespace, name, 2, &[]).await;
    }
    let first = namespace.until("web", "six Pods serve it", |object| is_served(object, "6/6", 1)).await;
    // A client asks all the time, through the Services.
    let addresses: Vec<String> = ["a", "b", "c"].iter().map(|name| format!("{name}.{}.svc:443", namespace.name)).collect();
    let arguments: Vec<&str> = ["watch"].into_iter().chain(addresses.iter().map(String::as_str)).collect();
    let client: Pod = serde_json::from_value(json!({"metadata": {"name": "client"}, "spec": {"restartPolicy": "Never",
        "containers": [{"name": "client", "image": "localhost/tlsserver:1", "args": arguments}]}}))
    .unwrap();
    Api::<Pod>::namespaced(namespace.client.clone(), &namespace.name).create(&PostParams::default(), &client).await.unwrap();
    let kubeconfig = std::env::var("SEAWORTHY_TEST_KUBECONFIG").unwrap();
    let log =
        |lines: &str| try_command("kubectl", &["--kubeconfig", &kubeconfig, "-n", &namespace.name, "logs", "client", "--tail", lines], b"");
    eventually("the client asks", || async {
        let (done, said) = log("1");
        if done && said.contains(" 0 failed") { Ok(()) } else { Err(said) }
    })
    .await;
    namespace.annotate("web", "seaworthy.dev/rotate", "now").await;
    let second = namespace.until("web", "six Pods serve the second one", |object| is_served(object, "6/6", 2)).await;
    assert_ne!(serial_of(&first), serial_of(&second));
    let mut times = Vec::new();
    for name in ["c", "a", "b"] {
        let (count, time) = restarts(&namespace, name).await;
        assert_eq!(count, 1, "{name}");
        assert_eq!(serials(&namespace, name).await, [serial_of(&second), serial_of(&second)], "{name}");
        times.push(time.unwrap());
    }
    assert!(times.is_sorted(), "in the order of the list, then by name: {times:?}");
    let (_, said) = log("100000");
    let failed: Vec<&str> = said.lines().filter(|line| line.starts_with("failed")).collect();
    assert!(failed.is_empty() && said.lines().last().is_some_and(|line| line.ends_with(" 0 failed")), "{failed:?}");
    let status = second.status.unwrap();
    let last = status.last_rotation.unwrap();
    assert!(last.completed_at.is_some(), "{last:?}");
    assert_eq!(status.consumers.unwrap().summary, "6/6");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_crashes_with_it_takes_it_back_from_all() {
    let Some(cluster) = node().await else { return };
    let namespace = cluster.namespace("crashing").await;
    let operator = cluster.operator(&namespace);
    namespace.create("web", json!({"restart": {"discover": true, "timeout": "1h"}, "verify": {"discover": true}})).await;
    for (name, arguments) in [("a", &[][..]), ("b", &["-refuse", "new.example"]), ("c", &[])] {
        serve(&namespace, name, 1, arguments).await;
    }
    let first = namespace.until("web", "three Pods serve it", |object| is_served(object, "3/3", 1)).await;
    namespace.change("web", json!({"dnsNames": ["a.example", "new.example"]})).await;
    eventually("b crashes", || async {
        let all = serde_json::to_string(&pods(&namespace, "b").await).unwrap();
        if all.contains("CrashLoopBackOff") { Ok(()) } else { Err(all) }
    })
    .await;
    operator.clock.advance(jiff::SignedDuration::from_hours(2));
    namespace.annotate("web", "seaworthy.dev/look", "1").await;
    let said = namespace.says("web", "Stalled", "True", "RolledBack").await;
    assert!(
        said.contains("Deployment b was restarted with certificate 2") && said.contains("cannot live with the name new.example"),
        "{said}"
    );
    let back = namespace.until("web", "the first one is served again", |object| is_served(object, "3/3", 3)).await;
    assert_eq!(serial_of(&first), serial_of(&back));
    for name in ["a", "b", "c"] {
        assert_eq!(serials(&namespace, name).await, [serial_of(&first)], "{name}");
    }
    assert_eq!(restarts(&namespace, "c").await.0, 0, "it never had the second one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_reloads_by_itself_is_not_restarted() {
    let Some(cluster) = node().await else { return };
    let namespace = cluster.namespace("reloading").await;
    let operator = cluster.operator(&namespace);
    let verify = |address: &str| json!({"tls": {"address": address, "serverName": "a.example", "timeout": "10m"}});
    namespace.create("web", json!({"verify": verify(&format!("reloads.{}.svc:443", namespace.name))})).await;
    serve(&namespace, "reloads", 1, &["-reload"]).await;
    let first = namespace.until("web", "it is served", |object| is_served(object, "1/1", 1)).await;
    namespace.annotate("web", "seaworthy.dev/rotate", "1").await;
    let second = namespace.until("web", "the second one is served", |object| is_served(object, "1/1", 2)).await;
    assert_eq!(serials(&namespace, "reloads").await, [serial_of(&second)]);
    assert_eq!(restarts(&namespace, "reloads").await, (0, None));
    // One that does not, and is restarted by nobody: it is said what it shows.
    serve(&namespace, "keeps", 1, &[]).await;
    namespace.change("web", json!({"verify": verify("keeps:443")})).await;
    namespace.until("web", "it is served by the other one", |object| is_served(object, "1/1", 2)).await;
    namespace.annotate("web", "seaworthy.dev/rotate", "2").await;
    let said = namespace.says("web", "Reconciling", "True", "Verifying").await;
    assert!(said.contains(&format!("serves the certificate with serial number {}", serial_of(&second))), "{said}");
    operator.clock.advance(jiff::SignedDuration::from_mins(11));
    namespace.annotate("web", "seaworthy.dev/look", "1").await;
    let said = namespace.says("web", "Stalled", "True", "NotServed").await;
    assert!(said.contains(&format!("serves the certificate with serial number {}", serial_of(&second))), "{said}");
    assert_ne!(serial_of(&first), serial_of(&second));
    // Beyond the namespace nothing is dialed.
    namespace.change("web", json!({"verify": verify("kubernetes.default.svc:443")})).await;
    let said = namespace
        .until("web", "it is refused", |object| condition(object, "Ready").is_some_and(|(_, _, said)| said.contains("--verify-networks")))
        .await;
    assert_eq!(condition(&said, "Ready").unwrap().1, "NotServed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_wants_to_know_its_clients() {
    let Some(cluster) = node().await else { return };
    let namespace = cluster.namespace("clients").await;
    let _operator = cluster.operator(&namespace);
    namespace.create("root", json!({"isCA": true, "usages": ["cert sign"], "commonName": "Root", "dnsNames": null})).await;
    let by_root = json!({"ca": {"secretName": "root-tls"}});
    namespace.create("client", json!({"issuer": by_root, "usages": ["digital signature", "client auth"]})).await;
    let tls = json!({"address": "knows:443", "serverName": "a.example"});
    namespace.create("web", json!({"issuer": by_root, "verify": {"tls": tls}})).await;
    serve(&namespace, "knows", 1, &["-clients"]).await;
    let asks = |object: &CertificateRotation| {
        condition(object, "Ready").is_some_and(|(_, _, said)| said.contains("set verify.tls.clientSecretName"))
    };
    namespace.until("web", "it says what is missing", asks).await;
    namespace.change("web", json!({"verify": {"tls": {"clientSecretName": "client-tls"}}})).await;
    namespace.until("web", "it is served to who is known", |object| is_served(object, "1/1", 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_postgresql_that_is_reloaded_by_hand() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("postgres").await;
    let server = Postgres::start();
    let loopback = Networks::new(vec!["127.0.0.0/8".parse().unwrap()]);
    let names = vec![namespace.name.clone()];
    let _operator = Operator::start_within(cluster.operator.clone(), names, &namespace.name, (Clock::default(), loopback));
    let tls = json!({"address": format!("127.0.0.1:{}", server.port), "serverName": "a.example", "startTls": "postgres", "timeout": "1h"});
    namespace.create("web", json!({"verify": {"tls": tls}})).await;
    let said = namespace.says("web", "Reconciling", "True", "Verifying").await;
    assert!(said.contains("the PostgreSQL server does not offer TLS"), "{said}");
    let serve = async || server.serve(&namespace.text("web-tls", "tls.crt").await, &namespace.text("web-tls", "tls.key").await);
    serve().await;
    let first = namespace.until("web", "PostgreSQL serves it", |object| is_served(object, "1/1", 1)).await;
    namespace.annotate("web", "seaworthy.dev/rotate", "1").await;
    let said = namespace.says("web", "Reconciling", "True", "Verifying").await;
    assert!(said.contains(&format!("serves the certificate with serial number {}", serial_of(&first))), "{said}");
    serve().await;
    namespace.until("web", "PostgreSQL serves the second one", |object| is_served(object, "1/1", 2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_no_pod_of_the_namespace_is_not_dialed() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("elsewhere").await;
    let _operator = cluster.operator(&namespace);
    let client = || namespace.client.clone();
    let create = async |resource: &kube::core::ApiResource, object: Value| {
        let api: Api<kube::core::DynamicObject> = Api::namespaced_with(client(), &namespace.name, resource);
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    };
    let services = kube::core::ApiResource::erase::<Service>(&());
    create(&services, json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 443}]}})).await;
    let slices = kube::core::ApiResource::erase::<k8s_openapi::api::discovery::v1::EndpointSlice>(&());
    // Somebody writes down the address of another one, as it may, and says that it is a Pod.
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = json!({"kind": "Pod", "name": "forged", "namespace": namespace.name});
    create(
        &slices,
        json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": [own_address()], "targetRef": target}], "ports": [{"name": "", "port": listener.local_addr().unwrap().port(), "protocol": "TCP"}]}),
    )
    .await;
    namespace.create("web", json!({"verify": {"tls": {"address": "web:443"}}})).await;
    let said = namespace.says("web", "Ready", "False", "NotServed").await;
    assert!(said.contains("Service web has no ready Pod on port 443"), "{said}");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody has called");
}

/// An address of this machine that an EndpointSlice may hold: not of the loopback.
fn own_address() -> String {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("203.0.113.1:9").map_or_else(|_| "203.0.113.1".into(), |()| socket.local_addr().unwrap().ip().to_string())
}
