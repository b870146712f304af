//! Who uses what: right whatever happens to the objects and to the connection.

use futures::{StreamExt, stream};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use seaworthy::inventory::{
    Inventory, Key,
    consumers::Consumer,
    pods::{Image, Owner},
    template::Source,
};
use serde_json::{Value, json};

use crate::support::{Cluster, ControlPlane, Namespace, eventually};

/// Numbers that look random and are the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

const NAMES: u64 = 8;
const SOURCES: u64 = 6;

/// One change to one object.
struct Act {
    kind: &'static str,
    name: String,
    what: What,
}

enum What {
    Put(Value),
    Patch(Value),
    Delete,
}

fn resource(kind: &str) -> ApiResource {
    let (group, version) = match kind {
        "Pod" | "ServiceAccount" => ("", "v1"),
        "Job" | "CronJob" => ("batch", "v1"),
        "Ingress" => ("networking.k8s.io", "v1"),
        _ => ("apps", "v1"),
    };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

fn pod_spec(dice: &mut Dice) -> Value {
    let mut name = |prefix: &str| format!("{prefix}{}", dice.below(SOURCES));
    let mut spec = json!({
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "none.example/c:1", "envFrom": [{"secretRef": {"name": name("s"), "optional": true}}],
            "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": name("c"), "key": "a", "optional": true}}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "secret": {"secretName": name("s"), "optional": true}}],
        "serviceAccountName": name("a"),
    });
    if dice.below(3) == 0 {
        spec["imagePullSecrets"] = json!([{"name": format!("s{}", dice.below(SOURCES))}]);
    }
    spec
}

/// What may happen next. `owner` is a Deployment that is there, for adoption.
fn next(dice: &mut Dice, owner: &Value) -> Act {
    const KINDS: &[&str] =
        &["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod", "Pod", "Pod", "ServiceAccount", "Ingress"];
    let kind = KINDS[usize::try_from(dice.below(KINDS.len() as u64)).unwrap()];
    let number = dice.below(NAMES);
    let name = if kind == "ServiceAccount" { format!("a{}", number % SOURCES) } else { format!("{}-{number}", kind.to_lowercase()) };
    let label = dice.below(3).to_string();
    let labels = json!({"app": name});
    let what = match (dice.below(10), kind) {
        (0..=2, kind) if kind != "ServiceAccount" => What::Delete,
        (3..=4, _) => What::Patch(json!({"metadata": {"labels": {"colour": label}}})),
        (5..=6, "Pod") => {
            What::Patch(json!({"metadata": {"ownerReferences": if number.is_multiple_of(2) { json!([owner]) } else { Value::Null }}}))
        }
        (_, "ServiceAccount") => What::Patch(json!({"imagePullSecrets": [{"name": format!("s{}", dice.below(SOURCES))}]})),
        (_, "Ingress") => What::Put(json!({"spec": {"tls": [{"secretName": format!("s{}", dice.below(SOURCES))}],
            "defaultBackend": {"service": {"name": "x", "port": {"number": 80}}}}})),
        (_, "Pod") => What::Put(json!({"spec": pod_spec(dice)})),
        (_, "Job") => {
            let mut spec = pod_spec(dice);
            spec["restartPolicy"] = json!("Never");
            What::Put(json!({"spec": {"template": {"spec": spec}}}))
        }
        (_, "CronJob") => {
            let mut spec = pod_spec(dice);
            spec["restartPolicy"] = json!("Never");
            What::Put(json!({"spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": spec}}}}}))
        }
        (_, _) => {
            let mut spec =
                json!({"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod_spec(dice)}});
            if kind != "DaemonSet" {
                spec["replicas"] = json!(dice.below(3));
            }
            What::Put(json!({ "spec": spec }))
        }
    };
    Act { kind, name, what }
}

/// Does it; whether it changed something. That an object is not there, or does not let that field be changed, is part of the game.
async fn act(cluster: &Cluster, namespace: &str, act: Act) -> bool {
    let resource = resource(act.kind);
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), namespace, &resource);
    let done = match act.what {
        What::Delete => api.delete(&act.name, &DeleteParams::background()).await.map(|_| ()),
        What::Patch(patch) => api.patch(&act.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ()),
        What::Put(mut object) => {
            object["metadata"] = json!({"name": act.name});
            object["apiVersion"] = json!(resource.api_version);
            object["kind"] = json!(resource.kind);
            let created = api.create(&PostParams::default(), &serde_json::from_value(object.clone()).unwrap()).await.map(|_| ());
            match created {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    api.patch(&act.name, &PatchParams::default(), &Patch::Merge(object)).await.map(|_| ())
                }
                created => created,
            }
        }
    };
    match done {
        Ok(()) => true,
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => false,
        Err(error) => panic!("{} {}: {error:?}", act.kind, act.name),
    }
}

/// Everything that the inventory says about a namespace.
#[derive(Debug, PartialEq)]
struct Said {
    consumers: Vec<(String, Vec<Consumer>)>,
    pods: Vec<(String, Vec<String>)>,
    images: Vec<(Key, Image)>,
}

fn said(inventory: &Inventory, namespace: &str) -> Said {
    let sources =
        (0..SOURCES).flat_map(|number| [Source::Secret(format!("s{number}").into()), Source::ConfigMap(format!("c{number}").into())]);
    let consumers = sources.map(|source| (format!("{source:?}"), inventory.consumers(namespace, &source))).collect();
    let pods = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"].into_iter().flat_map(|kind| {
        (0..NAMES).map(move |number| Owner { kind: kind.into(), name: format!("{}-{number}", kind.to_lowercase()).into() })
    });
    let pods = pods
        .map(|owner| {
            let names = inventory.pods_of(namespace, &owner).into_iter().map(|(name, _)| name.to_string()).collect();
            (format!("{owner:?}"), names)
        })
        .collect();
    let mut images = Vec::new();
    inventory.for_each_image(|key, image| {
        if *key.0 == *namespace {
            images.push((key.clone(), image.clone()));
        }
    });
    images.sort();
    Said { consumers, pods, images }
}

/// A list that was made just now.
async fn fresh(cluster: &Cluster, namespace: &Namespace) -> Inventory {
    let inventory = Inventory::default();
    tokio::select! {
        () = inventory.clone().follow(cluster.client.clone(), Some(namespace.name.clone()), |_| {}) => {}
        () = inventory.filled() => {}
    }
    inventory
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-all"]
async fn two_thousand_changes_and_an_api_server_that_is_restarted() {
    const TRIED: usize = 4000; // of which not all are possible
    let (own, cluster) = ControlPlane::start().await;
    let namespace = cluster.namespace("random").await;
    let inventory = Inventory::default();
    let follow = || tokio::spawn(inventory.clone().follow(cluster.operator.clone(), None, |_| {}));
    let mut following = follow();
    inventory.filled().await;
    let mut dice = Dice(0x5eed_cafe);
    for number in 0..SOURCES {
        let account = What::Put(json!({}));
        act(&cluster, &namespace.name, Act { kind: "ServiceAccount", name: format!("a{number}"), what: account }).await;
    }
    let deployments: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &namespace.name, &resource("Deployment"));
    let first = json!({"spec": {"replicas": 1, "selector": {"matchLabels": {"app": "keeper"}}, "template": {"metadata": {"labels": {"app": "keeper"}}, "spec": pod_spec(&mut dice)}}});
    act(&cluster, &namespace.name, Act { kind: "Deployment", name: "keeper".into(), what: What::Put(first) }).await;
    let uid = deployments.get("keeper").await.unwrap().metadata.uid.unwrap();
    let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "keeper", "uid": uid, "controller": true});
    let acts: Vec<Act> = (0..TRIED).map(|_| next(&mut dice, &owner)).collect();
    let mut acts = acts.into_iter();
    let mut changed = 0;
    for part in 0..4 {
        let acts = stream::iter(acts.by_ref().take(TRIED / 4)).map(|one| act(&cluster, &namespace.name, one));
        changed += acts.buffer_unordered(8).filter(|changed| std::future::ready(*changed)).count().await;
        match part {
            0 => {
                own.stop("apiserver");
                own.restart("apiserver");
            }
            // What happens while nothing is watched is not told one by one: it is seen by what the next list holds, and what it does not.
            1 => following.abort(),
            2 => following = follow(),
            _ => {}
        }
    }
    eventually("what is followed is what is there", || async {
        let (followed, listed) = (said(&inventory, &namespace.name), said(&fresh(&cluster, &namespace).await, &namespace.name));
        let differ = followed.consumers.iter().zip(&listed.consumers).find(|(left, right)| left != right);
        if followed == listed { Ok(()) } else { Err(format!("{differ:?}")) }
    })
    .await;
    assert!(changed >= 2000, "{changed} of {TRIED}");
    let all = said(&inventory, &namespace.name);
    assert!(all.consumers.iter().filter(|(_, consumers)| !consumers.is_empty()).count() > 6, "it was about something: {:?}", all.consumers);
    assert!(all.pods.iter().any(|(_, pods)| !pods.is_empty()) && !all.images.is_empty());
    following.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_uses_the_certificate_and_since_when() {
    let (own, cluster) = ControlPlane::start().await;
    let namespace = cluster.namespace("consumers").await;
    let _operator = cluster.operator(&namespace);
    namespace.create("web", json!({})).await;
    let consumers = |summary: &'static str| {
        let namespace = &namespace;
        async move {
            let says = |object: &seaworthy::api::CertificateRotation| {
                object.status.as_ref().and_then(|status| status.consumers.as_ref()).is_some_and(|consumers| consumers.summary == summary)
            };
            namespace.until("web", summary, says).await.status.unwrap().consumers.unwrap()
        }
    };
    consumers("0/0").await;
    // A Deployment with two Pods, and a Pod of its own; a third uses something else.
    let uses = |name: &str| {
        json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "none.example/c:1", "volumeMounts": [{"name": "tls", "mountPath": "/tls"}]}],
            "volumes": [{"name": "tls", "secret": {"secretName": name}}]})
    };
    let labels = json!({"app": "web"});
    let deployment = json!({"spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": uses("web-tls")}}});
    for (kind, name, object) in [
        ("Deployment", "web", deployment),
        ("Pod", "bare", json!({"spec": uses("web-tls")})),
        ("Pod", "other", json!({"spec": uses("other")})),
    ] {
        act(&cluster, &namespace.name, Act { kind, name: name.into(), what: What::Put(object) }).await;
    }
    consumers("3/3").await;
    let (code, table) = crate::cli::seaworthy(&own.kubeconfig, &["consumers", "secret/web-tls", "-n", &namespace.name]);
    assert_eq!(code, 0, "{table}");
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["KIND", "NAME", "HOW", "PODS", "READY", "OLDEST"]);
    assert_eq!(lines[1][..6], ["Deployment", "web", "volume:", "c", "2", "0"], "{table}");
    assert_eq!(lines[2][..5], ["Pod", "bare", "volume:", "c", "1"], "{table}");
    let (code, text) = crate::cli::seaworthy(&own.kubeconfig, &["consumers", "configmap/none", "-n", &namespace.name]);
    assert_eq!((code, text.as_str()), (0, format!("Nothing in namespace {} uses configmap/none.\n", namespace.name).as_str()));
    assert_eq!(crate::cli::seaworthy(&own.kubeconfig, &["consumers", "web-tls"]).0, 2);
    let (_, text) = crate::cli::seaworthy(&own.kubeconfig, &["consumers", "secret/web-tls", "-n", &namespace.name, "-o", "json"]);
    let rows: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(rows[0]["uses"], json!([{"how": "volume", "container": "c", "containerType": "container"}]));

    // A renewal: all of them are older than it.
    namespace.annotate("web", "seaworthy.dev/rotate", "now").await;
    let old = consumers("0/3").await;
    assert_eq!((old.total, old.current, old.stale.len()), (3, 0, 3));
    assert!(old.stale.contains(&"bare".to_owned()), "{:?}", old.stale);
    // One that is made again is younger, as soon as the second is over in which the value changed.
    let annotations = namespace.secrets().get("web-tls").await.unwrap().metadata.annotations.unwrap();
    let changed: jiff::Timestamp = annotations["seaworthy.dev/data-changed-at"].parse().unwrap();
    eventually("the second is over", || async {
        let now = jiff::Timestamp::now();
        if now.as_second() > changed.as_second() { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    act(&cluster, &namespace.name, Act { kind: "Pod", name: "bare".into(), what: What::Delete }).await;
    eventually("the Pod is gone", || async {
        let pods: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &namespace.name, &resource("Pod"));
        if pods.get_opt("bare").await.unwrap().is_none() { Ok(()) } else { Err("it is there".into()) }
    })
    .await;
    act(&cluster, &namespace.name, Act { kind: "Pod", name: "bare".into(), what: What::Put(json!({"spec": uses("web-tls")})) }).await;
    let new = consumers("1/3").await;
    assert!(!new.stale.contains(&"bare".to_owned()), "{:?}", new.stale);
}
