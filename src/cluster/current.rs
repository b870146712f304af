//! Whether a resource of ours still is what a decision rests on. It comes from a cache, which in a process that slept is of yesterday.

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::{apply::WriteError, error::message};

/// Asks for the object of `meta`, which lies in `api`, once more; another generation, another object of that name, or another request in one of the `annotations` supersedes it.
///
/// It is asked after the Secret was read: who changes the resource later than this, and acts on it, changes the Secret, whose version fences the write.
pub async fn check<K>(api: &Api<K>, meta: &ObjectMeta, annotations: &[&str]) -> Result<(), WriteError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let name = meta.name.as_deref().unwrap_or_default();
    let namespace = meta.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let object = format!("{} {namespace}{name}", K::kind(&()));
    let now = api.get_metadata_opt(name).await;
    let now = now.map_err(|error| WriteError::Unavailable {
        object: object.clone(),
        message: format!("it could not be read again: {}", message(&error)),
    })?;
    let version = |meta: &ObjectMeta| {
        let asked = |key: &&str| meta.annotations.as_ref().and_then(|annotations| annotations.get(*key)).cloned();
        (meta.uid.clone(), meta.generation, meta.deletion_timestamp.is_some(), annotations.iter().map(asked).collect::<Vec<_>>())
    };
    if now.is_some_and(|now| version(&now.metadata) == version(meta)) { Ok(()) } else { Err(WriteError::Superseded(object)) }
}
