//! What becomes of a job, from its arrival to its end: it runs, fails, waits, moves to another host
//! or is given up, but is never lost.
//!
//! Jobs come from a request to `http-faulty`, which works on both buses, or from a [`Peer`], another
//! host on RabbitMQ. The worker `FX` runs them.
//!
//! [`Peer`]: warren_tests::Peer

mod addresses;
mod changes;
mod outcomes;
mod pauses;
mod stops;

use std::time::{Duration, Instant};

use serde_json::Value;
use warren_tests::{Host, Setup, Site, eventually, http::Response};

/// What an answer that comes at once may take on a busy machine. Far less than a call waits.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Failed jobs are run again soon.
const IMPATIENT: &str = "[limits]\nretry_base = \"100ms\"\n";
/// One job of FX at a time.
const ONE_BY_ONE: &str = "[workers.FX]\nconcurrency = 1\n";

/// A host with both faulty workers.
async fn faulty_host(site: &Site, config: &str) -> Host {
    let setup = Setup::new(site).with_plugins(["faulty", "http_faulty"]);
    setup.with_config(config).start().await
}

/// Sends a job to a stop through a request, and returns when it is on the bus.
pub(crate) async fn send(host: &Host, to: &str, order: &Value) {
    let path = format!("/faulty/?do=send&to={to}");
    let response = host.post(&path, order.to_string()).await;
    assert_eq!(response.status, 200, "{}", response.text());
}

/// Calls a stop through a request, and answers with the reply or with a problem that says why
/// there is none.
pub(crate) async fn call(host: &Host, to: &str, order: &Value) -> Response {
    let path = format!("/faulty/?do=call&to={to}");
    host.post(&path, order.to_string()).await
}

/// As [`call`], but fails when the answer does not come at once.
pub(crate) async fn call_at_once(host: &Host, to: &str, order: &Value) -> Response {
    let asked = Instant::now();
    let response = call(host, to, order).await;
    let took = asked.elapsed();
    assert!(took < AT_ONCE, "{took:?}: {}", response.text());
    response
}

/// Returns when FX runs so many jobs.
async fn running(host: &Host, n_jobs: usize) {
    eventually(&format!("{n_jobs} jobs run"), async || {
        let worker = host.worker("FX").await?;
        (worker["in_flight"] == n_jobs).then_some(())
    })
    .await;
}

/// How many runs of FX have ended with this outcome.
async fn n_finished(host: &Host, outcome: &str) -> u64 {
    let series = format!(r#"warren_jobs_finished_total{{outcome="{outcome}",worker="FX"}}"#);
    figure(host, &series).await
}

/// How many runs of FX have failed for this reason.
async fn n_failed(host: &Host, reason: &str) -> u64 {
    let series = format!(r#"warren_job_failures_total{{reason="{reason}",worker="FX"}}"#);
    figure(host, &series).await
}

/// How many jobs FX has been given.
async fn n_received(host: &Host) -> u64 {
    let series = r#"microservices_messages_received_total{service="worker-FX",type="job_request"}"#;
    figure(host, series).await
}

/// Returns when so many runs of FX have ended with this outcome.
async fn finished(host: &Host, outcome: &str, n_runs: u64) {
    eventually(&format!("{n_runs} runs end with {outcome}"), async || {
        (n_finished(host, outcome).await == n_runs).then_some(())
    })
    .await;
}

/// The value of a series in `/metrics`; 0 when it is not there.
pub(crate) async fn figure(host: &Host, series: &str) -> u64 {
    let metrics = host.admin("/metrics").await.text();
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}
