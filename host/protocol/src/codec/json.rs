//! JSON, read by `serde_json` and written as `JSON.stringify` writes it.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    Fields, Form, Kind, MAX_DEPTH, Mode, Raw, Value, extended, plain::is_plain,
    value::MAX_SAFE_INTEGER,
};
use crate::{CodecError, Encoding};

pub(super) fn kind(bytes: &[u8]) -> Kind {
    match bytes.trim_ascii_start().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'n') => Kind::Null,
        _ => Kind::Scalar,
    }
}

/// Reads one value. Integers beyond 2^53 stay exact, which a JavaScript reader cannot do.
pub(super) fn read(bytes: &[u8], mode: Mode) -> Result<Value<'_>, CodecError> {
    whole(bytes, Reader { mode, depth: 0 })
}

/// The text with U+FFFD for every half of a surrogate pair, or `None` where it has none.
///
/// `JSON.stringify` writes such a half of a text that was cut within a character; UTF-8 cannot say
/// it. js-bson and msgpack5 put U+FFFD there too.
pub(super) fn without_half_pairs(text: &[u8]) -> Option<Vec<u8>> {
    const ESCAPE_BYTES: usize = 6;
    let mut out = Vec::new();
    let mut rest = text;
    let mut found = false;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let (before, from) = rest.split_at(at);
        out.extend(before);
        let unit = code_unit(from);
        let next = from.get(ESCAPE_BYTES..).and_then(code_unit);
        let length = match (unit, next) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 2 * ESCAPE_BYTES,
            (Some(_), _) => ESCAPE_BYTES,
            // The escaped character may be a backslash.
            (None, _) => from.len().min(2),
        };
        let (escape, after) = from.split_at(length);
        if length == ESCAPE_BYTES && matches!(unit, Some(0xd800..=0xdfff)) {
            out.extend(br"\ufffd");
            found = true;
        } else {
            out.extend(escape);
        }
        rest = after;
    }
    out.extend(rest);
    found.then_some(out)
}

/// What an escape such as `\u00e9` at the beginning says.
fn code_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(br"\u")?.get(..4)?;
    let mut digits = digits.iter().map(|digit| char::from(*digit).to_digit(16));
    digits.try_fold(0, |unit, digit| {
        Some(unit << 4 | u16::try_from(digit?).ok()?)
    })
}

/// Splits one level. What is inside has been checked.
pub(super) fn split(bytes: &[u8]) -> Result<Fields<'_>, CodecError> {
    let fields = whole(bytes, Splitter)?;
    for (_, raw) in &fields {
        // Its grammar has been checked to find its end.
        if !is_plain(raw.bytes) {
            raw.check()?;
        }
    }
    Ok(fields)
}

fn whole<'a, S: DeserializeSeed<'a>>(bytes: &'a [u8], seed: S) -> Result<S::Value, CodecError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = seed
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value));
    value.map_err(|fault| malformed(&fault))
}

/// The messages of `serde_json` say what is wrong and where. They quote the text only where a type
/// is not the expected one, which cannot happen here: every type is.
fn malformed(fault: &serde_json::Error) -> CodecError {
    CodecError::Malformed {
        encoding: Encoding::Json,
        fault: fault.to_string().into(),
    }
}

#[derive(Clone, Copy)]
struct Reader {
    mode: Mode,
    depth: usize,
}

impl Reader {
    fn inside<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("nested deeper than 100 levels"));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }
}

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value<'de>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value<'de>, E> {
        Ok(Value::Number(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(match self.mode {
            Mode::Build => Value::Text(Cow::Owned(text.to_owned())),
            Mode::Check => Value::Null,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value<'de>, A::Error> {
        let inside = self.inside()?;
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(inside)? {
            if self.mode == Mode::Build {
                items.push(item);
            }
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value<'de>, A::Error> {
        let inside = self.inside()?;
        let mut fields = Vec::new();
        while let Some(key) = from.next_key_seed(Key)? {
            let value = from.next_value_seed(inside)?;
            if self.mode == Mode::Build {
                fields.push((key, value));
            }
        }
        Ok(extended::from_words(fields))
    }
}

/// Reads a key without copying it, where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

/// Reads one level, and takes what is inside as slices.
struct Splitter;

fn raw(value: &RawValue) -> Raw<'_> {
    Raw {
        form: Form::Json,
        bytes: value.get().as_bytes(),
    }
}

impl<'de> DeserializeSeed<'de> for Splitter {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Splitter {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(value) = from.next_element()? {
            fields.push((Cow::Borrowed(""), raw(value)));
        }
        Ok(fields)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = from.next_key_seed(Key)? {
            fields.push((key, raw(from.next_value()?)));
        }
        Ok(fields)
    }
}

pub(super) fn write(out: &mut Vec<u8>, value: &Value<'_>) -> Result<(), CodecError> {
    if let Some(words) = extended::to_words(value) {
        return write(out, &words);
    }
    match value {
        Value::Bool(true) => out.extend(b"true"),
        Value::Bool(false) => out.extend(b"false"),
        Value::Number(n) => number(out, *n),
        Value::Long(n) => out.extend(n.to_string().bytes()),
        Value::Text(text) => string(out, text)?,
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(out, item)?;
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            out.push(b'{');
            for (index, (key, value)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                string(out, key)?;
                out.push(b':');
                write(out, value)?;
            }
            out.push(b'}');
        }
        Value::Payload(payload) => out.extend(&payload.to(Encoding::Json)?.to_bytes()?),
        // Everything else has been put into words.
        _ => out.extend(b"null"),
    }
    Ok(())
}

/// Puts one more field at the end of an object that has been checked.
pub(super) fn append(
    out: &mut Vec<u8>,
    object: &[u8],
    key: &str,
    text: &str,
) -> Result<(), CodecError> {
    let object = object.trim_ascii_end();
    let fields = object.strip_suffix(b"}").unwrap_or(object).trim_ascii_end();
    out.extend(fields);
    if !fields.ends_with(b"{") {
        out.push(b',');
    }
    string(out, key)?;
    out.push(b':');
    string(out, text)?;
    out.push(b'}');
    Ok(())
}

/// The escapes of `serde_json` are those of `JSON.stringify`.
fn string(out: &mut Vec<u8>, text: &str) -> Result<(), CodecError> {
    serde_json::to_writer(out, text).map_err(|fault| malformed(&fault))
}

/// Writes a number as JavaScript prints it, with two exceptions. An integer beyond 2^53 gets an
/// exponent, so that it is read as a number again, and not as a precise 64-bit integer. A negative
/// zero keeps its sign, which JavaScript reads, but does not write.
///
/// Of two texts that are equally short and near, JavaScript and `serde_json` take the even one, the
/// standard library does not.
fn number(out: &mut Vec<u8>, number: f64) {
    const SMALLEST_PLAIN: f64 = 1e-6;
    let size = number.abs();
    #[expect(clippy::cast_precision_loss, reason = "2^53 - 1 is exact")]
    let plain = size == 0.0 || (SMALLEST_PLAIN..=MAX_SAFE_INTEGER as f64).contains(&size);
    let shortest = serde_json::Number::from_f64(number).map(|number| number.to_string());
    let shortest = shortest.unwrap_or_default();
    let text = match (plain, shortest.contains('e')) {
        (true, false) => shortest.strip_suffix(".0").unwrap_or(&shortest).to_owned(),
        (true, true) => number.to_string(),
        (false, true) => shortest,
        (false, false) => format!("{number:e}"),
    };
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with(['-', '+']) => {
            out.extend(digits.bytes());
            out.extend(b"e+");
            out.extend(exponent.bytes());
        }
        _ => out.extend(text.bytes()),
    }
}
