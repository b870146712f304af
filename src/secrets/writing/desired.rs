//! What the Secret is to hold: what the store has, what is generated, what is made out of both, and for a while the previous values.

use aws_lc_rs::hmac;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};

use super::{
    managed_secret::{self, ManagedSecret},
    previous, previous_over,
    push::{self, Generated, Replaceable, replaceable},
    rejected::{self, consumed},
    retire,
    rotate::{self, Cause, Pending},
};
use crate::{
    api::{REFRESH_ANNOTATION, ROTATE_ANNOTATION, SecretRotation, secret_rotation::SecretRotationSpec},
    cluster::{apply::WriteError, error::message, noticed, owner::described},
    rollout::stage::Stage,
    secrets::{
        contents::{
            compose::{self, Gathered, Gone, Remote},
            property::Bytes,
        },
        context::{Context, Look, annotation, is_current},
        decide::{Plan, TargetState},
        memory::{Memory, Superseded, Versions, hash},
        reading::{
            read::{Reading, Source},
            refresh_cache::Snapshot,
        },
        reason::Reason,
        status::{Halt, Problem, View, waiting},
        store::SecretData,
    },
};

/// What the Secret is to hold, and what is to be remembered with it. None: it is left as it was put back.
pub(in crate::secrets) async fn desired(
    look: Look<'_>,
    (source, read): (Option<&Source>, Remote),
    view: &mut View,
) -> Result<Option<(SecretData, Memory)>, Halt> {
    let Look { context, rotation, held, facts, .. } = look;
    let (spec, plan, now) = (&rotation.spec, facts.plan, facts.now);
    managed_secret::may_generate(rotation, held)?;
    let key = context.roller.restarter.key().await?;
    let remote = match source {
        Some(source) => context.steps.run("read", Reading::of(context, rotation, source, &plan).all(read)).await?,
        None => Remote::default(),
    };
    let current = source
        .filter(|source| source.store.can_retire())
        .map(|source| retire::current(rotation, &source.resolved, &remote, &key))
        .unwrap_or_default();
    let (bytes, is_periodic) = (remote.bytes(), !spec.reads_own_namespace() && spec.is_periodic());
    let made =
        source.filter(|_| is_periodic).and_then(|source| context.refresh_cache.snapshot(spec, source, (&facts.request, &remote), now));
    let work = move |spec: &SecretRotationSpec| {
        let gathered = compose::gather(spec, &remote)?;
        let gone = compose::judge(spec, &gathered)?;
        Ok((gathered, gone))
    };
    let (mut gathered, gone) = on_own_thread(context, spec, bytes, work).await?;
    if gone == Gone::Everything {
        return Err(everything_is_gone(context, rotation, held, view).await?.into());
    }
    view.read_at = source.map(|_| now).filter(|_| !is_in_between(rotation, plan, now));
    view.answers = Some(annotation(rotation, REFRESH_ANNOTATION).into());
    if waits_for_person(look, &gathered) {
        // What is kept of before goes in time all the same.
        if plan.retire {
            return previous_over::retired(look).await.map(Some);
        }
        view.snapshot = made;
        return Ok(None);
    }
    if let Some(differing) =
        gathered.differing.take().filter(|_| facts.pending.is_none() && !matches!(held.memory.stage, Stage::Open { .. }))
    {
        return Err(Problem::new(Reason::StoreConflict, differing).into());
    }
    Box::pin(put_together(look, source, Read { gathered, current, made, bytes }, view)).await.map(Some)
}

/// What was read.
struct Read {
    gathered: Gathered,
    /// The versions that are the current ones of what is pushed.
    current: Superseded,
    /// Of what was read, for the next look.
    made: Option<Snapshot>,
    /// Of all values together.
    bytes: usize,
}

/// What was read, with what is generated, kept of before, and made out of all that; brought to the store, as far as it is pushed there.
async fn put_together(
    look: Look<'_>,
    source: Option<&Source>,
    Read { mut gathered, current, made, bytes }: Read,
    view: &mut View,
) -> Result<(SecretData, Memory), Halt> {
    let Look { context, rotation, held, facts, .. } = look;
    let key = context.roller.restarter.key().await?;
    let pending = values_on_their_way(look, (&gathered, &key), current).await?;
    let mut memory = held.memory.clone();
    if facts.plan.retire {
        memory.versions.retire_superseded();
    }
    let replaced = previous::replaced(look, pending.as_ref(), (&gathered, &key));
    let (mut values, is_as_read) = with_generated(look, std::mem::take(&mut gathered.values), pending.as_ref());
    previous::keep(look, (pending.as_ref(), &replaced), &mut values, &mut memory);
    memory.hidden = rejected::hidden(rotation, &key, &values);
    // What cannot be put together goes nowhere.
    let mut data = rendered(look, values.clone(), bytes).await?;
    previous_over::check_texts(look, &data, &memory).await?;
    let (kept, is_pushed) = to_the_store(look, source, (&gathered, &data, pending.as_ref()), &mut memory.versions).await?;
    if !kept.is_empty() {
        values.extend(kept);
        data = rendered(look, values, bytes).await?;
    }
    // What was read before the store was written to, or is held back, is not what the Secret is made of.
    view.snapshot = made.filter(|_| is_as_read && !is_pushed);
    if view.snapshot.is_none() && source.is_some() {
        context.refresh_cache.forget(&noticed::key(rotation));
    }
    update_memory(look, pending.as_ref(), &data, &mut memory);
    memory.hash(&key, &data);
    leave_theirs(look, (pending.as_ref(), &gathered), &mut memory);
    Ok((data, memory))
}

/// While values are on their way, a generated one that somebody else has changed or removed, and no store has, still counts as edited: that is told as soon
/// as nothing is on its way any more.
fn leave_theirs(look: Look<'_>, (pending, gathered): (Option<&Pending>, &Gathered), memory: &mut Memory) {
    let Some(pending) = pending else { return };
    let is_nowhere = |name: &String| !gathered.remote.contains(name) || gathered.gone.contains_key(name);
    for name in edited(look).into_iter().filter(|name| !pending.data.contains_key(name) && is_nowhere(name)) {
        memory.values.extend(look.held.memory.values.get(&name).map(|known| (name.clone(), known.clone())));
    }
}

/// The values with what is public of them, and the texts that are made of them.
async fn rendered(look: Look<'_>, mut values: SecretData, bytes: usize) -> Result<SecretData, Halt> {
    let key = look.context.roller.restarter.key().await?;
    let work = move |spec: &SecretRotationSpec| {
        compose::publish(spec, &mut values)?;
        compose::render(spec, values, &|value| salted(&key, value))
    };
    Ok(on_own_thread(look.context, &look.rotation.spec, bytes, work).await?)
}

/// Whether values are lacking that were generated and taken back with the others: they are not made anew before somebody changes something.
fn waits_for_person(look: Look<'_>, gathered: &Gathered) -> bool {
    let Look { rotation, held, facts, .. } = look;
    let lacking = |name: &String| !gathered.values.contains_key(name) && !held.data.contains_key(name);
    let mut generated = rotation.spec.generators();
    let asked = facts.pending.is_some() || facts.plan.generate.is_some();
    !asked && rejected::is_taken_back(look, &held.memory) && generated.any(|generate| lacking(&generate.secret_key))
}

/// The generated values that somebody else has changed or removed in the Secret.
fn edited(look: Look<'_>) -> Vec<String> {
    let TargetState::Edited(keys) = &look.facts.target else { return Vec::new() };
    let generated = look.rotation.spec.generators().map(|generate| &generate.secret_key);
    generated.filter(|name| keys.contains(name)).cloned().collect()
}

/// Where every look reads, the time is noted as often as elsewhere.
fn is_in_between(rotation: &SecretRotation, plan: Plan, now: Timestamp) -> bool {
    let is_known = rotation.status.as_ref().is_some_and(|status| status.last_sync_time.is_some());
    rotation.spec.reads_own_namespace() && is_known && plan.next_sync.is_some_and(|due| due > now)
}

/// Brings to the store what is on its way, or else what it lacks. Returns the values that the store has and keeps, and whether it was to be written to.
async fn to_the_store(
    look: Look<'_>,
    source: Option<&Source>,
    (gathered, data, pending): (&Gathered, &SecretData, Option<&Pending>),
    versions: &mut Versions,
) -> Result<(SecretData, bool), Halt> {
    let Look { context, rotation, held, facts, .. } = look;
    let Some(source) = source else { return Ok((SecretData::new(), pending.is_some())) };
    let Some(pending) = pending else {
        let is_pushed = push_again(look, source, (gathered, data), versions).await?;
        return Ok((SecretData::new(), is_pushed));
    };
    managed_secret::may_add(context, rotation, held, data.clone()).await?;
    is_current(context, rotation).await?;
    // Of a Secret that was deleted meanwhile it stands with what is on its way, which values there were.
    let mut known = Replaceable::new();
    // What was taken back may stand there again: who asks for others has it replaced.
    for name in pending.data.keys() {
        let before = [pending.memory.values.get(name), held.memory.values.get(name)].into_iter().flatten();
        known.insert(name.clone(), before.chain(&held.memory.rejected).cloned().collect());
    }
    let noted = &pending.memory.versions.superseded;
    let token = pending.memory.rotation.as_deref().unwrap_or_default();
    let reason = facts.plan.reason;
    let generated = Generated { source, values: &pending.data, known: &known, token, noted, reason, back: false };
    let kept = context.steps.run("push", push::generated(context, rotation, &generated, versions)).await?;
    Ok((kept, true))
}

/// What was read, with the generated values that are on their way or here. Whether they are those that were read.
fn with_generated(look: Look<'_>, mut values: SecretData, pending: Option<&Pending>) -> (SecretData, bool) {
    let Look { rotation, held, facts, .. } = look;
    // What is being brought to consumers is not changed under way because somebody has changed it in the store; that comes afterwards.
    let rests = matches!(held.memory.stage, Stage::Open { .. }) && matches!(facts.plan.read, Some(Reason::RefreshDue | Reason::Modified));
    let edited = edited(look);
    let mut is_as_read = true;
    let generated = rotation.spec.generators();
    for name in generated.map(|generate| &generate.secret_key) {
        let here = || held.data.get(name).filter(|_| rests && !edited.contains(name) || !values.contains_key(name));
        if let Some(value) = pending.and_then(|pending| pending.data.get(name)).or_else(here) {
            is_as_read &= values.get(name).is_none_or(|read| read == value);
            values.insert(name.clone(), value.clone());
        }
    }
    (values, is_as_read)
}

/// What is remembered with the values.
fn update_memory(look: Look<'_>, pending: Option<&Pending>, data: &SecretData, memory: &mut Memory) {
    let Look { rotation, held, facts, .. } = look;
    // Another spec that asks for the same is tried once.
    if let Stage::RolledBack { why, .. } = &held.memory.stage {
        memory.stage = Stage::RolledBack { generation: rotation.metadata.generation.unwrap_or_default(), why: why.clone() };
    }
    memory.request = Some(facts.request.clone());
    if memory.handled_rotate.is_none() || facts.plan.read == Some(Reason::Requested) {
        memory.handled_rotate = Some(annotation(rotation, ROTATE_ANNOTATION).into());
    }
    let second = Timestamp::from_second(facts.now.as_second()).unwrap_or(facts.now);
    if rotation.spec.rotation.is_some() {
        // With a Secret that was deleted its values are no younger, where a store has them.
        let told = rotation.status.as_ref().and_then(|status| status.last_rotation_time.as_ref()).map(|time| time.0.min(second));
        memory.rotated_at.get_or_insert(told.unwrap_or(second));
    }
    if let Some(pending) = pending
        && memory.rotation != pending.memory.rotation
    {
        (memory.rotation, memory.reason) = (pending.memory.rotation.clone(), pending.memory.reason.clone());
        memory.started_at = pending.memory.started_at;
        memory.handled_rotate.clone_from(&pending.memory.handled_rotate);
        // One that was lacking does not make those beside it younger.
        let is_one_more = pending.memory.reason.as_deref() == Some(Reason::Missing.as_str());
        if !is_one_more || !has_generated(rotation, &held.memory) {
            memory.rotated_at = Some(second);
        }
    } else {
        note_change(look, data, (memory, facts.plan.reason));
    }
}

/// Whether there was a generated value.
fn has_generated(rotation: &SecretRotation, memory: &Memory) -> bool {
    rotation.spec.generators().any(|generate| memory.values.contains_key(&generate.secret_key))
}

/// If what consumers use has changed, that is a rotation of its own: with an id, a reason and a time.
pub(super) fn note_change(look: Look<'_>, data: &SecretData, (memory, reason): (&mut Memory, Reason)) {
    let Look { rotation, held, facts, .. } = look;
    if consumed(rotation, &held.memory, data) != consumed(rotation, &held.memory, &held.ours()) {
        (memory.rotation, memory.reason) = (Some(crate::ids::random::<8>()), Some(reason.to_string()));
        memory.started_at = Some(Timestamp::from_second(facts.now.as_second()).unwrap_or(facts.now));
    }
}

/// What the store was to have and does not: a `push` that was added later, or a value that somebody deleted there. Returns whether there was any.
async fn push_again(
    look: Look<'_>,
    source: &Source,
    (gathered, data): (&Gathered, &SecretData),
    versions: &mut Versions,
) -> Result<bool, Halt> {
    let Look { context, rotation, held, facts, .. } = look;
    let hash_key = context.roller.restarter.key().await?;
    // What somebody else put into the Secret is not what the store was to have.
    let ours = |key: &String, value: &[u8]| held.memory.values.get(key).is_some_and(|known| *known == hash(&hash_key, key, value));
    let pushed = |key: &String| rotation.spec.rotation_pushes().any(|push| push.secret_key == *key);
    let is_lacking = |key: &String| gathered.gone.contains_key(key) && gathered.remote.contains(key) && pushed(key);
    let nowhere = held.data.iter().filter(|(key, value)| is_lacking(key) && ours(key, value));
    // What one of several places has goes to the others, unless the Secret is not to have that now.
    let is_taken_back = |key: &str, value: &[u8]| held.memory.rejected.contains(&hash(&hash_key, key, value));
    let elsewhere =
        gathered.lacking.iter().filter(|(key, value)| pushed(key) && data.get(*key) == Some(value) && !is_taken_back(key, value));
    let lacking: SecretData = nowhere.chain(elsewhere).map(|(key, value)| (key.clone(), value.clone())).collect();
    if lacking.is_empty() {
        return Ok(false);
    }
    is_current(context, rotation).await?;
    let token = format!("{}-again", held.memory.rotation.as_deref().unwrap_or_default());
    let (known, noted) = (&replaceable(&held.memory.values), &Superseded::new());
    let reason = facts.plan.reason;
    let generated = Generated { source, values: &lacking, known, token: &token, noted, reason, back: false };
    context.steps.run("push", push::generated(context, rotation, &generated, versions)).await.map(|_| true)
}

/// Values that are no longer than this, and of which nothing is made, are put together where they are, not on a thread of their own.
const INLINE_MAX_BYTES: usize = 16 * 1024;

/// Runs work on values that others have written, which may take long, on a thread for blocking work, a few at a time.
pub(super) async fn on_own_thread<T: Send + 'static>(
    context: &Context,
    spec: &SecretRotationSpec,
    bytes: usize,
    work: impl FnOnce(&SecretRotationSpec) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if bytes <= INLINE_MAX_BYTES && spec.data_from.is_empty() && spec.template.is_none() && spec.rotation.is_none() {
        return work(spec);
    }
    let _place = context.compute.acquire().await;
    let spec = spec.clone();
    let stopped = |_| Err(Problem::new(Reason::ValueInvalid, "the values could not be put together"));
    tokio::task::spawn_blocking(move || work(&spec)).await.unwrap_or_else(stopped)
}

/// The salt of bcrypt for a value: the same for the same value.
pub(super) fn salted(key: &[u8], value: &[u8]) -> [u8; 16] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(b"bcrypt\0");
    context.update(value);
    let mut salt = [0; 16];
    salt.iter_mut().zip(context.sign().as_ref()).for_each(|(salt, byte)| *salt = *byte);
    salt
}

/// `deletionPolicy: Delete`, and the store has none of the values any more.
async fn everything_is_gone(context: &Context, rotation: &SecretRotation, held: &ManagedSecret, view: &mut View) -> Result<Problem, Halt> {
    if let Some(meta) = &held.meta {
        is_current(context, rotation).await?;
        context.writer.delete::<Secret>(meta).await?;
        context.audit.done("delete", &described(rotation), Reason::ValueNotFound.as_str(), Some(held.memory.revision));
    }
    view.there = Some(false);
    let message = "the store has none of the values any more, and the Secret was deleted with them (target.deletionPolicy: Delete)";
    Ok(Problem::new(Reason::ValueNotFound, message))
}

/// Values that are pending already, or are to be generated now.
async fn values_on_their_way(look: Look<'_>, (gathered, key): (&Gathered, &[u8]), current: Superseded) -> Result<Option<Pending>, Halt> {
    let Look { context, rotation, held, facts, .. } = look;
    let Some(spec) = &rotation.spec.rotation else { return Ok(None) };
    if let Some(pending) = &facts.pending {
        let pending = Pending { data: pending.data.clone(), memory: pending.memory.clone() };
        let edited = edited(look);
        let there = |name: &String| {
            // One that somebody has removed is made anew if a text needs it.
            let is_theirs = || edited.contains(name) && !compose::is_named_by_text(&rotation.spec, name);
            pending.data.contains_key(name) || gathered.values.contains_key(name) || held.data.contains_key(name) || is_theirs()
        };
        let lacking: Vec<_> = spec.generate.iter().filter(|generate| !there(&generate.secret_key)).collect();
        return Ok(Some(if lacking.is_empty() {
            pending
        } else {
            rotate::extend(context, rotation, pending, lacking.into_iter()).await?
        }));
    }
    let lost =
        |name: &String| matches!(&facts.target, TargetState::Edited(keys) if keys.contains(name)) && !gathered.values.contains_key(name);
    // Of the previous values those that are kept and there: what somebody has removed is gone, and what is about to go goes.
    let kept = |name: &String| !facts.plan.retire && held.memory.previous_since.is_some() && held.data.contains_key(name);
    let before = compose::kept_keys(&rotation.spec, &held.memory).filter(kept);
    if facts.plan.generate.is_none()
        && let Some(edited) = spec.generate.iter().map(|generate| generate.secret_key.clone()).chain(before).find(|name| lost(name))
    {
        let wait = facts.plan.in_the_way.map(|wait| format!("; {}", waiting(wait))).unwrap_or_default();
        let message = format!(
            "key {edited:?} of Secret {} was changed by somebody else, and no store has what it was; it is left as it is until the next rotation: `seaworthy rotate` makes a new value{wait}",
            rotation.spec.target.name
        );
        return Err(Problem::new(Reason::Modified, message).into());
    }
    // The store has a value that consumers have never had: that one first. One that was taken back is none.
    let newer = |name: &String| {
        let is_new = |there: &Bytes| {
            let there = hash(key, name, there);
            held.memory.values.get(name) != Some(&there) && !held.memory.rejected.contains(&there)
        };
        gathered.remote.contains(name) && gathered.values.get(name).is_some_and(is_new)
    };
    let all = facts.plan.generate.filter(|_| !spec.generate.iter().any(|generate| newer(&generate.secret_key)));
    let there = |name: &String| gathered.values.contains_key(name) || held.data.contains_key(name);
    let due: Vec<_> = spec.generate.iter().filter(|generate| all.is_some() || !there(&generate.secret_key)).collect();
    if due.is_empty() {
        return Ok(None);
    }
    let asked = annotation(rotation, ROTATE_ANNOTATION);
    // A first value answers no request, and takes none away.
    let handled = held.memory.handled_rotate.as_deref().filter(|_| all.is_none()).unwrap_or(asked);
    let reason = all.unwrap_or(Reason::Missing);
    is_current(context, rotation).await?;
    if held.meta.is_none() {
        really_missing(context, rotation).await?;
    }
    let cause = Cause { reason, asked: handled, now: facts.now, versions: current, replaced: &held.memory };
    let begun = rotate::begin(context, rotation, due.into_iter(), cause);
    Ok(Some(context.steps.run("generate", begun).await?))
}

/// A watch that is late does not know of a Secret that is there; values are not generated for that.
async fn really_missing(context: &Context, rotation: &SecretRotation) -> Result<(), Halt> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &rotation.namespace().unwrap_or_default());
    let found = api.get_metadata_opt(&rotation.spec.target.name).await;
    match found.map_err(|error| Problem::new(Reason::WriteFailed, message(&error)))? {
        Some(_) => Err(WriteError::Superseded(described(rotation)).into()),
        None => Ok(()),
    }
}
