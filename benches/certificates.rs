//! The figures of docs/performance.md: 500 certificates from creation to Ready beside a bare loop that makes the same writes, and the memory of
//! an idle operator. Run it with `make bench`, which starts the control plane that it needs.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement ends at the first error, and prints")]

#[path = "support/fill.rs"]
mod fill;
mod support;

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use seaworthy::api::CertificateRotation;
use serde_json::{Value, json};

use self::{
    fill::{fill, namespace},
    support::{Operator, PARALLEL},
};

const COUNT: u16 = 500;

#[tokio::main]
async fn main() {
    seaworthy::install_crypto_provider();
    let client = Client::try_default().await.unwrap();
    // The loop runs before and after, because the API server is quicker the second time; the quicker of the two counts.
    let (cold, operator, warm) = (bare_loop(&client, "bare-1").await, five_hundred(&client).await, bare_loop(&client, "bare-2").await);
    let bare = cold.min(warm);
    println!("\n{COUNT} certificates (ECDSA P-256, one CA issuer), creation to Ready");
    println!(
        "  operator   {:6.1} s   {:5.0} a second   peak memory {:.0} MB   {:.1} API calls each",
        operator.seconds,
        f64::from(COUNT) / operator.seconds,
        operator.peak,
        operator.calls
    );
    println!("  bare loop  {bare:6.1} s   the same writes, {PARALLEL} at a time; factor {:.2}", operator.seconds / bare);
    println!("\nidle operator, resident memory");
    println!("  nothing                      {:5.1} MB", idle().await);
    fill(&client, "many", 30_000, 200).await;
    println!("  30,000 unrelated Secrets     {:5.1} MB", idle().await);
    clear(&client, "many").await;
    fill(&client, "large", 300, 1_000_000).await;
    println!("  300 Secrets of 1 MB          {:5.1} MB", idle().await);
    clear(&client, "large").await;
}

struct Measured {
    seconds: f64,
    peak: f64,
    calls: f64,
}

fn rotation(name: &str, spec: Value) -> CertificateRotation {
    serde_json::from_value(
        json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "CertificateRotation", "metadata": {"name": name}, "spec": spec}),
    )
    .unwrap()
}

async fn create_all(api: &Api<CertificateRotation>) {
    stream::iter(0..COUNT)
        .for_each_concurrent(PARALLEL, async |number| {
            let name = format!("c{number}");
            let spec = json!({"secretName": name, "dnsNames": [format!("{name}.example")], "issuer": {"ca": {"secretName": "bench-ca"}}});
            api.create(&PostParams::default(), &rotation(&name, spec)).await.unwrap();
        })
        .await;
}

fn is_ready(object: &CertificateRotation) -> bool {
    object
        .status
        .as_ref()
        .is_some_and(|status| status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

/// Creates them with the operator running, and waits for the last to be Ready.
async fn five_hundred(client: &Client) -> Measured {
    namespace(client, "bench").await;
    let operator = Operator::start("127.0.0.1:0", &[]);
    let api: Api<CertificateRotation> = Api::namespaced(client.clone(), "bench");
    let ca = json!({"secretName": "bench-ca", "commonName": "Bench CA", "isCA": true, "duration": "87600h", "issuer": {"selfSigned": {}}});
    api.create(&PostParams::default(), &rotation("ca", ca)).await.unwrap();
    let ready = async |wanted: usize| {
        let events =
            watcher(api.clone(), watcher::Config::default()).applied_objects().try_filter(|object| std::future::ready(is_ready(object)));
        let mut names = std::collections::BTreeSet::new();
        futures::pin_mut!(events);
        while names.len() < wanted {
            names.insert(events.next().await.unwrap().unwrap().name_any());
        }
    };
    ready(1).await;
    let (calls, started) = (api_calls(client).await, Instant::now());
    tokio::join!(create_all(&api), ready(usize::from(COUNT) + 1));
    let seconds = started.elapsed().as_secs_f64();
    // What this program itself asked is not the operator's: the creations.
    let calls = (api_calls(client).await - calls - f64::from(COUNT)) / f64::from(COUNT);
    Measured { seconds, peak: operator.memory("VmHWM"), calls }
}

/// Requests to the API server so far, watches and its own left out.
async fn api_calls(client: &Client) -> f64 {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = client.request_text(request).await.unwrap();
    let ours = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && !line.contains("verb=\"WATCH\"")
            && ["certificaterotations", "secrets", "events"].iter().any(|resource| line.contains(&format!("resource=\"{resource}\"")))
    };
    text.lines().filter(ours).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// The same writes without an operator: create the resource, its Secret and an event, apply the status.
async fn bare_loop(client: &Client, name: &str) -> f64 {
    namespace(client, name).await;
    let home = name;
    let api: Api<CertificateRotation> = Api::namespaced(client.clone(), home);
    let (secrets, events) = (Api::<Secret>::namespaced(client.clone(), home), Api::<Event>::namespaced(client.clone(), home));
    let started = Instant::now();
    create_all(&api).await;
    stream::iter(0..COUNT)
        .for_each_concurrent(PARALLEL, async |number| {
            let name = format!("c{number}");
            let value = k8s_openapi::ByteString(vec![b'x'; 900]);
            let secret: Secret = serde_json::from_value(json!({"metadata": {"name": name}, "type": "kubernetes.io/tls", "data": {"tls.crt": value, "tls.key": value, "ca.crt": value}})).unwrap();
            secrets.create(&PostParams::default(), &secret).await.unwrap();
            let event: Event = serde_json::from_value(json!({"metadata": {"name": name}, "eventTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(jiff::Timestamp::now()), "action": "Issue", "reason": "Missing", "type": "Normal",
                "note": "a note", "reportingController": "bench", "reportingInstance": "bench", "regarding": {"kind": "CertificateRotation", "name": name, "namespace": home}})).unwrap();
            events.create(&PostParams::default(), &event).await.unwrap();
            let status = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "CertificateRotation", "status": {"observedGeneration": 1, "revision": 1,
                "conditions": [{"type": "Ready", "status": "True", "reason": "Current", "message": "valid", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
            api.patch_status(&name, &PatchParams::apply("bench").force(), &Patch::Apply(status)).await.unwrap();
        })
        .await;
    let seconds = started.elapsed().as_secs_f64();
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    seconds
}

/// Resident memory some seconds after the start, in MB.
async fn idle() -> f64 {
    let operator = Operator::start("127.0.0.1:0", &[]);
    tokio::time::sleep(Duration::from_secs(15)).await;
    operator.memory("VmRSS")
}

async fn clear(client: &Client, name: &str) {
    let api: Api<Secret> = Api::namespaced(client.clone(), name);
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
}
