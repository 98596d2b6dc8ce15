//! The fault matrix (RELIABILITY §4.3): the built `warren`, a real RabbitMQ, and one fault a row,
//! counted by the checker. Each row ends as a line of `tests/FAULTS.md`, which `tests/faults`
//! makes; there the rows run at their full size. One test binary, because each would be linked
//! anew.
//!
//! What these tests do not cover: each way in which a plugin can misbehave (`e2e`, `attacks`, and the
//! tests of `warren-runtime`), power cuts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod alarms;
mod cluster;
mod hosts;
mod leftovers;
mod links;
mod plugins;
mod publishing;
mod retries;
mod rolling;
mod sandbox;
mod steps;
mod topology;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use warren_tests::{
    Host,
    faults::{Ledger, Run},
    try_within,
};

/// The wall clock, as the ledger guest writes it.
fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How long it takes from now until an effect of `FL` is newer than now, on these hosts.
async fn until_next_effect(ledger: &Ledger, is_meant: impl Fn(&Run) -> bool) -> Duration {
    let (now, since) = (now_ms(), Instant::now());
    let seen = try_within(secs(90), async || {
        let effects = ledger.effects("FL").await;
        let newer = effects
            .iter()
            .filter(|run| run.at_ms >= now && is_meant(run));
        newer.map(|run| run.at_ms - now).min()
    });
    match seen.await {
        Some(ms) => Duration::from_millis(u64::try_from(ms).unwrap_or_default()),
        None => since.elapsed(),
    }
}

/// Whether the host says that it is ready, or not ready, within this time; and how long it took.
async fn readiness(host: &Host, is_ready: bool, limit: Duration) -> Result<Duration, String> {
    let since = Instant::now();
    let mut last = String::new();
    let reached = try_within(limit, async || {
        let response = host.admin("/readyz").await;
        last = response.text();
        (response.status.is_success() == is_ready).then(|| since.elapsed())
    });
    let wanted = if is_ready { "ready" } else { "not ready" };
    let said = format!("the host was not {wanted} within {} s: ", limit.as_secs());
    reached.await.ok_or_else(|| said + &last)
}
