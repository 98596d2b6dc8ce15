//! MessagePack, written byte for byte as msgpack5 6.0.2 writes it (its `lib/encoder.js` and
//! `lib/codecs/DateCodec.js`).

use std::borrow::Cow;

use rmp::Marker;

use super::{
    Fields, Form, Kind, MAX_DEPTH, Mode, Raw, Value, cursor::Cursor, extended,
    value::MAX_SAFE_INTEGER,
};
use crate::{CodecError, Encoding};

/// The extension type of a date.
const TIMESTAMP: i8 = -1;

pub(super) fn kind(bytes: &[u8]) -> Kind {
    match bytes.first().map(|byte| Marker::from_u8(*byte)) {
        Some(Marker::FixMap(_) | Marker::Map16 | Marker::Map32) => Kind::Object,
        Some(Marker::FixArray(_) | Marker::Array16 | Marker::Array32) => Kind::Array,
        Some(Marker::Null) => Kind::Null,
        _ => Kind::Scalar,
    }
}

/// Reads one value. Integers beyond 2^53 stay exact, which a JavaScript reader cannot do.
pub(super) fn read(bytes: &[u8], mode: Mode) -> Result<Value<'_>, CodecError> {
    let mut from = Cursor::new(Encoding::MessagePack, bytes);
    let value = item(&mut from, mode, 0)?;
    from.end()?;
    Ok(value)
}

/// Splits one level. What is inside has been checked.
pub(super) fn split(bytes: &[u8]) -> Result<Fields<'_>, CodecError> {
    let mut from = Cursor::new(Encoding::MessagePack, bytes);
    let mut fields = Fields::new();
    match head(&mut from)? {
        Head::Array(length) => {
            for _ in 0..length {
                fields.push((Cow::Borrowed(""), slice(&mut from)?));
            }
        }
        Head::Map(length) => {
            for _ in 0..length {
                let key = key(&mut from)?;
                fields.push((Cow::Borrowed(key), slice(&mut from)?));
            }
        }
        Head::Scalar(_) => {}
    }
    from.end()?;
    Ok(fields)
}

fn slice<'a>(from: &mut Cursor<'a>) -> Result<Raw<'a>, CodecError> {
    let start = from.clone();
    item(from, Mode::Check, 0)?;
    Ok(Raw {
        form: Form::MessagePack,
        bytes: from.since(&start),
    })
}

/// A scalar, or the length of what is about to come.
enum Head<'a> {
    Scalar(Value<'a>),
    Array(usize),
    Map(usize),
}

fn item<'a>(from: &mut Cursor<'a>, mode: Mode, depth: usize) -> Result<Value<'a>, CodecError> {
    let head = head(from)?;
    if depth >= MAX_DEPTH && !matches!(head, Head::Scalar(_)) {
        return Err(from.malformed("nested deeper than 100 levels"));
    }
    match head {
        Head::Scalar(value) => Ok(value),
        Head::Array(length) => {
            let mut items = Vec::new();
            for _ in 0..length {
                let item = item(from, mode, depth + 1)?;
                if mode == Mode::Build {
                    items.push(item);
                }
            }
            Ok(Value::Array(items))
        }
        Head::Map(length) => {
            let mut entries = Vec::new();
            for _ in 0..length {
                let key = item(from, mode, depth + 1)?;
                let value = item(from, mode, depth + 1)?;
                if mode == Mode::Build {
                    entries.push((key, value));
                }
            }
            Ok(map(entries))
        }
    }
}

/// An object where all keys are texts, as msgpack5 has it.
fn map<'a>(entries: Vec<(Value<'a>, Value<'a>)>) -> Value<'a> {
    if entries
        .iter()
        .any(|(key, _)| !matches!(key, Value::Text(_)))
    {
        return Value::Map(entries);
    }
    let fields = entries.into_iter().filter_map(|(key, value)| match key {
        Value::Text(key) => Some((key, value)),
        _ => None,
    });
    extended::from_words(fields.collect())
}

/// The key of an object. A map with other keys is a value, but it has no fields.
fn key<'a>(from: &mut Cursor<'a>) -> Result<&'a str, CodecError> {
    let start = from.clone();
    match head(from)? {
        Head::Scalar(Value::Text(Cow::Borrowed(key))) => Ok(key),
        _ => Err(start.malformed("the key of a map is not a text")),
    }
}

fn head<'a>(from: &mut Cursor<'a>) -> Result<Head<'a>, CodecError> {
    let start = from.clone();
    let value = match Marker::from_u8(from.byte()?) {
        Marker::FixArray(length) => return Ok(Head::Array(length.into())),
        Marker::Array16 => return length_16(from).map(Head::Array),
        Marker::Array32 => return length_32(from).map(Head::Array),
        Marker::FixMap(length) => return Ok(Head::Map(length.into())),
        Marker::Map16 => return length_16(from).map(Head::Map),
        Marker::Map32 => return length_32(from).map(Head::Map),
        Marker::Null => Value::Null,
        Marker::False => Value::Bool(false),
        Marker::True => Value::Bool(true),
        Marker::FixPos(n) => Value::from(u64::from(n)),
        Marker::FixNeg(n) => Value::from(i64::from(n)),
        Marker::U8 => Value::from(u64::from(from.byte()?)),
        Marker::U16 => Value::from(u64::from(u16::from_be_bytes(from.array()?))),
        Marker::U32 => Value::from(u64::from(u32::from_be_bytes(from.array()?))),
        Marker::U64 => Value::from(u64::from_be_bytes(from.array()?)),
        Marker::I8 => Value::from(i64::from(i8::from_be_bytes(from.array()?))),
        Marker::I16 => Value::from(i64::from(i16::from_be_bytes(from.array()?))),
        Marker::I32 => Value::from(i64::from(i32::from_be_bytes(from.array()?))),
        Marker::I64 => Value::from(i64::from_be_bytes(from.array()?)),
        Marker::F32 => Value::Number(f32::from_be_bytes(from.array()?).into()),
        Marker::F64 => Value::Number(f64::from_be_bytes(from.array()?)),
        Marker::FixStr(length) => Value::text(from.text(length.into())?),
        Marker::Str8 => text(from, length_8)?,
        Marker::Str16 => text(from, length_16)?,
        Marker::Str32 => text(from, length_32)?,
        Marker::Bin8 => binary(from, length_8)?,
        Marker::Bin16 => binary(from, length_16)?,
        Marker::Bin32 => binary(from, length_32)?,
        Marker::FixExt1 => extension(from, 1)?,
        Marker::FixExt2 => extension(from, 2)?,
        Marker::FixExt4 => extension(from, 4)?,
        Marker::FixExt8 => extension(from, 8)?,
        Marker::FixExt16 => extension(from, 16)?,
        Marker::Ext8 => length_8(from).and_then(|length| extension(from, length))?,
        Marker::Ext16 => length_16(from).and_then(|length| extension(from, length))?,
        Marker::Ext32 => length_32(from).and_then(|length| extension(from, length))?,
        Marker::Reserved => return Err(start.malformed("no value begins with 0xc1")),
    };
    Ok(Head::Scalar(value))
}

type Length = fn(&mut Cursor<'_>) -> Result<usize, CodecError>;

fn length_8(from: &mut Cursor<'_>) -> Result<usize, CodecError> {
    from.byte().map(usize::from)
}

fn length_16(from: &mut Cursor<'_>) -> Result<usize, CodecError> {
    from.array().map(u16::from_be_bytes).map(usize::from)
}

fn length_32(from: &mut Cursor<'_>) -> Result<usize, CodecError> {
    let length = u32::from_be_bytes(from.array()?);
    usize::try_from(length).map_err(|_| from.malformed("a length is beyond this machine"))
}

fn text<'a>(from: &mut Cursor<'a>, length: Length) -> Result<Value<'a>, CodecError> {
    let length = length(from)?;
    from.text(length).map(Value::text)
}

fn binary<'a>(from: &mut Cursor<'a>, length: Length) -> Result<Value<'a>, CodecError> {
    let length = length(from)?;
    from.take(length)
        .map(|bytes| Value::Binary(0, Cow::Borrowed(bytes)))
}

fn extension<'a>(from: &mut Cursor<'a>, length: usize) -> Result<Value<'a>, CodecError> {
    let kind = i8::from_be_bytes(from.array()?);
    let bytes = from.take(length)?;
    let date = if kind == TIMESTAMP { date(bytes) } else { None };
    Ok(date.unwrap_or(Value::Extension(kind, Cow::Borrowed(bytes))))
}

/// Reads a timestamp of 4, 8 or 12 bytes. `None` where milliseconds would lose some of it: then it
/// stays an extension.
fn date(bytes: &[u8]) -> Option<Value<'static>> {
    const SECONDS_BITS: u32 = 34;
    let (seconds, nanos) = match bytes.len() {
        4 => (i64::from(u32::from_be_bytes(bytes.try_into().ok()?)), 0),
        8 => {
            let both = u64::from_be_bytes(bytes.try_into().ok()?);
            let seconds = both & ((1 << SECONDS_BITS) - 1);
            (
                i64::try_from(seconds).ok()?,
                u32::try_from(both >> SECONDS_BITS).ok()?,
            )
        }
        12 => {
            let (nanos, seconds) = bytes.split_first_chunk()?;
            (
                i64::from_be_bytes(seconds.try_into().ok()?),
                u32::from_be_bytes(*nanos),
            )
        }
        _ => return None,
    };
    if nanos % 1_000_000 != 0 || nanos >= 1_000_000_000 {
        return None;
    }
    seconds
        .checked_mul(1000)?
        .checked_add(i64::from(nanos / 1_000_000))
        .map(Value::Date)
}

pub(super) fn write(out: &mut Vec<u8>, value: &Value<'_>) -> Result<(), CodecError> {
    match value {
        Value::Null => out.push(Marker::Null.to_u8()),
        Value::Bool(true) => out.push(Marker::True.to_u8()),
        Value::Bool(false) => out.push(Marker::False.to_u8()),
        Value::Number(n) => number(out, *n),
        Value::Long(n) if is_exact((*n).into()) => integer(out, *n),
        Value::Unsigned(n) if is_exact((*n).into()) => put(out, Marker::U64, n.to_be_bytes()),
        Value::Text(text) => string(out, text)?,
        Value::Date(ms) => timestamp(out, *ms)?,
        Value::Binary(0, bytes) => {
            length(out, &BINARY, bytes.len())?;
            out.extend(bytes.as_ref());
        }
        Value::Extension(kind, bytes) => tagged(out, *kind, bytes)?,
        Value::Array(items) => {
            length(out, &ARRAY, items.len())?;
            for item in items {
                write(out, item)?;
            }
        }
        Value::Object(fields) => {
            length(out, &MAP, fields.len())?;
            for (key, value) in fields {
                string(out, key)?;
                write(out, value)?;
            }
        }
        Value::Map(entries) => {
            length(out, &MAP, entries.len())?;
            for (key, value) in entries {
                write(out, key)?;
                write(out, value)?;
            }
        }
        Value::Payload(payload) => out.extend(&payload.to(Encoding::MessagePack)?.to_bytes()?),
        Value::Long(_)
        | Value::Unsigned(_)
        | Value::Binary(..)
        | Value::ObjectId(_)
        | Value::Decimal(_)
        | Value::Timestamp { .. }
        | Value::Regex(_)
        | Value::Code(_)
        | Value::ScopedCode(_)
        | Value::MinKey
        | Value::MaxKey => write(out, &extended::to_words(value).unwrap_or(Value::Null))?,
    }
    Ok(())
}

/// Puts one more field at the end of a map that has been checked.
pub(super) fn append(
    out: &mut Vec<u8>,
    map: &[u8],
    key: &str,
    text: &str,
) -> Result<(), CodecError> {
    let mut from = Cursor::new(Encoding::MessagePack, map);
    let Head::Map(fields) = head(&mut from)? else {
        return Err(from.malformed("it is no map"));
    };
    length(out, &MAP, fields.saturating_add(1))?;
    out.extend(from.rest());
    string(out, key)?;
    string(out, text)
}

fn put<const N: usize>(out: &mut Vec<u8>, marker: Marker, bytes: [u8; N]) {
    out.push(marker.to_u8());
    out.extend(bytes);
}

fn string(out: &mut Vec<u8>, text: &str) -> Result<(), CodecError> {
    length(out, &TEXT, text.len())?;
    out.extend(text.bytes());
    Ok(())
}

/// The forms that a length has in front of one type of content.
struct Forms {
    /// Within the marker, up to a limit.
    within: Option<(Marker, u8)>,
    in_8_bits: Option<Marker>,
    in_16_bits: Marker,
    in_32_bits: Marker,
}

const TEXT: Forms = Forms {
    within: Some((Marker::FixStr(0), 31)),
    in_8_bits: Some(Marker::Str8),
    in_16_bits: Marker::Str16,
    in_32_bits: Marker::Str32,
};
const BINARY: Forms = Forms {
    within: None,
    in_8_bits: Some(Marker::Bin8),
    in_16_bits: Marker::Bin16,
    in_32_bits: Marker::Bin32,
};
const ARRAY: Forms = Forms {
    within: Some((Marker::FixArray(0), 15)),
    in_8_bits: None,
    in_16_bits: Marker::Array16,
    in_32_bits: Marker::Array32,
};
const MAP: Forms = Forms {
    within: Some((Marker::FixMap(0), 15)),
    in_8_bits: None,
    in_16_bits: Marker::Map16,
    in_32_bits: Marker::Map32,
};
const EXTENSION: Forms = Forms {
    within: None,
    in_8_bits: Some(Marker::Ext8),
    in_16_bits: Marker::Ext16,
    in_32_bits: Marker::Ext32,
};

/// Writes a length in the shortest form.
fn length(out: &mut Vec<u8>, forms: &Forms, length: usize) -> Result<(), CodecError> {
    let narrow = u8::try_from(length).ok();
    if let Some((n, (marker, limit))) = narrow.zip(forms.within)
        && n <= limit
    {
        out.push(marker.to_u8() | n);
    } else if let Some((n, marker)) = narrow.zip(forms.in_8_bits) {
        put(out, marker, [n]);
    } else if let Ok(n) = u16::try_from(length) {
        put(out, forms.in_16_bits, n.to_be_bytes());
    } else if let Ok(n) = u32::try_from(length) {
        put(out, forms.in_32_bits, n.to_be_bytes());
    } else {
        let what = "more than 4294967295 of anything".into();
        return Err(CodecError::Inexpressible {
            encoding: Encoding::MessagePack,
            what,
        });
    }
    Ok(())
}

/// Writes a number: whole ones up to 2^53 as integers, others as float32 where that is exact (NaN
/// and infinities included), else as float64. No integer is a negative zero: msgpack5 loses its
/// sign, but reads it from a float.
fn number(out: &mut Vec<u8>, number: f64) {
    let negative_zero = number == 0.0 && number.is_sign_negative();
    let whole = number.fract() == 0.0 && !negative_zero;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "exactness is what is being tested"
    )]
    #[expect(clippy::cast_precision_loss, reason = "2^53 - 1 is exact")]
    if whole && number.abs() <= MAX_SAFE_INTEGER as f64 {
        integer(out, number as i64);
    } else if !whole && (number.is_nan() || f64::from(number as f32) == number) {
        put(out, Marker::F32, (number as f32).to_be_bytes());
    } else {
        put(out, Marker::F64, number.to_be_bytes());
    }
}

/// Whether a JavaScript number holds the integer, which is how msgpack5 reads it.
fn is_exact(number: i128) -> bool {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "exactness is what is being tested"
    )]
    let rounded = number as f64 as i128;
    rounded == number
}

/// Writes an integer in its shortest form, unsigned if it can be. Below -214748364, msgpack5 takes
/// 64 bits (a digit is missing in its limit).
fn integer(out: &mut Vec<u8>, number: i64) {
    const LEAST_IN_32_BITS: i32 = -214_748_364;
    if let Ok(n) = u64::try_from(number) {
        unsigned(out, n);
    } else if number >= -32
        && let Ok(n) = i8::try_from(number)
    {
        out.push(Marker::FixNeg(n).to_u8());
    } else if let Ok(n) = i8::try_from(number) {
        put(out, Marker::I8, n.to_be_bytes());
    } else if let Ok(n) = i16::try_from(number) {
        put(out, Marker::I16, n.to_be_bytes());
    } else if let Ok(n) = i32::try_from(number)
        && n >= LEAST_IN_32_BITS
    {
        put(out, Marker::I32, n.to_be_bytes());
    } else {
        put(out, Marker::I64, number.to_be_bytes());
    }
}

fn unsigned(out: &mut Vec<u8>, number: u64) {
    if let Ok(n) = u8::try_from(number) {
        if n < 128 {
            out.push(Marker::FixPos(n).to_u8());
        } else {
            put(out, Marker::U8, [n]);
        }
    } else if let Ok(n) = u16::try_from(number) {
        put(out, Marker::U16, n.to_be_bytes());
    } else if let Ok(n) = u32::try_from(number) {
        put(out, Marker::U32, n.to_be_bytes());
    } else {
        put(out, Marker::U64, number.to_be_bytes());
    }
}

/// Writes a date: whole seconds in 32 bits, milliseconds up to the year 2514 in 64, others in 96.
fn timestamp(out: &mut Vec<u8>, ms: i64) -> Result<(), CodecError> {
    const MAX_SECONDS: i64 = 1 << 34;
    let seconds = ms.div_euclid(1000);
    #[expect(clippy::cast_possible_truncation, reason = "from 0 to 999")]
    let nanos = ms.rem_euclid(1000) as u32 * 1_000_000;
    match (u32::try_from(seconds), u64::try_from(seconds)) {
        (Ok(seconds), _) if nanos == 0 => tagged(out, TIMESTAMP, &seconds.to_be_bytes()),
        (_, Ok(wide)) if seconds < MAX_SECONDS => tagged(
            out,
            TIMESTAMP,
            &((u64::from(nanos) << 34) | wide).to_be_bytes(),
        ),
        _ => {
            let bytes = [
                nanos.to_be_bytes().as_slice(),
                seconds.to_be_bytes().as_slice(),
            ]
            .concat();
            tagged(out, TIMESTAMP, &bytes)
        }
    }
}

fn tagged(out: &mut Vec<u8>, kind: i8, bytes: &[u8]) -> Result<(), CodecError> {
    match bytes.len() {
        1 => out.push(Marker::FixExt1.to_u8()),
        2 => out.push(Marker::FixExt2.to_u8()),
        4 => out.push(Marker::FixExt4.to_u8()),
        8 => out.push(Marker::FixExt8.to_u8()),
        16 => out.push(Marker::FixExt16.to_u8()),
        other => length(out, &EXTENSION, other)?,
    }
    out.extend(kind.to_be_bytes());
    out.extend(bytes);
    Ok(())
}
