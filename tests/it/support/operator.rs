//! The operator in this process, with a clock that can be moved and a place where it can be stopped.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use jiff::SignedDuration;
use kube::Client;
use seaworthy::{
    app::{self, Area, Settings},
    certificates::verify::Networks,
    clients::egress::Egress,
    clock::Clock,
    rollout::budget::Limits,
    secrets::store::Allowed,
    testing::failpoint::Failpoint,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Any port that is free.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What an operator of the tests may have that others do not have.
struct Given<'a> {
    clock: Clock,
    /// It may shake hands in these, too.
    networks: Networks,
    /// It leads only while it holds the lease as this one.
    identity: Option<&'a str>,
    restarts: Limits,
    listen: SocketAddr,
    /// Where names lead.
    names: HashMap<String, SocketAddr>,
}

impl Default for Given<'_> {
    fn default() -> Self {
        let (clock, networks, restarts) = (Clock::default(), Networks::default(), Limits::default());
        Self { clock, networks, identity: None, restarts, listen: ANYWHERE, names: HashMap::new() }
    }
}

/// A running operator. Dropping it is what kill -9 is: its task ends where it is.
pub struct Operator {
    pub clock: Clock,
    pub failpoint: Failpoint,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Operator {
    /// Looks after `namespaces`; empty: all of them.
    pub fn start(client: Client, namespaces: Vec<String>, operator_namespace: &str) -> Self {
        Self::start_with(client, namespaces, operator_namespace, Clock::default())
    }

    /// The same with a clock that has been moved already.
    pub fn start_with(client: Client, namespaces: Vec<String>, operator_namespace: &str, clock: Clock) -> Self {
        Self::run(client, namespaces, operator_namespace, Given { clock, ..Given::default() })
    }

    /// The same, which may shake hands in `networks` too.
    pub fn start_within(client: Client, namespaces: Vec<String>, operator_namespace: &str, (clock, networks): (Clock, Networks)) -> Self {
        Self::run(client, namespaces, operator_namespace, Given { clock, networks, ..Given::default() })
    }

    /// Looks after `namespaces` for as long as it holds the lease in `operator_namespace` as `identity`.
    pub fn elected(client: Client, namespaces: Vec<String>, operator_namespace: &str, (identity, clock): (&str, Clock)) -> Self {
        Self::run(client, namespaces, operator_namespace, Given { clock, identity: Some(identity), ..Given::default() })
    }

    /// The same, which restarts a workload again as soon as it has to.
    pub fn start_restless(client: Client, namespaces: Vec<String>, operator_namespace: &str) -> Self {
        let restarts = Limits { interval: SignedDuration::ZERO, ..Limits::default() };
        Self::run(client, namespaces, operator_namespace, Given { restarts, ..Given::default() })
    }

    /// Its metrics are at an address that is known.
    pub fn listening(client: Client, namespaces: Vec<String>, operator_namespace: &str) -> (Self, SocketAddr) {
        let listen = std::net::TcpListener::bind(ANYWHERE).unwrap().local_addr().unwrap();
        (Self::run(client, namespaces, operator_namespace, Given { listen, ..Given::default() }), listen)
    }

    /// Looks after all namespaces. For it these names lead to these addresses.
    pub fn with_names(client: Client, operator_namespace: &str, names: HashMap<String, SocketAddr>) -> Self {
        Self::run(client, Vec::new(), operator_namespace, Given { names, ..Given::default() })
    }

    fn run(client: Client, namespaces: Vec<String>, operator_namespace: &str, given: Given<'_>) -> Self {
        let Given { clock, networks, identity, restarts, listen, names } = given;
        let (stop, failpoint) = (CancellationToken::new(), Failpoint::default());
        let settings = Settings {
            areas: Area::ALL.to_vec(),
            namespaces,
            operator_namespace: operator_namespace.into(),
            identity: identity.unwrap_or("test").into(),
            leader_elect: identity.is_some(),
            lease_name: "seaworthy".into(),
            listen,
            concurrency: 8,
            restarts,
            verify_networks: networks,
            stores: Allowed {
                egress: Egress::of_tenants(vec!["127.0.0.1/32".parse().unwrap()]).with_names(names), // where the test servers are
                env: vec!["CARGO_PKG_*".into()],
                folders: vec![concat!(env!("CARGO_MANIFEST_DIR"), "/examples").into()],
                ..Allowed::default()
            },
            clock: clock.clone(),
            failpoint: Some(failpoint.clone()),
        };
        let task = tokio::spawn(app::run(client, settings, stop.clone()));
        Self { clock, failpoint, stop, task }
    }

    /// Ends it as SIGTERM does.
    pub async fn shut_down(mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap().unwrap();
    }

    /// Returns when it stops, of whatever reason; what is under way goes on to its end.
    pub async fn stops(&self) {
        self.stop.cancelled().await;
    }

    /// Waits until it has ended by itself.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        (&mut self.task).await.unwrap()
    }

    /// Ends it as kill -9 does.
    pub async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}
