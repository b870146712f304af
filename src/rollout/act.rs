//! Restarts a workload: our annotations on its Pod template and on itself, by server-side apply, so that nobody else's fields are touched.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, core::DynamicObject};
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::{
    budget::Budget,
    change::Change,
    mark::{Note, PREFIX, annotation},
};
use crate::{
    cluster::{
        apply::{WriteError, Writer},
        error::message,
        lease::Leadership,
        references,
    },
    inventory::{
        pods::Owner,
        workloads::{KINDS, Progress, Reader, TEMPLATE_ANNOTATIONS},
    },
};

/// The field manager of restarts: of its own, so that a restart for one kind of resource leaves those for others alone.
const MANAGER: &str = "seaworthy-rollout";

/// The Secret with the key of the marks, in the operator's namespace. Made when it is first needed; if it is lost, marks change and nothing is
/// restarted for it.
const KEY_SECRET: &str = "seaworthy-rollout";
const KEY: &str = "key";

/// Restarts workloads.
#[derive(Clone)]
pub struct Restarter {
    client: Client,
    writer: Writer,
    operator_namespace: String,
    /// Read once: should it be lost, marks change, and nothing is restarted for it.
    key: Arc<OnceCell<Zeroizing<Vec<u8>>>>,
    /// How many at a time.
    pub budget: Budget,
}

impl Restarter {
    /// Only while this process leads.
    pub fn new(client: Client, leadership: Leadership, operator_namespace: &str, budget: Budget) -> Self {
        let writer = Writer::new(client.clone(), leadership, MANAGER);
        Self { client, writer, operator_namespace: operator_namespace.into(), key: Arc::default(), budget }
    }

    /// The key of the marks.
    pub async fn key(&self) -> Result<Zeroizing<Vec<u8>>, WriteError> {
        self.key.get_or_try_init(|| self.read_key()).await.cloned()
    }

    async fn read_key(&self) -> Result<Zeroizing<Vec<u8>>, WriteError> {
        let name = format!("Secret {}/{KEY_SECRET}", self.operator_namespace);
        let unavailable = |message: String| WriteError::Unavailable { object: name.clone(), message };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.operator_namespace);
        for _ in 0..2 {
            if let Some(secret) = api.get_opt(KEY_SECRET).await.map_err(|error| unavailable(message(&error)))? {
                let mut data = references::data(secret);
                return data.remove(KEY).filter(|key| !key.is_empty()).ok_or_else(|| unavailable(format!("it has no {KEY}; delete it")));
            }
            let mut key = Zeroizing::new(vec![0u8; 32]);
            aws_lc_rs::rand::fill(&mut key).map_err(|_| unavailable("no random numbers".into()))?;
            let secret: Secret = serde_json::from_value(json!({
                "metadata": {"name": KEY_SECRET, "namespace": self.operator_namespace},
                "data": {KEY: k8s_openapi::ByteString(key.to_vec())},
            }))
            .map_err(|error| unavailable(error.to_string()))?;
            match self.writer.create(secret).await {
                Ok(_) => return Ok(key),
                Err(WriteError::Exists(_)) => {} // somebody was faster: theirs it is
                Err(error) => return Err(error),
            }
        }
        Err(unavailable("it comes and goes".into()))
    }

    /// How far its controller is, asked now. None: it is not there, or cannot be told.
    pub async fn progress(&self, namespace: &str, workload: &Owner) -> Option<Progress> {
        let kind = KINDS.iter().find(|kind| *kind.kind == *workload.kind)?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind.resource());
        let object = api.get_opt(&workload.name).await.ok()??;
        Some(Reader::default().read(kind, &object)?.progress)
    }

    /// Gives the template of `workload` the mark of `note` for `secret`, which makes its controller make its Pods anew, and notes it. One that
    /// carries the mark is not restarted again, and one that is done must carry it still. Whether anything was written.
    pub async fn restart(&self, namespace: &str, workload: &Owner, secret: &str, note: &Note) -> Result<bool, WriteError> {
        let described = format!("{} {namespace}/{}", workload.kind, workload.name);
        let gone = || WriteError::Superseded(described.clone());
        let kind = KINDS.iter().find(|kind| *kind.kind == *workload.kind && kind.restart.is_some()).ok_or_else(gone)?;
        let resource = kind.resource();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let found = api.get_opt(&workload.name).await;
        let found = found.map_err(|error| WriteError::Unavailable { object: described.clone(), message: message(&error) })?;
        let object = found.ok_or_else(gone)?;
        let key = annotation(secret);
        // All of ours: what an apply leaves out, goes.
        let mut marks = ours(object.data.pointer(TEMPLATE_ANNOTATIONS));
        let carries = marks.get(&key).and_then(Value::as_str) == Some(&note.mark);
        if carries != note.done {
            return Ok(false); // begun already, or undone meanwhile
        }
        let own = object.metadata.annotations.as_ref().map(|annotations| json!(annotations));
        let mut notes = ours(own.as_ref());
        marks.insert(key.clone(), json!(note.mark));
        notes.insert(key, json!(note.text()));
        let body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": workload.name, "uid": object.metadata.uid, "resourceVersion": object.metadata.resource_version, "annotations": notes},
            "spec": {"template": {"metadata": {"annotations": marks}}},
        });
        self.writer.apply_part(&api, &workload.name, &described, &body).await?;
        Ok(true)
    }
}

/// Writes a Secret, and a second time where the time of the first has to be noted with it: `secret` makes it for a change.
pub async fn store(
    writer: &Writer,
    secret: impl Fn(&Change) -> Secret,
    read: &ObjectMeta,
    change: &mut Change,
) -> Result<ObjectMeta, WriteError> {
    let written = writer.apply(secret(change), read).await?;
    let Some(time) = writer.wrote_at(&written).filter(|_| !change.is_noted()) else { return Ok(written) };
    let mut noted = change.clone();
    noted.note(time);
    // It is stored. That the time could not be noted is no failure: whoever looks next notes it.
    Ok(match writer.apply(secret(&noted), &written).await {
        Ok(written) => {
            *change = noted;
            written
        }
        Err(error) => {
            tracing::debug!(%error, secret = written.name, "the time of the change is noted later");
            written
        }
    })
}

fn ours(annotations: Option<&Value>) -> Map<String, Value> {
    let all = annotations.and_then(Value::as_object).into_iter().flatten();
    all.filter(|(key, _)| key.starts_with(PREFIX)).map(|(key, value)| (key.clone(), value.clone())).collect()
}
