//! Who is on the bus: the workers of hosts and those of MicroServices.js, as they announce
//! themselves. Pure: what was heard and when is handed in.
//!
//! A Node worker that is killed says nothing. It is *doubted* at its first missing acknowledgement
//! and gone when it has not answered several calls that this host could hear itself.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use warren_protocol::{WorkerId, WorkerType};

/// After so many unanswered `worker.getAll` a worker is gone.
const MOST_MISSED: u32 = 3;
/// The workers that have been heard of.
#[derive(Default)]
pub(super) struct Roster {
    members: BTreeMap<WorkerId, Member>,
    last_call: Option<Instant>,
}

struct Member {
    /// Of a host: it takes its jobs from the durable queues.
    is_ours: bool,
    /// Calls since it was last heard.
    n_missed: u32,
    /// It did not take a job that was handed to it.
    is_doubted: bool,
    heard: Instant,
}

/// What an announcement has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nobody knew it.
    Arrived,
    /// It was doubted and has shown that it lives.
    Returned,
    /// It was known.
    None,
}

impl Roster {
    /// A worker has announced itself.
    pub(super) fn heard(&mut self, id: &WorkerId, is_ours: bool, now: Instant) -> Change {
        let Some(member) = self.members.get_mut(id) else {
            let member = Member {
                is_ours,
                n_missed: 0,
                is_doubted: false,
                heard: now,
            };
            self.members.insert(id.clone(), member);
            return Change::Arrived;
        };
        member.n_missed = 0;
        member.heard = now;
        if std::mem::take(&mut member.is_doubted) {
            Change::Returned
        } else {
            Change::None
        }
    }

    /// A worker has said goodbye. `true`: it was known.
    pub(super) fn left(&mut self, id: &WorkerId) -> bool {
        self.members.remove(id).is_some()
    }

    /// Everybody has been called, and the call has come back to this host: a broker that takes
    /// nothing (a memory alarm) lets nobody seem dead. Returns those that are gone, with whether they
    /// were a host's. A call that follows another one sooner than `keepalive` counts for nothing, and
    /// without a keepalive none does.
    pub(super) fn called(&mut self, now: Instant, keepalive: Duration) -> Vec<(WorkerId, bool)> {
        let is_soon = |last: Instant| now.duration_since(last) < keepalive.mul_f64(0.8);
        if keepalive.is_zero() || self.last_call.is_some_and(is_soon) {
            return Vec::new();
        }
        self.last_call = Some(now);
        let mut gone = Vec::new();
        self.members.retain(|id, member| {
            member.n_missed += 1;
            let stays = member.n_missed <= MOST_MISSED;
            if !stays {
                gone.push((id.clone(), member.is_ours));
            }
            stays
        });
        gone
    }

    /// A worker did not take what it was handed. `true`: that is news.
    pub(super) fn doubt(&mut self, id: &WorkerId) -> bool {
        let member = self.members.get_mut(id).filter(|member| !member.is_ours);
        member.is_some_and(|member| !std::mem::replace(&mut member.is_doubted, true))
    }

    /// How many workers are known.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether a worker is known.
    pub(super) fn knows(&self, id: &WorkerId) -> bool {
        self.members.contains_key(id)
    }

    /// Whether a Node worker is doubted.
    pub(super) fn has_doubts(&self) -> bool {
        self.members.values().any(|member| member.is_doubted)
    }

    /// The Node workers of a type that have not been heard since.
    pub(super) fn unheard_since(&self, worker_type: &WorkerType, since: Instant) -> Vec<WorkerId> {
        self.of_type(worker_type, |member| {
            !member.is_ours && member.heard < since
        })
    }

    /// Whether an id is a host's worker's: as it was announced, else by its form (a Node id is a
    /// time in milliseconds and begins with 1).
    pub(super) fn is_ours(&self, id: &WorkerId) -> bool {
        match self.members.get(id) {
            Some(member) => member.is_ours,
            None => !is_a_time(id),
        }
    }

    /// Whether a Node worker with this id has announced itself.
    pub(super) fn has_node(&self, id: &WorkerId) -> bool {
        self.members.get(id).is_some_and(|member| !member.is_ours)
    }

    /// The Node workers of a type that take what they are handed.
    pub(super) fn nodes(&self, worker_type: &WorkerType) -> Vec<WorkerId> {
        self.of_type(worker_type, |member| !member.is_ours && !member.is_doubted)
    }

    /// The Node workers of a type, doubted ones included.
    pub(super) fn all_nodes(&self, worker_type: &WorkerType) -> Vec<WorkerId> {
        self.of_type(worker_type, |member| !member.is_ours)
    }

    /// The hosts' workers of a type.
    pub(super) fn ours(&self, worker_type: &WorkerType) -> Vec<WorkerId> {
        self.of_type(worker_type, |member| member.is_ours)
    }

    /// Every worker, with whether it is a host's and whether it is doubted.
    pub(super) fn all(&self) -> impl Iterator<Item = (&WorkerId, bool, bool)> {
        let members = self.members.iter();
        members.map(|(id, member)| (id, member.is_ours, member.is_doubted))
    }

    fn of_type(
        &self,
        worker_type: &WorkerType,
        is_meant: impl Fn(&Member) -> bool,
    ) -> Vec<WorkerId> {
        let members = self.members.iter();
        members
            .filter(|(id, member)| id.worker_type() == worker_type && is_meant(member))
            .map(|(id, _)| id.clone())
            .collect()
    }
}

/// Whether the digits of an id are a time in milliseconds, until the year 2033.
pub(super) fn is_a_time(id: &WorkerId) -> bool {
    let digits = id.as_str().rsplit(':').next();
    digits.is_some_and(|digits| digits.starts_with('1'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> WorkerId {
        text.parse().unwrap()
    }

    const NODE: &str = "WB:1795220940610";
    const OURS: &str = "WB:4795220940610";
    const EVERY: Duration = Duration::from_secs(10);

    #[test]
    fn a_worker_that_is_doubted_is_not_chosen_until_it_is_heard_again() {
        let (mut roster, wb) = (Roster::default(), WorkerType::new("WB").unwrap());
        assert_eq!(
            roster.heard(&id(NODE), false, Instant::now()),
            Change::Arrived
        );
        assert_eq!(
            roster.heard(&id(OURS), true, Instant::now()),
            Change::Arrived
        );
        assert_eq!(roster.nodes(&wb), [id(NODE)]);
        assert_eq!(roster.ours(&wb), [id(OURS)]);
        assert!(roster.doubt(&id(NODE)));
        assert!(!roster.doubt(&id(NODE)) && !roster.doubt(&id(OURS)));
        assert!(roster.nodes(&wb).is_empty());
        assert_eq!(roster.all_nodes(&wb), [id(NODE)]);
        assert_eq!(
            roster.heard(&id(NODE), false, Instant::now()),
            Change::Returned
        );
        assert_eq!(roster.heard(&id(NODE), false, Instant::now()), Change::None);
        assert_eq!(roster.nodes(&wb), [id(NODE)]);
        assert!(roster.left(&id(NODE)) && !roster.left(&id(NODE)));
    }

    #[test]
    fn who_does_not_answer_three_calls_is_gone_at_the_fourth() {
        let mut roster = Roster::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        roster.heard(&id(NODE), false, Instant::now());
        roster.heard(&id(OURS), true, Instant::now());
        for seconds in [0, 10, 20] {
            assert!(roster.called(after(seconds), EVERY).is_empty());
        }
        roster.heard(&id(OURS), true, Instant::now());
        // Too soon after the last one for anybody to have answered.
        assert!(roster.called(after(21), EVERY).is_empty());
        assert!(roster.called(after(30), Duration::ZERO).is_empty());
        assert_eq!(roster.called(after(30), EVERY), [(id(NODE), false)]);
        assert!(roster.called(after(40), EVERY).is_empty());
    }

    #[test]
    fn an_id_that_nobody_announced_is_told_by_its_first_digit() {
        let mut roster = Roster::default();
        assert!(roster.is_ours(&id(OURS)) && !roster.is_ours(&id(NODE)));
        roster.heard(&id(OURS), false, Instant::now());
        assert!(!roster.is_ours(&id(OURS)) && roster.has_node(&id(OURS)));
    }
}
