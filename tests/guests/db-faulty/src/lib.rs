//! A database that fails, for the tests of what a request is answered then: `GET` traps, anything
//! else is rejected.

#![allow(clippy::panic, reason = "to misbehave is what this plugin is for")]

use serde::Deserialize;
use warren_sdk::{Error, Job, Outcome, Result, Worker};

/// A DB that never has an answer.
pub struct DbFaulty;

#[derive(Deserialize)]
struct Request {
    method: String,
}

impl Worker for DbFaulty {
    const TYPE: &'static str = "WB";
    const SUMMARY: &'static str = "A database that fails, for tests";

    fn handle(job: Job) -> Result<Outcome> {
        match job.json::<Request>()?.method.as_str() {
            "GET" => panic!("the disk is on fire"),
            _ => Err(Error::reject("the disk is full")),
        }
    }
}

warren_sdk::export_worker!(DbFaulty);
