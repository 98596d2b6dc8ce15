//! What Node workers have asked and been told. Pure.
//!
//! A Node REST worker dies of a second answer to one request (PROTOCOL "Defects by cause", 7). So a
//! worker gets as many answers to a request as it has sent jobs for it, results and errors together,
//! and no message is handed over twice. One that has not been heard asking gets what comes, but never
//! an error beside a result.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

use warren_protocol::WorkerId;

/// Longer than any client waits.
const KEPT: Duration = Duration::from_secs(600);
const MAX_ENTRIES: usize = 100_000;

/// How a request ended, for the one who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// With a result.
    Result,
    /// With an error.
    Error,
}

/// The questions and answers of the last minutes.
#[derive(Default)]
pub(super) struct Told {
    requests: HashMap<(WorkerId, String), Request>,
    order: VecDeque<(Instant, (WorkerId, String))>,
    messages: HashSet<String>,
    message_order: VecDeque<(Instant, String)>,
    /// Jobs by their ids on the wire: those that this gateway has said, and those of which a Node worker
    /// has acknowledged them, to this gateway or one before.
    said: HashMap<String, bool>,
    said_order: VecDeque<(Instant, String)>,
}

/// One request, as one worker sees it.
#[derive(Default)]
struct Request {
    /// Jobs that it has sent for it.
    n_asked: u32,
    n_answers: u32,
    was_error: bool,
}

impl Told {
    /// A Node worker has sent a job for a request.
    pub(super) fn asked(&mut self, who: &WorkerId, request: &str, now: Instant) {
        let request = self.request(who, request, now);
        request.n_asked = request.n_asked.saturating_add(1);
    }

    /// Whether it was heard that a worker has sent a job for a request.
    pub(super) fn has_asked(&self, who: &WorkerId, request: &str) -> bool {
        let key = (who.clone(), request.to_owned());
        self.requests
            .get(&key)
            .is_some_and(|request| request.n_asked > 0)
    }

    /// Notes an answer. `false`: it would be one too many, and must not be heard.
    pub(super) fn tell(
        &mut self,
        who: &WorkerId,
        request: &str,
        answer: Answer,
        now: Instant,
    ) -> bool {
        let request = self.request(who, request, now);
        let may_hear = match (request.n_asked, answer) {
            (0, Answer::Result) => !request.was_error,
            (0, Answer::Error) => request.n_answers == 0,
            (n_asked, _) => request.n_answers < n_asked,
        };
        if may_hear {
            request.n_answers = request.n_answers.saturating_add(1);
            request.was_error |= answer == Answer::Error;
        }
        may_hear
    }

    fn request(&mut self, who: &WorkerId, request: &str, now: Instant) -> &mut Request {
        for old in expired(&mut self.order, now) {
            self.requests.remove(&old);
        }
        let key = (who.clone(), request.to_owned());
        if !self.requests.contains_key(&key) {
            self.order.push_back((now, key.clone()));
        }
        self.requests.entry(key).or_default()
    }

    /// A Node worker has taken this message.
    pub(super) fn handed_over(&mut self, message_id: &str, now: Instant) {
        for old in expired(&mut self.message_order, now) {
            self.messages.remove(&old);
        }
        if self.messages.insert(message_id.to_owned()) {
            self.message_order.push_back((now, message_id.to_owned()));
        }
    }

    /// A job is said to a Node worker.
    pub(super) fn said(&mut self, wire_id: &str, now: Instant) {
        for old in expired(&mut self.said_order, now) {
            self.said.remove(&old);
        }
        if !self.said.contains_key(wire_id) {
            self.said.insert(wire_id.to_owned(), false);
            self.said_order.push_back((now, wire_id.to_owned()));
        }
    }

    /// A Node worker has acknowledged a job. Of any other than those that were said nothing is kept:
    /// an acknowledgement can be made up.
    pub(super) fn acknowledged(&mut self, wire_id: &str) {
        if let Some(is_acknowledged) = self.said.get_mut(wire_id) {
            *is_acknowledged = true;
        }
    }

    /// Whether a Node worker has acknowledged the job with this id on the wire.
    pub(super) fn is_acknowledged(&self, wire_id: &str) -> bool {
        self.said.get(wire_id).copied().unwrap_or_default()
    }

    /// Whether a Node worker has taken this message.
    pub(super) fn has_handed_over(&self, message_id: &str) -> bool {
        self.messages.contains(message_id)
    }
}

fn expired<K: Clone + Eq + Hash>(order: &mut VecDeque<(Instant, K)>, now: Instant) -> Vec<K> {
    let mut old = Vec::new();
    while let Some((when, key)) = order.front() {
        if now.duration_since(*when) < KEPT && order.len() < MAX_ENTRIES {
            break;
        }
        old.push(key.clone());
        order.pop_front();
    }
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    const PILOT: &str = "WD:1795220939334";
    const REST: &str = "WA:1795220940610";

    fn id(text: &str) -> WorkerId {
        text.parse().unwrap()
    }

    #[test]
    fn a_worker_gets_as_many_answers_as_it_has_sent_jobs() {
        let (mut told, now) = (Told::default(), Instant::now());
        let rest = id(REST);
        told.asked(&rest, "r1", now);
        assert!(told.tell(&rest, "r1", Answer::Result, now));
        assert!(!told.tell(&rest, "r1", Answer::Result, now));
        assert!(!told.tell(&rest, "r1", Answer::Error, now));
        told.asked(&rest, "r2", now);
        told.asked(&rest, "r2", now);
        assert!(told.tell(&rest, "r2", Answer::Error, now));
        assert!(told.tell(&rest, "r2", Answer::Result, now));
        assert!(!told.tell(&rest, "r2", Answer::Result, now));
        assert!(told.tell(&rest, "r1", Answer::Result, now + KEPT));
    }

    #[test]
    fn whoever_was_not_heard_asking_gets_no_error_beside_a_result() {
        let (mut told, now) = (Told::default(), Instant::now());
        let pilot = id(PILOT);
        assert!(told.tell(&pilot, "r1", Answer::Error, now));
        assert!(!told.tell(&pilot, "r1", Answer::Result, now));
        assert!(!told.tell(&pilot, "r1", Answer::Error, now));
        assert!(told.tell(&pilot, "r2", Answer::Result, now));
        assert!(told.tell(&pilot, "r2", Answer::Result, now));
        assert!(!told.tell(&pilot, "r2", Answer::Error, now));
    }

    #[test]
    fn only_what_was_said_can_be_acknowledged() {
        let (mut told, now) = (Told::default(), Instant::now());
        told.acknowledged("J1");
        assert!(!told.is_acknowledged("J1"));
        told.said("J1", now);
        told.acknowledged("J1");
        told.said("J1", now);
        assert!(told.is_acknowledged("J1"));
    }

    #[test]
    fn a_message_that_was_taken_is_known() {
        let (mut told, now) = (Told::default(), Instant::now());
        assert!(!told.has_handed_over("m"));
        told.handed_over("m", now);
        assert!(told.has_handed_over("m"));
        told.handed_over("n", now + KEPT);
        assert!(!told.has_handed_over("m"));
    }
}
