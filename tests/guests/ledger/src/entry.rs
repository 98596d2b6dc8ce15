//! One run: what the job's data say, in the order of the fields below, and the row that proves it.
//!
//! The rows are never made unique: a run that is repeated shows as a second row.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};
use warren_sdk::{Error, Job, Outcome, Result, bus, context, params, sql};

/// What a job says. Every field but `key` may be absent.
#[derive(Deserialize)]
struct Order {
    /// What the test knows the job by. It goes on with every message that the run sends.
    key: String,
    /// Write a row of phase `begun` before anything else.
    #[serde(default)]
    begin: bool,
    /// Run until this many milliseconds have passed.
    #[serde(default)]
    work_ms: u64,
    /// Whether the work is done in the host (it sleeps) or in the guest (it looks at the clock).
    #[serde(default)]
    busy: bool,
    /// Ask for another attempt up to and including this one, with a row of phase `failed`.
    #[serde(default)]
    fail: u32,
    /// The wait before the next attempt; the host's own when absent.
    retry_ms: Option<u64>,
    /// Reject the job with this text, with a row of phase `failed`.
    reject: Option<String>,
    /// Call this stop, give it `pass`, and wait for the reply.
    call: Option<String>,
    /// Send `n` jobs to this stop, each with the key and `pass`, and `/0`, `/1`, … after the key.
    send: Option<Sends>,
    /// Hand on what the next stop, or whoever called, gets: the key and these members.
    pass: Option<Value>,
    /// Any text, to make the message larger.
    #[serde(default, rename = "ballast")]
    _ballast: String,
}

#[derive(Deserialize)]
struct Sends {
    to: String,
    n: u32,
}

/// Runs a job. `build` is written into its rows: which plugin it was.
pub(crate) fn make(job: Job, build: &str) -> Result<Outcome> {
    let order: Order = job.json()?;
    create_table()?;
    if order.begin {
        write(&order, &job, "begun", build)?;
    }
    work(&order);
    if context::attempt() <= order.fail {
        write(&order, &job, "failed", build)?;
        let error = Error::retry(format!("attempt {} is to fail", context::attempt()));
        return Err(match order.retry_ms {
            Some(ms) => error.after(Duration::from_millis(ms)),
            None => error,
        });
    }
    if let Some(reason) = &order.reject {
        write(&order, &job, "failed", build)?;
        return Err(Error::reject(reason.clone()));
    }
    if let Some(stop) = &order.call {
        bus::call([stop.clone()], &order.passed(&order.key))?;
    }
    // The effect: after the work, and before anything leaves the host.
    write(&order, &job, "done", build)?;
    if let Some(sends) = &order.send {
        for index in 0..sends.n {
            let data = order.passed(&format!("{}/{index}", order.key));
            bus::send([sends.to.clone()], &data)?;
        }
    }
    Outcome::forward(&order.passed(&order.key))
}

impl Order {
    fn passed(&self, key: &str) -> Value {
        let mut data = self.pass.clone().unwrap_or_else(|| json!({}));
        if let Value::Object(members) = &mut data {
            members.insert("key".to_owned(), key.into());
        }
        data
    }
}

fn work(order: &Order) {
    let until = SystemTime::now() + Duration::from_millis(order.work_ms);
    if !order.busy && order.work_ms > 0 {
        thread::sleep(Duration::from_millis(order.work_ms));
    }
    while SystemTime::now() < until {}
}

fn create_table() -> Result<()> {
    sql::execute(
        "CREATE TABLE IF NOT EXISTS runs (
            id INTEGER PRIMARY KEY, key TEXT NOT NULL, job TEXT NOT NULL, phase TEXT NOT NULL,
            attempt INTEGER NOT NULL, worker TEXT NOT NULL, at_ms INTEGER NOT NULL,
            build TEXT NOT NULL
        )",
        &[],
    )?;
    Ok(())
}

fn write(order: &Order, job: &Job, phase: &str, build: &str) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let at_ms = i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
    let row = params![
        order.key.clone(),
        job.id.clone(),
        phase,
        i64::from(context::attempt()),
        context::worker_id(),
        at_ms,
        build
    ];
    let insert = "INSERT INTO runs (key, job, phase, attempt, worker, at_ms, build) \
                  VALUES ($1, $2, $3, $4, $5, $6, $7)";
    sql::execute(insert, &row)?;
    Ok(())
}
