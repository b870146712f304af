//! A SecretStore's own credential is replaced: another one is made and tried, written into its Secret, and the one before is destroyed when the
//! other has been in use for a while.
//!
//! ```text
//!   make, log in with it ─► Secret (with the name of the one before) ─► a later look with the new one ─► destroy the one before
//! ```
//!
//! How far it is stands with the credential. One that was made and never written is found by its mark, and destroyed with the one before.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, ResourceExt};

use super::{
    reason::Reason,
    status::{Halt, Problem},
    store::{OpenStore, OwnCredential, SecretData},
    store_controller::Context,
};
use crate::{
    api::SecretStore,
    cluster::{
        apply::WriteError,
        conditions::seconds,
        current,
        error::{is_refusal, message},
        owner::described,
        references::{self, ReferenceError, is_name},
    },
    ids,
};

/// The steps, in their order: what fault tests go through.
pub const STEPS: &[&str] = &["make-credential", "write-credential", "destroy-credential"];

/// The replaced credential is destroyed so long after, so that calls that were under way with it can end.
const OLD_CREDENTIAL_GRACE: SignedDuration = SignedDuration::from_mins(1);

/// So many that were replaced, and could not be destroyed yet, are noted.
const MOST_REPLACED: usize = 100;

/// The Secret as it was before the store was opened with what is in it: what somebody else puts there later is not overwritten.
pub struct Held {
    meta: ObjectMeta,
    data: SecretData,
}

/// What is noted with a credential, each of a Secret for itself.
struct Notes {
    /// When it was made.
    made_at: String,
    /// What the store calls the one before.
    replaced: String,
    /// Who writes it: what others of ours keep in the same Secret stays theirs.
    manager: String,
}

impl Notes {
    fn of(own: &OwnCredential) -> Self {
        let short = ids::short(own.place.key.as_bytes());
        Self {
            made_at: format!("seaworthy.dev/credential-made-at-{short}"),
            replaced: format!("seaworthy.dev/credential-replaced-{short}"),
            manager: format!("seaworthy-credential-{short}"),
        }
    }
}

/// Reads the Secret with the credential.
pub async fn read(context: &Context, own: &OwnCredential) -> Result<Held, Problem> {
    let name = &own.place.name;
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.operator_namespace);
    let unreadable = |why: String| Problem::new(Reason::StoreInvalid, format!("Secret {name} could not be read: {why}"));
    if !is_name(name) {
        return Err(unreadable("none can be called that".into()));
    }
    let secret = secrets.get_opt(name).await.map_err(|error| {
        let problem = unreadable(message(&error));
        if is_refusal(&error) { problem } else { Problem { reason: Reason::StoreUnavailable, ..problem } }
    })?;
    let Some(secret) = secret else {
        let named = format!("{}/{name}", context.operator_namespace);
        return Err(Problem::new(Reason::StoreInvalid, ReferenceError::NotFound(named).to_string()));
    };
    Ok(Held { meta: secret.metadata.clone(), data: references::data(secret) })
}

/// Does what is due. `open` has just been let in with what is in the Secret. Returns when the credential was made.
pub async fn replace(
    context: &Context,
    store: &SecretStore,
    (own, held): (&OwnCredential, &Held),
    open: &dyn OpenStore,
) -> Result<Option<Timestamp>, Halt> {
    let (now, notes, mark) = (context.clock.now(), Notes::of(own), store.uid().unwrap_or_default());
    let get = |key: &String| held.meta.annotations.as_ref().and_then(|annotations| annotations.get(key)).cloned();
    let made_at: Option<Timestamp> = get(&notes.made_at).and_then(|time| time.parse().ok());
    let due = made_at.is_none_or(|made| made.checked_add(own.every.signed()).is_ok_and(|due| due <= now));
    let writer = context.writer.managed(&notes.manager);
    if let (Some(replaced), false) = (get(&notes.replaced), due) {
        let made_at = made_at.unwrap_or(now);
        let Some(value) = held.data.get(&own.place.key).filter(|_| now.duration_since(made_at) >= OLD_CREDENTIAL_GRACE) else {
            return Ok(Some(made_at));
        };
        is_current(context, store).await?;
        let destroy = async {
            for replaced in replaced.split(' ') {
                context.writer.check()?;
                open.destroy_credentials(&mark, replaced).await?;
            }
            Ok::<_, Halt>(())
        };
        context.steps.run("destroy-credential", destroy).await?;
        context.audit.done("destroy", &described(store), Reason::RotationDue.as_str(), None);
        writer.apply(secret(context, own, &notes, (value, made_at, None)), &held.meta).await?;
        return Ok(Some(made_at));
    }
    if !due {
        return Ok(made_at);
    }
    is_current(context, store).await?;
    // A Secret that cannot be written to, or is always another, is no reason to make one credential after the other: it is told, and backed off from.
    let refused = |error: WriteError| Problem::new(Reason::WriteFailed, format!("the credential cannot be replaced: {error}"));
    writer.would_apply(secret(context, own, &notes, (b"", now, None)), &held.meta).await.map_err(refused)?;
    let make = async {
        context.writer.check()?;
        Ok::<_, Halt>(open.make_credential(&mark).await?)
    };
    let made = context.steps.run("make-credential", make).await?;
    // If the write below fails, the new credential is not destroyed: the API server may have stored it, and only the answer was lost. One that was made in
    // vain is found later by its mark. Those that could not be destroyed yet stay noted.
    let replaced = get(&notes.replaced).unwrap_or_default();
    let replaced: Vec<&str> =
        replaced.split(' ').filter(|one| !one.is_empty()).chain([made.replaces.as_str()]).take(MOST_REPLACED).collect();
    let content = (made.value.as_bytes(), now, Some(replaced.join(" ")));
    let written = writer.apply(secret(context, own, &notes, content), &held.meta);
    context.steps.run("write-credential", written).await.map_err(refused)?;
    context.audit.done("rotate", &described(store), Reason::RotationDue.as_str(), None);
    tracing::info!(store = store.name_any(), secret = own.place.name, "the credential of the store was replaced");
    Ok(Some(now))
}

/// Nothing is done for a SecretStore that is another by now, or by a process that does not lead any more.
async fn is_current(context: &Context, store: &SecretStore) -> Result<(), Halt> {
    context.writer.check()?;
    Ok(current::check(&Api::<SecretStore>::all(context.client.clone()), &store.metadata, &[]).await?)
}

/// The part of the Secret that is ours: the credential, and what is noted with it.
fn secret(context: &Context, own: &OwnCredential, notes: &Notes, (value, made_at, replaced): (&[u8], Timestamp, Option<String>)) -> Secret {
    let mut annotations = BTreeMap::from([(notes.made_at.clone(), seconds(made_at).0.to_string())]);
    annotations.extend(replaced.map(|replaced| (notes.replaced.clone(), replaced)));
    Secret {
        metadata: ObjectMeta {
            name: Some(own.place.name.clone()),
            namespace: Some(context.operator_namespace.clone()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(own.place.key.clone(), ByteString(value.to_vec()))])),
        ..Secret::default()
    }
}
