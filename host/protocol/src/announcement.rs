//! Who is there: the bodies by which workers come, stay, go and tell each other whose turn it is.

use bytes::Bytes;

use crate::{
    CodecError, Encoding, Identity,
    codec::{self, Form, Object, Raw, Value},
};

/// The body of `worker.getAll`: this very text, in every encoding.
pub const GET_ALL: &str = "Hi workers, tell me who's online";
/// The body of `worker.list` on the exchange `polling`: this very text, in every encoding.
pub const GET_WORKER_LIST: &str = "Give me the worker list";

/// One worker of a `worker.list`: the workers of a type, in the order of their turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// The worker.
    pub worker: Identity,
    /// Whether it takes the next job of its type.
    pub is_next: bool,
}

impl Encoding {
    /// Reads the body of `worker.new.send`, `worker.new.resend` and `worker.del`.
    ///
    /// # Errors
    /// [`CodecError`] when the body is not an identity in this encoding.
    pub fn decode_identity(self, body: &Bytes) -> Result<Identity, CodecError> {
        codec::decode(self, body, |body| Object::of_body(self, body)?.identity())
    }

    /// Writes the body of `worker.new.send`, `worker.new.resend` and `worker.del`.
    ///
    /// # Errors
    /// None that a text could cause.
    pub fn encode_identity(self, identity: &Identity) -> Result<Bytes, CodecError> {
        self.encode(&identity.into())
    }

    /// Reads the body of `worker.list`. In BSON it is a document whose values are the entries.
    ///
    /// # Errors
    /// [`CodecError`] when the body is not a list in this encoding.
    pub fn decode_worker_list(self, body: &Bytes) -> Result<Vec<ListEntry>, CodecError> {
        codec::decode(self, body, |body| {
            let entries = match self {
                Self::Bson => Object::of_body(self, body)?.into_values().collect(),
                Self::Json | Self::MessagePack => Raw {
                    form: Form::standalone(self),
                    bytes: body,
                }
                .array("message")?,
            };
            entries.into_iter().map(ListEntry::read).collect()
        })
    }

    /// Writes the body of `worker.list`.
    ///
    /// # Errors
    /// [`CodecError::Inexpressible`] in BSON, which has no array at the top: there, Node workers
    /// cannot tell each other whose turn it is (one that tries loses its connection).
    pub fn encode_worker_list(self, entries: &[ListEntry]) -> Result<Bytes, CodecError> {
        if self == Self::Bson {
            let what = "a worker list: it has no array at the top of a message".into();
            return Err(CodecError::Inexpressible {
                encoding: self,
                what,
            });
        }
        self.encode(&Value::Array(entries.iter().map(Value::from).collect()))
    }
}

impl ListEntry {
    fn read(raw: Raw<'_>) -> Result<Self, CodecError> {
        let entry = raw.object("message")?;
        Ok(Self {
            worker: entry.object("worker")?.identity()?,
            is_next: entry.flag("isNext")?,
        })
    }
}

impl Object<'_> {
    /// Reads an object as `{"id", "type"}`.
    pub(crate) fn identity(&self) -> Result<Identity, CodecError> {
        Ok(Identity {
            id: self.text("id")?,
            worker_type: self.text("type")?,
        })
    }
}

impl<'a> From<&'a Identity> for Value<'a> {
    fn from(identity: &'a Identity) -> Self {
        Self::object([
            ("id", Value::text(&identity.id)),
            ("type", Value::text(&identity.worker_type)),
        ])
    }
}

impl<'a> From<&'a ListEntry> for Value<'a> {
    fn from(entry: &'a ListEntry) -> Self {
        Self::object([
            ("worker", Value::from(&entry.worker)),
            ("isNext", Value::Bool(entry.is_next)),
        ])
    }
}
