//! The port for HTTP workers: a request goes to the worker with the longest matching path prefix.
//! Every answer that is not the worker's own is `application/problem+json` (RFC 9457).

mod problem;

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::State, response::Response};
use http::{HeaderValue, Request, StatusCode, Version, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tokio::{
    net::TcpListener,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use warren_runtime::{Fault, HttpError, HttpRequest, HttpResponse, Occasion};

use crate::{
    clock::now_ms,
    host::Host,
    listen,
    pausing::is_the_hosts,
    registry::{self, Seat},
    settle,
    telemetry::logs::WORKER_TARGET,
    trial::Evidence,
};

pub(crate) use problem::problem;

/// How long a client may take to send the body of a request. Nothing of a worker is used up in the
/// meantime.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a body that is too large is still read, and for how long: who is cut off in the
/// middle of sending sees a broken connection instead of the answer.
const LINGER_BYTES: usize = 64 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// Answers requests until `stop`, then finishes those that have begun.
pub(crate) async fn serve(listener: TcpListener, host: Arc<Host>, stop: CancellationToken) {
    let router = Router::new().fallback(answer).with_state(host);
    listen::serve(listener, router, listen::room_for_workers(), stop).await;
}

pub(crate) async fn answer(State(host): State<Arc<Host>>, request: Request<Body>) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let Some(seat) = host.registry.route(&path) else {
        host.metrics.answered("", 404);
        return problem(StatusCode::NOT_FOUND, &format!("no worker serves {path}"));
    };
    let job_id = warren_protocol::job_id(now_ms());
    // A task of its own: a client that goes away takes this future with it, but not the work that
    // has begun.
    let (asked, asking, id) = (seat.clone(), host.clone(), job_id.clone());
    let (answering, run) = (host.requests.token(), seat.runs.token());
    let answer = host.work.spawn(async move {
        let (_answering, _run) = (answering, run);
        ask(&asking, &asked, id, request).await
    });
    let lost = |error: tokio::task::JoinError| Err(Refusal::error(error.to_string()));
    let (response, reason) = match answer.await.unwrap_or_else(lost) {
        Ok(response) => (response, "the worker's own answer".to_owned()),
        Err(refusal) => (problem(refusal.status, &refusal.detail), refusal.detail),
    };
    let worker_type = seat.id.worker_type();
    let status = response.status();
    host.metrics.answered(worker_type.as_str(), status.as_u16());
    if status.is_server_error() {
        tracing::warn!(
            target: WORKER_TARGET,
            {
                "worker.type" = %worker_type,
                "job.id" = job_id,
                %method,
                path,
                status = status.as_u16(),
                reason,
            },
            "request failed"
        );
    }
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
    job_id: String,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    let limits = seat.current().pool.worker().limits.clone();
    let request = receive(request, limits.payload_bytes).await?;
    // One deadline for the rest: waiting, running, and making safe what was sent.
    let deadline = limits.deadline;
    let end = Instant::now() + deadline;
    let granted = timeout_at(end, seat.permit()).await;
    let Ok((version, Some(permit))) = granted else {
        return Err(Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            detail: format!("every instance of worker {} is busy", seat.id.worker_type()),
        });
    };
    let job = job_id.clone();
    let occasion = Occasion {
        job_id,
        attempt: 1,
        correlation_id: None,
        trace_parent: text_header(&request, "traceparent"),
    };
    let stop = seat.interrupt.child_token();
    let answering = version.pool.serve(permit, request, occasion, stop.clone());
    let answered = timeout_at(end, answering).await.unwrap_or_else(|_| {
        stop.cancel();
        Err(Fault::Deadline(deadline).into())
    });
    judge(host, &version, &job, answered.as_ref().err());
    let answer = answered.map_err(|error| Refusal {
        status: match error {
            HttpError::Fault(Fault::Busy(_)) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
        detail: describe(seat, &error),
    })?;
    let finished = timeout_at(end, finish(host, seat, &version, answer)).await;
    finished.unwrap_or_else(|_| {
        Err(Refusal::error(format!(
            "worker {}: the bus did not take in time what it sent",
            seat.id.worker_type()
        )))
    })
}

/// Takes in what a request says about the version that answered it.
fn judge(host: &Host, version: &registry::Version, job_id: &str, error: Option<&HttpError>) {
    let evidence = match error {
        None => Evidence::Good,
        Some(HttpError::Fault(fault)) if is_the_hosts(fault) => Evidence::None,
        Some(_) => Evidence::Failed,
    };
    let words = || error.map(HttpError::to_string).unwrap_or_default();
    if version.trial.note(evidence, job_id, words).is_some() {
        host.judged.notify_one();
    }
}

/// Lets the head go when what the guest sent before it is safe; follows the guest to its end.
async fn finish(
    host: &Arc<Host>,
    seat: &Arc<Seat>,
    version: &Arc<registry::Version>,
    answer: HttpResponse,
) -> Result<Response, Refusal> {
    let HttpResponse {
        response,
        sends,
        rest,
    } = answer;
    publish(host, seat, sends).await.map_err(Refusal::error)?;
    let (follower, seat, version) = (host.clone(), seat.clone(), version.clone());
    let run = seat.runs.token();
    host.work.spawn(async move {
        // Held until the guest has ended: `/workers` shows what still runs, a drain waits for it.
        let _held = (version, run);
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
    settle::publish_for_request(host, seat, messages).await
}

fn describe(seat: &Seat, error: &HttpError) -> String {
    format!("worker {}: {error}", seat.id.worker_type())
}

/// Takes a whole request in, before it uses up anything of a worker: a slow client must not hold an
/// instance.
async fn receive(request: Request<Body>, limit: usize) -> Result<HttpRequest, Refusal> {
    let refusal = |status, detail: &str| Refusal {
        status,
        detail: detail.to_owned(),
    };
    let (mut head, body) = request.into_parts();
    match head.headers.get_all(header::HOST).iter().count() {
        1 => {}
        0 if head.version <= Version::HTTP_10 || head.uri.authority().is_some() => {
            let host = HeaderValue::from_static("localhost");
            head.headers.insert(header::HOST, host);
        }
        _ => {
            let detail = "the request needs one `Host` header";
            return Err(refusal(StatusCode::BAD_REQUEST, detail));
        }
    }
    let too_large = format!("the body may have {limit} bytes");
    let announced = head.headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        discard(body).await;
        return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, &too_large));
    }
    let received = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await;
    match received {
        Ok(Ok(body)) => {
            let body = Full::new(body.to_bytes()).map_err(|never| match never {});
            Ok(Request::from_parts(head, body.boxed_unsync()))
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, &too_large))
        }
        Ok(Err(_)) => Err(refusal(
            StatusCode::BAD_REQUEST,
            "the body did not arrive whole",
        )),
        Err(_) => {
            let detail = format!("the body did not arrive within {BODY_TIMEOUT:?}");
            Err(refusal(StatusCode::REQUEST_TIMEOUT, &detail))
        }
    }
}

/// Reads on for a while and forgets what it reads.
async fn discard(body: Body) {
    let mut body = Limited::new(body, LINGER_BYTES);
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

fn text_header(request: &HttpRequest, name: &str) -> Option<String> {
    Some(request.headers().get(name)?.to_str().ok()?.to_owned())
}
