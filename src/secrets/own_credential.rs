//! A SecretStore's own credential is replaced: another one is made and tried, written into its Secret, and the one before is destroyed when the
//! other has been in use for a while.
//!
//! ```text
//!   make, log in with it ─► Secret (with the name of the one before) ─► a look with the new one, a minute later ─► destroy the one before
//! ```
//!
//! How far it is stands with the credential. One that was made and never written is found by its mark, and destroyed with the one before.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, ResourceExt};

use super::{
    reason::Reason,
    status::Problem,
    store::{OpenStore, OwnCredential},
    store_controller::Context,
};
use crate::{
    api::SecretStore,
    cluster::{conditions::seconds, error::message},
};

/// When the credential was made.
const MADE_AT: &str = "seaworthy.dev/credential-made-at";
/// What the store calls the one before.
const REPLACED: &str = "seaworthy.dev/credential-replaced";

/// So long the one before is left, for who has opened the store with it.
const WHILE: SignedDuration = SignedDuration::from_mins(1);

/// When the credential was made, and what is still to be destroyed.
struct Noted {
    made_at: Option<Timestamp>,
    replaced: Option<String>,
}

fn noted(meta: &ObjectMeta) -> Noted {
    let get = |key: &str| meta.annotations.as_ref().and_then(|annotations| annotations.get(key)).cloned();
    Noted { made_at: get(MADE_AT).and_then(|time| time.parse().ok()), replaced: get(REPLACED) }
}

/// Does what is due. `open` has just been let in with what is in the Secret now. Returns when the credential was made.
pub async fn replace(
    context: &Context,
    store: &SecretStore,
    own: &OwnCredential,
    open: &dyn OpenStore,
) -> Result<Option<Timestamp>, Problem> {
    let now = context.clock.now();
    let name = &own.place.name;
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.operator_namespace);
    let unreadable = |error| Problem::new(Reason::StoreUnavailable, format!("Secret {name} could not be read: {}", message(&error)));
    let meta = secrets.get_metadata(name).await.map_err(unreadable)?.metadata;
    let noted = noted(&meta);
    let mark = store.uid().unwrap_or_default();
    let due = noted.made_at.is_none_or(|made| made.checked_add(own.every.signed()).is_ok_and(|due| due <= now));
    if let Some(replaced) = noted.replaced.filter(|_| !due) {
        let made_at = noted.made_at.unwrap_or(now);
        if now.duration_since(made_at) < WHILE {
            return Ok(Some(made_at));
        }
        open.destroy_credentials(&mark, &replaced).await?;
        context.audit.record("destroy", &described(store), Reason::RotationDue.as_str(), "success", None);
        let value = secrets.get(name).await.map_err(unreadable)?;
        let there = value.metadata.resource_version == meta.resource_version;
        let value = value.data.unwrap_or_default().remove(&own.place.key).filter(|_| there);
        if let Some(value) = value {
            write(context, own, &meta, (value, made_at, None)).await?;
        }
        return Ok(Some(made_at));
    }
    if !due {
        return Ok(noted.made_at);
    }
    // A Secret that cannot be written to is no reason to make one credential after the other.
    let tried = context.writer.would_apply(secret(context, own, (ByteString(Vec::new()), now, None)), &meta).await;
    tried.map_err(|error| Problem::new(Reason::WriteFailed, format!("the secret id cannot be replaced: {error}")))?;
    let made = open.make_credential(&mark).await?;
    let written = write(context, own, &meta, (ByteString(made.value.as_bytes().to_vec()), now, Some(made.replaces))).await;
    if written.is_err() {
        let _ = open.destroy_credentials(&mark, "").await; // else it is found by its mark the next time
    }
    written?;
    context.audit.record("rotate", &described(store), Reason::RotationDue.as_str(), "success", None);
    tracing::info!(store = store.name_any(), secret = name, "the credential of the store was replaced");
    Ok(Some(now))
}

async fn write(
    context: &Context,
    own: &OwnCredential,
    read: &ObjectMeta,
    content: (ByteString, Timestamp, Option<String>),
) -> Result<(), Problem> {
    let written = context.writer.apply(secret(context, own, content), read).await;
    written.map(|_| ()).map_err(|error| Problem::new(Reason::WriteFailed, error.to_string()))
}

/// The part of the Secret that is ours: the credential, and what is noted with it.
fn secret(context: &Context, own: &OwnCredential, (value, made_at, replaced): (ByteString, Timestamp, Option<String>)) -> Secret {
    let mut annotations = BTreeMap::from([(MADE_AT.to_owned(), seconds(made_at).0.to_string())]);
    annotations.extend(replaced.map(|replaced| (REPLACED.to_owned(), replaced)));
    Secret {
        metadata: ObjectMeta {
            name: Some(own.place.name.clone()),
            namespace: Some(context.operator_namespace.clone()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(own.place.key.clone(), value)])),
        ..Secret::default()
    }
}

fn described(store: &SecretStore) -> String {
    format!("SecretStore/{}", store.name_any())
}
