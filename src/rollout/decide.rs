//! Given the workloads that use a value and how they are: whom to restart next. Pure.

use jiff::{SignedDuration, Timestamp};

use super::mark::Note;
use crate::{
    api::{Duration, restart::Strategy},
    inventory::{pods::Owner, workloads::Progress},
};

/// A workload that uses the value.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its kind and name.
    pub owner: Owner,
    /// Whether it is there at all.
    pub exists: bool,
    /// Why it cannot be restarted by its Pod template.
    pub held: Option<&'static str>,
    /// What its template carries for this Secret.
    pub mark: Option<Box<str>>,
    /// What was noted on it for this Secret.
    pub note: Option<Note>,
    /// When it was restarted last, for whatever Secret.
    pub restarted: Option<Timestamp>,
    /// How far its controller is.
    pub progress: Progress,
    /// How many of its Pods may still run the previous value.
    pub stale: usize,
    /// What one of its Pods says that does not run.
    pub trouble: Option<String>,
}

/// How a workload stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has the value.
    Current,
    /// It has the value since just now, which is to be noted.
    Finished,
    /// It is left alone, for this reason.
    Skipped(String),
    /// It has to be restarted, at this time at the earliest.
    Due(Timestamp),
    /// It is being restarted; by then it has to be healthy.
    Rolling(Timestamp),
    /// It has not become healthy in time, or cannot.
    Failed(String),
}

/// How workloads are restarted.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The mark of the value.
    pub mark: &'a str,
    /// When the value became what it is.
    pub changed: Timestamp,
    /// The order.
    pub strategy: Strategy,
    /// How long each may take.
    pub timeout: Duration,
    /// Between two restarts of one workload.
    pub interval: SignedDuration,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// All of them have the value, or are left alone.
    Done,
    /// Restart these (places in the list), as far as the budget allows.
    Restart(Vec<usize>),
    /// Wait for what goes on, at most until then.
    Wait(Timestamp),
    /// This one failed; no other is begun.
    Failed(usize, String),
}

/// How one workload stands.
pub fn state(workload: &Workload, terms: &Terms<'_>, now: Timestamp) -> State {
    if !workload.exists {
        return State::Skipped("it is not there".into());
    }
    match workload.note.as_ref().filter(|note| note.mark == terms.mark) {
        Some(note) => begun(workload, note, terms, now),
        None => not_begun(workload, terms, now),
    }
}

/// It was restarted for this value.
fn begun(workload: &Workload, note: &Note, terms: &Terms<'_>, now: Timestamp) -> State {
    let until = note.at + terms.timeout.signed();
    let carries = workload.mark.as_deref() == Some(terms.mark);
    match workload {
        _ if workload.stale == 0 && (note.done || !carries) => State::Current,
        _ if !carries => State::Skipped("its restart was undone by somebody; `kubectl rollout restart` brings it what it lacks".into()),
        _ if workload.stale == 0 && workload.progress.is_complete() => State::Finished,
        // What is stopped in the middle is not waited for in vain.
        Workload { held: Some(why), .. } => State::Skipped((*why).into()),
        _ if note.done => State::Skipped("it has Pods of before its restart".into()),
        _ if now < until => State::Rolling(until),
        // What its controller calls complete has not failed; that Pods of before are known still may be a watch that is late.
        _ if workload.progress.is_complete() => State::Skipped("it has Pods of before its restart".into()),
        _ => unhealthy(workload, terms),
    }
}

fn unhealthy(workload: &Workload, terms: &Terms<'_>) -> State {
    let Progress { available, wanted, .. } = workload.progress;
    let counts = || format!("{available} of {wanted} Pods are available, {} still have the previous value", workload.stale);
    let why = workload.trouble.clone().unwrap_or_else(counts);
    State::Failed(format!("it was not healthy within {}: {why}", terms.timeout))
}

fn not_begun(workload: &Workload, terms: &Terms<'_>, now: Timestamp) -> State {
    match (workload.held, workload.restarted) {
        _ if workload.stale == 0 => State::Current,
        (Some(why), _) => State::Skipped(why.into()),
        // A restart for something else, begun after this value was there, brings this one too; which of them it cannot live with, nobody can tell.
        (None, Some(last)) if last > terms.changed && !workload.progress.is_complete() => {
            let until = last + terms.timeout.signed();
            if now < until { State::Rolling(until) } else { unhealthy(workload, terms) }
        }
        (None, last) => {
            let rested = last.map_or(now, |last| last + terms.interval);
            State::Due(rested.max(together(terms.changed, now)).max(now))
        }
    }
}

/// Times of the API server are whole seconds. In the second of the change, others of the same workload's Secrets may still change; from the next one
/// on, one restart brings them all. Clocks that differ are no reason to wait for longer.
fn together(changed: Timestamp, now: Timestamp) -> Timestamp {
    let next = changed.checked_add(SignedDuration::from_secs(1)).unwrap_or(changed);
    if changed <= now && now < next { next } else { now }
}

/// Whom to restart next.
pub fn decide(workloads: &[Workload], terms: &Terms<'_>, now: Timestamp) -> (Vec<State>, Plan) {
    let states: Vec<State> = workloads.iter().map(|workload| state(workload, terms, now)).collect();
    let failed = states.iter().enumerate().find_map(|(place, state)| match state {
        State::Failed(why) => Some((place, why.clone())),
        _ => None,
    });
    let plan = match failed {
        Some((place, why)) => Plan::Failed(place, why),
        None => next(&states, terms.strategy, now),
    };
    (states, plan)
}

fn next(states: &[State], strategy: Strategy, now: Timestamp) -> Plan {
    let open = states.iter().enumerate().filter(|(_, state)| matches!(state, State::Due(_) | State::Rolling(_)));
    let most = if strategy == Strategy::RollingInOrder { 1 } else { usize::MAX };
    let (mut due, mut until) = (Vec::new(), None::<Timestamp>);
    for (place, state) in open.take(most) {
        match state {
            State::Due(time) if *time <= now => due.push(place),
            State::Due(time) | State::Rolling(time) => until = Some(until.map_or(*time, |until| until.min(*time))),
            _ => {}
        }
    }
    match (due.is_empty(), until) {
        (false, _) => Plan::Restart(due),
        (true, Some(until)) => Plan::Wait(until),
        (true, None) => Plan::Done,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000_000;
    const MINUTE: SignedDuration = SignedDuration::from_mins(1);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(NOW + seconds).unwrap()
    }

    fn terms(strategy: Strategy) -> Terms<'static> {
        Terms { mark: "new", changed: at(-30), strategy, timeout: Duration::minutes(10), interval: MINUTE }
    }

    /// Two old Pods, never restarted.
    fn workload() -> Workload {
        Workload {
            owner: Owner { kind: "Deployment".into(), name: "web".into() },
            exists: true,
            held: None,
            mark: None,
            note: None,
            restarted: None,
            progress: Progress { generation: 1, observed: 1, wanted: 2, updated: 2, available: 2, total: 2 },
            stale: 2,
            trouble: None,
        }
    }

    fn marked(mut workload: Workload, seconds: i64) -> Workload {
        workload.mark = Some("new".into());
        workload.note = Some(Note { mark: "new".into(), at: at(seconds), done: false });
        workload.restarted = Some(at(seconds));
        workload
    }

    fn done(workload: Workload) -> Workload {
        let mut workload = marked(workload, -30_000_000);
        workload.note.as_mut().unwrap().done = true;
        workload
    }

    type Change = fn(Workload) -> Workload;

    #[test]
    fn how_a_workload_stands() {
        let rows: &[(&str, Change, State)] = &[
            ("old Pods", |w| w, State::Due(at(0))),
            ("only new Pods", |w| Workload { stale: 0, ..w }, State::Current),
            ("no Pods at all", |w| Workload { stale: 0, progress: Progress::default(), ..w }, State::Current),
            ("paused by somebody", |w| Workload { held: Some("it is paused"), ..w }, State::Skipped("it is paused".into())),
            ("paused, and nothing to do", |w| Workload { held: Some("it is paused"), stale: 0, ..w }, State::Current),
            (
                "marked for another value",
                |w| Workload { mark: Some("old".into()), note: Some(Note { mark: "old".into(), at: at(-900), done: true }), ..w },
                State::Due(at(0)),
            ),
            ("restarted for something else just now", |w| Workload { restarted: Some(at(-20)), ..w }, State::Due(at(40))),
            ("restarted for something else before", |w| Workload { restarted: Some(at(-61)), ..w }, State::Due(at(0))),
            ("marked", |w| marked(w, -5), State::Rolling(at(595))),
            (
                "marked, Pods new, controller not done",
                |w| marked(Workload { stale: 0, progress: Progress { updated: 1, ..w.progress }, ..w }, -5),
                State::Rolling(at(595)),
            ),
            (
                "marked, Pods new, spec not yet seen",
                |w| marked(Workload { stale: 0, progress: Progress { generation: 2, ..w.progress }, ..w }, -5),
                State::Rolling(at(595)),
            ),
            ("marked and complete", |w| marked(Workload { stale: 0, ..w }, -5), State::Finished),
            (
                "done, and a year later in trouble",
                |w| done(Workload { stale: 0, trouble: Some("OOMKilled".into()), progress: Progress { available: 0, ..w.progress }, ..w }),
                State::Current,
            ),
            (
                "done, and undone later",
                |w| Workload { mark: None, ..done(w) },
                State::Skipped("its restart was undone by somebody; `kubectl rollout restart` brings it what it lacks".into()),
            ),
            ("not there", |w| Workload { exists: false, stale: 0, ..w }, State::Skipped("it is not there".into())),
            (
                "being restarted for something else since the change",
                |w| Workload { restarted: Some(at(-20)), progress: Progress { updated: 1, ..w.progress }, ..w },
                State::Rolling(at(580)),
            ),
            (
                "was being restarted for something else before the change",
                |w| Workload { restarted: Some(at(-31)), progress: Progress { updated: 1, ..w.progress }, ..w },
                State::Due(at(29)),
            ),
            (
                "restarted for something else since the change, and not healthy in time",
                |w| Workload {
                    restarted: Some(at(-600)),
                    trouble: Some("CrashLoopBackOff".into()),
                    progress: Progress { updated: 1, ..w.progress },
                    ..w
                },
                State::Failed("it was not healthy within 10m: CrashLoopBackOff".into()),
            ),
            (
                "too late",
                |w| marked(Workload { progress: Progress { available: 1, ..w.progress }, ..w }, -600),
                State::Failed("it was not healthy within 10m: 1 of 2 Pods are available, 2 still have the previous value".into()),
            ),
            (
                "too late, and a Pod says why",
                |w| {
                    marked(
                        Workload { trouble: Some("CrashLoopBackOff".into()), progress: Progress { available: 1, ..w.progress }, ..w },
                        -600,
                    )
                },
                State::Failed("it was not healthy within 10m: CrashLoopBackOff".into()),
            ),
            ("too late, and complete all the same", |w| marked(w, -600), State::Skipped("it has Pods of before its restart".into())),
            (
                "in trouble, and there is time",
                |w| marked(Workload { trouble: Some("CrashLoopBackOff".into()), ..w }, -5),
                State::Rolling(at(595)),
            ),
            (
                "undone",
                |w| Workload { mark: Some("old".into()), ..marked(w, -5) },
                State::Skipped("its restart was undone by somebody; `kubectl rollout restart` brings it what it lacks".into()),
            ),
            ("undone, and its Pods are new all the same", |w| Workload { mark: None, stale: 0, ..marked(w, -5) }, State::Current),
            (
                "paused in the middle, and noted",
                |w| Workload { held: Some("it is paused"), ..done(w) },
                State::Skipped("it is paused".into()),
            ),
            ("gone on with later", done, State::Skipped("it has Pods of before its restart".into())),
            ("paused in the middle", |w| marked(Workload { held: Some("it is paused"), ..w }, -5), State::Skipped("it is paused".into())),
        ];
        for (what, change, wanted) in rows {
            let long_ago = what.contains("not healthy in time").then(|| at(-700));
            let terms = Terms { changed: long_ago.unwrap_or_else(|| at(-30)), ..terms(Strategy::RollingInOrder) };
            assert_eq!(state(&change(workload()), &terms, at(0)), *wanted, "{what}");
        }
    }

    #[test]
    fn what_changes_together_is_brought_by_one_restart() {
        for (changed, due) in [(-30, 0), (-1, 0), (0, 1), (5, 0)] {
            let terms = Terms { changed: at(changed), ..terms(Strategy::RollingInOrder) };
            assert_eq!(state(&workload(), &terms, at(0)), State::Due(at(due)), "{changed}");
        }
    }

    #[test]
    fn one_after_the_other_or_all_at_once() {
        let (due, rolling) = (workload, || marked(workload(), -5));
        let (current, failed) = (
            || Workload { stale: 0, ..workload() },
            || marked(Workload { progress: Progress { available: 1, ..workload().progress }, ..workload() }, -601),
        );
        let later = || Workload { restarted: Some(at(-20)), ..workload() };
        for (workloads, in_order, at_once) in [
            (vec![], Plan::Done, Plan::Done),
            (vec![current(), current()], Plan::Done, Plan::Done),
            (vec![due(), due(), due()], Plan::Restart(vec![0]), Plan::Restart(vec![0, 1, 2])),
            (vec![current(), due()], Plan::Restart(vec![1]), Plan::Restart(vec![1])),
            (vec![rolling(), due()], Plan::Wait(at(595)), Plan::Restart(vec![1])),
            (vec![later(), due()], Plan::Wait(at(40)), Plan::Restart(vec![1])),
            (vec![later(), rolling()], Plan::Wait(at(40)), Plan::Wait(at(40))),
        ] {
            assert_eq!(decide(&workloads, &terms(Strategy::RollingInOrder), at(0)).1, in_order);
            assert_eq!(decide(&workloads, &terms(Strategy::AllAtOnce), at(0)).1, at_once);
        }
        for strategy in [Strategy::RollingInOrder, Strategy::AllAtOnce] {
            let (_, plan) = decide(&[current(), failed(), due()], &terms(strategy), at(0));
            assert!(matches!(plan, Plan::Failed(1, _)), "one that failed ends it: {plan:?}");
        }
    }
}
