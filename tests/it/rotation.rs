//! Values that are generated, replaced, pushed back, and the ones before them.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use seaworthy::api::SecretRotation;
use serde_json::{Value, json};

use crate::{
    support::{Cluster, Namespace, Rotations, Vault, eventually, keeps_previous, said},
    vault::{POLICY, by_role},
};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// A generated key, pushed to the Secret `remote`, the one before kept for a day.
pub fn spec() -> Value {
    json!({
        "target": {"name": "jwt"}, "store": {"kubernetes": {}},
        "rotation": {
            "every": "2160h",
            "generate": [{"secretKey": "key", "hex": {"bytes": 32}}],
            "previous": {"keepFor": "24h", "maxKeep": "168h"},
            "push": [{"secretKey": "key", "remoteRef": {"key": "remote", "property": "jwt"}}],
        },
    })
}

/// It was generated, it is the same in the store, and nothing is on its way.
pub async fn settled(namespace: &Namespace, revision: i64) -> String {
    let rotations = Rotations(namespace);
    rotations.ready("jwt", revision).await;
    let here = rotations.data("jwt").await["key"].clone();
    eventually("the store has it", || async {
        let there = namespace.secrets().get_opt("remote").await.map_err(|error| error.to_string())?;
        let same = there.and_then(|secret| secret.data).is_some_and(|data| data.get("jwt").is_some_and(|value| value.0 == here.as_bytes()));
        if same { Ok(()) } else { Err("it has another, or none".into()) }
    })
    .await;
    eventually("nothing is pending", || async {
        let pending = namespace.secrets().get_opt("jwt-pending").await.map_err(|error| error.to_string())?;
        pending.map_or(Ok(()), |_| Err("it is there".into()))
    })
    .await;
    here
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_generated_pushed_rotated_and_the_one_before_goes_in_time() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("rotated").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    rotations.create("jwt", spec()).await;
    let first = settled(&namespace, 1).await;
    assert_eq!(first.len(), 64);
    let object = rotations.ready("jwt", 1).await;
    let status = object.status.unwrap();
    assert!(status.next_rotation_time.unwrap().0 > status.last_rotation_time.unwrap().0 + HOUR * 2100);

    rotations.ask("jwt", "rotate", "1").await;
    let second = settled(&namespace, 2).await;
    assert_ne!(first, second);
    assert_eq!(rotations.data("jwt").await["key-previous"], first);
    assert!(rotations.ready("jwt", 2).await.status.unwrap().previous_kept_until.is_some());

    // When its time is up, it goes; that is no new revision, as nobody has to do anything about it.
    operator.clock.advance(HOUR * 25);
    rotations.ask("jwt", "look", "1").await;
    eventually("the one before is gone", || async {
        let data = rotations.data("jwt").await;
        if data.contains_key("key-previous") { Err(format!("{:?}", data.keys())) } else { Ok(()) }
    })
    .await;
    assert_eq!(settled(&namespace, 2).await, second);

    // Due by itself.
    operator.clock.advance(HOUR * 2160);
    rotations.ask("jwt", "look", "2").await;
    let third = settled(&namespace, 3).await;
    assert_ne!(second, third);
    for reason in ["Missing", "Requested", "RotationDue"] {
        namespace.told(reason, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_is_done_without_anybody_asking() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("due").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let generate = json!([{"secretKey": "key", "hex": {}}]);
    let rotation = json!({"every": "24h", "generate": generate, "previous": {"keepFor": "1h"}});
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "rotation": rotation})).await;
    // A look that comes three seconds before finds nothing to be done, and sees to it that the next one comes in time.
    let shortly_before = async |time: Option<Time>, what: &str| {
        operator.clock.advance(time.expect(what).0.duration_since(operator.clock.now()) - jiff::SignedDuration::from_secs(3));
        rotations.ask("jwt", "look", what).await;
    };
    let status = rotations.ready("jwt", 1).await.status.unwrap();
    shortly_before(status.next_rotation_time, "every").await;
    let status = rotations.ready("jwt", 2).await.status.unwrap();
    assert!(rotations.data("jwt").await.contains_key("key-previous"));
    shortly_before(status.previous_kept_until, "keepFor").await;
    eventually("the one before is gone", || async {
        let data = rotations.data("jwt").await;
        if data.contains_key("key-previous") { Err(format!("{:?}", data.keys())) } else { Ok(()) }
    })
    .await;
    // By a schedule, and in a window that opens later than that.
    let window = json!({"schedule": "30 4 * * *", "duration": "1h"});
    rotations.change("jwt", json!({"rotation": {"every": null, "schedule": "0 3 * * *", "window": window}})).await;
    let later = |object: &seaworthy::api::SecretRotation| {
        let next = object.status.as_ref().and_then(|status| status.next_rotation_time.clone());
        next.is_some_and(|next| next.0.to_string().contains("T04:30:00"))
    };
    let status = rotations.until("jwt", "it is due when the window opens", later).await.status.unwrap();
    shortly_before(status.next_rotation_time, "window").await;
    rotations.ready("jwt", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_that_the_store_has_is_taken_over_and_a_newer_one_is_not_lost() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("adopted").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    namespace.secret("theirs", "Opaque", &[("jwt", "theirs"), ("other", "o")]).await;
    let mut spec = spec();
    spec["data"] = json!([{"secretKey": "key", "remoteRef": {"key": "theirs", "property": "jwt"}}, {"secretKey": "other", "remoteRef": {"key": "theirs", "property": "other"}}]);
    spec["rotation"]["push"][0]["remoteRef"]["key"] = json!("theirs");
    rotations.create("jwt", spec.clone()).await;
    rotations.ready("jwt", 1).await;
    assert_eq!(rotations.data("jwt").await["key"], "theirs", "nobody is given a new value for nothing");
    // A Secret of somebody else is not written to; that is said, and everything stays.
    rotations.ask("jwt", "rotate", "1").await;
    let message = rotations.says("jwt", "Stalled", "True", "StoreDenied").await;
    assert!(message.contains("theirs belongs to somebody else"), "{message}");
    assert_eq!(rotations.data("jwt").await["key"], "theirs");
    // In the middle somebody puts another value into the store: it is not overwritten.
    spec["data"] = json!([]);
    spec["rotation"]["push"][0]["remoteRef"]["key"] = json!("remote");
    rotations.change("jwt", json!({"data": null, "rotation": spec["rotation"]})).await;
    settled(&namespace, 2).await;
    operator.clock.advance(HOUR * 25);
    rotations.ask("jwt", "look", "1").await;
    rotations.until("jwt", "the one before is over", |object| !keeps_previous(object)).await;
    operator.failpoint.arm("push", false, None);
    rotations.ask("jwt", "rotate", "2").await;
    operator.failpoint.reached().await;
    rotations.edit("remote", json!({"jwt": "newer"})).await;
    operator.failpoint.release();
    let message = rotations.says("jwt", "Ready", "False", "StoreConflict").await;
    assert!(message.contains("somebody else has put another value there") && !message.contains("newer\""), "{message}");
    assert_eq!(rotations.data("remote").await["jwt"], "newer");
    // Who gives the new value up gets the newer one.
    namespace.delete_secret("jwt-pending").await;
    rotations.until("jwt", "the newer one", |object| said(object, "Ready").is_some_and(|(status, ..)| status == "True")).await;
    eventually("it is there", || async {
        let data = rotations.data("jwt").await;
        if data["key"] == "newer" || data.get("key-previous").is_some_and(|value| value == "newer") {
            Ok(())
        } else {
            Err(format!("{data:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_has_a_new_value_before_anybody_uses_it() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("order").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    rotations.create("jwt", spec()).await;
    let first = settled(&namespace, 1).await;
    let now = async || (rotations.data("remote").await["jwt"].clone(), rotations.data("jwt").await["key"].clone());
    operator.failpoint.arm("push", false, None);
    rotations.ask("jwt", "rotate", "1").await;
    operator.failpoint.reached().await;
    let pending = rotations.data("jwt-pending").await["key"].clone();
    assert_eq!(now().await, (first.clone(), first.clone()), "before the store it is noted in the cluster");
    operator.failpoint.arm("store", false, None);
    operator.failpoint.release();
    operator.failpoint.reached().await;
    assert_eq!(now().await, (pending.clone(), first), "the Secret comes after the store");
    operator.failpoint.release();
    assert_eq!(settled(&namespace, 2).await, pending);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_value_that_no_store_has() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("unstored").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let generate = json!([{"secretKey": "password", "password": {"length": 20}}, {"secretKey": "id", "uuid": {}}]);
    let template = json!({"mergePolicy": "Merge", "data": {"url": "redis://:{{ password | urlencode }}@r"}});
    rotations
        .create(
            "jwt",
            json!({"target": {"name": "jwt", "creationPolicy": "Orphan"}, "rotation": {"generate": generate}, "template": template}),
        )
        .await;
    let object = rotations.ready("jwt", 1).await;
    assert_eq!(object.status.unwrap().source.as_deref(), Some("generated"));
    let first = rotations.data("jwt").await;
    assert_eq!(first["url"], format!("redis://:{}@r", first["password"]));
    // Edited, it cannot be restored: that is said, and it is left as it is until the next rotation.
    rotations.edit("jwt", json!({"password": "edited"})).await;
    let message = rotations.says("jwt", "Stalled", "True", "Modified").await;
    assert!(message.contains("\"password\"") && !message.contains("edited;"), "{message}");
    assert_eq!(rotations.data("jwt").await["password"], "edited");
    rotations.ask("jwt", "rotate", "1").await;
    rotations.ready("jwt", 2).await;
    let second = rotations.data("jwt").await;
    assert!(second["password"] != "edited" && second["password"] != first["password"] && second["id"] != first["id"]);
    // So it is with the previous value.
    rotations.change("jwt", json!({"rotation": {"previous": {"keepFor": "24h"}}})).await;
    rotations.ask("jwt", "rotate", "2").await;
    rotations.until("jwt", "it is kept", keeps_previous).await;
    rotations.edit("jwt", json!({"password-previous": "edited"})).await;
    let message = rotations.says("jwt", "Stalled", "True", "Modified").await;
    assert!(message.contains("\"password-previous\""), "{message}");
    operator.clock.advance(HOUR * 25);
    rotations.ask("jwt", "look", "1").await;
    let over = |object: &SecretRotation| said(object, "Stalled").is_none() && !keeps_previous(object);
    rotations.until("jwt", "its time is over, and what they put there is theirs", over).await;
    let second = rotations.data("jwt").await;
    rotations.change("jwt", json!({"rotation": {"previous": null}})).await;
    // Another key is generated beside; the ones that are there stay.
    let before =
        rotations.until("jwt", "its revision", |object| object.status.as_ref().is_some_and(|status| status.revision.is_some())).await;
    let revision = before.status.unwrap().revision.unwrap();
    let more = json!([{"secretKey": "password", "password": {"length": 20}}, {"secretKey": "id", "uuid": {}}, {"secretKey": "salt", "base64": {}}]);
    rotations.change("jwt", json!({"rotation": {"generate": more}})).await;
    rotations.ready("jwt", revision + 1).await;
    let third = rotations.data("jwt").await;
    assert_eq!((&third["password"], &third["id"]), (&second["password"], &second["id"]));
    assert_eq!(third["salt"].len(), 44);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pending_becomes_what_the_spec_asks_for_by_now() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("lacking").await;
    let rotations = Rotations(&namespace);
    let _operator = cluster.operator(&namespace);
    let template = json!({"mergePolicy": "Merge", "data": {"both": "{{ password }}{{ salt }}"}});
    let generate = |keys: &[&str]| keys.iter().map(|key| json!({"secretKey": key, "hex": {}})).collect::<Vec<_>>();
    rotations
        .create("jwt", json!({"target": {"name": "jwt"}, "rotation": {"generate": generate(&["password"])}, "template": template}))
        .await;
    rotations.says("jwt", "Stalled", "True", "TemplateInvalid").await;
    let pending = rotations.data("jwt-pending").await["password"].clone();
    rotations.change("jwt", json!({"rotation": {"generate": generate(&["password", "salt"])}})).await;
    rotations.ready("jwt", 1).await;
    let data = rotations.data("jwt").await;
    assert_eq!((&data["password"], data["both"].len()), (&pending, 128));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_was_to_have_and_does_not_is_brought_there() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("again").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let rotation = json!({"generate": [{"secretKey": "key", "hex": {}}]});
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "rotation": rotation})).await;
    rotations.ready("jwt", 1).await;
    let value = rotations.data("jwt").await["key"].clone();
    // A push that is added later brings what is there, and makes nothing new.
    let push = json!([{"secretKey": "key", "remoteRef": {"key": "remote", "property": "jwt"}}]);
    rotations.change("jwt", json!({"store": {"kubernetes": {}}, "rotation": {"push": push}})).await;
    assert_eq!(settled(&namespace, 1).await, value);
    // What somebody deletes there comes back.
    namespace.delete_secret("remote").await;
    operator.clock.advance(HOUR * 2);
    rotations.ask("jwt", "look", "1").await;
    eventually("it is there again", || async {
        let there = namespace.secrets().get_opt("remote").await.map_err(|error| error.to_string())?;
        there.map(|_| ()).ok_or_else(|| "it is not".into())
    })
    .await;
    assert_eq!(settled(&namespace, 1).await, value);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_the_hashes_may_be_lost() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("rekeyed").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    rotations.create("jwt", spec()).await;
    let first = settled(&namespace, 1).await;
    operator.kill().await;
    namespace.delete_secret("seaworthy-rollout").await;
    let _operator = cluster.operator(&namespace);
    rotations.ask("jwt", "rotate", "1").await;
    let second = settled(&namespace, 2).await;
    assert_eq!(rotations.data("jwt").await["key-previous"], first);
    assert_ne!(first, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_come_with_what_is_public_of_them_and_a_set_keeps_the_one_before() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("keys").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    let generate = json!([
        {"secretKey": "ssh", "sshKey": {"comment": "deploy"}}, {"secretKey": "ssh-rsa", "sshKey": {"algorithm": "RSA", "size": 2048}},
        {"secretKey": "rsa.pem", "rsaKey": {"size": 2048}}, {"secretKey": "ec.pem", "ecdsaKey": {}}, {"secretKey": "ed.pem", "ed25519Key": {}},
        {"secretKey": "jwks.json", "jwks": {}}, {"secretKey": "rs.json", "jwks": {"algorithm": "RS256"}},
    ]);
    let rotation = json!({"generate": generate, "previous": {"keepFor": "24h"}});
    rotations.create("keys", json!({"target": {"name": "keys"}, "rotation": rotation})).await;
    rotations.ready("keys", 1).await;
    let first = rotations.data("keys").await;
    assert!(first["ssh"].starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
    assert!(first["ssh.pub"].starts_with("ssh-ed25519 ") && first["ssh.pub"].ends_with(" deploy\n"));
    assert!(first["ssh-rsa.pub"].starts_with("ssh-rsa "));
    for name in ["rsa.pem", "ec.pem", "ed.pem"] {
        let key = seaworthy::keys::Key::from_pem(first[name].as_bytes()).unwrap();
        assert_eq!(key.public_pem(), first[&format!("{name}.pub")]);
    }
    let kids = |text: &str| {
        let set: Value = serde_json::from_str(text).unwrap();
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (jwks, public) = (kids(&first["jwks.json"]), kids(&first["jwks.json.pub"]));
    assert_eq!((jwks.len(), &public), (1, &jwks));

    // Who verifies gets both; when the one before goes, that is no new revision.
    rotations.ask("keys", "rotate", "1").await;
    rotations.ready("keys", 2).await;
    let second = rotations.data("keys").await;
    let new = kids(&second["jwks.json"]);
    assert_eq!(kids(&second["jwks.json.pub"]), [new.clone(), jwks.clone()].concat());
    assert!(!second["jwks.json.pub"].contains("\"d\"") && second["jwks.json-previous"] == first["jwks.json"]);
    operator.clock.advance(HOUR * 25);
    rotations.ask("keys", "look", "1").await;
    eventually("the one before is gone", || async {
        let data = rotations.data("keys").await;
        if kids(&data["jwks.json.pub"]) == new && !data.contains_key("jwks.json-previous") {
            Ok(())
        } else {
            Err(format!("{:?}", data.keys()))
        }
    })
    .await;
    rotations.ready("keys", 2).await;
    // What is public is derived again if somebody changes it.
    rotations.edit("keys", json!({"ssh.pub": "ssh-ed25519 AAAA evil"})).await;
    eventually("it is what belongs to the key", || async {
        let data = rotations.data("keys").await;
        if data["ssh.pub"] == second["ssh.pub"] { Ok(()) } else { Err(data["ssh.pub"].clone()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_is_taken_away_half_way_leaves_nothing_behind() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("abandoned").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    namespace.secret("source", "Opaque", &[("a", "1")]).await;
    let data = json!([{"secretKey": "a", "remoteRef": {"key": "source", "property": "a"}}]);
    let mut spec = spec();
    spec["data"] = data;
    rotations.create("jwt", spec).await;
    settled(&namespace, 1).await;
    operator.failpoint.arm("push", false, Some("generate"));
    rotations.ask("jwt", "rotate", "1").await;
    operator.failpoint.reached().await;
    operator.kill().await;
    assert!(namespace.secrets().get_opt("jwt-pending").await.unwrap().is_some());
    rotations.change("jwt", json!({"rotation": null})).await;
    let _operator = cluster.operator(&namespace);
    rotations.ready("jwt", 2).await;
    eventually("nothing is pending", || async {
        let pending = namespace.secrets().get_opt("jwt-pending").await.map_err(|error| error.to_string())?;
        pending.map_or(Ok(()), |_| Err("it is there".into()))
    })
    .await;
    assert_eq!(rotations.data("jwt").await, [("a".to_owned(), "1".to_owned())].into());
}

/// A value of which the Secret cannot be made does not get to the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_put_together_goes_nowhere() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("nowhere").await;
    let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let mut asked = spec();
    asked["rotation"]["generate"][0]["hex"]["bytes"] = json!(16);
    asked["template"] = json!({"mergePolicy": "Merge", "data": {"users": "{{ key | htpasswd('app') }}"}});
    rotations.create("jwt", asked).await;
    let first = settled(&namespace, 1).await;
    let before = rotations.data("jwt").await;
    rotations.change("jwt", json!({"rotation": {"generate": [{"secretKey": "key", "hex": {"bytes": 64}}]}})).await;
    rotations.ask("jwt", "rotate", "1").await;
    let message = rotations.says("jwt", "Ready", "False", "TemplateInvalid").await;
    assert!(message.contains("users"), "{message}");
    assert_eq!((rotations.data("jwt").await, rotations.data("remote").await["jwt"].clone()), (before, first.clone()));
    rotations.change("jwt", json!({"template": {"data": {"users": "{{ key }}"}}})).await;
    assert_eq!(settled(&namespace, 2).await.len(), 128);
    assert_eq!(rotations.data("jwt").await["key-previous"], first);
}

/// One generated value in two places of a store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_filled_in_where_it_is_lacking() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("places").await;
    let (rotations, _operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let to = |key: &str| json!({"secretKey": "k", "remoteRef": {"key": key, "property": "p"}});
    let rotation = json!({"generate": [{"secretKey": "k", "hex": {}}], "push": [to("one"), to("two")]});
    vault.put("one", json!({"p": "v"})).await;
    rotations.create("app", json!({"target": {"name": "app"}, "store": namespace.store_in(&vault).await, "rotation": rotation})).await;
    rotations.ready("app", 1).await;
    assert_eq!((rotations.data("app").await["k"].as_str(), vault.get("two").await.0), ("v", json!({"p": "v"})), "what one has, all have");
    vault.put("one", json!({"other": "o"})).await;
    rotations.ask("app", "refresh", "1").await;
    eventually("it is filled in", || async {
        let there = vault.get("one").await.0;
        if there == json!({"other": "o", "p": "v"}) { Ok(()) } else { Err(there.to_string()) }
    })
    .await;
    vault.put("two", json!({"p": "w"})).await;
    rotations.ask("app", "refresh", "2").await;
    let message = rotations.says("app", "Ready", "False", "StoreConflict").await;
    assert!(message.contains("one, property \"p\"") && message.contains("two, property \"p\""), "{message}");
    assert_eq!(rotations.data("app").await["k"], "v");
    vault.put("two", json!({})).await;
    rotations.ask("app", "refresh", "3").await;
    rotations.ready("app", 1).await;
    assert_eq!(vault.get("two").await.0, json!({"p": "v"}));
}

/// What somebody does to a generated value while another one is on its way is told, and not made one's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_beside_what_is_on_its_way_stays_theirs() {
    let (cluster, vault) = (Cluster::shared().await, Vault::start().await);
    let namespace = cluster.namespace("beside").await;
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    let store = by_role(&vault, &namespace).await;
    let may_read = format!("{POLICY}\npath \"secret/data/other/*\" {{ capabilities = [\"read\"] }}");
    vault.call("POST", "sys/policies/acl/app", json!({ "policy": may_read })).await;
    let hex = |name: &str| json!({"secretKey": name, "hex": {}});
    let template = json!({"mergePolicy": "Merge", "data": {"text": "{{ d }}"}});
    let spec =
        json!({"target": {"name": "app"}, "store": store, "rotation": {"generate": [hex("a"), hex("c"), hex("d")]}, "template": template});
    rotations.create("app", spec).await;
    rotations.ready("app", 1).await;
    let push = json!([{"secretKey": "b", "remoteRef": {"key": "other/b", "property": "p"}}]);
    rotations.change("app", json!({"rotation": {"generate": [hex("a"), hex("b"), hex("c"), hex("d")], "push": push}})).await;
    rotations.says("app", "Stalled", "True", "StoreDenied").await;
    assert!(namespace.secrets().get("app-pending").await.is_ok(), "it is on its way");
    rotations.edit("app", json!({"a": "edited"})).await;
    let removed = json!({"data": {"c": null, "d": null}});
    namespace.secrets().patch("app", &PatchParams::default(), &Patch::Merge(removed)).await.unwrap();
    let policy = POLICY.replace("secret/data/app/*", "secret/data/*").replace("secret/metadata/app/*", "secret/metadata/*");
    vault.call("POST", "sys/policies/acl/app", json!({ "policy": policy })).await;
    operator.clock.advance(SignedDuration::from_hours(1));
    rotations.ask("app", "look", "1").await;
    let message = rotations.says("app", "Stalled", "True", "Modified").await;
    assert!(message.contains("\"a\""), "{message}");
    let data = rotations.data("app").await;
    assert_eq!((data["a"].as_str(), data["b"].len(), data.contains_key("c")), ("edited", 64, false));
    assert_eq!((data["d"].len(), &data["text"]), (64, &data["d"]), "without it there would be no text");
    rotations.ask("app", "rotate", "1").await;
    rotations.ready("app", 3).await;
    let lengths: Vec<_> = rotations.data("app").await.into_iter().map(|(name, value)| (name, value.len())).collect();
    assert_eq!(lengths, ["a", "b", "c", "d", "text"].map(|name| (name.to_owned(), 64)));
}
