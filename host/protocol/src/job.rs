//! A job: one unit of work and its routing slip. Knows neither AMQP nor Wasm.

use std::sync::atomic::{AtomicU32, Ordering};

use rand::RngExt;

use crate::{Address, Payload, Stop, WorkerId};

/// Who sent something, or who a worker is: the two texts that MicroServices.js writes.
///
/// Kept as text, because a peer's type may have a form that we would not give to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `TYPE:` and 13 digits.
    pub id: String,
    /// `TYPE`.
    pub worker_type: String,
}

/// One unit of work with its way through the workers, as `worker.next` carries it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Where the job goes, first stop first (`workers_list`).
    pub route: Vec<Stop>,
    /// The index in `route` of the stop that is due (`workers_list_id`).
    pub position: usize,
    /// What the job carries.
    pub data: Payload,
    /// The worker that published it.
    pub sender: Identity,
    /// Unique, and the same over retries and redeliveries.
    pub id: String,
}

impl Job {
    /// The stop that is due, or `None` when the position lies outside the route.
    #[must_use]
    pub fn stop(&self) -> Option<&Stop> {
        self.route.get(self.position)
    }

    /// The stop after the one that is due.
    #[must_use]
    pub fn next_stop(&self) -> Option<&Stop> {
        self.route.get(self.position.checked_add(1)?)
    }
}

impl Job {
    /// Who waits for what becomes of a job that a Node worker has sent: the worker at the end of its
    /// route, else its sender. `None` when neither has the id of a worker.
    #[must_use]
    pub fn waits(&self) -> Option<WorkerId> {
        let end = self.route.last().filter(|_| self.next_stop().is_some());
        match end.map(Stop::address) {
            Some(Ok(Address::One(id))) => Some(id),
            _ => self.sender.id.parse().ok(),
        }
    }
}

impl From<&crate::WorkerId> for Identity {
    fn from(id: &crate::WorkerId) -> Self {
        Self {
            id: id.to_string(),
            worker_type: id.worker_type().to_string(),
        }
    }
}

/// A new job id: `J`, the milliseconds since 1970 in 13 digits (all that a Node worker writes), a
/// counter of 3 digits and 9 random digits.
///
/// A Node worker takes any text for an id, but forgets a job when another with the same id is
/// acknowledged. The counter keeps apart a thousand jobs of one host within a millisecond, the
/// random digits those of different hosts.
#[must_use]
pub fn job_id(now_ms: u64) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed) % 1000;
    let random: u32 = rand::rng().random_range(0..1_000_000_000);
    format!("J{now_ms:013}{count:03}{random:09}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::job_id;

    #[test]
    fn job_ids_differ_within_a_millisecond_and_begin_like_those_of_a_node_worker() {
        let ids: HashSet<_> = (0..1000).map(|_| job_id(1_795_220_941_865)).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            let digits = id.strip_prefix("J1795220941865").unwrap();
            assert_eq!(digits.len(), 12);
            assert!(digits.bytes().all(|b| b.is_ascii_digit()));
        }
    }
}
