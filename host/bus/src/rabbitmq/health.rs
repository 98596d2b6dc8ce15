//! The board on which every task writes how it is doing, and from which the health is told.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::watch;
use warren_protocol::WorkerType;

use super::names::UNROUTED;
use crate::Health;

/// The state of every part of the bus, and the [`Health`] that follows from it.
pub(super) struct Board {
    parts: Mutex<Parts>,
    shown: watch::Sender<Health>,
}

struct Parts {
    link: Link,
    /// What the broker said when it blocked publishing.
    blocked: Option<String>,
    /// What does not work and keeps no job from being run.
    notices: Notices,
    dead_letters: BTreeMap<WorkerType, u64>,
    n_unrouted: u64,
    /// Types without an entry are being set up.
    types: BTreeMap<WorkerType, Verdict>,
}

enum Link {
    Up,
    Down(String),
    Closed,
}

/// Each with its remedy.
#[derive(Default)]
struct Notices {
    /// Why announcements are not heard or sent.
    announcements: Option<String>,
    /// Why retries are late.
    retries: Option<String>,
    /// Why the topology cannot be kept up.
    topology: Option<String>,
    /// Why workers of MicroServices.js are not served.
    peers: Option<String>,
}

enum Verdict {
    Consuming,
    /// Its host takes nothing for a while.
    Paused,
    /// What is wrong, with the remedy.
    Failing(String),
}

impl Board {
    /// The connection is there.
    pub(super) fn link_up(&self) {
        self.change(|parts| {
            parts.link = Link::Up;
            parts.blocked = None;
        });
    }

    /// The connection is not there.
    pub(super) fn link_down(&self, problem: String) {
        self.change(|parts| {
            if !matches!(parts.link, Link::Closed) {
                parts.link = Link::Down(problem);
                parts.types.clear();
            }
        });
    }

    /// The bus is closed for good.
    pub(super) fn closed(&self) {
        self.change(|parts| {
            parts.link = Link::Closed;
            parts.types.clear();
        });
    }

    /// The broker takes nothing (`Some(reason)`), or takes messages again.
    pub(super) fn blocked(&self, reason: Option<String>) {
        self.change(|parts| parts.blocked = reason);
    }

    /// Announcements do not work (`Some(problem)`), or work again.
    pub(super) fn announcements(&self, problem: Option<String>) {
        self.change(|parts| parts.notices.announcements = problem);
    }

    /// Retries are late (`Some(problem)`), or on time again.
    pub(super) fn retries(&self, problem: Option<String>) {
        self.change(|parts| parts.notices.retries = problem);
    }

    /// Workers of MicroServices.js are not served (`Some(problem)`), or are again.
    pub(super) fn peers(&self, problem: Option<String>) {
        self.change(|parts| parts.notices.peers = problem);
    }

    /// The topology is not as it should be (`Some(problem)`), or is again.
    pub(super) fn topology(&self, problem: Option<String>) {
        self.change(|parts| parts.notices.topology = problem);
    }

    /// So many dead letters are in the type's queue.
    pub(super) fn dead_letters(&self, worker_type: &WorkerType, n: u64) {
        self.change(|parts| {
            parts.dead_letters.insert(worker_type.clone(), n);
        });
    }

    /// So many messages are in the parking lot.
    pub(super) fn unrouted(&self, n: u64) {
        self.change(|parts| parts.n_unrouted = n);
    }

    /// Jobs of the type are being consumed.
    pub(super) fn consuming(&self, worker_type: &WorkerType) {
        self.change(|parts| {
            if matches!(parts.link, Link::Up) {
                parts.types.insert(worker_type.clone(), Verdict::Consuming);
            }
        });
    }

    /// Jobs of the type are not being consumed for a while, as its host wishes.
    pub(super) fn paused(&self, worker_type: &WorkerType) {
        self.change(|parts| {
            if matches!(parts.link, Link::Up) {
                parts.types.insert(worker_type.clone(), Verdict::Paused);
            }
        });
    }

    /// Jobs of the type are not being consumed, and this is why.
    pub(super) fn failing(&self, worker_type: &WorkerType, problem: String) {
        self.change(|parts| {
            if matches!(parts.link, Link::Up) {
                let verdict = Verdict::Failing(problem);
                parts.types.insert(worker_type.clone(), verdict);
            }
        });
    }

    /// The type is not ours any more.
    pub(super) fn forget(&self, worker_type: &WorkerType) {
        self.change(|parts| {
            parts.types.remove(worker_type);
            parts.dead_letters.remove(worker_type);
        });
    }

    /// Returns when it is known whether a type is consumed, or that the broker is out of reach.
    pub(super) async fn first_verdict(&self, worker_type: &WorkerType) {
        let mut shown = self.shown.subscribe();
        loop {
            {
                let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
                if !matches!(parts.link, Link::Up) || parts.types.contains_key(worker_type) {
                    return;
                }
            }
            if shown.changed().await.is_err() {
                return;
            }
        }
    }

    /// Why nothing can be published now, for the error of somebody who waited in vain.
    pub(super) fn link_problem(&self) -> Option<String> {
        let health = self.shown.borrow();
        let problem = health.problem.as_deref().filter(|_| !health.connected);
        problem.map(str::to_owned)
    }

    pub(super) fn watch(&self) -> watch::Receiver<Health> {
        self.shown.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        // Sent under the lock, so that the health that is shown last is the newest.
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut parts);
        let health = parts.health();
        self.shown.send_if_modified(|shown| {
            let is_new = *shown != health;
            *shown = health;
            is_new
        });
    }
}

impl Parts {
    fn health(&self) -> Health {
        let consuming = self
            .types
            .iter()
            .filter(|(_, verdict)| matches!(verdict, Verdict::Consuming))
            .map(|(worker_type, _)| worker_type.clone())
            .collect();
        Health {
            connected: matches!(self.link, Link::Up) && self.blocked.is_none(),
            consuming,
            problem: self.problem().map(Into::into),
            notice: self.notice().map(Into::into),
            dead_letters: self
                .dead_letters
                .iter()
                .map(|(worker_type, n)| (worker_type.clone(), *n))
                .collect(),
            n_unrouted: self.n_unrouted,
        }
    }

    fn notice(&self) -> Option<String> {
        let unrouted = (self.n_unrouted > 0).then(|| {
            format!(
                "{} messages could not even be dead-lettered and lie in {UNROUTED}: see `warren dlq \
                 ls`",
                self.n_unrouted
            )
        });
        let Notices {
            announcements,
            retries,
            topology,
            peers,
        } = &self.notices;
        let notices = [announcements, retries, topology, peers, &unrouted];
        let notices: Vec<&str> = notices.into_iter().flatten().map(String::as_str).collect();
        (!notices.is_empty()).then(|| notices.join("; "))
    }

    fn problem(&self) -> Option<String> {
        match &self.link {
            Link::Closed => return Some("the bus is closed".to_owned()),
            Link::Down(problem) => return Some(problem.clone()),
            Link::Up => {}
        }
        let blocked = self.blocked.as_ref().map(|reason| {
            format!(
                "the broker has blocked publishing: memory or disk alarm on the broker ({reason})"
            )
        });
        let failing = self.types.values().filter_map(|verdict| match verdict {
            Verdict::Failing(problem) => Some(problem.clone()),
            Verdict::Consuming | Verdict::Paused => None,
        });
        let problems: Vec<String> = blocked.into_iter().chain(failing).collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }
}

impl Default for Board {
    fn default() -> Self {
        let parts = Parts {
            link: Link::Down("the broker has not been reached yet".to_owned()),
            blocked: None,
            notices: Notices::default(),
            dead_letters: BTreeMap::new(),
            n_unrouted: 0,
            types: BTreeMap::new(),
        };
        Self {
            shown: watch::Sender::new(parts.health()),
            parts: Mutex::new(parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failing_type_is_named_and_the_others_are_still_consuming() {
        let (good, bad) = (
            WorkerType::new("Good").unwrap(),
            WorkerType::new("Bad").unwrap(),
        );
        let board = Board::default();
        board.link_up();
        board.consuming(&good);
        board.failing(&bad, "Bad: delete the queue".to_owned());
        let health = board.watch().borrow().clone();
        assert_eq!(
            health,
            Health {
                connected: true,
                consuming: vec![good],
                problem: Some("Bad: delete the queue".into()),
                ..Health::default()
            }
        );
    }

    #[test]
    fn announcements_that_fail_are_a_notice_and_no_problem() {
        let board = Board::default();
        board.link_up();
        board.announcements(Some(
            "declared by somebody with other properties".to_owned(),
        ));
        let health = board.watch().borrow().clone();
        assert_eq!(health.problem, None);
        assert!(health.notice.is_some());
    }

    #[test]
    fn a_blocked_broker_takes_no_messages() {
        let board = Board::default();
        board.link_up();
        board.blocked(Some("low on disk".to_owned()));
        assert!(!board.watch().borrow().connected);
        board.blocked(None);
        assert!(board.watch().borrow().connected);
    }
}
