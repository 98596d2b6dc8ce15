//! The ledger under another type: the second hop of a chain.

#[path = "../../ledger/src/entry.rs"]
mod entry;

use warren_sdk::{Job, Outcome, Result, Worker};

/// The second hop of a chain.
pub struct LedgerNext;

impl Worker for LedgerNext {
    const TYPE: &'static str = "FM";
    const SUMMARY: &'static str = "Writes down that it ran, for tests";

    fn handle(job: Job) -> Result<Outcome> {
        entry::make(job, "next")
    }
}

warren_sdk::export_worker!(LedgerNext);
