//! Act: make a pair and put it where consumers find it. Every step can be repeated.
//!
//! ```text
//!   open-issuer ─► issue ─► keep-previous ─► store
//! ```
//!
//! A process that dies before `store` has changed nothing that anybody uses; the next one finds the old pair and does all of it again. After
//! `store` everything that has to be known is in the Secret itself.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, ResourceExt};

use super::{
    controller::Context,
    decide::Pair,
    index::PREVIOUS,
    issuer::{IssuerError, OpenIssuer, SecretData},
    memory::Memory,
    outputs::{Material, to_api},
    reason::Reason,
    request::Request,
    status::{Halt, Problem},
    x509::Certificate,
};
use crate::{
    api::{
        CertificateRotation,
        certificate_rotation::{Algorithm, CreationPolicy, RotationPolicy},
    },
    cluster::{
        apply::last_written,
        error::message,
        fields,
        owner::{self, Refused, described, owned_by},
        references,
    },
    ids,
    keys::{Key, KeyError},
    rollout::{
        act,
        change::{Change, Changed},
        stage::{Base, Keep, Previous, Stage, keep},
    },
};

/// The type of the Secrets that are written.
pub const SECRET_TYPE: &str = "kubernetes.io/tls";

/// The steps, in their order: what fault tests go through.
pub const STEPS: &[&str] = &["open-issuer", "issue", "keep-previous", "store", "report"];

/// The Secret as it was read.
#[derive(Default)]
pub struct Stored {
    /// Its metadata; None if it is not there.
    pub meta: Option<ObjectMeta>,
    /// Its data.
    pub data: SecretData,
    /// What is written down with it.
    pub memory: Memory,
}

/// Why and as what a rotation is done.
#[derive(Debug)]
pub struct Order<'a> {
    /// Why.
    pub reason: Reason,
    /// Hash of the request.
    pub request: &'a str,
    /// Value of the `rotate` annotation.
    pub requested: &'a str,
    /// Identity of the issuer.
    pub issuer: &'a str,
}

/// What came of a rotation.
#[derive(Debug)]
pub struct Rotated {
    /// The pair.
    pub material: Material,
    /// What is written down with it.
    pub memory: Memory,
    /// The metadata of its Secret.
    pub meta: ObjectMeta,
}

/// Issues and stores a new pair.
pub async fn rotate(
    context: &Context,
    rotation: &CertificateRotation,
    stored: &Stored,
    (issuer, order): (&dyn OpenIssuer, &Order<'_>),
) -> Result<Rotated, Halt> {
    let now = context.clock.now();
    let steps = &context.steps;
    let material = steps.run("issue", issue(rotation, stored, issuer, now)).await?;
    // A Secret that was deleted takes its memory along; the count goes on where the status is.
    let revision = stored.memory.revision.max(rotation.status.as_ref().and_then(|status| status.revision).unwrap_or(0)) + 1;
    context.audit.done("issue", &described(rotation), order.reason.as_str(), Some(revision));
    let mut memory = Memory {
        request: Some(order.request.into()),
        issuer: Some(order.issuer.into()),
        authority: Some(issuer.authority().fingerprint()),
        revision,
        rotation: Some(ids::random::<8>()),
        reason: Some(order.reason.to_string()),
        issued_at: Some(Timestamp::from_second(now.as_second()).unwrap_or(now)),
        handled: Some(order.requested.into()),
        change: Change { at: stored.memory.change.at, ..Change::default() },
        stage: Stage::Complete,
        fingerprint: None,
        shape: None,
        bundle: None,
    };
    let base = steps
        .run("keep-previous", async {
            would_store(context, rotation, stored, (&material, &memory)).await?;
            keep_previous(context, rotation, stored, order.reason).await
        })
        .await?;
    if rotation.spec.restart.is_some() || rotation.spec.verify.is_some() {
        let from = match &stored.memory.stage {
            Stage::Open { from, .. } => from.or(replaced_at(stored)),
            _ => None,
        };
        memory.stage = Stage::Open { base, from: from.filter(|_| base.is_some()) };
    }
    let meta = steps.run("store", store(context, rotation, stored, (&material, &mut memory))).await?;
    context.audit.done("store", &described(rotation), order.reason.as_str(), Some(memory.revision));
    Ok(Rotated { material, memory, meta })
}

/// Since when the stored data is what it is.
fn replaced_at(stored: &Stored) -> Option<Timestamp> {
    stored.memory.change.at.time().or(stored.memory.issued_at)
}

/// A key and a certificate for it, verified.
async fn issue(rotation: &CertificateRotation, stored: &Stored, issuer: &dyn OpenIssuer, now: Timestamp) -> Result<Material, Problem> {
    let spec = &rotation.spec;
    let kept = match spec.private_key.rotation_policy {
        RotationPolicy::Never => {
            stored.data.get(super::outputs::KEY).and_then(|pem| Key::from_pem(pem).ok()).filter(|key| key.fits(&spec.private_key))
        }
        RotationPolicy::Always => None,
    };
    let key = match kept {
        Some(key) => key,
        None => generate(spec.private_key.clone()).await.map_err(|error| Problem::new(Reason::KeyGenerationFailed, error.to_string()))?,
    };
    let request = Request { spec, key: &key, now };
    let issued = issuer.issue(&request).await?;
    request
        .verify(&issued)
        .map_err(|unfit| Problem::new(Reason::IssuerBadResponse, format!("the issuer's answer was refused: {unfit}")))?;
    Ok(Material::new(issued, key))
}

/// RSA keys take long enough to hold others up.
async fn generate(spec: crate::api::certificate_rotation::PrivateKey) -> Result<Key, KeyError> {
    if spec.algorithm == Algorithm::Rsa {
        return tokio::task::spawn_blocking(move || Key::generate(&spec)).await.unwrap_or(Err(KeyError::Generate));
    }
    Key::generate(&spec)
}

/// Reads the Secret `name`.
pub async fn get(context: &Context, namespace: &str, name: &str) -> Result<Option<Secret>, Problem> {
    let found = Api::<Secret>::namespaced(context.client.clone(), namespace).get_opt(name).await;
    found.map_err(|error| Problem::new(Reason::WriteFailed, format!("Secret {name} could not be read: {}", message(&error))))
}

/// The Secret with the previous pair: its name, and it if it is there.
pub async fn previous(context: &Context, rotation: &CertificateRotation) -> Result<(String, Option<Found>), Problem> {
    let name = format!("{}{PREVIOUS}", rotation.spec.secret_name);
    let there = get(context, &rotation.namespace().unwrap_or_default(), &name).await?;
    let there = there.map(|secret| Found::read(rotation, secret)).transpose()?;
    Ok((name, there))
}

/// Puts the stored pair into `<secretName>-previous`, or, with `history: 0`, removes an older one of ours from there. Returns what can be gone back to.
async fn keep_previous(context: &Context, rotation: &CertificateRotation, stored: &Stored, reason: Reason) -> Result<Base, Halt> {
    if rotation.spec.history == 0 {
        drop_previous(context, rotation, reason).await?;
        return Ok(None);
    }
    // A pair that the issuer did not sign is somebody else's: the one before it is still the previous one.
    let ours = reason != Reason::NotTrusted && matches!(super::outputs::read(&stored.data), Pair::Good(..));
    let revision = ours.then_some(stored.memory.revision);
    if revision.is_none() && !matches!(stored.memory.stage, Stage::Open { .. }) {
        return Ok(None); // whatever is there stays
    }
    let (name, there) = previous(context, rotation).await?;
    let base = match keep(&stored.memory.stage, revision, there.as_ref().and_then(Found::pair), context.clock.now()) {
        Keep::Leave(base) => return Ok(base),
        Keep::Replace(base) => base,
    };
    let mut data = SecretData::new();
    for key in [super::outputs::CERTIFICATE, super::outputs::KEY, super::outputs::CA] {
        data.insert(key.into(), stored.data.get(key).cloned().unwrap_or_default());
    }
    let memory = Memory { shape: None, stage: Stage::Complete, ..stored.memory.clone() };
    let secret = || secret(rotation, &name, (&data, &memory), false);
    match there {
        // An earlier attempt got this far.
        Some(there) if there.data == data && Memory::read(there.meta.annotations.as_ref()) == memory => return Ok(base),
        Some(there) => context.writer.apply(secret(), &there.meta).await?,
        None => context.writer.create(secret()).await?,
    };
    context.audit.done("keep-previous", &described(rotation), reason.as_str(), Some(stored.memory.revision));
    Ok(base)
}

async fn drop_previous(context: &Context, rotation: &CertificateRotation, reason: Reason) -> Result<(), Halt> {
    if let (_, Some(there)) = previous(context, rotation).await? {
        let revision = Memory::read(there.meta.annotations.as_ref()).revision;
        context.writer.delete::<Secret>(&there.meta).await?;
        context.audit.done("delete-previous", &described(rotation), reason.as_str(), Some(revision));
    }
    Ok(())
}

/// Makes the Secret with the previous pair look as the spec now says, or go, without a rotation.
pub async fn dress_previous(context: &Context, rotation: &CertificateRotation) -> Result<(), Halt> {
    if rotation.spec.history == 0 {
        return drop_previous(context, rotation, Reason::Current).await;
    }
    if let (name, Some(there)) = previous(context, rotation).await? {
        let memory = Memory::read(there.meta.annotations.as_ref());
        context.writer.apply(secret(rotation, &name, (&there.data, &memory), false), &there.meta).await?;
    }
    Ok(())
}

/// Asks whether [`store`] would be accepted, before the previous pair makes room for the one that is to go.
async fn would_store(
    context: &Context,
    rotation: &CertificateRotation,
    stored: &Stored,
    (material, memory): (&Material, &Memory),
) -> Result<(), Halt> {
    let Some(meta) = &stored.meta else { return Ok(()) };
    let data = render(rotation, material)?;
    context.writer.would_apply(secret(rotation, &rotation.spec.secret_name, (&data, memory), true), meta).await?;
    Ok(())
}

/// Writes the pair as the spec wants it to look, fenced by what was read.
pub async fn store(
    context: &Context,
    rotation: &CertificateRotation,
    stored: &Stored,
    (material, memory): (&Material, &mut Memory),
) -> Result<ObjectMeta, Halt> {
    let data = render(rotation, material)?;
    memory.shape = Some(shape(rotation, &data));
    memory.bundle = bundle(&data);
    let fingerprint = material.chain.first().map(Certificate::fingerprint);
    let before = &stored.memory;
    let is_same = (&fingerprint, &memory.shape, &memory.bundle) == (&before.fingerprint, &before.shape, &before.bundle);
    let swapped = memory.fingerprint.is_some() && memory.fingerprint != fingerprint;
    memory.fingerprint = fingerprint;
    let Some(read) = &stored.meta else {
        memory.change.becomes_new(Changed::AtCreation);
        let secret = secret(rotation, &rotation.spec.secret_name, (&data, memory), true);
        return Ok(context.writer.create(secret).await?);
    };
    let differs = data.iter().any(|(key, value)| stored.data.get(key) != Some(value));
    if differs && is_same && before.stage == Stage::Complete {
        memory.change.is_put_right(context.edits.since(&rotation.uid().unwrap_or_default()));
    } else if differs {
        memory.change.becomes_new(Changed::JustNow);
    } else if swapped {
        // The data is right as it stands, and it was somebody else who made it so.
        memory.change.becomes_new(last_written(read).map_or(memory.change.at, Changed::At));
    } else if let Some(time) = context.writer.wrote_at(read).filter(|_| !memory.change.is_noted()) {
        memory.change.note(time);
    }
    if swapped && memory.stage.is_rolled_back() {
        memory.stage = Stage::Complete; // it is not what was put back any more
    } else if (differs || swapped) && memory.rotation == stored.memory.rotation {
        memory.stage = std::mem::take(&mut memory.stage).redressed(replaced_at(stored));
    }
    let written = write(context, rotation, read, (&data, memory)).await?;
    context.edits.is_right(&rotation.uid().unwrap_or_default());
    Ok(written)
}

/// Writes it with what is to be remembered.
pub async fn write(
    context: &Context,
    rotation: &CertificateRotation,
    read: &ObjectMeta,
    (data, memory): (&SecretData, &mut Memory),
) -> Result<ObjectMeta, Halt> {
    let mut change = memory.change.clone();
    let with = |change: &Change| {
        let memory = Memory { change: change.clone(), ..memory.clone() };
        secret(rotation, &rotation.spec.secret_name, (data, &memory), true)
    };
    let written = act::store(&context.writer, with, read, &mut change).await?;
    memory.change = change;
    Ok(written)
}

/// How the Secret compares with what the spec wants, given that its pair stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// As it should.
    Right,
    /// As an earlier spec or issuer wanted it, or the time of the last write is not noted yet.
    Outdated,
    /// As nobody wanted it: somebody else changed it.
    Altered,
}

/// Compares.
pub fn looks(context: &Context, rotation: &CertificateRotation, stored: &Stored, material: &Material) -> Result<Looks, Problem> {
    let data = render(rotation, material)?;
    let meta = stored.meta.clone().unwrap_or_default();
    let swapped = stored.memory.fingerprint != material.chain.first().map(Certificate::fingerprint);
    if stored.memory.shape.as_deref() != Some(&shape(rotation, &data)) || !stored.memory.change.is_noted() || swapped {
        return Ok(Looks::Outdated);
    }
    let wanted = secret(rotation, &rotation.spec.secret_name, (&SecretData::new(), &stored.memory), true).metadata;
    let others = data.iter().filter(|(key, value)| stored.data.get(*key) != Some(*value));
    let others: Vec<&str> = others.map(|(key, _)| key.as_str()).collect();
    let uid = rotation.uid().unwrap_or_default();
    if others.is_empty() {
        context.edits.is_right(&uid);
    } else {
        context.edits.is_edited(&uid, fields::set_by_others_at(&meta, context.writer.manager(), ("data", others.iter().copied())));
    }
    Ok(match others.is_empty() && owner::is_dressed(&meta, &wanted) {
        true => Looks::Right,
        false if stored.meta.as_ref().is_some_and(|meta| context.writer.last_stranger(meta).is_some()) => Looks::Altered,
        false => Looks::Outdated, // nobody else was there: a spec or an issuer that wants it otherwise
    })
}

/// The data of the Secret that the spec asks for.
pub fn render(rotation: &CertificateRotation, material: &Material) -> Result<SecretData, Problem> {
    material.render(&rotation.spec).map_err(|error| Problem::new(Reason::KeyGenerationFailed, error.to_string()))
}

/// A hash of the CA bundle.
pub fn bundle(data: &SecretData) -> Option<String> {
    data.get("ca.crt").map(|bundle| ids::hash(bundle))
}

/// A hash of what the Secret looks like beside the values: a part that the spec no longer wants is seen by it.
pub fn shape(rotation: &CertificateRotation, data: &SecretData) -> String {
    let keys: Vec<&String> = data.keys().collect();
    let policy = rotation.spec.creation_policy == CreationPolicy::Owner;
    let text = serde_json::to_string(&(keys, &rotation.spec.secret_template, policy, rotation.spec.history)).unwrap_or_default();
    ids::hash(text.as_bytes())
}

fn secret(rotation: &CertificateRotation, name: &str, (data, memory): (&SecretData, &Memory), template: bool) -> Secret {
    let owned_by = owned_by(rotation);
    let template = rotation.spec.secret_template.clone().filter(|_| template).unwrap_or_default();
    let mut labels = template.labels;
    labels.insert(owner::OWNER_HASH.into(), owner::owner_hash(&owned_by));
    let mut annotations: BTreeMap<_, _> = template.annotations.into_iter().chain(memory.annotations()).collect();
    annotations.insert(owner::OWNER.into(), owned_by);
    let owner = (rotation.spec.creation_policy == CreationPolicy::Owner).then(|| vec![owner::reference(rotation)]);
    Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: rotation.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: owner,
            ..ObjectMeta::default()
        },
        type_: Some(SECRET_TYPE.into()),
        data: Some(to_api(data)),
        ..Secret::default()
    }
}

/// A Secret of this resource's own.
pub struct Found {
    /// Its metadata.
    pub meta: ObjectMeta,
    /// Its data.
    pub data: SecretData,
}

impl Found {
    /// The pair that it holds.
    pub fn pair(&self) -> Option<Previous> {
        match super::outputs::read(&self.data) {
            Pair::Good(certificate, _) => {
                let memory = Memory::read(self.meta.annotations.as_ref());
                // Another one than was kept there was put there by somebody else.
                let ours = memory.fingerprint.is_none_or(|known| known == certificate.fingerprint());
                ours.then_some(Previous { revision: memory.revision, end: certificate.not_after })
            }
            _ => None,
        }
    }

    /// Takes a Secret that was read, and refuses one that is not this resource's, saying whose it is.
    pub fn read(rotation: &CertificateRotation, secret: Secret) -> Result<Self, Problem> {
        owner::check(&secret, &owned_by(rotation), SECRET_TYPE, "spec.secretName").map_err(|refused| match refused {
            Refused::Reserved(message) => Problem::new(Reason::ReservedType, message),
            Refused::NotOurs(message) => Problem::new(Reason::NotOurs, message),
        })?;
        let (meta, data) = (secret.metadata.clone(), references::data(secret));
        Ok(Self { meta, data })
    }
}

/// Opens the issuer, bounded in time: an issuer that hangs holds one object up, not a worker for ever.
pub async fn open<'a>(
    open: impl Future<Output = Result<Box<dyn OpenIssuer>, IssuerError>> + 'a,
) -> Result<Box<dyn OpenIssuer>, IssuerError> {
    const OPEN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
    tokio::time::timeout(OPEN_TIMEOUT, open)
        .await
        .unwrap_or_else(|_| Err(IssuerError::Unavailable(format!("the issuer did not answer within {OPEN_TIMEOUT:?}"))))
}
