//! Pilot, the worker `WD` of the example trio: it decides which worker answers a request.

use serde::Deserialize;
use warren_sdk::{Error, Job, Outcome, Result, Worker};

/// Sends every request for movies to the database, and the answer back to who asked.
pub struct Pilot;

#[derive(Deserialize)]
struct Request {
    method: String,
}

impl Worker for Pilot {
    const TYPE: &'static str = "WD";
    const SUMMARY: &'static str = "Decides which worker answers a request";

    fn handle(job: Job) -> Result<Outcome> {
        let Request { method } = job.json()?;
        match method.as_str() {
            "GET" | "POST" => Outcome::route(["WB:*", &job.sender], job.data),
            other => Err(Error::reject(format!(
                "no worker answers the method {other}"
            ))),
        }
    }
}

warren_sdk::export_worker!(Pilot);
