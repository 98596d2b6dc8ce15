//! Jobs from the command line: `POST /jobs` sends one, `POST /calls` waits for its reply.
//!
//! Whoever may do this may do what workers do. So it is only there where nobody else could send jobs
//! (the embedded bus), where the port cannot be reached from other machines, and not for a page in the
//! operator's browser, which reaches 127.0.0.1 as well: such a request names its origin, or a host that
//! is not this machine, or cannot say that it sends JSON.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Query, State},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri, header};
use serde::Deserialize;
use warren_protocol::{CallError, Encoding, Payload, Slip, Stop, job_id};

use super::Admin;
use crate::{clock::now_ms, desk::Desk, http::problem};

const JSON: &str = "application/json";
/// The longest that a call waits.
const LONGEST_CALL: Duration = Duration::from_secs(24 * 3600);

/// The query of a request.
#[derive(Deserialize)]
struct Asked {
    /// The stops, with commas between.
    to: String,
    /// The id of the job; one is made where there is none.
    id: Option<String>,
    /// How long a call waits.
    timeout_ms: Option<u64>,
}

/// The two routes. `max_bytes`: the largest body.
pub(super) fn routes(max_bytes: usize) -> Router<Admin> {
    Router::new()
        .route("/jobs", post(send))
        .route("/calls", post(call))
        .layer(DefaultBodyLimit::max(max_bytes))
}

async fn send(
    State(admin): State<Admin>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (desk, id, slip) = match take(&admin, &asked, &headers, body) {
        Ok(taken) => taken,
        Err(refusal) => return *refusal,
    };
    match desk.send(id.clone(), slip).await {
        Ok(()) => {
            let said = axum::Json(serde_json::json!({ "id": id }));
            (StatusCode::ACCEPTED, said).into_response()
        }
        Err(error) => told(&id, &error),
    }
}

async fn call(
    State(admin): State<Admin>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (desk, id, slip) = match take(&admin, &asked, &headers, body) {
        Ok(taken) => taken,
        Err(refusal) => return *refusal,
    };
    let timeout = asked.timeout_ms.map(Duration::from_millis);
    let timeout = timeout.unwrap_or(desk.call_timeout).min(LONGEST_CALL);
    let reply = desk.call(id.clone(), slip, timeout).await;
    let json = reply.and_then(|data| {
        let json = data.to(Encoding::Json).and_then(|data| data.to_bytes());
        json.map_err(|error| CallError::Invalid {
            reason: format!("the reply cannot be written as JSON: {error}"),
        })
    });
    match json {
        Ok(json) => ([(header::CONTENT_TYPE, JSON)], json).into_response(),
        Err(error) => told(&id, &error),
    }
}

/// Checks who asks, and reads what is asked for.
fn take(
    admin: &Admin,
    asked: &Asked,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<(Arc<Desk>, String, Slip), Box<Response>> {
    let desk = admin.desk.as_ref().ok_or_else(|| {
        let detail = "this host is on a RabbitMQ: send jobs there; `warren send` and `warren call` do, \
                      with --broker or WARREN_BROKER";
        Box::new(problem(StatusCode::CONFLICT, detail))
    })?;
    if let Err(detail) = is_local(admin, headers) {
        return Err(Box::new(problem(StatusCode::FORBIDDEN, detail)));
    }
    let id = asked.id.clone().unwrap_or_else(|| job_id(now_ms()));
    let refuse = |error: CallError| Box::new(told(&id, &error));
    let invalid = |reason: String| refuse(CallError::Invalid { reason });
    let content_type = headers.get(header::CONTENT_TYPE);
    if content_type.and_then(|name| name.to_str().ok()) != Some(JSON) {
        let detail = format!("the body is JSON, and its content-type {JSON}");
        let refusal = problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, &detail);
        return Err(Box::new(refusal));
    }
    let stops: Vec<_> = asked.to.split(',').map(Stop::new).collect();
    for stop in &stops {
        stop.address().map_err(|error| invalid(error.to_string()))?;
    }
    if admin.host.ending.is_cancelled() {
        let reason = "the host is shutting down".to_owned();
        return Err(refuse(CallError::Unavailable { reason }));
    }
    let data = Payload::new(Encoding::Json, body);
    let data = data.map_err(|error| invalid(format!("the data is not JSON: {error}")))?;
    Ok((desk.clone(), id, Slip { stops, data }))
}

/// Whether a program on this machine asks, and no page in a browser.
fn is_local(admin: &Admin, headers: &HeaderMap) -> Result<(), &'static str> {
    if !admin.is_loopback {
        return Err(
            "this port can be reached from other machines, so it takes no jobs: let it listen on \
             127.0.0.1 (--admin), or use a RabbitMQ",
        );
    }
    if headers.contains_key(header::ORIGIN) {
        return Err("a page in a browser may not send jobs");
    }
    let host = headers.get(header::HOST).and_then(|host| {
        let uri: Uri = host.to_str().ok()?.parse().ok()?;
        Some(uri.host()?.trim_matches(['[', ']']).to_owned())
    });
    let is_this = host.is_some_and(|host| {
        host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    });
    if is_this {
        Ok(())
    } else {
        Err("the `Host` of the request is not this machine: ask for 127.0.0.1")
    }
}

/// A problem document with the error, typed.
fn told(id: &str, error: &CallError) -> Response {
    let status = match error {
        CallError::Invalid { .. } => StatusCode::BAD_REQUEST,
        CallError::UnknownType { .. } => StatusCode::NOT_FOUND,
        CallError::QueueFull { .. } => StatusCode::TOO_MANY_REQUESTS,
        CallError::NoLiveWorker { .. } | CallError::Unavailable { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        CallError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        CallError::Failed { .. } => StatusCode::BAD_GATEWAY,
    };
    let document = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": error.to_string(),
        "id": id,
        "error": error,
    });
    let headers = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, headers, document.to_string()).into_response()
}
