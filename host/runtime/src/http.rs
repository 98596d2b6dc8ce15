//! One HTTP request, answered by a guest that exports `wasi:http/incoming-handler`.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use warren_protocol::{Slip, WorkerId};
use wasmtime_wasi_http::{Error, WasiHttpView, p2::bindings::http::types::Scheme};

use crate::{
    Fault, Occasion, Permit, Plugin, Worker,
    reuse::{Dropped, Instances},
    run,
    state::Sends,
};

/// A body on its way; the error is a text for the log.
pub type HttpBody = UnsyncBoxBody<Bytes, std::io::Error>;
/// A request as the host's HTTP server has it.
pub type HttpRequest = http::Request<HttpBody>;

/// A response whose head the host may send once the sends are confirmed.
#[derive(Debug)]
pub struct HttpResponse {
    /// Head and streaming body.
    pub response: http::Response<HttpBody>,
    /// What the guest sent before its response: to be published before the head leaves.
    pub sends: Vec<Slip>,
    /// Resolves when the guest has finished: what it sent after its response, or why it failed.
    /// What it sends after this has been dropped is lost, with a line in the log.
    pub rest: oneshot::Receiver<Result<Vec<Slip>, Fault>>,
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The guest failed before it responded.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The guest ended without a response, or answered with an error code.
    #[error("the guest gave no response: {0}")]
    NoResponse(String),
}

/// Answers one request.
///
/// # Cancel safety
/// Dropping the future before it resolves does not stop the guest: it runs on to its end or its
/// deadline and holds its permit meanwhile; `stop` stops it. What it sends has nobody to publish
/// it then, and is lost with a line in the log. A caller whose client may leave awaits this in a
/// task of its own.
pub(crate) async fn serve(
    plugin: Arc<Plugin>,
    worker: &Arc<Worker>,
    instances: Arc<Instances>,
    permit: Permit,
    request: HttpRequest,
    occasion: Occasion,
    stop: CancellationToken,
) -> Result<HttpResponse, HttpError> {
    let Some(indices) = plugin.http.clone() else {
        return Err(HttpError::NoResponse(
            "this worker does not serve HTTP".to_owned(),
        ));
    };
    let (worker_id, job_id) = (worker.id.clone(), occasion.job_id.clone());
    let secrets = worker.reach.secrets.clone();
    let hide = move |text: &str| secrets.hide(text).into_owned();
    let run = run::begin(worker, occasion, worker.limits.deadline, stop.clone());
    let sends: Arc<Sends> = run.sends.clone();
    let mut instance = instances.instance(&plugin, run);
    let (head_sender, head) = oneshot::channel();
    let request =
        request.map(|body| body.map_err(|error| Error::InternalError(Some(error.to_string()))));
    let (limits, symbols) = (worker.limits.clone(), plugin.symbols.clone());
    let clock = instance.store.data().run.meter.clock();
    let (rest_sender, rest) = oneshot::channel();
    let (early_taken, early_are_taken) = oneshot::channel::<()>();
    let late_sends = sends.clone();
    // A task of its own: the guest goes on streaming the body when the head has left.
    let scheduling = plugin.scheduling.clone();
    let load = instances.load.clone();
    let run = Box::pin(async move {
        let ended = {
            let run = pin!(async {
                let guest = instance.start(&plugin).await?;
                let store = &mut instance.store;
                let mut http = store.data_mut().http();
                let request = match http.new_incoming_request(Scheme::Http, request) {
                    Ok(request) => request,
                    Err(error) => return Ok(Err(Fault::Host(error.to_string()))),
                };
                let out = http.new_response_outparam(head_sender)?;
                let guest = indices.load(&mut *store, &guest)?;
                let handler = guest.wasi_http_incoming_handler();
                handler.call_handle(store, request, out).await.map(Ok)
            });
            run::bounded(run, &limits, &stop).await
        };
        let result = match ended {
            Err(fault) => Err(fault),
            Ok(Err(error)) => {
                symbols.report(&error, &worker_id, &job_id).await;
                Err(run::read_fault(&error, &instance.store))
            }
            Ok(Ok(answered)) => answered,
        };
        instance.store.data().log.finish();
        // The channel to the head is closed with what the guest holds: a guest that never answered
        // is known by that.
        let unheld = match &result {
            Ok(()) => instances.unless_held(instance),
            Err(_) => {
                drop(instance);
                None
            }
        };
        // The guest may be done before anybody has looked at its response: what it sent before
        // that must not be taken for late.
        let is_answered = early_are_taken.await.is_ok();
        match unheld {
            Some(instance) if is_answered => instances.give_back(instance),
            Some(instance) => instance.drop_for(Dropped::Unanswered),
            None => {}
        }
        let rest = result.map(|()| late_sends.take());
        if let Err(unclaimed) = rest_sender.send(rest) {
            report(&worker_id, &job_id, unclaimed);
        }
        drop(permit);
    });
    tokio::spawn(async move { scheduling.background.run(&load, clock, run).await });

    let head = head.await;
    let sends = sends.take();
    match head {
        Ok(Ok(response)) => {
            // Nobody listens when the run has failed since.
            let _ = early_taken.send(());
            Ok(HttpResponse {
                response: response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()),
                sends,
                rest,
            })
        }
        Ok(Err(code)) => {
            // The guest may have put a text of its own into it.
            let mut text = hide(&format!("{code:?}"));
            text.truncate(text.floor_char_boundary(MAX_REASON_BYTES));
            Err(HttpError::NoResponse(text))
        }
        Err(_) => {
            drop(early_taken);
            match rest.await {
                Ok(Err(fault)) => Err(fault.into()),
                _ => Err(HttpError::NoResponse("it ended without one".to_owned())),
            }
        }
    }
}

/// The longest reason that a guest may give for not answering, in bytes.
const MAX_REASON_BYTES: usize = 1 << 10;

/// Says what becomes of a run when nobody waits for its end any more.
fn report(worker: &WorkerId, job_id: &str, unclaimed: Result<Vec<Slip>, Fault>) {
    match unclaimed {
        Ok(sends) if sends.is_empty() => {}
        Ok(sends) => tracing::warn!(
            worker.id = %worker,
            job.id = job_id,
            lost = sends.len(),
            "nobody waits for this request: what it sent is lost"
        ),
        Err(error) => tracing::warn!(
            worker.id = %worker,
            job.id = job_id,
            %error,
            "nobody waits for this request: it has failed"
        ),
    }
}
