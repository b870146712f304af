//! Events: what a person wants to know, said once.

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, Resource, ResourceExt, api::PostParams};

use super::conditions::cut;

/// The API server refuses notes of more than 1 kB.
const MAX_NOTE: usize = 1000;

/// Something to tell.
#[derive(Clone, Debug)]
pub struct Note<'a> {
    /// Whether it needs attention.
    pub warning: bool,
    /// One of the area's reasons.
    pub reason: &'static str,
    /// What was done or tried, in the field's words: `Issue`, `Write`.
    pub action: &'static str,
    /// For people.
    pub text: &'a str,
}

/// Sends events about objects. That one cannot be sent is logged and stops nothing.
#[derive(Clone)]
pub struct Events {
    client: Client,
    instance: String,
}

impl Events {
    /// `instance` is the name of this process: its Pod.
    pub fn new(client: Client, instance: &str) -> Self {
        Self { client, instance: instance.into() }
    }

    /// Tells about `object`.
    pub async fn send<K: Resource<DynamicType = ()>>(&self, object: &K, note: Note<'_>) {
        let namespace = object.namespace().unwrap_or_else(|| "default".into());
        let now = jiff::Timestamp::now();
        let event = Event {
            metadata: ObjectMeta {
                namespace: Some(namespace.clone()),
                name: Some(format!("{}.{:x}", cut(&object.name_any(), 200), now.as_nanosecond())),
                ..ObjectMeta::default()
            },
            action: Some(note.action.into()),
            event_time: Some(MicroTime(now)),
            note: Some(cut(note.text, MAX_NOTE).into()),
            reason: Some(note.reason.into()),
            regarding: Some(ObjectReference {
                api_version: Some(K::api_version(&()).into()),
                kind: Some(K::kind(&()).into()),
                name: object.meta().name.clone(),
                namespace: object.meta().namespace.clone(),
                uid: object.meta().uid.clone(),
                resource_version: object.meta().resource_version.clone(),
                field_path: None,
            }),
            reporting_controller: Some("seaworthy.dev/operator".into()),
            reporting_instance: Some(cut(&self.instance, 128).into()),
            type_: Some(if note.warning { "Warning" } else { "Normal" }.into()),
            ..Event::default()
        };
        if let Err(error) = Api::namespaced(self.client.clone(), &namespace).create(&PostParams::default(), &event).await {
            tracing::warn!(
                error = super::error::message(&error),
                object = object.name_any(),
                reason = note.reason,
                "an event could not be sent"
            );
        }
    }
}
