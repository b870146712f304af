//! An object that cannot be read as its kind still has a status: what was said about it before.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource,
    core::{ApiResource, DynamicObject},
};
use serde::de::DeserializeOwned;

use super::{apply::WriteError, error::message};

/// The status of the object of `meta`, as far as it can be read; else an empty one.
pub async fn status<K, S>(client: &Client, meta: &ObjectMeta) -> Result<S, WriteError>
where
    K: Resource<DynamicType = ()>,
    S: DeserializeOwned + Default,
{
    let (kind, name) = (ApiResource::erase::<K>(&()), meta.name.as_deref().unwrap_or_default());
    let api: Api<DynamicObject> = match &meta.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    };
    let object = format!("the status of {} {name}", K::kind(&()));
    let found = api.get_opt(name).await;
    let found = found.map_err(|error| WriteError::Unavailable { object: object.clone(), message: message(&error) })?;
    let mut found = found.filter(|found| found.metadata.uid == meta.uid).ok_or(WriteError::Superseded(object))?;
    Ok(serde_json::from_value(found.data["status"].take()).unwrap_or_default())
}
