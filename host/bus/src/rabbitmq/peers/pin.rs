//! Pinning a pool: Node workers of one type agree on whose turn it is by lists that they send each
//! other. A list of two ids of our own keeps the turn between those two for good, so that no Node
//! worker takes a `TYPE:*` and the gateway can share the work out (PROTOCOL "Mixed pools", 6.3).

use warren_protocol::{Identity, ListEntry, WorkerId, WorkerType};

/// The ids that stand in a pinned list. Nobody serves under them.
#[derive(Clone, Debug)]
pub(super) struct Pin {
    first: WorkerId,
    second: WorkerId,
    /// Stands last in each list that is sent and is removed again, which moves the turn on.
    pub(super) third: WorkerId,
    pub(super) state: State,
}

/// How far a pin has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Sent; not known to have been heard.
    Sent,
    /// The removal has come back from the broker, so the Node workers have it too.
    Heard,
    /// The turn is being given to a Node worker.
    Releasing,
}

impl Pin {
    /// A pin for a type's pool.
    pub(super) fn new(worker_type: &WorkerType) -> Self {
        let draw = || WorkerId::draw(worker_type);
        Self {
            first: draw(),
            second: draw(),
            third: draw(),
            state: State::Sent,
        }
    }

    /// The list that is sent; then the third is removed. It stands last, so its removal moves the
    /// turn from the first to the second, and every other worker learns that it is not next.
    pub(super) fn list(&self) -> [ListEntry; 3] {
        [
            entry(&self.first, true),
            entry(&self.second, false),
            entry(&self.third, false),
        ]
    }

    /// The list that gives the turn to one Node worker, when the third is removed: it moves up.
    pub(super) fn release(&self, to: &WorkerId) -> [ListEntry; 2] {
        [entry(&self.third, false), entry(to, false)]
    }
}

fn entry(worker: &WorkerId, is_next: bool) -> ListEntry {
    ListEntry {
        worker: Identity::from(worker),
        is_next,
    }
}
