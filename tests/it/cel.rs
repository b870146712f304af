//! What the API server itself accepts and refuses: schema and CEL rules, asked on the real thing.

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use seaworthy::api::SecretStore;
use serde_json::{Value, json};

use crate::support::{Cluster, Rotations};

#[tokio::test]
async fn accepted() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("accept").await;
    let rows: Vec<Value> = vec![
        json!({}),
        json!({"dnsNames": ["*.a.example", "a.example", "under_score.example"], "ipAddresses": ["10.0.0.1", "::1"], "uris": ["spiffe://x/y"], "emailAddresses": ["a@b.example"]}),
        json!({"dnsNames": null, "commonName": "only a name"}),
        json!({"dnsNames": null, "ipAddresses": ["192.0.2.1"]}),
        json!({"duration": "1h"}),
        json!({"duration": "2160h", "renewBefore": "720h"}),
        json!({"renewBeforePercentage": 33}),
        json!({"schedule": "0 2 1 * *", "timeZone": "Europe/Berlin"}),
        json!({"window": {"schedule": "0 1 * * 6,0", "duration": "4h"}}),
        json!({"privateKey": {"algorithm": "RSA", "size": 3072, "encoding": "PKCS1"}}),
        json!({"privateKey": {"algorithm": "ECDSA", "size": 521}}),
        json!({"privateKey": {"algorithm": "Ed25519"}}),
        json!({"issuer": {"ca": {"secretName": "ca"}}}),
        json!({"issuer": null, "issuerRef": {"name": "internal"}}),
        json!({"isCA": true, "commonName": "CA", "nameConstraints": {"permitted": {"dnsDomains": ["a.example"], "ipRanges": ["10.0.0.0/8"]}}}),
        json!({"usages": ["digital signature", "client auth", "server auth", "s/mime"]}),
        json!({"outputs": {"combinedPem": {}, "files": {"certificate": "cert.pem"}}}),
        json!({"secretTemplate": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}),
        json!({"history": 0, "creationPolicy": "Owner", "suspend": true}),
        json!({"restart": {"discover": true}}),
        json!({"restart": {"workloads": [{"kind": "DaemonSet", "name": "a"}], "strategy": "AllAtOnce", "timeout": "5m", "onFailure": "Pause"}}),
        json!({"verify": {"discover": true}}),
        json!({"verify": {"tls": {"address": "db.shop.svc.cluster.local:5432", "startTls": "postgres", "clientSecretName": "client", "serverName": "db"}}}),
        json!({"verify": {"tls": {"address": "10.0.0.1:443", "timeout": "24h"}}}),
        json!({"subject": {"organizations": ["A", "B"], "countries": ["DE"], "serialNumber": "1"}}),
    ];
    for (number, spec) in rows.into_iter().enumerate() {
        if let Err(error) = namespace.try_create(&format!("a{number}"), spec.clone()).await {
            panic!("{spec}: {error}");
        }
    }
}

#[tokio::test]
async fn refused() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("refuse").await;
    let long = "a".repeat(64);
    let rows: Vec<(Value, &str)> = vec![
        (json!({"restart": {"discover": true, "timeout": "25h"}}), "timeout must lie between 1s and 24h"),
        (json!({"restart": {"discover": true, "onFailure": "Ignore"}}), "spec.restart.onFailure"),
        (json!({"verify": {}}), "say either tls or discover: true"),
        (json!({"verify": {"discover": true, "tls": {"address": "a:443"}}}), "say either tls or discover: true"),
        (json!({"verify": {"tls": {"address": "a:443", "timeout": "0s"}}}), "timeout must lie between 1s and 24h"),
        (json!({"verify": {"tls": {"address": "https://a:443"}}}), "spec.verify.tls.address"),
        (json!({"verify": {"tls": {"address": "a"}}}), "spec.verify.tls.address"),
        (json!({"verify": {"tls": {"address": "a:0"}}}), "spec.verify.tls.address"),
        (json!({"verify": {"tls": {"address": "a:443", "startTls": "imap"}}}), "spec.verify.tls.startTls"),
        (json!({"restart": {}}), "say discover: true, or name workloads"),
        (json!({"restart": {"workloads": [{"kind": "Pod", "name": "a"}]}}), "spec.restart.workloads[0].kind"),
        (json!({"restart": {"discover": true, "strategy": "Randomly"}}), "spec.restart.strategy"),
        (json!({"issuer": null}), "set exactly one of issuer and issuerRef"),
        (json!({"issuerRef": {"name": "x"}}), "set exactly one of issuer and issuerRef"),
        (json!({"issuer": {}}), "issuer"),
        (json!({"issuer": {"selfSigned": {}, "ca": {"secretName": "x"}}}), "issuer"),
        (json!({"issuer": {"letsencrypt": {}}}), "letsencrypt"),
        (json!({"dnsNames": null}), "name at least one subject"),
        (json!({"dnsNames": []}), "name at least one subject"),
        (json!({"dnsNames": ["not a name"]}), "spec.dnsNames[0]"),
        (json!({"dnsNames": ["-a.example"]}), "spec.dnsNames[0]"),
        (json!({"dnsNames": ["a.*.example"]}), "spec.dnsNames[0]"),
        (json!({"ipAddresses": ["10.0.0.256"]}), "must be an IPv4 or IPv6 address"),
        (json!({"uris": ["no uri"]}), "spec.uris[0]"),
        (json!({"commonName": format!("{long}a")}), "spec.commonName"),
        (json!({"duration": "59m"}), "duration must be at least 1h"),
        (json!({"duration": "90d"}), "spec.duration"),
        (json!({"duration": "-1h"}), "spec.duration"),
        (json!({"duration": ""}), "spec.duration"),
        (json!({"renewBefore": "720h", "renewBeforePercentage": 10}), "at most one of renewBefore and renewBeforePercentage"),
        (json!({"duration": "10h", "renewBefore": "10h"}), "shorter than duration"),
        (json!({"renewBefore": "1m"}), "at least 5m"),
        (json!({"renewBeforePercentage": 0}), "renewBeforePercentage"),
        (json!({"renewBeforePercentage": 100}), "renewBeforePercentage"),
        (json!({"window": {"schedule": "0 1 * * *", "duration": "30s"}}), "between 1m and 168h"),
        (json!({"window": {"duration": "1h"}}), "spec.window.schedule"),
        (json!({"privateKey": {"algorithm": "RSA", "size": 1024}}), "size must be"),
        (json!({"privateKey": {"algorithm": "ECDSA", "size": 2048}}), "size must be"),
        (json!({"privateKey": {"algorithm": "Ed25519", "size": 256}}), "size must be"),
        (json!({"privateKey": {"algorithm": "Ed25519", "encoding": "PKCS1"}}), "has no PKCS1 encoding"),
        (json!({"privateKey": {"algorithm": "DSA"}}), "spec.privateKey.algorithm"),
        (json!({"privateKey": {"rotationPolicy": "Sometimes"}}), "spec.privateKey.rotationPolicy"),
        (json!({"usages": ["everything"]}), "spec.usages[0]"),
        (json!({"history": 2}), "spec.history"),
        (json!({"history": -1}), "spec.history"),
        (json!({"creationPolicy": "Merge"}), "spec.creationPolicy"),
        (json!({"secretName": "Upper"}), "spec.secretName"),
        (json!({"secretName": "a".repeat(245)}), "spec.secretName"),
        (json!({"isCA": true, "commonName": null}), "a CA needs a subject"),
        (json!({"nameConstraints": {"permitted": {"dnsDomains": ["a"]}}}), "nameConstraints need isCA"),
        (json!({"isCA": true, "commonName": "CA", "nameConstraints": {"permitted": {"ipRanges": ["10.0.0.0"]}}}), "CIDR notation"),
        (json!({"outputs": {"combinedPem": {"key": "tls.crt"}}}), "keep their meaning"),
        (json!({"outputs": {"files": {"ca": "tls.key"}}}), "keep their meaning"),
        (json!({"outputs": {"files": {"certificate": "same", "ca": "same"}}}), "different"),
        (json!({"outputs": {"combinedPem": {"key": "same"}, "files": {"certificate": "same"}}}), "different"),
        (json!({"secretTemplate": {"labels": {"seaworthy.dev/owner": "x"}}}), "reserved"),
        (json!({"secretTemplate": {"labels": {"a": "b c"}}}), "the value of a label"),
        (json!({"secretTemplate": {"annotations": {"seaworthy.dev/revision": "9"}}}), "reserved"),
        (json!({"typo": true}), "typo"),
        (json!({"subject": {"countries": ["Germany"]}}), "spec.subject.countries[0]"),
    ];
    for (spec, said) in rows {
        match namespace.try_create("refused", spec.clone()).await {
            Ok(_) => panic!("accepted: {spec}"),
            Err(error) => assert!(error.to_string().contains(said), "{spec}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_new_object_is_in_progress_until_it_was_looked_at() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("fresh").await;
    let created = namespace.create("fresh", json!({})).await;
    assert_eq!(created.status.unwrap().observed_generation, Some(-1));
}

#[tokio::test]
async fn refused_of_values() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("refused").await;
    let rotations = Rotations(&namespace);
    let generate = json!([{"secretKey": "a", "hex": {}}]);
    let memory = json!({"memory": {}});
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "k"}}]);
    for (spec, wanted) in [
        (json!({"target": {"name": "t"}}), "say what to do"),
        (json!({"target": {"name": "t"}, "data": data}), "need a store"),
        (json!({"target": {"name": "t"}, "data": data, "store": memory, "storeRef": {"name": "s"}}), "at most one of store and storeRef"),
        (json!({"target": {"name": "t", "immutable": true}, "data": data, "store": memory}), "CreatedOnce"),
        (json!({"target": {"name": "t"}, "data": data, "store": memory, "refreshInterval": "5s"}), "at least 10s"),
        (
            json!({"target": {"name": "t", "type": "kubernetes.io/service-account-token"}, "data": data, "store": memory}),
            "filled by Kubernetes itself",
        ),
        (json!({"target": {"name": "t"}, "rotation": {"generate": generate}, "template": {"data": {"a": "b"}}}), "mergePolicy: Merge"),
        (
            json!({"target": {"name": "t"}, "rotation": {"generate": generate, "every": "1h", "schedule": "0 0 1 * *"}}),
            "at most one of every and schedule",
        ),
        (json!({"target": {"name": "t"}, "rotation": {"generate": [generate[0], generate[0]]}}), "once"),
        (
            json!({"target": {"name": "t"}, "store": memory, "rotation": {"generate": generate, "push": [{"secretKey": "b", "remoteRef": {"key": "k"}}]}}),
            "not under rotation.generate",
        ),
        (json!({"target": {"name": "t"}, "rotation": {"generate": [{"secretKey": "a"}]}}), "spec.rotation.generate[0]"),
        (
            json!({"target": {"name": "t"}, "rotation": {"generate": [{"secretKey": "a", "hex": {}, "uuid": {}}]}}),
            "spec.rotation.generate[0]",
        ),
        (
            json!({"target": {"name": "t"}, "rotation": {"generate": [{"secretKey": "a", "password": {"length": 12, "minimumPerClass": 5}}]}}),
            "length must be at least",
        ),
        (json!({"target": {"name": "t"}, "rotation": {"generate": generate, "previous": {"keepFor": "48h", "maxKeep": "24h"}}}), "maxKeep"),
        (json!({"target": {"name": "t"}, "rotation": {"generate": generate}, "refreshPolicy": "CreatedOnce"}), "exclude each other"),
        (
            json!({"target": {"name": "t"}, "store": memory, "push": [{"secretKey": "a", "remoteRef": {"key": "k"}}]}),
            "say target.creationPolicy: Merge",
        ),
        (
            json!({"target": {"name": "t"}, "store": memory, "push": [{"secretKey": "a", "remoteRef": {"key": "k"}}],
                "rotation": {"generate": generate, "push": [{"secretKey": "a", "remoteRef": {"key": "k"}}]}}),
            "pushed already",
        ),
        (
            json!({"target": {"name": "t", "type": "a/b"}, "store": memory, "data": data, "template": {"type": "c/d"}}),
            "target.type or template.type",
        ),
        (
            json!({"target": {"name": "t", "creationPolicy": "Merge", "deletionPolicy": "Delete"}, "store": memory, "data": data}),
            "somebody else's",
        ),
        (
            json!({"target": {"name": "t"}, "rotation": {"generate": [generate[0], {"secretKey": "a.pub", "hex": {}}]}}),
            "what is public of KEY",
        ),
        (
            json!({"target": {"name": "t"}, "rotation": {"generate": [generate[0], {"secretKey": "a-previous", "hex": {}}], "previous": {}}}),
            "where the previous value stands",
        ),
        (json!({"target": {"name": "t"}, "rotation": {"generate": generate, "previous": {"suffix": ".pub"}}}), "another previous.suffix"),
        (json!({"target": {"name": "t"}, "rotation": {"generate": generate, "every": "30s"}}), "at least 1m"),
        (
            json!({"target": {"name": "t"}, "rotation": {"generate": generate, "every": "12h", "previous": {}}}),
            "every must not be shorter than previous.keepFor",
        ),
        (
            json!({"target": {"name": "t"}, "data": data, "store": {"vault": {"server": "https://v.example", "caBundle": "a", "caSecretRef": {"name": "a", "key": "b"},
                "auth": {"token": {"secretRef": {"name": "a", "key": "b"}}}}}}),
            "at most one of caBundle and caSecretRef",
        ),
        (
            json!({"target": {"name": "t"}, "data": data, "store": {"vault": {"server": "https://v.example", "auth": {"appRole":
                {"roleId": "r", "secretRef": {"name": "a", "key": "b"}, "rotateSecretId": {"every": "720h"}}}}}}),
            "of a SecretStore only",
        ),
        (
            json!({"target": {"name": "t"}, "data": data, "store": {"oci": {"region": "eu-frankfurt-1", "vault": "v", "auth": {"instancePrincipal": {}}}}}),
            "needs a SecretStore",
        ),
        (json!({"target": {"name": "t"}, "data": data, "store": {}}), "spec.store"),
        (json!({"target": {"name": "t"}, "data": data, "store": {"memory": {}, "kubernetes": {}}}), "spec.store"),
        (
            json!({"target": {"name": "t"}, "store": memory, "dataFrom": [{"find": {}, "extract": {"key": "k"}}]}),
            "exactly one of extract and find",
        ),
        (
            json!({"target": {"name": "t"}, "store": memory, "dataFrom": [{"find": {"tags": {"a": "x".repeat(257)}}}]}),
            "may not be more than 256",
        ),
        (
            json!({"target": {"name": "t"}, "store": memory, "dataFrom": [{"find": {"tags": {"a".repeat(318): "x"}}}]}),
            "longer names than 317",
        ),
    ] {
        let refused = rotations.try_create("refused", spec.clone()).await.map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(wanted), "{spec}: {refused}");
    }
}

#[tokio::test]
async fn refused_of_keys_and_texts() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("keys").await;
    let rotations = Rotations(&namespace);
    let (memory, data) = (json!({"memory": {}}), json!([{"secretKey": "x", "remoteRef": {"key": "k"}}]));
    for (spec, wanted) in [
        (
            json!({"target": {"name": "t"}, "data": data, "store": {"aws": {"region": "us-east-1", "externalID": "xy", "auth":
                {"secretRef": {"accessKeyID": {"name": "a", "key": "b"}, "secretAccessKey": {"name": "a", "key": "b"}}}}}}),
            "externalID is for a role",
        ),
        (
            json!({"target": {"name": "t", "creationPolicy": "Merge"}, "store": memory, "push": [{"secretKey": "a", "remoteRef": {"key": "k"}}], "template": {"data": {"x": "y"}}}),
            "with push alone leave them out",
        ),
        (
            json!({"target": {"name": "t", "creationPolicy": "Merge"}, "store": memory, "data": data, "template": {"type": "c/d"}}),
            "leave template.type out",
        ),
        (
            json!({"target": {"name": "t"}, "store": memory, "data": data, "template": {"type": "bootstrap.kubernetes.io/token"}}),
            "filled by Kubernetes itself",
        ),
        (json!({"target": {"name": "t"}, "store": memory, "data": data, "template": {"data": {"a/b": "x"}}}), "a key of a Secret holds"),
        (json!({"target": {"name": "t"}, "store": memory, "data": data, "template": {"data": {"..a": "x"}}}), "a key of a Secret holds"),
        (json!({"target": {"name": "t"}, "store": memory, "data": [{"secretKey": "..a", "remoteRef": {"key": "k"}}]}), "secretKey"),
        (json!({"target": {"name": "t"}, "store": memory, "data": [{"secretKey": ".", "remoteRef": {"key": "k"}}]}), "secretKey"),
        (json!({"target": {"name": "t"}, "store": memory, "data": data, "refreshInterval": "1d"}), "a day is 24h"),
        (
            json!({"target": {"name": "t"}, "rotation": {"generate": [{"secretKey": "a", "hex": {}}], "schedule": "0 3 * *"}}),
            "write five fields",
        ),
        (
            json!({"target": {"name": "t"}, "rotation": {"generate": [{"secretKey": "a", "hex": {}}], "schedule": "@monthly"}}),
            "write five fields",
        ),
        (
            json!({"target": {"name": "t"}, "rotation": {"generate": [{"secretKey": "a", "sshKey": {"algorithm": "Ed25519", "size": 2048}}]}}),
            "size",
        ),
        (
            json!({"target": {"name": "t"}, "rotation": {"generate": [{"secretKey": "a", "rsaKey": {"size": 1024}}]}}),
            "size must be 2048, 3072 or 4096",
        ),
        (json!({"target": {"name": "t"}, "rotation": {"generate": [{"secretKey": "a", "ecdsaKey": {"size": 255}}]}}), "size must be"),
    ] {
        let refused = rotations.try_create("refused", spec.clone()).await.map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(wanted), "{spec}: {refused}");
    }
}

#[tokio::test]
async fn refused_of_stores() {
    let cluster = Cluster::shared().await;
    let stores: Api<SecretStore> = Api::all(cluster.client.clone());
    let role = json!({"roleId": "r", "secretRef": {"name": "a", "key": "b"}, "rotateSecretId": {"every": "59m"}});
    for (spec, wanted) in [
        (json!({}), "spec"),
        (json!({"memory": {}, "env": {}}), "spec"),
        (json!({"kubernetes": {}}), "say which namespace's Secrets are given out"),
        (
            json!({"kubernetes": {"server": {"url": "https://a.example", "auth": {"token": {"secretRef": {"name": "a", "key": "b"}}}}}}),
            "say which namespace's Secrets are given out",
        ),
        (json!({"kubernetes": {"namespace": "a", "server": {"url": "http://a.example", "auth": {}}}}), "spec.kubernetes.server.url"),
        (json!({"vault": {"server": "https://v.example", "auth": {"appRole": role}}}), "every must be at least 1h"),
        (json!({"vault": {"server": "https://v.example", "auth": {}}}), "spec.vault.auth"),
        (json!({"aws": {"region": "us-east-1", "externalID": "xy", "auth": {"ambient": {}}}}), "externalID is for a role"),
        (json!({"file": {"path": "relative"}}), "spec.file.path"),
        (json!({"allowedNamespaces": {"matchLabels": {"a": 1}}, "memory": {}}), "matchLabels"),
    ] {
        let object = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretStore", "metadata": {"name": "refused"}, "spec": spec});
        let refused =
            stores.patch("refused", &PatchParams::apply("test"), &Patch::Apply(object)).await.map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(wanted), "{spec}: {refused}");
    }
}

/// Where two would write the same key of a Secret, or the same place of a store.
#[tokio::test]
async fn refused_of_generated_keys() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("generated").await;
    let rotations = Rotations(&namespace);
    let (generate, memory) = (json!([{"secretKey": "a", "hex": {}}]), json!({"memory": {}}));
    let to = |name: &str, key: &str, property: Value| {
        let mut reference = json!({"key": key});
        if !property.is_null() {
            reference["property"] = property;
        }
        json!({"secretKey": name, "remoteRef": reference})
    };
    // One value for two places, and two members of one.
    let pushes = json!([to("a", "k", json!("p")), to("a", "l", Value::Null), to("b", "k", json!("q"))]);
    let spec = json!({"target": {"name": "good"}, "store": memory, "rotation": {"generate": [generate[0], {"secretKey": "b", "hex": {}}], "push": pushes}});
    rotations.create("good", spec).await;
    // What somebody else has made is called as they please.
    let theirs =
        json!({"target": {"name": "their-previous", "creationPolicy": "Merge"}, "store": memory, "push": [to("a", "k", json!("p"))]});
    rotations.create("theirs", theirs).await;
    for (spec, wanted) in [
        (json!({"target": {"name": "t-rejected"}, "rotation": {"generate": generate}}), "what the Secrets beside a target are called"),
        (json!({"target": {"name": "t-pending"}, "rotation": {"generate": generate}}), "what the Secrets beside a target are called"),
        (json!({"target": {"name": "t-previous"}, "rotation": {"generate": generate}}), "what the Secrets beside a target are called"),
        (
            json!({"target": {"name": "t"}, "rotation": {"generate": generate}, "template": {"data": {"a": "{{ a }}"}, "mergePolicy": "Merge"}}),
            "the value itself stands there",
        ),
        (
            json!({"target": {"name": "t"}, "rotation": {"generate": generate, "previous": {}}, "template": {"data": {"a-previous": "x"}, "mergePolicy": "Merge"}}),
            "the value itself stands there",
        ),
        (
            json!({"target": {"name": "t"}, "store": memory, "data": [{"secretKey": "a", "remoteRef": {"key": "k"}}], "rotation": {"generate": generate}}),
            "the store would take each new value back",
        ),
        (
            json!({"target": {"name": "t"}, "store": memory, "data": [{"secretKey": "a", "remoteRef": {"key": "k"}}],
                "rotation": {"generate": generate, "push": [{"secretKey": "a", "remoteRef": {"key": "other"}}]}}),
            "the store would take each new value back",
        ),
        (
            json!({"target": {"name": "t"}, "store": memory, "data": [{"secretKey": "a", "remoteRef": {"key": "k", "property": "x"}}],
                "rotation": {"generate": generate, "push": [{"secretKey": "a", "remoteRef": {"key": "k", "property": "y"}}]}}),
            "the store would take each new value back",
        ),
        (
            json!({"target": {"name": "t"}, "store": memory, "data": [{"secretKey": "a", "remoteRef": {"key": "k", "version": "1"}}],
                "rotation": {"generate": generate, "push": [{"secretKey": "a", "remoteRef": {"key": "k"}}]}}),
            "the store would take each new value back",
        ),
        // Two values for one place.
        (
            json!({"target": {"name": "t"}, "store": memory, "rotation": {"generate": [generate[0], {"secretKey": "b", "hex": {}}], "push": [to("a", "k", json!("p")), to("b", "k", json!("p"))]}}),
            "rotation.push writes two values to one place",
        ),
        (
            json!({"target": {"name": "t"}, "store": memory, "rotation": {"generate": [generate[0], {"secretKey": "b", "hex": {}}], "push": [to("a", "k", json!("p")), to("b", "k", Value::Null)]}}),
            "rotation.push writes two values to one place",
        ),
        (
            json!({"target": {"name": "t", "creationPolicy": "Merge"}, "store": memory, "push": [to("a", "k", Value::Null), to("b", "k", Value::Null)]}),
            "push writes two values to one place",
        ),
        (
            json!({"target": {"name": "t", "creationPolicy": "Merge"}, "store": memory, "push": [to("b", "k", json!("p"))], "rotation": {"generate": generate, "push": [to("a", "k", json!("p"))]}}),
            "push and rotation.push write to one place",
        ),
        (
            json!({"target": {"name": "t"}, "store": memory, "data": [{"secretKey": "a-previous", "remoteRef": {"key": "k"}}], "rotation": {"generate": generate, "previous": {}}}),
            "the previous value stands there",
        ),
    ] {
        let refused = rotations.try_create("refused", spec.clone()).await.map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(wanted), "{spec}: {refused}");
    }
}
