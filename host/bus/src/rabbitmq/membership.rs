//! What this host wants to be on the bus: the desired state from which every epoch is built.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use lapin::types::ShortString;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use warren_protocol::{WorkerId, WorkerType};

use crate::JoinError;

/// The workers of this host.
#[derive(Default)]
pub(super) struct Membership(Mutex<Members>);

#[derive(Default)]
struct Members {
    joined: HashMap<WorkerType, Member>,
    /// Ids that lead here, those of workers that have left but are not forgotten included.
    ids: BTreeSet<WorkerId>,
    /// The ids of workers that have left.
    former: BTreeSet<WorkerId>,
    /// Inboxes that were given up, to which the ids may still lead.
    abandoned: Vec<ShortString>,
}

struct Member {
    worker: WorkerId,
    leaving: CancellationToken,
    finished: CancellationToken,
    prefetch: watch::Sender<u16>,
}

/// What the task of a worker that has joined is given.
pub(super) struct Admission {
    /// Cancelled when it has to stop.
    pub(super) leaving: CancellationToken,
    /// Dropped by it when it has stopped.
    pub(super) finished: DropGuard,
    /// How many unsettled deliveries it may hold.
    pub(super) prefetch: watch::Receiver<u16>,
}

/// A worker on its way out.
pub(super) struct Departure {
    leaving: CancellationToken,
    finished: CancellationToken,
}

impl Membership {
    /// Adds a worker.
    pub(super) fn join(&self, worker: &WorkerId, prefetch: u16) -> Result<Admission, JoinError> {
        let worker_type = worker.worker_type();
        let mut members = self.lock();
        if members.joined.contains_key(worker_type) {
            return Err(JoinError::Taken(worker_type.clone()));
        }
        let member = Member {
            worker: worker.clone(),
            leaving: CancellationToken::new(),
            finished: CancellationToken::new(),
            prefetch: watch::Sender::new(prefetch),
        };
        let admission = Admission {
            leaving: member.leaving.clone(),
            finished: member.finished.clone().drop_guard(),
            prefetch: member.prefetch.subscribe(),
        };
        members.joined.insert(worker_type.clone(), member);
        members.ids.insert(worker.clone());
        members.former.remove(worker);
        Ok(admission)
    }

    /// Changes how many unsettled deliveries a worker may hold.
    pub(super) fn set_prefetch(&self, worker: &WorkerId, prefetch: u16) {
        let members = self.lock();
        if let Some(member) = members.joined.get(worker.worker_type())
            && member.worker == *worker
        {
            member.prefetch.send_if_modified(|current| {
                let is_new = *current != prefetch;
                *current = prefetch;
                is_new
            });
        }
    }

    /// Takes a worker off, but keeps its id. `None` when it is not there.
    pub(super) fn leave(&self, worker: &WorkerId) -> Option<Departure> {
        let mut members = self.lock();
        let worker_type = worker.worker_type();
        if members.joined.get(worker_type)?.worker != *worker {
            return None;
        }
        let member = members.joined.remove(worker_type)?;
        members.former.insert(worker.clone());
        Some(Departure {
            leaving: member.leaving,
            finished: member.finished,
        })
    }

    /// Lets go of an id.
    pub(super) fn forget(&self, worker: &WorkerId) {
        self.lock().ids.remove(worker);
    }

    /// Notes an inbox that was given up.
    pub(super) fn abandon(&self, inbox: ShortString) {
        self.lock().abandoned.push(inbox);
    }

    /// The inboxes that were given up.
    pub(super) fn abandoned(&self) -> Vec<ShortString> {
        self.lock().abandoned.clone()
    }

    /// No id leads to an old inbox any more.
    pub(super) fn forget_inbox(&self, inbox: &ShortString) {
        self.lock().abandoned.retain(|other| other != inbox);
    }

    /// Whether a worker is joined.
    pub(super) fn has(&self, worker: &WorkerId) -> bool {
        let members = self.lock();
        let member = members.joined.get(worker.worker_type());
        member.is_some_and(|member| member.worker == *worker)
    }

    /// The workers that are joined.
    pub(super) fn workers(&self) -> Vec<WorkerId> {
        self.lock()
            .joined
            .values()
            .map(|member| member.worker.clone())
            .collect()
    }

    /// The ids of workers that have left.
    pub(super) fn former_ids(&self) -> Vec<WorkerId> {
        self.lock().former.iter().cloned().collect()
    }

    /// The ids that lead here.
    pub(super) fn ids(&self) -> Vec<WorkerId> {
        self.lock().ids.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Departure {
    /// Stops the worker's task and waits for its end.
    pub(super) async fn wait(self) {
        self.leaving.cancel();
        self.finished.cancelled().await;
    }
}
