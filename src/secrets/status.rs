//! What a SecretRotation's status says, given what was seen and what came of it. Pure.

use jiff::{SignedDuration, Timestamp};

use super::{
    decide::{Plan, Wait},
    memory::Memory,
    reading::refresh_cache::Snapshot,
    reason::Reason,
    store::StoreError,
};
use crate::{
    api::secret_rotation::{LastChange, Pushed, SecretRotationStatus},
    cluster::{
        conditions::{self, Finding, READY, RECONCILING, STALLED, seconds},
        halt::{self, Word},
    },
    rollout::{consumption::Consumption, roll::Rollout, stage::Stage},
};

/// What keeps something from being done.
pub type Problem = halt::Problem<Reason>;

/// Why something was not done.
pub type Halt = halt::Halt<Reason>;

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let after = match &error {
            StoreError::Throttled { after: Some(after), .. } => SignedDuration::try_from(*after).ok(),
            _ => None,
        };
        Self { reason: error.reason(), message: error.to_string(), after }
    }
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Problem(error.into())
    }
}

/// What was seen and done.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Whether the Secret is there, with its keys. None: it cannot be told, and what was known stays.
    pub there: Option<bool>,
    /// It is not read, and keeps no previous values all the same.
    pub keeps_none: bool,
    /// What is written down with it.
    pub memory: Memory,
    /// Where values come from.
    pub source: Option<String>,
    /// The decision; None if it did not come to one.
    pub plan: Option<Plan>,
    /// When the Secret was created.
    pub created: Option<Timestamp>,
    /// When the store was read for a Secret that is yet to be written.
    pub read_at: Option<Timestamp>,
    /// When the store was read in this look, and what came of it is done.
    pub synced: Option<Timestamp>,
    /// What the Secret was made of in this look.
    pub snapshot: Option<Snapshot>,
    /// Why the store was to be read.
    pub read: Option<Reason>,
    /// When that had been done last.
    pub last_sync: Option<Timestamp>,
    /// What `spec.push` has brought to the store. None: it did not come to that, and what was known stays.
    pub pushed: Option<Vec<Pushed>>,
    /// When what is pushed was compared with the store, and something of it failed: it counts as compared when that is told.
    pub compared: Option<Timestamp>,
    /// The request for a refresh that is answered when what was read is written.
    pub answers: Option<String>,
    /// The request for a refresh that is answered; empty: there is none any more. None: it did not come to that, and what was known stays.
    pub handled_refresh: Option<String>,
    /// Why a previous value that was taken out is there all the same.
    pub remains: Option<String>,
    /// How far the restarts are; None: nobody is to be restarted.
    pub rollout: Option<Rollout>,
    /// Who uses the Secret. None: it cannot be told, and what was known stays.
    pub consumption: Option<Consumption>,
    /// What went wrong.
    pub problem: Option<Problem>,
}

impl View {
    /// What was read stands in the Secret.
    pub fn was_read(&mut self) {
        self.synced = self.read_at.or(self.synced);
        self.handled_refresh = self.answers.take().or(self.handled_refresh.take());
    }

    /// Why who uses the Secret does not have the new values, and will not before a person does something.
    pub fn undelivered(&self) -> Option<(Reason, String)> {
        let failed = self.rollout.as_ref().and_then(|rollout| rollout.failed.as_ref());
        let back = match &self.memory.stage {
            Stage::RolledBack { why, .. } => Some(format!(
                "{why}; the values of before are back (revision {}); mend what failed, then `seaworthy rotate`, or change the spec",
                self.memory.revision
            )),
            _ => None,
        };
        match (failed, back) {
            (Some(why), None) => Some((Reason::RestartFailed, why.clone())),
            (Some(why), Some(back)) => Some((Reason::RestartFailed, format!("{why}; before that: {back}"))),
            (None, Some(back)) => Some((Reason::RolledBack, back)),
            (None, None) => None,
        }
    }
}

/// The status after `view`.
pub fn status(before: &SecretRotationStatus, view: &View, generation: Option<i64>, now: Timestamp) -> SecretRotationStatus {
    let memory = &view.memory;
    let mut status = SecretRotationStatus {
        observed_generation: generation,
        conditions: conditions::merge(&before.conditions, findings(before, view), generation, now),
        source: view.source.clone().or_else(|| before.source.clone()),
        revision: if memory.revision > 0 { Some(memory.revision) } else { before.revision },
        last_sync_time: view.synced.map(seconds).or_else(|| before.last_sync_time.clone()),
        // With a Secret that is gone, what it remembered is told here alone.
        last_rotation_time: if view.there == Some(true) { memory.rotated_at.map(seconds) } else { before.last_rotation_time.clone() },
        next_rotation_time: view.plan.map_or_else(|| before.next_rotation_time.clone(), |plan| plan.rotates_at.map(seconds)),
        previous_kept_until: match view.plan {
            Some(plan) => plan.kept_until.map(seconds),
            None => before.previous_kept_until.clone().filter(|_| !view.keeps_none),
        },
        consumers: view.consumption.as_ref().map(Consumption::status).or_else(|| before.consumers.clone()),
        last_rotation: last_change(before, memory, now),
        handled_rotate: asked(memory.handled_rotate.as_ref()).or_else(|| before.handled_rotate.clone()),
        handled_refresh: match &view.handled_refresh {
            Some(handled) => asked(Some(handled)),
            None => before.handled_refresh.clone(),
        },
        pushed: view.pushed.clone().unwrap_or_else(|| before.pushed.clone()),
        last_failure: None,
    };
    let failure = view.problem.as_ref().map(|problem| (problem.reason, problem.message.clone())).or_else(|| view.undelivered());
    status.last_failure =
        failure.map(|(reason, message)| conditions::failure(before.last_failure.as_ref(), reason.as_str(), &message, now));
    status
}

/// A request; an empty one is none.
fn asked(handled: Option<&String>) -> Option<String> {
    handled.filter(|handled| !handled.is_empty()).cloned()
}

fn last_change(before: &SecretRotationStatus, memory: &Memory, now: Timestamp) -> Option<LastChange> {
    let (Some(id), Some(reason)) = (&memory.rotation, &memory.reason) else { return before.last_rotation.clone() };
    let known = before.last_rotation.as_ref().filter(|last| last.id == *id);
    let completed = || known.and_then(|last| last.completed_at.clone()).unwrap_or_else(|| seconds(now));
    Some(LastChange {
        id: id.clone(),
        reason: reason.clone(),
        started_at: memory.started_at.map(seconds),
        completed_at: (memory.stage == Stage::Complete).then(completed),
    })
}

fn findings(before: &SecretRotationStatus, view: &View) -> Vec<Finding> {
    let mut findings = vec![ready(before, view)];
    let finding = |kind, reason: Reason, message: String| Finding { kind, status: true, reason: reason.as_str().into(), message };
    match &view.problem {
        Some(problem) if problem.reason.needs_a_person() => findings.push(finding(STALLED, problem.reason, problem.message.clone())),
        Some(problem) => {
            findings.extend(view.undelivered().map(|(reason, message)| finding(STALLED, reason, message)));
            let why = view.plan.map_or(problem.reason, |plan| plan.reason);
            findings.push(finding(RECONCILING, why, format!("{}; it is tried again", problem.message)));
        }
        None => {
            findings.extend(view.undelivered().map(|(reason, message)| finding(STALLED, reason, message)));
            let going = view.rollout.as_ref().and_then(|rollout| rollout.going.clone());
            findings.extend(going.map(|what| finding(RECONCILING, Reason::Restarting, what)));
        }
    }
    findings
}

/// Ready is about what consumers get: a Secret with all that the spec asks for, as far as the store could be asked.
fn ready(before: &SecretRotationStatus, view: &View) -> Finding {
    let no = |reason: Reason, message: String| Finding { kind: READY, status: false, reason: reason.as_str().into(), message };
    let Some(there) = view.there else {
        // That we cannot see the Secret takes it from nobody.
        let known = before.conditions.iter().find(|condition| condition.type_ == READY);
        let blocked = |reason| matches!(reason, Reason::NotOurs | Reason::TargetConflict | Reason::ReservedType | Reason::Malformed);
        return match (&view.problem, known) {
            (Some(problem), _) if blocked(problem.reason) => no(problem.reason, problem.message.clone()),
            (_, Some(known)) => {
                Finding { kind: READY, status: known.status == "True", reason: known.reason.clone().into(), message: known.message.clone() }
            }
            (Some(problem), None) => no(problem.reason, problem.message.clone()),
            (None, None) => no(Reason::Missing, "it cannot be told whether there is a Secret".into()),
        };
    };
    if let Some(problem) = &view.problem {
        // What is in the Secret is what the store had last; that it cannot be asked now is said, and how long ago that was.
        let since = before.last_sync_time.as_ref().map(|time| format!("; last synced at {}", time.0)).unwrap_or_default();
        return no(problem.reason, format!("{}{since}", problem.message));
    }
    if !there {
        return no(Reason::Missing, "there is no Secret yet".into());
    }
    if view.pushed.iter().flatten().any(|pushed| pushed.hash.is_none()) {
        return no(Reason::Resumed, "a value is on its way to the store".into());
    }
    let plan = view.plan;
    let is = match view.memory.stage {
        Stage::RolledBack { .. } => {
            "the Secret holds the values of before; what was taken back is not tried again by itself, also where the store has it"
        }
        _ => "the Secret is as it should be",
    };
    let message = match plan {
        Some(Plan { suspended: true, .. }) => "suspended: nothing is read and nothing is rotated".to_owned(),
        Some(Plan { waits: Some(wait), .. }) => format!("new values are due: {}", waiting(wait)),
        Some(Plan { rotates_at: Some(time), .. }) => format!("{is}; next rotation at {}", seconds(time).0),
        _ => is.into(),
    };
    let pushed = view.pushed.as_ref().is_some_and(|pushed| !pushed.is_empty()) && !plan.is_some_and(|plan| plan.suspended);
    let message = if pushed { format!("{message}; the store has what is pushed") } else { message };
    let skipped = view.rollout.iter().flat_map(|rollout| &rollout.skipped);
    let message = skipped.fold(message, |message, left| format!("{message}; {left}"));
    let reason = if plan.is_some_and(|plan| plan.suspended) { Reason::Suspended } else { Reason::Current };
    Finding { kind: READY, status: true, reason: reason.as_str().into(), message }
}

/// Why new values are not made yet.
pub fn waiting(wait: Wait) -> String {
    let made = "others would take their place, and are made then, or at once without rotation.previous";
    match wait {
        Wait::Window(time) => format!("they wait for the window until {}", seconds(time).0),
        Wait::Previous(time) => format!("the previous values are kept until {}; {made}", seconds(time).0),
        Wait::Pods(time) => format!("the previous values are kept until no Pod runs them, at most until {}; {made}", seconds(time).0),
    }
}

/// When something is due that is not due yet.
pub fn planned(view: &View, now: Timestamp) -> Option<Timestamp> {
    let plan = view.plan.filter(|plan| !plan.suspended)?;
    let times = [plan.next_sync, rotation(&plan), plan.kept_until, plan.kept_at_most];
    times.into_iter().flatten().filter(|time| *time > now).min()
}

/// When to look whether values are to be generated. Where those before are in the way, their own times are looked at.
fn rotation(plan: &Plan) -> Option<Timestamp> {
    match plan.waits {
        Some(Wait::Window(time)) => Some(time),
        Some(Wait::Previous(_) | Wait::Pods(_)) => None,
        None => plan.next_rotation,
    }
}

/// When to look again.
pub fn next_look(view: &View, now: Timestamp) -> Option<Timestamp> {
    let planned = view.plan.filter(|plan| !plan.suspended);
    let times = planned.map(|plan| [plan.next_sync, rotation(&plan), plan.retire_at]);
    let rollout = view.rollout.as_ref().and_then(|rollout| rollout.next);
    // When the data changed is yet to be noted; before it is, nobody can be said to have it.
    let unnoted = (!view.memory.change.is_noted()).then(|| now + SignedDuration::from_secs(5));
    let on_its_way = view.problem.is_none() && view.pushed.iter().flatten().any(|pushed| !pushed.next.is_empty());
    let noted = on_its_way.then(|| now + SignedDuration::from_millis(200));
    // A rotation is still due, because a newer value of the store was taken over first.
    let new = planned.and_then(|plan| plan.generate).map(|_| now);
    // What is due and was not done waits for something else; it is looked at again even so.
    let soon = |time: Timestamp| if time > now { time } else { now + SignedDuration::from_mins(1) };
    times.into_iter().flatten().chain([rollout, unnoted, noted, new]).flatten().map(soon).min()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_later_does_not_wait_for_a_problem_and_what_was_due_does() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let (before, soon, later) =
            (now - SignedDuration::from_secs(1), now + SignedDuration::from_secs(60), now + SignedDuration::from_hours(1));
        let plan = Plan {
            suspended: false,
            read: None,
            generate: None,
            retire: false,
            reason: Reason::Current,
            next_sync: None,
            next_rotation: None,
            rotates_at: None,
            waits: None,
            in_the_way: None,
            kept_until: None,
            kept_at_most: None,
            retire_at: None,
        };
        for (plan, wanted) in [
            (Plan { next_sync: Some(soon), next_rotation: Some(later), ..plan }, Some(soon)),
            (Plan { next_sync: Some(before), next_rotation: Some(later), ..plan }, Some(later)),
            (Plan { next_rotation: Some(before), waits: Some(Wait::Window(later)), kept_until: Some(soon), ..plan }, Some(soon)),
            (Plan { kept_until: Some(before), kept_at_most: Some(soon), ..plan }, Some(soon)),
            (Plan { next_sync: Some(now), ..plan }, None),
            (Plan { suspended: true, next_sync: Some(soon), ..plan }, None),
        ] {
            assert_eq!(planned(&View { plan: Some(plan), ..View::default() }, now), wanted);
        }
        // What the store had was taken over before what somebody asks for, and was no problem.
        let asked = Plan { generate: Some(Reason::Requested), next_sync: Some(later), ..plan };
        let mut view = View { plan: Some(asked), ..View::default() };
        view.memory.change.note(before);
        assert_eq!(next_look(&view, now), Some(soon));
    }
}
