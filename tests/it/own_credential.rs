//! A SecretStore's own credential replaces itself: the one before is destroyed only when the other has let us in, whatever happens in between.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{StreamExt, stream};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use seaworthy::{api::SecretStore, clock::Clock, secrets::own_credential::STEPS};
use serde_json::{Value, json};

use crate::{
    interruptions::lease_is_taken,
    support::{Between, Cluster, ControlPlane, Fault, Faults, Operator, Rotations, Vault, eventually},
};

/// What the page of the kind says, and no more.
pub const POLICY: &str = r#"path "secret/data/*" { capabilities = ["read"] }
path "auth/approle/role/app/secret-id" { capabilities = ["list", "update"] }
path "auth/approle/role/app/secret-id/lookup" { capabilities = ["update"] }
path "auth/approle/role/app/secret-id-accessor/lookup" { capabilities = ["update"] }
path "auth/approle/role/app/secret-id-accessor/destroy" { capabilities = ["update"] }"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_id_replaces_itself_and_the_one_before_is_destroyed_later() {
    let ((_own, cluster), vault) = (ControlPlane::start().await, Vault::start().await);
    let operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    let namespace = cluster.namespace("users").await;
    vault.put("db", json!({"password": "p"})).await;
    let (id, first) = vault.role("app", POLICY).await;
    let secrets = cluster.operators_secret("approle", json!({"id": first, "note": "ours"})).await;
    let role = json!({"roleId": id, "secretRef": {"name": "approle", "key": "id"}, "rotateSecretId": {"every": "720h"}});
    let stores = cluster
        .secret_store("vault", json!({"allowedNamespaces": {}, "vault": {"server": vault.address, "auth": {"appRole": role}}}))
        .await;
    let now = async || {
        let data = secrets.get("approle").await.unwrap().data.unwrap();
        assert_eq!(data["note"].0, b"ours", "what else is in the Secret stays");
        String::from_utf8(data["id"].0.clone()).unwrap()
    };
    let replaced = async |before: &str| {
        eventually("the secret id is another one", || async {
            let status = stores.get("vault").await.map_err(|error| error.to_string())?.status.unwrap_or_default();
            let there = now().await;
            if there != before && status.last_credential_rotation_time.is_some() { Ok(there) } else { Err(format!("{status:?}")) }
        })
        .await
    };
    let lives = async |secret_id: &str| {
        let (status, _) = vault.try_call("POST", "auth/approle/login", json!({"role_id": id, "secret_id": secret_id})).await;
        status == 200
    };
    // The first one, that a person made, is replaced at once; it lives on for who is just using it.
    let second = replaced(&first).await;
    assert!(lives(&first).await && lives(&second).await);
    let rotations = Rotations(&namespace);
    let data = json!([{"secretKey": "x", "remoteRef": {"key": "db", "property": "password"}}]);
    rotations.create("app", json!({"target": {"name": "app"}, "storeRef": {"name": "vault"}, "data": data})).await;
    rotations.ready("app", 1).await;
    // An attempt that died half way has left one behind that nobody knows.
    let uid = stores.get("vault").await.unwrap().metadata.uid.unwrap();
    let lost = vault.call("POST", "auth/approle/role/app/secret-id", json!({"metadata": json!({"seaworthy": uid}).to_string()})).await;
    let lost = lost["data"]["secret_id"].as_str().unwrap().to_owned();
    let foreign = vault.call("POST", "auth/approle/role/app/secret-id", json!({})).await["data"]["secret_id"].as_str().unwrap().to_owned();
    let look = async |hours: i64| {
        operator.clock.advance(SignedDuration::from_hours(hours));
        let note = json!({"metadata": {"annotations": {"seaworthy.dev/look": hours.to_string()}}});
        stores.patch("vault", &PatchParams::default(), &Patch::Merge(note)).await.unwrap();
    };
    look(1).await;
    eventually("the first one is destroyed", || async { if lives(&first).await { Err("it lives".into()) } else { Ok(()) } }).await;
    eventually("the lost one, too", || async { if lives(&lost).await { Err("it lives".into()) } else { Ok(()) } }).await;
    assert!(lives(&second).await && lives(&foreign).await, "what somebody else made is theirs");
    assert_eq!(now().await, second);
    // A month later.
    look(24 * 31).await;
    let third = replaced(&second).await;
    rotations.ask("app", "refresh", "1").await;
    rotations.ready("app", 1).await;
    // Somebody is faster and destroys the one before: then that is done.
    vault.call("POST", "auth/approle/role/app/secret-id/destroy", json!({"secret_id": second})).await;
    assert!(!lives(&second).await);
    look(2).await;
    eventually("nothing is left to be destroyed", || async {
        let annotations = secrets.get("approle").await.map_err(|error| error.to_string())?.metadata.annotations.unwrap_or_default();
        let left = annotations.keys().any(|key| key.starts_with("seaworthy.dev/credential-replaced"));
        let status = stores.get("vault").await.map_err(|error| error.to_string())?.status.unwrap_or_default();
        let ready = status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        if ready && !left { Ok(()) } else { Err(format!("{:?} {status:?}", annotations.keys())) }
    })
    .await;
    assert!(lives(&third).await);
}

/// A store of which the secret id is to be replaced at once.
pub struct Own<'a> {
    vault: &'a Vault,
    name: String,
    role: String,
    secrets: Api<Secret>,
    stores: Api<SecretStore>,
}

impl<'a> Own<'a> {
    pub async fn new(cluster: &Cluster, vault: &'a Vault, address: &str, name: &str) -> Self {
        let (role, first) = vault.role(name, &POLICY.replace("role/app/", &format!("role/{name}/"))).await;
        let secrets = cluster.operators_secret(name, json!({"id": first})).await;
        let spec = json!({"roleId": role, "secretRef": {"name": name, "key": "id"}, "rotateSecretId": {"every": "8760h"}});
        let stores = cluster.secret_store(name, json!({"vault": {"server": address, "auth": {"appRole": spec}}})).await;
        Self { vault, name: name.into(), role, secrets, stores }
    }

    /// The secret id in the Secret.
    pub async fn now(&self) -> String {
        String::from_utf8(self.secrets.get(&self.name).await.unwrap().data.unwrap()["id"].0.clone()).unwrap()
    }

    /// Whether Vault lets it in.
    pub async fn lets_in(&self, id: &str) -> bool {
        self.vault.try_call("POST", "auth/approle/login", json!({"role_id": self.role, "secret_id": id})).await.0 == 200
    }

    /// How many secret ids there are.
    pub async fn left(&self) -> usize {
        // While one is being destroyed Vault may not be able to list them.
        let (_, all) = self.vault.try_call("LIST", &format!("auth/approle/role/{}/secret-id", self.name), Value::Null).await;
        all["data"]["keys"].as_array().map_or(0, Vec::len)
    }

    /// A while later; what is destroyed is destroyed with a later look.
    async fn look(&self, operator: &Operator) {
        operator.clock.advance(SignedDuration::from_mins(10));
        let note = json!({"metadata": {"annotations": {"seaworthy.dev/look": operator.clock.now().to_string()}}});
        self.stores.patch(&self.name, &PatchParams::default(), &Patch::Merge(note)).await.unwrap();
    }

    /// Looked at until one secret id is left, the one in the Secret, with which the store is Ready.
    async fn is_replaced(&self, operator: &Operator, what: &str) {
        let asked = AtomicUsize::new(0);
        eventually(&format!("{what}: one secret id is left"), || async {
            if asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(10) {
                self.look(operator).await;
            }
            let notes = self.secrets.get(&self.name).await.map_err(|error| error.to_string())?.metadata.annotations.unwrap_or_default();
            assert!(self.lets_in(&self.now().await).await, "{what}: the one in the Secret lets in");
            let left = self.left().await;
            let status = self.stores.get(&self.name).await.map_err(|error| error.to_string())?.status.unwrap_or_default();
            let ready = status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
            let made = notes.keys().any(|key| key.starts_with("seaworthy.dev/credential-made"));
            let open = notes.keys().any(|key| key.starts_with("seaworthy.dev/credential-replaced"));
            if ready && made && !open && left == 1 { Ok(()) } else { Err(format!("{left} {ready} {made} {open} {:?}", status.conditions)) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_or_without_its_lease_around_every_step_of_its_replacement() {
    let ((_own, cluster), vault) = (ControlPlane::start().await, Vault::start().await);
    let home = cluster.home();
    let start = |name: &str, clock| Operator::elected(cluster.client.clone(), Vec::new(), &home.name, (name, clock));
    let cases = STEPS.iter().flat_map(|step| [(*step, false), (*step, true)]).flat_map(|case| [(case, false), (case, true)]);
    for (number, ((step, done), lease_lost)) in cases.enumerate() {
        let operator = start("one", Clock::default());
        operator.failpoint.arm(step, done, None);
        let own = Own::new(&cluster, &vault, &vault.address, &format!("interrupted-{number}")).await;
        let what = format!("{} {} {step}", if lease_lost { "without its lease" } else { "killed" }, if done { "after" } else { "before" });
        let until = async {
            loop {
                own.look(&operator).await;
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            () = operator.failpoint.reached() => {}
            _ = tokio::time::timeout(crate::support::PATIENCE, until) => panic!("{what}: it was not reached"),
        }
        let clock = operator.clock.clone();
        if lease_lost {
            lease_is_taken(&home, &operator).await;
            let (version, ids) = (own.secrets.get(&own.name).await.unwrap().metadata.resource_version, own.left().await);
            operator.failpoint.release();
            operator.ended().await.unwrap_err();
            assert_eq!(own.left().await, ids, "{what}: who does not lead makes none and destroys none");
            assert_eq!(own.secrets.get(&own.name).await.unwrap().metadata.resource_version, version, "{what}: and writes none");
        } else {
            operator.kill().await;
        }
        // A process that was killed comes back by the same name, so that nobody waits for its lease to end.
        let operator = start(if lease_lost { "another" } else { "one" }, clock);
        own.is_replaced(&operator, &what).await;
        own.stores.delete(&own.name, &DeleteParams::default()).await.unwrap();
        operator.shut_down().await;
    }
}

/// The one that is in use stays until the new one has let us in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_replaced_before_the_new_one_lets_in() {
    let ((_own, cluster), vault) = (ControlPlane::start().await, Vault::start().await);
    let between = Between::to(&vault.address).await;
    between.arm(|asked| asked.starts_with("POST") && asked.contains("/auth/approle/login"), 1, Fault::Held);
    let own = Own::new(&cluster, &vault, &between.address, "held").await;
    let first = own.now().await;
    let operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    between.waits().await;
    assert_eq!((own.now().await, own.left().await), (first.clone(), 2), "the new one has not let anybody in");
    assert!(own.lets_in(&first).await);
    between.go_on();
    own.is_replaced(&operator, "the new one lets in").await;
    assert_ne!(own.now().await, first);
}

/// It may be that the operator was away for as long as one lives: then another one is made, and both before it are destroyed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_replaced_is_destroyed_however_late() {
    let ((_own, cluster), vault) = (ControlPlane::start().await, Vault::start().await);
    let own = Own::new(&cluster, &vault, &vault.address, "late").await;
    let first = own.now().await;
    let operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    let other_than = async |before: &str| {
        eventually("it is another one", || async {
            let now = own.now().await;
            if now == before { Err("it is not".to_owned()) } else { Ok(now) }
        })
        .await
    };
    let second = other_than(&first).await;
    operator.clock.advance(SignedDuration::from_hours(8761));
    own.look(&operator).await;
    other_than(&second).await;
    assert!(own.lets_in(&first).await, "nobody made room for it");
    own.is_replaced(&operator, "both are destroyed").await;
    assert!(!own.lets_in(&first).await && !own.lets_in(&second).await);
}

/// Its Secret cannot be written, or the API server does not take the write at first: no secret id is made in vain, and none is lost that is in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_not_written_is_told_and_written_later() {
    let ((_own, cluster), vault) = (ControlPlane::start().await, Vault::start().await);
    // Whether it can be written is asked, it is written, and once more when the one before is destroyed; statuses come between.
    let faults = [Fault::Answer(409), Fault::Answer(500), Fault::AnswerLost];
    let cases = faults.into_iter().flat_map(|fault| (0..3).map(move |number| (fault, number)));
    for (case, (fault, number)) in cases.enumerate() {
        let (own, faults) = (Own::new(&cluster, &vault, &vault.address, &format!("unwritten-{case}")).await, Faults::default());
        faults.arm(number, fault);
        let client = faults.client(cluster.operator_config.clone());
        let operator = Operator::start_with(client, Vec::new(), "seaworthy", Clock::default());
        own.is_replaced(&operator, &format!("{fault:?} at write {number}")).await;
        assert!(faults.struck(), "{fault:?} {number}");
        own.stores.delete(&own.name, &DeleteParams::default()).await.unwrap();
        operator.shut_down().await;
    }
    let own = Own::new(&cluster, &vault, &vault.address, "immutable").await;
    let immutable = Patch::Merge(json!({"immutable": true}));
    own.secrets.patch(&own.name, &PatchParams::default(), &immutable).await.unwrap();
    let operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    let told = async || {
        eventually("it is told", || async {
            let status = own.stores.get(&own.name).await.map_err(|error| error.to_string())?.status.unwrap_or_default();
            let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
            let told = ready.is_some_and(|ready| ready.reason == "WriteFailed" && ready.message.contains("immutable"));
            if told { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    };
    told().await;
    own.look(&operator).await;
    told().await;
    assert_eq!(own.left().await, 1, "the one that a person made, and no other");
    assert!(own.lets_in(&own.now().await).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-all"]
async fn every_request_of_its_replacement_may_fail() {
    let ((_own, cluster), vault) = (ControlPlane::start().await, Vault::start().await);
    vault.call("POST", "sys/auth/approle", json!({"type": "approle"})).await;
    let (cluster, vault, operator) = (&cluster, &vault, &Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy"));
    // It logs in, looks up which one that was, makes another, logs in with it, gives back what both logins lent; later it logs in, looks up, destroys.
    let posts = 9;
    // 403 to a login: the secret id that was just made does not let in.
    let faults = [Fault::Answer(500), Fault::Answer(403), Fault::AnswerLost];
    let cases = faults.into_iter().enumerate().flat_map(|(kind, fault)| (0..posts).map(move |number| (kind, fault, number)));
    stream::iter(cases)
        .for_each_concurrent(15, |(kind, fault, number)| async move {
            let between = Between::to(&vault.address).await;
            between.arm(|asked| asked.starts_with("POST"), number, fault);
            let own = Own::new(cluster, vault, &between.address, &format!("failed-{kind}-{number}")).await;
            let what = format!("{fault:?} at request {number}");
            own.is_replaced(operator, &what).await;
            assert!(between.struck(), "{what}: there was no such request");
            own.stores.delete(&own.name, &DeleteParams::default()).await.unwrap();
        })
        .await;
}
