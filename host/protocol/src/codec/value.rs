//! A value in the union of what the three encodings can say. It exists only while a value is
//! carried from one encoding into another, or an envelope is written.

use std::borrow::Cow;

use bson::{Decimal128, oid::ObjectId};

use crate::Payload;

/// The largest integer up to which a JavaScript number holds every integer exactly.
pub(super) const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// One value. Objects keep the order of their keys, and what they say twice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    /// A number as JavaScript has it, whatever its width was on the wire.
    Number(f64),
    /// An integer that JavaScript would round, or one that was written as 64 bits wide on purpose.
    Long(i64),
    /// An integer above `i64::MAX`.
    Unsigned(u64),
    Text(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
    /// Milliseconds since 1970 (UTC).
    Date(i64),
    /// Bytes, with the BSON subtype (0: no special meaning).
    Binary(u8, Cow<'a, [u8]>),
    ObjectId(ObjectId),
    Decimal(Decimal128),
    /// A BSON timestamp: seconds since 1970, and a counter within the second.
    Timestamp {
        time: u32,
        increment: u32,
    },
    /// A pattern and its options.
    Regex(Box<(Cow<'a, str>, Cow<'a, str>)>),
    Code(Cow<'a, str>),
    /// Code, and an object with the values of its names.
    ScopedCode(Box<(Cow<'a, str>, Value<'a>)>),
    MinKey,
    MaxKey,
    /// A MessagePack extension of an application: type and content.
    Extension(i8, Cow<'a, [u8]>),
    /// A MessagePack map with a key that is not a text. All others are objects.
    Map(Vec<(Value<'a>, Value<'a>)>),
    /// A payload, written byte for byte where it already has the right encoding.
    Payload(&'a Payload),
}

impl<'a> Value<'a> {
    /// A text that lives elsewhere.
    pub(crate) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// An object with known keys.
    pub(crate) fn object(fields: impl IntoIterator<Item = (&'a str, Value<'a>)>) -> Self {
        Self::Object(
            fields
                .into_iter()
                .map(|(key, value)| (Cow::Borrowed(key), value))
                .collect(),
        )
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        if number.unsigned_abs() <= MAX_SAFE_INTEGER {
            #[expect(clippy::cast_precision_loss, reason = "checked: exact up to 2^53")]
            Self::Number(number as f64)
        } else {
            Self::Long(number)
        }
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or(Self::Unsigned(number), Self::from)
    }
}

impl From<Decimal128> for Value<'_> {
    /// An unsigned integer that had to travel as a decimal is itself again.
    fn from(decimal: Decimal128) -> Self {
        match decimal.to_string().parse::<u64>() {
            Ok(number) if i64::try_from(number).is_err() => Self::Unsigned(number),
            _ => Self::Decimal(decimal),
        }
    }
}
