//! Reaches for what a job names, for the tests of the host: `{"do":"<word>", …}`.
//!
//! | `do` | what comes back |
//! |---|---|
//! | `get` | a `GET` of `url`: `{"status", "location", "bytes", "text"}`, or `{"error"}`; with `follow`, of where the response leads to, too |
//! | `fetch` | the same by the client of the SDK: `{"status", "type", "text"}`, or `{"error", "text", "retry"}`; a `POST` of `body` where there is one |
//! | `put` | the same for a `PUT` of `bytes` bytes |
//! | `many` | the results of `n` requests to `url`, whose responses are all held until the last one |
//! | `read` | what the configuration has under `key` |
//! | `spill` | nothing: it prints, logs and panics with what it has under `key` |
//! | `tell` | nothing: it rejects the job with what it has under `key` |
//!
//! `connect_ms`, `first_ms` and `between_ms` are the timeouts of a request.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "to misbehave is what this plugin is for"
)]

mod raw;

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use warren_sdk::http::client::{self, Request};
use warren_sdk::{Error, Job, Outcome, Result, Worker, config, log};

/// A worker that wants to reach the world.
pub struct Reacher;

/// What a job says.
#[derive(Deserialize)]
struct Order {
    r#do: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    bytes: usize,
    #[serde(default)]
    n: usize,
    #[serde(default)]
    key: String,
    body: Option<Value>,
    connect_ms: Option<u64>,
    first_ms: Option<u64>,
    between_ms: Option<u64>,
}

impl Worker for Reacher {
    const TYPE: &'static str = "FR";
    const SUMMARY: &'static str = "Makes HTTP requests on request, for tests";

    fn handle(job: Job) -> Result<Outcome> {
        let order: Order = job.json()?;
        match order.r#do.as_str() {
            "get" => Outcome::forward(&get(&order)),
            "fetch" => Outcome::forward(&fetch(&order)?),
            "put" => Outcome::forward(&raw::exchange(&order, &order.url, Some(order.bytes))),
            "many" => {
                let sent: Vec<_> = (0..order.n)
                    .map(|_| raw::send(&order, &order.url, None))
                    .collect();
                let told = sent.iter().map(|response| match response {
                    Ok(response) => json!({ "status": response.status() }),
                    Err(error) => json!({ "error": error }),
                });
                Outcome::forward(&told.collect::<Vec<Value>>())
            }
            "read" => Outcome::forward(&json!({ "value": config::get(&order.key)? })),
            "spill" => spill(&order.secret()?),
            "tell" => Err(Error::reject(format!("it is {}", order.secret()?))),
            other => Err(Error::reject(format!("nothing is called {other}"))),
        }
    }
}

impl Order {
    fn secret(&self) -> Result<String> {
        let secret = config::get(&self.key)?;
        secret.ok_or_else(|| Error::reject("there is nothing under that key"))
    }
}

/// Follows a redirect as a careless client does: wherever it leads.
fn get(order: &Order) -> Value {
    let first = raw::exchange(order, &order.url, None);
    match first.get("location").and_then(Value::as_str) {
        Some(next) if order.follow => json!([first, raw::exchange(order, next, None)]),
        _ => first,
    }
}

/// As a plugin does it that has no reason to look closer.
fn fetch(order: &Order) -> Result<Value> {
    let mut request = match &order.body {
        Some(body) => Request::new("POST", &order.url).with_json(body)?,
        None => Request::new("GET", &order.url),
    };
    if let Some(ms) = order.first_ms {
        request = request.with_timeout(Duration::from_millis(ms));
    }
    if order.bytes > 0 {
        request.max_body_bytes = order.bytes;
    }
    let reply = match request.send() {
        Ok(reply) => reply,
        Err(error) => {
            let name = match &error {
                client::Error::Denied(_) => "denied",
                client::Error::Invalid(_) => "invalid",
                client::Error::TooLarge(_) => "too-large",
                client::Error::Timeout(_) => "timeout",
                client::Error::Unavailable(_) => "unavailable",
            };
            let error = Error::from(error);
            return Ok(json!({
                "error": name,
                "text": error.reason(),
                "retry": error.is_retryable(),
            }));
        }
    };
    Ok(json!({
        "status": reply.status,
        "type": reply.header("content-type"),
        "text": String::from_utf8_lossy(&reply.body),
    }))
}

/// Says a secret in every way that there is.
fn spill(secret: &str) -> ! {
    println!("on stdout: {secret}");
    eprintln!("on stderr: {secret}");
    log::info!("in the log: {secret}");
    log::error!("once more: {secret} {secret}");
    panic!("in a panic: {secret}")
}

warren_sdk::export_worker!(Reacher);
