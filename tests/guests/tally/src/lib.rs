//! The least that a worker does, to measure what a run costs: `null` is done, and for an order
//! `{"items": [{"price": 2, "count": 3}, …]}` it forwards `{"items": n, "total": …, "runs": …}`,
//! where `runs` counts those of this instance. For `{"ask": "<stop>"}` it calls there and forwards the
//! reply. `js/`, `python/` and `starlingmonkey/` beside it do the same.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde_json::json;
use warren_sdk::{Job, Outcome, Result, Worker, bus};

/// A worker that adds up.
pub struct Tally;

#[derive(Deserialize)]
struct Order {
    #[serde(default)]
    items: Vec<Item>,
    ask: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    price: u64,
    count: u64,
}

static RUNS: AtomicU64 = AtomicU64::new(0);

impl Worker for Tally {
    const TYPE: &'static str = "TALLY";
    const SUMMARY: &'static str = "Adds up a small order, to measure what a run costs";

    fn handle(job: Job) -> Result<Outcome> {
        let runs = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
        if job.data.body == b"null" {
            return Ok(Outcome::Done);
        }
        let Order { items, ask } = job.json()?;
        if let Some(stop) = ask {
            return Outcome::forward(bus::call([stop], &())?);
        }
        let total: u64 = items.iter().map(|item| item.price * item.count).sum();
        Outcome::forward(&json!({ "items": items.len(), "total": total, "runs": runs }))
    }
}

warren_sdk::export_worker!(Tally);
