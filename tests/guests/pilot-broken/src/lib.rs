//! A build of the Pilot that traps on every job: what somebody deploys by mistake.

#![allow(clippy::panic, reason = "to trap is what this plugin is for")]

use warren_sdk::{Job, Outcome, Result, Worker};

/// The broken build.
pub struct PilotBroken;

impl Worker for PilotBroken {
    const TYPE: &'static str = "WD";
    const SUMMARY: &'static str = "Traps on every job, for tests";

    fn handle(job: Job) -> Result<Outcome> {
        panic!("this build is broken, also for job {}", job.id)
    }
}

warren_sdk::export_worker!(PilotBroken);
