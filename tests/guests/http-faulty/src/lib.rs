//! Misbehaves in HTTP requests, for the tests of the host: `GET /faulty/?do=<word>`.
//!
//! | `do` | what happens |
//! |---|---|
//! | `echo` | status 200; a JSON object with the method, path, query, headers and body |
//! | `error` | the handler returns an error: status 500 with a problem document |
//! | `panic` | traps before there is a response |
//! | `exit` | `exit(3)` before there is a response |
//! | `loop` | never returns and never waits |
//! | `sleep` | waits for an hour |
//! | `wait` | waits for `ms` milliseconds (100), then status 200 |
//! | `log` | a line in the log, one on stdout, one on stderr; status 200 |
//! | `stream` | status 200 and a body of `n` MiB (1), in pieces |
//! | `status` | the status in `code`, and no body |
//! | `call` | calls the stop in `to` and answers with the reply, or with status 500 |
//! | `send` | waits for `ms` milliseconds (0), sends a job to the stop in `to`, answers with status 200 |
//! | `send-then-error` | as `send`, but the response is then a 500 |
//!
//! `to` is `FX:*` when absent. A call or a job carries the request's body, which is JSON; when that
//! is empty, `{"do":"echo"}` or `{"do":"done"}`. `ms` is the timeout of a call.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "to misbehave is what this plugin is for"
)]

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};
use warren_sdk::http::{HttpWorker, Request, Response};
use warren_sdk::{Error, Result, bus, log};

const STREAMED_BYTES: usize = 1024 * 1024;

/// An HTTP worker that a host must survive.
pub struct HttpFaulty;

impl HttpWorker for HttpFaulty {
    const TYPE: &'static str = "FH";
    const SUMMARY: &'static str = "Misbehaves in HTTP requests, for tests";
    const PATH: &'static str = "/faulty/";

    fn handle(request: Request) -> Result<Response> {
        let to = request.query("to").unwrap_or("FX:*");
        match request.query("do").unwrap_or("echo") {
            "echo" => Response::json(&echo(&request)),
            "error" => Err(Error::reject("the test asked for an error")),
            "panic" => panic!("the test asked for a panic"),
            "exit" => std::process::exit(3),
            "loop" => endless(),
            "sleep" => {
                thread::sleep(Duration::from_secs(60 * 60));
                Ok(Response::new(200, "text/plain", "awake"))
            }
            "wait" => {
                let default = Duration::from_millis(100);
                thread::sleep(milliseconds(&request).unwrap_or(default));
                Ok(Response::new(200, "text/plain", "waited"))
            }
            "log" => {
                log::info!("the test asked for a line in the log");
                println!("the test asked for a line on stdout");
                eprintln!("the test asked for a line on stderr");
                Ok(Response::new(200, "text/plain", "logged"))
            }
            "stream" => {
                let n = request.query("n").and_then(|n| n.parse().ok());
                let body = vec![b'x'; STREAMED_BYTES * n.unwrap_or(1)];
                Ok(Response::new(200, "application/octet-stream", body))
            }
            "status" => {
                let code = request.query("code").and_then(|code| code.parse().ok());
                Ok(Response::new(code.unwrap_or(200), "text/plain", ""))
            }
            "call" => {
                let timeout = milliseconds(&request);
                let reply = bus::call_within(timeout, [to], &order(&request, "echo")?)?;
                Ok(Response::new(200, reply.content_type, reply.body))
            }
            "send" => {
                thread::sleep(milliseconds(&request).unwrap_or_default());
                bus::send([to], &order(&request, "done")?)?;
                Ok(Response::new(200, "text/plain", "sent"))
            }
            "send-then-error" => {
                bus::send([to], &order(&request, "done")?)?;
                Err(Error::reject("the test asked for an error after a send"))
            }
            other => Ok(Response::problem(400, format!("nothing is called {other}"))),
        }
    }
}

fn echo(request: &Request) -> Value {
    let headers: Map<String, Value> = request
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), text(value).into()))
        .collect();
    json!({
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": headers,
        "body": text(&request.body),
    })
}

fn milliseconds(request: &Request) -> Option<Duration> {
    let ms = request.query("ms")?.parse().ok()?;
    Some(Duration::from_millis(ms))
}

/// What is asked of the other worker.
fn order(request: &Request, default: &str) -> Result<Value> {
    if request.body.is_empty() {
        return Ok(json!({ "do": default }));
    }
    let order = serde_json::from_slice(&request.body);
    order.map_err(|error| Error::reject(format!("the body is not JSON: {error}")))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn endless() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

warren_sdk::export_http_worker!(HttpFaulty);
