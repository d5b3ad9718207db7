//! A point in time: microseconds since 1970-01-01T00:00:00Z, as both databases keep it.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use time::OffsetDateTime;

/// What a point in time looks like.
const FORM: [u8; 24] = *b"0000-00-00T00:00:00.000Z";

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

impl Timestamp {
    /// As RFC 3339 has it, in the years of which it speaks: 0 to 9999. Digit by digit, since `time` takes ten times as long
    /// by a description of the format, and there is a time in almost every answer.
    fn rfc3339(self, text: &mut [u8; FORM.len()]) -> Option<&str> {
        let moment = OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1_000_000)).ok()?;
        let year = u32::try_from(moment.year()).ok().filter(|year| *year <= 9999)?;
        let milliseconds = u32::try_from(self.0.rem_euclid(1_000_000) / 1_000).ok()?;
        *text = FORM;
        let parts: [(usize, usize, u32); 7] = [
            (0, 4, year),
            (5, 7, u8::from(moment.month()).into()),
            (8, 10, moment.day().into()),
            (11, 13, moment.hour().into()),
            (14, 16, moment.minute().into()),
            (17, 19, moment.second().into()),
            (20, 23, milliseconds),
        ];
        for (begin, end, mut number) in parts {
            for digit in text[begin..end].iter_mut().rev() {
                *digit += u8::try_from(number % 10).ok()?;
                number /= 10;
            }
        }
        std::str::from_utf8(text).ok()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rfc3339(&mut [0; FORM.len()]) {
            Some(text) => f.write_str(text),
            None => write!(f, "{} microseconds after 1970", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.rfc3339(&mut [0; FORM.len()]) {
            Some(text) => serializer.serialize_str(text),
            None => serializer.collect_str(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::format_description::well_known::Rfc3339;

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

    #[test]
    fn what_rfc_3339_does_not_speak_of_is_told_as_a_number() {
        assert_eq!(Timestamp(-62_167_219_200_000_000).to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(253_402_300_799_999_999).to_string(), "9999-12-31T23:59:59.999Z");
        for outside in [i64::MIN, -62_167_219_200_000_001, 253_402_300_800_000_000, i64::MAX] {
            let told = format!("{outside} microseconds after 1970");
            assert_eq!(Timestamp(outside).to_string(), told);
            assert_eq!(serde_json::to_value(Timestamp(outside)).expect("JSON"), told);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back_to_the_millisecond(micros in -62_167_219_200_000_000..=253_402_300_799_999_999_i64) {
            let shown = Timestamp(micros).to_string();
            prop_assert_eq!(shown.len(), 24);
            let read = OffsetDateTime::parse(&shown, &Rfc3339).expect("RFC 3339").unix_timestamp_nanos();
            prop_assert_eq!(read, i128::from(micros.div_euclid(1_000)) * 1_000_000);
            prop_assert_eq!(serde_json::to_value(Timestamp(micros)).expect("JSON"), shown);
        }
    }
}
