//! The only writes of the crate to objects of a cluster: fenced by what was read, and by the lease.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{DynamicObject, PartialObjectMeta, Request},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use zeroize::Zeroize;

use super::{
    conditions::bounded,
    error::{is_refusal, message},
    lease::Leadership,
};

/// Why a write was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The object changed since it was read: read again and decide again.
    #[error("{0} was changed by somebody else in the meantime; it is read again")]
    Superseded(String),
    /// There is one already.
    #[error("{0} exists already")]
    Exists(String),
    /// This process does not hold the lease.
    #[error("this replica is not the leader any more")]
    NotLeading,
    /// The API server refuses it: rights, quota, an admission webhook, the schema.
    #[error("{object} was refused by the API server: {message}")]
    Refused {
        /// Kind, namespace and name.
        object: String,
        /// What the server said.
        message: String,
    },
    /// Somebody else sets a field that is not to be taken from them.
    #[error("{object}: {message}")]
    Owned {
        /// Kind, namespace and name.
        object: String,
        /// Which fields, and who.
        message: String,
    },
    /// No answer, or one that does not say whether it was done.
    #[error("{object} could not be written: {message}")]
    Unavailable {
        /// Kind, namespace and name.
        object: String,
        /// What went wrong.
        message: String,
    },
}

impl WriteError {
    /// A write that lost a race is no failure worth telling a person about: it is read and decided again.
    pub const fn is_race(&self) -> bool {
        matches!(self, Self::Superseded(_) | Self::Exists(_) | Self::NotLeading)
    }
}

/// Writes with one field manager, and only while this process leads.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    leadership: Leadership,
    manager: Arc<str>,
    /// Fields that somebody else sets are taken over.
    force: bool,
    /// By uid, the version of an object whose status was replaced: what a cache holds until it hears of that.
    replaced: Versions,
    /// By namespace and name, the version that we made of an object: what a watch will tell of, and is no news.
    written: Versions,
}

/// Versions of objects, for as long as a cache may be behind.
#[derive(Clone, Default)]
struct Versions(Arc<Mutex<Remembered>>);

#[derive(Default)]
struct Remembered {
    versions: HashMap<String, (String, Instant)>,
    /// When so many are there, those whose time is over are looked for: not with each one that comes.
    room: usize,
}

impl Versions {
    /// No cache is behind for longer while its watch lives.
    const LAST: Duration = Duration::from_mins(1);

    fn insert(&self, key: String, version: String) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if remembered.versions.len() >= remembered.room {
            remembered.versions.retain(|_, (_, when)| now.duration_since(*when) < Self::LAST);
            remembered.room = (remembered.versions.len() * 2).max(100);
        }
        remembered.versions.insert(key, (version, now));
    }

    fn get(&self, key: &str) -> Option<String> {
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.versions.get(key).filter(|(_, when)| when.elapsed() < Self::LAST).map(|(version, _)| version.clone())
    }
}

/// Objects whose content is overwritten in memory as soon as it was sent or came back.
pub trait Wipe {
    /// Overwrites it.
    fn wipe(&mut self);
}

impl Wipe for Secret {
    fn wipe(&mut self) {
        for value in self.data.iter_mut().flat_map(BTreeMap::values_mut) {
            value.0.zeroize();
        }
    }
}

/// What can be written: a namespaced object whose content is overwritten afterwards.
pub trait Written:
    Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug + Wipe
{
}

impl<K> Written for K where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug + Wipe
{
}

/// Overwritten when dropped, whatever happens before.
struct Wiped<K: Wipe>(K);

impl<K: Wipe> Drop for Wiped<K> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

/// The version of an object that a decision rests on.
#[derive(Clone, Debug)]
pub struct Fence {
    /// metadata.uid
    pub uid: Option<String>,
    /// metadata.resourceVersion
    pub resource_version: Option<String>,
}

impl From<&ObjectMeta> for Fence {
    fn from(meta: &ObjectMeta) -> Self {
        Self { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() }
    }
}

/// Of an answer, the only thing that somebody wants to know of a status that was written.
#[derive(Deserialize)]
struct Answered {
    metadata: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    resource_version: String,
}

impl Writer {
    /// With the field manager `manager`.
    pub fn new(client: Client, leadership: Leadership, manager: &str) -> Self {
        Self { client, leadership, manager: manager.into(), force: true, replaced: Versions::default(), written: Versions::default() }
    }

    /// The same with another field manager: what others of ours set in the same object is not left out by what is applied.
    #[must_use]
    pub fn managed(&self, manager: &str) -> Self {
        Self { manager: manager.into(), ..self.clone() }
    }

    /// The field manager.
    pub fn manager(&self) -> &str {
        &self.manager
    }

    /// Whether this process leads: for what is done elsewhere than in the cluster.
    pub fn check(&self) -> Result<(), WriteError> {
        self.leadership.check()
    }

    /// The same, but fields that somebody else sets are refused ([`WriteError::Owned`]).
    #[must_use]
    pub fn without_force(&self) -> Self {
        Self { force: false, ..self.clone() }
    }

    /// The same in the cluster of `client`.
    #[must_use]
    pub fn of(&self, client: Client) -> Self {
        Self { client, replaced: Versions::default(), written: Versions::default(), ..self.clone() }
    }

    fn api<K>(&self, meta: &ObjectMeta) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default())
    }

    /// Sends a write. Nothing of what was written comes back but its metadata, of which `T` is a part.
    async fn ask<T: DeserializeOwned>(&self, asked: Result<http::Request<Vec<u8>>, kube::Error>) -> Result<T, kube::Error> {
        const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let mut asked = asked?;
        asked.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static(METADATA));
        self.client.request(asked).await
    }

    /// Creates `object`. Its fields belong to us only after the first [`Writer::apply`], which turns the entry of this create into one of apply.
    pub async fn create<K: Written>(&self, object: K) -> Result<ObjectMeta, WriteError> {
        let object = Wiped(object);
        self.leadership.check()?;
        let params = PostParams { field_manager: Some(self.manager.to_string()), ..PostParams::default() };
        let body = serde_json::to_vec(&object.0).map_err(kube::Error::SerdeError);
        let asked = body.and_then(|body| {
            Request::new(K::url_path(&(), object.0.meta().namespace.as_deref())).create(&params, body).map_err(kube::Error::BuildRequest)
        });
        let created: Result<PartialObjectMeta<K>, _> = self.ask(asked).await;
        let meta = created.map_err(|error| explain(&named(&object.0), error))?.metadata;
        self.wrote(&meta);
        Ok(meta)
    }

    /// Applies `object` if it is still the one of `read`, uid and resourceVersion. Fields that an earlier apply set and this one leaves out go.
    pub async fn apply<K: Written>(&self, object: K, read: &ObjectMeta) -> Result<ObjectMeta, WriteError> {
        let object = Wiped(object);
        let fence = self.adopt_create::<K>(read, &named(&object.0)).await?;
        self.send(object, fence, false).await
    }

    /// Whether [`Writer::apply`] would be accepted, as far as the API server and its webhooks can tell; nothing is changed.
    pub async fn would_apply<K: Written>(&self, object: K, read: &ObjectMeta) -> Result<(), WriteError> {
        self.send(Wiped(object), Fence::from(read), true).await.map(|_| ())
    }

    async fn send<K: Written>(&self, mut object: Wiped<K>, fence: Fence, dry_run: bool) -> Result<ObjectMeta, WriteError> {
        self.leadership.check()?;
        let described = named(&object.0);
        let name = object.0.meta().name.clone().unwrap_or_default();
        let api = self.api::<K>(object.0.meta());
        let meta = object.0.meta_mut();
        (meta.uid, meta.resource_version, meta.managed_fields) = (fence.uid, fence.resource_version, None);
        let params = PatchParams { dry_run, force: self.force, ..PatchParams::apply(&self.manager) };
        let written = api.patch_metadata(&name, &params, &Patch::Apply(&object.0)).await;
        let meta = written.map_err(|error| explain(&described, error))?.metadata;
        if !dry_run {
            self.wrote(&meta);
        }
        Ok(meta)
    }

    /// Applies a part of an object that is somebody else's: fields that nobody else sets. `body` names uid and resourceVersion of what was read.
    pub async fn apply_part(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        described: &str,
        body: &serde_json::Value,
    ) -> Result<(), WriteError> {
        self.leadership.check()?;
        let params = PatchParams::apply(&self.manager).force();
        api.patch_metadata(name, &params, &Patch::Apply(body)).await.map(|_| ()).map_err(|error| explain(described, error))
    }

    /// What we created is listed as an Update of ours; applied to as it is, keys that are left out later would stay for ever.
    async fn adopt_create<K: Written>(&self, read: &ObjectMeta, described: &str) -> Result<Fence, WriteError> {
        let entries = read.managed_fields.as_deref().unwrap_or_default();
        let ours = |operation: &str| {
            entries.iter().position(|entry| {
                entry.manager.as_deref() == Some(&*self.manager)
                    && entry.operation.as_deref() == Some(operation)
                    && entry.subresource.is_none()
            })
        };
        let (Some(place), None) = (ours("Update"), ours("Apply")) else { return Ok(Fence::from(read)) };
        self.leadership.check()?;
        let path = format!("/metadata/managedFields/{place}/operation");
        let patch = fenced(read, json!({"op": "replace", "path": path, "value": "Apply"}))
            .map_err(|error| WriteError::Unavailable { object: described.into(), message: error.to_string() })?;
        let name = read.name.clone().unwrap_or_default();
        let written = self.api::<K>(read).patch_metadata(&name, &self.params(), &Patch::<()>::Json(patch)).await;
        let written = written.map_err(|error| explain(described, error))?;
        Ok(Fence::from(&written.metadata))
    }

    /// Replaces the status of the object of `meta`, all of it, if the object is still as it was read.
    ///
    /// Not by apply: an object that cannot be read as its kind, so that its status was merged, would keep what a later apply leaves out.
    pub async fn replace_status<K: Resource<DynamicType = ()>>(
        &self,
        meta: &ObjectMeta,
        status: &impl Serialize,
    ) -> Result<(), WriteError> {
        self.leadership.check()?;
        let name = meta.name.as_deref().unwrap_or_default();
        let patch = fenced(meta, json!({"op": "add", "path": "/status", "value": status})).map_err(kube::Error::SerdeError);
        let request = Request::new(K::url_path(&(), meta.namespace.as_deref()));
        let asked = patch.and_then(|patch| {
            let patch = Patch::<()>::Json(patch);
            request.patch_subresource("status", name, &self.params(), &patch).map_err(kube::Error::BuildRequest)
        });
        let written: Result<Answered, _> = self.ask(asked).await;
        let written = written.map_err(|error| explain(&format!("the status of {} {name}", K::kind(&())), error))?.metadata;
        if let (Some(uid), Some(version)) = (&meta.uid, &meta.resource_version)
            && written.resource_version != *version
        {
            self.replaced.insert(uid.clone(), version.clone());
        }
        Ok(())
    }

    /// Whether `meta` is of before our last write to that object's status: who decides on it would take what was true then for what is said now.
    pub fn is_outdated(&self, meta: &ObjectMeta) -> bool {
        meta.uid.as_ref().and_then(|uid| self.replaced.get(uid)).is_some_and(|version| Some(version) == meta.resource_version)
    }

    /// The version of the object that we made, if that was just now: a cache may not know it yet.
    pub fn just_written(&self, namespace: &str, name: &str) -> Option<String> {
        self.written.get(&format!("{namespace}/{name}"))
    }

    fn wrote(&self, meta: &ObjectMeta) {
        if let (Some(namespace), Some(name), Some(version)) = (&meta.namespace, &meta.name, &meta.resource_version) {
            self.written.insert(format!("{namespace}/{name}"), version.clone());
        }
    }

    /// When we wrote to the object of `meta` last, as the API server noted it.
    pub fn wrote_at(&self, meta: &ObjectMeta) -> Option<Timestamp> {
        let ours = meta.managed_fields.iter().flatten().filter(|entry| entry.manager.as_deref() == Some(&*self.manager));
        ours.filter_map(|entry| bounded(entry.time.as_ref()?.0)).max()
    }

    /// Who else wrote to it since, as the API server noted it.
    pub fn last_stranger<'a>(&self, meta: &'a ObjectMeta) -> Option<&'a str> {
        let strangers = meta.managed_fields.as_deref()?.iter().filter(|entry| entry.manager.as_deref() != Some(&*self.manager));
        let last = strangers.max_by_key(|entry| entry.time.as_ref().map(|time| time.0))?;
        last.manager.as_deref().filter(|_| last.time.as_ref().map(|time| time.0) >= self.wrote_at(meta))
    }

    fn params(&self) -> PatchParams {
        PatchParams { field_manager: Some(self.manager.to_string()), ..PatchParams::default() }
    }

    /// Deletes `object` if it is still the one that was read. Not there any more is success.
    pub async fn delete<K: Written>(&self, read: &ObjectMeta) -> Result<(), WriteError> {
        self.leadership.check()?;
        let name = read.name.clone().unwrap_or_default();
        let preconditions = Preconditions { uid: read.uid.clone(), resource_version: read.resource_version.clone() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.api::<K>(read).delete(&name, &params).await {
            Ok(deleted) => {
                let _ = deleted.map_left(Wiped);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(explain(&format!("{} {name}", K::kind(&())), error)),
        }
    }
}

/// When anybody wrote to the object of `meta` last.
pub fn last_written(meta: &ObjectMeta) -> Option<Timestamp> {
    meta.managed_fields.iter().flatten().filter_map(|entry| bounded(entry.time.as_ref()?.0)).max()
}

/// A patch that is refused with a conflict when the object is another version than the one that was read. Another object of the same name is, too:
/// a version is a revision of the whole store.
fn fenced(read: &ObjectMeta, operation: serde_json::Value) -> Result<json_patch::Patch, serde_json::Error> {
    serde_json::from_value(json!([
        {"op": "replace", "path": "/metadata/resourceVersion", "value": read.resource_version},
        operation,
    ]))
}

fn named<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let meta = object.meta();
    format!("{} {}/{}", K::kind(&()), meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// Whether fields are somebody else's, rather than the version another one.
fn is_owned(status: &kube::core::Status) -> bool {
    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == "FieldManagerConflict")
}

fn explain(object: &str, error: kube::Error) -> WriteError {
    match error {
        kube::Error::Api(status) if status.is_already_exists() => WriteError::Exists(object.into()),
        kube::Error::Api(status) if status.is_conflict() && is_owned(&status) => {
            WriteError::Owned { object: object.into(), message: status.message }
        }
        kube::Error::Api(status) if status.is_conflict() => WriteError::Superseded(object.into()),
        // Applying to what has been deleted in the meantime.
        kube::Error::Api(status) if status.is_not_found() => WriteError::Superseded(object.into()),
        error if is_refusal(&error) => WriteError::Refused { object: object.into(), message: message(&error) },
        error => WriteError::Unavailable { object: object.into(), message: message(&error) },
    }
}
