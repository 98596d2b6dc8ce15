//! What a job carries: one value, kept as the bytes it arrived in until somebody needs others.

use std::fmt;

use bson::spec::ElementType;
use bytes::Bytes;

use crate::{
    CodecError, Encoding,
    codec::{self, Form, Raw, Value},
};

/// One value in one encoding, as bytes that have been checked. Cheap to clone.
#[derive(Clone, PartialEq)]
pub struct Payload {
    form: Form,
    body: Bytes,
}

impl Payload {
    /// Takes bytes that hold one value, and nothing after it. BSON bytes are a document. A half of
    /// a surrogate pair, which JavaScript can write in JSON, becomes U+FFFD.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] when they do not, or when the value nests deeper than 100 levels.
    pub fn new(encoding: Encoding, body: Bytes) -> Result<Self, CodecError> {
        codec::decode(encoding, &body, |body| {
            let form = Form::standalone(encoding);
            Raw { form, bytes: body }.check()?;
            Ok(Self {
                form,
                body: body.clone(),
            })
        })
    }

    /// The encoding of the bytes.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.form.encoding()
    }

    /// The size in bytes.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a payload always holds one value"
    )]
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// The same value in another encoding. What the other cannot say, it says in the words of
    /// relaxed Extended JSON (`codec/extended.rs`), and understands them on the way back.
    ///
    /// # Errors
    /// [`CodecError::Inexpressible`] where BSON has no form, such as a key with a NUL in it.
    pub fn to(&self, encoding: Encoding) -> Result<Self, CodecError> {
        if encoding == self.encoding() {
            return Ok(self.clone());
        }
        let (form, bytes) = codec::write(encoding, &self.raw().value()?)?;
        Ok(Self {
            form,
            body: bytes.into(),
        })
    }

    /// The bytes on their own, as a guest gets them.
    ///
    /// # Errors
    /// [`CodecError::Inexpressible`] for a BSON value that is no document: it can only stand inside
    /// one. JSON and MessagePack have no such limit.
    pub fn to_bytes(&self) -> Result<Bytes, CodecError> {
        if self.form == Form::standalone(self.encoding()) {
            return Ok(self.body.clone());
        }
        Err(CodecError::Inexpressible {
            encoding: self.encoding(),
            what: format!("{} outside a document", self.form).into(),
        })
    }

    /// The text of one field, where the value is an object that has such a field.
    ///
    /// This is how a call is found again by `data.resId`, all that a Node worker carries along.
    #[must_use]
    pub fn text_field(&self, name: &str) -> Option<String> {
        let fields = self.raw().object("data").ok()?;
        fields.get(name)?.text("data").ok()
    }

    /// The value of one field, where the value is an object that has such a field and it is not
    /// null. It undoes [`Payload::wrapped`].
    #[must_use]
    pub fn field(&self, name: &str) -> Option<Self> {
        let raw = self.raw().object("data").ok()?.get(name)?;
        Some(Self::within(&self.body, raw))
    }

    /// Whether the value is an object, so that it can be given a field.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.raw().object("data").is_ok()
    }

    /// The same object with one more field at its end; the other fields keep their bytes. An object
    /// that already has a field of this name, whatever it holds, stays as it is.
    ///
    /// # Errors
    /// [`CodecError::Unexpected`] when the value is no object: see [`Payload::wrapped`].
    /// [`CodecError::Inexpressible`] in BSON for a name with a NUL in it.
    pub fn with_text_field(&self, name: &str, value: &str) -> Result<Self, CodecError> {
        if self.raw().object("data")?.has(name) {
            return Ok(self.clone());
        }
        Ok(Self {
            form: self.form,
            body: codec::append(self.raw(), name, value)?.into(),
        })
    }

    /// An object with the value as its only field, byte for byte as it was.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] when the object would nest deeper than 100 levels;
    /// [`CodecError::Inexpressible`] in BSON for a name with a NUL in it.
    pub fn wrapped(&self, name: &str) -> Result<Self, CodecError> {
        let object = Value::object([(name, Value::Payload(self))]);
        let body = self.encoding().encode(&object)?;
        Self::new(self.encoding(), body)
    }

    /// What is in the value that ends the connection of every Node worker which reads it in its
    /// encoding: msgpack5 throws at extensions that nobody has registered, and at a field `__proto__`.
    #[must_use]
    pub fn hazard_for_node(&self) -> Option<&'static str> {
        if self.encoding() != Encoding::MessagePack {
            return None;
        }
        hazard(&self.raw().value().ok()?)
    }

    /// A payload from a value that has been checked: a slice of `body`, without copying it.
    pub(crate) fn within(body: &Bytes, raw: Raw<'_>) -> Self {
        Self {
            form: raw.form,
            body: body.slice_ref(raw.bytes),
        }
    }

    /// The null of an encoding.
    #[must_use]
    pub fn null(encoding: Encoding) -> Self {
        let (form, body): (_, &'static [u8]) = match encoding {
            Encoding::Json => (Form::Json, b"null"),
            Encoding::Bson => (Form::Bson(ElementType::Null), b""),
            Encoding::MessagePack => (Form::MessagePack, &[0xc0]),
        };
        Self {
            form,
            body: Bytes::from_static(body),
        }
    }

    /// What has to be known to write the payload into a message.
    pub(crate) fn raw(&self) -> Raw<'_> {
        Raw {
            form: self.form,
            bytes: &self.body,
        }
    }
}

fn hazard(value: &Value<'_>) -> Option<&'static str> {
    match value {
        Value::Extension(..) => Some("a MessagePack extension"),
        Value::Array(items) => items.iter().find_map(hazard),
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            (name == "__proto__")
                .then_some("a field `__proto__`")
                .or_else(|| hazard(value))
        }),
        Value::Map(pairs) => pairs
            .iter()
            .find_map(|(key, value)| hazard(key).or_else(|| hazard(value))),
        _ => None,
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({}, {} bytes)", self.encoding(), self.len())
    }
}
