//! Bytes and values. Each encoding has one file with three functions: `read` (bytes to a value,
//! or only a check), `split` (one level of an object or array into slices) and `write`.
//!
//! A message is read with `split`: its fields stay bytes, so what a job carries is checked, but
//! never built as a tree unless it has to be written in another encoding.

mod bson;
mod cursor;
mod extended;
mod json;
mod msgpack;
mod object;
mod plain;
mod value;

use std::{borrow::Cow, fmt};

use ::bson::spec::ElementType;
use bytes::Bytes;

use crate::{CodecError, Encoding};
pub(crate) use object::Object;
pub(crate) use value::Value;

/// How deep arrays and objects may nest, as in MongoDB. Readers recurse, so this bounds the stack.
const MAX_DEPTH: usize = 100;

/// What must be known beside the bytes to read them. BSON keeps the type of a value outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Bson(ElementType),
    MessagePack,
}

/// The bytes of one value.
#[derive(Clone, Copy)]
pub(crate) struct Raw<'a> {
    pub(crate) form: Form,
    pub(crate) bytes: &'a [u8],
}

/// Whether a reader builds the value that it reads, or only checks the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Build,
    Check,
}

/// What a value is, as far as its first byte tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Scalar,
    Array,
    Object,
}

/// One level of a container. The elements of an array have empty names.
type Fields<'a> = Vec<(Cow<'a, str>, Raw<'a>)>;

impl Form {
    /// The form of bytes that stand on their own.
    pub(crate) fn standalone(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Json => Self::Json,
            Encoding::Bson => Self::Bson(ElementType::EmbeddedDocument),
            Encoding::MessagePack => Self::MessagePack,
        }
    }

    pub(crate) fn encoding(self) -> Encoding {
        match self {
            Self::Json => Encoding::Json,
            Self::Bson(_) => Encoding::Bson,
            Self::MessagePack => Encoding::MessagePack,
        }
    }
}

impl<'a> Raw<'a> {
    /// Checks the bytes completely.
    pub(crate) fn check(self) -> Result<(), CodecError> {
        self.read(Mode::Check).map(drop)
    }

    /// Builds the value.
    pub(crate) fn value(self) -> Result<Value<'a>, CodecError> {
        self.read(Mode::Build)
    }

    pub(crate) fn kind(self) -> Kind {
        match self.form {
            Form::Json => json::kind(self.bytes),
            Form::Bson(element_type) => bson::kind(element_type),
            Form::MessagePack => msgpack::kind(self.bytes),
        }
    }

    /// The fields of an object or the elements of an array, and nothing for any other value. The
    /// slices have been checked.
    fn split(self) -> Result<Fields<'a>, CodecError> {
        match self.form {
            Form::Json => json::split(self.bytes),
            Form::Bson(element_type) => bson::split(element_type, self.bytes),
            Form::MessagePack => msgpack::split(self.bytes),
        }
    }

    fn read(self, mode: Mode) -> Result<Value<'a>, CodecError> {
        match self.form {
            Form::Json => json::read(self.bytes, mode),
            Form::Bson(element_type) => bson::read(element_type, self.bytes, mode),
            Form::MessagePack => msgpack::read(self.bytes, mode),
        }
    }
}

/// Writes a value. The form says what it became, which matters only in BSON.
pub(crate) fn write(encoding: Encoding, value: &Value<'_>) -> Result<(Form, Vec<u8>), CodecError> {
    let mut out = Vec::new();
    let form = match encoding {
        Encoding::Json => {
            json::write(&mut out, value)?;
            Form::Json
        }
        Encoding::Bson => Form::Bson(bson::write(&mut out, value)?),
        Encoding::MessagePack => {
            msgpack::write(&mut out, value)?;
            Form::MessagePack
        }
    };
    Ok((form, out))
}

/// Reads a body that stands on its own. A JSON text with halves of surrogate pairs is read without
/// them: it is only looked for them when it has failed.
pub(crate) fn decode<T>(
    encoding: Encoding,
    body: &Bytes,
    decode: impl Fn(&Bytes) -> Result<T, CodecError>,
) -> Result<T, CodecError> {
    decode(body).or_else(|fault| match (encoding, &fault) {
        (Encoding::Json, CodecError::Malformed { .. }) => match json::without_half_pairs(body) {
            Some(sound) => decode(&sound.into()),
            None => Err(fault),
        },
        _ => Err(fault),
    })
}

/// Writes an object that has been checked again, with one more field at its end.
pub(crate) fn append(object: Raw<'_>, key: &str, text: &str) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::with_capacity(object.bytes.len() + key.len() + text.len() + 16);
    match object.form {
        Form::Json => json::append(&mut out, object.bytes, key, text)?,
        Form::Bson(_) => bson::append(&mut out, object.bytes, key, text)?,
        Form::MessagePack => msgpack::append(&mut out, object.bytes, key, text)?,
    }
    Ok(out)
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bson(element_type) => write!(f, "{element_type:?}"),
            Self::Json | Self::MessagePack => self.encoding().fmt(f),
        }
    }
}
