//! Greets by name.

use serde::{Deserialize, Serialize};
use warren_sdk::{Error, Job, Outcome, Result, Worker, log, metrics};

/// Answers `{"name": "Ripley"}` with `{"text": "Hello, Ripley!"}`.
pub struct Greeter;

#[derive(Deserialize)]
struct Question {
    name: String,
}

#[derive(Serialize)]
struct Greeting {
    text: String,
}

impl Worker for Greeter {
    const TYPE: &'static str = "{{type}}";
    const SUMMARY: &'static str = "Greets by name";

    fn handle(job: Job) -> Result<Outcome> {
        let Question { name } = job.json()?;
        if name.is_empty() {
            return Err(Error::reject("there is nobody to greet"));
        }
        metrics::count("greetings_total", &[], 1);
        log::info!("greeting {name}");
        let text = format!("Hello, {name}!");
        Outcome::forward(&Greeting { text })
    }
}

warren_sdk::export_worker!(Greeter);
