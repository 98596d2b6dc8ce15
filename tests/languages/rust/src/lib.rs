//! Fails as a job says: `{"do": "<word>"}`. The words are those of the table in guests/README.md.

#![allow(clippy::panic, reason = "to fail is what this plugin is for")]

use std::hint::black_box;
use std::time::Duration;

use serde::Deserialize;
use warren_sdk::{Error, Job, Outcome, Result, Worker, bus, params, sql};

/// A worker that fails in each way that a worker can.
pub struct Failing;

#[derive(Deserialize)]
struct Order {
    r#do: String,
}

#[derive(Deserialize)]
struct Other {
    missing: String,
}

impl Worker for Failing {
    const TYPE: &'static str = "LANG-RUST";
    const SUMMARY: &'static str = "Fails as it is told, in Rust";

    fn handle(job: Job) -> Result<Outcome> {
        let order: Order = job.json()?;
        match order.r#do.as_str() {
            "reply" => Outcome::forward(&[("text", "done")]),
            "reject" => Err(Error::reject("it says no")),
            "retry" => Err(Error::retry("not yet").after(Duration::from_millis(10))),
            "exception" => panic!("a mistake of mine"),
            "memory" => fill_memory(),
            "recursion" => Outcome::forward(&recurse(0)),
            "loop" => turn_for_ever(),
            "exit" => std::process::exit(3),
            "call" => Outcome::forward(bus::call(["NOBODY:*"], "")?),
            "send" => {
                bus::send(["not a stop"], "")?;
                Ok(Outcome::Done)
            }
            "sql" => {
                sql::query("SELECT FROM", &params![])?;
                Ok(Outcome::Done)
            }
            "data" => Outcome::forward(&job.json::<Other>()?.missing),
            "size" => Outcome::forward(&"x".repeat(200 * 1024)),
            "route" => Outcome::route(["not a stop"], ""),
            other => Err(Error::reject(format!("there is no deed {other}"))),
        }
    }
}

fn fill_memory() -> ! {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![1_u8; 1 << 20]));
    }
}

#[allow(unconditional_recursion, reason = "that is the point")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    let deeper = recurse(black_box(depth + 1));
    deeper.wrapping_add(black_box(frame).iter().sum::<u64>())
}

fn turn_for_ever() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

warren_sdk::export_worker!(Failing);
