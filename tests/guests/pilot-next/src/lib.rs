//! The next version of the Pilot, for the tests of replacing a plugin: it answers `GET` itself,
//! so that a test sees which version serves.

use serde::Deserialize;
use serde_json::{Value, json};
use warren_sdk::{Error, Job, Outcome, Result, Worker};

/// A Pilot that needs no database to answer `GET`.
pub struct PilotNext;

#[derive(Deserialize)]
struct Request {
    method: String,
    #[serde(rename = "resId")]
    res_id: Value,
    time: Value,
}

impl Worker for PilotNext {
    const TYPE: &'static str = "WD";
    const SUMMARY: &'static str = "Decides which worker answers a request, version 2";

    fn handle(job: Job) -> Result<Outcome> {
        let request: Request = job.json()?;
        match request.method.as_str() {
            "GET" => {
                let answer = json!({
                    "content": [{ "id": 0, "title": "from pilot 2" }],
                    "resId": request.res_id,
                    "time": request.time,
                });
                Outcome::route([&job.sender], &answer)
            }
            "POST" => Outcome::route(["WB:*", &job.sender], job.data),
            other => Err(Error::reject(format!(
                "no worker answers the method {other}"
            ))),
        }
    }
}

warren_sdk::export_worker!(PilotNext);
