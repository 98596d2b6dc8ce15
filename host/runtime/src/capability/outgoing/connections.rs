//! The connections of one worker type: how many requests may be under way at once, and the
//! connections that wait for the next request to where they lead.
//!
//! Invariant: a connection is used again only by its own worker type, for the scheme, host and port
//! that it was opened for, after its last response was read to the end.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use http::{HeaderMap, header::HeaderName};
use hyper::client::conn::http1;
use tokio::{
    runtime::Handle,
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::{error::Elapsed, sleep, timeout},
};
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;

use super::{Slot, body::Sent};
use crate::grants::Destination;

/// How long a connection waits for a request, where the server does not say. Node's servers close
/// after 5 s, and a request that crosses that on its way is lost.
const IDLE: Duration = Duration::from_secs(4);
/// However long the server would wait.
const LONGEST_IDLE: Duration = Duration::from_secs(60);
/// What is kept clear of the moment at which the server closes.
const CLEARANCE: Duration = Duration::from_secs(1);
/// A name may stand for another address by then.
const LONGEST_LIFE: Duration = Duration::from_secs(300);
/// How long a connection may take to be ready again, when a response was read before its request
/// was written to the end.
const GETTING_READY: Duration = Duration::from_secs(1);
/// How often what has waited for too long is closed.
const SWEEP: Duration = Duration::from_secs(1);

/// A connection to one destination. It closes when it is dropped.
pub(super) struct Connection {
    pub(super) sender: http1::SendRequest<Sent>,
    /// Moves its bytes.
    _driver: AbortOnDropJoinHandle<()>,
    opened: Instant,
    /// Whether it has carried a request before.
    pub(super) is_used: bool,
}

/// See the module.
pub(super) struct Connections {
    /// The requests that may be under way.
    slots: Arc<Semaphore>,
    /// As many connections may wait as there may be requests.
    most_idle: usize,
    idle: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// The one that has waited for longest first.
    line: VecDeque<Idle>,
    /// Whether somebody looks through it once in a while.
    is_swept: bool,
}

struct Idle {
    destination: Destination,
    connection: Connection,
    until: Instant,
}

/// A connection while its response is read, and what has to be known to keep it afterwards.
pub(super) struct Lease {
    pub(super) connection: Connection,
    pub(super) destination: Destination,
    pub(super) home: Arc<Connections>,
    /// How long it may wait for the next request.
    pub(super) keep: Duration,
    /// The request is under way as long as this is there.
    pub(super) slot: Slot,
}

impl Connection {
    pub(super) fn new(sender: http1::SendRequest<Sent>, driver: AbortOnDropJoinHandle<()>) -> Self {
        Self {
            sender,
            _driver: driver,
            opened: Instant::now(),
            is_used: false,
        }
    }
}

impl Connections {
    pub(super) fn new(most: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(most)),
            most_idle: most,
            idle: Mutex::default(),
        }
    }

    /// The right to one request, when there is one within this time.
    pub(super) async fn slot(
        &self,
        within: Duration,
    ) -> Result<Result<OwnedSemaphorePermit, AcquireError>, Elapsed> {
        timeout(within, self.slots.clone().acquire_owned()).await
    }

    /// A connection that has waited for this. The youngest: the server is the least likely to be
    /// about to close it.
    pub(super) fn take(&self, destination: &Destination) -> Option<Connection> {
        let mut waiting = self.lock();
        waiting.line.retain(Idle::is_good);
        let place = waiting
            .line
            .iter()
            .rposition(|idle| idle.destination == *destination)?;
        waiting.line.remove(place).map(|idle| idle.connection)
    }

    fn put(self: &Arc<Self>, idle: Idle) {
        let mut waiting = self.lock();
        if waiting.line.len() >= self.most_idle {
            waiting.line.pop_front();
        }
        waiting.line.push_back(idle);
        if !waiting.is_swept {
            waiting.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes what nobody has asked for in time, until nothing waits any more.
async fn sweep(connections: Weak<Connections>) {
    loop {
        sleep(SWEEP).await;
        let Some(connections) = connections.upgrade() else {
            return;
        };
        let mut waiting = connections.lock();
        waiting.line.retain(Idle::is_good);
        if waiting.line.is_empty() {
            waiting.is_swept = false;
            return;
        }
    }
}

impl Idle {
    fn is_good(&self) -> bool {
        Instant::now() < self.until && self.connection.sender.is_ready()
    }
}

impl Lease {
    /// The response was read to its end: the connection is there for the next request.
    pub(super) fn give_back(self) {
        let Self {
            mut connection,
            destination,
            home,
            keep,
            slot,
        } = self;
        connection.is_used = true;
        let end_of_life = connection.opened + LONGEST_LIFE;
        // Who drops the last of an instance may be no thread of the async runtime.
        if keep.is_zero() || Handle::try_current().is_err() {
            return;
        }
        tokio::spawn(async move {
            // Until then the request is still being written, and counts.
            let _under_way = slot;
            let ready = timeout(GETTING_READY, connection.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                home.put(Idle {
                    until: end_of_life.min(Instant::now() + keep),
                    destination,
                    connection,
                });
            }
        });
    }
}

/// How long a connection may wait after this response: what the server says (`Keep-Alive:
/// timeout=5`, in seconds), with some clearance.
pub(super) fn keep(headers: &HeaderMap) -> Duration {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    let said = headers
        .get(KEEP_ALIVE)
        .and_then(|value| value.to_str().ok());
    let parameters = said.into_iter().flat_map(|said| said.split(','));
    let mut timeouts = parameters.filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
        is_timeout.then(|| value.trim().parse().ok()).flatten()
    });
    match timeouts.next() {
        Some(seconds) => Duration::from_secs(seconds)
            .saturating_sub(CLEARANCE)
            .min(LONGEST_IDLE),
        None => IDLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_kept_for_less_than_the_server_waits() {
        let check = |said: Option<&'static str>, seconds| {
            let headers = said.map(|said| ("keep-alive", said)).into_iter();
            let headers = headers
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect();
            assert_eq!(keep(&headers), Duration::from_secs(seconds), "{said:?}");
        };
        check(None, 4);
        check(Some("timeout=5"), 4);
        check(Some("timeout=5, max=100"), 4);
        check(Some("max=100, Timeout = 20"), 19);
        check(Some("timeout=1"), 0);
        check(Some("timeout=0"), 0);
        check(Some("timeout=86400"), 60);
        check(Some("timeout=soon"), 4);
        check(Some("timeout=99999999999999999999999"), 4);
    }
}
