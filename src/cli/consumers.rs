//! `seaworthy consumers secret/NAME`: who uses it, how, and in which Pods.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use super::{Failure, Output, client, print, status::span};
use crate::{
    inventory::{
        Inventory,
        consumers::Consumer,
        template::{Role, Source, Use},
    },
    telemetry::logging::{self, Format},
};

/// Show who uses a Secret or a ConfigMap: which workloads, how, and since when their Pods run.
///
/// Everything that embeds a Pod template is looked at, Pods that differ from their template too, ServiceAccounts (pull secrets), Ingresses and
/// Gateways.
/// Example:
///
///   seaworthy consumers secret/api-tls -n shop
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// What is used: secret/NAME or configmap/NAME.
    resource: String,
    /// Its namespace. Default: the kubeconfig's.
    #[arg(short, long)]
    namespace: Option<String>,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// A cluster that has not told by then what it runs does not let us see it.
const INVENTORY_TIMEOUT: Duration = Duration::from_secs(30);

/// One consumer, as `-o json` shows it.
#[derive(Serialize)]
struct Row {
    kind: String,
    name: String,
    uses: Vec<Way>,
    pods: Vec<Pod>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Way {
    how: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_type: Option<&'static str>,
}

#[derive(Serialize)]
struct Pod {
    name: String,
    created: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
    ready: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let source = parse(&arguments.resource)?;
    logging::start(Format::Text, "warn").map_err(|error| Failure::Usage(error.to_string()))?; // what cannot be listed is said there
    let (client, default) = client().await?;
    let namespace = arguments.namespace.unwrap_or(default);
    let inventory = Inventory::default();
    tokio::select! {
        () = inventory.clone().follow_users(client, namespace.clone()) => {}
        filled = tokio::time::timeout(INVENTORY_TIMEOUT, inventory.filled()) => {
            filled.map_err(|_| Failure::Unreachable(format!("what runs in namespace {namespace} could not be listed within {INVENTORY_TIMEOUT:?}")))?;
        }
    }
    let consumers = inventory.consumers(&namespace, &source);
    let rows: Vec<Row> = consumers.iter().map(row).collect();
    if !arguments.output.print(&rows)? {
        show(&consumers, &arguments.resource, &namespace);
    }
    Ok(())
}

fn parse(resource: &str) -> Result<Source, Failure> {
    match resource.split_once('/') {
        Some(("secret" | "secrets", name)) if !name.is_empty() => Ok(Source::Secret(name.into())),
        Some(("configmap" | "configmaps" | "cm", name)) if !name.is_empty() => Ok(Source::ConfigMap(name.into())),
        _ => Err(Failure::Usage(format!("{resource:?} is neither secret/NAME nor configmap/NAME"))),
    }
}

const fn word(role: Role) -> &'static str {
    match role {
        Role::Main => "container",
        Role::Init => "init container",
        Role::Sidecar => "sidecar",
        Role::Ephemeral => "ephemeral container",
    }
}

fn row(consumer: &Consumer) -> Row {
    let way = |used: &Use| Way {
        how: used.how.as_str(),
        container: used.container.as_ref().map(|(_, name)| name.to_string()),
        container_type: used.container.as_ref().map(|(role, _)| word(*role)),
    };
    let pods = consumer.pods.iter().map(|(name, pod)| Pod {
        name: name.to_string(),
        created: pod.created,
        started: pod.started,
        ready: pod.ready,
    });
    Row {
        kind: consumer.owner.kind.to_string(),
        name: consumer.owner.name.to_string(),
        uses: consumer.uses.iter().map(way).collect(),
        pods: pods.collect(),
    }
}

fn show(consumers: &[Consumer], resource: &str, namespace: &str) {
    if consumers.is_empty() {
        print(&format!("Nothing in namespace {namespace} uses {resource}."));
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["KIND", "NAME", "HOW", "PODS", "READY", "OLDEST"]);
    let now = Timestamp::now();
    for consumer in consumers {
        let oldest = consumer.pods.iter().map(|(_, pod)| pod.created).min();
        let ready = consumer.pods.iter().filter(|(_, pod)| pod.ready).count();
        table.add_row([
            consumer.owner.kind.to_string(),
            consumer.owner.name.to_string(),
            ways(&consumer.uses),
            consumer.pods.len().to_string(),
            ready.to_string(),
            oldest.map_or_else(|| "-".into(), |time| span(time, now)),
        ]);
    }
    print(&table.to_string());
}

/// `env: web, proxy (sidecar); volume: web`.
fn ways(uses: &[Use]) -> String {
    let mut by: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for used in uses {
        let containers = by.entry(used.how.as_str()).or_default();
        match &used.container {
            Some((Role::Main, name)) => containers.push(name.to_string()),
            Some((role, name)) => containers.push(format!("{name} ({})", word(*role))),
            None => {}
        }
    }
    let line = |(how, containers): (&str, Vec<String>)| match containers.as_slice() {
        [] => how.to_owned(),
        containers => format!("{how}: {}", containers.join(", ")),
    };
    by.into_iter().map(line).collect::<Vec<_>>().join("; ")
}
