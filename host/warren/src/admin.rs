//! The operator's port: metrics, health, and what this host has, as JSON; and jobs from the command
//! line, where the bus is in this process.

mod jobs;

use std::{path::Path, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    desk::Desk,
    host::Host,
    listen,
    registry::{Version, file_name},
    reload::{FileState, Shelf},
    trial::Judgement,
};

/// Connections to this port: a scraper, a prober and a person have a few.
const MAX_CONNECTIONS: usize = 64;

/// What the handlers look at.
#[derive(Clone)]
struct Admin {
    host: Arc<Host>,
    shelf: Shelf,
    desk: Option<Arc<Desk>>,
    /// Whether only this machine reaches the port.
    is_loopback: bool,
}

/// Answers until `stop`. `desk`: who sends the jobs of the command line.
pub(crate) async fn serve(
    listener: TcpListener,
    host: Arc<Host>,
    shelf: Shelf,
    desk: Option<Arc<Desk>>,
    stop: CancellationToken,
) {
    let is_loopback = listener
        .local_addr()
        .is_ok_and(|address| address.ip().is_loopback());
    let max_bytes = desk.as_ref().map_or(0, |desk| desk.max_bytes);
    let router = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/workers", get(workers))
        .route("/plugins", get(plugins))
        .route("/plugins/history", get(history))
        .route("/peers", get(peers))
        .merge(jobs::routes(max_bytes))
        .with_state(Admin {
            host,
            shelf,
            desk,
            is_loopback,
        });
    listen::serve(listener, router, MAX_CONNECTIONS, stop).await;
}

async fn index() -> &'static str {
    "warren\n\n\
     /metrics  Prometheus\n\
     /healthz  200 while the process works\n\
     /readyz   200 while every worker consumes; otherwise 503 and each reason\n\
     /workers  the workers of this host\n\
     /plugins  the plugin files and what became of each\n\
     /plugins/history  what has happened to them, the newest first\n\
     /peers    all workers on the broker, those of MicroServices.js included\n\n\
     On the embedded bus, from this machine:\n\n\
     POST /jobs?to=TYPE:*   sends a job; its data is the body, in JSON\n\
     POST /calls?to=TYPE:*  the same, and answers with the reply\n"
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let health = admin.host.bus.health().borrow().clone();
    let metrics = &admin.host.metrics;
    let report = admin.host.bus.peers().unwrap_or_default();
    metrics.gateway(&report);
    if report.is_gateway {
        let workers = report.workers.iter();
        metrics.on_the_bus(workers.map(|worker| worker.id.worker_type().clone()));
    } else {
        let seats = admin.host.registry.all();
        metrics.on_the_bus(seats.iter().map(|seat| seat.id.worker_type().clone()));
    }
    metrics.left_behind(&health.dead_letters, health.n_unrouted);
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn healthz() -> Json<Value> {
    Json(json!({ "healthy": true }))
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let reasons = reasons_not_ready(&admin);
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let notice = admin.host.bus.health().borrow().notice.clone();
    (
        status,
        Json(
            json!({ "ready": reasons.is_empty(), "reasons": reasons, "notice": notice.as_deref() }),
        ),
    )
        .into_response()
}

/// Ready means consuming: each worker of this host, now.
fn reasons_not_ready(admin: &Admin) -> Vec<String> {
    let Admin { host, shelf, .. } = admin;
    let mut reasons = Vec::new();
    if host.ending.is_cancelled() {
        reasons.push("the host is shutting down".to_owned());
    }
    if !shelf.is_started() {
        let files = shelf.files();
        let loading = files.iter().filter_map(|(file, state)| match state {
            FileState::Loading(step, _) => Some(format!("{} ({step})", file_name(file))),
            _ => None,
        });
        let loading: Vec<_> = loading.collect();
        reasons.push(format!(
            "plugins are still being loaded: {}",
            loading.join(", ")
        ));
    }
    let health = host.bus.health().borrow().clone();
    if !health.connected {
        reasons.push("the bus is out of reach".to_owned());
    }
    if let Some(problem) = &health.problem {
        reasons.push(format!("bus: {problem}"));
    }
    for seat in host.registry.all() {
        let worker_type = seat.id.worker_type();
        // A worker that pauses is as it should be; `/workers` and a metric tell.
        if !health.consuming.contains(worker_type) && !seat.is_pausing() {
            reasons.push(format!("worker {worker_type} is not consuming"));
        }
    }
    for (file, state) in shelf.files() {
        if let FileState::Rejected {
            at_start: true,
            old_version_serves: false,
            error,
            ..
        } = state
        {
            reasons.push(format!("plugin {} was rejected: {error}", file_name(&file)));
        }
    }
    reasons
}

async fn workers(State(admin): State<Admin>) -> Json<Value> {
    let seats = admin.host.registry.all();
    let workers: Vec<Value> = seats
        .iter()
        .filter(|seat| seat.has_joined())
        .map(|seat| {
            let version = seat.current();
            let plugin = version.pool.plugin();
            json!({
                "type": seat.id.worker_type().as_str(),
                "id": seat.id.as_str(),
                "plugin": version.file_name(),
                "version": plugin.description.version,
                "digest": plugin.digest.to_string(),
                "summary": plugin.description.summary,
                "takes_jobs": plugin.takes_jobs(),
                "pausing": seat.is_pausing(),
                "http_path": version.http_path,
                "in_flight": version.pool.in_flight(),
                "idle_instances": version.pool.idle_instances(),
                "concurrency": version.pool.worker().limits.concurrency,
            })
        })
        .collect();
    Json(Value::Array(workers))
}

/// The list of the SystemManager: only the gateway knows everybody.
async fn peers(State(admin): State<Admin>) -> Json<Value> {
    let Some(report) = admin.host.bus.peers() else {
        return Json(json!({ "enabled": false, "gateway": false, "workers": [] }));
    };
    let workers: Vec<Value> = report
        .workers
        .iter()
        .map(|worker| {
            json!({
                "type": worker.id.worker_type().as_str(),
                "id": worker.id.as_str(),
                "kind": if worker.is_ours { "warren" } else { "node" },
                "doubted": worker.is_doubted,
            })
        })
        .collect();
    Json(json!({ "enabled": true, "gateway": report.is_gateway, "workers": workers }))
}

async fn plugins(State(admin): State<Admin>) -> Json<Value> {
    let files = admin.shelf.files();
    let plugins: Vec<Value> = files
        .iter()
        .map(|(file, state)| match state {
            FileState::Loading(step, since) => json!({
                "file": file_name(file),
                "state": "loading",
                "step": step,
                "since_ms": since.elapsed().as_millis(),
            }),
            FileState::Serving(version) => serving(file, "serving", version),
            // The digest is that of what serves; what does not is beside it.
            FileState::Held {
                hold,
                serving: version,
            } => {
                let mut entry = serving(file, "rolled-back", version);
                if let Value::Object(entry) = &mut entry {
                    entry.insert("held_digest".to_owned(), json!(hold.digest));
                    entry.insert("error".to_owned(), json!(hold.why));
                }
                entry
            }
            FileState::Rejected {
                digest,
                step,
                error,
                old_version_serves,
                ..
            } => json!({
                "file": file_name(file),
                "state": "rejected",
                "digest": digest.map(|digest| digest.to_string()),
                "step": step,
                "error": error,
                "old_version_serves": old_version_serves,
            }),
        })
        .collect();
    Json(Value::Array(plugins))
}

fn serving(file: &Path, state: &str, version: &Version) -> Value {
    let plugin = version.pool.plugin();
    json!({
        "file": file_name(file),
        "state": state,
        "type": plugin.description.worker_type.as_str(),
        "version": plugin.description.version,
        "digest": plugin.digest.to_string(),
        "size_bytes": plugin.size_bytes,
        "compile_ms": plugin.compile_time.as_millis(),
        "cached": plugin.is_cached,
        "proven": version.trial.judgement() == Judgement::Proven,
    })
}

async fn history(State(admin): State<Admin>) -> Response {
    Json(admin.shelf.history()).into_response()
}
