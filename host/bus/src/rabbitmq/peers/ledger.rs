//! Which job a `worker.next` is: a new one, or one that its sender sends again. Pure.
//!
//! The ids of Node's jobs are milliseconds and collide, so a job is known by everything in it. Two
//! equal messages at almost the same time are two jobs; a later one is the same job again, since a
//! sender that hears no acknowledgement repeats it every two seconds. Where the data names its
//! request (`resId`), equal messages are the same job at any time.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use uuid::Uuid;
use warren_protocol::{Encoding, Job};

/// Equal messages within this are different jobs.
const COLLISION: Duration = Duration::from_millis(1500);
/// A sender gives up after five tries, two seconds each.
const KEPT: Duration = Duration::from_secs(30);
/// Beyond this many the oldest are forgotten early.
const MAX_ENTRIES: usize = 200_000;
/// For how long it counts how long Node workers needed to take a job.
const SLOW_FOR: Duration = Duration::from_secs(10);

const NAMESPACE: Uuid = Uuid::from_u128(0x3f0c_5a52_7d0b_4c51_8f0e_61c4_09ab_2e77);

/// The jobs of Node senders that have been seen of late.
#[derive(Default)]
pub(super) struct Ledger {
    entries: HashMap<Uuid, Entry>,
    /// Oldest first, so that they can be forgotten.
    seen: VecDeque<(Instant, Uuid)>,
    /// The jobs that a Node worker may take, by sender and id. Ids collide: see `mark`.
    left: HashMap<(String, String), Vec<Uuid>>,
    /// The longest that Node workers have needed of late to take a job, and when.
    slowest: Option<(Duration, Instant)>,
}

struct Entry {
    first: Instant,
    /// Equal messages that came at almost the same time, each a job of its own.
    copies: Vec<Uuid>,
    fate: Fate,
    /// How often it has come again.
    n_again: u32,
    /// Its sender and id, when it is among those that a Node worker may take.
    left_as: Option<(String, String)>,
    /// What of it an acknowledgement repeats in the same form.
    mark: u64,
}

/// What was done about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is being decided or stored.
    Open,
    /// It is stored, and its sender was told so.
    Claimed,
    /// It is for Node workers, none of which has taken it so far.
    Left,
    /// Nobody is known who takes it, and it is looked again. A Node worker may know better.
    Awaited,
    /// A Node worker has taken it.
    Taken,
    /// Its sender was told that there is nobody for it.
    Refused,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// A job; the id is that of its copy among equal ones.
    New(Uuid),
    /// One that has been seen, with how often it has come again.
    Again(Uuid, Fate, u32),
}

impl Ledger {
    /// Takes a message in. `request`: what its data names.
    pub(super) fn see(&mut self, job: &Job, request: Option<&str>, now: Instant) -> Sight {
        self.forget_old(now);
        let (key, mark) = (key(job), mark(job, request));
        let Some(entry) = self.entries.get_mut(&key) else {
            self.insert(key, mark, now);
            return Sight::New(key);
        };
        if request.is_some() || now.duration_since(entry.first) >= COLLISION {
            let again = self.unsettled(key);
            let Some(entry) = self.entries.get_mut(&again) else {
                return Sight::New(key);
            };
            entry.n_again += 1;
            return Sight::Again(again, entry.fate, entry.n_again);
        }
        let copy = Uuid::new_v5(&key, &(entry.copies.len() as u64).to_be_bytes());
        entry.copies.push(copy);
        self.insert(copy, mark, now);
        Sight::New(copy)
    }

    fn insert(&mut self, key: Uuid, mark: u64, now: Instant) {
        let entry = Entry {
            first: now,
            copies: Vec::new(),
            fate: Fate::Open,
            n_again: 0,
            left_as: None,
            mark,
        };
        self.entries.insert(key, entry);
        self.seen.push_back((now, key));
    }

    /// A gateway before this one has stored a job: whenever it comes, it comes again.
    pub(super) fn remember(&mut self, key: Uuid, now: Instant) {
        if self.entries.contains_key(&key) {
            return;
        }
        self.insert(key, 0, now);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.first = now.checked_sub(COLLISION).unwrap_or(now);
            entry.fate = Fate::Claimed;
        }
    }

    /// Which of several equal jobs comes again: the first one that nobody has taken, else the first.
    fn unsettled(&self, key: Uuid) -> Uuid {
        let copies = self.entries.get(&key).map(|entry| entry.copies.as_slice());
        let all = std::iter::once(&key).chain(copies.unwrap_or_default());
        let is_unsettled = |key: &&Uuid| {
            let fate = self.entries.get(*key).map(|entry| entry.fate);
            matches!(fate, Some(Fate::Open | Fate::Left | Fate::Awaited))
        };
        all.copied().find(|key| is_unsettled(&key)).unwrap_or(key)
    }

    /// Notes what was done about a job. One that a Node worker has taken is not left to any.
    pub(super) fn decide(&mut self, key: Uuid, job: &Job, fate: Fate) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if matches!(fate, Fate::Left | Fate::Awaited) {
            if entry.fate == Fate::Taken {
                return;
            }
            if entry.left_as.is_none() {
                let name = (job.sender.id.clone(), job.id.clone());
                entry.left_as = Some(name.clone());
                self.left.entry(name).or_default().push(key);
            }
        }
        entry.fate = fate;
    }

    /// Whether no Node worker has taken a job that one may take. Of one that was forgotten early nobody
    /// knows: rather twice than never.
    pub(super) fn is_free(&self, key: Uuid) -> bool {
        let entry = self.entries.get(&key);
        entry.is_none_or(|entry| matches!(entry.fate, Fate::Left | Fate::Awaited))
    }

    /// Whether a Node worker has taken a job.
    pub(super) fn is_taken(&self, key: Uuid) -> bool {
        let entry = self.entries.get(&key);
        entry.is_some_and(|entry| entry.fate == Fate::Taken)
    }

    /// It is decided again on a job, unless a Node worker has taken it: `false`.
    pub(super) fn reopen(&mut self, key: Uuid) -> bool {
        let is_free = self.is_free(key);
        if is_free && let Some(entry) = self.entries.get_mut(&key) {
            entry.fate = Fate::Open;
        }
        is_free
    }

    fn forget(&mut self, key: Uuid) {
        let Some(name) = self.entries.remove(&key).and_then(|entry| entry.left_as) else {
            return;
        };
        if let Some(keys) = self.left.get_mut(&name) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.left.remove(&name);
            }
        }
    }

    /// A Node worker has taken a job. `request`: what its data names. Of several with its id, those
    /// with its route and request; where there are none, all of them.
    pub(super) fn taken(&mut self, job: &Job, request: Option<&str>, now: Instant) {
        let name = (job.sender.id.clone(), job.id.clone());
        let (all, mark) = (
            self.left.remove(&name).unwrap_or_default(),
            mark(job, request),
        );
        let is_it = |key: &Uuid| {
            let entry = self.entries.get(key);
            entry.is_some_and(|entry| entry.mark == mark)
        };
        let (mut taken, mut others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_it);
        if taken.is_empty() {
            std::mem::swap(&mut taken, &mut others);
        }
        for key in taken {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.fate = Fate::Taken;
                entry.left_as = None;
                let needed = now.duration_since(entry.first);
                self.needed(needed, now);
            }
        }
        if !others.is_empty() {
            self.left.insert(name, others);
        }
    }

    /// A Node worker has needed so long to take a job.
    pub(super) fn needed(&mut self, needed: Duration, now: Instant) {
        if needed >= self.slowest(now) {
            self.slowest = Some((needed, now));
        }
    }

    /// The longest that Node workers have needed of late to take a job, as far as it was heard here.
    pub(super) fn slowest(&self, now: Instant) -> Duration {
        let of_late = |(_, at): &(Duration, Instant)| now.duration_since(*at) < SLOW_FOR;
        let slowest = self.slowest.filter(of_late);
        slowest.map_or(Duration::ZERO, |(needed, _)| needed)
    }

    /// Forgets what nobody repeats any more.
    pub(super) fn forget_old(&mut self, now: Instant) {
        while let Some((when, key)) = self.seen.front().copied() {
            if now.duration_since(when) < KEPT && self.seen.len() <= MAX_ENTRIES {
                return;
            }
            self.seen.pop_front();
            self.forget(key);
        }
    }
}

/// A Node worker writes the data of a job that it acknowledges anew, and moves its position on; the
/// stops of its route and the request stay.
fn mark(job: &Job, request: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for stop in &job.route {
        stop.as_str().hash(&mut hasher);
    }
    request.hash(&mut hasher);
    hasher.finish()
}

/// The same for the same job on every host, so that two gateways that store it give it one id.
fn key(job: &Job) -> Uuid {
    let mut name = Vec::new();
    for part in [&job.sender.id, &job.id] {
        name.extend_from_slice(part.as_bytes());
        name.push(0);
    }
    name.extend_from_slice(&(job.position as u64).to_be_bytes());
    for stop in &job.route {
        name.extend_from_slice(stop.as_str().as_bytes());
        name.push(0);
    }
    let data = job.data.to_bytes().or_else(|_| {
        // A bare value has no bytes of its own in BSON.
        job.data.to(Encoding::Json).and_then(|data| data.to_bytes())
    });
    name.extend_from_slice(&data.unwrap_or_default());
    Uuid::new_v5(&NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use warren_protocol::{Identity, Payload, Stop};

    use super::*;

    fn job(data: &'static str) -> Job {
        Job {
            route: vec![Stop::new("WB:*")],
            position: 0,
            data: Payload::new(Encoding::Json, Bytes::from_static(data.as_bytes())).unwrap(),
            sender: Identity {
                id: "WD:1795220939334".to_owned(),
                worker_type: "WD".to_owned(),
            },
            id: "J1795220941865".to_owned(),
        }
    }

    #[test]
    fn an_equal_message_is_another_job_at_once_and_the_same_job_later() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let Sight::New(first) = ledger.see(&job("{}"), None, start) else {
            panic!("it is new");
        };
        let Sight::New(second) = ledger.see(&job("{}"), None, start) else {
            panic!("ids of milliseconds collide");
        };
        assert_ne!(first, second);
        ledger.decide(first, &job("{}"), Fate::Claimed);
        let soon = start + COLLISION;
        assert_eq!(
            ledger.see(&job("{}"), None, soon),
            Sight::Again(second, Fate::Open, 1)
        );
        ledger.decide(second, &job("{}"), Fate::Claimed);
        let later = start + Duration::from_secs(2);
        assert_eq!(
            ledger.see(&job("{}"), None, later),
            Sight::Again(first, Fate::Claimed, 1)
        );
        assert!(matches!(ledger.see(&job("[]"), None, later), Sight::New(_)));
    }

    #[test]
    fn a_message_that_names_its_request_is_the_same_job_at_any_time() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let Sight::New(key) = ledger.see(&job("{}"), Some("r"), start) else {
            panic!("it is new");
        };
        assert_eq!(
            ledger.see(&job("{}"), Some("r"), start),
            Sight::Again(key, Fate::Open, 1)
        );
    }

    #[test]
    fn an_acknowledgement_is_for_all_jobs_of_that_sender_and_id_that_were_left() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        for data in ["1", "2"] {
            let Sight::New(key) = ledger.see(&job(data), None, start) else {
                panic!("it is new");
            };
            ledger.decide(key, &job(data), Fate::Left);
        }
        let later = start + Duration::from_secs(2);
        assert!(matches!(
            ledger.see(&job("1"), None, later),
            Sight::Again(_, Fate::Left, 1)
        ));
        assert_eq!(ledger.slowest(later), Duration::ZERO);
        ledger.taken(&job("3"), None, later);
        assert_eq!(ledger.slowest(later), later - start);
        assert_eq!(ledger.slowest(later + SLOW_FOR), Duration::ZERO);
        for data in ["1", "2"] {
            assert!(matches!(
                ledger.see(&job(data), None, later),
                Sight::Again(_, Fate::Taken, _)
            ));
        }
    }

    #[test]
    fn what_a_node_worker_has_taken_is_neither_awaited_nor_decided_on_again() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let Sight::New(key) = ledger.see(&job("{}"), Some("r"), start) else {
            panic!("it is new");
        };
        assert!(!ledger.is_free(key) && !ledger.reopen(key));
        ledger.decide(key, &job("{}"), Fate::Awaited);
        assert!(ledger.is_free(key) && ledger.reopen(key) && !ledger.is_free(key));
        ledger.decide(key, &job("{}"), Fate::Awaited);
        // While it is being stored, too.
        assert!(ledger.reopen(key));
        ledger.taken(&job("{}"), Some("r"), start);
        ledger.decide(key, &job("{}"), Fate::Awaited);
        assert!(!ledger.is_free(key) && !ledger.reopen(key) && ledger.is_taken(key));
        assert!(ledger.left.is_empty());
    }

    #[test]
    fn of_jobs_with_one_id_an_acknowledgement_is_for_the_one_with_its_route_and_request() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let elsewhere = Job {
            route: vec![Stop::new("WC:*")],
            ..job("3")
        };
        let jobs = [(job("1"), "r1"), (job("2"), "r2"), (elsewhere, "r1")];
        let keys = jobs.each_ref().map(|(job, request)| {
            let Sight::New(key) = ledger.see(job, Some(request), start) else {
                panic!("it is new");
            };
            ledger.decide(key, job, Fate::Awaited);
            key
        });
        // Written anew by whoever has taken it.
        ledger.taken(&job("1.0"), Some("r1"), start);
        assert!(ledger.is_taken(keys[0]));
        assert!(ledger.is_free(keys[1]) && ledger.is_free(keys[2]));
        ledger.taken(&jobs[2].0, Some("r1"), start);
        assert!(ledger.is_taken(keys[2]) && ledger.is_free(keys[1]));
        assert_eq!(ledger.left.len(), 1);
    }

    #[test]
    fn what_a_gateway_before_has_stored_comes_again() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        ledger.remember(key(&job("{}")), start);
        assert!(matches!(
            ledger.see(&job("{}"), None, start),
            Sight::Again(_, Fate::Claimed, 1)
        ));
    }

    #[test]
    fn what_nobody_repeats_any_more_is_forgotten() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let Sight::New(key) = ledger.see(&job("{}"), Some("r"), start) else {
            panic!("it is new");
        };
        ledger.decide(key, &job("{}"), Fate::Left);
        ledger.forget_old(start + KEPT);
        assert!(ledger.entries.is_empty() && ledger.seen.is_empty() && ledger.left.is_empty());
    }
}
