//! The second build of the ledger: its rows say so, for the tests of replacing a plugin.

#[path = "../../ledger/src/entry.rs"]
mod entry;

use warren_sdk::{Job, Outcome, Result, Worker};

/// The second build.
pub struct LedgerTwo;

impl Worker for LedgerTwo {
    const TYPE: &'static str = "FL";
    const SUMMARY: &'static str = "Writes down that it ran, for tests, build two";

    fn handle(job: Job) -> Result<Outcome> {
        entry::make(job, "two")
    }
}

warren_sdk::export_worker!(LedgerTwo);
