//! The inventory's figures of docs/performance.md: a large cluster, how long until the operator is ready, its memory, and how long a look-up
//! takes. Run it with `make bench`, which starts the control plane that it needs.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement ends at the first error, and prints")]

#[path = "support/fill.rs"]
mod fill;
mod support;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use seaworthy::inventory::{Inventory, template::Source};
use serde_json::json;

use self::{
    fill::{fill, namespace},
    support::{Operator, PARALLEL},
};

const NAMESPACES: usize = 20;
const DEPLOYMENTS: usize = 2000;
const REPLICAS: usize = 5;

#[tokio::main]
async fn main() {
    seaworthy::install_crypto_provider();
    let client = Client::try_default().await.unwrap();
    println!("creating {DEPLOYMENTS} Deployments with {} Pods, 30,000 Secrets, 300 Secrets of 1 MB", DEPLOYMENTS * REPLICAS);
    deployments(&client).await;
    fill(&client, "inventory-many", 30_000, 200).await;
    fill(&client, "inventory-large", 300, 1_000_000).await;
    let address = "127.0.0.1:18099";
    let (operator, started) = (Operator::start(address, &[]), Instant::now());
    while !is_ready(address).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("\n  ready after                  {:5.1} s", started.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("  resident memory              {:5.1} MB, at most {:.1} MB", operator.memory("VmRSS"), operator.memory("VmHWM"));
    drop(operator);
    look_up(client).await;
}

/// As many Deployments, each with Secrets of its own; the controller manager makes the ReplicaSets and Pods.
async fn deployments(client: &Client) {
    for number in 0..NAMESPACES {
        namespace(client, &format!("inventory-{number}")).await;
    }
    stream::iter(0..DEPLOYMENTS)
        .for_each_concurrent(PARALLEL, async |number| {
            let api: Api<Deployment> = Api::namespaced(client.clone(), &format!("inventory-{}", number % NAMESPACES));
            let labels = json!({"app": format!("d{number}")});
            let deployment = json!({"metadata": {"name": format!("d{number}")}, "spec": {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "app", "image": format!("registry.example/app-{number}:1.2.3"), "envFrom": [{"secretRef": {"name": format!("env-{number}")}}, {"configMapRef": {"name": format!("settings-{number}")}}],
                    "volumeMounts": [{"name": "tls", "mountPath": "/tls"}], "resources": {"requests": {"cpu": "10m"}}, "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}],
                    "volumes": [{"name": "tls", "secret": {"secretName": format!("tls-{number}")}}], "imagePullSecrets": [{"name": "registry"}]}}}});
            api.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
        })
        .await;
    let pods: Api<Pod> = Api::all(client.clone());
    let count = async || {
        let page = pods.list_metadata(&ListParams::default().limit(1)).await.unwrap();
        page.items.len() + usize::try_from(page.metadata.remaining_item_count.unwrap_or(0)).unwrap()
    };
    while count().await < DEPLOYMENTS * REPLICAS {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn is_ready(address: &str) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(mut connection) = tokio::net::TcpStream::connect(address).await else { return false };
    let mut answer = String::new();
    let asked = connection.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    asked.is_ok() && connection.read_to_string(&mut answer).await.is_ok() && answer.starts_with("HTTP/1.1 200")
}

/// In this process, with an inventory of its own.
async fn look_up(client: Client) {
    const TIMES: usize = 20_000;
    let inventory = Inventory::default();
    let follow = tokio::spawn(inventory.clone().follow(client, None, |_| {}));
    inventory.filled().await;
    let asked: Vec<(String, Source)> = (0..TIMES)
        .map(|number| number * 7919 % DEPLOYMENTS)
        .map(|number| (format!("inventory-{}", number % NAMESPACES), Source::Secret(format!("tls-{number}").into())))
        .collect();
    let started = Instant::now();
    for (namespace, source) in &asked {
        let consumers = black_box(inventory.consumers(namespace, source));
        assert!(consumers.len() == 1 && consumers[0].pods.len() == REPLICAS, "{consumers:?}");
    }
    let each = started.elapsed().as_secs_f64() * 1e6 / f64::from(u32::try_from(TIMES).unwrap());
    println!("  who uses a Secret (1 workload, {REPLICAS} Pods)  {each:.1} µs");
    follow.abort();
}
