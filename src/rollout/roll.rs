//! Who uses a Secret is restarted, in order: what `spec.restart` of a resource asks for. The areas call it at each look; what goes on stands on the
//! workloads.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    act::Restarter,
    budget,
    consumption::{Changed, Consumption},
    decide::{Plan, State, Terms, Workload, decide},
    mark::{Note, annotation, mark},
};
use crate::{
    api::{
        Duration,
        restart::{Restart, WorkloadRef},
    },
    cluster::{apply::WriteError, conditions::seconds, references::SecretData, steps::Steps},
    inventory::{Inventory, consumers::Consumer, pods::Owner, template::Source, workloads::KINDS},
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
    /// Who was restarted in this look, by kind and name.
    pub begun: Vec<String>,
    /// Who is left alone, and why.
    pub skipped: Vec<String>,
    /// When to look again.
    pub next: Option<Timestamp>,
}

/// What the restarts are about.
pub struct Value<'a> {
    /// Where the Secret lies.
    pub namespace: &'a str,
    /// The Secret.
    pub secret: &'a str,
    /// Its data.
    pub data: &'a SecretData,
    /// When it became that.
    pub changed: Changed,
    /// For people: certificate 3.
    pub named: String,
    /// The uid of who asks, for the jitter.
    pub uid: &'a str,
    /// Not before then: the window is closed.
    pub opens: Option<Timestamp>,
}

/// While something goes on that no event tells of, it is looked at so often.
const AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// Who waits for a place, or for somebody to mend something, is looked at so often, and up to twice as seldom.
const SEEN_AGAIN: SignedDuration = SignedDuration::from_secs(15);
/// The API server allows no more; an older schema might.
const LONGEST: Duration = Duration::hours(24);

/// Restarts who uses Secrets.
pub struct Roller {
    /// Who they are.
    pub inventory: Inventory,
    /// Writes.
    pub restarter: Restarter,
    /// Each restart is a step.
    pub steps: Steps,
}

impl Roller {
    /// Restarts who is next, and counts who has the value.
    pub async fn roll(&self, restart: &Restart, value: &Value<'_>, now: Timestamp) -> Result<(Rollout, Consumption), WriteError> {
        let consumers = self.inventory.consumers(value.namespace, &Source::Secret(value.secret.into()));
        let key = self.restarter.key().await?;
        let (annotation, mark) = (annotation(value.secret), mark(&key, value.data, value.changed.time()));
        let carried = Some((annotation.as_str(), mark.as_str()));
        let workloads = self.workloads(restart, &consumers, value, (carried, now));
        let terms = Terms {
            mark: &mark,
            changed: value.changed.time(),
            strategy: restart.strategy,
            timeout: restart.timeout.min(LONGEST),
            interval: self.restarter.budget.limits().interval,
        };
        let (states, plan) = decide(&workloads, &terms, now);
        self.settle((value, &mark), &workloads, &states).await?;
        let mut rollout = Rollout { skipped: skipped((&workloads, &states), &consumers, value, carried), ..Rollout::default() };
        let named = |place: usize| workloads.get(place).map_or_else(String::new, |workload| name(&workload.owner));
        // What is left alone or failed may be mended without an event that wakes us.
        let later = now + SEEN_AGAIN + jitter(value.uid, SEEN_AGAIN);
        rollout.next = (!rollout.skipped.is_empty()).then_some(later);
        match plan {
            Plan::Done => rollout.over = true,
            // What follows from it is hard to take back, and what is known may be of before a cut connection: it is asked once more.
            Plan::Failed(place, _) if !self.is_as_known(value, workloads.get(place)).await => {
                rollout.going = Some(progress(&workloads, &states, value));
                rollout.next = Some(now + AGAIN);
            }
            Plan::Failed(place, why) => {
                rollout.rejected = true;
                rollout.failed = Some(format!("{} was restarted with {}: {why}", named(place), value.named));
                rollout.next = Some(later);
            }
            Plan::Wait(until) => {
                rollout.going = Some(progress(&workloads, &states, value));
                rollout.next = Some(until.min(now + AGAIN));
            }
            Plan::Restart(_) if value.opens.is_some_and(|opens| opens > now) => {
                rollout.next = value.opens;
                rollout.skipped.push(format!("restarts wait for the window, until {}", seconds(value.opens.unwrap_or(now)).0));
            }
            Plan::Restart(places) => {
                let next = places.into_iter().filter_map(|place| workloads.get(place));
                let note = Note { mark: mark.clone(), at: seconds(now).0, done: false };
                let soon = self.begin(value, next, (&note, now + terms.timeout.signed()), (now, &mut rollout)).await?;
                rollout.going = rollout.failed.is_none().then(|| progress(&workloads, &states, value));
                rollout.next = Some(if soon { now + SignedDuration::from_secs(1) } else { later });
            }
        }
        Ok((rollout, Consumption::of(&consumers, &value.changed, carried)))
    }

    async fn is_as_known(&self, value: &Value<'_>, workload: Option<&Workload>) -> bool {
        let Some(workload) = workload else { return false };
        self.restarter.progress(value.namespace, &workload.owner).await == Some(workload.progress)
    }

    /// Begins with as many of them as the budget has room for. Whether there is something to see soon.
    async fn begin(
        &self,
        value: &Value<'_>,
        workloads: impl Iterator<Item = &Workload>,
        (note, until): (&Note, Timestamp),
        (now, rollout): (Timestamp, &mut Rollout),
    ) -> Result<bool, WriteError> {
        let mut soon = false;
        for workload in workloads {
            let place = of((value, &note.mark), &workload.owner);
            if !self.restarter.budget.take(place, until, now) {
                continue;
            }
            let restart = self.restarter.restart(value.namespace, &workload.owner, value.secret, note);
            match self.steps.run("restart", restart).await {
                Ok(written) => {
                    soon = true; // not written: the inventory does not know yet that it was
                    rollout.begun.extend(written.then(|| name(&workload.owner)));
                }
                Err(error) => {
                    self.restarter.budget.give_back(place);
                    match error {
                        WriteError::NotLeading => return Err(error),
                        // Somebody else wrote to it just now: the next look sees what.
                        WriteError::Superseded(_) | WriteError::Exists(_) => soon = true,
                        WriteError::Refused { .. } | WriteError::Owned { .. } | WriteError::Unavailable { .. } => {
                            rollout.failed.get_or_insert_with(|| format!("{} cannot be restarted: {error}", name(&workload.owner)));
                        }
                    }
                }
            }
        }
        Ok(soon)
    }

    /// Those that are to be restarted, as they are.
    fn workloads(
        &self,
        restart: &Restart,
        consumers: &[Consumer],
        value: &Value<'_>,
        (carried, now): (Option<(&str, &str)>, Timestamp),
    ) -> Vec<Workload> {
        let (namespace, changed) = (value.namespace, &value.changed);
        let used: HashMap<&Owner, &Vec<_>> = consumers.iter().map(|consumer| (&consumer.owner, &consumer.pods)).collect();
        let workload = |owner: Owner| {
            let fact = self.inventory.workload(namespace, &owner);
            // Of what uses the Secret, the Pods that do; of what was named although it does not, as far as can be seen, all of them.
            let others;
            let pods = if let Some(pods) = used.get(&owner) {
                pods
            } else {
                others = self.inventory.pods_of(namespace, &owner);
                &others
            };
            let pods = pods.iter().filter(|(_, pod)| !pod.over);
            let find = |annotations: &[(Box<str>, Box<str>)]| {
                annotations
                    .iter()
                    .find(|(key, _)| carried.is_some_and(|(annotation, _)| **key == *annotation))
                    .map(|(_, value)| value.clone())
            };
            let ours = |note: &Note| carried.is_some_and(|(_, mark)| note.mark == mark);
            let read = |text: Box<str>| Note::read(&text, now);
            // `kubectl rollout undo` takes the Deployment's annotations back too; the ReplicaSet that was made for the restart still has the note.
            let of_children = || {
                self.inventory.controlled_by(namespace, &owner).iter().filter_map(|child| find(&child.notes)).filter_map(read).find(ours)
            };
            let note = fact.as_ref().and_then(|fact| find(&fact.notes)).and_then(read).filter(ours).or_else(of_children);
            let notes = || fact.iter().flat_map(|fact| &fact.notes);
            Workload {
                exists: fact.is_some(),
                held: fact.as_ref().and_then(|fact| fact.held),
                mark: fact.as_ref().and_then(|fact| find(&fact.marks)),
                note,
                restarted: notes().filter_map(|(_, text)| Note::read(text, now)).map(|note| note.at).max(),
                progress: fact.as_ref().map(|fact| fact.progress).unwrap_or_default(),
                stale: pods.clone().filter(|(_, pod)| changed.is_stale(pod, carried)).count(),
                trouble: pods.clone().find_map(|(name, pod)| pod.trouble.as_ref().map(|trouble| format!("Pod {name}, {trouble}"))),
                owner,
            }
        };
        owners(restart, consumers).into_iter().map(workload).collect()
    }

    /// Places in the budget for what goes on, and none for what does not; what is finished is noted.
    async fn settle(&self, (value, mark): (&Value<'_>, &str), workloads: &[Workload], states: &[State]) -> Result<(), WriteError> {
        let there: Vec<&Owner> = workloads.iter().filter(|workload| workload.exists).map(|workload| &workload.owner).collect();
        self.restarter.budget.keep(value.namespace, value.secret, &there);
        for (workload, state) in workloads.iter().zip(states) {
            let place = of((value, mark), &workload.owner);
            match (state, &workload.note) {
                (State::Rolling(until), Some(_)) => self.restarter.budget.hold(place, *until),
                // What is stopped in the middle is over for us, too: who goes on with it later is not late.
                (State::Finished | State::Skipped(_), Some(note))
                    if *state == State::Finished || (workload.held.is_some() && !note.done) =>
                {
                    let done = Note { done: true, ..note.clone() };
                    self.restarter.restart(value.namespace, &workload.owner, value.secret, &done).await?;
                    self.restarter.budget.give_back(place);
                }
                // What was begun with an earlier value ends when it is healthy, or cannot be.
                (State::Due(_), _) if workload.progress.is_complete() || workload.trouble.is_some() => {
                    self.restarter.budget.give_back_earlier(place);
                }
                (State::Due(_) | State::Rolling(_), _) => {}
                _ => self.restarter.budget.give_back(place),
            }
        }
        Ok(())
    }
}

fn of<'a>((value, mark): (&Value<'a>, &'a str), workload: &'a Owner) -> budget::Restart<'a> {
    budget::Restart { namespace: value.namespace, workload, secret: value.secret, mark }
}

/// Those under `workloads`, then those that are found, by name.
fn owners(restart: &Restart, consumers: &[Consumer]) -> Vec<Owner> {
    let named = |workload: &WorkloadRef| Owner { kind: workload.kind.as_str().into(), name: workload.name.as_str().into() };
    let mut owners: Vec<Owner> = restart.workloads.iter().map(named).collect();
    if restart.discover {
        let mut found: Vec<Owner> = consumers.iter().map(|consumer| consumer.owner.clone()).filter(can_restart).collect();
        found.sort_by(|left, right| (&left.name, &left.kind).cmp(&(&right.name, &right.kind)));
        owners.extend(found.into_iter().filter(|owner| !restart.workloads.iter().any(|named| is(owner, named))));
    }
    owners
}

fn is(owner: &Owner, named: &WorkloadRef) -> bool {
    *owner.kind == *named.kind.as_str() && *owner.name == *named.name
}

fn can_restart(owner: &Owner) -> bool {
    KINDS.iter().any(|kind| *kind.kind == *owner.kind && kind.restart.is_some())
}

/// Who still has the previous value and is not restarted.
fn skipped(
    (workloads, states): (&[Workload], &[State]),
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

fn progress(workloads: &[Workload], states: &[State], value: &Value<'_>) -> String {
    let count = |wanted: fn(&State) -> bool| states.iter().filter(|state| wanted(state)).count();
    let rolling = workloads.iter().zip(states).find(|(_, state)| matches!(state, State::Rolling(_)));
    let what = rolling.map_or_else(|| "restarts begin".to_owned(), |(workload, _)| format!("{} is being restarted", name(&workload.owner)));
    let open = count(|state| matches!(state, State::Due(_) | State::Rolling(_)));
    format!("{what}; {open} of {} workloads do not have {} yet", workloads.len(), value.named)
}

fn name(owner: &Owner) -> String {
    format!("{} {}", owner.kind, owner.name)
}
