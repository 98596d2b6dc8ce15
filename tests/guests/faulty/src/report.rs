//! What uses each import once and says what it saw.

use serde_json::{Value, json};
use warren_sdk::{Job, Result, context, log, metrics, params, sql};

/// Stores one value of each type and reads it back, in a transaction and outside of one. Each
/// member of the reply is how Rust prints the value that came back.
pub(crate) fn sql_round_trip() -> Result<Value> {
    let (id, real, blob) = match sql::dialect().as_str() {
        "postgresql" => (
            "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
            "DOUBLE PRECISION",
            "BYTEA",
        ),
        _ => ("INTEGER PRIMARY KEY", "REAL", "BLOB"),
    };
    sql::execute(
        &format!(
            "CREATE TABLE IF NOT EXISTS kinds (
                id {id}, empty TEXT, yes BOOLEAN, whole BIGINT, part {real}, words TEXT,
                bytes {blob}
            )"
        ),
        &[],
    )?;
    let id = sql::transaction(|tx| {
        let changed = tx.execute(
            "INSERT INTO kinds (empty, yes, whole, part, words, bytes) VALUES ($1, $2, $3, $4, $5, $6)",
            &params![(), true, i64::MIN, -0.5, "größer 'quoted'", &[0_u8, 255][..]],
        )?;
        log::debug!("inserted {changed} row");
        let rows = tx.query("SELECT max(id) AS id FROM kinds", &[])?;
        let ids: Vec<i64> = rows
            .iter()
            .map(|row| row.get("id"))
            .collect::<Result<_, _>>()?;
        Ok(ids.first().copied().unwrap_or_default())
    })?;
    let rolled_back = sql::Transaction::begin()?;
    rolled_back.execute("DELETE FROM kinds", &[])?;
    rolled_back.rollback()?;

    let rows = sql::query("SELECT * FROM kinds WHERE id = $1", &params![id])?;
    let mut reply = serde_json::Map::new();
    for (name, value) in rows.columns.iter().zip(rows.rows.iter().flatten()) {
        if name != "id" {
            reply.insert(name.clone(), format!("{value:?}").into());
        }
    }
    let mistake = sql::query("SELECT * FROM nowhere", &[]);
    reply.insert("mistake".to_owned(), format!("{mistake:?}").into());
    Ok(reply.into())
}

/// One figure of each kind, one with a malformed name, and one with other labels than before.
pub(crate) fn metrics() -> Value {
    metrics::count("deeds_total", &[("kind", "metrics")], 2);
    metrics::observe("deed_seconds", &[("kind", "metrics")], 0.25);
    metrics::gauge("mood", &[], -1.5);
    metrics::count("Not A Name", &[], 1);
    metrics::count("deeds_total", &[("other", "label")], 1);
    json!({ "counted": true })
}

/// One line of each level.
pub(crate) fn log() -> Value {
    log::trace!("a trace line");
    log::debug!("a debug line");
    log::info!("an info line, {} + {} = {}", 1, 2, 1 + 2);
    log::warn!("a warn line\nin two pieces");
    log::error!("an error line");
    json!({ "logged": 5 })
}

/// One line on each standard stream.
pub(crate) fn print() -> Value {
    println!("a line on stdout");
    eprintln!("a line on stderr");
    json!({ "printed": 2 })
}

/// What the host says of this run and of this job.
pub(crate) fn context(job: &Job) -> Value {
    json!({
        "worker_id": context::worker_id(),
        "attempt": context::attempt(),
        "deadline_ms": u64::try_from(context::time_left().as_millis()).unwrap_or(u64::MAX),
        "is_cancelled": context::is_cancelled(),
        "trace_parent": context::trace_parent(),
        "correlation_id": context::header("correlation-id"),
        "job_id": job.id,
        "sender": job.sender,
        "route": job.route,
        "position": job.position,
        "content_type": job.data.content_type,
    })
}

/// All that the operator has configured.
pub(crate) fn config() -> Result<Value> {
    let pairs = warren_sdk::config::all()?;
    Ok(pairs
        .into_iter()
        .map(|(key, value)| (key, Value::from(value)))
        .collect())
}

/// A line on stderr that does not end.
pub(crate) fn murmur(text: &str) -> Value {
    eprint!("{text}");
    json!({ "murmured": text })
}
