//! Values as the parameters that the server wants. It says of each what type it has by where it
//! stands; a value that fits is turned into that.

use sqlx::{
    Encode, Postgres, Type, TypeInfo,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgTypeInfo, types::Oid},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::values::{Kind, since_epoch, write_numeric};
use crate::bindings::warren::worker::sql::Value;

/// The version that stands before a `jsonb`.
const JSONB_VERSION: u8 = 1;

/// One value in the form of the type that is wanted; `None` is NULL.
pub(super) struct Parameter(Option<Vec<u8>>);

impl Parameter {
    /// The error goes on after the name of the parameter.
    pub(super) fn new(value: &Value, wanted: &PgTypeInfo) -> Result<Self, String> {
        if matches!(value, Value::Null) {
            return Ok(Self(None));
        }
        let name = wanted.name().to_lowercase();
        let Some(kind) = Kind::of(wanted) else {
            return Err(format!(
                "is a {name}, for which there is no value: give a text and write \
                 CAST(CAST($n AS text) AS {name})"
            ));
        };
        let bytes = write(value, kind).ok_or_else(|| match value {
            Value::Boolean(_) => format!("is a boolean, which is no {name}"),
            Value::Integer(number) => format!("is the integer {number}, which is no {name}"),
            Value::Real(number) => format!("is {number}, which is no {name}"),
            Value::Blob(_) => format!("is a blob, which is no {name}"),
            _ if kind == Kind::TimestampTz => {
                format!("is a text that is no {name}: write it as 2000-12-31T23:59:59Z")
            }
            _ => format!("is a text that is no {name}"),
        })?;
        Ok(Self(Some(bytes)))
    }
}

fn write(value: &Value, kind: Kind) -> Option<Vec<u8>> {
    Some(match kind {
        Kind::Boolean => vec![u8::from(match value {
            Value::Boolean(truth) => *truth,
            Value::Integer(0) => false,
            Value::Integer(1) => true,
            Value::Text(text) => text.parse().ok()?,
            _ => return None,
        })],
        Kind::Int2 => i16::try_from(integer(value)?).ok()?.to_be_bytes().to_vec(),
        Kind::Int4 => i32::try_from(integer(value)?).ok()?.to_be_bytes().to_vec(),
        Kind::Int8 => integer(value)?.to_be_bytes().to_vec(),
        Kind::Oid => u32::try_from(integer(value)?).ok()?.to_be_bytes().to_vec(),
        #[allow(clippy::cast_possible_truncation, reason = "what the column holds")]
        Kind::Float4 => (real(value)? as f32).to_be_bytes().to_vec(),
        Kind::Float8 => real(value)?.to_be_bytes().to_vec(),
        Kind::Numeric => write_numeric(&text(value)?)?,
        Kind::Text | Kind::Json => text(value)?.into_bytes(),
        Kind::Jsonb => {
            let mut bytes = vec![JSONB_VERSION];
            bytes.extend(text(value)?.into_bytes());
            bytes
        }
        Kind::Bytes => match value {
            Value::Blob(bytes) => bytes.clone(),
            _ => return None,
        },
        Kind::Uuid => match value {
            Value::Text(text) => Uuid::parse_str(text).ok()?.as_bytes().to_vec(),
            Value::Blob(bytes) => Uuid::from_slice(bytes).ok()?.as_bytes().to_vec(),
            _ => return None,
        },
        Kind::Date => match infinity(value) {
            Some(true) => i32::MAX,
            Some(false) => i32::MIN,
            None => {
                let day = moment(&format!("{}T00:00:00Z", words(value)?))?;
                i32::try_from(since_epoch(day).whole_days()).ok()?
            }
        }
        .to_be_bytes()
        .to_vec(),
        Kind::Time => {
            let time = moment(&format!("2000-01-01T{}Z", words(value)?))?;
            microseconds(time)?.to_be_bytes().to_vec()
        }
        Kind::Timestamp | Kind::TimestampTz => match infinity(value) {
            Some(true) => i64::MAX,
            Some(false) => i64::MIN,
            None if kind == Kind::Timestamp => {
                let plain = words(value)?.replacen(' ', "T", 1);
                microseconds(moment(&format!("{plain}Z"))?)?
            }
            None => microseconds(moment(words(value)?)?)?,
        }
        .to_be_bytes()
        .to_vec(),
        Kind::Void => return None,
    })
}

/// SQLite, too, takes a number for what is one, however it is written.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        Value::Boolean(truth) => Some((*truth).into()),
        Value::Text(text) => text.parse().ok(),
        // `{}` writes no exponent, and no point where nothing is behind it.
        Value::Real(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

#[allow(clippy::cast_precision_loss, reason = "what the column holds")]
fn real(value: &Value) -> Option<f64> {
    match value {
        Value::Real(number) => Some(*number),
        Value::Integer(number) => Some(*number as f64),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Real(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn words(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// `true` for the one that is after everything.
fn infinity(value: &Value) -> Option<bool> {
    match words(value)? {
        "infinity" => Some(true),
        "-infinity" => Some(false),
        _ => None,
    }
}

/// Also as PostgreSQL shows it: `2000-12-31 23:59:59+00`.
fn moment(text: &str) -> Option<OffsetDateTime> {
    let mut text = text.replacen(' ', "T", 1);
    let offset = text.rfind(['+', '-']);
    if offset.is_some_and(|at| text.len() - at == "+00".len() && text.contains('T')) {
        text.push_str(":00");
    }
    OffsetDateTime::parse(&text, &Rfc3339).ok()
}

fn microseconds(moment: OffsetDateTime) -> Option<i64> {
    i64::try_from(since_epoch(moment).whole_microseconds()).ok()
}

impl Type<Postgres> for Parameter {
    /// The server has been asked what it wants, and this is it.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for Parameter {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(match &self.0 {
            None => IsNull::Yes,
            Some(bytes) => {
                buffer.extend_from_slice(bytes);
                IsNull::No
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a value becomes, read back.
    fn round(value: Value, kind: Kind) -> Option<String> {
        write(&value, kind).map(|bytes| shown(&kind.read(&bytes).unwrap()))
    }

    fn shown(value: &Value) -> String {
        format!("{value:?}")
    }

    fn words(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn numbers_fit_where_they_can() {
        assert_eq!(
            round(Value::Integer(7), Kind::Int2),
            Some(shown(&Value::Integer(7)))
        );
        assert_eq!(round(Value::Integer(70_000), Kind::Int2), None);
        assert_eq!(round(Value::Integer(1 << 40), Kind::Int4), None);
        assert_eq!(
            round(words("-12"), Kind::Int8),
            Some(shown(&Value::Integer(-12)))
        );
        assert_eq!(round(words("twelve"), Kind::Int8), None);
        assert_eq!(
            round(Value::Real(2.0), Kind::Int4),
            Some(shown(&Value::Integer(2)))
        );
        assert_eq!(round(Value::Real(2.5), Kind::Int4), None);
        assert_eq!(round(Value::Real(f64::NAN), Kind::Int4), None);
        assert_eq!(
            round(Value::Boolean(true), Kind::Int4),
            Some(shown(&Value::Integer(1)))
        );
        assert_eq!(
            round(Value::Integer(1), Kind::Boolean),
            Some(shown(&Value::Boolean(true)))
        );
        assert_eq!(round(Value::Integer(2), Kind::Boolean), None);
        assert_eq!(
            round(Value::Integer(3), Kind::Float8),
            Some(shown(&Value::Real(3.0)))
        );
        assert_eq!(
            round(Value::Real(0.5), Kind::Numeric),
            Some(shown(&words("0.5")))
        );
        assert_eq!(
            round(Value::Integer(7), Kind::Text),
            Some(shown(&words("7")))
        );
        assert_eq!(round(Value::Blob(vec![1]), Kind::Text), None);
    }

    #[test]
    fn texts_become_what_the_column_holds() {
        let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        for (kind, given, expected) in [
            (Kind::Uuid, uuid, uuid),
            (Kind::Jsonb, "{\"a\": 1}", "{\"a\": 1}"),
            (Kind::Numeric, "12.50", "12.50"),
            (Kind::Date, "1969-07-20", "1969-07-20"),
            (Kind::Date, "-infinity", "-infinity"),
            (Kind::Time, "23:59:59.25", "23:59:59.25"),
            (
                Kind::Timestamp,
                "2000-02-29 12:00:00",
                "2000-02-29T12:00:00",
            ),
            (
                Kind::TimestampTz,
                "2000-02-29T12:00:00+01:00",
                "2000-02-29T11:00:00Z",
            ),
            (
                Kind::TimestampTz,
                "2000-02-29 12:00:00.5-05",
                "2000-02-29T17:00:00.5Z",
            ),
            (Kind::TimestampTz, "infinity", "infinity"),
        ] {
            assert_eq!(
                round(words(given), kind),
                Some(shown(&words(expected))),
                "{kind:?}"
            );
        }
        for (kind, given) in [
            (Kind::Uuid, "no"),
            (Kind::Date, "2000-02-30"),
            (Kind::Date, "2000"),
            (Kind::Time, "25:00:00"),
            (Kind::TimestampTz, "2000-02-29T12:00:00"),
            (Kind::Timestamp, "2000-02-29T12:00:00Z"),
            (Kind::Bytes, "text"),
        ] {
            assert_eq!(round(words(given), kind), None, "{kind:?} {given}");
        }
    }
}
