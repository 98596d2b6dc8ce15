//! What the peer gateway sees and does, for people and for metrics.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use warren_protocol::WorkerId;

/// One worker, as the gateway knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerWorker {
    /// Its id.
    pub id: WorkerId,
    /// Whether it is a host's; otherwise it is one of MicroServices.js.
    pub is_ours: bool,
    /// It did not take what it was handed, and gets nothing until it shows that it lives.
    pub is_doubted: bool,
}

/// What the peer gateway sees, and what it has done on this host since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerReport {
    /// Whether this host is the gateway now.
    pub is_gateway: bool,
    /// The workers that are known, by id. Empty on other hosts.
    pub workers: Vec<PeerWorker>,
    /// Counts, in the words of the metrics: what was counted, and how often.
    pub counts: Vec<(PeerCount, u64)>,
}

/// What the gateway counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerCount {
    /// Announcements that were heard.
    Registrations,
    /// Jobs of peers that were heard.
    JobRequests,
    /// Questions for the list of workers.
    ListRequests,
    /// Goodbyes.
    Deletions,
    /// Calls that were sent.
    Keepalives,
    /// Senders that were told that there is no worker.
    NoWorker,
    /// Jobs of peers that were stored for hosts.
    Claimed,
    /// Messages that a Node worker has taken.
    HandedOver,
    /// Tries to hand over that nobody acknowledged.
    Repeated,
    /// Messages that cannot be read.
    Malformed,
    /// Answers that would have been the second one to one request.
    Withheld,
}

const COUNTS: [PeerCount; 11] = [
    PeerCount::Registrations,
    PeerCount::JobRequests,
    PeerCount::ListRequests,
    PeerCount::Deletions,
    PeerCount::Keepalives,
    PeerCount::NoWorker,
    PeerCount::Claimed,
    PeerCount::HandedOver,
    PeerCount::Repeated,
    PeerCount::Malformed,
    PeerCount::Withheld,
];

/// Where the gateway writes, and others read.
#[derive(Default)]
pub(in crate::rabbitmq) struct Register {
    is_gateway: AtomicBool,
    workers: Mutex<Vec<PeerWorker>>,
    counts: [AtomicU64; COUNTS.len()],
}

impl Register {
    pub(super) fn count(&self, what: PeerCount) {
        if let Some(count) = self.counts.get(what as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn show(&self, workers: Vec<PeerWorker>) {
        self.is_gateway.store(true, Ordering::Relaxed);
        *self.workers.lock().unwrap_or_else(PoisonError::into_inner) = workers;
    }

    pub(super) fn hide(&self) {
        self.is_gateway.store(false, Ordering::Relaxed);
        self.workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    pub(in crate::rabbitmq) fn report(&self) -> PeerReport {
        let counts = COUNTS.iter().zip(&self.counts);
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        PeerReport {
            is_gateway: self.is_gateway.load(Ordering::Relaxed),
            workers: workers.clone(),
            counts: counts
                .map(|(what, n)| (*what, n.load(Ordering::Relaxed)))
                .collect(),
        }
    }
}
