//! Which Pods run the value that is in a Secret now, and which still run the one before. Pure.

use jiff::{SignedDuration, Timestamp};

use super::mark::are_of_one_value;
use crate::{
    api::status::Consumers,
    inventory::{consumers::Consumer, pods::PodFact},
};

/// When the data of a Secret became what it is, by the API server's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Since when it is this value, but for the interludes.
    pub since: Since,
    /// It was another one that was taken back.
    pub interludes: Vec<Interlude>,
    /// Nobody knows what was there before: what was remembered with the Secret is gone. It may have been the same.
    pub after_unknown: bool,
}

/// The first time of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With the Secret itself.
    Created(Timestamp),
    /// Later.
    At(Timestamp),
}

/// From a value's appearance to its end, both within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interlude {
    /// When it appeared.
    pub from: Timestamp,
    /// When the one before was put back.
    pub to: Timestamp,
}

/// The kubelet brings the files of a Secret up to date in a running Pod within so long (its sync period and the delay of its cache).
const STALE_FILES: SignedDuration = SignedDuration::from_mins(2);

impl Changed {
    /// Whether `pod` is not younger than the value. Times are whole seconds, so one of the same second counts as older. A Pod that waited for the Secret to
    /// be created has not started before it.
    fn is_missed_by(&self, pod: &PodFact) -> bool {
        match self.since {
            Since::At(time) => pod.created <= time,
            Since::Created(time) => pod.started.is_some_and(|started| started < time),
        }
    }

    /// Whether `pod` was created in an interlude, or a container of it started then.
    fn is_interrupted_by(&self, pod: &PodFact) -> bool {
        let within = |interlude: &Interlude| {
            let late = interlude.to.checked_add(STALE_FILES).unwrap_or(interlude.to);
            let started = |started| (interlude.from..=late).contains(&started);
            (interlude.from..=interlude.to).contains(&pod.created) || (pod.created < interlude.from && pod.restarted.is_some_and(started))
        };
        self.interludes.iter().any(within)
    }

    /// When it changed last.
    pub fn time(&self) -> Timestamp {
        let (Since::Created(since) | Since::At(since)) = self.since;
        self.interludes.iter().map(|interlude| interlude.to).fold(since, Timestamp::max)
    }

    /// Whether `pod` may still run something else. One that carries the mark of the present change has its value: it was made in the very second. One that
    /// carries an earlier mark of the same value has it as well, as far as anybody knows, if nobody knows what was there before.
    pub fn is_stale(&self, pod: &PodFact, carried: Option<(&str, &str)>) -> bool {
        let mark = carried.and_then(|(annotation, mark)| Some((pod.marks.iter().find(|(key, _)| **key == *annotation)?.1.as_ref(), mark)));
        let is_unknown = self.after_unknown || matches!(self.since, Since::Created(_));
        let has_it = mark.is_some_and(|(there, wanted)| there == wanted);
        let had_it = is_unknown && mark.is_some_and(|(there, wanted)| are_of_one_value(there, wanted));
        !has_it && (self.is_interrupted_by(pod) || self.is_missed_by(pod) && !had_it)
    }
}

/// Counts of Pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consumption {
    /// That use it.
    pub total: usize,
    /// Names of those that may still run what was before, in order.
    pub stale: Vec<String>,
}

impl Consumption {
    /// For status: at most ten names.
    pub fn status(&self) -> Consumers {
        const SHOWN: usize = 10;
        let current = self.total - self.stale.len();
        let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
        Consumers {
            summary: format!("{current}/{}", self.total),
            total: count(self.total),
            current: count(current),
            stale: self.stale.iter().take(SHOWN).cloned().collect(),
        }
    }

    /// Of all Pods of `consumers`. `carried`: the annotation and the mark that only Pods with the present value have.
    pub fn of(consumers: &[Consumer], changed: &Changed, carried: Option<(&str, &str)>) -> Self {
        let pods = || consumers.iter().flat_map(|consumer| &consumer.pods);
        let mut stale: Vec<String> = pods().filter(|(_, pod)| changed.is_stale(pod, carried)).map(|(name, _)| name.to_string()).collect();
        stale.sort();
        Self { total: pods().count(), stale }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::inventory::pods::Owner;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(created: i64, started: Option<i64>) -> PodFact {
        PodFact {
            created: time(created),
            started: started.map(time),
            ready: true,
            over: false,
            restarted: started.map(time),
            addresses: [].into(),
            host_network: false,
            owner: None,
            uses: [].into(),
            images: [].into(),
            marks: [("a".into(), "m".into())].into(),
            trouble: None,
        }
    }

    #[test]
    fn older_than_the_change() {
        let back = |from, to| vec![Interlude { from: time(from), to: time(to) }];
        for (since, interludes, created, started, missed) in [
            (Since::At(time(100)), vec![], 99, Some(99), true),
            (Since::At(time(100)), vec![], 100, Some(101), true),
            (Since::At(time(100)), vec![], 101, Some(101), false),
            (Since::At(time(100)), vec![], 99, None, true),
            (Since::Created(time(100)), vec![], 50, Some(101), false),
            (Since::Created(time(100)), vec![], 50, Some(100), false),
            (Since::Created(time(100)), vec![], 50, Some(99), true),
            (Since::Created(time(100)), vec![], 50, None, false),
            (Since::At(time(100)), back(200, 210), 150, Some(150), false),
            (Since::At(time(100)), back(200, 210), 200, Some(205), true),
            (Since::At(time(100)), back(200, 210), 210, None, true),
            (Since::At(time(100)), back(200, 210), 211, Some(211), false),
            (Since::At(time(100)), back(200, 210), 90, Some(90), true),
            (Since::Created(time(100)), back(200, 210), 205, Some(206), true),
            (Since::At(time(100)), back(200, 210), 150, Some(205), true), // Pending until then, or started again
            (Since::At(time(100)), back(200, 210), 150, Some(330), true),
            (Since::At(time(100)), back(200, 210), 150, Some(331), false),
            (Since::At(time(100)), back(200, 210), 211, Some(215), false),
        ] {
            let changed = Changed { since, interludes, after_unknown: false };
            assert_eq!(changed.is_stale(&pod(created, started), None), missed, "{changed:?} {created} {started:?}");
        }
        let twice = Changed { since: Since::At(time(100)), interludes: [back(200, 210), back(300, 310)].concat(), after_unknown: false };
        assert_eq!(twice.time(), time(310));
    }

    #[test]
    fn a_mark_says_what_a_pod_has() {
        let carrying = |mark: &str, created| PodFact { marks: [("a".into(), mark.into())].into(), ..pod(created, Some(created)) };
        let back = || vec![Interlude { from: time(200), to: time(210) }];
        for (since, after_unknown, interludes, pod, stale) in [
            (Since::At(time(100)), false, vec![], carrying("v-100", 100), false),
            (Since::At(time(100)), false, vec![], carrying("v-50", 60), true),
            (Since::At(time(100)), true, vec![], carrying("v-50", 60), false),
            (Since::At(time(100)), true, vec![], carrying("w-50", 60), true),
            (Since::Created(time(100)), false, vec![], carrying("v-50", 60), false),
            (Since::Created(time(100)), false, vec![], carrying("w-50", 60), true),
            (Since::Created(time(100)), false, back(), carrying("v-50", 60), false),
            (Since::Created(time(100)), false, back(), carrying("v-100", 205), true),
            (Since::Created(time(100)), false, back(), carrying("v-210", 210), false),
        ] {
            let changed = Changed { since, interludes, after_unknown };
            let mark = format!("v-{}", changed.time().as_second());
            assert_eq!(changed.is_stale(&pod, Some(("a", &mark))), stale, "{changed:?} {pod:?}");
        }
    }

    #[test]
    fn pods_are_counted_over_all_consumers() {
        let consumer = |kind: &str, pods: &[(&str, i64)]| Consumer {
            owner: Owner { kind: kind.into(), name: "w".into() },
            uses: Vec::new(),
            pods: pods.iter().map(|(name, created)| ((*name).into(), pod(*created, Some(*created)))).collect(),
        };
        let consumers = [consumer("Deployment", &[("b", 1), ("c", 9)]), consumer("Ingress", &[]), consumer("Pod", &[("a", 5)])];
        let changed = Changed { since: Since::At(time(5)), interludes: Vec::new(), after_unknown: false };
        let counted = Consumption::of(&consumers, &changed, None);
        assert_eq!(counted, Consumption { total: 3, stale: vec!["a".into(), "b".into()] });
        assert_eq!(Consumption::of(&consumers, &changed, Some(("a", "other"))), counted);
        assert_eq!(Consumption::of(&consumers, &changed, Some(("a", "m"))), Consumption { total: 3, stale: Vec::new() });
        assert_eq!(Consumption::of(&[], &changed, None), Consumption::default());
    }
}
