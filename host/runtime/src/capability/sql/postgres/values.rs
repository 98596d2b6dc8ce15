//! PostgreSQL's types as they travel, and the values of the contract.

use sqlx::{
    Column, TypeInfo,
    postgres::{PgColumn, PgTypeInfo, PgTypeKind},
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::bindings::warren::worker::sql::{Error, Value};

/// Digits before the decimal point that a numeric may have
/// (<https://www.postgresql.org/docs/current/datatype-numeric.html>).
const MAX_WHOLE_DIGITS: usize = 131_072;
/// Beyond so many digits after the point, its scale does not fit.
const MAX_FRACTION_DIGITS: usize = 0x4000;
/// How sqlx shows a type that it has not found; a type of that name is shown in quotes.
const UNRESOLVED: &str = "?";
/// PostgreSQL counts days and microseconds from the first of January 2000 on: so long after 1970.
const EPOCH: Duration = Duration::seconds(946_684_800);
/// Digits that one number of a `numeric` stands for.
const GROUP: usize = 4;

/// A type for which there is a value, by its form on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    Text,
    Bytes,
    Uuid,
    Json,
    Jsonb,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Void,
}

impl Kind {
    pub(super) fn of(info: &PgTypeInfo) -> Option<Self> {
        Some(match info.oid()?.0 {
            16 => Self::Boolean,
            17 => Self::Bytes,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            // char, name, text, unknown, bpchar, varchar
            18 | 19 | 25 | 705 | 1042 | 1043 => Self::Text,
            26 => Self::Oid,
            114 => Self::Json,
            700 => Self::Float4,
            701 => Self::Float8,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::TimestampTz,
            1700 => Self::Numeric,
            2278 => Self::Void,
            2950 => Self::Uuid,
            3802 => Self::Jsonb,
            // sqlx has not found out what it is, and panics when it is asked: it was made, or dropped,
            // beside this transaction.
            _ if info.name() == UNRESOLVED => return None,
            _ => match info.kind() {
                PgTypeKind::Enum(_) => Self::Text,
                PgTypeKind::Domain(base) => return Self::of(base),
                _ if info.name().eq_ignore_ascii_case("citext") => Self::Text,
                _ => return None,
            },
        })
    }

    pub(super) fn of_column(column: &PgColumn) -> Result<Self, Error> {
        let info = column.type_info();
        if info.name() == UNRESOLVED {
            let name = column.name();
            return Err(Error::Conflict(format!(
                "the type of column `{name}` was made or dropped meanwhile"
            )));
        }
        Self::of(info).ok_or_else(|| {
            let (name, kind) = (column.name(), info.name().to_lowercase());
            Error::Invalid(format!(
                "column `{name}` has the type {kind}, for which there is no value: select \
                 CAST({name} AS text)"
            ))
        })
    }

    /// The value of a column; the error goes on after its name.
    pub(super) fn read(self, bytes: &[u8]) -> Result<Value, String> {
        let unread = || format!("holds {} bytes that are no {self:?}", bytes.len());
        let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::Text(text.to_owned())),
            Err(_) => Err("holds a text that is not Unicode".to_owned()),
        };
        Ok(match self {
            Self::Boolean => Value::Boolean(bytes.first().is_some_and(|byte| *byte != 0)),
            Self::Int2 => {
                Value::Integer(i16::from_be_bytes(fixed(bytes).ok_or_else(unread)?).into())
            }
            Self::Int4 => {
                Value::Integer(i32::from_be_bytes(fixed(bytes).ok_or_else(unread)?).into())
            }
            Self::Int8 => Value::Integer(i64::from_be_bytes(fixed(bytes).ok_or_else(unread)?)),
            Self::Oid => {
                Value::Integer(u32::from_be_bytes(fixed(bytes).ok_or_else(unread)?).into())
            }
            Self::Float4 => {
                Value::Real(f32::from_be_bytes(fixed(bytes).ok_or_else(unread)?).into())
            }
            Self::Float8 => Value::Real(f64::from_be_bytes(fixed(bytes).ok_or_else(unread)?)),
            Self::Numeric => Value::Text(read_numeric(bytes).ok_or_else(unread)?),
            Self::Text | Self::Json => text(bytes)?,
            // A version stands before it.
            Self::Jsonb => text(bytes.get(1..).unwrap_or_default())?,
            Self::Bytes => Value::Blob(bytes.to_owned()),
            Self::Uuid => Value::Text(Uuid::from_slice(bytes).map_err(|_| unread())?.to_string()),
            Self::Date => {
                let days = i32::from_be_bytes(fixed(bytes).ok_or_else(unread)?);
                match infinity(days == i32::MAX, days == i32::MIN) {
                    Some(value) => value,
                    None => {
                        let moment = moment(Duration::days(days.into()))?;
                        Value::Text(moment.split_once('T').map_or("", |(day, _)| day).to_owned())
                    }
                }
            }
            Self::Time | Self::Timestamp | Self::TimestampTz => {
                let count = i64::from_be_bytes(fixed(bytes).ok_or_else(unread)?);
                match infinity(count == i64::MAX, count == i64::MIN) {
                    Some(value) => value,
                    None => {
                        let moment = moment(Duration::microseconds(count))?;
                        let plain = moment.trim_end_matches('Z');
                        Value::Text(match self {
                            Self::Time => plain.split_once('T').map_or("", |(_, time)| time).into(),
                            Self::Timestamp => plain.to_owned(),
                            _ => moment,
                        })
                    }
                }
            }
            Self::Void => Value::Null,
        })
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn infinity(is_after_all: bool, is_before_all: bool) -> Option<Value> {
    match (is_after_all, is_before_all) {
        (true, _) => Some(Value::Text("infinity".to_owned())),
        (_, true) => Some(Value::Text("-infinity".to_owned())),
        _ => None,
    }
}

/// How long after PostgreSQL's epoch this is.
pub(super) fn since_epoch(moment: OffsetDateTime) -> Duration {
    moment - OffsetDateTime::UNIX_EPOCH - EPOCH
}

/// RFC 3339, in UTC.
fn moment(since_epoch: Duration) -> Result<String, String> {
    let since = since_epoch.checked_add(EPOCH);
    let moment = since.and_then(|since| OffsetDateTime::UNIX_EPOCH.checked_add(since));
    let text = moment.and_then(|moment| moment.format(&Rfc3339).ok());
    text.ok_or_else(|| "holds a date outside of the years 0 to 9999: cast it to text".to_owned())
}

/// A `numeric` is groups of four digits, the place of the first one, a sign, and how many digits
/// stand behind the point.
fn read_numeric(bytes: &[u8]) -> Option<String> {
    let number = |index: usize| -> Option<u16> {
        let at = index.checked_mul(2)?;
        Some(u16::from_be_bytes(fixed(
            bytes.get(at..at.checked_add(2)?)?,
        )?))
    };
    let (n_groups, sign, scale) = (number(0)?, number(2)?, usize::from(number(3)?));
    let first = i32::from(number(1)?.cast_signed());
    match sign {
        0xC000 => return Some("NaN".to_owned()),
        0xD000 => return Some("Infinity".to_owned()),
        0xF000 => return Some("-Infinity".to_owned()),
        _ => {}
    }
    let group = |place: i32| -> Option<u16> {
        match usize::try_from(first - place) {
            Ok(index) if index < usize::from(n_groups) => number(4 + index),
            _ => Some(0),
        }
    };
    let mut whole = String::new();
    for place in (0..=first).rev() {
        whole.push_str(&format!("{:04}", group(place)?));
    }
    let whole = whole.trim_start_matches('0');
    let mut part = String::new();
    let mut place = -1;
    while part.len() < scale {
        part.push_str(&format!("{:04}", group(place)?));
        place -= 1;
    }
    part.truncate(scale);
    let sign = if sign == 0x4000 { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if part.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{part}"))
}

/// As [`read_numeric`] reads it. `None`: it is no decimal number.
pub(super) fn write_numeric(text: &str) -> Option<Vec<u8>> {
    if text.eq_ignore_ascii_case("nan") {
        return Some([0_u16, 0, 0xC000, 0].map(u16::to_be_bytes).concat());
    }
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + part.len() == 0 || !is_number(whole) || !is_number(part) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    if whole.len() > MAX_WHOLE_DIGITS || part.len() >= MAX_FRACTION_DIGITS {
        return None;
    }
    let lead = whole.len().next_multiple_of(GROUP);
    let tail = part.len().next_multiple_of(GROUP);
    let zeros = |n: usize| "0".repeat(n);
    let (before, after) = (zeros(lead - whole.len()), zeros(tail - part.len()));
    let all = format!("{before}{whole}{part}{after}");
    let mut groups = Vec::new();
    for four in all.as_bytes().chunks(GROUP) {
        groups.push(std::str::from_utf8(four).ok()?.parse::<u16>().ok()?);
    }
    let first = i16::try_from(i32::try_from(lead / GROUP).ok()? - 1).ok()?;
    let head = [
        u16::try_from(groups.len()).ok()?,
        first.cast_unsigned(),
        if is_negative { 0x4000 } else { 0 },
        u16::try_from(part.len()).ok()?,
    ];
    let numbers = head.into_iter().chain(groups);
    Some(numbers.flat_map(u16::to_be_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_no_column_holds_is_none() {
        let digits = "1".repeat(200_000);
        for text in [
            digits.clone(),
            format!("0.{digits}"),
            format!("{digits}.{digits}"),
        ] {
            assert_eq!(write_numeric(&text), None);
        }
        let largest = "9".repeat(MAX_WHOLE_DIGITS);
        assert!(write_numeric(&largest).is_some());
        let longest = format!("0.{}", "9".repeat(MAX_FRACTION_DIGITS - 1));
        assert!(write_numeric(&longest).is_some());
    }

    #[test]
    fn a_decimal_number_comes_back_as_it_was_written() {
        for text in [
            "0",
            "1",
            "-1",
            "10000",
            "12345678",
            "0.5",
            "-0.05",
            "0.00001",
            "123.4500",
            "99999999999999999999.000000001",
            "NaN",
            "10000.0001",
        ] {
            let bytes = write_numeric(text).unwrap();
            assert_eq!(read_numeric(&bytes).as_deref(), Some(text));
        }
        assert_eq!(
            read_numeric(&write_numeric("+007.10").unwrap()).unwrap(),
            "7.10"
        );
        for text in ["", ".", "-", "1e3", "1,5", "0x1", "1.2.3", " 1", "--1"] {
            assert_eq!(write_numeric(text), None, "{text}");
        }
    }

    #[test]
    fn dates_are_shown_as_far_as_there_are_years_for_them() {
        let read = |kind: Kind, bytes: &[u8]| kind.read(bytes).map(|value| format!("{value:?}"));
        let text = |text: &str| Ok(format!("{:?}", Value::Text(text.to_owned())));
        let count = |n: i64| n.to_be_bytes();
        assert_eq!(
            read(Kind::TimestampTz, &count(1)),
            text("2000-01-01T00:00:00.000001Z")
        );
        assert_eq!(
            read(Kind::Timestamp, &count(-1_000_000)),
            text("1999-12-31T23:59:59")
        );
        assert_eq!(read(Kind::Time, &count(3_600_500_000)), text("01:00:00.5"));
        assert_eq!(read(Kind::Date, &60_i32.to_be_bytes()), text("2000-03-01"));
        assert_eq!(read(Kind::Date, &i32::MAX.to_be_bytes()), text("infinity"));
        assert_eq!(read(Kind::Timestamp, &count(i64::MIN)), text("-infinity"));
        assert!(read(Kind::Timestamp, &count(i64::MAX - 1)).is_err());
        assert!(read(Kind::Date, &[1]).is_err());
    }
}
