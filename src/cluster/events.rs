//! Events: what a person wants to know, said once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, Resource, ResourceExt, api::PostParams};

use tokio::sync::mpsc;

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

/// So many events wait at most to be sent; more than that come only when everything is new at once.
const WAITING: usize = 1000;

/// So many are sent as fast as they can be, and then one in this time, until none waits: nobody reads faster, and the API server has more to do.
const AT_ONCE: u32 = 200;
const PACE: Duration = Duration::from_millis(50);

/// Sends events about objects, one after the other, beside the work that they tell of. That one cannot be sent, or that there are more than anybody
/// reads, is logged and stops nothing.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Event>,
    instance: String,
    flooded: Arc<AtomicBool>,
}

impl Events {
    /// `instance` is the name of this process: its Pod. To be called within the runtime, which the sender ends with.
    pub fn new(client: Client, instance: &str) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Event>(WAITING);
        let flooded = Arc::new(AtomicBool::new(false));
        let drained = flooded.clone();
        tokio::spawn(async move {
            let mut at_once = AT_ONCE;
            while let Some(event) = waiting.recv().await {
                if at_once == 0 {
                    tokio::time::sleep(PACE).await;
                }
                at_once = at_once.saturating_sub(1);
                create(&client, &event).await;
                if waiting.is_empty() {
                    drained.store(false, Ordering::Relaxed);
                    at_once = AT_ONCE;
                }
            }
        });
        Self { queue, instance: instance.into(), flooded }
    }

    /// Tells about `object`.
    pub fn send<K: Resource<DynamicType = ()>>(&self, object: &K, note: &Note<'_>) {
        let namespace = object.namespace().unwrap_or_else(|| "default".into());
        let now = jiff::Timestamp::now();
        let event = Event {
            metadata: ObjectMeta {
                namespace: Some(namespace),
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
        if self.queue.try_send(event).is_err() && !self.flooded.swap(true, Ordering::Relaxed) {
            tracing::warn!("there are more events than can be sent; some are left out, the log has them all");
        }
    }
}

async fn create(client: &Client, event: &Event) {
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    if let Err(error) = Api::namespaced(client.clone(), namespace).create(&PostParams::default(), event).await {
        let object = event.regarding.as_ref().and_then(|object| object.name.as_deref());
        tracing::warn!(error = super::error::message(&error), object, namespace, reason = event.reason, "an event could not be sent");
    }
}
