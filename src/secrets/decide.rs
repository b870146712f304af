//! Given what is there and the time: whether the store is to be read, and whether values are to be generated. Pure.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{contents::compose::kept_keys, memory::Memory, reading::refresh_times::next_refresh, reason::Reason};
use crate::{
    api::secret_rotation::{RefreshPolicy, SecretRotationSpec},
    rollout::stage::Stage,
    schedule::{Schedule, ScheduleError, Window, jitter},
};

/// The Secret, as far as it is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TargetState {
    /// It is not there.
    #[default]
    Missing,
    /// It is as we wrote it.
    AsWritten,
    /// Somebody else changed or removed these keys.
    Edited(Vec<String>),
}

/// Everything that a decision rests on.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// The resource's uid, for its jitter.
    pub uid: &'a str,
    /// What is asked for.
    pub spec: &'a SecretRotationSpec,
    /// The resource's generation.
    pub generation: Option<i64>,
    /// [`super::writing::managed_secret::request`] of it.
    pub request: &'a str,
    /// The value of the `rotate` annotation, empty if there is none.
    pub rotate: &'a str,
    /// Somebody asks for a refresh, and has no answer yet.
    pub asks_refresh: bool,
    /// The Secret.
    pub target: &'a TargetState,
    /// What is written down with it.
    pub memory: &'a Memory,
    /// Whether values are on their way already.
    pub pending: bool,
    /// When the store was read last with success.
    pub last_sync: Option<Timestamp>,
    /// What the times of refreshes are spread by.
    pub words: &'a BTreeSet<String>,
    /// Whether reading costs nothing and changes are told: Secrets of the own namespace.
    pub live: bool,
    /// How many Pods may still run the previous values; None: nobody can tell.
    pub stale: Option<usize>,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Leave everything alone.
    pub suspended: bool,
    /// Read the store, for this reason.
    pub read: Option<Reason>,
    /// Generate all values anew, for this reason.
    pub generate: Option<Reason>,
    /// The previous values are not kept any longer.
    pub retire: bool,
    /// The most important of the reasons.
    pub reason: Reason,
    /// When the store is read next.
    pub next_sync: Option<Timestamp>,
    /// When values are due to be generated next.
    pub next_rotation: Option<Timestamp>,
    /// When that is to happen: then, or when the window opens after it. It stays what it was if that was missed.
    pub rotates_at: Option<Timestamp>,
    /// New values are due, or asked for, and wait.
    pub waits: Option<Wait>,
    /// What they would wait for if they were due.
    pub in_the_way: Option<Wait>,
    /// Until when the previous values are kept at least.
    pub kept_until: Option<Timestamp>,
    /// Until when they are kept at most.
    pub kept_at_most: Option<Timestamp>,
    /// When to look again whether they are needed.
    pub retire_at: Option<Timestamp>,
}

/// What new values wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The window opens then.
    Window(Timestamp),
    /// With new ones the previous values would go, which are kept until then at least.
    Previous(Timestamp),
    /// The same, and Pods run those; they are kept until then at most.
    Pods(Timestamp),
}

impl Wait {
    /// When new values are made at the latest, if nothing else comes.
    pub const fn until(self) -> Timestamp {
        match self {
            Self::Window(time) | Self::Previous(time) | Self::Pods(time) => time,
        }
    }
}

/// The times in a spec, read once.
#[derive(Clone, Debug, Default)]
pub struct Times {
    schedule: Option<Schedule>,
    window: Option<Window>,
    unreadable: bool,
}

impl Times {
    /// Reads `rotation.schedule`, `timeZone` and `window`. The error names the field.
    pub fn parse(spec: &SecretRotationSpec, now: Timestamp) -> Result<Self, (&'static str, ScheduleError)> {
        let Some(rotation) = &spec.rotation else { return Ok(Self::default()) };
        let zone = rotation.time_zone.as_deref();
        if let Some(name) = zone {
            jiff::tz::TimeZone::get(name).map_err(|_| ("spec.rotation.timeZone", ScheduleError::TimeZone(name.into())))?;
        }
        let schedule = rotation.schedule.as_ref().map(|cron| Schedule::parse(cron, zone, now)).transpose();
        let window = rotation.window.as_ref().map(|window| Window::parse(window, zone, now)).transpose();
        Ok(Self {
            schedule: schedule.map_err(|error| ("spec.rotation.schedule", error))?,
            window: window.map_err(|error| ("spec.rotation.window", error))?,
            unreadable: false,
        })
    }

    /// Those of a spec that says something that nobody can read.
    pub fn unreadable() -> Self {
        Self { unreadable: true, ..Self::default() }
    }

    /// Whether nobody can tell when anything may be done.
    pub const fn are_unreadable(&self) -> bool {
        self.unreadable
    }

    /// When the window opens, if it is closed now.
    pub fn opens(&self, now: Timestamp) -> Option<Timestamp> {
        self.window.as_ref().filter(|window| !window.is_open(now)).and_then(|window| window.next_open(now))
    }
}

/// Decides. The order of the checks is the order of the reasons in the docs.
pub fn decide(observed: &Observed<'_>, times: &Times, now: Timestamp) -> Plan {
    let spec = observed.spec;
    let next_rotation = next_rotation(observed, times);
    let next_sync = next_refresh(spec, observed.words, observed.last_sync);
    let (kept_until, most) = kept(observed, now);
    let retire = kept_until.is_some_and(|until| until <= now && (observed.stale == Some(0) || most.is_some_and(|most| most <= now)));
    let kept = kept_until.filter(|_| !retire && is_kept(observed));
    let in_the_way = kept.map(|until| if until > now { Wait::Previous(until) } else { Wait::Pods(most.unwrap_or(until)) });
    let mut plan = Plan {
        suspended: false,
        read: None,
        generate: None,
        retire,
        reason: Reason::Current,
        next_sync,
        next_rotation,
        rotates_at: next_rotation.map(|due| rotates_at(due, in_the_way)).map(|due| times.opens(due).unwrap_or(due)),
        waits: None,
        in_the_way,
        kept_until,
        kept_at_most: most,
        retire_at: kept_until.filter(|_| !retire).map(|until| if until > now { until } else { now + SignedDuration::from_mins(1) }),
    };
    if spec.suspend {
        return Plan {
            suspended: true,
            retire: false,
            reason: Reason::Suspended,
            next_sync: None,
            next_rotation: None,
            rotates_at: None,
            retire_at: None,
            ..plan
        };
    }
    let rotation = spec.rotation.is_some() && !observed.pending && *observed.target != TargetState::Missing;
    let due = if asks_rotation(observed) {
        Some(Reason::Requested)
    } else {
        next_rotation.filter(|due| *due <= now).map(|_| Reason::RotationDue)
    };
    if let Some(due) = due.filter(|_| rotation) {
        let opens = || times.opens(now).filter(|_| due == Reason::RotationDue);
        plan.waits = in_the_way.or_else(|| opens().map(Wait::Window));
        plan.generate = plan.waits.is_none().then_some(due);
        if let (Reason::Requested, Some(wait)) = (due, plan.waits) {
            plan.rotates_at = Some(wait.until());
        }
    }
    let of_the_secret = || OF_THE_SECRET.iter().find_map(|check| check(observed));
    plan.read = of_the_secret().or_else(|| of_the_store(observed, next_sync, now)).filter(|_| spec.reads_store());
    plan.reason = match (plan.generate, plan.read) {
        (Some(reason), _) | (None, Some(reason)) => reason,
        (None, None) if observed.pending => Reason::Resumed,
        (None, None) if retire => Reason::PreviousOver,
        (None, None) => fallback(observed),
    };
    plan
}

/// What is so although the store has no part in it.
fn fallback(observed: &Observed<'_>) -> Reason {
    OF_THE_SECRET.iter().find_map(|check| check(observed)).unwrap_or(Reason::Current)
}

type Check = fn(&Observed<'_>) -> Option<Reason>;

/// Whether a rotation is asked for that was not answered.
fn asks_rotation(observed: &Observed<'_>) -> bool {
    let handled = observed.memory.handled_rotate.as_deref();
    handled.is_some_and(|handled| handled != observed.rotate) && !observed.rotate.is_empty()
}

/// What is about the Secret, whoever fills it.
const OF_THE_SECRET: &[Check] = &[
    |observed| (*observed.target == TargetState::Missing).then_some(Reason::Missing),
    // Where nothing is generated, what was taken back is tried again.
    |observed| {
        let is_asked_for = observed.spec.rotation.is_none() && !once(observed) && asks_rotation(observed);
        (observed.memory.stage.is_rolled_back() && is_asked_for).then_some(Reason::Requested)
    },
    |observed| {
        // After a failure every other spec is worth a try: it may be about the restarts.
        let retried = matches!(observed.memory.stage, Stage::RolledBack { generation, .. } if Some(generation) != observed.generation);
        let other = retried || observed.memory.request.as_deref() != Some(observed.request);
        (!once(observed) && !observed.spec.is_push_only() && other).then_some(Reason::SpecChanged)
    },
    |observed| (!once(observed) && matches!(observed.target, TargetState::Edited(_))).then_some(Reason::Modified),
];

/// What is about the store: somebody asks, its time has come, or reading it costs nothing.
fn of_the_store(observed: &Observed<'_>, due: Option<Timestamp>, now: Timestamp) -> Option<Reason> {
    if once(observed) {
        return None;
    }
    if observed.asks_refresh {
        return Some(Reason::RefreshRequested);
    }
    let live = observed.live && observed.spec.refresh_policy == RefreshPolicy::Periodic;
    (live || due.is_some_and(|due| due <= now)).then_some(Reason::RefreshDue)
}

fn once(observed: &Observed<'_>) -> bool {
    observed.spec.refresh_policy == RefreshPolicy::CreatedOnce && *observed.target != TargetState::Missing
}

/// When values are generated next: every so often, a little earlier so that what was made together is not replaced together, or by the schedule.
fn next_rotation(observed: &Observed<'_>, times: &Times) -> Option<Timestamp> {
    let rotation = observed.spec.rotation.as_ref()?;
    let since = observed.memory.rotated_at?;
    if let Some(every) = rotation.every {
        let early = jitter(observed.uid, (every.signed() / 100).min(SignedDuration::from_hours(24)));
        return since.checked_add(every.signed() - early).ok();
    }
    times.schedule.as_ref()?.next_after(since)
}

/// When new values are made that are `due` then: not while those before are kept, as the spec wants it. That Pods keep them for longer makes new ones late.
fn rotates_at(due: Timestamp, in_the_way: Option<Wait>) -> Timestamp {
    match in_the_way {
        Some(Wait::Previous(until)) => due.max(until),
        Some(Wait::Pods(_) | Wait::Window(_)) | None => due,
    }
}

/// Until when the previous values are kept at least, and at most.
fn kept(observed: &Observed<'_>, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
    let since = observed.memory.previous_since;
    match observed.spec.rotation.as_ref().and_then(|rotation| rotation.previous.as_ref()) {
        Some(previous) => {
            let after = |length: crate::api::Duration| since.and_then(|since| since.checked_add(length.signed()).ok());
            (after(previous.keep_for), after(previous.max_keep))
        }
        None => (since.map(|since| since.min(now)), since.map(|since| since.min(now))), // nobody wants them any more
    }
}

/// Whether there are previous values that somebody may count on: those that others have changed or removed are gone already.
fn is_kept(observed: &Observed<'_>) -> bool {
    let edited = |key: &String| matches!(observed.target, TargetState::Edited(keys) if keys.contains(key));
    observed.memory.previous_since.is_some()
        && kept_keys(observed.spec, observed.memory).any(|key| observed.memory.values.contains_key(&key) && !edited(&key))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const START: &str = "2026-01-01T00:00:00Z";
    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    struct World {
        spec: serde_json::Value,
        request: &'static str,
        rotate: &'static str,
        asks_refresh: bool,
        target: TargetState,
        memory: Memory,
        pending: bool,
        last_sync: Option<Timestamp>,
        live: bool,
        stale: Option<usize>,
        now: Timestamp,
    }

    fn start() -> Timestamp {
        START.parse().unwrap()
    }

    fn world() -> World {
        World {
            spec: serde_json::json!({
                "target": {"name": "t"}, "store": {"memory": {}}, "refreshInterval": "1h",
                "data": [{"secretKey": "a", "remoteRef": {"key": "k"}}],
                "rotation": {"every": "2400h", "generate": [{"secretKey": "a", "hex": {}}], "previous": {"keepFor": "24h", "maxKeep": "168h"}},
            }),
            request: "r",
            rotate: "",
            asks_refresh: false,
            target: TargetState::AsWritten,
            memory: Memory {
                request: Some("r".into()),
                revision: 1,
                rotated_at: Some(start()),
                handled_rotate: Some(String::new()),
                ..Memory::default()
            },
            pending: false,
            last_sync: Some(start()),
            live: false,
            stale: Some(0),
            now: start() + SignedDuration::from_secs(1),
        }
    }

    fn plan(world: &World) -> Plan {
        let spec: SecretRotationSpec = serde_json::from_value(world.spec.clone()).unwrap();
        let times = Times::parse(&spec, world.now).unwrap();
        let observed = Observed {
            uid: "u",
            spec: &spec,
            generation: Some(1),
            request: world.request,
            rotate: world.rotate,
            asks_refresh: world.asks_refresh,
            target: &world.target,
            memory: &world.memory,
            pending: world.pending,
            last_sync: world.last_sync,
            words: &["k".to_owned()].into(),
            live: world.live,
            stale: world.stale,
        };
        decide(&observed, &times, world.now)
    }

    type Change = fn(&mut World);

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn what_is_done_and_why() {
        use Reason::{
            Current, Missing, Modified, PreviousOver, RefreshDue, RefreshRequested, Requested, Resumed, RotationDue, SpecChanged, Suspended,
        };
        // What differs, whether the store is read, whether values are generated, the reason.
        let rows: &[(&str, Change, bool, bool, Reason)] = &[
            ("nothing", |_| {}, false, false, Current),
            ("suspended", |w| w.spec["suspend"] = true.into(), false, false, Suspended),
            ("no Secret", |w| w.target = TargetState::Missing, true, false, Missing),
            ("another spec", |w| w.request = "other", true, false, SpecChanged),
            ("edited", |w| w.target = TargetState::Edited(vec!["a".into()]), true, false, Modified),
            ("an hour later", |w| w.now += HOUR, true, false, RefreshDue),
            (
                "an hour later, on change only",
                |w| {
                    w.now += HOUR;
                    w.spec["refreshPolicy"] = "OnChange".into();
                },
                false,
                false,
                Current,
            ),
            (
                "an hour later, never",
                |w| {
                    w.now += HOUR;
                    w.spec["refreshInterval"] = "0s".into();
                },
                false,
                false,
                Current,
            ),
            ("nobody knows when it was read", |w| w.last_sync = None, true, false, RefreshDue),
            ("refresh", |w| w.asks_refresh = true, true, false, RefreshRequested),
            ("Secrets of the own namespace", |w| w.live = true, true, false, RefreshDue),
            ("rotate", |w| w.rotate = "1", false, true, Requested),
            (
                "rotate, while values are on their way",
                |w| {
                    w.rotate = "1";
                    w.pending = true;
                },
                false,
                false,
                Resumed,
            ),
            ("rotation due", |w| w.memory.rotated_at = Some(start() - SignedDuration::from_hours(2400)), false, true, RotationDue),
            (
                "rotation due, window closed",
                |w| {
                    w.memory.rotated_at = Some(start() - SignedDuration::from_hours(2400));
                    w.spec["rotation"]["window"] = serde_json::json!({"schedule": "0 3 * * *", "duration": "1h"});
                },
                false,
                false,
                Current,
            ),
            (
                "rotate, window closed",
                |w| {
                    w.rotate = "1";
                    w.spec["rotation"]["window"] = serde_json::json!({"schedule": "0 3 * * *", "duration": "1h"});
                },
                false,
                true,
                Requested,
            ),
            (
                "only once, and edited, and another spec",
                |w| {
                    w.spec["refreshPolicy"] = "CreatedOnce".into();
                    w.target = TargetState::Edited(vec!["a".into()]);
                    w.request = "other";
                    w.asks_refresh = true;
                    w.now += HOUR;
                },
                false,
                false,
                Current,
            ),
            (
                "only once, and not there",
                |w| {
                    w.spec["refreshPolicy"] = "CreatedOnce".into();
                    w.target = TargetState::Missing;
                },
                true,
                false,
                Missing,
            ),
            (
                "no store, no Secret",
                |w| {
                    w.spec["data"] = serde_json::json!([]);
                    w.target = TargetState::Missing;
                },
                false,
                false,
                Missing,
            ),
            (
                "no store, another spec",
                |w| {
                    w.spec["data"] = serde_json::json!([]);
                    w.request = "other";
                    w.now += HOUR;
                },
                false,
                false,
                SpecChanged,
            ),
            ("rolled back, same spec", |w| w.memory.stage = Stage::RolledBack { generation: 1, why: String::new() }, false, false, Current),
            (
                "rolled back, another spec",
                |w| w.memory.stage = Stage::RolledBack { generation: 0, why: String::new() },
                true,
                false,
                SpecChanged,
            ),
            ("kept for a day", |w| w.memory.previous_since = Some(start() - HOUR * 24), false, false, PreviousOver),
            ("kept for less", |w| w.memory.previous_since = Some(start() - HOUR * 23), false, false, Current),
        ];
        for (what, change, read, generate, reason) in rows {
            let mut world = world();
            change(&mut world);
            let plan = plan(&world);
            assert_eq!((plan.read.is_some(), plan.generate.is_some(), plan.reason), (*read, *generate, *reason), "{what}");
        }
    }

    #[test]
    fn the_previous_value_goes_when_nobody_runs_it_and_at_last_in_any_case() {
        for (since, stale, wanted) in [
            (23, Some(0), false),
            (24, Some(0), true),
            (24, Some(1), false),
            (24, None, false),
            (167, Some(1), false),
            (168, Some(1), true),
            (168, None, true),
        ] {
            let mut world = world();
            world.memory.previous_since = Some(world.now - HOUR * since);
            world.stale = stale;
            let plan = plan(&world);
            assert_eq!(plan.retire, wanted, "{since} {stale:?}");
            assert!(plan.retire || plan.retire_at.unwrap() > world.now);
        }
        let mut world = world();
        world.memory.previous_since = Some(world.now);
        world.spec["rotation"]["previous"] = serde_json::Value::Null;
        assert!(plan(&world).retire, "who does not want them any more does not wait");
    }

    #[test]
    fn new_values_wait_for_those_before() {
        let kept = || {
            let mut world = world();
            world.memory.previous_since = Some(start());
            world.memory.values = ["a", "a-previous"].map(|key| (key.to_owned(), "h".to_owned())).into();
            world
        };
        let wait = Some(Wait::Previous(start() + HOUR * 24));
        let due: Change = |w| w.memory.rotated_at = Some(start() - SignedDuration::from_hours(2400));
        let rows: &[(&str, Change, Option<Wait>, Option<Reason>)] = &[
            ("nothing is due", |_| {}, None, None),
            ("it is due", due, wait, None),
            ("a person asks", |w| w.rotate = "1", wait, None),
            (
                "and the window is closed",
                |w| {
                    w.memory.rotated_at = Some(start() - SignedDuration::from_hours(2400));
                    w.spec["rotation"]["window"] = serde_json::json!({"schedule": "0 3 * * *", "duration": "1h"});
                },
                wait,
                None,
            ),
            (
                "their time is up, and a Pod runs them",
                |w| {
                    w.rotate = "1";
                    w.now += HOUR * 30;
                    w.stale = Some(1);
                },
                Some(Wait::Pods(start() + HOUR * 168)),
                None,
            ),
            (
                "their time is up: they go with it",
                |w| {
                    w.rotate = "1";
                    w.now += HOUR * 30;
                },
                None,
                Some(Reason::Requested),
            ),
            (
                "they are gone",
                |w| {
                    w.rotate = "1";
                    w.memory.previous_since = None;
                },
                None,
                Some(Reason::Requested),
            ),
            (
                "nobody wants them any more",
                |w| {
                    w.rotate = "1";
                    w.spec["rotation"]["previous"] = serde_json::Value::Null;
                },
                None,
                Some(Reason::Requested),
            ),
            (
                "somebody has removed them",
                |w| {
                    w.rotate = "1";
                    w.target = TargetState::Edited(vec!["a-previous".into()]);
                },
                None,
                Some(Reason::Requested),
            ),
            (
                "they stand under a suffix that the spec does not have any more",
                |w| {
                    w.rotate = "1";
                    w.memory.previous_keys = [("a".to_owned(), "a-previous".to_owned())].into();
                    w.spec["rotation"]["previous"]["suffix"] = "-old".into();
                },
                wait,
                None,
            ),
            (
                "somebody has changed the value itself",
                |w| {
                    w.rotate = "1";
                    w.target = TargetState::Edited(vec!["a".into()]);
                },
                wait,
                None,
            ),
        ];
        for (what, change, waits, generate) in rows {
            let mut world = kept();
            change(&mut world);
            let plan = plan(&world);
            assert_eq!((plan.waits, plan.generate), (*waits, *generate), "{what}");
        }
        let mut world = kept();
        due(&mut world);
        assert_eq!(plan(&world).rotates_at, Some(start() + HOUR * 24), "that is told");
        // Suspended, they stay although nobody wants them: no longer than they were.
        world.spec["rotation"]["previous"] = serde_json::Value::Null;
        world.spec["suspend"] = true.into();
        assert_eq!((plan(&world).kept_until, plan(&world).retire), (world.memory.previous_since, false));
    }

    #[test]
    fn what_waits_for_pods_is_late() {
        let mut world = world();
        world.memory.rotated_at = Some(start() - SignedDuration::from_hours(2400));
        world.memory.previous_since = Some(start());
        world.memory.values = ["a", "a-previous"].map(|key| (key.to_owned(), "h".to_owned())).into();
        (world.now, world.stale) = (start() + HOUR * 30, Some(1));
        let plan = plan(&world);
        assert_eq!((plan.waits, plan.rotates_at < Some(start())), (Some(Wait::Pods(start() + HOUR * 168)), true));
    }

    #[test]
    fn refreshes_of_one_key_come_together_and_of_others_do_not() {
        let due = |last: i64| {
            let mut world = world();
            world.last_sync = Some(start() + SignedDuration::from_secs(last));
            plan(&world).next_sync.unwrap()
        };
        let first = due(0);
        let left = first.duration_since(start()).as_secs();
        assert!(left > 0 && left <= 3600);
        for last in [1, left / 2, left - 1] {
            assert_eq!(due(last), first);
        }
        assert_eq!(due(left), first + HOUR, "once read, an interval later");
        assert_eq!(due(left + 3599), first + HOUR);
    }

    #[test]
    fn a_schedule_decides_where_there_is_one() {
        let mut world = world();
        world.spec["rotation"] =
            serde_json::json!({"schedule": "0 3 1 */3 *", "timeZone": "Europe/Berlin", "generate": [{"secretKey": "a", "hex": {}}]});
        assert_eq!(plan(&world).next_rotation.unwrap().to_string(), "2026-01-01T02:00:00Z");
        world.now = start() + HOUR * 2;
        assert_eq!(plan(&world).generate, Some(Reason::RotationDue));
        world.memory.rotated_at = Some(world.now);
        assert_eq!(plan(&world).next_rotation.unwrap().to_string(), "2026-04-01T01:00:00Z");
    }

    #[test]
    fn what_is_due_is_told_for_when_the_window_opens_and_stays_so_if_that_is_missed() {
        let mut world = world();
        world.spec["rotation"] = serde_json::json!({
            "schedule": "0 3 1 */3 *", "window": {"schedule": "0 1 * * 6", "duration": "1h"}, "generate": [{"secretKey": "a", "hex": {}}],
        });
        let told = |world: &World| plan(world).rotates_at.unwrap().to_string();
        assert_eq!(told(&world), "2026-01-03T01:00:00Z", "the Saturday after");
        world.now = start() + HOUR * 24 * 4;
        assert_eq!(plan(&world).waits.unwrap(), Wait::Window("2026-01-10T01:00:00Z".parse().unwrap()));
        assert_eq!(told(&world), "2026-01-03T01:00:00Z");
        world.now = "2026-01-10T01:30:00Z".parse().unwrap();
        assert_eq!(plan(&world).generate, Some(Reason::RotationDue));
    }
}
