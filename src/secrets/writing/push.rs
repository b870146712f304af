//! Values go to the store: what was generated, on its way to its Secret; and with `spec.push` what stands in a Secret, when it has changed there.
//!
//! A value of the store that is not the one that we know is somebody else's, and is not overwritten.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    managed_secret::{self, SecretSlot},
    retire,
};
use crate::{
    api::{
        REFRESH_ANNOTATION, SecretRotation,
        secret_rotation::{Push, Pushed, UpdatePolicy},
    },
    cluster::{noticed, owner::described},
    ids,
    secrets::{
        contents::property,
        context::{Context, annotation, is_current, last_told},
        decide::Plan,
        index::refresh_keys,
        memory::{Hashes, Superseded, Versions, hash},
        reading::{
            coalesce::Demand,
            connection::in_time,
            read::{self, Source, away},
            refresh_times,
        },
        reason::Reason,
        status::{Halt, Problem, View},
        store::{Content, Place, SecretData, StoreError, Stored, Write},
    },
};

/// So often a write that somebody else was faster than is tried again.
const ATTEMPTS: usize = 3;

/// So many values may be on their way to one place, one after the other, before one gets there.
const MOST_NEXT: usize = 8;

/// What is pushed how.
pub struct Pushing<'a> {
    /// Where they go.
    pub source: &'a Source,
    /// Which field of the spec asks for it.
    pub field: &'a str,
    /// Why, for the audit log.
    pub reason: Reason,
    /// Keyed hashes of what may be replaced in the store: anything else was put there by somebody else.
    pub known: &'a (dyn Fn(&Push) -> Vec<String> + Sync),
    /// The same for each attempt to write the same values.
    pub token: &'a str,
    /// What a person does about a value that is somebody else's.
    pub remedy: &'a str,
    /// What was read since then for somebody else is new enough to be compared with.
    pub fresh: Timestamp,
    /// For a roll-back: versions that may hold exactly what is written. The one that does is made the current one again, where the store can.
    pub before: Vec<String>,
}

/// What became of the pushes to one key.
#[derive(Default)]
pub struct Outcome {
    /// What the store has and keeps (`IfNotExists`), by key of the Secret.
    kept: SecretData,
    /// The version that was the current one before something was written.
    replaced: Option<String>,
    /// The version that holds the values now.
    current: Option<String>,
}

/// What goes to one key of the store: all of it with one write, so that nobody reads a half of it.
type Parts<'a> = Vec<(&'a Push, &'a [u8])>;

/// Writes values, all to the remote key `to`.
pub async fn write(
    context: &Context,
    rotation: &SecretRotation,
    (to, parts): (&str, &Parts<'_>),
    pushing: &Pushing<'_>,
) -> Result<Outcome, Halt> {
    let source = pushing.source;
    let key = context.roller.restarter.key().await?;
    let place = Place { key: to.into(), version: None };
    let (namespace, name) = noticed::key(rotation);
    // Who reads it as well is another one.
    let (who, wanted) = ((namespace, format!("{name} push")), read::takers(context, &source.resolved.scope, &place));
    let named: Vec<String> = parts.iter().map(|(push, _)| format!("{:?}", push.secret_key)).collect();
    let field = format!("{} {} to {to}", pushing.field, named.join(", "));
    let told = |error: StoreError| {
        let problem = away(context, rotation, &source.connection, error);
        Problem { message: format!("{field}: {}", problem.message), ..problem }
    };
    for attempt in 1.. {
        let now = context.clock.now();
        let fresh = if attempt == 1 { pushing.fresh } else { now };
        // What is read now is for nobody else.
        let demand = Demand { fresh_since: fresh, readers: if fresh < now { wanted } else { 1 } };
        let there = source.connection.read(&source.store, (&place, &who), demand).await;
        let there = match there.as_ref() {
            Ok(there) => Some(there),
            Err(StoreError::NotFound(_)) => None,
            Err(error) => return Err(told(error.clone()).into()),
        };
        let (outcome, other) = sort_out(there, (to, parts), (&key, pushing))?;
        if other.is_empty() {
            let current = there.filter(|_| outcome.kept.is_empty()).and_then(|there| there.version.clone());
            return Ok(Outcome { current, ..outcome });
        }
        let mut content = there.map_or_else(|| source.store.blank(), |there| there.content.clone());
        for (push, value) in other {
            content = property::set(&content, push.remote_ref.property.as_deref(), value)
                .map_err(|error| Problem::new(Reason::ValueInvalid, format!("{field}: {error}")))?;
        }
        let expected = there.and_then(|there| there.version.as_deref());
        let old = holds(source, to, &pushing.before, &content).await.map_err(told)?;
        context.writer.check()?;
        // Another content is another write, also where an earlier one got only half way.
        let token = format!("{} {}", pushing.token, hash(&key, to, content.bytes().as_ref()));
        let write = Write { key: to, content: &content, expected, token: &token };
        let written = promote_or_write(context, source, write, old).await;
        source.connection.record(&written);
        source.connection.invalidate(to);
        match written {
            Ok(current) => {
                context.audit.done("push", &described(rotation), pushing.reason.as_str(), None);
                return Ok(Outcome { replaced: expected.map(ToOwned::to_owned), current, ..outcome });
            }
            Err(StoreError::Conflict(_)) if attempt < ATTEMPTS => {} // read again, and see whose it is now
            Err(error) => return Err(told(error).into()),
        }
    }
    Ok(Outcome::default())
}

/// What the store has and keeps, and what is to be written. Fails if it has what somebody else has put there.
fn sort_out<'p>(
    there: Option<&Stored>,
    (to, parts): (&str, &Parts<'p>),
    (key, pushing): (&[u8], &Pushing<'_>),
) -> Result<(Outcome, Parts<'p>), Problem> {
    let (mut outcome, mut other) = (Outcome::default(), Vec::new());
    for (push, value) in parts {
        let before = there.and_then(|there| property::get(&there.content, push.remote_ref.property.as_deref()).ok());
        match before.map(|before| (judge(push, &before, value, (key, pushing)), before)) {
            None | Some((Verdict::Replaceable, _)) => other.push((*push, *value)),
            Some((Verdict::Same, _)) => {}
            Some((Verdict::Kept, before)) => drop(outcome.kept.insert(push.secret_key.clone(), before)),
            Some((Verdict::SomebodyElses, _)) => {
                let (field, key, remedy) = (pushing.field, &push.secret_key, pushing.remedy);
                let part = push.remote_ref.property.as_ref().map(|property| format!(", property {property:?}")).unwrap_or_default();
                let message = format!(
                    "{field} {key:?} to {to}{part}: somebody else has put another value there, and it is not overwritten; {remedy}"
                );
                return Err(Problem::new(Reason::StoreConflict, message));
            }
        }
    }
    Ok((outcome, other))
}

/// Which of `versions` holds `content` and can be made the current one again.
async fn holds<'a>(source: &Source, key: &str, versions: &'a [String], content: &Content) -> Result<Option<&'a str>, StoreError> {
    let canonical = |content: &Content| match content {
        Content::Bytes(bytes) => Content::Bytes(property::canonical(bytes)),
        Content::Map(_) => content.clone(),
    };
    for version in versions.iter().filter(|_| source.store.can_promote()) {
        let place = Place { key: key.into(), version: Some(version.clone()) };
        let there = in_time(source.store.read(&place)).await;
        source.connection.record(&there);
        match there {
            Ok(stored) if canonical(&stored.content) == canonical(content) => return Ok(Some(version)),
            Err(error) if error.is_store_wide() => return Err(error),
            _ => {} // one that cannot be read is none
        }
    }
    Ok(None)
}

/// Makes the version `old` the current one again, or writes. Returns the version that is the current one now.
async fn promote_or_write(context: &Context, source: &Source, write: Write<'_>, old: Option<&str>) -> Result<Option<String>, StoreError> {
    if let (Some(old), Some(expected)) = (old, write.expected) {
        match in_time(source.store.promote(write.key, old, expected)).await {
            Ok(()) => return Ok(Some(old.to_owned())),
            Err(error @ StoreError::Conflict(_)) => return Err(error),
            Err(error) if error.is_store_wide() => return Err(error),
            Err(error) => tracing::info!(%error, "an old version cannot be made the current one again, and is written"),
        }
    }
    context.writer.check().map_err(|error| StoreError::Unavailable(error.to_string()))?;
    in_time(source.store.write(write)).await
}

/// What is to become of a value that the store has.
enum Verdict {
    Same,
    Kept,
    Replaceable,
    SomebodyElses,
}

fn judge(push: &Push, before: &[u8], value: &[u8], (key, pushing): (&[u8], &Pushing<'_>)) -> Verdict {
    let canonical = property::canonical(before);
    if before == value || canonical == property::canonical(value) {
        return Verdict::Same;
    }
    if push.update_policy == UpdatePolicy::IfNotExists {
        return Verdict::Kept;
    }
    let known = (pushing.known)(push);
    let ours = [before, &canonical].iter().any(|before| known.contains(&hash(key, &push.secret_key, before)));
    if ours { Verdict::Replaceable } else { Verdict::SomebodyElses }
}

/// By remote key.
fn grouped<'a>(parts: impl Iterator<Item = (&'a Push, &'a [u8])>) -> BTreeMap<&'a str, Parts<'a>> {
    let mut of = BTreeMap::<&str, Parts<'_>>::new();
    for part in parts {
        of.entry(&part.0.remote_ref.key).or_default().push(part);
    }
    of
}

/// Keyed hashes of values in the store that may be replaced, by key of the Secret.
pub type Replaceable = BTreeMap<String, Vec<String>>;

/// One for each key.
pub fn replaceable(hashes: &Hashes) -> Replaceable {
    hashes.iter().map(|(key, hash)| (key.clone(), vec![hash.clone()])).collect()
}

/// Values that were generated, now or before.
pub struct Generated<'a> {
    /// Where they go.
    pub source: &'a Source,
    /// By key of the Secret.
    pub values: &'a SecretData,
    /// The hashes of the values that they may replace.
    pub known: &'a Replaceable,
    /// The same for each attempt to write them.
    pub token: &'a str,
    /// What was the current version when they were generated.
    pub noted: &'a Superseded,
    /// Why, for the audit log.
    pub reason: Reason,
    /// They are those of before, and may be back in the store with the version that held them.
    pub back: bool,
}

/// Writes generated values. Returns those that the store has and keeps; `versions` says what is where then.
pub async fn generated(
    context: &Context,
    rotation: &SecretRotation,
    generated: &Generated<'_>,
    versions: &mut Versions,
) -> Result<SecretData, Halt> {
    let source = generated.source;
    let remedy = if generated.back {
        format!("put the one back there that was pushed last, or have this one taken over: set the annotation {REFRESH_ANNOTATION}")
    } else {
        format!("put the one before back, or delete Secret {}, so that this one is taken over first", SecretSlot::Pending.name(rotation))
    };
    let known = |push: &Push| generated.known.get(&push.secret_key).cloned().unwrap_or_default();
    let (mut kept, hash_key) = (SecretData::new(), context.roller.restarter.key().await?);
    let pushes = rotation.spec.rotation_pushes();
    let parts = pushes.filter_map(|push| Some((push, generated.values.get(&push.secret_key)?.as_slice())));
    for (to, parts) in grouped(parts) {
        let place = retire::store_key(&source.resolved, to);
        let before = versions.superseded.get(&place).into_iter().flatten().filter(|_| generated.back);
        let before = before.filter_map(|note| retire::verify_note(&hash_key, &place, note).map(ToOwned::to_owned)).collect();
        let (fresh, token) = (context.clock.now(), generated.token);
        let pushing =
            Pushing { source, field: "rotation.push", reason: generated.reason, known: &known, token, remedy: &remedy, fresh, before };
        let outcome = write(context, rotation, (to, &parts), &pushing).await?;
        // The version that was noted before the write, with what is pending: if a process died after it, the only record of what was replaced.
        let noted = outcome.kept.is_empty().then(|| generated.noted.get(&place)).flatten().into_iter().flatten().cloned();
        // What was there is replaced, whoever did that, and died then.
        let before = versions.current.remove(&place).filter(|_| outcome.kept.is_empty());
        let note = |version: String| retire::sign_note(&hash_key, &place, &version);
        if !source.store.can_retire() {
            kept.extend(outcome.kept);
            continue;
        }
        let replaced = outcome.replaced.map(note).into_iter().chain(noted).chain(before);
        versions.superseded.entry(place.clone()).or_default().extend(replaced);
        if let Some(current) = outcome.current.map(note) {
            versions.superseded.entry(place.clone()).or_default().remove(&current);
            versions.current.insert(place, current);
        }
        kept.extend(outcome.kept);
    }
    // What is not pushed any more has no current version.
    let pushed = rotation.spec.rotation_pushes();
    let places: BTreeSet<String> = pushed.map(|push| retire::store_key(&source.resolved, &push.remote_ref.key)).collect();
    versions.current.retain(|place, _| places.contains(place));
    versions.superseded.retain(|_, notes| !notes.is_empty());
    Ok(kept)
}

/// A value of the Secret that is to be compared with the store, and its hash.
type Due<'a> = (&'a Push, &'a property::Bytes, String);

/// Brings to the store what `spec.push` names: what is another than was brought last, and all that goes to a key whose time has come.
///
/// A hash of what is about to be written is noted in status before it is written, by a look of its own: who dies after the write knows the value again.
pub async fn existing(context: &Context, rotation: &SecretRotation, view: &mut View) -> Result<(), Halt> {
    let (spec, now) = (&rotation.spec, context.clock.now());
    let Some(plan) = view.plan.filter(|plan| !plan.suspended && !spec.push.is_empty()) else { return Ok(()) };
    let held = managed_secret::read(context, rotation, SecretSlot::Target).await?;
    let name = &spec.target.name;
    if held.meta.is_none() {
        return Err(Problem::new(Reason::Missing, format!("there is no Secret {name} whose values could be pushed")).into());
    }
    // What the spec does not name any more is forgotten.
    let before = rotation.status.iter().flat_map(|status| &status.pushed);
    let before: Vec<Pushed> = before.filter(|pushed| spec.push.iter().any(|push| is_of(pushed, push))).cloned().collect();
    // Since when each key is to be compared. What was missed is made good.
    let (who, told, read) = (noticed::key(rotation), last_told(rotation), view.read);
    let (live, last) = (spec.reads_own_namespace(), context.refresh_cache.last_compared(&who, now).or(view.last_sync));
    let since = |key: &str| match read {
        _ if last == Some(Timestamp::UNIX_EPOCH) => Some(now),
        Some(Reason::RefreshDue) | None if !live => refresh_times::due(spec, key, last, now),
        read => read.map(|_| now),
    };
    let due = due(rotation, (&context.roller.restarter.key().await?, &held.data), &before, |key| since(key).is_some())?;
    let (noted, is_news) = note(&before, &due);
    view.pushed = Some(noted);
    if due.is_empty() || is_news {
        return Ok(()); // after news the next look is soon
    }
    let Some(resolved) = crate::secrets::reading::resolve::resolve(context.cluster_stores.as_ref(), rotation)? else { return Ok(()) };
    let source = read::source(context, rotation, resolved).await?;
    let fresh = |key: &str| {
        // What has failed before is not taken for what was read then.
        let again = before.iter().any(|pushed| pushed.remote_ref.key == key && pushed.hash.is_none());
        since(key).filter(|_| !again).unwrap_or(now)
    };
    let failed = compare(context, rotation, &Comparison { source: &source, due: &due, before: &before, fresh: &fresh }, view).await?;
    if let Some(problem) = failed {
        view.compared = Some(now); // once status says what failed, which is due even so
        return Err(problem.into());
    }
    context.refresh_cache.mark_compared(who.clone(), now, |key| context.index.read(|index| index.has(key)));
    if spec.is_push_only() {
        view.handled_refresh = read.map(|_| annotation(rotation, REFRESH_ANNOTATION).into());
        view.synced = Some(now).filter(|now| read != Some(Reason::RefreshDue) || refresh_times::is_told(rotation, told, *now));
        // The next time is another, now that the store was asked.
        view.plan =
            Some(Plan { next_sync: refresh_times::next_refresh(spec, &refresh_keys(spec), view.synced.or(told).map(|_| now)), ..plan });
    }
    Ok(())
}

/// What is compared with the store.
struct Comparison<'a> {
    source: &'a Source,
    due: &'a [Due<'a>],
    /// What was brought there before.
    before: &'a [Pushed],
    /// Since when what was read of a key is new enough.
    fresh: &'a (dyn Fn(&str) -> Timestamp + Sync),
}

/// Compares, and writes what is another. What fails does not keep the others from it, if the store is there; the first of these is returned.
async fn compare(
    context: &Context,
    rotation: &SecretRotation,
    comparison: &Comparison<'_>,
    view: &mut View,
) -> Result<Option<Problem>, Halt> {
    let Comparison { source, due, before, fresh } = comparison;
    let reason = view.plan.map_or(Reason::RefreshDue, |plan| plan.reason);
    let known = |push: &Push| {
        let pushed = before.iter().find(|pushed| is_of(pushed, push));
        pushed.into_iter().flat_map(|pushed| pushed.hash.iter().chain(&pushed.next)).cloned().collect()
    };
    let mut first = None;
    for (to, parts) in grouped(due.iter().map(|(push, value, _)| (*push, value.as_slice()))) {
        let due = || due.iter().filter(|(push, ..)| push.remote_ref.key == to);
        let hashes: Vec<&str> = due().map(|(.., now)| now.as_str()).collect();
        let token = format!("{}-{}", rotation.uid().unwrap_or_default(), ids::short(hashes.join(" ").as_bytes()));
        is_current(context, rotation).await?;
        let remedy = "delete it there, or take it over into the Secret";
        let pushing = Pushing { source, field: "push", reason, known: &known, token: &token, remedy, fresh: fresh(to), before: Vec::new() };
        match write(context, rotation, (to, &parts), &pushing).await {
            Ok(_) => {}
            Err(Halt::Problem(problem)) if source.connection.pause().is_none() => {
                first.get_or_insert(problem);
                continue;
            }
            Err(halt) => return Err(halt),
        }
        for (push, _, now) in due() {
            for pushed in view.pushed.iter_mut().flatten().filter(|pushed| is_of(pushed, push)) {
                (pushed.hash, pushed.next) = (Some(now.clone()), Vec::new());
            }
        }
    }
    Ok(first)
}

/// What is to be compared with the store: what is another than was brought last, and what goes to a key that `is_due`.
fn due<'a>(
    rotation: &'a SecretRotation,
    (key, data): (&[u8], &'a SecretData),
    before: &[Pushed],
    is_due: impl Fn(&str) -> bool,
) -> Result<Vec<Due<'a>>, Problem> {
    let mut due = Vec::new();
    for push in &rotation.spec.push {
        let name = &push.secret_key;
        let Some(value) = data.get(name) else {
            let secret = &rotation.spec.target.name;
            let message = format!("push {name:?}: Secret {secret} has no such key; nothing is changed in the store");
            return Err(Problem::new(Reason::ValueNotFound, message));
        };
        let now = hash(key, name, &property::canonical(value));
        let pushed = before.iter().find(|pushed| is_of(pushed, push));
        // What was on its way may have got there, although it is not meant any more.
        let is_other = pushed.is_none_or(|pushed| pushed.hash.as_ref() != Some(&now) || !pushed.next.is_empty());
        if is_other || is_due(&push.remote_ref.key) {
            due.push((push, value, now));
        }
    }
    Ok(due)
}

/// What is noted when these are on their way, and whether a value is among them that was not noted before. Until it is known that a value is there,
/// it is not said to be.
fn note(before: &[Pushed], due: &[Due<'_>]) -> (Vec<Pushed>, bool) {
    let (mut noted, mut is_news) = (before.to_vec(), false);
    for (push, _, now) in due {
        let place = noted.iter().position(|pushed| is_of(pushed, push));
        let mut pushed = place.map_or_else(
            || Pushed { secret_key: push.secret_key.clone(), remote_ref: push.remote_ref.clone(), hash: None, next: Vec::new() },
            |place| noted.swap_remove(place),
        );
        pushed.next.splice(..0, pushed.hash.take());
        if !pushed.next.contains(now) {
            is_news = true;
            pushed.next.push(now.clone());
            // Of those that were on their way in vain for long some are given up, but never the first: it may be what the store has.
            pushed.next.drain(1..=pushed.next.len().saturating_sub(MOST_NEXT));
        }
        noted.push(pushed);
    }
    noted.sort_by(|a, b| order(a).cmp(&order(b)));
    (noted, is_news)
}

fn order(pushed: &Pushed) -> (&str, &str, Option<&str>) {
    (&pushed.secret_key, &pushed.remote_ref.key, pushed.remote_ref.property.as_deref())
}

fn is_of(pushed: &Pushed, push: &Push) -> bool {
    pushed.secret_key == push.secret_key && pushed.remote_ref == push.remote_ref
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn push() -> Push {
        serde_json::from_value(serde_json::json!({"secretKey": "k", "remoteRef": {"key": "r"}})).unwrap()
    }

    fn pushed(hash: Option<&str>, next: &[&str]) -> Pushed {
        let next = next.iter().map(|next| (*next).to_owned()).collect();
        Pushed { secret_key: "k".into(), remote_ref: push().remote_ref, hash: hash.map(ToOwned::to_owned), next }
    }

    #[test]
    fn what_is_on_its_way_is_noted_before_it_is_written() {
        let (push, value) = (push(), property::Bytes::default());
        let of = |before: &[Pushed], now: &str| note(before, &[(&push, &value, now.into())]);
        assert_eq!(of(&[], "1"), (vec![pushed(None, &["1"])], true), "the first one");
        assert_eq!(of(&[pushed(None, &["1"])], "1"), (vec![pushed(None, &["1"])], false), "noted: it may be written");
        assert_eq!(
            of(&[pushed(Some("0"), &["1"])], "2"),
            (vec![pushed(None, &["0", "1", "2"])], true),
            "the one before may have got there"
        );
        assert_eq!(of(&[pushed(Some("0"), &["1"])], "0"), (vec![pushed(None, &["0", "1"])], false), "back again");
        assert_eq!(
            of(&[pushed(Some("0"), &[])], "0"),
            (vec![pushed(None, &["0"])], false),
            "it is compared, and is due until that is done"
        );
        let many: Vec<String> = (0..MOST_NEXT).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (noted, _) = of(&[pushed(Some("there"), &many)], "new");
        let next = &noted[0].next;
        assert_eq!((next.len(), next[0].as_str(), next.last().unwrap().as_str()), (MOST_NEXT, "there", "new"));
    }
}
