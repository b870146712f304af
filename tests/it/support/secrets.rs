//! SecretRotations of a namespace.

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use seaworthy::{
    api::{SecretRotation, SecretStore},
    cluster::references::{ReadSecrets, SecretData},
    secrets::{
        store::{Allowed, OpenStore, Opening, Store, StoreError},
        stores::StoreSpec,
    },
    testing::secrets::Secrets,
};
use serde_json::{Value, json};

use super::{Namespace, eventually};

/// Waits until the condition Ready of the SecretStore `vault` has this status or this reason.
pub async fn vault_says(stores: &Api<SecretStore>, wanted: &str) {
    eventually(&format!("the store is Ready: {wanted}"), || async {
        let status = stores.get("vault").await.map_err(|error| error.to_string())?.status.unwrap_or_default();
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        if ready.is_some_and(|ready| ready.status == wanted || ready.reason == wanted) { Ok(()) } else { Err(format!("{ready:?}")) }
    })
    .await;
}

/// Those of one namespace.
pub struct Rotations<'a>(pub &'a Namespace);

impl Rotations<'_> {
    pub fn api(&self) -> Api<SecretRotation> {
        Api::namespaced(self.0.client.clone(), &self.0.name)
    }

    /// Creates one.
    pub async fn create(&self, name: &str, spec: Value) -> SecretRotation {
        self.try_create(name, spec).await.unwrap_or_else(|error| panic!("{name} was refused: {error}"))
    }

    /// The same, and the API server's answer.
    pub async fn try_create(&self, name: &str, spec: Value) -> Result<SecretRotation, kube::Error> {
        let object = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretRotation", "metadata": {"name": name}, "spec": spec});
        let params = PatchParams { field_validation: Some(kube::core::params::ValidationDirective::Strict), ..PatchParams::apply("test") };
        self.api().patch(name, &params, &Patch::Apply(object)).await
    }

    /// Merges `change` into the spec.
    pub async fn change(&self, name: &str, change: Value) {
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": change}))).await.unwrap();
    }

    /// Sets the annotation `rotate` or `refresh`.
    pub async fn ask(&self, name: &str, what: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {format!("seaworthy.dev/{what}"): value}}});
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until the request `rotate` or `refresh` of this value is answered.
    pub async fn handled(&self, name: &str, what: &str, value: &str) {
        let wanted = |object: &SecretRotation| {
            let status = object.status.clone().unwrap_or_default();
            let handled = if what == "refresh" { status.handled_refresh } else { status.handled_rotate };
            handled.as_deref() == Some(value)
        };
        self.until(name, &format!("{what} {value} is handled"), wanted).await;
    }

    /// Waits until the object's status is as `wanted`.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&SecretRotation) -> bool) -> SecretRotation {
        let api = self.api();
        eventually(&format!("{}/{name}: {what}", self.0.name), || async {
            let object = api.get(name).await.map_err(|error| error.to_string())?;
            if wanted(&object) { Ok(object) } else { Err(serde_json::to_string(&object.status).unwrap()) }
        })
        .await
    }

    /// Waits until it is Ready in the present generation with this revision.
    pub async fn ready(&self, name: &str, revision: i64) -> SecretRotation {
        self.until(name, &format!("Ready with revision {revision}"), |object| {
            let status = object.status.clone().unwrap_or_default();
            said(object, "Ready").is_some_and(|(status, ..)| status == "True")
                && status.revision == Some(revision)
                && status.observed_generation == object.metadata.generation
        })
        .await
    }

    /// Waits until it is in this revision, Ready or not.
    pub async fn at(&self, name: &str, revision: i64) -> SecretRotation {
        let wanted = |object: &SecretRotation| object.status.as_ref().is_some_and(|status| status.revision == Some(revision));
        self.until(name, &format!("revision {revision}"), wanted).await
    }

    /// Waits until everybody has this revision.
    pub async fn complete(&self, name: &str, revision: i64) -> SecretRotation {
        self.until(name, &format!("everybody has revision {revision}"), |object| {
            let status = object.status.clone().unwrap_or_default();
            status.last_rotation.is_some_and(|last| last.completed_at.is_some()) && status.revision == Some(revision)
        })
        .await
    }

    /// Waits until so many Pods of so many have what is in the Secret: `2/2`.
    pub async fn consumers(&self, name: &str, summary: &str) {
        let wanted = |object: &SecretRotation| {
            object.status.as_ref().and_then(|status| status.consumers.as_ref()).is_some_and(|consumers| consumers.summary == summary)
        };
        self.until(name, &format!("consumers {summary}"), wanted).await;
    }

    /// Waits until a condition has this status and reason; returns its message.
    pub async fn says(&self, name: &str, kind: &str, status: &str, reason: &str) -> String {
        let wanted = |object: &SecretRotation| said(object, kind).is_some_and(|(now, why, _)| now == status && why == reason);
        let object = self.until(name, &format!("{kind}={status} {reason}"), wanted).await;
        said(&object, kind).unwrap().2
    }

    /// The Secret's data as texts.
    pub async fn data(&self, secret: &str) -> std::collections::BTreeMap<String, String> {
        let data = self.0.secrets().get(secret).await.unwrap().data.unwrap_or_default();
        data.into_iter().map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect()
    }

    /// Replaces keys of a Secret, as somebody else does.
    pub async fn edit(&self, secret: &str, data: Value) {
        self.0.secrets().patch(secret, &PatchParams::default(), &Patch::Merge(json!({"stringData": data}))).await.unwrap();
    }
}

/// Whether previous values are kept.
pub fn keeps_previous(object: &SecretRotation) -> bool {
    object.status.as_ref().is_some_and(|status| status.previous_kept_until.is_some())
}

/// Whether new values wait until those are over.
pub fn waits_for_previous(object: &SecretRotation) -> bool {
    said(object, "Ready").is_some_and(|(.., message)| message.contains("new values are due"))
}

/// Status, reason and message of a condition.
pub fn said(object: &SecretRotation, kind: &str) -> Option<(String, String, String)> {
    let conditions = &object.status.as_ref()?.conditions;
    let condition = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
}

/// The store `spec` as an administrator's, without a cluster; its credentials are in the Secret `name`.
pub async fn open(spec: &Value, name: &'static str, data: &[(&str, &str)]) -> Result<Box<dyn OpenStore>, StoreError> {
    seaworthy::install_crypto_provider();
    let data: SecretData = data.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec().into())).collect();
    let (secrets, allowed) = (Secrets::default().with(name, data), Allowed::default().of_administrators());
    let opening = Opening { secrets: &secrets as &dyn ReadSecrets, namespace: "n", cluster: None, writer: None, allowed: &allowed };
    serde_json::from_value::<StoreSpec>(spec.clone()).unwrap().open(opening).await
}
