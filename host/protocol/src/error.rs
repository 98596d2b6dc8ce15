//! What can be wrong with bytes. A message names the encoding, the fault and its place, and never
//! repeats what the bytes say: they may be secret, and they may be megabytes.

use std::borrow::Cow;

use crate::Encoding;

/// Bytes that cannot be read, or a value that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes do not have the form that the encoding prescribes.
    #[error("malformed {encoding}: {fault}")]
    Malformed {
        /// The encoding that was expected.
        encoding: Encoding,
        /// The fault and its place.
        fault: Cow<'static, str>,
    },
    /// The value is well formed, but it is not the message that was expected.
    #[error("unexpected {encoding} message: `{field}` must be {expected}")]
    Unexpected {
        /// The encoding of the message.
        encoding: Encoding,
        /// The field, or `message` for the whole of it.
        field: &'static str,
        /// What it should have been, such as `a text`.
        expected: &'static str,
    },
    /// The encoding has no form for the value.
    #[error("{encoding} cannot say {what}")]
    Inexpressible {
        /// The encoding that was asked for.
        encoding: Encoding,
        /// The value.
        what: Cow<'static, str>,
    },
    /// Not the name of an encoding.
    #[error("unknown encoding: use `json`, `bson` or `msgpack`")]
    UnknownEncoding,
}
