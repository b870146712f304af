//! Who uses the Secret is restarted, in order: what `spec.restart` asks for.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::{controller::Context, issuer::SecretData, rotate::described, status::Halt};
use crate::{
    api::{CertificateRotation, Duration, restart::Restart},
    cluster::{conditions::seconds, events::Note as Event},
    inventory::{consumers::Consumer, pods::Owner, template::Source, workloads::KINDS},
    rollout::{
        consumption::{Changed, Consumption},
        decide::{Plan, State, Terms, Workload, decide},
        mark::{Note, annotation, mark},
    },
    schedule::jitter,
};

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// What goes on or is waited for.
    pub going: Option<String>,
    /// What failed, so that nobody else is restarted.
    pub failed: Option<String>,
    /// What failed is a workload that cannot live with the value.
    pub rejected: bool,
    /// All have it, but for those who are left alone.
    pub over: bool,
    /// Who is left alone, and why.
    pub skipped: Vec<String>,
    /// When to look again.
    pub next: Option<Timestamp>,
}

/// What the restarts are about.
pub struct Value<'a> {
    /// The Secret's data.
    pub data: &'a SecretData,
    /// When it became that.
    pub changed: Changed,
    /// How many pairs there were, this one included.
    pub revision: i64,
    /// Not before then: the window is closed.
    pub opens: Option<Timestamp>,
}

/// While something goes on that no event tells of, it is looked at so often.
const AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// Who waits for a place, or for somebody to mend something, is looked at so often, and up to twice as seldom.
const SEEN_AGAIN: SignedDuration = SignedDuration::from_secs(15);
/// The API server allows no more; an older schema might.
const LONGEST: Duration = Duration::hours(24);

/// Restarts who is next, and counts who has the value.
pub async fn roll(
    context: &Context,
    rotation: &CertificateRotation,
    restart: &Restart,
    value: &Value<'_>,
    now: Timestamp,
) -> Result<(Rollout, Consumption), Halt> {
    let (namespace, secret) = (rotation.namespace().unwrap_or_default(), rotation.spec.secret_name.as_str());
    let consumers = context.inventory.consumers(&namespace, &Source::Secret(secret.into()));
    let key = context.restarter.key().await?;
    let (annotation, mark) = (annotation(secret), mark(&key, value.data, &value.changed.epoch()));
    let carried = Some((annotation.as_str(), mark.as_str()));
    let workloads = workloads(context, &namespace, restart, &consumers, (&value.changed, carried, now));
    let limits = context.restarter.budget.limits();
    let terms = Terms {
        mark: &mark,
        changed: value.changed.time(),
        strategy: restart.strategy,
        timeout: restart.timeout.min(LONGEST),
        interval: limits.interval,
    };
    let (states, plan) = decide(&workloads, &terms, now);
    settle(context, (&namespace, secret), &workloads, &states).await?;
    let mut rollout = Rollout { skipped: skipped(&workloads, &states, &consumers, value, carried), ..Rollout::default() };
    let named = |place: usize| workloads.get(place).map_or_else(String::new, |workload| name(&workload.owner));
    // What is left alone or failed may be mended without an event that wakes us.
    let later = now + SEEN_AGAIN + jitter(&rotation.uid().unwrap_or_default(), SEEN_AGAIN);
    rollout.next = (!rollout.skipped.is_empty()).then_some(later);
    match plan {
        Plan::Done => rollout.over = true,
        Plan::Failed(place, why) => {
            rollout.rejected = true;
            rollout.failed = Some(format!("{} was restarted with certificate {}: {why}", named(place), value.revision));
            rollout.next = Some(later);
        }
        Plan::Wait(until) => {
            rollout.going = Some(progress(&workloads, &states));
            rollout.next = Some(until.min(now + AGAIN));
        }
        Plan::Restart(_) if value.opens.is_some_and(|opens| opens > now) => {
            rollout.next = value.opens;
            rollout.skipped.push(format!("restarts wait for the window, until {}", seconds(value.opens.unwrap_or(now)).0));
        }
        Plan::Restart(places) => {
            let next = places.into_iter().filter_map(|place| workloads.get(place));
            let note = Note { mark: mark.clone(), at: seconds(now).0, done: false };
            let (begun, refused) = begin_all(context, rotation, next, (&note, now + terms.timeout.signed()), now).await?;
            rollout.failed = refused;
            rollout.going = rollout.failed.is_none().then(|| progress(&workloads, &states));
            rollout.next = Some(if begun { now + SignedDuration::from_secs(1) } else { later });
        }
    }
    Ok((rollout, Consumption::of(&consumers, &value.changed, carried)))
}

/// Begins with as many of them as the budget has room for. Whether any was begun, and what was refused.
async fn begin_all(
    context: &Context,
    rotation: &CertificateRotation,
    workloads: impl Iterator<Item = &Workload>,
    (note, until): (&Note, Timestamp),
    now: Timestamp,
) -> Result<(bool, Option<String>), Halt> {
    let (namespace, secret) = (rotation.namespace().unwrap_or_default(), rotation.spec.secret_name.as_str());
    let (mut begun, mut refused) = (false, None);
    for workload in workloads {
        let place = (namespace.as_str(), &workload.owner, secret);
        if !context.restarter.budget.take(place, until, now) {
            continue;
        }
        match begin(context, rotation, &workload.owner, note).await {
            Ok(()) => begun = true,
            Err(halt) => {
                context.restarter.budget.give_back(place);
                match halt {
                    Halt::Problem(problem) => {
                        refused = refused.or(Some(format!("{} cannot be restarted: {}", name(&workload.owner), problem.message)));
                    }
                    Halt::Superseded(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok((begun, refused))
}

/// Those under `workloads`, then those that are found, by name.
fn workloads(
    context: &Context,
    namespace: &str,
    restart: &Restart,
    consumers: &[Consumer],
    (changed, carried, now): (&Changed, Option<(&str, &str)>, Timestamp),
) -> Vec<Workload> {
    let mut owners: Vec<Owner> = restart
        .workloads
        .iter()
        .map(|workload| Owner { kind: workload.kind.as_str().into(), name: workload.name.as_str().into() })
        .collect();
    if restart.discover {
        let mut found: Vec<Owner> = consumers.iter().map(|consumer| consumer.owner.clone()).filter(can_restart).collect();
        found.sort_by(|left, right| (&left.name, &left.kind).cmp(&(&right.name, &right.kind)));
        owners.extend(found.into_iter().filter(|owner| !restart.workloads.iter().any(|named| is(owner, named))));
    }
    let used: HashMap<&Owner, &Vec<_>> = consumers.iter().map(|consumer| (&consumer.owner, &consumer.pods)).collect();
    let workload = |owner: Owner| {
        let fact = context.inventory.workload(namespace, &owner);
        // Of what uses the Secret, the Pods that do; of what was named although it does not, as far as can be seen, all of them.
        let others;
        let pods = if let Some(pods) = used.get(&owner) {
            pods
        } else {
            others = context.inventory.pods_of(namespace, &owner);
            &others
        };
        let pods = pods.iter().filter(|(_, pod)| !pod.over);
        let find = |annotations: &[(Box<str>, Box<str>)]| {
            annotations.iter().find(|(key, _)| carried.is_some_and(|(annotation, _)| **key == *annotation)).map(|(_, value)| value.clone())
        };
        // `kubectl rollout undo` takes the Deployment's annotations back too; the ReplicaSet that was made for the restart still has the note.
        let ours = |note: &Note| carried.is_some_and(|(_, mark)| note.mark == mark);
        let read = |text: Box<str>| Note::read(&text, now);
        let note = fact.as_ref().and_then(|fact| find(&fact.notes)).and_then(read).filter(ours);
        let of_children =
            || context.inventory.controlled_by(namespace, &owner).iter().filter_map(|child| find(&child.notes)).filter_map(read).find(ours);
        let notes = || fact.iter().flat_map(|fact| &fact.notes);
        Workload {
            exists: fact.is_some(),
            held: fact.as_ref().and_then(|fact| fact.held),
            mark: fact.as_ref().and_then(|fact| find(&fact.marks)),
            note: note.or_else(of_children),
            restarted: notes().filter_map(|(_, text)| Note::read(text, now)).map(|note| note.at).max(),
            progress: fact.as_ref().map(|fact| fact.progress).unwrap_or_default(),
            stale: pods.clone().filter(|(_, pod)| changed.is_stale(pod, carried)).count(),
            trouble: pods.clone().find_map(|(name, pod)| pod.trouble.as_ref().map(|trouble| format!("Pod {name}, {trouble}"))),
            owner,
        }
    };
    owners.into_iter().map(workload).collect()
}

fn is(owner: &Owner, named: &crate::api::restart::WorkloadRef) -> bool {
    *owner.kind == *named.kind.as_str() && *owner.name == *named.name
}

fn can_restart(owner: &Owner) -> bool {
    KINDS.iter().any(|kind| *kind.kind == *owner.kind && kind.restart.is_some())
}

/// Places in the budget for what goes on, and none for what does not; what is finished is noted.
async fn settle(context: &Context, (namespace, secret): (&str, &str), workloads: &[Workload], states: &[State]) -> Result<(), Halt> {
    for (workload, state) in workloads.iter().zip(states) {
        let place = (namespace, &workload.owner, secret);
        match (state, &workload.note) {
            (State::Rolling(until), Some(_)) => context.restarter.budget.hold(place, *until),
            (State::Finished, Some(note)) => {
                let done = Note { done: true, ..note.clone() };
                context.restarter.restart(namespace, &workload.owner, secret, &done).await?;
                context.restarter.budget.give_back(place);
            }
            (State::Due(_) | State::Rolling(_), _) => {}
            _ => context.restarter.budget.give_back(place),
        }
    }
    Ok(())
}

/// Who still has the value before and is not restarted.
fn skipped(
    workloads: &[Workload],
    states: &[State],
    consumers: &[Consumer],
    value: &Value<'_>,
    carried: Option<(&str, &str)>,
) -> Vec<String> {
    let left = workloads.iter().zip(states).filter_map(|(workload, state)| match state {
        State::Skipped(why) => Some(format!("{}: {why}", name(&workload.owner))),
        _ => None,
    });
    let others = consumers.iter().filter(|consumer| !can_restart(&consumer.owner));
    let others = others.filter(|consumer| consumer.pods.iter().any(|(_, pod)| value.changed.is_stale(pod, carried)));
    left.chain(others.map(|consumer| format!("{}: restart it yourself", name(&consumer.owner)))).collect()
}

fn progress(workloads: &[Workload], states: &[State]) -> String {
    let count = |wanted: fn(&State) -> bool| states.iter().filter(|state| wanted(state)).count();
    let rolling = workloads.iter().zip(states).find(|(_, state)| matches!(state, State::Rolling(_)));
    let what = rolling.map_or_else(|| "restarts begin".to_owned(), |(workload, _)| format!("{} is being restarted", name(&workload.owner)));
    let open = count(|state| matches!(state, State::Due(_) | State::Rolling(_)));
    format!("{what}; {open} of {} workloads do not have the present certificate yet", workloads.len())
}

async fn begin(context: &Context, rotation: &CertificateRotation, workload: &Owner, note: &Note) -> Result<(), Halt> {
    let (namespace, secret) = (rotation.namespace().unwrap_or_default(), rotation.spec.secret_name.as_str());
    let written = context.steps.run("restart", context.restarter.restart(&namespace, workload, secret, note)).await?;
    if !written {
        return Ok(()); // the inventory does not know it yet
    }
    let text = format!("{} is restarted, as the content of Secret {secret} has changed", name(workload));
    tracing::info!(object = rotation.name_any(), namespace, workload = name(workload), "restarted");
    context.audit.record("restart", &described(rotation), super::reason::Reason::Restarting.as_str(), "success", None);
    context
        .events
        .send(rotation, Event { warning: false, reason: super::reason::Reason::Restarting.as_str(), action: "Restart", text: &text })
        .await;
    Ok(())
}

fn name(owner: &Owner) -> String {
    format!("{} {}", owner.kind, owner.name)
}
