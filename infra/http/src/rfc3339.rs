//! Times in the API: RFC 3339 in UTC with milliseconds.

use std::fmt;
use std::str::FromStr;

use schemas::ids::TimestampMs;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

/// A moment, written as `2026-11-21T08:00:00.000Z`. Any UTC offset can be read; fractions of a
/// millisecond are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-21T08:00:00.000Z")]
pub struct Moment(pub TimestampMs);

/// The text is not a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {EXPECTED}")]
pub struct MomentError;

const EXPECTED: &str = "a time as in RFC 3339, such as 2026-11-21T08:00:00.000Z";

impl fmt::Display for Moment {
    /// Moments outside the years 1970 to 9999, which nothing makes, are written as the nearest
    /// end of that range.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_MS: TimestampMs = 253_402_300_799_999;
        let ms = self.0.clamp(0, MAX_MS);
        let at = OffsetDateTime::from_unix_timestamp(ms / 1000).map_err(|_| fmt::Error)?;
        let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
        let (hour, minute, second) = at.to_hms();
        let ms = ms % 1000;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"
        )
    }
}

impl FromStr for Moment {
    type Err = MomentError;
    fn from_str(text: &str) -> Result<Self, MomentError> {
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| MomentError)?;
        let ms = at.unix_timestamp_nanos().div_euclid(1_000_000);
        ms.try_into().map(Self).map_err(|_| MomentError)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Moment;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Moment, E> {
                text.parse()
                    .map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc_and_read_from_anywhere() {
        assert_eq!(Moment(0).to_string(), "1970-01-01T00:00:00.000Z");
        let moment = Moment(1_795_248_000_007);
        assert_eq!(moment.to_string(), "2026-11-21T08:00:00.007Z");
        assert_eq!(moment.to_string().parse(), Ok(moment));
        assert_eq!("2026-11-21T09:00:00.0079+01:00".parse(), Ok(moment));
        assert_eq!(Moment(i64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        for bad in [
            "",
            "2026-11-21",
            "2026-11-21T08:00:00",
            "2026-13-21T08:00:00Z",
            "1795248000",
        ] {
            assert_eq!(bad.parse::<Moment>(), Err(MomentError), "{bad:?}");
        }
    }
}
