//! A loaded plugin: validated, compiled, linked, and what it says of itself. Immutable.

use std::{fmt, sync::Arc};

use sha2::{Digest as _, Sha256};
use warren_protocol::{Encoding, WorkerType};
use wasmtime::component::InstancePre;
use wasmtime_wasi_http::p2::bindings::ProxyIndices;

use crate::{
    Reach,
    bindings::exports::warren::worker::{errors, handler},
    scheduling::Scheduling,
    state::State,
    symbols::Symbols,
};

/// The SHA-256 of a plugin's file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// What a plugin says of itself, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The type under which it works on the bus.
    pub worker_type: WorkerType,
    /// The plugin's own version.
    pub version: String,
    /// One line for the operator.
    pub summary: String,
    /// The encoding in which it wants its jobs.
    pub accepts: Encoding,
    /// The path prefix under which it wishes to serve HTTP; only HTTP workers have one.
    pub http_path: Option<String>,
}

/// A component that is ready to run. Cheap to share and to clone; bounded by whoever holds it.
#[derive(Clone)]
pub struct Plugin {
    /// What it shares with the other plugins of its engine.
    pub(crate) scheduling: Arc<Scheduling>,
    pub(crate) pre: InstancePre<State>,
    pub(crate) handler: Option<handler::GuestIndices>,
    pub(crate) http: Option<ProxyIndices>,
    pub(crate) errors: Option<errors::GuestIndices>,
    /// Where in its source a place in its code is.
    pub(crate) symbols: Arc<Symbols>,
    /// What it says of itself.
    pub description: Description,
    /// The SHA-256 of its file.
    pub digest: Digest,
    /// The size of its file, in bytes.
    pub size_bytes: usize,
    /// How long it took to compile it, or to find the code that was compiled before.
    pub compile_time: std::time::Duration,
    /// Whether it had been compiled before.
    pub is_cached: bool,
    pub(crate) imports: Vec<String>,
    /// What the operator lets it reach, with the secrets that were read for this version. Nothing
    /// beyond the defaults until [`Plugin::granted`].
    pub reach: Reach,
}

/// Why bytes did not become a plugin. Each names the step, the culprit and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not a WebAssembly component at all, or damaged.
    #[error("validate: {0}")]
    Invalid(String),
    /// The code could not be compiled.
    #[error("compile: {0}")]
    Compile(String),
    /// It imports what this host does not offer, or lacks an export of the contract.
    #[error("link: {0}")]
    Link(String),
    /// `describe` trapped, took too long, or said something that is not allowed.
    #[error("probe: {0}")]
    Probe(String),
    /// An instance could not be made.
    #[error("warm: {0}")]
    Warm(String),
}

impl LoadError {
    /// The step that failed, for metrics and fields of the log.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "validate",
            Self::Compile(_) => "compile",
            Self::Link(_) => "link",
            Self::Probe(_) => "probe",
            Self::Warm(_) => "warm",
        }
    }
}

impl Plugin {
    /// The interfaces that it imports, each with its version, in the order of their names.
    #[must_use]
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// The plugin with what the operator grants to its type.
    #[must_use]
    pub fn granted(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    /// Whether it takes jobs from the bus.
    #[must_use]
    pub fn takes_jobs(&self) -> bool {
        self.handler.is_some()
    }

    /// Whether it hears of the jobs that it sent and that were given up.
    #[must_use]
    pub fn treats_errors(&self) -> bool {
        self.errors.is_some()
    }

    /// Whether it answers HTTP requests.
    #[must_use]
    pub fn serves_http(&self) -> bool {
        self.http.is_some()
    }
}

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads what [`Digest`] shows: 64 hexadecimal digits. `None` when it is something else.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            // A sign would be taken for a digit.
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(digest))
    }

    /// The first twelve hexadecimal digits, which is what a person compares.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("description", &self.description)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_shown() {
        let digest = Digest::of(b"warren");
        assert_eq!(Digest::read(&digest.to_string()), Some(digest));
        assert_eq!(
            Digest::read(&digest.to_string().to_uppercase()),
            Some(digest)
        );
        for wrong in [
            "",
            &digest.short(),
            &"+1".repeat(32),
            &"gg".repeat(32),
            &"é".repeat(32),
        ] {
            assert_eq!(Digest::read(wrong), None, "{wrong}");
        }
    }
}
