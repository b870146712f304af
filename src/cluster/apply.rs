//! The only writes of the crate to objects of a cluster: fenced by what was read, and by the lease.

use std::{collections::BTreeMap, fmt::Debug};

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::PartialObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use zeroize::Zeroize;

use super::{error::message, lease::Leadership};

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
    /// No answer, or one that does not say whether it was done.
    #[error("{object} could not be written: {message}")]
    Unavailable {
        /// Kind, namespace and name.
        object: String,
        /// What went wrong.
        message: String,
    },
}

/// Writes with one field manager, and only while this process leads.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    leadership: Leadership,
    manager: &'static str,
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

impl Writer {
    /// With the field manager `manager`.
    pub fn new(client: Client, leadership: Leadership, manager: &'static str) -> Self {
        Self { client, leadership, manager }
    }

    fn api<K>(&self, meta: &ObjectMeta) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default())
    }

    /// Creates `object`. Its fields belong to us only after the first [`Writer::apply`], which turns the entry of this create into one of apply.
    pub async fn create<K>(&self, mut object: K) -> Result<ObjectMeta, WriteError>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug + Wipe,
    {
        self.leadership.check()?;
        let params = PostParams { field_manager: Some(self.manager.into()), ..PostParams::default() };
        let created = self.api::<K>(object.meta()).create(&params, &object).await;
        object.wipe();
        let mut created = created.map_err(|error| explain(&named(&object), error))?;
        created.wipe();
        Ok(created.meta().clone())
    }

    /// Applies `object` if it is still the one of `read`, uid and resourceVersion. Fields that an earlier apply set and this one leaves out go.
    pub async fn apply<K>(&self, mut object: K, read: &ObjectMeta) -> Result<ObjectMeta, WriteError>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug + Wipe,
    {
        let described = named(&object);
        let fence = self.adopt_create::<K>(read, &described).await?;
        self.leadership.check()?;
        let name = object.meta().name.clone().unwrap_or_default();
        let api = self.api::<K>(object.meta());
        (object.meta_mut().uid, object.meta_mut().resource_version) = (fence.uid, fence.resource_version);
        object.meta_mut().managed_fields = None;
        let params = PatchParams::apply(self.manager).force();
        let mut patch = Patch::Apply(object);
        let written = api.patch_metadata(&name, &params, &patch).await;
        if let Patch::Apply(object) = &mut patch {
            object.wipe();
        }
        Ok(written.map_err(|error| explain(&described, error))?.metadata)
    }

    /// What we created is listed as an Update of ours; applied to as it is, keys that are left out later would stay for ever.
    async fn adopt_create<K>(&self, read: &ObjectMeta, described: &str) -> Result<Fence, WriteError>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let entries = read.managed_fields.as_deref().unwrap_or_default();
        let ours = |operation: &str| {
            entries.iter().position(|entry| {
                entry.manager.as_deref() == Some(self.manager)
                    && entry.operation.as_deref() == Some(operation)
                    && entry.subresource.is_none()
            })
        };
        let (Some(place), None) = (ours("Update"), ours("Apply")) else { return Ok(Fence::from(read)) };
        self.leadership.check()?;
        let patch: json_patch::Patch = serde_json::from_value(json!([
            {"op": "test", "path": "/metadata/uid", "value": read.uid},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": read.resource_version},
            {"op": "replace", "path": format!("/metadata/managedFields/{place}/operation"), "value": "Apply"},
        ]))
        .map_err(|error| WriteError::Unavailable { object: described.into(), message: error.to_string() })?;
        let name = read.name.clone().unwrap_or_default();
        let params = PatchParams { field_manager: Some(self.manager.into()), ..PatchParams::default() };
        let written = self
            .api::<K>(read)
            .patch_metadata(&name, &params, &Patch::<()>::Json(patch))
            .await
            .map_err(|error| explain(described, error))?;
        Ok(Fence::from(&written.metadata))
    }

    /// Applies `status` to the object of `meta` if that is still as it was read. `api` says where it lies.
    ///
    /// An object that cannot even be read as its kind (`readable` false) cannot be applied to; its status is merged instead.
    pub async fn apply_status<K>(
        &self,
        api: &Api<PartialObjectMeta<K>>,
        meta: &ObjectMeta,
        status: &impl Serialize,
        readable: bool,
    ) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()>,
    {
        self.leadership.check()?;
        let name = meta.name.clone().unwrap_or_default();
        let described = format!("the status of {} {name}", K::kind(&()));
        let body = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": name, "uid": meta.uid, "resourceVersion": meta.resource_version},
            "status": status,
        });
        let manager = PatchParams::apply(self.manager);
        let (params, patch) = if readable { (manager.force(), Patch::Apply(body)) } else { (manager, Patch::Merge(body)) };
        api.patch_status(&name, &params, &patch).await.map(|_| ()).map_err(|error| explain(&described, error))
    }

    /// Deletes `object` if it is still the one that was read. Not there any more is success.
    pub async fn delete<K>(&self, read: &ObjectMeta) -> Result<(), WriteError>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug + Wipe,
    {
        self.leadership.check()?;
        let name = read.name.clone().unwrap_or_default();
        let preconditions = Preconditions { uid: read.uid.clone(), resource_version: read.resource_version.clone() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.api::<K>(read).delete(&name, &params).await {
            Ok(deleted) => {
                let _ = deleted.map_left(|mut object| object.wipe());
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(explain(&format!("{} {name}", K::kind(&())), error)),
        }
    }
}

fn named<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let meta = object.meta();
    format!("{} {}/{}", K::kind(&()), meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn explain(object: &str, error: kube::Error) -> WriteError {
    match error {
        kube::Error::Api(status) if status.is_already_exists() => WriteError::Exists(object.into()),
        kube::Error::Api(status) if status.is_conflict() => WriteError::Superseded(object.into()),
        // Applying to what has been deleted in the meantime.
        kube::Error::Api(status) if status.is_not_found() => WriteError::Superseded(object.into()),
        kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
            WriteError::Refused { object: object.into(), message: status.message }
        }
        error => WriteError::Unavailable { object: object.into(), message: message(&error) },
    }
}
