//! `wasi:http/outgoing-handler`: HTTP requests to hosts that the operator has named.
//!
//! Each request is judged by itself: a redirect comes back to the guest, whose next request is one
//! like its first. No proxy is taken from anywhere. A connection whose response was read to its end is
//! kept for a few seconds, for the next request of the same worker type to the same place.
//!
//! Invariant: what is logged of a request is where it wanted to go. Never a path, a query, a header
//! or a body.

mod body;
mod client;
mod connect;
mod connections;
mod trust;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::OwnedSemaphorePermit;
use warren_protocol::WorkerType;
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

pub use self::trust::{Trust, TrustError};
use self::{
    client::Failed,
    connections::{Connection, Connections, Lease},
};
use crate::{Worker, grants::Destination};

/// How long connecting may take, unless the guest says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What the log has said, it does not say again for this long.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// What the log remembers to have said. A guest can ask for any number of hosts.
const MAX_SAID: usize = 1000;
/// Of them, those of one worker type.
const MAX_SAID_EACH: usize = 20;

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// The outgoing HTTP of one host: what all its workers have in common.
pub struct Outgoing {
    requests: IntCounterVec,
    opened: IntCounterVec,
    /// Those of each worker type, whichever version of it has opened them.
    connections: Mutex<HashMap<WorkerType, Arc<Connections>>>,
    said: Mutex<HashMap<(WorkerType, String), Instant>>,
    detour: Option<Detour>,
}

/// Where every request goes instead of the host that it names: for tests of guests, which must not
/// reach anybody. What a worker may ask for is judged as always, by the name that it asks for. TLS is
/// left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detour {
    /// Instead of `http://` hosts.
    pub http: SocketAddr,
    /// Instead of `https://` hosts; spoken to without TLS.
    pub https: SocketAddr,
}

/// The requests of one run.
#[derive(Clone)]
pub(crate) struct Requests {
    worker: Arc<Worker>,
    deadline: Instant,
    usage: Arc<Usage>,
}

/// What a run has used up.
struct Usage {
    n_requests: AtomicU32,
    left_bytes: AtomicU64,
}

/// The right to one request. Held by the response, and by the thread that looks a name up: that one
/// goes on when nobody waits for it any more.
type Slot = Arc<OwnedSemaphorePermit>;

/// How long the parts of a request may take.
#[derive(Clone, Copy)]
struct Timeouts {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
    /// When all of it has to be over.
    until: Instant,
}

/// Why the host does not make a request, and what the operator could write to change that.
struct Refusal {
    error: Error,
    what: &'static str,
    remedy: String,
}

impl Outgoing {
    /// Counts requests in the host's registry.
    ///
    /// # Errors
    /// When the registry has a metric of the name `warren_outgoing_http_requests_total` or
    /// `warren_outgoing_http_connections_total` already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "warren_outgoing_http_requests_total",
                "HTTP requests of workers to other hosts by what came of them",
            ),
            &["worker", "result"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let opened = IntCounterVec::new(
            Opts::new(
                "warren_outgoing_http_connections_total",
                "Connections that were opened for HTTP requests of workers to other hosts",
            ),
            &["worker"],
        )?;
        registry.register(Box::new(opened.clone()))?;
        Ok(Self {
            requests,
            opened,
            connections: Mutex::default(),
            said: Mutex::default(),
            detour: None,
        })
    }

    /// The same, with all requests led elsewhere.
    #[must_use]
    pub fn led_to(self, detour: Detour) -> Self {
        Self {
            detour: Some(detour),
            ..self
        }
    }

    fn connections(&self, worker: &Worker) -> Arc<Connections> {
        let all = &self.connections;
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(worker.id.worker_type().clone())
            .or_insert_with(|| Arc::new(Connections::new(worker.limits.http_connections)))
            .clone()
    }

    /// Whether this is worth a line in the log: it has not been said lately.
    fn is_news(&self, worker_type: &WorkerType, what: String) -> bool {
        let now = Instant::now();
        let is_recent = |said: &Instant| now.duration_since(*said) < SAY_AGAIN;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (worker_type.clone(), what);
        if said.get(&key).is_some_and(is_recent) {
            return false;
        }
        // One worker must not use up what the others have to say.
        let n_own = said
            .iter()
            .filter(|((other, _), when)| other == worker_type && is_recent(when))
            .count();
        if n_own >= MAX_SAID_EACH {
            return false;
        }
        if said.len() >= MAX_SAID {
            said.retain(|_, when| is_recent(when));
        }
        let has_room = said.len() < MAX_SAID;
        if has_room {
            said.insert(key, now);
        }
        has_room
    }
}

impl Requests {
    pub(crate) fn new(worker: &Arc<Worker>, deadline: Instant) -> Self {
        Self {
            usage: Arc::new(Usage {
                n_requests: AtomicU32::new(0),
                left_bytes: AtomicU64::new(worker.limits.http_transfer_bytes),
            }),
            worker: worker.clone(),
            deadline,
        }
    }

    async fn send(
        &self,
        request: http::Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<http::Response<WasiBody>> {
        // A tunnel would lead past all that is checked here.
        if request.method() == http::Method::CONNECT {
            return Err(Error::HttpRequestMethodInvalid);
        }
        let destination = Destination::of(request.uri()).ok_or(Error::HttpRequestUriInvalid)?;
        let sent = self.send_to(&destination, request, options).await;
        sent.map_err(|refusal| self.refuse(&destination, refusal))
    }

    async fn send_to(
        &self,
        destination: &Destination,
        request: http::Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<http::Response<WasiBody>, Refusal> {
        let Worker { limits, reach, .. } = &*self.worker;
        // Those that are refused count: each may be a line in the log.
        let n_before = self.usage.n_requests.fetch_add(1, Ordering::Relaxed);
        if n_before >= limits.http_requests {
            return Err(Refusal {
                error: Error::ConnectionLimitReached,
                what: "the run has made as many requests as one may",
                remedy: format!("raise http_requests, which is {}", limits.http_requests),
            });
        }
        if reach.grants.origin(destination).is_none() {
            return Err(Refusal {
                error: Error::HttpRequestDenied,
                what: "the operator does not let it go there",
                remedy: format!("add \"{destination}\" to outgoing_http"),
            });
        }
        let timeouts = self.timeouts(options);
        let started = Instant::now();
        let home = self.worker.outgoing.connections(&self.worker);
        let Ok(Ok(slot)) = home.slot(timeouts.connect).await else {
            return Err(Refusal {
                error: Error::ConnectionLimitReached,
                what: "the worker has as many requests under way as it may",
                remedy: format!(
                    "raise http_connections, which is {}",
                    limits.http_connections
                ),
            });
        };
        let slot = Arc::new(slot);
        let left_to_connect = timeouts.connect.saturating_sub(started.elapsed());
        let lease = |connection: Connection| Lease {
            connection,
            destination: destination.clone(),
            home: home.clone(),
            keep: Duration::ZERO,
            slot: slot.clone(),
        };
        let header_bytes = limits.http_header_bytes;
        let mut request = client::form(request, &self.usage)?;
        // The server may have closed it in the meantime, and perhaps all that wait: then on a new one.
        if let Some(waiting) = home.take(destination) {
            let sent = client::send(lease(waiting), request, timeouts, header_bytes, &self.usage);
            match sent.await {
                Ok(response) => return Ok(response),
                Err(Failed::With(error)) => return Err(error.into()),
                Err(Failed::Closed(unsent)) => request = *unsent,
            }
        }
        let until = timeouts.until.min(Instant::now() + left_to_connect);
        let stream = match self.worker.outgoing.detour {
            Some(detour) => connect::led(destination, detour, until).await?,
            None => {
                let allowed = connect::Allowed {
                    // An address that the operator has written is granted; what a name stands for
                    // is not his word.
                    any: reach.grants.names_address(destination),
                    ranges: &reach.grants.private_addresses,
                };
                let trust = reach.trust.as_ref();
                connect::connect(destination, allowed, trust, until, &slot).await?
            }
        };
        let connection = client::open(stream, header_bytes).await?;
        let opened = &self.worker.outgoing.opened;
        opened
            .with_label_values(&[self.worker.id.worker_type().as_str()])
            .inc();
        let sent = client::send(
            lease(connection),
            request,
            timeouts,
            header_bytes,
            &self.usage,
        );
        sent.await.map_err(|failed| match failed {
            Failed::With(error) => error.into(),
            Failed::Closed(_) => Error::ConnectionTerminated.into(),
        })
    }

    /// What the guest asks for, within what its run has left. A little of that is kept, in which the
    /// guest can still say what went wrong.
    fn timeouts(&self, options: RequestOptions) -> Timeouts {
        const RESERVE: Duration = Duration::from_millis(100);
        let left = self.deadline.saturating_duration_since(Instant::now());
        let left = left.saturating_sub(RESERVE.min(left / 10));
        Timeouts {
            connect: options.connect_timeout.unwrap_or(CONNECT_TIMEOUT).min(left),
            first_byte: options.first_byte_timeout.unwrap_or(left).min(left),
            between_bytes: options.between_bytes_timeout.unwrap_or(left).min(left),
            until: Instant::now() + left,
        }
    }

    /// Tells the operator, once in a while, what the guest is told each time.
    fn refuse(&self, destination: &Destination, refusal: Refusal) -> Error {
        let Refusal {
            error,
            what,
            remedy,
        } = refusal;
        let worker_type = self.worker.id.worker_type();
        if remedy.is_empty() {
            return error;
        }
        if self
            .worker
            .outgoing
            .is_news(worker_type, format!("{destination} {what}"))
        {
            let host = destination.to_string();
            let remedy = self.worker.reach.secrets.hide(&remedy);
            tracing::warn!(
                "worker.type" = %worker_type,
                "worker.id" = %self.worker.id,
                host = %self.worker.reach.secrets.hide(&host),
                reason = what,
                remedy = format!("{remedy} under [workers.{worker_type}]"),
                "outgoing HTTP request refused"
            );
        }
        error
    }
}

impl From<Error> for Refusal {
    /// What goes wrong on the way is the guest's to know, and no decision of the operator's.
    fn from(error: Error) -> Self {
        Self {
            error,
            what: "",
            remedy: String::new(),
        }
    }
}

impl Usage {
    /// Takes so many bytes off what the run may transfer; `false` when there are not as many left.
    fn take(&self, n_bytes: usize) -> bool {
        let n_bytes = u64::try_from(n_bytes).unwrap_or(u64::MAX);
        self.left_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(n_bytes)
            })
            .is_ok()
    }
}

/// The word for the metric.
fn result<T>(response: &Result<T>) -> &'static str {
    match response {
        Ok(_) => "answered",
        Err(Error::HttpRequestDenied | Error::DestinationIpProhibited) => "refused",
        Err(Error::ConnectionLimitReached) => "limit",
        Err(
            Error::DnsTimeout
            | Error::ConnectionTimeout
            | Error::ConnectionReadTimeout
            | Error::HttpResponseTimeout,
        ) => "timeout",
        Err(_) => "failed",
    }
}

impl WasiHttpHooks for Requests {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Io,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Io)>> + Send> {
        let run = self.clone();
        Box::new(async move {
            let response = run.send(request, options.unwrap_or_default()).await;
            let worker_type = run.worker.id.worker_type();
            let labels = [worker_type.as_str(), result(&response)];
            let requests = &run.worker.outgoing.requests;
            requests.with_label_values(&labels).inc();
            // Whatever goes wrong with the connection from here on, the body tells.
            let nothing_more: Io = Box::new(async { Ok(()) });
            response.map(|response| (response, nothing_more))
        })
    }
}
