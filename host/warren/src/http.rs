//! The port for HTTP workers: a request goes to the worker with the longest matching path prefix.
//! Every answer that is not the worker's own is `application/problem+json` (RFC 9457).

mod problem;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, body::Body, extract::State, response::Response};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use warren_runtime::{HttpError, HttpResponse, Occasion};

use crate::{
    clock::now_ms,
    host::Host,
    registry::{Seat, Version},
    settle,
    telemetry::logs::WORKER_TARGET,
};

pub(crate) use problem::problem;

/// How much of a refused body is still read, and for how long.
const LINGER_BYTES: usize = 64 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// Answers requests until `stop`, then finishes those that have begun.
///
/// # Errors
/// When the listener fails.
pub(crate) async fn serve(
    listener: TcpListener,
    host: Arc<Host>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new().fallback(answer).with_state(host);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .context("the HTTP server for workers failed")
}

async fn answer(State(host): State<Arc<Host>>, request: Request<Body>) -> Response {
    let _being_answered = host.requests.token();
    let Some(seat) = host.registry.route(request.uri().path()) else {
        let detail = format!("no worker serves {}", request.uri().path());
        host.metrics.answered("", 404);
        return problem(StatusCode::NOT_FOUND, &detail);
    };
    let response = match ask(&host, &seat, request).await {
        Ok(response) => response,
        Err(refusal) => {
            let worker_type = seat.id.worker_type();
            tracing::warn!(
                target: WORKER_TARGET,
                {
                    "worker.type" = %worker_type,
                    status = refusal.status.as_u16(),
                    reason = refusal.detail,
                },
                "request failed"
            );
            problem(refusal.status, &refusal.detail)
        }
    };
    let status = response.status().as_u16();
    host.metrics
        .answered(seat.id.worker_type().as_str(), status);
    response
}

/// Why the host answers in the worker's place.
struct Refusal {
    status: StatusCode,
    detail: String,
}

impl Refusal {
    fn error(detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            detail: detail.into(),
        }
    }
}

async fn ask(
    host: &Arc<Host>,
    seat: &Arc<Seat>,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    let limits = seat.current().pool.worker().limits.clone();
    let (deadline, limit) = (limits.deadline, limits.payload_bytes);
    if announced_length(&request).is_some_and(|length| length > limit) {
        discard(request.into_body()).await;
        return Err(Refusal {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            detail: format!("the body may have {limit} bytes"),
        });
    }
    let granted = tokio::time::timeout(deadline, seat.permit()).await;
    let Ok((version, Some(permit))) = granted else {
        return Err(Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            detail: format!("every instance of worker {} is busy", seat.id.worker_type()),
        });
    };
    let occasion = Occasion {
        job_id: warren_protocol::job_id(now_ms()),
        attempt: 1,
        correlation_id: None,
        trace_parent: text_header(&request, "traceparent"),
    };
    let request = request.map(|body| {
        Limited::new(body, limit)
            .map_err(std::io::Error::other)
            .boxed_unsync()
    });
    let answered = version
        .pool
        .serve(permit, request, occasion, seat.interrupt.child_token())
        .await;
    let answer = answered.map_err(|error| Refusal::error(describe(seat, &error)))?;
    finish(host, seat, &version, answer).await
}

/// Lets the head go when what the guest sent before it is safe; follows the guest to its end.
async fn finish(
    host: &Arc<Host>,
    seat: &Arc<Seat>,
    version: &Arc<Version>,
    answer: HttpResponse,
) -> Result<Response, Refusal> {
    let HttpResponse {
        response,
        sends,
        rest,
    } = answer;
    publish(host, seat, sends).await.map_err(Refusal::error)?;
    let (follower, seat, version) = (host.clone(), seat.clone(), version.clone());
    host.work.spawn(async move {
        // The version is held until its guest has ended: `/workers` shows what still runs.
        let _version = version;
        let late = match rest.await {
            Ok(Ok(sends)) => publish(&follower, &seat, sends).await,
            Ok(Err(fault)) => Err(fault.to_string()),
            Err(_) => Err("the guest was dropped".to_owned()),
        };
        if let Err(error) = late {
            tracing::warn!(
                target: WORKER_TARGET,
                { "worker.type" = %seat.id.worker_type(), error },
                "a request failed after its response had begun"
            );
        }
    });
    Ok(response.map(Body::new))
}

async fn publish(
    host: &Arc<Host>,
    seat: &Seat,
    sends: Vec<warren_protocol::Slip>,
) -> Result<(), String> {
    if sends.is_empty() {
        return Ok(());
    }
    let messages = settle::sent_by_request(host, seat, sends)?;
    settle::publish_all(host, messages).await
}

fn describe(seat: &Seat, error: &HttpError) -> String {
    format!("worker {}: {error}", seat.id.worker_type())
}

/// Reads on for a while: who is cut off in the middle of sending sees a broken connection instead
/// of the answer.
async fn discard(body: Body) {
    let mut body = Limited::new(body, LINGER_BYTES);
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

fn announced_length(request: &Request<Body>) -> Option<usize> {
    text_header(request, header::CONTENT_LENGTH.as_str())?
        .parse()
        .ok()
}

fn text_header(request: &Request<Body>, name: &str) -> Option<String> {
    Some(request.headers().get(name)?.to_str().ok()?.to_owned())
}
