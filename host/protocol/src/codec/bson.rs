//! BSON, written as js-bson 6 writes the values that JavaScript has: an integer of 32 bits as
//! int32, every other number as a double.

use std::borrow::Cow;

use bson::{Decimal128, oid::ObjectId, spec::ElementType};

use super::{Fields, Form, Kind, MAX_DEPTH, Mode, Raw, Value, cursor::Cursor, extended};
use crate::{CodecError, Encoding};

/// The subtype of bytes that say their length twice.
const OLD_BINARY: u8 = 2;
/// A length, in front of what it counts.
const HEAD_BYTES: usize = 4;

pub(super) fn kind(element_type: ElementType) -> Kind {
    match element_type {
        ElementType::EmbeddedDocument => Kind::Object,
        ElementType::Array => Kind::Array,
        ElementType::Null | ElementType::Undefined => Kind::Null,
        _ => Kind::Scalar,
    }
}

/// Reads one value. As js-bson does, a 64-bit integer below 2^53 becomes a number, a symbol a text;
/// `undefined` becomes null.
pub(super) fn read(
    element_type: ElementType,
    bytes: &[u8],
    mode: Mode,
) -> Result<Value<'_>, CodecError> {
    let mut from = Cursor::new(Encoding::Bson, bytes);
    let value = item(&mut from, element_type, mode, 0)?;
    from.end()?;
    Ok(value)
}

/// Splits one level. What is inside has been checked.
pub(super) fn split(element_type: ElementType, bytes: &[u8]) -> Result<Fields<'_>, CodecError> {
    let mut fields = Fields::new();
    if matches!(
        element_type,
        ElementType::EmbeddedDocument | ElementType::Array
    ) {
        let mut from = Cursor::new(Encoding::Bson, bytes);
        elements(&mut from, |from, element_type, key| {
            let start = from.clone();
            item(from, element_type, Mode::Check, 0)?;
            let raw = Raw {
                form: Form::Bson(element_type),
                bytes: from.since(&start),
            };
            fields.push((Cow::Borrowed(key), raw));
            Ok(())
        })?;
        from.end()?;
    }
    Ok(fields)
}

/// Reads a document or an array, one element after the other.
fn elements<'a>(
    from: &mut Cursor<'a>,
    mut element: impl FnMut(&mut Cursor<'a>, ElementType, &'a str) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    const END_BYTES: usize = 1;
    let start = from.clone();
    let length = length(from)?;
    let Some(inside) = length.checked_sub(HEAD_BYTES + END_BYTES) else {
        return Err(start.malformed("a document is too short"));
    };
    let mut inside = from.part(inside)?;
    if from.byte()? != 0 {
        return Err(start.malformed("a document does not end where it says"));
    }
    while !inside.rest().is_empty() {
        let start = inside.clone();
        let Some(element_type) = ElementType::from(inside.byte()?) else {
            return Err(start.malformed("there is no such type"));
        };
        let key = c_string(&mut inside)?;
        element(&mut inside, element_type, key)?;
    }
    Ok(())
}

fn item<'a>(
    from: &mut Cursor<'a>,
    element_type: ElementType,
    mode: Mode,
    depth: usize,
) -> Result<Value<'a>, CodecError> {
    let start = from.clone();
    Ok(match element_type {
        ElementType::Double => Value::Number(f64::from_le_bytes(from.array()?)),
        ElementType::String | ElementType::Symbol => Value::text(string(from)?),
        ElementType::EmbeddedDocument => extended::from_words(fields(from, mode, depth)?),
        ElementType::Array => {
            let items = fields(from, mode, depth)?.into_iter();
            Value::Array(items.map(|(_, item)| item).collect())
        }
        ElementType::Binary => {
            let length = length(from)?;
            let subtype = from.byte()?;
            let mut bytes = from.part(length)?;
            if subtype == OLD_BINARY && self::length(&mut bytes)? != bytes.rest().len() {
                return Err(start.malformed("old binary does not end where it says"));
            }
            Value::Binary(subtype, Cow::Borrowed(bytes.rest()))
        }
        ElementType::Undefined | ElementType::Null => Value::Null,
        ElementType::ObjectId => Value::ObjectId(ObjectId::from_bytes(from.array()?)),
        ElementType::Boolean => match from.byte()? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            _ => return Err(start.malformed("a truth value is neither 0 nor 1")),
        },
        ElementType::DateTime => Value::Date(i64::from_le_bytes(from.array()?)),
        ElementType::RegularExpression => {
            let pattern = c_string(from)?;
            Value::Regex(Box::new((pattern.into(), c_string(from)?.into())))
        }
        ElementType::DbPointer => {
            let namespace = Value::text(string(from)?);
            let id = Value::ObjectId(ObjectId::from_bytes(from.array()?));
            Value::object([(
                "$dbPointer",
                Value::object([("$ref", namespace), ("$id", id)]),
            )])
        }
        ElementType::JavaScriptCode => Value::Code(string(from)?.into()),
        ElementType::JavaScriptCodeWithScope => {
            let length = length(from)?;
            let code = string(from)?;
            let scope = extended::from_words(fields(from, mode, depth)?);
            if from.since(&start).len() != length {
                return Err(start.malformed("code with scope does not end where it says"));
            }
            match scope {
                scope @ Value::Object(_) => Value::ScopedCode(Box::new((code.into(), scope))),
                meant => Value::object([("$code", Value::text(code)), ("$scope", meant)]),
            }
        }
        ElementType::Int32 => Value::from(i64::from(i32::from_le_bytes(from.array()?))),
        ElementType::Timestamp => {
            let increment = u32::from_le_bytes(from.array()?);
            Value::Timestamp {
                time: u32::from_le_bytes(from.array()?),
                increment,
            }
        }
        ElementType::Int64 => Value::from(i64::from_le_bytes(from.array()?)),
        ElementType::Decimal128 => Value::from(Decimal128::from_bytes(from.array()?)),
        ElementType::MaxKey => Value::MaxKey,
        ElementType::MinKey => Value::MinKey,
    })
}

fn fields<'a>(
    from: &mut Cursor<'a>,
    mode: Mode,
    depth: usize,
) -> Result<Vec<(Cow<'a, str>, Value<'a>)>, CodecError> {
    if depth >= MAX_DEPTH {
        return Err(from.malformed("nested deeper than 100 levels"));
    }
    let mut fields = Vec::new();
    elements(from, |from, element_type, key| {
        let value = item(from, element_type, mode, depth + 1)?;
        if mode == Mode::Build {
            fields.push((Cow::Borrowed(key), value));
        }
        Ok(())
    })?;
    Ok(fields)
}

/// A length of 32 bits. A negative one is a lie.
fn length(from: &mut Cursor<'_>) -> Result<usize, CodecError> {
    let start = from.clone();
    let length = i32::from_le_bytes(from.array()?);
    usize::try_from(length).map_err(|_| start.malformed("a length is negative"))
}

/// A text with its length in front, and a zero byte at the end that the length counts.
fn string<'a>(from: &mut Cursor<'a>) -> Result<&'a str, CodecError> {
    let start = from.clone();
    let Some(length) = length(from)?.checked_sub(1) else {
        return Err(start.malformed("a text has no room for its end"));
    };
    let text = from.text(length)?;
    if from.byte()? != 0 {
        return Err(start.malformed("a text does not end where it says"));
    }
    Ok(text)
}

/// A text up to a zero byte.
fn c_string<'a>(from: &mut Cursor<'a>) -> Result<&'a str, CodecError> {
    let Some(length) = from.rest().iter().position(|byte| *byte == 0) else {
        return Err(from.malformed("a key or pattern has no end"));
    };
    let text = from.text(length)?;
    from.byte()?;
    Ok(text)
}

/// Writes the value without its type, and returns that.
pub(super) fn write(out: &mut Vec<u8>, value: &Value<'_>) -> Result<ElementType, CodecError> {
    Ok(match value {
        Value::Null => ElementType::Null,
        Value::Bool(flag) => {
            out.push(u8::from(*flag));
            ElementType::Boolean
        }
        Value::Number(number) => match as_int32(*number) {
            Some(integer) => {
                out.extend(integer.to_le_bytes());
                ElementType::Int32
            }
            None => {
                out.extend(number.to_le_bytes());
                ElementType::Double
            }
        },
        Value::Long(number) => {
            out.extend(number.to_le_bytes());
            ElementType::Int64
        }
        Value::Text(text) => {
            write_string(out, text)?;
            ElementType::String
        }
        Value::Array(items) => {
            let items = items.iter().enumerate();
            document(
                out,
                items.map(|(index, item)| (Cow::Owned(index.to_string()), item)),
            )?;
            ElementType::Array
        }
        Value::Object(fields) => {
            document(
                out,
                fields
                    .iter()
                    .map(|(key, value)| (Cow::Borrowed(key.as_ref()), value)),
            )?;
            ElementType::EmbeddedDocument
        }
        Value::Date(ms) => {
            out.extend(ms.to_le_bytes());
            ElementType::DateTime
        }
        Value::Binary(subtype, bytes) => {
            let old = *subtype == OLD_BINARY;
            let head = if old { HEAD_BYTES } else { 0 };
            out.extend(size(bytes.len().saturating_add(head))?);
            out.push(*subtype);
            if old {
                out.extend(size(bytes.len())?);
            }
            out.extend(bytes.as_ref());
            ElementType::Binary
        }
        Value::ObjectId(id) => {
            out.extend(id.bytes());
            ElementType::ObjectId
        }
        Value::Decimal(decimal) => {
            out.extend(decimal.bytes());
            ElementType::Decimal128
        }
        Value::Unsigned(number) => match number.to_string().parse::<Decimal128>() {
            Ok(decimal) => write(out, &Value::Decimal(decimal))?,
            Err(_) => return Err(inexpressible("an integer of this size")),
        },
        Value::Timestamp { time, increment } => {
            out.extend(increment.to_le_bytes());
            out.extend(time.to_le_bytes());
            ElementType::Timestamp
        }
        Value::Regex(regex) => {
            write_c_string(out, &regex.0)?;
            write_c_string(out, &regex.1)?;
            ElementType::RegularExpression
        }
        Value::Code(code) => {
            write_string(out, code)?;
            ElementType::JavaScriptCode
        }
        Value::MinKey => ElementType::MinKey,
        Value::MaxKey => ElementType::MaxKey,
        Value::ScopedCode(code) => {
            let start = out.len();
            out.extend([0; HEAD_BYTES]);
            write_string(out, &code.0)?;
            write(out, &code.1)?;
            let length = size(out.len().saturating_sub(start))?;
            patch(out, start, &length);
            ElementType::JavaScriptCodeWithScope
        }
        Value::Extension(..) | Value::Map(_) => {
            write(out, &extended::to_words(value).unwrap_or(Value::Null))?
        }
        Value::Payload(payload) => {
            let payload = payload.to(Encoding::Bson)?;
            let raw = payload.raw();
            out.extend(raw.bytes);
            match raw.form {
                Form::Bson(element_type) => element_type,
                Form::Json | Form::MessagePack => ElementType::Null,
            }
        }
    })
}

/// Puts one more field at the end of a document that has been checked.
pub(super) fn append(
    out: &mut Vec<u8>,
    document: &[u8],
    key: &str,
    text: &str,
) -> Result<(), CodecError> {
    out.extend(document);
    out.pop();
    out.push(ElementType::String as u8);
    write_c_string(out, key)?;
    write_string(out, text)?;
    out.push(0);
    let length = size(out.len())?;
    patch(out, 0, &length);
    Ok(())
}

/// What js-bson writes as int32: every whole number that fits, negative zero excepted.
fn as_int32(number: f64) -> Option<i32> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the cast saturates, then is compared"
    )]
    let integer = number as i32;
    (f64::from(integer).to_bits() == number.to_bits()).then_some(integer)
}

fn document<'v>(
    out: &mut Vec<u8>,
    fields: impl Iterator<Item = (Cow<'v, str>, &'v Value<'v>)>,
) -> Result<(), CodecError> {
    let start = out.len();
    out.extend([0; HEAD_BYTES]);
    for (key, value) in fields {
        let tag = out.len();
        out.push(0);
        write_c_string(out, &key)?;
        let element_type = write(out, value)?;
        patch(out, tag, &[element_type as u8]);
    }
    out.push(0);
    let length = size(out.len().saturating_sub(start))?;
    patch(out, start, &length);
    Ok(())
}

/// Fills in what was not known when its place was written.
fn patch(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) -> Result<(), CodecError> {
    out.extend(size(text.len() + 1)?);
    out.extend(text.bytes());
    out.push(0);
    Ok(())
}

fn write_c_string(out: &mut Vec<u8>, text: &str) -> Result<(), CodecError> {
    if text.contains('\0') {
        return Err(inexpressible("a key or pattern with a NUL in it"));
    }
    out.extend(text.bytes());
    out.push(0);
    Ok(())
}

fn size(length: usize) -> Result<[u8; 4], CodecError> {
    let length = i32::try_from(length).map_err(|_| inexpressible("a value beyond 2 GiB"))?;
    Ok(length.to_le_bytes())
}

fn inexpressible(what: &'static str) -> CodecError {
    CodecError::Inexpressible {
        encoding: Encoding::Bson,
        what: what.into(),
    }
}
