//! Sends jobs that are given up, and writes down what it is told of them, for the tests of that:
//! `{"do":"send","to":…,"data":…}`, `"route"` in place of `"send"`, and `{"do":"told"}`.

#![allow(clippy::panic, reason = "to misbehave is what this plugin is for")]

use serde::Deserialize;
use serde_json::{Value, json};
use warren_sdk::errors::{Cause, JobError, TreatErrors};
use warren_sdk::{Error, Job, Outcome, Result, Worker, bus, context, params, sql};

/// A worker that hears of its errors.
pub struct Sender;

#[derive(Deserialize)]
struct Order {
    r#do: String,
    to: Option<String>,
    #[serde(default)]
    data: Value,
}

impl Worker for Sender {
    const TYPE: &'static str = "FS";
    const SUMMARY: &'static str = "Hears of the jobs that it sent, for tests";

    fn handle(job: Job) -> Result<Outcome> {
        let order: Order = job.json()?;
        let to = order.to.as_deref().unwrap_or("FX:*");
        match order.r#do.as_str() {
            "send" => {
                bus::send([to], &order.data)?;
                // Two messages make a bundle.
                bus::send(["FX:*"], &json!({"do": "done"}))?;
                Ok(Outcome::Done)
            }
            "route" => Outcome::route([to], &order.data),
            "told" => {
                create_table()?;
                let rows = sql::query("SELECT text FROM told ORDER BY rowid", &[])?;
                let told: Result<Vec<Value>> = rows
                    .iter()
                    .map(|row| {
                        let text: String = row.get("text")?;
                        serde_json::from_str(&text)
                            .map_err(|error| Error::reject(error.to_string()))
                    })
                    .collect();
                Outcome::forward(&told?)
            }
            other => Err(Error::reject(format!("nothing is called {other}"))),
        }
    }
}

impl TreatErrors for Sender {
    fn treat_error(error: JobError) -> Result<()> {
        let (cause, text) = match &error.cause {
            Cause::Rejected(text) => ("rejected", text),
            Cause::Failed(text) => ("failed", text),
            Cause::Undeliverable(text) => ("undeliverable", text),
            Cause::Expired(text) => ("expired", text),
            Cause::Other(text) => ("other", text),
        };
        let data: Value = match &error.data {
            Some(data) => data.json()?,
            None => Value::Null,
        };
        let told = json!({
            "id": error.id, "stop": error.stop, "attempts": error.attempts, "cause": cause,
            "text": text, "data": data, "attempt": context::attempt(),
        });
        create_table()?;
        sql::execute(
            "INSERT INTO told (text) VALUES (?)",
            &params![told.to_string()],
        )?;
        match data.get("then").and_then(Value::as_str) {
            Some("fail") => Err(Error::retry("the test asked for an error")),
            Some("panic") => panic!("the test asked for a panic"),
            // What this leads to is nobody's business any more.
            Some("send") => {
                bus::send(["FS-NOBODY:*"], &json!({"then": "send"})).map_err(Error::from)
            }
            _ => Ok(()),
        }
    }
}

fn create_table() -> Result<()> {
    sql::execute("CREATE TABLE IF NOT EXISTS told (text TEXT NOT NULL)", &[])?;
    Ok(())
}

warren_sdk::export_worker!(Sender);
warren_sdk::export_errors!(Sender);
