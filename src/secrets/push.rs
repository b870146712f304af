//! Values go to the store: what was generated, on its way to its Secret; and with `spec.push` what stands in a Secret, when it has changed there.
//!
//! A value of the store that is not the one that we know is somebody else's, and is not overwritten.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;

use super::{
    controller::{Context, annotation, is_current},
    decide::{self, Plan},
    index::words,
    memory::{Hashes, Superseded, hash},
    property,
    reason::Reason,
    refresh::next_refresh,
    retire,
    status::{Halt, Problem, View},
    store::{Place, SecretData, StoreError, Write},
    sync::{self, Source, away},
    target::{self, Which, described},
};
use crate::{
    api::{
        REFRESH_ANNOTATION, SecretRotation,
        secret_rotation::{Push, Pushed, UpdatePolicy},
    },
    ids,
};

/// So often a write that somebody else was faster than is tried again.
const ATTEMPTS: usize = 3;

/// So many values may be on their way to one place, one after the other, before one gets there.
const MOST_NEXT: usize = 8;

/// What is pushed how.
pub struct Pushing<'a> {
    /// Which field of the spec asks for it.
    pub field: &'a str,
    /// The hashes of what may be replaced in the store: anything else was put there by somebody else.
    pub known: &'a (dyn Fn(&Push) -> Vec<String> + Sync),
    /// The same for each attempt to write the same values.
    pub token: &'a str,
    /// What a person does about a value that is somebody else's.
    pub remedy: &'a str,
}

/// What became of the pushes to one key.
#[derive(Default)]
pub struct Outcome {
    /// What the store has and keeps (`IfNotExists`), by key of the Secret.
    kept: SecretData,
    /// The version that was the current one before something was written.
    replaced: Option<String>,
}

/// What goes to one key of the store: all of it with one write, so that nobody reads a half of it.
type Parts<'a> = Vec<(&'a Push, &'a [u8])>;

/// Writes values, all to the remote key `to`.
pub async fn write(
    context: &Context,
    rotation: &SecretRotation,
    source: &Source,
    (to, parts): (&str, &Parts<'_>),
    pushing: &Pushing<'_>,
) -> Result<Outcome, Halt> {
    let key = context.roller.restarter.key().await?;
    let place = Place { key: to.into(), version: None };
    let named: Vec<String> = parts.iter().map(|(push, _)| format!("{:?}", push.secret_key)).collect();
    let field = format!("{} {} to {to}", pushing.field, named.join(", "));
    let told = |error: StoreError| {
        let problem = away(context, rotation, &source.door, error);
        Problem { message: format!("{field}: {}", problem.message), ..problem }
    };
    for attempt in 1.. {
        let there = source.door.call(source.store.read(&place)).await;
        source.door.heard(&there);
        let there = match there {
            Ok(there) => Some(there),
            Err(StoreError::NotFound(_)) => None,
            Err(error) => return Err(told(error).into()),
        };
        let (mut outcome, mut other) = (Outcome::default(), Vec::new());
        for (push, value) in parts {
            let before = there.as_ref().and_then(|there| property::get(&there.content, push.remote_ref.property.as_deref()).ok());
            match before.map(|before| (judge(push, &before, value, (&key, pushing)), before)) {
                None | Some((Verdict::Replaceable, _)) => other.push((push, value)),
                Some((Verdict::Same, _)) => {}
                Some((Verdict::Kept, before)) => drop(outcome.kept.insert(push.secret_key.clone(), before)),
                Some((Verdict::SomebodyElses, _)) => {
                    let (field, key, remedy) = (pushing.field, &push.secret_key, pushing.remedy);
                    let message =
                        format!("{field} {key:?} to {to}: somebody else has put another value there, and it is not overwritten; {remedy}");
                    return Err(Problem::new(Reason::StoreConflict, message).into());
                }
            }
        }
        if other.is_empty() {
            return Ok(outcome);
        }
        let mut content = there.as_ref().map_or_else(|| source.store.blank(), |there| there.content.clone());
        for (push, value) in other {
            content = property::set(&content, push.remote_ref.property.as_deref(), value)
                .map_err(|error| Problem::new(Reason::ValueInvalid, format!("{field}: {error}")))?;
        }
        let expected = there.as_ref().and_then(|there| there.version.as_deref());
        context.writer.check()?;
        let write = Write { key: to, content: &content, expected, token: pushing.token };
        let written = source.door.call(source.store.write(write)).await;
        source.door.heard(&written);
        source.door.forget(to);
        match written {
            Ok(_) => {
                context.audit.record("push", &described(rotation), Reason::Current.as_str(), "success", None);
                return Ok(Outcome { replaced: expected.map(ToOwned::to_owned), ..outcome });
            }
            Err(StoreError::Conflict(_)) if attempt < ATTEMPTS => {} // read again, and see whose it is now
            Err(error) => return Err(told(error).into()),
        }
    }
    Ok(Outcome::default())
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

/// Writes generated values. Returns those that the store has and keeps; the versions that were replaced come to `superseded`. `noted`: what was the
/// current version when these values were generated.
pub async fn generated(
    context: &Context,
    rotation: &SecretRotation,
    source: &Source,
    values: &SecretData,
    (known, token): (&Hashes, &str),
    (noted, superseded): (&Superseded, &mut Superseded),
) -> Result<SecretData, Halt> {
    let remedy =
        format!("put the one before back, or delete Secret {}, so that this one is taken over first", Which::Pending.name(rotation));
    let known = |push: &Push| known.get(&push.secret_key).cloned().into_iter().collect();
    let pushing = Pushing { field: "rotation.push", known: &known, token, remedy: &remedy };
    let (mut kept, hashes) = (SecretData::new(), context.roller.restarter.key().await?);
    let pushes = rotation.spec.rotation.iter().flat_map(|rotation| &rotation.push);
    let parts = pushes.filter_map(|push| Some((push, values.get(&push.secret_key)?.as_slice())));
    for (to, parts) in grouped(parts) {
        let outcome = write(context, rotation, source, (to, &parts), &pushing).await?;
        let place = retire::place(&source.resolved, to);
        // Who wrote it, and died then, noted before which version that was to be.
        let before = outcome.kept.is_empty().then(|| noted.get(&place)).flatten().into_iter().flatten().cloned();
        let replaced = outcome.replaced.map(|version| retire::noted(&hashes, &place, &version));
        let replaced: BTreeSet<String> = replaced.into_iter().chain(before).collect();
        if !replaced.is_empty() {
            superseded.entry(place).or_default().extend(replaced);
        }
        kept.extend(outcome.kept);
    }
    Ok(kept)
}

/// A value of the Secret that is to be compared with the store, and its hash.
type Due<'a> = (&'a Push, &'a property::Bytes, String);

/// Brings to the store what `spec.push` names: what is another than was brought last, and all of it when the store is due.
///
/// A hash of what is about to be written is noted in status before it is written, by a look of its own: who dies after the write knows the value again.
pub async fn existing(context: &Context, rotation: &SecretRotation, view: &mut View) -> Result<(), Halt> {
    let (spec, now) = (&rotation.spec, context.clock.now());
    let Some(plan) = view.plan.filter(|plan| !plan.rest && !spec.push.is_empty()) else { return Ok(()) };
    let held = target::read(context, rotation, Which::Target).await?;
    let name = &spec.target.name;
    if held.meta.is_none() {
        return Err(Problem::new(Reason::Missing, format!("there is no Secret {name} whose values could be pushed")).into());
    }
    // What the spec does not name any more is forgotten.
    let before = rotation.status.iter().flat_map(|status| &status.pushed);
    let before: Vec<Pushed> = before.filter(|pushed| spec.push.iter().any(|push| is_of(pushed, push))).cloned().collect();
    let due = due(rotation, &context.roller.restarter.key().await?, &held.data, (&before, view.reads))?;
    let (noted, is_news) = note(&before, &due);
    view.pushed = Some(noted);
    if due.is_empty() || is_news {
        return Ok(()); // after news the next look is soon
    }
    let Some(resolved) = super::resolve::resolve(context.cluster_stores.as_ref(), rotation)? else { return Ok(()) };
    let source = sync::source(context, rotation, resolved).await?;
    let known = |push: &Push| {
        let pushed = before.iter().find(|pushed| is_of(pushed, push));
        pushed.into_iter().flat_map(|pushed| pushed.hash.iter().chain(&pushed.next)).cloned().collect()
    };
    for (to, parts) in grouped(due.iter().map(|(push, value, _)| (*push, value.as_slice()))) {
        let due = || due.iter().filter(|(push, ..)| push.remote_ref.key == to);
        let hashes: Vec<&str> = due().map(|(.., now)| now.as_str()).collect();
        let token = format!("{}-{}", rotation.uid().unwrap_or_default(), ids::short(hashes.join(" ").as_bytes()));
        is_current(context, rotation).await?;
        let pushing = Pushing { field: "push", known: &known, token: &token, remedy: "delete it there, or take it over into the Secret" };
        write(context, rotation, &source, (to, &parts), &pushing).await?;
        for (push, _, now) in due() {
            for pushed in view.pushed.iter_mut().flatten().filter(|pushed| is_of(pushed, push)) {
                (pushed.hash, pushed.next) = (Some(now.clone()), Vec::new());
            }
        }
    }
    if decide::only_pushes(spec) {
        view.handled_refresh = view.reads.then(|| annotation(rotation, REFRESH_ANNOTATION).into());
        view.synced = Some(now);
        // The next time is another, now that the store was asked.
        view.plan = Some(Plan { next_sync: next_refresh(spec, &words(spec), view.synced), ..plan });
    }
    Ok(())
}

/// What is to be compared with the store; `all`: the store is due.
fn due<'a>(
    rotation: &'a SecretRotation,
    key: &[u8],
    data: &'a SecretData,
    (before, all): (&[Pushed], bool),
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
        if all || pushed.is_none_or(|pushed| pushed.hash.as_ref() != Some(&now) || !pushed.next.is_empty()) {
            due.push((push, value, now));
        }
    }
    Ok(due)
}

/// What is noted when these are on their way, and whether that is news.
fn note(before: &[Pushed], due: &[Due<'_>]) -> (Vec<Pushed>, bool) {
    let mut noted = before.to_vec();
    for (push, _, now) in due {
        let place = noted.iter().position(|pushed| is_of(pushed, push));
        let mut pushed = place.map_or_else(
            || Pushed { secret_key: push.secret_key.clone(), remote_ref: push.remote_ref.clone(), hash: None, next: Vec::new() },
            |place| noted.swap_remove(place),
        );
        if pushed.hash.as_ref() != Some(now) && !pushed.next.contains(now) {
            pushed.next.push(now.clone());
            // The oldest ones are given up: they were on their way in vain for long.
            pushed.next.drain(..pushed.next.len().saturating_sub(MOST_NEXT));
        }
        noted.push(pushed);
    }
    noted.sort_by(|a, b| order(a).cmp(&order(b)));
    let is_news = noted.iter().any(|pushed| before.iter().all(|before| before != pushed));
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
            (vec![pushed(Some("0"), &["1", "2"])], true),
            "the one before may have got there"
        );
        assert_eq!(of(&[pushed(Some("0"), &["1"])], "0"), (vec![pushed(Some("0"), &["1"])], false), "back again");
        let many: Vec<String> = (0..MOST_NEXT).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (noted, _) = of(&[pushed(None, &many)], "new");
        assert_eq!((noted[0].next.len(), noted[0].next.last().unwrap().as_str()), (MOST_NEXT, "new"));
    }
}
