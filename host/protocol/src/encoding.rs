//! The three encodings that MicroServices.js can be configured for. A message does not say which
//! one it is in: both sides know it from their configuration.

use std::{fmt, str::FromStr};

use crate::CodecError;

/// How a value is written as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// JSON text, as `JSON.stringify` writes it.
    Json,
    /// BSON 1.1, as js-bson 6 writes it.
    Bson,
    /// MessagePack, as msgpack5 6 writes it.
    MessagePack,
}

impl Encoding {
    /// All of them, the default first: the order in which to try a body of unknown encoding.
    pub const ALL: [Self; 3] = [Self::Json, Self::Bson, Self::MessagePack];

    /// The media type, as guests see it.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Bson => "application/bson",
            Self::MessagePack => "application/msgpack",
        }
    }

    /// The encoding of a media type, in any letter case; parameters such as `charset` are ignored.
    #[must_use]
    pub fn from_content_type(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        Self::ALL
            .into_iter()
            .find(|e| e.content_type().eq_ignore_ascii_case(essence))
    }
}

impl FromStr for Encoding {
    type Err = CodecError;

    /// Reads the name that a configuration uses, in any letter case.
    fn from_str(text: &str) -> Result<Self, CodecError> {
        match text.to_ascii_lowercase().as_str() {
            "json" => Ok(Self::Json),
            "bson" => Ok(Self::Bson),
            "msgpack" | "messagepack" => Ok(Self::MessagePack),
            _ => Err(CodecError::UnknownEncoding),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "JSON",
            Self::Bson => "BSON",
            Self::MessagePack => "MessagePack",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_configuration_are_read_in_any_letter_case() {
        for (name, encoding) in [
            ("json", Encoding::Json),
            ("JSON", Encoding::Json),
            ("Bson", Encoding::Bson),
            ("msgpack", Encoding::MessagePack),
            ("MessagePack", Encoding::MessagePack),
        ] {
            assert_eq!(name.parse::<Encoding>().unwrap(), encoding);
        }
        let refused = "protobuf".parse::<Encoding>().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "unknown encoding: use `json`, `bson` or `msgpack`"
        );
    }

    #[test]
    fn every_encoding_is_found_again_by_its_media_type_and_by_its_name() {
        for encoding in Encoding::ALL {
            assert_eq!(
                Encoding::from_content_type(encoding.content_type()),
                Some(encoding)
            );
            assert_eq!(encoding.to_string().parse::<Encoding>().unwrap(), encoding);
        }
        assert_eq!(
            Encoding::from_content_type("Application/JSON; charset=utf-8"),
            Some(Encoding::Json)
        );
        assert_eq!(Encoding::from_content_type("text/plain"), None);
    }
}
