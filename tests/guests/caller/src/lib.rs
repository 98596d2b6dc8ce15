//! Calls the host as often as a job says, to measure what one call costs:
//! `{"what": "config", "times": 1000}`. `what` is `nothing` (it counts to `times`), `attempt`, `config`, `log`,
//! `count`, `send` or `call`; jobs go to `OTHER:*`.

use std::hint::black_box;

use serde::Deserialize;
use warren_sdk::{Error, Job, Outcome, Result, Worker, bus, config, context, log, metrics};

/// A worker that calls its host.
pub struct Caller;

#[derive(Deserialize)]
struct Order {
    what: String,
    times: u32,
}

const OTHER: &str = "OTHER:*";

impl Worker for Caller {
    const TYPE: &'static str = "CALLER";
    const SUMMARY: &'static str =
        "Calls the host as often as a job says, to measure what a call costs";

    fn handle(job: Job) -> Result<Outcome> {
        let Order { what, times } = job.json()?;
        let call: fn() -> Result<()> = match what.as_str() {
            "nothing" => || Ok(()),
            "attempt" => || {
                black_box(context::attempt());
                Ok(())
            },
            "config" => || config::get("greeting").map(drop),
            "log" => || {
                log::info!("one line of a usual length, as a worker writes them");
                Ok(())
            },
            "count" => || {
                metrics::count("calls_total", &[("kind", "bench")], 1);
                Ok(())
            },
            "send" => || bus::send([OTHER], &()).map_err(Error::from),
            "call" => || Ok(bus::call([OTHER], &()).map(drop)?),
            other => return Err(Error::reject(format!("`{other}` is no call"))),
        };
        for _ in 0..times {
            black_box(call)()?;
        }
        Ok(Outcome::Done)
    }
}

warren_sdk::export_worker!(Caller);
