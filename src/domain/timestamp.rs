//! A point in time: microseconds since 1970-01-01T00:00:00Z, as both databases keep it.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use time::{OffsetDateTime, format_description::FormatItem, macros::format_description};

const RFC_3339_MILLISECONDS: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Microseconds since the Unix epoch, UTC. Shown as RFC 3339 with milliseconds: `2026-11-22T09:30:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This moment and `span` more; the far end of time when that does not fit.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000)
            .ok()
            .and_then(|moment| moment.format(RFC_3339_MILLISECONDS).ok());
        match text {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} microseconds after 1970", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_milliseconds_in_utc() {
        assert_eq!(Timestamp(1_795_339_800_000_000).to_string(), "2026-11-22T09:30:00.000Z");
        assert_eq!(Timestamp(1_795_339_800_123_999).to_string(), "2026-11-22T09:30:00.123Z");
    }

    #[test]
    fn spans_do_not_wrap() {
        assert_eq!(Timestamp(5).plus(Duration::MAX), Timestamp(i64::MAX));
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(2_000_000).since(Timestamp(500_000)), Duration::from_millis(1_500));
    }
}
