//! Uses all that a worker can reach, once in each job, and tells what came of it: a test can see that
//! every capability is there, and that the plugin is kept out where one of them is not granted.
//!
//! A job is `{"url", "call", "send"}`: where an HTTP request goes, and the stops of a call and of a job.

#[allow(
    dead_code,
    reason = "the client of another guest, which can do more than is needed here"
)]
#[path = "../../reacher/src/raw.rs"]
mod raw;

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};
use warren_sdk::keyvalue::Bucket;
use warren_sdk::{Error, Job, Outcome, Result, Worker, bus, config, context, log, metrics};
use warren_sdk::{params, sql};

/// A worker that uses everything.
pub struct Everything;

/// What a job says.
#[derive(Deserialize)]
struct Order {
    url: String,
    call: String,
    send: String,
    connect_ms: Option<u64>,
    first_ms: Option<u64>,
    between_ms: Option<u64>,
}

impl Worker for Everything {
    const TYPE: &'static str = "FE";
    const SUMMARY: &'static str = "Uses everything that a worker can reach, for tests";

    fn handle(job: Job) -> Result<Outcome> {
        let order: Order = job.json()?;
        log::info!("job {} uses everything", job.id);
        metrics::count("everything_total", &[("kind", "run")], 1);
        metrics::observe("everything_seconds", &[], 0.5);
        metrics::gauge("everything_level", &[], 7.0);
        bus::send([order.send.as_str()], &json!({ "do": "done" }))?;
        let called = bus::call([order.call.as_str()], &json!({ "do": "echo", "n": 7 }))?;
        let called: Value = called.json()?;
        Outcome::forward(&json!({
            "context": {
                "worker_id": context::worker_id(),
                "attempt": context::attempt(),
                "has_time": !context::time_left().is_zero(),
            },
            "clock_s": seconds()?,
            "random": uuid::Uuid::new_v4(),
            "called": called,
            "rows": rows(&job.id)?,
            "kept": kept(&job.id)?,
            "config": config::get("greeting")?,
            "secret_bytes": config::get("api_key")?.map(|secret| secret.len()),
            "http": raw::exchange(&order, &order.url, None),
        }))
    }
}

fn seconds() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map(|now| now.as_secs())
        .map_err(|error| Error::reject(error.to_string()))
}

/// How many rows there are, with one for this job.
fn rows(id: &str) -> Result<i64> {
    sql::execute("CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY)", &[])?;
    sql::transaction(|tx| {
        tx.execute("INSERT INTO jobs (id) VALUES (?)", &params![id])?;
        Ok(())
    })?;
    let rows = sql::query("SELECT count(*) AS n FROM jobs", &[])?;
    let row = rows.first().ok_or_else(|| Error::retry("no count"))?;
    Ok(row.get("n")?)
}

/// What is kept under keys, by every function of the SDK.
fn kept(id: &str) -> Result<Value> {
    let bucket = Bucket::open("everything")?;
    let n_jobs = bucket.increment("n_jobs", 1)?;
    let ids: Vec<String> = bucket.update_json("ids", |ids| {
        let mut ids: Vec<String> = ids.unwrap_or_default();
        ids.push(id.to_owned());
        Ok(ids)
    })?;
    bucket.update("log", |log| {
        let mut log = log.unwrap_or_default();
        log.push(b'x');
        Ok(log)
    })?;
    bucket.set("scratch", "for a moment")?;
    bucket.set_many(&[("one", "1"), ("two", "2")])?;
    bucket.set_json("pair", &(1, "two"))?;
    let many = bucket.get_many(&["two", "none"])?;
    bucket.delete("scratch")?;
    bucket.delete_many(&["one", "two"])?;
    let mut keys = bucket.keys().collect::<Result<Vec<_>, _>>()?;
    keys.sort();
    let log = bucket.get("log")?.map(|log| log.len());
    Ok(json!({
        "n_jobs": n_jobs,
        "n_ids": ids.len(),
        "log_bytes": log,
        "many": many,
        "pair": bucket.get_json::<(u8, String)>("pair")?,
        "has_scratch": bucket.exists("scratch")?,
        "keys": keys,
    }))
}

warren_sdk::export_worker!(Everything);
