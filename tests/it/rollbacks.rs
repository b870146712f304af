//! What one of its users cannot live with is taken back from all of them, whatever is interrupted.

use seaworthy::{api::certificate_rotation::RotationStepName, certificates::deliver::STEPS};
use serde_json::json;

use crate::support::{Cluster, World, condition, eventually};

/// The certificate of before is back, everybody has it, and nothing goes on.
async fn rolled_back(world: &World, before: &str) {
    let said = world.namespace.says("web", "Stalled", "True", "RolledBack").await;
    assert!(said.contains("Deployment b was restarted with certificate 2"), "{said}");
    assert!(said.contains("CrashLoopBackOff, exit code 7: cannot read tls.key"), "{said}");
    world.settled("6/6").await;
    assert_eq!(world.serial().await, before);
    let object = world.namespace.rotations().get("web").await.unwrap();
    let status = object.status.clone().unwrap();
    assert_eq!((status.revision, status.last_failure.unwrap().reason.as_str()), (Some(3), "RolledBack"));
    assert_eq!(condition(&object, "Ready").unwrap().0, "True", "what is there is valid");
    let last = status.last_rotation.unwrap();
    assert_eq!((last.reason.as_str(), last.completed_at), ("Requested", None));
    assert_eq!(last.steps.last().map(|step| step.name), Some(RotationStepName::RolledBack));
    let restarts = (world.restarts("a").await.0, world.restarts("b").await.0, world.restarts("c").await.0);
    assert_eq!(restarts, (2, 2, 0), "who had moved, and nobody else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_cannot_live_with_is_taken_back_from_all() {
    let cluster = Cluster::without_node().await;
    let (world, operator, before) = World::failing(&cluster).await;
    let object = world.namespace.rotations().get("web").await.unwrap();
    assert_eq!(object.status.unwrap().last_rotation.unwrap().completed_at, None, "not before all have it");
    operator.clock.advance(jiff::SignedDuration::from_hours(2));
    world.namespace.annotate("web", "seaworthy.dev/look", "1").await;
    rolled_back(&world, &before).await;
    // For the same cause it is not tried again, by another process neither.
    let clock = operator.clock.clone();
    operator.shut_down().await;
    let operator = cluster.operator_with(&world.namespace, clock);
    world.namespace.annotate("web", "seaworthy.dev/look", "2").await;
    world.settled("6/6").await;
    rolled_back(&world, &before).await;
    // A person has mended b and asks.
    operator.clock.advance(jiff::SignedDuration::from_hours(2));
    world.rotate("2").await;
    let object = world.namespace.ready("web", 4).await;
    world.settled("6/6").await;
    assert!(condition(&object, "Stalled").is_none());
    assert_ne!(world.serial().await, before);
    assert_eq!((world.restarts("a").await.0, world.restarts("b").await.0, world.restarts("c").await.0), (3, 3, 1));
    let steps: Vec<RotationStepName> =
        world.completed("web").await.status.unwrap().last_rotation.unwrap().steps.iter().map(|step| step.name).collect();
    assert_eq!(steps, [RotationStepName::Issued, RotationStepName::Stored, RotationStepName::Restarted]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn going_back_needs_no_issuer() {
    let cluster = Cluster::without_node().await;
    let (world, operator, before) = World::failing(&cluster).await;
    world.namespace.change("web", json!({"issuer": {"selfSigned": null, "ca": {"secretName": "none"}}})).await;
    world.namespace.says("web", "Reconciling", "True", "IssuerChanged").await;
    operator.clock.advance(jiff::SignedDuration::from_hours(2));
    world.namespace.annotate("web", "seaworthy.dev/look", "1").await;
    world.namespace.says("web", "Stalled", "True", "RolledBack").await;
    assert_eq!(world.serial().await, before);
    for (name, count) in [("a", 2), ("b", 2), ("c", 0)] {
        eventually(name, || async {
            let restarts = world.restarts(name).await.0;
            if restarts == count { Ok(()) } else { Err(restarts.to_string()) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_while_going_back_is_followed_by_one_that_goes_on() {
    let cluster = Cluster::without_node().await;
    let cluster = &cluster;
    // Of the restarts, those after the roll-back are meant. What follows on success is gone through in `restarts`.
    let steps = STEPS.iter().filter(|step| !["verify", "complete"].contains(step));
    let cases = steps.flat_map(|step| [(*step, false), (*step, true)]);
    futures::future::join_all(cases.map(|(step, done)| async move {
        let (world, operator, before) = World::failing(cluster).await;
        operator.failpoint.arm(step, done, (step == "restart").then_some("roll-back"));
        operator.clock.advance(jiff::SignedDuration::from_hours(2));
        let clock = operator.clock.clone();
        world.namespace.annotate("web", "seaworthy.dev/look", "1").await;
        operator.failpoint.reached().await;
        operator.kill().await;
        let _operator = cluster.operator_with(&world.namespace, clock);
        rolled_back(&world, &before).await;
    }))
    .await;
}
