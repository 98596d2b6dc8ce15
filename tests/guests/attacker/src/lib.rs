//! Does what a job tells it to, until its host stops it: `{"do":"<word>"}`.
//!
//! | `do` | what happens | what should end it |
//! |---|---|---|
//! | `loop` | computes for ever | `cpu`, or `deadline` where that is shorter |
//! | `sleep` | waits for an hour | `deadline` |
//! | `recurse` | calls itself for ever, with little in linear memory | the stack |
//! | `recurse-deep` | calls itself for ever, with much in linear memory | a trap |
//! | `grow` | takes memory, 1 MiB at a time | `memory` |
//! | `grow-giant` | takes 1 GiB at once | `memory` |
//! | `result` | ends with a result of 40 MiB | `payload` |
//! | `log`, `stdout`, `stderr` | writes lines for ever | `host_calls`; `log` drops them before |
//! | `host-calls` | asks the host for the attempt for ever | `host_calls` |
//! | `resources` | asks for alarms and keeps all of them | the host's resources |
//! | `labels` | counts 100,000 metrics of 100,000 names and labels, and is done | nothing: they are dropped |
//! | `call-itself` | calls its own type, which does the same, for ever | `deadline` |
//! | `send-itself` | sends `n` (2) jobs like itself, each `left` (0) times more, and is done | nothing |
//! | `hold` | begins a transaction, writes, and waits for an hour | `deadline` |
//! | `write` | writes a row and is done | nothing |
//! | `exit` | `exit(1)` | a trap |
//! | `panic` | panics with a text of 1 MiB | a trap |
//! | `abort` | aborts without a word | a trap |
//! | `echo` | forwards the job's data | nothing |
//!
//! Unlike the other plugins it has debug information: where it traps can be told by line.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "to misbehave is what this plugin is for"
)]

mod alarms;
mod floods;

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use warren_sdk::sql::Transaction;
use warren_sdk::{Error, Job, Outcome, Payload, Result, Worker, bus, context, params, sql};

const MIB: usize = 1024 * 1024;

/// A worker that wants its host dead.
pub struct Attacker;

#[derive(Deserialize)]
struct Order {
    r#do: String,
    n: Option<u32>,
    left: Option<u32>,
}

impl Worker for Attacker {
    const TYPE: &'static str = "FK";
    const SUMMARY: &'static str = "Attacks its host on request, for tests";

    fn handle(job: Job) -> Result<Outcome> {
        let order: Order = job.json()?;
        match order.r#do.as_str() {
            "echo" => Outcome::forward(job.data),
            "loop" => compute(),
            "sleep" => sleep(),
            "recurse" => Outcome::forward(&recurse(black_box(1))),
            "recurse-deep" => Outcome::forward(&recurse_deep(0)),
            "grow" => grow(),
            "grow-giant" => Outcome::forward(&black_box(vec![1_u8; 1024 * MIB]).len()),
            "result" => Outcome::forward(Payload {
                content_type: "application/json".to_owned(),
                body: vec![b'1'; 40 * MIB],
            }),
            "log" => floods::log(),
            "stdout" => floods::standard_output(),
            "stderr" => floods::standard_error(),
            "host-calls" => floods::host_calls(),
            "labels" => floods::labels(),
            "resources" => alarms::keep_all(),
            "call-itself" => {
                let reply = bus::call(["FK:*"], job.data)?;
                Outcome::forward(reply)
            }
            "send-itself" => {
                let left = order.left.unwrap_or_default();
                if let Some(left) = left.checked_sub(1) {
                    for index in 0..order.n.unwrap_or(2) {
                        let next = json!({"do": "send-itself", "n": order.n, "left": left, "index": index});
                        bus::send(["FK:*"], &next)?;
                    }
                }
                Ok(Outcome::Done)
            }
            // Once: its next attempt would come together with that of whoever waits for the lock.
            "hold" if context::attempt() > 1 => Ok(Outcome::Done),
            "hold" => {
                let open = Transaction::begin()?;
                open.execute(TABLE, &[])?;
                open.execute(INSERT, &params![1])?;
                sleep()
            }
            "write" => {
                sql::execute(TABLE, &[])?;
                sql::execute(INSERT, &params![2])?;
                Ok(Outcome::Done)
            }
            "exit" => std::process::exit(1),
            "panic" => panic_at_length(),
            "abort" => std::process::abort(),
            other => Err(Error::reject(format!("nothing is called {other}"))),
        }
    }
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS written (number INTEGER)";
const INSERT: &str = "INSERT INTO written (number) VALUES (?)";

#[inline(never)]
fn compute() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn sleep() -> ! {
    loop {
        thread::sleep(Duration::from_secs(60 * 60));
    }
}

/// What is done with the result keeps this from becoming a loop.
#[allow(unconditional_recursion, reason = "that is the point")]
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    recurse(depth.wrapping_mul(3)).rotate_left(7) ^ depth
}

#[allow(unconditional_recursion, reason = "that is the point")]
fn recurse_deep(depth: u64) -> u64 {
    let frame = black_box([depth; 128]);
    let deeper = recurse_deep(black_box(depth + 1));
    deeper.wrapping_add(black_box(frame).iter().sum::<u64>())
}

fn grow() -> ! {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![1_u8; MIB]));
    }
}

#[inline(never)]
fn panic_at_length() -> ! {
    panic!("{}the end of a long text", "words ".repeat(MIB / 6))
}

warren_sdk::export_worker!(Attacker);
