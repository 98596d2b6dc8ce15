//! A dead letter in JSON, as `show --json` and `export` write it.
//!
//! ```json
//! {"type":"WB","id":"J1","reason":"permanent","error":"…","attempts":1,
//!  "first":"2026-01-31T12:00:00.25Z","died":"…","stack":"0: …","plugin":"db.wasm 0.1.0 …","host":"…",
//!  "encoding":"BSON","job":{"route":["WB:*"],"position":0,"sender":"WA:…","id":"J1","data":{…}}}
//! ```
//!
//! What a letter does not have is left out. A body that is no job, or `--base64`, gives
//! `body_base64`, its exact bytes, instead of `job`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use warren_bus::operator::DeadLetter;
use warren_protocol::{Encoding, Job};

use super::moment;

/// The whole letter. `exact`: its body as bytes, even if it can be read.
pub(super) fn to_json(letter: &DeadLetter, exact: bool) -> Value {
    let DeadLetter {
        worker_type,
        message,
        reason,
        error,
        stack,
        plugin,
        host,
        died_ms,
    } = letter;
    let moment = |ms: Option<u64>| ms.and_then(moment::exact);
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            object.insert(name.to_owned(), value);
        }
    };
    put("type", json!(worker_type.as_str()));
    put("id", json!(message.id));
    put("reason", json!(reason));
    put("error", json!(error));
    put("stack", json!(stack));
    put("attempts", json!(message.attempt));
    put("first", json!(moment(message.first_ms)));
    put("died", json!(moment(*died_ms)));
    put("plugin", json!(plugin));
    put("host", json!(host));
    put("deadline", json!(moment(message.deadline_ms)));
    put("correlation_id", json!(message.correlation_id));
    let reply_to = message.reply_to.as_ref().map(ToString::to_string);
    put("reply_to", json!(reply_to));
    put("traceparent", json!(message.trace_parent));
    put("encoding", json!(message.encoding.to_string()));
    match letter
        .job()
        .ok()
        .filter(|_| !exact)
        .and_then(|job| job_to_json(&job))
    {
        Some(job) => put("job", job),
        None => put("body_base64", json!(STANDARD.encode(&message.body))),
    }
    Value::Object(object)
}

/// What the job carries, in JSON, whatever it is written in.
pub(super) fn data(job: &Job) -> Option<Value> {
    let bytes = job.data.to(Encoding::Json).ok()?.to_bytes().ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The stops of a job, the one that is due in brackets.
pub(super) fn route(job: &Job) -> String {
    let stops = job.route.iter().enumerate().map(|(index, stop)| {
        if index == job.position {
            format!("[{}]", stop.as_str())
        } else {
            stop.as_str().to_owned()
        }
    });
    stops.collect::<Vec<_>>().join(" > ")
}

fn job_to_json(job: &Job) -> Option<Value> {
    let route: Vec<_> = job
        .route
        .iter()
        .map(warren_protocol::Stop::as_str)
        .collect();
    Some(json!({
        "route": route,
        "position": job.position,
        "sender": job.sender.id,
        "id": job.id,
        "data": data(job)?,
    }))
}
