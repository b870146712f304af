//! Given what is there and the time: what should happen to a certificate. Pure.
//!
//! A chain of small checks; the first that finds something gives the reason. Every caller (controller, command line) uses this.

use jiff::{SignedDuration, Timestamp};

use super::{issuer::Authority, memory::Memory, reason::Reason, x509::Certificate};
use crate::{
    api::certificate_rotation::CertificateRotationSpec,
    rollout::stage::Stage,
    schedule::{Schedule, ScheduleError, Window, jitter},
};

/// The pair in the Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pair {
    /// No Secret, or one without a certificate.
    #[default]
    Missing,
    /// Something is there and cannot be read; the text says what, never its content.
    Unreadable(String),
    /// Certificate and key do not belong together.
    Mismatch,
    /// A pair: the certificate, and the chain that is stored with it.
    Good(Box<Certificate>, Vec<Certificate>),
}

/// Everything that a decision rests on.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// The resource's uid, for its jitter.
    pub uid: &'a str,
    /// What is asked for.
    pub spec: &'a CertificateRotationSpec,
    /// The resource's generation.
    pub generation: Option<i64>,
    /// [`super::request::hash`] of it.
    pub request: &'a str,
    /// The value of the `rotate` annotation, empty if there is none.
    pub requested: &'a str,
    /// Identity of the issuer that is named.
    pub issuer: &'a str,
    /// What it signs with; None if that cannot be told now.
    pub authority: Option<&'a Authority>,
    /// The pair in the Secret.
    pub pair: &'a Pair,
    /// What was written down with it.
    pub memory: &'a Memory,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing but to see that the Secret looks as the spec says.
    Keep,
    /// A rotation is due and waits for the window or, at the latest, for the time before which it must be done.
    WaitUntil(Timestamp),
    /// Issue a new certificate now.
    Rotate,
    /// Leave everything alone.
    Rest,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What to do.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// When the stored certificate is planned to be renewed. None if there is none.
    pub renewal_time: Option<Timestamp>,
    /// When to look again if nothing happens before.
    pub next: Option<Timestamp>,
}

/// The times in a spec, read once.
#[derive(Clone, Debug, Default)]
pub struct Times {
    schedule: Option<Schedule>,
    window: Option<Window>,
}

impl Times {
    /// Reads `schedule`, `timeZone` and `window`. The error names the field.
    pub fn parse(spec: &CertificateRotationSpec, now: Timestamp) -> Result<Self, (&'static str, ScheduleError)> {
        let zone = spec.time_zone.as_deref();
        if let Some(name) = zone
            && spec.schedule.is_none()
            && spec.window.is_none()
        {
            jiff::tz::TimeZone::get(name).map_err(|_| ("spec.timeZone", ScheduleError::TimeZone(name.into())))?;
        }
        let schedule =
            spec.schedule.as_ref().map(|cron| Schedule::parse(cron, zone, now)).transpose().map_err(|error| ("spec.schedule", error))?;
        let window =
            spec.window.as_ref().map(|window| Window::parse(window, zone, now)).transpose().map_err(|error| ("spec.window", error))?;
        Ok(Self { schedule, window })
    }

    /// When the window opens, if it is closed now.
    pub fn opens(&self, now: Timestamp) -> Option<Timestamp> {
        self.window.as_ref().filter(|window| !window.is_open(now)).and_then(|window| window.next_open(now))
    }
}

/// Decides. The order of the checks is the order of the reasons in the docs.
pub fn decide(observed: &Observed<'_>, times: &Times, now: Timestamp) -> Plan {
    let certificate = match observed.pair {
        Pair::Good(certificate, _) => Some(certificate.as_ref()),
        _ => None,
    };
    let renewal_time = certificate.and_then(|certificate| next_renewal(observed.spec, certificate, observed.memory, observed.uid));
    if observed.spec.suspend {
        return Plan {
            action: Action::Rest,
            reason: Reason::Suspended,
            renewal_time,
            next: certificate.map(|certificate| certificate.not_after).filter(|end| *end > now),
        };
    }
    let scheduled = certificate.and_then(|certificate| {
        let since = observed.memory.issued_at.filter(|issued| *issued <= now).unwrap_or(certificate.not_before);
        times.schedule.as_ref().and_then(|schedule| schedule.next_after(since))
    });
    let reason = CHECKS.iter().find_map(|check| check(observed, &Moment { now, renewal_time, scheduled })).unwrap_or(Reason::Current);
    let (action, next) = match reason {
        // What is due already and was renewed just now is looked at again when it has rested.
        Reason::Current => (
            Action::Keep,
            [renewal_time, scheduled]
                .into_iter()
                .flatten()
                .map(|time| if time > now { time } else { now + SignedDuration::from_mins(5) })
                .min(),
        ),
        urgent if urgent.is_urgent() => (Action::Rotate, None),
        _ => match waits_until(times.window.as_ref(), certificate, now) {
            Some(time) => (Action::WaitUntil(time), Some(time)),
            None => (Action::Rotate, None),
        },
    };
    Plan { action, reason, renewal_time, next }
}

struct Moment {
    now: Timestamp,
    renewal_time: Option<Timestamp>,
    scheduled: Option<Timestamp>,
}

type Check = fn(&Observed<'_>, &Moment) -> Option<Reason>;

const CHECKS: &[Check] = &[
    |observed, _| match observed.pair {
        Pair::Missing => Some(Reason::Missing),
        Pair::Unreadable(_) => Some(Reason::Unreadable),
        Pair::Mismatch => Some(Reason::KeyMismatch),
        Pair::Good(..) => None,
    },
    |observed, _| {
        // After a failure every other spec is worth a try: it may be about the restarts.
        let retried = matches!(observed.memory.stage, Stage::RolledBack { generation, .. } if Some(generation) != observed.generation);
        (retried || observed.memory.request.as_deref() != Some(observed.request)).then_some(Reason::SpecChanged)
    },
    |observed, _| (observed.memory.issuer.as_deref() != Some(observed.issuer)).then_some(Reason::IssuerChanged),
    |observed, _| {
        let fingerprint = observed.authority?.fingerprint();
        (observed.memory.authority.as_deref() != Some(fingerprint.as_str())).then_some(Reason::CaChanged)
    },
    |observed, _| is_not_trusted(observed).then_some(Reason::NotTrusted),
    |observed, moment| (certificate(observed)?.not_after <= moment.now).then_some(Reason::Expired),
    |observed, moment| (moment.renewal_time? <= moment.now && has_rested(observed, moment.now)).then_some(Reason::RenewalDue),
    |_, moment| (moment.scheduled? <= moment.now).then_some(Reason::ScheduleDue),
    |observed, _| {
        (observed.memory.handled.as_deref().is_some_and(|handled| handled != observed.requested) && !observed.requested.is_empty())
            .then_some(Reason::Requested)
    },
];

fn certificate<'a>(observed: &Observed<'a>) -> Option<&'a Certificate> {
    match observed.pair {
        Pair::Good(certificate, _) => Some(certificate),
        _ => None,
    }
}

/// A CA that is about to end gives lives so short that they are due at once; renewing them again and again would help nobody.
fn has_rested(observed: &Observed<'_>, now: Timestamp) -> bool {
    const REST: SignedDuration = SignedDuration::from_mins(5);
    observed.memory.issued_at.filter(|issued| *issued <= now).is_none_or(|issued| now >= issued + REST)
}

/// The CA is the one that is written down, and yet did not sign: the Secret was changed by somebody else.
fn is_not_trusted(observed: &Observed<'_>) -> bool {
    let (Some(certificate), Some(authority)) = (certificate(observed), observed.authority) else { return false };
    // One that we put back may be from a CA of before.
    let ours = || observed.memory.fingerprint.as_deref() == Some(certificate.fingerprint().as_str());
    if observed.memory.stage.is_rolled_back() && ours() {
        return false;
    }
    match &authority.ca {
        Some(ca) => !certificate.is_signed_by(ca),
        None => !certificate.is_signed_by(certificate),
    }
}

/// When what is stored is to be renewed, as things stand. None: it is not, until it has expired.
pub fn next_renewal(spec: &CertificateRotationSpec, certificate: &Certificate, memory: &Memory, uid: &str) -> Option<Timestamp> {
    match memory.stage {
        Stage::RolledBack { .. } => last_try(certificate, memory),
        _ => Some(renewal_time(spec, certificate, uid)),
    }
}

/// When `certificate` is to be renewed: `renewBefore` (or the percentage, or a third of its life) before its end, and a little earlier by a
/// jitter of at most a hundredth of its life or a day, so that certificates that were made together are not renewed together.
fn renewal_time(spec: &CertificateRotationSpec, certificate: &Certificate, uid: &str) -> Timestamp {
    let life = certificate.not_after.duration_since(certificate.not_before);
    let third = life / 3;
    let before = match (spec.renew_before, spec.renew_before_percentage) {
        (Some(before), _) => before.signed(),
        (None, Some(percent)) => life / 100 * percent,
        (None, None) => third,
    };
    let before = if before < life { before } else { third };
    let early = jitter(uid, (life / 100).min(SignedDuration::from_hours(24)));
    (certificate.not_after - before - early).max(certificate.not_before)
}

/// Of a pair that was put back: when it is replaced even so, once more before its end. None: that was tried, too.
fn last_try(certificate: &Certificate, memory: &Memory) -> Option<Timestamp> {
    let last = last_moment(certificate);
    memory.issued_at.is_none_or(|tried| tried < last).then_some(last)
}

/// An hour before the end, or a twentieth of its life if that is less: what is kept for trying.
fn last_moment(certificate: &Certificate) -> Timestamp {
    let life = certificate.not_after.duration_since(certificate.not_before);
    certificate.not_after - (life / 20).min(SignedDuration::from_hours(1))
}

/// Until when what is not urgent waits; None: it does not. The window's next opening, but never so late that the certificate would expire.
fn waits_until(window: Option<&Window>, certificate: Option<&Certificate>, now: Timestamp) -> Option<Timestamp> {
    let (window, certificate) = (window?, certificate?);
    if window.is_open(now) {
        return None;
    }
    let latest = last_moment(certificate);
    let opens = window.next_open(now).unwrap_or(latest);
    Some(opens.min(latest)).filter(|time| *time > now)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{
        api::schedule::Window as WindowSpec,
        certificates::{
            request::{self, Request},
            sign::{sign, tests::ca},
        },
        keys::Key,
        testing::issuer_contract,
    };

    /// The stored certificate lives 100 days, from `START` on.
    const START: &str = "2026-01-01T00:00:00Z";
    const DAY: SignedDuration = SignedDuration::from_hours(24);

    struct World {
        spec: CertificateRotationSpec,
        request: String,
        requested: String,
        issuer: String,
        authority: Option<Authority>,
        pair: Pair,
        memory: Memory,
        now: Timestamp,
    }

    impl World {
        fn new() -> Self {
            let start: Timestamp = START.parse().unwrap();
            let mut spec = issuer_contract::spec("a.example");
            spec.duration = "2400h".parse().unwrap();
            let key = Key::generate(&spec.private_key).unwrap();
            let leaf = sign(&Request { spec: &spec, key: &key, now: start }, None).unwrap();
            let request = request::hash(&spec);
            let memory = Memory {
                request: Some(request.clone()),
                issuer: Some("selfSigned".into()),
                authority: Some(String::new()),
                revision: 1,
                issued_at: Some(start),
                handled: Some(String::new()),
                ..Memory::default()
            };
            let pair = Pair::Good(Box::new(leaf), Vec::new());
            Self {
                spec,
                request,
                requested: String::new(),
                issuer: "selfSigned".into(),
                authority: Some(Authority::default()),
                pair,
                memory,
                now: start + DAY,
            }
        }

        fn plan(&self) -> Plan {
            let times = Times::parse(&self.spec, self.now).unwrap();
            let observed = Observed {
                uid: "3d0c7a4e",
                spec: &self.spec,
                generation: Some(1),
                request: &self.request,
                requested: &self.requested,
                issuer: &self.issuer,
                authority: self.authority.as_ref(),
                pair: &self.pair,
                memory: &self.memory,
            };
            decide(&observed, &times, self.now)
        }

        fn end(&self) -> Timestamp {
            match &self.pair {
                Pair::Good(certificate, _) => certificate.not_after,
                _ => Timestamp::MAX,
            }
        }
    }

    type Change = fn(&mut World);

    fn hours(text: &str) -> crate::api::Duration {
        text.parse().unwrap()
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn the_first_reason_wins() {
        let rows: &[(&str, Change, Reason)] = &[
            ("nothing", |_| {}, Reason::Current),
            ("no secret", |w| w.pair = Pair::Missing, Reason::Missing),
            ("garbage", |w| w.pair = Pair::Unreadable("tls.crt".into()), Reason::Unreadable),
            ("two halves", |w| w.pair = Pair::Mismatch, Reason::KeyMismatch),
            ("another request", |w| w.request = "other".into(), Reason::SpecChanged),
            ("no memory of the request", |w| w.memory.request = None, Reason::SpecChanged),
            ("another issuer", |w| w.issuer = "ca/other".into(), Reason::IssuerChanged),
            ("another CA", |w| w.authority = Some(Authority { ca: Some(ca("x").1), ..Authority::default() }), Reason::CaChanged),
            ("the CA cannot be told", |w| w.authority = None, Reason::Current),
            (
                "the same CA, and it did not sign",
                |w| {
                    let ca = ca("x").1;
                    w.memory.authority = Some(ca.fingerprint());
                    w.authority = Some(Authority { ca: Some(ca), ..Authority::default() });
                },
                Reason::NotTrusted,
            ),
            ("over", |w| w.now = w.end(), Reason::Expired),
            ("a second before the end", |w| w.now = w.end() - SignedDuration::from_secs(1), Reason::RenewalDue),
            ("65 of 100 days", |w| w.now += DAY * 64, Reason::Current),
            ("67 of 100 days", |w| w.now += DAY * 66, Reason::RenewalDue),
            (
                "renewBefore 20 days, day 78",
                |w| {
                    w.spec.renew_before = Some(hours("480h"));
                    w.now += DAY * 77;
                },
                Reason::Current,
            ),
            (
                "renewBefore 20 days, day 81",
                |w| {
                    w.spec.renew_before = Some(hours("480h"));
                    w.now += DAY * 80;
                },
                Reason::RenewalDue,
            ),
            (
                "renewBefore 10 %, day 88",
                |w| {
                    w.spec.renew_before_percentage = Some(10);
                    w.now += DAY * 87;
                },
                Reason::Current,
            ),
            (
                "renewBefore 10 %, day 91",
                |w| {
                    w.spec.renew_before_percentage = Some(10);
                    w.now += DAY * 90;
                },
                Reason::RenewalDue,
            ),
            (
                "renewBefore longer than the actual life",
                |w| {
                    w.spec.renew_before = Some(hours("9000h"));
                    w.now += DAY * 60;
                },
                Reason::Current,
            ),
            ("schedule in the future", |w| w.spec.schedule = Some("0 2 15 * *".into()), Reason::Current),
            (
                "schedule passed since it was issued",
                |w| {
                    w.spec.schedule = Some("0 2 1 * *".into());
                    w.now += DAY * 35;
                },
                Reason::ScheduleDue,
            ),
            (
                "schedule passed, and issued after it",
                |w| {
                    w.spec.schedule = Some("0 2 1 * *".into());
                    w.now += DAY * 35;
                    w.memory.issued_at = Some(w.now - DAY);
                },
                Reason::Current,
            ),
            ("asked for", |w| w.requested = "now".into(), Reason::Requested),
            (
                "asked for, handled",
                |w| {
                    w.requested = "now".into();
                    w.memory.handled = Some("now".into());
                },
                Reason::Current,
            ),
            (
                "asked for before there was a memory",
                |w| {
                    w.requested = "now".into();
                    w.memory.handled = None;
                },
                Reason::Current,
            ),
            ("the request was taken away", |w| w.memory.handled = Some("then".into()), Reason::Current),
            (
                "missing wins over everything",
                |w| {
                    w.pair = Pair::Missing;
                    w.request = "other".into();
                    w.requested = "now".into();
                },
                Reason::Missing,
            ),
            (
                "the spec wins over the issuer",
                |w| {
                    w.request = "other".into();
                    w.issuer = "ca/other".into();
                },
                Reason::SpecChanged,
            ),
            (
                "expired wins over due and asked",
                |w| {
                    w.now = w.end();
                    w.requested = "now".into();
                },
                Reason::Expired,
            ),
            (
                "due wins over asked",
                |w| {
                    w.now += DAY * 70;
                    w.requested = "now".into();
                },
                Reason::RenewalDue,
            ),
            (
                "suspended",
                |w| {
                    w.spec.suspend = true;
                    w.pair = Pair::Missing;
                },
                Reason::Suspended,
            ),
        ];
        for (name, change, reason) in rows {
            let mut world = World::new();
            change(&mut world);
            let plan = world.plan();
            assert_eq!(plan.reason, *reason, "{name}");
            let expected = match reason {
                Reason::Current => Action::Keep,
                Reason::Suspended => Action::Rest,
                _ => Action::Rotate,
            };
            assert_eq!(plan.action, expected, "{name}");
            assert_eq!(plan.next.is_some(), *reason == Reason::Current, "{name}: what is kept is looked at again");
            assert!(plan.next.is_none_or(|next| next > world.now), "{name}");
        }
    }

    /// As after a rotation on day 70 that its users could not live with.
    fn rolled_back(world: &mut World) {
        world.memory.stage = Stage::RolledBack { generation: 1, why: "no".into() };
        world.memory.issued_at = Some(world.now + DAY * 69);
        world.memory.fingerprint = match &world.pair {
            Pair::Good(certificate, _) => Some(certificate.fingerprint()),
            _ => None,
        };
        world.now += DAY * 70;
    }

    #[test]
    fn what_failed_is_not_tried_again_for_the_same_cause() {
        let rows: &[(&str, Change, Reason)] = &[
            ("it was due", |_| {}, Reason::Current),
            ("another generation", |w| w.memory.stage = Stage::RolledBack { generation: 0, why: String::new() }, Reason::SpecChanged),
            ("another request", |w| w.request = "other".into(), Reason::SpecChanged),
            ("another issuer", |w| w.issuer = "ca/other".into(), Reason::IssuerChanged),
            (
                "it is from a CA of before",
                |w| {
                    let ca = ca("x").1;
                    w.memory.authority = Some(ca.fingerprint());
                    w.authority = Some(Authority { ca: Some(ca), ..Authority::default() });
                },
                Reason::Current,
            ),
            (
                "it is from a CA of before, and not the one that was put back",
                |w| {
                    let ca = ca("x").1;
                    w.memory.authority = Some(ca.fingerprint());
                    w.memory.fingerprint = Some("other".into());
                    w.authority = Some(Authority { ca: Some(ca), ..Authority::default() });
                },
                Reason::NotTrusted,
            ),
            ("a person asks", |w| w.requested = "again".into(), Reason::Requested),
            ("the schedule says so", |w| w.spec.schedule = Some("0 12 12 * *".into()), Reason::ScheduleDue),
            ("the schedule said so before", |w| w.spec.schedule = Some("0 2 1 * *".into()), Reason::Current),
            ("two hours before its end", |w| w.now = w.end() - SignedDuration::from_hours(2), Reason::Current),
            ("an hour before its end", |w| w.now = w.end() - SignedDuration::from_hours(1), Reason::RenewalDue),
            (
                "tried in its last hour as well",
                |w| {
                    w.now = w.end() - SignedDuration::from_mins(10);
                    w.memory.issued_at = Some(w.now - SignedDuration::from_mins(40));
                },
                Reason::Current,
            ),
            ("over", |w| w.now = w.end(), Reason::Expired),
        ];
        for (name, change, reason) in rows {
            let mut world = World::new();
            rolled_back(&mut world);
            change(&mut world);
            assert_eq!(world.plan().reason, *reason, "{name}");
        }
    }

    #[test]
    fn what_is_not_urgent_waits_for_the_window() {
        let weekly = || Some(WindowSpec { schedule: "0 2 * * 6".into(), duration: hours("2h"), time_zone: None });
        let day = |n: i32| START.parse::<Timestamp>().unwrap() + DAY * n; // day 0 is a Thursday, day 2 a Saturday
        let rows: &[(&str, Change, Action)] = &[
            ("due on a Sunday", |w| w.now += DAY * 72, Action::WaitUntil("2026-03-21T02:00:00Z".parse().unwrap())),
            ("due while open", |w| w.now = "2026-03-14T03:00:00Z".parse().unwrap(), Action::Rotate),
            ("asked for", |w| w.requested = "now".into(), Action::Rotate),
            ("missing", |w| w.pair = Pair::Missing, Action::Rotate),
            ("expired", |w| w.now = w.end(), Action::Rotate),
            (
                "the next window would be too late",
                |w| w.now = "2026-04-05T00:00:00Z".parse().unwrap(),
                Action::WaitUntil("2026-04-10T23:00:00Z".parse().unwrap()),
            ),
            ("in the last hour it does not wait", |w| w.now = w.end() - SignedDuration::from_mins(30), Action::Rotate),
            (
                "another spec waits too",
                |w| {
                    w.request = "other".into();
                },
                Action::WaitUntil("2026-01-03T02:00:00Z".parse().unwrap()),
            ),
        ];
        for (name, change, action) in rows {
            let mut world = World::new();
            world.spec.window = weekly();
            change(&mut world);
            assert_eq!(world.plan().action, *action, "{name}");
        }
        assert_eq!(day(100), World::new().end());
    }

    #[test]
    fn a_renewal_is_earlier_by_a_jitter_of_the_uid_only() {
        let world = World::new();
        let Pair::Good(certificate, _) = &world.pair else { unreachable!() };
        let plain = certificate.not_after - certificate.not_after.duration_since(certificate.not_before) / 3;
        let times: std::collections::BTreeSet<_> = (0..50).map(|uid| renewal_time(&world.spec, certificate, &uid.to_string())).collect();
        assert!(times.len() > 45);
        for time in times {
            assert!(time <= plain && time > plain - DAY, "{time}");
        }
    }

    #[test]
    fn times_that_cannot_be_kept_name_their_field() {
        let now: Timestamp = START.parse().unwrap();
        let rows: &[(Change, &str)] = &[
            (|w| w.spec.schedule = Some("every day".into()), "spec.schedule"),
            (|w| w.spec.time_zone = Some("Mars/Base".into()), "spec.timeZone"),
            (|w| w.spec.window = Some(WindowSpec { schedule: "0 0 30 2 *".into(), duration: hours("1h"), time_zone: None }), "spec.window"),
        ];
        for (change, field) in rows {
            let mut world = World::new();
            change(&mut world);
            assert_eq!(Times::parse(&world.spec, now).unwrap_err().0, *field);
        }
    }
}
