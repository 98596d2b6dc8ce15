//! What talks to other workers.

use std::time::Duration;

use serde_json::{Value, json};
use warren_sdk::bus::{self, CallError};
use warren_sdk::{Error, Result, context};

use crate::Order;

/// Sends the order's data `n` times. Where it is an object, `index` counts them from 0.
pub(crate) fn send(order: &Order) -> Result<()> {
    for index in 0..order.n.unwrap_or(1) {
        let mut data = order.data();
        if let Value::Object(members) = &mut data {
            members.insert("index".to_owned(), index.into());
        }
        bus::send(order.stops(), &data)?;
    }
    Ok(())
}

/// Calls, and says what came of it: `{"reply": …}` or `{"error": …, "text": …}`.
pub(crate) fn call(order: &Order) -> Value {
    let timeout = order.ms.map(Duration::from_millis);
    let data = order.data.clone();
    let data = data.unwrap_or_else(|| json!({ "do": "echo" }));
    match bus::call_within(timeout, order.stops(), &data) {
        Ok(reply) => match reply.json::<Value>() {
            Ok(value) => json!({ "reply": value }),
            Err(error) => json!({ "error": "unreadable", "text": error.reason() }),
        },
        Err(error) => {
            let name = name(&error);
            json!({ "error": name, "text": Error::from(error).reason() })
        }
    }
}

/// Says that it runs, in which attempt and for which worker, and waits until that is answered:
/// whoever is called decides when the run ends.
pub(crate) fn check_in(order: &Order) -> Result<()> {
    let timeout = order.ms.map(Duration::from_millis);
    let here = json!({
        "attempt": context::attempt(),
        "worker_id": context::worker_id(),
        "data": order.data,
    });
    bus::call_within(timeout, order.stops(), &here)?;
    Ok(())
}

fn name(error: &CallError) -> &'static str {
    match error {
        CallError::Invalid(_) => "invalid",
        CallError::Denied(_) => "denied",
        CallError::UnknownType(_) => "unknown-type",
        CallError::NoLiveWorker(_) => "no-live-worker",
        CallError::QueueFull(_) => "queue-full",
        CallError::Timeout(_) => "timeout",
        CallError::Unavailable(_) => "unavailable",
        CallError::Failed(_) => "failed",
        CallError::Other(_) => "other",
    }
}
