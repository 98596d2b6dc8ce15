//! What a job carries: one value, kept as the bytes it arrived in until somebody needs others.

use std::fmt;

use bson::spec::ElementType;
use bytes::Bytes;

use crate::{
    CodecError, Encoding,
    codec::{self, Form, Raw},
};

/// One value in one encoding, as bytes that have been checked. Cheap to clone.
#[derive(Clone, PartialEq)]
pub struct Payload {
    form: Form,
    body: Bytes,
}

impl Payload {
    /// Takes bytes that hold one value, and nothing after it. BSON bytes are a document.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] when they do not, or when the value nests deeper than 100 levels.
    pub fn new(encoding: Encoding, body: Bytes) -> Result<Self, CodecError> {
        let form = Form::standalone(encoding);
        Raw { form, bytes: &body }.check()?;
        Ok(Self { form, body })
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
    /// [`CodecError::Malformed`] for a map whose keys are not texts;
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

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({}, {} bytes)", self.encoding(), self.len())
    }
}
