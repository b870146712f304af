//! Objects that nobody in their right mind would write: each gets its own condition, the others go on.

use futures::{StreamExt, stream};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::support::{ControlPlane, Operator, Rotations, condition, eventually};

/// Specs that a schema would refuse, and some that it would not.
fn hostile(number: usize) -> Value {
    let long = "x".repeat(1000 + number);
    let mut deep = json!("bottom");
    for _ in 0..50 {
        deep = json!({ "deeper": deep });
    }
    let valid = || json!({"secretName": format!("s{number}"), "dnsNames": ["a.example"], "issuer": {"selfSigned": {}}});
    let with = |key: &str, value: Value| {
        let mut spec = valid();
        spec[key] = value;
        spec
    };
    match number % 25 {
        0 => json!({}),
        1 => json!("a string"),
        2 => json!([1, 2, 3]),
        3 => deep,
        4 => with("secretName", json!(number)),
        5 => with("dnsNames", json!("not a list")),
        6 => with("dnsNames", json!([number, null, {}])),
        7 => with("duration", json!("999999999999999999h")),
        8 => with("duration", json!(-1)),
        9 => with("duration", json!("1e308s")),
        10 => with("issuer", json!({"selfSigned": {}, "ca": {"secretName": "x"}})),
        11 => with("issuer", json!({"unknown": {"a": long}})),
        12 => with("issuer", json!(null)),
        13 => with("privateKey", json!({"algorithm": "RSA", "size": 1_000_000_000})),
        14 => with("privateKey", json!({"algorithm": long})),
        15 => with("usages", json!(["server auth", "world domination"])),
        16 => with("history", json!(i64::MAX)),
        17 => with("window", json!({"schedule": "* * * * *"})),
        18 => with("schedule", json!(long)),
        19 => with("timeZone", json!("../../../etc/passwd")),
        20 => with("ipAddresses", json!(["::ffff:1.2.3.4.5", long])),
        21 => with("renewBeforePercentage", json!(1.5)),
        22 => with("uris", json!(["\u{0}\u{202e}gpj.exe"])),
        23 => with("secretTemplate", json!({"labels": {"a": {"b": "c"}}})),
        _ => with("outputs", json!({"files": [1]})),
    }
}

/// The CRD without a schema: what an older or a careless one lets in. (Under the real schema the API server refuses even a status for an object
/// of broken types; then the event is what tells.)
async fn loosen_schema(cluster: &crate::support::Cluster, kind: &str) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let mut crd = seaworthy::api::crds().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    crd.spec.versions[0].schema = serde_json::from_value(schema).unwrap();
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let name = crd.metadata.name.clone().unwrap();
    crds.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"versions": crd.spec.versions}}))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-all"]
async fn a_thousand_hostile_objects() {
    const COUNT: usize = 1000;
    let (_own, cluster) = ControlPlane::start().await;
    let namespace = cluster.namespace("hostile").await;
    loosen_schema(&cluster, "CertificateRotation").await;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("seaworthy.dev", "v1alpha1", "CertificateRotation"));
    let raw: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &namespace.name, &kind);
    let object = |number: usize| -> DynamicObject {
        serde_json::from_value(json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "CertificateRotation", "metadata": {"name": format!("h{number}")}, "spec": hostile(number)}))
            .unwrap()
    };
    // The API server takes some seconds until it follows the other schema.
    eventually("the schema is loose", || async {
        raw.create(&PostParams::default(), &object(1)).await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    stream::iter((0..COUNT).filter(|number| *number != 1))
        .for_each_concurrent(32, |number| {
            let (raw, object) = (raw.clone(), object(number));
            async move {
                raw.create(&PostParams::default(), &object).await.unwrap();
            }
        })
        .await;
    let operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    namespace.create("good", json!({})).await;
    namespace.ready("good", 1).await;
    eventually("each has a condition", || async {
        let all = raw.list(&kube::api::ListParams::default()).await.map_err(|error| error.to_string())?;
        let silent: Vec<_> = all
            .items
            .iter()
            .filter(|object| object.data["status"]["conditions"].as_array().is_none_or(Vec::is_empty))
            .map(|object| &object.metadata.name)
            .collect();
        if silent.is_empty() { Ok(()) } else { Err(format!("{} have none, such as {:?}", silent.len(), silent[0])) }
    })
    .await;
    let all = raw.list(&kube::api::ListParams::default()).await.unwrap();
    for object in all.items.iter().filter(|object| object.metadata.name.as_deref().is_some_and(|name| name.starts_with('h'))) {
        let number: usize = object.metadata.name.as_deref().unwrap()[1..].parse().unwrap();
        let ready = object.data["status"]["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == "Ready").unwrap();
        assert_eq!(ready["status"], "False", "{}: {ready}", hostile(number));
        assert!(["Malformed", "InvalidSpec"].contains(&ready["reason"].as_str().unwrap()), "{}: {ready}", hostile(number));
        assert!(ready["message"].as_str().unwrap().len() > 20, "{ready}");
    }
    // One that is corrected keeps nothing of what was said.
    let correct =
        json!([{"op": "replace", "path": "/spec", "value": {"secretName": "h5", "dnsNames": ["a.example"], "issuer": {"selfSigned": {}}}}]);
    raw.patch("h5", &PatchParams::default(), &Patch::<()>::Json(serde_json::from_value(correct).unwrap())).await.unwrap();
    let corrected = namespace.ready("h5", 1).await;
    assert!(condition(&corrected, "Stalled").is_none(), "{:?}", corrected.status);
    assert!(corrected.status.unwrap().last_failure.is_none());
    // And it goes on.
    namespace.annotate("good", "seaworthy.dev/rotate", "now").await;
    let good = namespace.ready("good", 2).await;
    assert!(condition(&good, "Stalled").is_none());
    operator.shut_down().await;
}

/// Of secrets: what cannot be read is told on itself and on who uses it, and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_told_and_the_others_go_on() {
    let (_own, cluster) = ControlPlane::start().await;
    let namespace = cluster.namespace("malformed").await;
    let (rotations, mut kinds) = (Rotations(&namespace), Vec::new());
    for kind in ["SecretRotation", "SecretStore"] {
        loosen_schema(&cluster, kind).await;
        kinds.push(ApiResource::from_gvk(&GroupVersionKind::gvk("seaworthy.dev", "v1alpha1", kind)));
    }
    let of_namespace: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &namespace.name, &kinds[0]);
    let of_cluster: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &kinds[1]);
    let create = async |api: &Api<DynamicObject>, kind: &str, name: &str, spec: Value| {
        let object = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        // The API server takes some seconds until it follows the other schema.
        eventually("the schema is loose", || async {
            api.create(&PostParams::default(), &object).await.map(|_| ()).map_err(|error| error.to_string())
        })
        .await;
    };
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "k"}}]);
    let memory = json!({"memory": {"data": {"k": "v"}}});
    let bad = [
        ("number", json!({"target": 5})),
        ("interval", json!({"target": {"name": "t"}, "store": memory, "data": data, "refreshInterval": "soon"})),
        ("store", json!({"target": {"name": "t"}, "store": {"nonsense": {}}, "data": data})),
        ("list", json!({"target": {"name": "t"}, "store": memory, "data": {"secretKey": "x"}})),
    ];
    for (name, spec) in &bad {
        create(&of_namespace, "SecretRotation", name, spec.clone()).await;
    }
    create(&of_cluster, "SecretStore", "bad", json!({"allowedNamespaces": {}, "vault": {"server": 5}})).await;
    let operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    rotations.create("good", json!({"target": {"name": "good"}, "store": memory, "data": data})).await;
    rotations.ready("good", 1).await;
    rotations.create("user", json!({"target": {"name": "user"}, "storeRef": {"name": "bad"}, "data": data})).await;
    let told = async |api: &Api<DynamicObject>, name: &str, wanted: &str| {
        eventually(&format!("{name} is told"), || async {
            let object = api.get(name).await.map_err(|error| error.to_string())?;
            let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap_or_default();
            let told =
                ready["status"] == "False" && ready["reason"] == wanted && ready["message"].as_str().is_some_and(|text| text.len() > 20);
            if told { Ok(()) } else { Err(ready.to_string()) }
        })
        .await;
    };
    for (name, _) in &bad {
        told(&of_namespace, name, "Malformed").await;
    }
    told(&of_cluster, "bad", "Malformed").await;
    told(&of_namespace, "user", "StoreInvalid").await;
    // It goes on, and one that is corrected is as any other.
    rotations.change("good", json!({"store": {"memory": {"data": {"k": "w"}}}})).await;
    rotations.ready("good", 2).await;
    rotations.change("interval", json!({"target": {"name": "interval"}, "refreshInterval": "1h"})).await;
    rotations.ready("interval", 1).await;
    operator.shut_down().await;
}
