//! What every worker of the comparison does: add up an order, as `tests/guests/tally` does.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

/// The worker type of the guests.
pub(crate) const TYPE: &str = "TALLY";
/// Unsettled jobs that one worker may hold, of each contender.
pub(crate) const PREFETCH: u16 = 256;

const N_ITEMS: usize = 10;

#[derive(Deserialize)]
struct Envelope {
    data: Option<Order>,
}

#[derive(Deserialize)]
struct Order {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    price: u64,
    count: u64,
}

/// The order of each job, about 450 bytes of JSON.
pub(crate) fn order() -> Value {
    let items = (1..=N_ITEMS).map(|n| json!({"name": format!("item {n}"), "price": n, "count": 2}));
    json!({ "items": items.collect::<Vec<_>>() })
}

/// The envelope of a job for this stop, as Warren writes it.
pub(crate) fn envelope(stop: &str, sender: &str, data: &Value) -> Bytes {
    let (kind, _) = sender.split_once(':').unwrap_or((sender, ""));
    let job = json!({
        "workers_list": [stop], "workers_list_id": 0, "data": data,
        "sender": {"id": sender, "type": kind}, "id": "J1795220941865000000000001",
    });
    Bytes::from(job.to_string())
}

/// Does the work of one job, and returns the body of a reply.
///
/// # Errors
/// When the body is not an envelope with an order.
pub(crate) fn perform(body: &[u8]) -> anyhow::Result<Bytes> {
    let Envelope { data } = serde_json::from_slice(body)?;
    let items = data.map(|order| order.items).unwrap_or_default();
    let total: u64 = items.iter().map(|item| item.price * item.count).sum();
    let data = json!({"items": items.len(), "total": total, "runs": 1});
    Ok(envelope("BENCH:*", "TALLY:1795220941865", &data))
}
