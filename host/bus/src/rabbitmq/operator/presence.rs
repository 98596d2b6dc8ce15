//! Which dead letters are still there: the log tells what came and what left, in its order.
//!
//! A job that dies again after a replay has the same id, so a note of leaving belongs to the oldest
//! letter of that id that is still there. A note without a letter (one that is older than what was
//! read, or the second note of a replay that was killed and repeated) belongs to nothing.

use std::collections::{HashMap, VecDeque};

use warren_protocol::WorkerType;

/// What has come and not left.
pub(super) struct Presence<T> {
    /// In the order of the log. `None` when it has left or is of no interest.
    letters: Vec<Option<(u64, T)>>,
    /// The places of those that are there, oldest first.
    there: HashMap<(WorkerType, String), VecDeque<usize>>,
}

impl<T> Presence<T> {
    pub(super) fn new() -> Self {
        Self {
            letters: Vec::new(),
            there: HashMap::new(),
        }
    }

    /// A letter has come. `kept`: what to keep of it, if anything; it counts as there either way.
    pub(super) fn came(
        &mut self,
        offset: u64,
        worker_type: WorkerType,
        id: String,
        kept: Option<T>,
    ) {
        let places = self.there.entry((worker_type, id)).or_default();
        places.push_back(self.letters.len());
        self.letters.push(kept.map(|kept| (offset, kept)));
    }

    /// A letter has left.
    pub(super) fn left(&mut self, worker_type: WorkerType, id: String) {
        let key = (worker_type, id);
        let Some(places) = self.there.get_mut(&key) else {
            return;
        };
        if let Some(letter) = places.pop_front().and_then(|at| self.letters.get_mut(at)) {
            *letter = None;
        }
        if places.is_empty() {
            self.there.remove(&key);
        }
    }

    /// What is there, each with its offset in the log, oldest first.
    pub(super) fn there(self) -> Vec<(u64, T)> {
        self.letters.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+a` comes, `-a` leaves; a letter in capitals is of no interest.
    #[track_caller]
    fn check(log: &str, expected: &[u64]) {
        let worker_type = WorkerType::new("WB").unwrap();
        let mut presence = Presence::new();
        for (offset, event) in (0..).zip(log.split_whitespace()) {
            let (sign, id) = event.split_at(1);
            let kept = (id == id.to_lowercase()).then_some(());
            let id = id.to_lowercase();
            match sign {
                "+" => presence.came(offset, worker_type.clone(), id, kept),
                _ => presence.left(worker_type.clone(), id),
            }
        }
        let there: Vec<u64> = presence.there().into_iter().map(|(at, ())| at).collect();
        assert_eq!(there, expected, "{log}");
    }

    #[test]
    fn what_has_left_is_not_there() {
        check("+a +b -a", &[1]);
        check("+a -a", &[]);
    }

    #[test]
    fn a_job_that_died_again_is_there_again() {
        check("+a -a +a", &[2]);
        check("+a -a +a -a", &[]);
    }

    #[test]
    fn a_duplicate_is_there_once_more() {
        check("+a +a -a", &[1]);
    }

    #[test]
    fn a_note_without_a_letter_takes_nothing_away() {
        check("-a +a", &[1]);
        check("+a -a -a +a", &[3]);
    }

    #[test]
    fn a_note_belongs_to_the_oldest_letter_even_if_that_one_is_of_no_interest() {
        check("+A +a -a", &[1]);
    }
}
