//! A length of time as Kubernetes writes it: `2160h`, `1h30m`, `45s`.

use std::{borrow::Cow, fmt, str::FromStr};

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::json;

/// A non-negative length of time in whole seconds. The longest that can be written is 148 years, far below what date arithmetic overflows at.
///
/// Written as in Kubernetes (Go's `time.ParseDuration`) with the units `h`, `m` and `s`, largest first. There is no day: `24h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(SignedDuration);

/// Why a text is no [`Duration`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duration; write hours, minutes and seconds like 2160h, 1h30m or 45s")]
pub struct InvalidDuration(String);

/// The pattern that the API server checks; [`Duration::from_str`] accepts exactly what it accepts.
pub const PATTERN: &str = "^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,9}s)?$";

impl Duration {
    /// `hours` full hours.
    pub const fn hours(hours: u32) -> Self {
        Self(SignedDuration::from_hours(hours as i64))
    }

    /// `minutes` full minutes.
    pub const fn minutes(minutes: u32) -> Self {
        Self(SignedDuration::from_mins(minutes as i64))
    }

    /// The same length as jiff's type, which time arithmetic uses.
    pub const fn signed(self) -> SignedDuration {
        self.0
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDuration(text.chars().take(40).collect());
        let (mut rest, mut seconds) = (text, 0i64);
        for (unit, digits, factor) in [('h', 6, 3600), ('m', 6, 60), ('s', 9, 1)] {
            let Some((number, behind)) = rest.split_once(unit) else { continue };
            if number.is_empty() || number.len() > digits || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(invalid());
            }
            seconds += number.parse::<i64>().map_err(|_| invalid())? * factor;
            rest = behind;
        }
        let duration = SignedDuration::from_secs(seconds);
        if text.is_empty() || !rest.is_empty() { Err(invalid()) } else { Ok(Self(duration)) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        if seconds > 0 || (hours == 0 && minutes == 0) {
            write!(f, "{seconds}s")?;
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let rule = json!({"rule": format!("self.matches('{PATTERN}')"), "message": "write hours, minutes and seconds: 24h, 1h30m, 90s (a day is 24h)"});
        json_schema!({"type": "string", "pattern": PATTERN, "minLength": 2, "maxLength": 20, "x-kubernetes-validations": [rule]})
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_what_kubernetes_writes() {
        for (text, seconds, written) in [
            ("2160h", 7_776_000, "2160h"),
            ("1h30m", 5400, "1h30m"),
            ("90m", 5400, "1h30m"),
            ("45s", 45, "45s"),
            ("0s", 0, "0s"),
            ("1h0m1s", 3601, "1h1s"),
            ("999999h999999m999999999s", 4_659_996_339, "1294443h25m39s"),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration.signed().as_secs(), seconds, "{text}");
            assert_eq!(duration.to_string(), written);
        }
    }

    #[test]
    fn refuses_what_is_not_one() {
        for text in ["", "h", "1", "-1h", "1d", "1m1h", "1h1h", "1.5h", "1e9h", " 1h", "1000000h", "1h ", "٣h"] {
            assert!(text.parse::<Duration>().is_err(), "{text:?}");
        }
    }
}
