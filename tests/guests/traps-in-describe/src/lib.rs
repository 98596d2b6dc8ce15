//! Traps in `describe`, for the tests of rejecting a plugin. In all else it is a worker.

#![allow(clippy::panic, reason = "to trap is what this plugin is for")]

use warren_sdk::bindings::descriptor::exports::warren::worker::descriptor::{Description, Guest};
use warren_sdk::{Job, Outcome, Result, Worker};

/// A worker that cannot even say what it is.
pub struct TrapsInDescribe;

impl Guest for TrapsInDescribe {
    fn describe() -> Description {
        panic!("the plugin has nothing to say of itself")
    }
}

impl Worker for TrapsInDescribe {
    const TYPE: &'static str = "NEVER";
    const SUMMARY: &'static str = "Never loaded";

    fn handle(_job: Job) -> Result<Outcome> {
        Ok(Outcome::Done)
    }
}

#[cfg(target_family = "wasm")]
mod exports {
    use super::TrapsInDescribe;
    use warren_sdk::bindings::{descriptor, handler};

    descriptor::export_descriptor!(TrapsInDescribe with_types_in descriptor);
    handler::export_handler!(TrapsInDescribe with_types_in handler);
}
