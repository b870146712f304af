//! The pair is in its Secret: it is brought to who uses it, and put back if they cannot live with it.
//!
//! ```text
//!   restart (each in its turn) ─┬─► verify ─► complete
//!                               └─► roll-back ─► restart (who had moved)
//! ```
//!
//! How far it is stands with the pair ([`Stage`]) and on the workloads, so that whoever looks next goes on.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{
    controller::{Context, created, is_current},
    decide::{Action, Pair, Plan, Times},
    issuer::SecretData,
    memory::Memory,
    outputs::Material,
    reason::Reason,
    rotate::{self, Found, Rotated, Stored},
    status::{Halt, View},
    verify::{self, Proof},
    x509::Certificate,
};
use crate::{
    api::{CertificateRotation, restart::OnFailure, verify::Verify},
    cluster::{apply::WriteError, owner::described},
    rollout::{
        announce,
        change::{Change, Changed},
        roll::Value,
        stage::{Stage, obstacle},
    },
};

/// The steps after those of a rotation, in their order: what fault tests go through.
pub const STEPS: &[&str] = &["restart", "roll-back", "verify", "complete"];

/// A pair as it stands in its Secret.
pub struct Delivered {
    /// The pair.
    pub material: Material,
    /// The metadata of its Secret, after the last write.
    pub meta: ObjectMeta,
}

/// What cannot be done about the next pair is no reason to leave the present one half delivered, or not to take it back: it goes on with what is
/// stored, as it is stored.
pub async fn carry_on(context: &Context, rotation: &CertificateRotation, stored: Stored, view: &mut View) -> Result<(), WriteError> {
    let reached = view.rollout.is_some() || view.proof.is_some() || view.rotated;
    let Some(material) = Material::stored(&stored.data).filter(|_| !reached && !rotation.spec.suspend) else { return Ok(()) };
    let fingerprint = material.chain.first().map(Certificate::fingerprint);
    let ours = fingerprint == view.memory.fingerprint && matches!(view.pair, Some(Pair::Good(..)));
    let as_wanted =
        rotate::render(rotation, &material).is_ok_and(|data| data.iter().all(|(key, value)| stored.data.get(key) == Some(value)));
    let Some(mut meta) = stored.meta.clone().filter(|_| ours && as_wanted) else { return Ok(()) };
    let go_on = async {
        if !view.memory.change.is_noted() {
            is_current(context, rotation).await?;
            meta = rotate::store(context, rotation, &stored, (&material, &mut view.memory)).await?;
        }
        let times = Times::parse(&rotation.spec, context.clock.now()).ok();
        deliver(context, rotation, (Some(&Delivered { material, meta }), times.as_ref()), view).await
    };
    match Box::pin(go_on).await {
        Err(Halt::Superseded(error)) => Err(error),
        // The first problem is the one that is told.
        Ok(()) | Err(Halt::Problem(_)) => Ok(()),
    }
}

/// Restarts who is next; when all have it, says so; when one failed, puts the pair of before back. Without `times`, which cannot be read, nobody
/// can tell that a window is open.
pub async fn deliver(
    context: &Context,
    rotation: &CertificateRotation,
    (delivered, times): (Option<&Delivered>, Option<&Times>),
    view: &mut View,
) -> Result<(), Halt> {
    let (Some(delivered), Some(changed)) = (delivered, view.memory.change.since(view.created)) else { return Ok(()) };
    let now = context.clock.now();
    let data = rotate::render(rotation, &delivered.material)?;
    if let Some(restart) = &rotation.spec.restart {
        let value = Value {
            namespace: &rotation.namespace().unwrap_or_default(),
            secret: &rotation.spec.secret_name,
            data: &data,
            changed,
            named: format!("certificate {}", view.memory.revision),
            uid: &rotation.uid().unwrap_or_default(),
            opens: opens(times, &view.memory, now),
        };
        let (rollout, consumption) = context.roller.roll(restart, &value, now).await?;
        announce::restarts(
            (&context.events, &context.audit),
            rotation,
            &rotation.spec.secret_name,
            (Reason::Restarting.as_str(), &rollout.begun),
        );
        let rejected = rollout.rejected.then(|| rollout.failed.clone()).flatten();
        let over = rollout.over;
        (view.rollout, view.consumption) = (Some(rollout), Some(consumption));
        if let Some(why) = rejected.filter(|_| restart.on_failure == OnFailure::Rollback) {
            return Box::pin(put_back(context, rotation, (&delivered.meta, &why), view)).await;
        }
        if !over {
            return Ok(());
        }
    }
    if let Some(verify) = &rotation.spec.verify {
        let proof = prove(context, rotation, verify, (&delivered.material, &data)).await;
        let verified = proof.verification.verified_at.is_some() && proof.verification.failing_since.is_none();
        view.proof = Some(proof);
        if !verified {
            return Ok(());
        }
    }
    complete(context, rotation, (&delivered.meta, &data), view).await
}

/// When restarts may begin, if that is later than now.
fn opens(times: Option<&Times>, memory: &Memory, now: Timestamp) -> Option<Timestamp> {
    if memory.stage.is_rolled_back() {
        return None; // it is urgent that they get back what they can live with
    }
    let Some(times) = times else { return Some(now + SignedDuration::from_hours(24)) };
    // What could not wait for the window to be issued does not wait for it to be used.
    let waits = |issued: Timestamp| times.opens(issued).is_none();
    times.opens(now).filter(|_| memory.issued_at.is_none_or(waits))
}

/// Asks whether the certificate is served, unless that is known.
async fn prove(context: &Context, rotation: &CertificateRotation, verify: &Verify, (material, data): (&Material, &SecretData)) -> Proof {
    let now = context.clock.now();
    let fingerprint = material.chain.first().map(Certificate::fingerprint).unwrap_or_default();
    let question = verify::question(context, rotation, verify, fingerprint);
    let before = rotation.status.as_ref().and_then(|status| status.verification.as_ref());
    let known = verify::known(before, &question, now);
    if known.next.is_some() {
        return known;
    }
    match context.turns.take(&rotation.uid().unwrap_or_default(), verify::interval(&known), now) {
        Ok(_turn) => {
            let seen = context.steps.run("verify", verify::see(context, rotation, verify, data)).await;
            verify::judge(before, &question, &seen, now)
        }
        Err(later) => Proof { next: Some(later), ..known },
    }
}

/// Of what was not asked in this look, what is known stays.
pub fn recall(context: &Context, rotation: &CertificateRotation, view: &mut View) {
    if let (Some(verify), None, Some(Pair::Good(certificate, _))) = (&rotation.spec.verify, &view.proof, &view.pair) {
        let before = rotation.status.as_ref().and_then(|status| status.verification.as_ref());
        let proof = verify::known(before, &verify::question(context, rotation, verify, certificate.fingerprint()), context.clock.now());
        // While nothing is to be done, nobody asks; that is no reason to say that it is not served.
        let rests = matches!(view.plan, Some(Plan { action: Action::Rest, .. }));
        let unknown = proof.verification.verified_at.is_none() && proof.verification.failing_since.is_none();
        view.proof = (!rests || !unknown).then_some(proof);
    }
}

/// Everybody has it: what is there now is what is gone back to from the next one.
async fn complete(
    context: &Context,
    rotation: &CertificateRotation,
    (meta, data): (&ObjectMeta, &SecretData),
    view: &mut View,
) -> Result<(), Halt> {
    if !matches!(view.memory.stage, Stage::Open { .. }) {
        return Ok(());
    }
    let mut memory = Memory { stage: Stage::Complete, ..view.memory.clone() };
    context.steps.run("complete", rotate::write(context, rotation, meta, (data, &mut memory))).await?;
    view.memory = memory;
    Ok(())
}

async fn put_back(
    context: &Context,
    rotation: &CertificateRotation,
    (meta, why): (&ObjectMeta, &str),
    view: &mut View,
) -> Result<(), Halt> {
    let rollout = view.rollout.get_or_insert_default();
    match context.steps.run("roll-back", roll_back(context, rotation, (meta, &view.memory), why)).await? {
        Err(obstacle) => rollout.failed = Some(format!("{why}; the pair of before is not put back: {obstacle}")),
        Ok(Rotated { material, memory, meta }) => {
            tracing::warn!(object = rotation.name_any(), namespace = rotation.namespace(), why, "rolled back");
            let name = Reason::RolledBack.as_str();
            context.audit.done("roll-back", &described(rotation), name, Some(memory.revision));
            rollout.failed = None;
            rollout.next = Some(context.clock.now() + SignedDuration::from_secs(1));
            let mut chain = material.chain.into_iter();
            view.pair = Some(chain.next().map_or(Pair::Missing, |leaf| Pair::Good(Box::new(leaf), chain.collect())));
            (view.memory, view.created) = (memory, created(&meta));
        }
    }
    Ok(())
}

/// Writes the pair of `-previous` into the Secret, if it is what was there before the rotation. Err: why it is not put back.
async fn roll_back(
    context: &Context,
    rotation: &CertificateRotation,
    (meta, memory): (&ObjectMeta, &Memory),
    why: &str,
) -> Result<Result<Rotated, &'static str>, Halt> {
    let now = context.clock.now();
    let (_, previous) = rotate::previous(context, rotation).await?;
    if let Some(obstacle) = obstacle(&memory.stage, previous.as_ref().and_then(Found::pair), now) {
        return Ok(Err(obstacle));
    }
    let Some(previous) = previous else { return Ok(Err("its Secret is not there")) };
    let Some(material) = Material::stored(&previous.data) else { return Ok(Err("it cannot be read")) };
    let before = Memory::read(previous.meta.annotations.as_ref());
    let Ok(data) = rotate::render(rotation, &material) else { return Ok(Err("it cannot be written in the form that the spec asks for")) };
    is_current(context, rotation).await?;
    let replaced = match &memory.stage {
        Stage::Open { from: Some(from), .. } => *from,
        _ => memory.change.at.time().unwrap_or(now),
    };
    let mut back = Memory {
        revision: memory.revision + 1,
        fingerprint: material.chain.first().map(Certificate::fingerprint),
        // Of a time that nobody knows any more: all that is older than what replaced it.
        change: if before.change.is_noted() { before.change } else { Change { at: Changed::At(replaced), ..Change::default() } },
        stage: Stage::RolledBack { generation: rotation.metadata.generation.unwrap_or_default(), why: why.into() },
        shape: Some(rotate::shape(rotation, &data)),
        bundle: rotate::bundle(&data),
        ..memory.clone()
    };
    back.change.comes_back(replaced);
    let meta = rotate::write(context, rotation, meta, (&data, &mut back)).await?;
    Ok(Ok(Rotated { material, memory: back, meta }))
}
