//! Moments and durations, as a person writes and reads them.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A moment, as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So many milliseconds before now.
    Ago(u64),
    /// Milliseconds since 1970 (UTC).
    At(u64),
}

impl Moment {
    /// Milliseconds since 1970 (UTC).
    #[must_use]
    pub(super) fn ms(self, now_ms: u64) -> u64 {
        match self {
            Self::Ago(ms) => now_ms.saturating_sub(ms),
            Self::At(ms) => ms,
        }
    }
}

/// Reads a duration before now (`90s`, `15m`, `2h`, `7d`) or a date and time of RFC 3339.
pub(super) fn parse(text: &str) -> Result<Moment, String> {
    if let Some(ms) = parse_duration(text) {
        return Ok(Moment::Ago(ms));
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        "write how long ago (90s, 15m, 2h, 7d) or a date and time (2026-01-31T12:00:00Z)".to_owned()
    })?;
    let ms = moment.unix_timestamp_nanos() / 1_000_000;
    u64::try_from(ms)
        .map(Moment::At)
        .map_err(|_| "it lies before 1970".to_owned())
}

/// A moment in UTC, to the second.
pub(super) fn shown(ms: Option<u64>) -> String {
    let moment = ms
        .and_then(|ms| i64::try_from(ms / 1000).ok())
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|moment| moment.format(&Rfc3339).ok());
    moment.unwrap_or_else(|| "-".to_owned())
}

/// A moment in UTC with its milliseconds, for programs. Always three digits of them, so that such
/// texts sort as the moments do.
pub(super) fn exact(ms: u64) -> Option<String> {
    let seconds = i64::try_from(ms / 1000).ok()?;
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    let text = moment.format(&Rfc3339).ok()?;
    Some(format!("{}.{:03}Z", text.strip_suffix('Z')?, ms % 1000))
}

/// Milliseconds.
fn parse_duration(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let unit: u64 = match unit.trim_start() {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_dates_are_read() {
        assert_eq!(parse("90s"), Ok(Moment::Ago(90_000)));
        assert_eq!(parse("2h"), Ok(Moment::Ago(7_200_000)));
        assert_eq!(parse("7d"), Ok(Moment::Ago(604_800_000)));
        assert_eq!(
            parse("2026-01-31T12:00:00Z"),
            Ok(Moment::At(1_769_860_800_000))
        );
        assert_eq!(
            parse("2026-01-31T13:00:00.250+01:00"),
            Ok(Moment::At(1_769_860_800_250))
        );
        for wrong in [
            "",
            "2",
            "2 weeks",
            "yesterday",
            "2026-01-31",
            "1960-01-01T00:00:00Z",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn exact_moments_sort_as_texts() {
        assert_eq!(exact(1_000).as_deref(), Some("1970-01-01T00:00:01.000Z"));
        assert_eq!(exact(1_990).as_deref(), Some("1970-01-01T00:00:01.990Z"));
        assert!(exact(1_990) < exact(1_995));
    }

    #[test]
    fn a_moment_is_shown_as_it_is_read() {
        assert_eq!(shown(Some(1_769_860_800_250)), "2026-01-31T12:00:00Z");
        assert_eq!(shown(None), "-");
        let exact = exact(1_769_860_800_250).unwrap();
        assert_eq!(exact, "2026-01-31T12:00:00.250Z");
        assert_eq!(parse(&exact), Ok(Moment::At(1_769_860_800_250)));
    }
}
