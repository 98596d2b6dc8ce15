//! Values that an encoding cannot say, in the words of relaxed Extended JSON v2 (MongoDB), each an
//! object with one key:
//!
//! | value | words |
//! |---|---|
//! | NaN, infinity | `{"$numberDouble": "NaN"}` |
//! | integer beyond ±(2^53 - 1) | `{"$numberLong": "9007199254740993"}` |
//! | integer beyond `i64::MAX` (MessagePack), decimal (BSON) | `{"$numberDecimal": "18446744073709551615"}` |
//! | date, 1970 to 9999 | `{"$date": "2026-11-21T02:40:00.500Z"}` |
//! | any other date | `{"$date": {"$numberLong": "-1"}}` |
//! | bytes | `{"$binary": {"base64": "AQID", "subType": "00"}}` |
//! | object id | `{"$oid": "5f0d…"}` (24 hexadecimal digits) |
//! | BSON timestamp | `{"$timestamp": {"t": 1, "i": 2}}` |
//! | regular expression | `{"$regularExpression": {"pattern": "^a", "options": "i"}}` |
//! | code; lowest and highest key | `{"$code": "…"}`; `{"$minKey": 1}`, `{"$maxKey": 1}` |
//! | code with a scope | `{"$code": "…", "$scope": {}}` |
//! | MessagePack extension | `{"$msgpackExt": {"type": 5, "base64": "AQID"}}` (our own) |
//! | MessagePack map with a key that is not a text | `{"$msgpackMap": [[1, "a"]]}` (our own) |
//!
//! Going back, an object with just such keys and a sound value is what the words mean; any other
//! object is itself. `{"$numberInt": "5"}` is understood too, but never written.
//!
//! MessagePack has integers of 64 bits, but msgpack5 rounds them. Those that a JavaScript number
//! holds exactly are written as such; the others in words, and read in both forms.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bson::{DateTime, Decimal128, oid::ObjectId};

use super::{Value, value::MAX_SAFE_INTEGER};

/// The value in words, or `None` for what JSON says itself.
pub(super) fn to_words<'a>(value: &Value<'a>) -> Option<Value<'a>> {
    let words = match value {
        Value::Number(n) if n.is_nan() => words("$numberDouble", owned("NaN")),
        Value::Number(n) if n.is_infinite() => words(
            "$numberDouble",
            owned(if *n > 0.0 { "Infinity" } else { "-Infinity" }),
        ),
        Value::Long(n) if n.unsigned_abs() > MAX_SAFE_INTEGER => long(*n),
        Value::Unsigned(n) => words("$numberDecimal", owned(n)),
        Value::Decimal(n) => words("$numberDecimal", owned(n)),
        Value::Date(ms) => words("$date", date(*ms)),
        Value::Binary(subtype, bytes) => {
            let subtype = owned(format_args!("{subtype:02x}"));
            words("$binary", pair("base64", base64(bytes), "subType", subtype))
        }
        Value::ObjectId(id) => words("$oid", owned(id)),
        Value::Timestamp { time, increment } => {
            let [time, increment] = [time, increment].map(|n| Value::Number(f64::from(*n)));
            words("$timestamp", pair("t", time, "i", increment))
        }
        Value::Regex(regex) => {
            let (pattern, options) = regex.as_ref();
            // Extended JSON wants them in order; js-bson writes BSON without.
            let mut options: Vec<_> = options.chars().collect();
            options.sort_unstable();
            let options = options.iter().collect::<String>();
            words(
                "$regularExpression",
                pair("pattern", owned(pattern), "options", owned(options)),
            )
        }
        Value::Code(code) => words("$code", owned(code)),
        Value::ScopedCode(code) => {
            let (code, scope) = code.as_ref();
            pair("$code", owned(code), "$scope", scope.clone())
        }
        Value::MinKey => words("$minKey", Value::Number(1.0)),
        Value::MaxKey => words("$maxKey", Value::Number(1.0)),
        Value::Extension(kind, bytes) => {
            let kind = Value::Number(f64::from(*kind));
            words("$msgpackExt", pair("type", kind, "base64", base64(bytes)))
        }
        Value::Map(entries) => {
            let entry = |(key, value): &(Value<'a>, Value<'a>)| {
                Value::Array(vec![key.clone(), value.clone()])
            };
            words(
                "$msgpackMap",
                Value::Array(entries.iter().map(entry).collect()),
            )
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Long(_)
        | Value::Text(_)
        | Value::Array(_)
        | Value::Object(_)
        | Value::Payload(_) => return None,
    };
    Some(words)
}

/// An object, or what it means.
pub(super) fn from_words<'a>(fields: Vec<(Cow<'a, str>, Value<'a>)>) -> Value<'a> {
    let meaning = match fields.as_slice() {
        [(key, value)] if key.starts_with('$') => meaning(key, value),
        [(key, Value::Text(code)), (second, scope @ Value::Object(_))]
            if key == "$code" && second == "$scope" =>
        {
            Some(Value::ScopedCode(Box::new((code.clone(), scope.clone()))))
        }
        _ => None,
    };
    meaning.unwrap_or(Value::Object(fields))
}

fn meaning<'a>(key: &str, value: &Value<'a>) -> Option<Value<'a>> {
    Some(match (key, value) {
        ("$numberInt", Value::Text(text)) => Value::Number(f64::from(text.parse::<i32>().ok()?)),
        ("$numberLong", Value::Text(text)) => Value::Long(text.parse().ok()?),
        ("$numberDouble", Value::Text(text)) => Value::Number(text.parse().ok()?),
        ("$numberDecimal", Value::Text(text)) => Value::from(text.parse::<Decimal128>().ok()?),
        ("$date", Value::Text(text)) => {
            Value::Date(DateTime::parse_rfc3339_str(text).ok()?.timestamp_millis())
        }
        ("$date", Value::Long(ms)) => Value::Date(*ms),
        ("$binary", Value::Object(fields)) => {
            let (base64, subtype) = named(fields, "base64", "subType")?;
            Value::Binary(
                u8::from_str_radix(as_text(subtype)?, 16).ok()?,
                bytes(base64)?,
            )
        }
        ("$oid", Value::Text(text)) => Value::ObjectId(ObjectId::parse_str(text).ok()?),
        ("$timestamp", Value::Object(fields)) => {
            let (time, increment) = named(fields, "t", "i")?;
            Value::Timestamp {
                time: whole(time)?,
                increment: whole(increment)?,
            }
        }
        ("$regularExpression", Value::Object(fields)) => {
            let (pattern, options) = named(fields, "pattern", "options")?;
            let [pattern, options] = [as_text(pattern)?, as_text(options)?];
            Value::Regex(Box::new((
                pattern.to_owned().into(),
                options.to_owned().into(),
            )))
        }
        ("$code", Value::Text(code)) => Value::Code(code.clone().into_owned().into()),
        ("$minKey", Value::Number(1.0)) => Value::MinKey,
        ("$maxKey", Value::Number(1.0)) => Value::MaxKey,
        ("$msgpackExt", Value::Object(fields)) => {
            let (kind, base64) = named(fields, "type", "base64")?;
            Value::Extension(whole(kind)?, bytes(base64)?)
        }
        ("$msgpackMap", Value::Array(entries)) => map(entries)?,
        _ => return None,
    })
}

/// A map, where it is one that is not an object.
fn map<'a>(entries: &[Value<'a>]) -> Option<Value<'a>> {
    let entry = |entry: &Value<'a>| match entry {
        Value::Array(entry) => match entry.as_slice() {
            [key, value] => Some((key.clone(), value.clone())),
            _ => None,
        },
        _ => None,
    };
    let entries: Vec<_> = entries.iter().map(entry).collect::<Option<_>>()?;
    let texts = entries.iter().all(|(key, _)| matches!(key, Value::Text(_)));
    (!texts).then_some(Value::Map(entries))
}

fn words<'a>(key: &'static str, value: Value<'a>) -> Value<'a> {
    Value::object([(key, value)])
}

fn pair<'a>(first: &'static str, a: Value<'a>, second: &'static str, b: Value<'a>) -> Value<'a> {
    Value::object([(first, a), (second, b)])
}

fn owned(text: impl ToString) -> Value<'static> {
    Value::Text(Cow::Owned(text.to_string()))
}

fn long(number: i64) -> Value<'static> {
    words("$numberLong", owned(number))
}

fn base64(bytes: &[u8]) -> Value<'static> {
    Value::Text(Cow::Owned(BASE64.encode(bytes)))
}

/// ISO 8601 with milliseconds, where there are any, as js-bson writes it. `DateTime` takes whatever
/// is beyond the year 9999 for the end of that year.
fn date(ms: i64) -> Value<'static> {
    const END_OF_9999: i64 = 253_402_300_800_000;
    let (seconds, millis) = (ms.div_euclid(1000), ms.rem_euclid(1000));
    let text = DateTime::from_millis(seconds.saturating_mul(1000)).try_to_rfc3339_string();
    match text {
        _ if !(0..END_OF_9999).contains(&ms) => long(ms),
        Ok(text) if millis == 0 => owned(text),
        Ok(text) => owned(format_args!("{}.{millis:03}Z", text.trim_end_matches('Z'))),
        Err(_) => long(ms),
    }
}

/// The two fields of an object that has just these, in either order.
fn named<'v, 'a>(
    fields: &'v [(Cow<'a, str>, Value<'a>)],
    first: &str,
    second: &str,
) -> Option<(&'v Value<'a>, &'v Value<'a>)> {
    match fields {
        [(a, one), (b, two)] if a == first && b == second => Some((one, two)),
        [(a, one), (b, two)] if a == second && b == first => Some((two, one)),
        _ => None,
    }
}

fn as_text<'v>(value: &'v Value<'_>) -> Option<&'v str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn bytes(value: &Value<'_>) -> Option<Cow<'static, [u8]>> {
    BASE64.decode(as_text(value)?).ok().map(Cow::Owned)
}

fn whole<T: TryFrom<i64>>(value: &Value<'_>) -> Option<T> {
    match value {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the cast saturates, then is checked"
        )]
        Value::Number(n) if n.fract() == 0.0 => T::try_from(*n as i64).ok(),
        _ => None,
    }
}
