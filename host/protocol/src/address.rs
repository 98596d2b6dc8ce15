//! Who is on the bus, and where a job can go: worker types, worker ids, stops and addresses.
//!
//! Source of the forms: PROTOCOL "The wire" (`TYPE:*`, `TYPE:` and 13 digits). Nothing here knows
//! AMQP; the text of an [`Address`] happens to be its routing key.

use std::{fmt, str::FromStr, sync::Arc};

use rand::RngExt;
use serde::{Deserialize, Serialize};

/// The longest worker type, in bytes. A queue name is at most 255 bytes, prefix included.
const MAX_TYPE_BYTES: usize = 64;
/// How many digits follow the type in a worker id: a Node id ends in milliseconds since 1970.
const ID_DIGITS: usize = 13;

/// The type of a worker, such as `WB`: a letter, then letters, digits, `_`, `-` or `.`.
///
/// MicroServices.js puts the type into a regular expression and splits at `:`, so nothing that
/// would need escaping there is allowed, `.` excepted, which matches itself too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerType(Arc<str>);

/// The identity of one worker on the bus: `TYPE:` and 13 digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId {
    text: Arc<str>,
    worker_type: WorkerType,
}

/// Where a message goes: any worker of a type, or one worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `TYPE:*`: whichever worker of the type is free first.
    Any(WorkerType),
    /// `TYPE:<13 digits>`: that worker and no other.
    One(WorkerId),
}

/// One entry of a job's route, kept as it was written so that a peer's spelling survives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stop(String);

/// A text that is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a worker type.
    #[error(
        "`{0}` is not a worker type: use a letter, then up to 63 letters, digits, `_`, `-` or `.`"
    )]
    Type(String),
    /// Neither `TYPE:*` nor a worker id.
    #[error("`{0}` is not a stop: use `TYPE:*` or a worker id (`TYPE:` and 13 digits)")]
    Stop(String),
}

impl WorkerType {
    /// Reads a type.
    ///
    /// # Errors
    /// [`AddressError::Type`] when the text has another form.
    pub fn new(text: &str) -> Result<Self, AddressError> {
        let mut bytes = text.bytes();
        let starts_well = bytes.next().is_some_and(|b| b.is_ascii_alphabetic());
        let goes_on_well = bytes.all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if starts_well && goes_on_well && text.len() <= MAX_TYPE_BYTES {
            Ok(Self(text.into()))
        } else {
            Err(AddressError::Type(shortened(text)))
        }
    }

    /// The type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl WorkerId {
    /// Draws a new id. The first digit is 2 to 9: a Node id is a timestamp and begins with 1, so
    /// the two never meet; 8 × 10^12 ids make a clash between hosts negligible.
    #[must_use]
    pub fn draw(worker_type: &WorkerType) -> Self {
        let number: u64 = rand::rng().random_range(2_000_000_000_000..10_000_000_000_000);
        Self {
            text: format!("{worker_type}:{number}").into(),
            worker_type: worker_type.clone(),
        }
    }

    /// The type of the worker.
    #[must_use]
    pub fn worker_type(&self) -> &WorkerType {
        &self.worker_type
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Address {
    /// The type of the workers that can take it.
    #[must_use]
    pub fn worker_type(&self) -> &WorkerType {
        match self {
            Self::Any(worker_type) => worker_type,
            Self::One(id) => id.worker_type(),
        }
    }
}

impl Stop {
    /// Takes a text as it is. Whether it is an address is asked with [`Stop::address`].
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the stop. `TYPE` alone is read as `TYPE:*`, which is what the senders that write it
    /// mean (MicroServices.js' own example does, and waits ten seconds for its error).
    ///
    /// # Errors
    /// [`AddressError::Stop`] when the text has no known form.
    pub fn address(&self) -> Result<Address, AddressError> {
        self.0.parse()
    }
}

impl FromStr for WorkerId {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Stop(shortened(text));
        let (worker_type, digits) = text.split_once(':').ok_or_else(wrong)?;
        let worker_type = WorkerType::new(worker_type).map_err(|_| wrong())?;
        if digits.len() != ID_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        Ok(Self {
            text: text.into(),
            worker_type,
        })
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let any = |name: &str| {
            WorkerType::new(name)
                .map(Self::Any)
                .map_err(|_| AddressError::Stop(shortened(text)))
        };
        match text.split_once(':') {
            None => any(text),
            Some((name, "*")) => any(name),
            Some(_) => text.parse().map(Self::One),
        }
    }
}

impl fmt::Display for WorkerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(worker_type) => write!(f, "{worker_type}:*"),
            Self::One(id) => id.fmt(f),
        }
    }
}

impl From<&Address> for Stop {
    fn from(address: &Address) -> Self {
        Self(address.to_string())
    }
}

/// A hostile text may be megabytes long; an error message shows its beginning.
fn shortened(text: &str) -> String {
    const SHOWN_CHARS: usize = 100;
    match text.char_indices().nth(SHOWN_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: Result<&str, ()>) {
        let read = Stop::new(input).address();
        assert_eq!(
            read.map(|a| a.to_string()).map_err(|_| ()),
            expected.map(str::to_owned)
        );
    }

    #[test]
    fn the_two_forms_of_a_stop_are_read_and_written_back() {
        check("WB:*", Ok("WB:*"));
        check("WB:1795220940610", Ok("WB:1795220940610"));
        check("WB:9999999999999", Ok("WB:9999999999999"));
        check("order.paid_v2-x:*", Ok("order.paid_v2-x:*"));
    }

    #[test]
    fn a_bare_type_means_any_worker_of_it() {
        check("WD", Ok("WD:*"));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            ":",
            ":*",
            "WB:",
            "WB:12",
            "WB:17952209406101",
            "W B:*",
            "WB:x795220940610",
            "WB:**",
            "1W:*",
        ] {
            check(text, Err(()));
        }
        check(&"x".repeat(65), Err(()));
    }

    #[test]
    fn a_drawn_id_reads_back_and_never_looks_like_a_node_id() {
        let worker_type = WorkerType::new("WB").unwrap();
        for _ in 0..1000 {
            let id = WorkerId::draw(&worker_type);
            assert_eq!(id.as_str().parse::<WorkerId>().unwrap(), id);
            assert!(!id.as_str().starts_with("WB:1"));
        }
    }
}
