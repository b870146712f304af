//! Arithmetic of times that repeat: cron schedules, maintenance windows, jitter. Pure: the time is an argument.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::api::schedule::Window as WindowSpec;

/// Why a schedule cannot be used. The message names the value and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// No cron expression of five fields.
    #[error("{expression:?} is no cron expression of five fields (minute, hour, day of month, month, day of week): {why}")]
    Expression {
        /// As it was written.
        expression: String,
        /// What the parser says.
        why: String,
    },
    /// Not in the time zone database.
    #[error("{0:?} is no IANA time zone; write one like Europe/Berlin or Etc/UTC")]
    TimeZone(String),
    /// A date that never comes, such as the 31st of February.
    #[error("{0:?} never comes; the next four years have no such date")]
    Never(String),
}

/// A cron expression of five fields in a time zone.
///
/// Daylight saving follows the rule of the parser: a time that the clock skips runs at the first moment after the gap, one that comes
/// twice runs once if it names a fixed time.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: croner::Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Reads `expression` in `zone` (IANA name, default Etc/UTC) and makes sure that it comes at all after `now`.
    pub fn parse(expression: &str, zone: Option<&str>, now: Timestamp) -> Result<Self, ScheduleError> {
        let cron = croner::parser::CronParser::builder()
            .seconds(croner::parser::Seconds::Disallowed)
            .year(croner::parser::Year::Disallowed)
            .build()
            .parse(expression)
            .map_err(|error| ScheduleError::Expression { expression: expression.into(), why: error.to_string() })?;
        let name = zone.unwrap_or("Etc/UTC");
        let zone = TimeZone::get(name).map_err(|_| ScheduleError::TimeZone(name.into()))?;
        let schedule = Self { cron, zone };
        schedule.next_after(now).map(|_| ()).ok_or_else(|| ScheduleError::Never(expression.into()))?;
        Ok(schedule)
    }

    /// The first time after `time`, that moment itself excluded. None if there is none for years.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let start = time.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&start, false).ok()?.timestamp();
        (next > time).then_some(next)
    }
}

/// A maintenance window that opens again and again and stays open for a while.
#[derive(Clone, Debug)]
pub struct Window {
    opens: Schedule,
    length: SignedDuration,
}

impl Window {
    /// Reads `spec`; its time zone falls back to `zone`, the resource's own.
    pub fn parse(spec: &WindowSpec, zone: Option<&str>, now: Timestamp) -> Result<Self, ScheduleError> {
        let opens = Schedule::parse(&spec.schedule, spec.time_zone.as_deref().or(zone), now)?;
        Ok(Self { opens, length: spec.duration.signed() })
    }

    /// Whether it is open at `now`: it opened at most its length ago. The last moment is excluded.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.opens.next_after(now - self.length).is_some_and(|opened| opened <= now)
    }

    /// When it opens next, after `now`.
    pub fn next_open(&self, now: Timestamp) -> Option<Timestamp> {
        self.opens.next_after(now)
    }
}

/// A share of `most` that depends on `uid` alone: the same after a restart, different between objects. From zero to just below `most`.
pub fn jitter(uid: &str, most: SignedDuration) -> SignedDuration {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, uid.as_bytes());
    let number = digest.as_ref().iter().take(4).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let milliseconds = u64::try_from(most.as_millis()).unwrap_or(0);
    let share = (u128::from(milliseconds) * u128::from(number)) >> 32;
    SignedDuration::from_millis(i64::try_from(share).unwrap_or(0))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn window(schedule: &str, duration: &str, zone: &str) -> Window {
        let spec = WindowSpec { schedule: schedule.into(), duration: duration.parse().unwrap(), time_zone: None };
        Window::parse(&spec, Some(zone), at("2026-01-01T00:00:00Z")).unwrap()
    }

    #[test]
    fn next_times() {
        for (expression, zone, after, next) in [
            ("0 2 1 * *", "Etc/UTC", "2026-01-15T00:00:00Z", "2026-02-01T02:00:00Z"),
            ("0 2 1 * *", "Europe/Berlin", "2026-01-15T00:00:00Z", "2026-02-01T01:00:00Z"),
            ("0 2 1 * *", "Europe/Berlin", "2026-06-15T00:00:00Z", "2026-07-01T00:00:00Z"),
            ("*/15 * * * *", "Etc/UTC", "2026-01-15T00:15:00Z", "2026-01-15T00:30:00Z"),
            ("0 0 29 2 *", "Etc/UTC", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            // The night of 2026-03-29 has no 02:30 in Berlin: it runs when the clock has jumped.
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
            // The night of 2026-10-25 has it twice: it runs at the first.
            ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
            ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        ] {
            let schedule = Schedule::parse(expression, Some(zone), at(after)).unwrap();
            assert_eq!(schedule.next_after(at(after)), Some(at(next)), "{expression} in {zone} after {after}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_keep() {
        let now = at("2026-01-01T00:00:00Z");
        for expression in ["", "* * * *", "* * * * * *", "60 * * * *", "0 25 * * *", "a b c d e", "@daily-ish", "0 0 * * 9"] {
            assert!(matches!(Schedule::parse(expression, None, now), Err(ScheduleError::Expression { .. })), "{expression:?}");
        }
        assert_eq!(Schedule::parse("0 0 31 2 *", None, now).unwrap_err(), ScheduleError::Never("0 0 31 2 *".into()));
        assert_eq!(Schedule::parse("0 0 * * *", Some("Mars/Base"), now).unwrap_err(), ScheduleError::TimeZone("Mars/Base".into()));
    }

    #[test]
    fn windows_open_and_close() {
        let nights = window("0 1 * * 6,0", "4h", "Europe/Berlin"); // Saturday and Sunday, 01:00 to 05:00
        for (now, open) in [
            ("2026-11-20T23:59:59Z", false),
            ("2026-11-21T00:00:00Z", true),
            ("2026-11-21T03:59:59Z", true),
            ("2026-11-21T04:00:00Z", false),
            ("2026-11-23T00:30:00Z", false),
            ("2026-07-03T23:00:00Z", true), // summer: an hour earlier in UTC
        ] {
            assert_eq!(nights.is_open(at(now)), open, "{now}");
        }
        assert_eq!(nights.next_open(at("2026-11-21T02:00:00Z")), Some(at("2026-11-22T00:00:00Z")));
    }

    proptest! {
        #[test]
        fn the_next_time_is_later_and_nothing_lies_between(
            second in 1_700_000_000i64..2_000_000_000, minute in 0u8..60, hour in 0u8..24, zone in prop::sample::select(vec!["Etc/UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
        ) {
            let now = Timestamp::from_second(second).unwrap();
            let schedule = Schedule::parse(&format!("{minute} {hour} * * *"), Some(zone), now).unwrap();
            let next = schedule.next_after(now).unwrap();
            prop_assert!(next > now);
            prop_assert!(next.duration_since(now) <= SignedDuration::from_hours(50), "a daily time is never more than a skipped day away");
            // Asking again from anywhere in between gives the same answer.
            let between = now + (next.duration_since(now) / 2);
            prop_assert_eq!(schedule.next_after(between.min(next - SignedDuration::from_secs(1))), Some(next));
        }

        #[test]
        fn a_window_is_open_from_its_opening_for_its_length(second in 1_700_000_000i64..2_000_000_000, hours in 1u8..20) {
            let now = Timestamp::from_second(second).unwrap();
            let daily = window("30 2 * * *", &format!("{hours}h"), "America/New_York");
            let opens = daily.next_open(now).unwrap();
            let length = SignedDuration::from_hours(hours.into());
            prop_assert!(daily.is_open(opens));
            prop_assert!(daily.is_open(opens + length - SignedDuration::from_secs(1)));
            prop_assert!(!daily.is_open(opens + length) || daily.next_open(opens).unwrap() <= opens + length);
        }

        #[test]
        fn jitter_stays_in_its_bounds(uid in ".{0,40}", most in 0i64..10_000_000) {
            let most = SignedDuration::from_secs(most);
            let jitter = jitter(&uid, most);
            prop_assert!(jitter >= SignedDuration::ZERO && (jitter < most || most.is_zero()));
        }
    }
}
