//! Projects: a folder that holds one worker in one of five languages. What makes such a folder, what
//! is in it, and what makes a plugin of it.
//!
//! [`create`] makes a folder out of what the library carries: a template, an SDK and the contract.
//! [`find`] says which projects a folder holds, [`build`] makes the plugin of one, and each toolchain is
//! one file: `rust`, `javascript`, `typescript`, `python`, `c`.
//!
//! Invariants: nothing here reads the environment or asks a person: paths and what may be done are
//! handed in as a [`Workshop`]. A build that fails leaves the plugin of before as it was. Tools go
//! into their own folder; beside it only a target of rustup is added, and what cargo and pip fetch for a
//! project. Offline, nothing is fetched.

mod build;
mod c;
mod component;
mod create;
mod embedded;
mod error;
mod find;
mod fingerprint;
mod javascript;
mod language;
mod manifest;
mod process;
mod python;
mod rust;
mod tools;
mod typescript;
mod workshop;

pub use build::{Built, build};
pub use create::{create, default_type};
pub use error::Error;
pub use find::{Project, find};
pub use fingerprint::is_source;
pub use language::Language;
pub use manifest::{MANIFEST, Manifest, check_name};
pub use workshop::{Event, Workshop};
