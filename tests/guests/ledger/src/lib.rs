//! Writes down that it ran: one row for each run, in its own database. A test that counts the rows
//! knows what a fault has lost and what it has repeated. `entry` has what a job can ask for.

mod entry;

use warren_sdk::{Job, Outcome, Result, Worker};

/// The first hop of a chain.
pub struct Ledger;

impl Worker for Ledger {
    const TYPE: &'static str = "FL";
    const SUMMARY: &'static str = "Writes down that it ran, for tests";

    fn handle(job: Job) -> Result<Outcome> {
        entry::make(job, "one")
    }
}

warren_sdk::export_worker!(Ledger);
