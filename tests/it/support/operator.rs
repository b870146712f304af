//! The operator in this process, with a clock that can be moved and a place where it can be stopped.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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
        Self::start_within(client, namespaces, operator_namespace, (clock, Networks::default()))
    }

    /// The same, which may shake hands in `networks` too.
    pub fn start_within(client: Client, namespaces: Vec<String>, operator_namespace: &str, (clock, networks): (Clock, Networks)) -> Self {
        Self::run(client, namespaces, operator_namespace, (clock, networks, None))
    }

    /// Looks after `namespaces` for as long as it holds the lease in `operator_namespace` as `identity`.
    pub fn elected(client: Client, namespaces: Vec<String>, operator_namespace: &str, (identity, clock): (&str, Clock)) -> Self {
        Self::run(client, namespaces, operator_namespace, (clock, Networks::default(), Some(identity)))
    }

    /// The same, which restarts a workload again as soon as it has to.
    pub fn start_restless(client: Client, namespaces: Vec<String>, operator_namespace: &str) -> Self {
        let limits = Limits { interval: SignedDuration::ZERO, ..Limits::default() };
        Self::limited(client, namespaces, operator_namespace, (Clock::default(), Networks::default(), None, limits), ANYWHERE)
    }

    /// Its metrics are at an address that is known.
    pub fn listening(client: Client, namespaces: Vec<String>, operator_namespace: &str) -> (Self, SocketAddr) {
        let listen = std::net::TcpListener::bind(ANYWHERE).unwrap().local_addr().unwrap();
        let more = (Clock::default(), Networks::default(), None, Limits::default());
        (Self::limited(client, namespaces, operator_namespace, more, listen), listen)
    }

    fn run(
        client: Client,
        namespaces: Vec<String>,
        operator_namespace: &str,
        (clock, networks, identity): (Clock, Networks, Option<&str>),
    ) -> Self {
        Self::limited(client, namespaces, operator_namespace, (clock, networks, identity, Limits::default()), ANYWHERE)
    }

    fn limited(
        client: Client,
        namespaces: Vec<String>,
        operator_namespace: &str,
        (clock, networks, identity, restarts): (Clock, Networks, Option<&str>, Limits),
        listen: SocketAddr,
    ) -> Self {
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
                egress: Egress::of_tenants(vec!["127.0.0.1/32".parse().unwrap()]), // where the test servers are
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
