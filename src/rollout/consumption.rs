//! Which Pods run the value that is in a Secret now, and which still run the one before. Pure.

use jiff::Timestamp;

use crate::inventory::{consumers::Consumer, pods::PodFact};

/// When the data of a Secret became what it is, by the API server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// With the Secret itself.
    Created(Timestamp),
    /// Later.
    At(Timestamp),
}

impl Changed {
    /// Whether `pod` may still run what was there before: it is not younger than the change. Times are whole seconds, so one of the same second
    /// counts as older. A Pod that waited for the Secret to be created has not started before it.
    pub fn is_missed_by(self, pod: &PodFact) -> bool {
        match self {
            Self::At(time) => pod.created <= time,
            Self::Created(time) => pod.started.is_some_and(|started| started < time),
        }
    }

    /// The time.
    pub const fn time(self) -> Timestamp {
        match self {
            Self::Created(time) | Self::At(time) => time,
        }
    }

    /// The same as [`Changed::is_missed_by`], but a Pod that carries the mark of the present value has it.
    pub fn is_stale(self, pod: &PodFact, carried: Option<(&str, &str)>) -> bool {
        let carries = |(annotation, mark): (&str, &str)| pod.marks.iter().any(|(key, value)| **key == *annotation && **value == *mark);
        self.is_missed_by(pod) && !carried.is_some_and(carries)
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
    /// Of all Pods of `consumers`. `carried`: the annotation and the mark that only Pods with the present value have.
    pub fn of(consumers: &[Consumer], changed: Changed, carried: Option<(&str, &str)>) -> Self {
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
            owner: None,
            uses: [].into(),
            images: [].into(),
            marks: [("a".into(), "m".into())].into(),
            trouble: None,
        }
    }

    #[test]
    fn older_than_the_change() {
        for (changed, created, started, missed) in [
            (Changed::At(time(100)), 99, Some(99), true),
            (Changed::At(time(100)), 100, Some(101), true),
            (Changed::At(time(100)), 101, Some(101), false),
            (Changed::At(time(100)), 99, None, true),
            (Changed::Created(time(100)), 50, Some(101), false),
            (Changed::Created(time(100)), 50, Some(100), false),
            (Changed::Created(time(100)), 50, Some(99), true),
            (Changed::Created(time(100)), 50, None, false),
        ] {
            assert_eq!(changed.is_missed_by(&pod(created, started)), missed, "{changed:?} {created} {started:?}");
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
        let counted = Consumption::of(&consumers, Changed::At(time(5)), None);
        assert_eq!(counted, Consumption { total: 3, stale: vec!["a".into(), "b".into()] });
        assert_eq!(Consumption::of(&consumers, Changed::At(time(5)), Some(("a", "other"))), counted);
        assert_eq!(Consumption::of(&consumers, Changed::At(time(5)), Some(("a", "m"))), Consumption { total: 3, stale: Vec::new() });
        assert_eq!(Consumption::of(&[], Changed::At(time(5)), None), Consumption::default());
    }
}
