//! A message as it is read: fields by name, each still bytes, with errors that name the field.

use super::{Fields, Form, Kind, Raw, Value};
use crate::{CodecError, Encoding};

/// One object of a message. Where a key comes twice, the last one counts, as in JavaScript.
pub(crate) struct Object<'a> {
    encoding: Encoding,
    fields: Fields<'a>,
}

impl<'a> Object<'a> {
    /// Reads a whole body.
    pub(crate) fn of_body(encoding: Encoding, body: &'a [u8]) -> Result<Self, CodecError> {
        let raw = Raw {
            form: Form::standalone(encoding),
            bytes: body,
        };
        raw.object("message")
    }

    /// The field, where it is there and not null.
    pub(crate) fn get(&self, field: &str) -> Option<Raw<'a>> {
        let (_, raw) = self.fields.iter().rfind(|(key, _)| key == field)?;
        Some(*raw).filter(|raw| raw.kind() != Kind::Null)
    }

    /// Whether there is such a field, null or not.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.fields.iter().any(|(key, _)| key == field)
    }

    /// A field that must be an object.
    pub(crate) fn object(&self, field: &'static str) -> Result<Self, CodecError> {
        self.need(field, "an object")?.object(field)
    }

    /// A field that must be an array.
    pub(crate) fn array(&self, field: &'static str) -> Result<Vec<Raw<'a>>, CodecError> {
        self.need(field, "an array")?.array(field)
    }

    /// A field that must be a text.
    pub(crate) fn text(&self, field: &'static str) -> Result<String, CodecError> {
        self.need(field, "a text")?.text(field)
    }

    /// A field that may be missing (0) and must be a whole number, in any width or as a float.
    pub(crate) fn index(&self, field: &'static str) -> Result<usize, CodecError> {
        let Some(raw) = self.get(field) else {
            return Ok(0);
        };
        match raw.scalar()? {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked: a whole number from 0 to u32::MAX"
            )]
            Some(Value::Number(n))
                if n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&n) =>
            {
                Ok(n as usize)
            }
            _ => Err(self.unexpected(field, "a whole number from 0 to 4294967295")),
        }
    }

    /// A field that may be missing (false) and must be a truth value.
    pub(crate) fn flag(&self, field: &'static str) -> Result<bool, CodecError> {
        match self.get(field).map(Raw::scalar).transpose()? {
            None => Ok(false),
            Some(Some(Value::Bool(flag))) => Ok(flag),
            Some(_) => Err(self.unexpected(field, "true or false")),
        }
    }

    /// The values of all fields, in order. A worker list can come as a BSON document, because BSON
    /// has no array at the top.
    pub(crate) fn into_values(self) -> impl Iterator<Item = Raw<'a>> {
        self.fields.into_iter().map(|(_, raw)| raw)
    }

    fn need(&self, field: &'static str, expected: &'static str) -> Result<Raw<'a>, CodecError> {
        self.get(field)
            .ok_or_else(|| self.unexpected(field, expected))
    }

    fn unexpected(&self, field: &'static str, expected: &'static str) -> CodecError {
        CodecError::Unexpected {
            encoding: self.encoding,
            field,
            expected,
        }
    }
}

impl<'a> Raw<'a> {
    /// Splits an object. `field` names it in an error.
    pub(crate) fn object(self, field: &'static str) -> Result<Object<'a>, CodecError> {
        let encoding = self.form.encoding();
        if self.kind() == Kind::Object {
            return Ok(Object {
                encoding,
                fields: self.split()?,
            });
        }
        self.check()?;
        Err(CodecError::Unexpected {
            encoding,
            field,
            expected: "an object",
        })
    }

    /// Splits an array. `field` names it in an error.
    pub(crate) fn array(self, field: &'static str) -> Result<Vec<Raw<'a>>, CodecError> {
        let encoding = self.form.encoding();
        if self.kind() == Kind::Array {
            return Ok(self.split()?.into_iter().map(|(_, raw)| raw).collect());
        }
        self.check()?;
        Err(CodecError::Unexpected {
            encoding,
            field,
            expected: "an array",
        })
    }

    /// Reads a text. `field` names it in an error.
    pub(crate) fn text(self, field: &'static str) -> Result<String, CodecError> {
        match self.scalar()? {
            Some(Value::Text(text)) => Ok(text.into_owned()),
            _ => {
                let encoding = self.form.encoding();
                Err(CodecError::Unexpected {
                    encoding,
                    field,
                    expected: "a text",
                })
            }
        }
    }

    /// The value, where it is neither an object nor an array.
    fn scalar(self) -> Result<Option<Value<'a>>, CodecError> {
        match self.kind() {
            Kind::Scalar | Kind::Null => self.value().map(Some),
            Kind::Object | Kind::Array => Ok(None),
        }
    }
}
