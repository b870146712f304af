//! `seaworthy controller`: the operator itself.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

use tokio_util::sync::CancellationToken;

use super::{Failure, client};
use crate::{
    app::{self, Area},
    certificates::verify::Networks,
    clients::egress::Egress,
    clock::Clock,
    ids,
    rollout::budget::Limits,
    secrets::store::Allowed,
    telemetry::logging::{self, Format},
};

/// Run the operator. Without flags, with KUBECONFIG or in a Pod, it works: all areas, all namespaces, one leader.
///
/// Logs go to standard error, audit lines (one JSON object for each act on a credential) to standard output.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What it does.
    #[arg(long, env = "SEAWORTHY_AREAS", value_delimiter = ',', value_enum, default_value = "certificates,secrets")]
    areas: Vec<Area>,
    /// Only these namespaces; cluster-scoped kinds are then off. Default: all.
    #[arg(long, env = "SEAWORTHY_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Its own namespace: the Lease, and the Secrets of CertificateIssuers and SecretStores. Default: the Pod's, else the kubeconfig's.
    #[arg(long, env = "POD_NAMESPACE")]
    operator_namespace: Option<String>,
    /// Its name in the Lease, in events and audit lines. Default: the host name.
    #[arg(long, env = "POD_NAME")]
    name: Option<String>,
    /// Wait to be the leader before writing. Set to false only where one process runs at a time.
    #[arg(long, env = "SEAWORTHY_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// The name of the Lease. Of several operators in one namespace, each needs its own.
    #[arg(long, env = "SEAWORTHY_LEASE_NAME", default_value = "seaworthy")]
    lease_name: String,
    /// Where /livez, /readyz and /metrics are answered.
    #[arg(long, env = "SEAWORTHY_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// How many objects of a kind are looked at at the same time; those of one namespace take at most half of the places that others leave.
    #[arg(long, env = "SEAWORTHY_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// How many workloads are restarted at a time in the whole cluster.
    #[arg(long, env = "SEAWORTHY_MAX_RESTARTS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    max_restarts: u16,
    /// How many workloads are restarted at a time in one namespace.
    #[arg(long, env = "SEAWORTHY_MAX_RESTARTS_PER_NAMESPACE", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    max_restarts_per_namespace: u16,
    /// The time between two restarts of one workload, at least.
    #[arg(long, env = "SEAWORTHY_RESTART_INTERVAL", default_value = "60s")]
    restart_interval: crate::api::Duration,
    /// Networks (CIDR) that verify.tls.address may lead to beside the Pods of its own namespace. Default: none.
    #[arg(long, env = "SEAWORTHY_VERIFY_NETWORKS", value_delimiter = ',')]
    verify_networks: Vec<ipnet::IpNet>,
    /// Networks (CIDR) that spec.store of a SecretRotation may lead to although they are loopback, link-local or metadata addresses. Default: none.
    #[arg(long, env = "SEAWORTHY_STORE_NETWORKS", value_delimiter = ',')]
    store_networks: Vec<ipnet::IpNet>,
    /// Environment variables of its own that a SecretStore of the kind env may give out: names, or beginnings of names like APP_*. Default: none.
    #[arg(long, env = "SEAWORTHY_STORE_ENV", value_delimiter = ',')]
    store_env: Vec<String>,
    /// Folders of its own that a SecretStore of the kind file may give out. Default: none.
    #[arg(long, env = "SEAWORTHY_STORE_FOLDERS", value_delimiter = ',')]
    store_folders: Vec<PathBuf>,
    /// The form of log lines.
    #[arg(long, env = "SEAWORTHY_LOG_FORMAT", value_enum, default_value_t)]
    log_format: Format,
    /// What is logged: a level, or levels by module, like info,seaworthy=debug.
    #[arg(long, env = "SEAWORTHY_LOG", default_value = "info")]
    log: String,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    logging::start(arguments.log_format, &arguments.log).map_err(|error| Failure::Usage(error.to_string()))?;
    let (client, namespace) = client().await?;
    let settings = app::Settings {
        areas: arguments.areas,
        // Each once: two watches of one namespace would look at everything twice.
        namespaces: arguments
            .namespaces
            .into_iter()
            .filter(|namespace| !namespace.is_empty())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        operator_namespace: arguments.operator_namespace.unwrap_or(namespace),
        identity: identity(arguments.name),
        leader_elect: arguments.leader_elect,
        lease_name: arguments.lease_name,
        listen: arguments.listen,
        concurrency: arguments.concurrency,
        restarts: Limits {
            cluster: arguments.max_restarts.into(),
            namespace: arguments.max_restarts_per_namespace.into(),
            interval: arguments.restart_interval.signed(),
        },
        verify_networks: Networks::new(arguments.verify_networks),
        stores: Allowed {
            egress: Egress::of_tenants(arguments.store_networks),
            env: arguments.store_env,
            folders: arguments.store_folders,
            ..Allowed::default()
        },
        clock: Clock::default(),
        #[cfg(feature = "testing")]
        failpoint: None,
    };
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    app::run(client, settings, stop).await.map_err(Failure::from)
}

/// A Pod that is started again keeps its name; what is random tells the two processes apart in the Lease.
fn identity(name: Option<String>) -> String {
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{}_{}", name.unwrap_or_else(host), ids::random::<4>())
}

async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: what is under way is brought to its end");
    stop.cancel();
}
