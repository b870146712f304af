//! Who uses a certificate is restarted, in order, once, and left alone by whoever said so.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use seaworthy::{api::CertificateRotation, certificates::deliver::STEPS};
use serde_json::json;

use crate::support::{Cluster, World, condition, deployment, eventually, next_second};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_order_of_the_list_and_each_once() {
    let cluster = Cluster::without_node().await;
    let restart = json!({"discover": true, "workloads": [{"kind": "Deployment", "name": "c"}]});
    let (world, operator) = World::new(&cluster, restart, &["a", "b", "c"], "").await;
    world.settled("6/6").await;
    assert_eq!(world.restarts("a").await, (0, None), "what was there before its users restarts nobody");
    world.rotate("1").await;
    world.namespace.ready("web", 2).await;
    world.settled("6/6").await;
    let (a, b, c) = (world.restarts("a").await, world.restarts("b").await, world.restarts("c").await);
    assert_eq!((a.0, b.0, c.0), (1, 1, 1));
    // It is over and noted: what is deployed later, and does not become healthy, is no failure of that restart.
    let note = world.deployments.get("a").await.unwrap().annotations()["restart.seaworthy.dev/secret.web-tls"].clone();
    assert!(note.ends_with(" done"), "{note}");
    assert!(c.1 <= a.1 && a.1 <= b.1, "{c:?} {a:?} {b:?}");
    // Nothing has changed: nobody is restarted, also by another process.
    operator.shut_down().await;
    let operator = cluster.operator(&world.namespace);
    world.namespace.change("web", json!({"secretTemplate": {"labels": {"looked": "again"}}})).await;
    world.namespace.ready("web", 2).await;
    world.settled("6/6").await;
    assert_eq!(world.restarts("a").await, a);
    // Again so soon: each workload has its rest first.
    world.rotate("2").await;
    let waits = world.namespace.says("web", "Reconciling", "True", "Restarting").await;
    assert!(waits.contains("3 of 3 workloads do not have certificate 3 yet"), "{waits}");
    assert_eq!(world.restarts("c").await, c);
    operator.clock.advance(jiff::SignedDuration::from_mins(2));
    world.namespace.annotate("web", "seaworthy.dev/look", "1").await;
    world.settled("6/6").await;
    assert_eq!(world.restarts("c").await.0, 2);
    world.namespace.told("Restarting", 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_become_healthy_ends_it_and_says_why() {
    let cluster = Cluster::without_node().await;
    let (world, operator) =
        World::new(&cluster, json!({"discover": true, "timeout": "1h", "onFailure": "Pause"}), &["a", "b", "c"], "b").await;
    world.settled("6/6").await;
    world.rotate("1").await;
    world.crashes("b").await;
    operator.clock.advance(jiff::SignedDuration::from_hours(2));
    let said = world.namespace.says("web", "Stalled", "True", "RestartFailed").await;
    assert!(said.contains("Deployment b") && said.contains("CrashLoopBackOff, exit code 7: cannot read tls.key"), "{said}");
    assert_eq!((world.restarts("a").await.0, world.restarts("c").await.0), (1, 0));
    let object = world.namespace.rotations().get("web").await.unwrap();
    assert_eq!(condition(&object, "Ready").unwrap().0, "True", "the certificate is valid");
    assert_eq!(object.status.unwrap().last_failure.unwrap().reason, "RestartFailed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_pauses_undoes_or_makes_by_hand_is_left_alone() {
    let cluster = Cluster::without_node().await;
    let restart = json!({"discover": true, "workloads": [{"kind": "StatefulSet", "name": "gone"}], "strategy": "AllAtOnce"});
    let (world, operator) = World::new(&cluster, restart, &["paused", "undone"], "").await;
    let pods: Api<Pod> = Api::namespaced(world.namespace.client.clone(), &world.namespace.name);
    let template = serde_json::to_value(deployment("x", "none.example/c:1").spec.template.spec).unwrap();
    let bare: Pod = serde_json::from_value(json!({"metadata": {"name": "bare"}, "spec": template})).unwrap();
    pods.create(&PostParams::default(), &bare).await.unwrap();
    world.settled("5/5").await;
    world.change("paused", json!({"spec": {"paused": true}})).await;
    world.rotate("1").await;
    eventually("undone is restarted", || async { if world.restarts("undone").await.0 == 1 { Ok(()) } else { Err("not yet".into()) } })
        .await;
    // Some of its Pods are still of before when a person goes back, with kubectl, which takes the Deployment's annotations back too.
    let undo = ["--kubeconfig", &cluster.kubeconfig, "-n", &world.namespace.name, "rollout", "undo", "deployment/undone"];
    crate::support::command("kubectl", &undo, b"");
    let object = world.says("Pod bare").await;
    let said = condition(&object, "Ready").unwrap().2;
    for part in ["Deployment paused: it is paused", "Pod bare: restart it yourself"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(world.restarts("paused").await.0, 0);
    operator.clock.advance(jiff::SignedDuration::from_mins(5));
    world.namespace.annotate("web", "seaworthy.dev/look", "1").await;
    eventually("nothing goes on", || async {
        let object = world.namespace.rotations().get("web").await.map_err(|error| error.to_string())?;
        condition(&object, "Reconciling").map_or(Ok(()), |(_, _, said)| Err(said))
    })
    .await;
    // The controller manager counts the undo in its own time.
    eventually("the restart and the undo", || async {
        let times = world.restarts("undone").await.0;
        if times == 2 { Ok(()) } else { Err(format!("{times} times")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_pauses_in_the_middle_and_goes_on_later_is_not_late() {
    let cluster = Cluster::without_node().await;
    let (world, operator) = World::new(&cluster, json!({"discover": true}), &["a"], "a").await;
    world.settled("2/2").await;
    world.rotate("1").await;
    world.crashes("a").await;
    world.change("a", json!({"spec": {"paused": true}})).await;
    world.says("Deployment a: it is paused").await;
    eventually("its restart is over for us", || async {
        let found = world.deployments.get("a").await.map_err(|error| error.to_string())?;
        let note = found.annotations().get("restart.seaworthy.dev/secret.web-tls").cloned().unwrap_or_default();
        if note.ends_with(" done") { Ok(()) } else { Err(note) }
    })
    .await;
    operator.clock.advance(jiff::SignedDuration::from_hours(1));
    world.change("a", json!({"spec": {"paused": false}})).await;
    world.namespace.annotate("web", "seaworthy.dev/look", "1").await;
    let object = world.says("Deployment a: it has Pods of before its restart").await;
    assert!(condition(&object, "Stalled").is_none(), "nothing was taken back");
    assert_eq!(object.status.unwrap().revision, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_scaled_to_zero_or_deleted_in_the_middle_holds_up_nobody() {
    let cluster = Cluster::without_node().await;
    let cluster = &cluster;
    futures::future::join_all(["scaled", "deleted"].map(|how| async move {
        let (world, _operator) = World::new(cluster, json!({"discover": true}), &["a", "b"], "a").await;
        world.settled("4/4").await;
        world.rotate("1").await;
        world.crashes("a").await;
        assert_eq!(world.restarts("b").await.0, 0, "it has to wait for a");
        if how == "scaled" {
            world.change("a", json!({"spec": {"replicas": 0}})).await;
        } else {
            world.deployments.delete("a", &DeleteParams::default()).await.unwrap();
        }
        let object = world.completed("web").await;
        assert_eq!((object.status.as_ref().unwrap().revision, condition(&object, "Stalled")), (Some(2), None), "{how}");
        assert_eq!(world.restarts("b").await.0, 1, "{how}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_repeats_no_restart_and_loses_none() {
    let cluster = Cluster::without_node().await;
    for done in [false, true] {
        let (world, mut operator) = World::new(&cluster, json!({"discover": true}), &["a", "b"], "").await;
        world.settled("4/4").await;
        operator.failpoint.arm("restart", done, None);
        world.rotate("1").await;
        for _ in 0..2 {
            operator.failpoint.reached().await;
            operator.kill().await;
            operator = cluster.operator(&world.namespace);
            operator.failpoint.arm("restart", done, None);
            if done {
                continue; // each of the two is done before the process dies
            }
            break;
        }
        operator.failpoint.disarm();
        world.namespace.ready("web", 2).await;
        world.settled("4/4").await;
        assert_eq!((world.restarts("a").await.0, world.restarts("b").await.0), (1, 1), "killed {}", if done { "after" } else { "before" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_around_every_step_of_a_delivery() {
    let cluster = Cluster::without_node().await;
    let cluster = &cluster;
    let steps = STEPS.iter().filter(|step| **step != "roll-back"); // which is gone through in `rollbacks`
    let cases = steps.flat_map(|step| [(*step, false), (*step, true)]);
    futures::future::join_all(cases.map(|(step, done)| async move {
        let (world, operator) = World::new(cluster, json!({"discover": true}), &["a"], "").await;
        world.settled("2/2").await;
        if step == "verify" {
            world.namespace.change("web", json!({"verify": {"discover": true}})).await;
            world.namespace.says("web", "Reconciling", "True", "Verifying").await; // there is no Service, and nobody serves
        }
        operator.failpoint.arm(step, done, (step == "verify").then_some("restart"));
        world.rotate("1").await;
        operator.failpoint.reached().await;
        operator.kill().await;
        let _operator = cluster.operator(&world.namespace);
        if step == "verify" {
            let asked = |object: &CertificateRotation| {
                let verification =
                    object.status.as_ref().and_then(|status| Some((status.verification.as_ref()?, status.fingerprint.clone()?)));
                verification.is_some_and(|(asked, stored)| asked.fingerprint == stored && asked.failing_since.is_some())
            };
            world.namespace.until("web", "the new one is asked for", asked).await;
        } else {
            world.completed("web").await;
        }
        assert_eq!(world.restarts("a").await.0, 1, "killed {} {step}", if done { "after" } else { "before" });
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_together_is_brought_by_one_restart() {
    let cluster = Cluster::without_node().await;
    let (world, operator) = World::new(&cluster, json!({"discover": true}), &[], "").await;
    world.namespace.create("other", json!({"restart": {"discover": true}})).await;
    world.namespace.ready("other", 1).await;
    let mut both = deployment("both", "none.example/c:1");
    let volumes = &mut both.spec.template.spec.as_mut().unwrap().volumes;
    volumes.get_or_insert_default().push(serde_json::from_value(json!({"name": "other", "secret": {"secretName": "other-tls"}})).unwrap());
    world.deployments.create(&PostParams::default(), &both).await.unwrap();
    world.settled("2/2").await;
    // The restart for whoever comes first is held until both have changed.
    operator.failpoint.arm("restart", false, None);
    world.rotate("1").await;
    world.namespace.annotate("other", "seaworthy.dev/rotate", "1").await;
    operator.failpoint.reached().await;
    for name in ["web-tls", "other-tls"] {
        eventually("it has changed", || async {
            let secret = world.namespace.secrets().get_metadata(name).await.map_err(|error| error.to_string())?;
            let revision = secret.annotations().get("seaworthy.dev/revision").cloned().unwrap_or_default();
            if revision == "2" { Ok(()) } else { Err(revision) }
        })
        .await;
    }
    next_second().await;
    operator.failpoint.release();
    for name in ["web", "other"] {
        let consumers = world.completed(name).await.status.unwrap().consumers.unwrap();
        assert_eq!(consumers.summary, "2/2", "{name}");
    }
    assert_eq!(world.restarts("both").await.0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_wait_for_the_window_too() {
    let cluster = Cluster::without_node().await;
    let (world, operator) = World::new(&cluster, json!({"discover": true}), &["a"], "").await;
    world.settled("2/2").await;
    // Open when it was issued, closed an hour later, and open again a day later.
    operator.failpoint.arm("restart", false, Some("store"));
    world.rotate("1").await;
    operator.failpoint.reached().await;
    let now = (jiff::Timestamp::now() - jiff::SignedDuration::from_mins(1)).to_zoned(jiff::tz::TimeZone::UTC);
    let schedule = format!("{} {} * * *", now.minute(), now.hour());
    world.namespace.change("web", json!({"window": {"schedule": schedule, "duration": "5m"}})).await;
    operator.kill().await;
    let clock = seaworthy::clock::Clock::default();
    clock.advance(jiff::SignedDuration::from_hours(1));
    let operator = cluster.operator_with(&world.namespace, clock);
    world.says("restarts wait for the window, until").await;
    assert_eq!(world.restarts("a").await.0, 0);
    // A window that cannot be read is not open.
    world.namespace.change("web", json!({"window": {"schedule": "when it suits us best"}})).await;
    world.namespace.says("web", "Stalled", "True", "InvalidSpec").await;
    world.namespace.annotate("web", "seaworthy.dev/look", "0").await;
    world.namespace.change("web", json!({"window": {"schedule": schedule}})).await;
    world
        .namespace
        .until("web", "it waits again", |object| {
            condition(object, "Ready").is_some_and(|(_, _, said)| said.contains("restarts wait for the window, until"))
                && condition(object, "Stalled").is_none()
        })
        .await;
    assert_eq!(world.restarts("a").await.0, 0);
    operator.clock.advance(jiff::SignedDuration::from_hours(23));
    world.namespace.annotate("web", "seaworthy.dev/look", "1").await;
    eventually("a is restarted in the window", || async { if world.restarts("a").await.0 == 1 { Ok(()) } else { Err("not yet".into()) } })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gitops_tool_applies_again_undoes_nothing() {
    let cluster = Cluster::without_node().await;
    let (world, _operator) = World::new(&cluster, json!({"discover": true}), &[], "").await;
    let manifest = |name: &str| {
        let mut manifest = serde_json::to_value(deployment(name, "none.example/c:1")).unwrap();
        manifest["apiVersion"] = json!("apps/v1");
        manifest["kind"] = json!("Deployment");
        manifest.to_string()
    };
    // As Argo CD and Flux do it, by server-side apply, and as `kubectl apply` does, by an update.
    let ways: [(&str, &[&str]); 3] = [
        ("argo", &["--server-side", "--field-manager=argocd-controller"]),
        ("flux", &["--server-side", "--field-manager=kustomize-controller", "--force-conflicts"]),
        ("client", &[]),
    ];
    let kubectl = |verb: &str, name: &str, more: &[&str]| {
        let common = [verb, "--kubeconfig", &cluster.kubeconfig, "-n", &world.namespace.name, "-f", "-"];
        crate::support::try_command("kubectl", &[&common, more].concat(), manifest(name).as_bytes())
    };
    for (name, how) in ways {
        let (done, said) = kubectl("apply", name, how);
        assert!(done, "{said}");
    }
    world.settled("6/6").await;
    world.rotate("1").await;
    world.namespace.ready("web", 2).await;
    world.settled("6/6").await;
    for (name, how) in ways {
        assert_eq!(world.restarts(name).await.0, 1, "{name}");
        let (same, diff) = kubectl("diff", name, how);
        assert!(same, "{name}: {diff}");
        let (done, said) = kubectl("apply", name, how);
        assert!(done, "{said}");
        assert_eq!(world.restarts(name).await.0, 1, "{name}: its restart is not undone");
        let marks = world.deployments.get(name).await.unwrap().spec.template.metadata.unwrap().annotations.unwrap();
        assert!(marks.contains_key("restart.seaworthy.dev/secret.web-tls"), "{name}: {marks:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_workloads_keep_to_the_budget() {
    const COUNT: usize = 50;
    let cluster = Cluster::without_node().await;
    let names: Vec<String> = (0..COUNT).map(|number| format!("w{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (world, _operator) = World::new(&cluster, json!({"discover": true, "strategy": "AllAtOnce"}), &names, "").await;
    world.settled("100/100").await;
    world.rotate("1").await;
    world.namespace.ready("web", 2).await;
    let mut most = 0;
    let deadline = tokio::time::Instant::now() + 3 * crate::support::PATIENCE;
    loop {
        assert!(tokio::time::Instant::now() < deadline, "not all were begun");
        let all = world.deployments.list(&ListParams::default()).await.unwrap().items;
        let noted = |one: &Deployment| one.annotations().get("restart.seaworthy.dev/secret.web-tls").cloned();
        let begun: Vec<&Deployment> = all.iter().filter(|one| noted(one).is_some()).collect();
        let open = begun.iter().filter(|one| !noted(one).is_some_and(|note| note.ends_with(" done"))).filter(|one| {
            let status = one.status.clone().unwrap_or_default();
            status.observed_generation < one.metadata.generation
                || status.updated_replicas != Some(2)
                || status.available_replicas != Some(2)
                || status.replicas != Some(2)
        });
        most = most.max(open.count());
        if begun.len() == COUNT {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(most, 1, "one at a time in a namespace");
    world.settled("100/100").await;
    for name in names {
        assert_eq!(world.restarts(name).await.0, 1, "{name}");
    }
}

/// What somebody else writes into the Secret, and is put right, is no other certificate for who had started before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_right_restarts_nobody_who_had_it() {
    let cluster = Cluster::without_node().await;
    let (world, _operator) = World::new(&cluster, json!({"discover": true}), &["a"], "").await;
    world.settled("2/2").await;
    let before = world.namespace.text("web-tls", "ca.crt").await;
    world.a_second_later().await;
    let edit = Patch::Merge(json!({"stringData": {"ca.crt": "edited"}}));
    world.namespace.secrets().patch("web-tls", &PatchParams::default(), &edit).await.unwrap();
    eventually("it is put right", || async {
        let now = world.namespace.text("web-tls", "ca.crt").await;
        let secret = world.namespace.secrets().get("web-tls").await.map_err(|error| error.to_string())?;
        let noted = secret.metadata.annotations.unwrap_or_default().get("seaworthy.dev/taken-back").cloned();
        if now == before && noted.is_some() { Ok(()) } else { Err(format!("{noted:?}")) }
    })
    .await;
    world.rotate("1").await;
    world.completed("web").await;
    assert_eq!(world.restarts("a").await.0, 1, "for the next one");
}
