//! Whatever is interrupted, wherever: never a Secret whose key does not match, never a lost previous pair, never two rotations where one was due.

use futures::{StreamExt, stream};
use seaworthy::certificates::{
    decide::Pair,
    outputs,
    rotate::STEPS,
    x509::{Certificate, Name},
};
use serde_json::json;

use crate::support::{Cluster, ControlPlane, Fault, Faults, Namespace, Operator, condition};

/// The pair in a Secret fits together; its serial number.
async fn serial(namespace: &Namespace, secret: &str) -> Option<String> {
    let secret = namespace.secrets().get_opt(secret).await.unwrap()?;
    match outputs::read(&seaworthy::cluster::references::data(secret)) {
        Pair::Good(certificate, _) => Some(certificate.serial),
        other => panic!("a Secret without a good pair: {other:?}"),
    }
}

async fn killed_and_resumed(cluster: &Cluster, step: &'static str, done: bool, first: bool) {
    let namespace = cluster.namespace("killed").await;
    let operator = cluster.operator(&namespace);
    let before = if first {
        None
    } else {
        namespace.create("web", json!({})).await;
        namespace.ready("web", 1).await;
        serial(&namespace, "web-tls").await
    };
    // Opening the issuer and reporting are parts of every look; what is meant is the report of the rotation.
    operator.failpoint.arm(step, done, (step == "report").then_some("store"));
    if first {
        namespace.create("web", json!({})).await;
    } else {
        namespace.annotate("web", "seaworthy.dev/rotate", "now").await;
    }
    tokio::time::timeout(crate::support::PATIENCE, operator.failpoint.reached()).await.unwrap_or_else(|_| panic!("{step} was not reached"));
    operator.kill().await;
    let between = serial(&namespace, "web-tls").await;

    let _operator = cluster.operator(&namespace);
    let revision = if first { 1 } else { 2 };
    namespace.ready("web", revision).await;
    // Something that makes it look once more, and then: still one rotation.
    namespace.change("web", json!({"secretTemplate": {"labels": {"looked": "again"}}})).await;
    crate::support::eventually("the label is there", || async {
        let labels = namespace.secrets().get("web-tls").await.map_err(|error| error.to_string())?.metadata.labels.unwrap_or_default();
        if labels.contains_key("looked") { Ok(()) } else { Err(format!("{labels:?}")) }
    })
    .await;
    namespace.ready("web", revision).await;
    let after = serial(&namespace, "web-tls").await;
    assert_ne!(after, before, "{step}: the rotation was done");
    assert_eq!(serial(&namespace, "web-tls-previous").await, before, "{step}: the previous pair is kept");
    let stored = (step == "store" && done) || step == "report";
    assert_eq!(between == after, stored, "{step}, done: {done}: what was stored is not made again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_around_every_step_and_resumed() {
    let cluster = Cluster::shared().await;
    let cases = STEPS
        .iter()
        .flat_map(|step| [(false, false), (false, true), (true, false), (true, true)].map(|(done, first)| (*step, done, first)));
    stream::iter(cases).for_each_concurrent(6, |(step, done, first)| killed_and_resumed(&cluster, step, done, first)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_may_fail_in_every_way() {
    let cluster = Cluster::shared().await;
    let faults = [Fault::Answer(409), Fault::Answer(429), Fault::Answer(500), Fault::AnswerLost];
    // A rotation writes: the pair on trial, the previous pair, the create's entry, the pair, the time of that, the status.
    let cases = faults.into_iter().flat_map(|fault| (0..6).map(move |number| (fault, number)));
    stream::iter(cases)
        .for_each_concurrent(6, |(fault, number)| {
            let cluster = &cluster;
            async move {
                let namespace = cluster.namespace("faulty").await;
                let connection = Faults::default();
                let client = connection.client(cluster.operator_config.clone());
                let _operator = Operator::start(client, vec![namespace.name.clone()], &namespace.name);
                namespace.create("web", json!({})).await;
                namespace.ready("web", 1).await;
                let before = serial(&namespace, "web-tls").await;
                connection.arm(number, fault);
                namespace.annotate("web", "seaworthy.dev/rotate", "now").await;
                namespace.ready("web", 2).await;
                assert_eq!(serial(&namespace, "web-tls-previous").await, before, "{fault:?} at write {number}");
                assert!(connection.struck(), "{fault:?} at write {number}: there was no such write");
                assert!(serial(&namespace, "web-tls").await.is_some());
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_may_be_gone_for_a_while() {
    let (own, cluster) = ControlPlane::start().await;
    let namespace = cluster.namespace("restart").await;
    let _operator = cluster.operator(&namespace);
    namespace.create("before", json!({})).await;
    namespace.ready("before", 1).await;
    let names: Vec<String> = (0..20).map(|number| format!("during-{number}")).collect();
    for name in &names {
        namespace.create(name, json!({})).await;
    }
    own.stop("apiserver");
    own.restart("apiserver");
    for name in &names {
        namespace.ready(name, 1).await;
        assert!(serial(&namespace, &format!("{name}-tls")).await.is_some());
    }
    namespace.annotate("before", "seaworthy.dev/rotate", "now").await;
    namespace.ready("before", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_brings_a_rotation_to_its_end() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("graceful").await;
    let operator = cluster.operator(&namespace);
    namespace.create("web", json!({})).await;
    namespace.ready("web", 1).await;
    let failpoint = operator.failpoint.clone();
    failpoint.arm("store", false, None);
    namespace.annotate("web", "seaworthy.dev/rotate", "now").await;
    failpoint.reached().await;
    let shutdown = tokio::spawn(operator.shut_down());
    tokio::task::yield_now().await;
    assert!(!shutdown.is_finished());
    failpoint.release();
    shutdown.await.unwrap();
    namespace.ready("web", 2).await; // nobody else is there to finish it
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_stays_as_it_is_known() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("unread").await;
    let connection = Faults::default();
    let _operator = Operator::start(connection.client(cluster.operator_config.clone()), vec![namespace.name.clone()], &namespace.name);
    namespace.create("web", json!({})).await;
    let before = namespace.ready("web", 1).await.status.unwrap();
    connection.hide("/secrets/");
    namespace.annotate("web", "seaworthy.dev/look", "1").await;
    let blind = namespace.until("web", "it says so", |object| object.status.as_ref().unwrap().last_failure.is_some()).await;
    let status = blind.status.clone().unwrap();
    assert_eq!(condition(&blind, "Ready").unwrap().0, "True", "the certificate is where it was");
    assert_eq!(condition(&blind, "Reconciling").unwrap().0, "True");
    assert!(status.last_failure.unwrap().message.contains("web-tls could not be read"));
    assert_eq!((status.revision, status.serial_number, status.not_after), (before.revision, before.serial_number, before.not_after));
    connection.show();
    let after = namespace.until("web", "it sees again", |object| object.status.as_ref().unwrap().last_failure.is_none()).await;
    assert_eq!(after.status.unwrap().revision, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_for_what_was_changed_meanwhile() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("stale").await;
    let operator = cluster.operator(&namespace);
    operator.failpoint.arm("open-issuer", true, None);
    namespace.create("web", json!({})).await;
    operator.failpoint.reached().await;
    namespace.change("web", json!({"dnsNames": ["other.example"]})).await;
    operator.failpoint.release();
    namespace.ready("web", 1).await;
    let chain = Certificate::chain(namespace.text("web-tls", "tls.crt").await.as_bytes()).unwrap();
    assert_eq!(chain[0].names, [Name::Dns("other.example".into())].into(), "the first certificate is already the one that is wanted now");
    namespace.told("Missing", 1).await;
}
