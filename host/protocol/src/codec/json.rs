//! JSON, read by `serde_json` and written as `JSON.stringify` writes it.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Fields, Form, Kind, MAX_DEPTH, Mode, Raw, Value, extended, value::MAX_SAFE_INTEGER};
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

/// Splits one level. What is inside has been checked.
pub(super) fn split(bytes: &[u8]) -> Result<Fields<'_>, CodecError> {
    let fields = whole(bytes, Splitter)?;
    for (_, raw) in &fields {
        raw.check()?;
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

/// The escapes of `serde_json` are those of `JSON.stringify`.
fn string(out: &mut Vec<u8>, text: &str) -> Result<(), CodecError> {
    serde_json::to_writer(out, text).map_err(|fault| malformed(&fault))
}

/// Writes a number as JavaScript prints it, with one exception: an integer beyond 2^53 gets an
/// exponent, so that it is read as a number again, and not as a precise 64-bit integer.
fn number(out: &mut Vec<u8>, number: f64) {
    const SMALLEST_PLAIN: f64 = 1e-6;
    let size = number.abs();
    #[expect(clippy::cast_precision_loss, reason = "2^53 - 1 is exact")]
    let text = if number == 0.0 {
        "0".to_owned()
    } else if (SMALLEST_PLAIN..=MAX_SAFE_INTEGER as f64).contains(&size) {
        number.to_string()
    } else {
        let text = format!("{number:e}");
        if text.contains("e-") {
            text
        } else {
            text.replace('e', "e+")
        }
    };
    out.extend(text.bytes());
}
