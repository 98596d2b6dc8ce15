//! One measurement: which job is due when, which are open, and what has come of each. It knows no clock
//! and no bus: a moment is an argument, the time since the measurement began.
//!
//! Invariant of an open loop (`Pace::Rate`): a job is due at its time whatever has become of those before
//! it, and its latency counts from there. When jobs must wait to be sent, because the target stalls, that
//! is part of their latency: no stall hides behind jobs that were never sent (coordinated omission).

use std::{collections::VecDeque, time::Duration};

use warren_protocol::CallError;

use super::record::Record;

/// After the end of an open loop, jobs that were due before it are still sent for so long: this
/// program may have been woken late.
const LATE: Duration = Duration::from_millis(100);
/// Of the jobs that were due, so many in a hundred may be open at the end of a target that keeps up.
const BACKLOG_PERCENT: u64 = 5;

/// When jobs are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// So many a second, at fixed times.
    Rate(f64),
    /// The next one when one has ended, so that so many are open at all times.
    Concurrency(usize),
}

/// The bounds of a measurement.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// For how long jobs are sent.
    pub(super) length: Duration,
    /// For how long a job is waited for.
    pub(super) patience: Duration,
    /// How many jobs may be open in an open loop.
    pub(super) max_open: usize,
    /// Where jobs go, for the error of one that is not answered.
    pub(super) to: String,
}

/// One measurement.
pub(super) struct Course {
    pub(super) pace: Pace,
    pub(super) record: Record,
    bounds: Bounds,
    max_open: usize,
    /// The number of its first job.
    first: u64,
    /// The number of the oldest open job, the first in `open`.
    front: u64,
    /// The jobs since the oldest open one; those that have ended are `None`. All have the same
    /// patience, so the first is always the next to time out.
    open: VecDeque<Option<Open>>,
    n_open: usize,
    /// Whether a job that was due had to wait because too many were open.
    was_full: bool,
    /// How many jobs were due and had not ended when half of the time was over.
    backlog_at_half: Option<u64>,
    /// When it was broken off.
    broken_off: Option<Duration>,
}

#[derive(Clone, Copy)]
struct Open {
    due: Duration,
    sent: Duration,
}

impl Course {
    /// `first`: the number of its first job.
    ///
    /// # Errors
    /// As [`Record::new`].
    pub(super) fn new(pace: Pace, bounds: Bounds, first: u64) -> anyhow::Result<Self> {
        let max_open = match pace {
            Pace::Rate(_) => bounds.max_open,
            Pace::Concurrency(n) => n,
        };
        Ok(Self {
            pace,
            record: Record::new()?,
            bounds,
            max_open,
            first,
            front: first,
            open: VecDeque::new(),
            n_open: 0,
            was_full: false,
            backlog_at_half: None,
            broken_off: None,
        })
    }

    /// The number of the job that is to be sent now; it counts as sent.
    pub(super) fn next(&mut self, now: Duration) -> Option<u64> {
        let due = self.next_due(now).filter(|due| *due <= now)?;
        if self.n_open >= self.max_open {
            self.was_full = true;
            return None;
        }
        let number = self.number_after();
        self.open.push_back(Some(Open { due, sent: now }));
        self.n_open += 1;
        self.record.sent += 1;
        self.record.lag.note(now.saturating_sub(due));
        Some(number)
    }

    /// A job has ended. One that is not open, because it came too late, changes nothing.
    pub(super) fn end(&mut self, number: u64, result: Result<(), CallError>, now: Duration) {
        let index = number.checked_sub(self.front);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let open = index.and_then(|index| self.open.get_mut(index)?.take());
        if let Some(open) = open {
            self.settle(open, result, now);
        }
    }

    /// Gives up what was waited for long enough, and takes note of how far it has come.
    pub(super) fn tick(&mut self, now: Duration) {
        while let Some(Some(open)) = self.open.front().copied() {
            if now.saturating_sub(open.sent) < self.bounds.patience {
                break;
            }
            if let Some(place) = self.open.front_mut() {
                *place = None;
            }
            let error = CallError::Timeout {
                address: self.bounds.to.clone(),
                after_ms: u64::try_from(self.bounds.patience.as_millis()).unwrap_or(u64::MAX),
            };
            self.settle(open, Err(error), now);
        }
        if now >= self.bounds.length / 2 && self.backlog_at_half.is_none() {
            self.backlog_at_half = Some(self.backlog(now));
        }
    }

    /// When there is something to be done although nothing is heard.
    pub(super) fn wake_at(&self, now: Duration) -> Option<Duration> {
        let length = self.bounds.length;
        let has_room = self.n_open < self.max_open;
        let oldest = self.open.front().copied().flatten();
        [
            self.next_due(now).filter(|_| has_room),
            oldest.map(|open| open.sent + self.bounds.patience),
            (now < length / 2).then_some(length / 2),
            (now < length).then_some(length),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether nothing is to be sent any more, and nothing is open.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        now >= self.bounds.length && self.n_open == 0
    }

    /// Ends it before its time. What is open stays unanswered.
    pub(super) fn break_off(&mut self, now: Duration) {
        self.record.unanswered = self.n_open as u64;
        self.open.clear();
        self.n_open = 0;
        self.broken_off = Some(now);
    }

    /// All that is open ends with this error.
    pub(super) fn fail_all(&mut self, error: &CallError, now: Duration) {
        for open in std::mem::take(&mut self.open).into_iter().flatten() {
            self.settle(open, Err(error.clone()), now);
        }
    }

    /// The number that the next job will have.
    pub(super) fn number_after(&self) -> u64 {
        self.first + self.record.sent
    }

    /// For how long jobs were sent.
    pub(super) fn window(&self) -> Duration {
        let length = self.bounds.length;
        self.broken_off.map_or(length, |now| now.min(length))
    }

    /// How many jobs were due in an open loop.
    pub(super) fn n_due(&self) -> Option<u64> {
        match self.pace {
            Pace::Rate(rate) => Some(n_due(rate, self.window())),
            Pace::Concurrency(_) => None,
        }
    }

    /// Answers a second, of those that came before the time was up.
    pub(super) fn answered_per_second(&self) -> f64 {
        per_second(self.record.answered_in_time, self.window())
    }

    /// Whether the target has kept up with an open loop. It has not when, at the end, much of what was
    /// due had not ended, and clearly more than at half time.
    pub(super) fn kept_up(&self) -> bool {
        let (Some(n_due), Some(at_half)) = (self.n_due(), self.backlog_at_half) else {
            return true;
        };
        let at_end = n_due.saturating_sub(self.record.ended_in_time);
        at_end * 100 <= n_due * BACKLOG_PERCENT || at_end * 2 < at_half * 3
    }

    /// Whether a job that was due had to wait because as many were open as may be.
    pub(super) fn was_full(&self) -> bool {
        self.was_full
    }

    /// How many may be open.
    pub(super) fn max_open(&self) -> usize {
        self.max_open
    }

    /// When the next job is due; `None` when none is.
    fn next_due(&self, now: Duration) -> Option<Duration> {
        let length = self.bounds.length;
        match self.pace {
            Pace::Rate(rate) => {
                let due = Duration::try_from_secs_f64(self.record.sent as f64 / rate).ok();
                due.filter(|due| *due < length && now < length + LATE)
            }
            Pace::Concurrency(_) => (now < length).then_some(now),
        }
    }

    /// How many jobs were due until now and have not ended.
    fn backlog(&self, now: Duration) -> u64 {
        match self.pace {
            Pace::Rate(rate) => n_due(rate, now).saturating_sub(self.record.ended_in_time),
            Pace::Concurrency(_) => 0,
        }
    }

    fn settle(&mut self, open: Open, result: Result<(), CallError>, now: Duration) {
        let in_time = now <= self.bounds.length;
        let latency = now.saturating_sub(open.due);
        self.record.end(result, latency, in_time);
        self.n_open -= 1;
        while let Some(None) = self.open.front() {
            self.open.pop_front();
            self.front += 1;
        }
        if self.open.is_empty() {
            self.front = self.number_after();
        }
    }
}

/// How many jobs of this rate were due before a moment. The first one is due at the beginning.
fn n_due(rate: f64, until: Duration) -> u64 {
    (rate * until.as_secs_f64()).ceil() as u64
}

pub(super) fn per_second(n: u64, time: Duration) -> f64 {
    if time.is_zero() {
        return 0.0;
    }
    n as f64 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn course(pace: Pace, max_open: usize) -> Course {
        let bounds = Bounds {
            length: SECOND,
            patience: 10 * SECOND,
            max_open,
            to: "WB:*".to_owned(),
        };
        Course::new(pace, bounds, 0).unwrap()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Runs a course, millisecond by millisecond, against a target that works on one job at a time
    /// and needs `service` for each, but does nothing during `stall`.
    fn run(course: &mut Course, service: Duration, stall: std::ops::Range<Duration>) {
        let (mut queue, mut done_at) = (VecDeque::new(), None);
        for now in (0..60_000).map(ms) {
            course.tick(now);
            if stall.contains(&now) {
                done_at = None;
            } else if done_at == Some(now) {
                course.end(queue.pop_front().unwrap(), Ok(()), now);
                done_at = None;
            }
            queue.extend(std::iter::from_fn(|| course.next(now)));
            if !queue.is_empty() && done_at.is_none() && !stall.contains(&now) {
                done_at = Some(now + service);
            }
            if course.is_over(now) {
                return;
            }
        }
        panic!("it does not end");
    }

    fn adds_up(course: &Course) {
        let record = &course.record;
        let ended = record.answered + record.n_failed() + record.unanswered;
        assert_eq!(record.sent, ended);
    }

    #[test]
    fn jobs_of_an_open_loop_are_due_at_fixed_times_whatever_becomes_of_them() {
        let mut course = course(Pace::Rate(4.0), 100);
        let mut sent = Vec::new();
        for now in (0..1200).map(ms) {
            course.tick(now);
            if let Some(number) = course.next(now) {
                sent.push((number, now));
            }
        }
        assert_eq!(sent, [(0, ms(0)), (1, ms(250)), (2, ms(500)), (3, ms(750))]);
        assert_eq!(course.n_due(), Some(4));
        assert!(!course.is_over(ms(1200)), "all of them are open");
    }

    #[test]
    fn it_wakes_for_the_next_job_and_for_nothing_else_before() {
        let mut course = course(Pace::Rate(4.0), 100);
        assert_eq!(course.wake_at(ms(0)), Some(ms(0)));
        assert_eq!(course.next(ms(0)), Some(0));
        assert_eq!(course.wake_at(ms(0)), Some(ms(250)));
        course.end(0, Ok(()), ms(3));
        assert_eq!(course.wake_at(ms(800)), Some(ms(250)), "it is late");
    }

    #[test]
    fn a_stall_shows_in_the_percentiles_of_an_open_loop_and_hides_in_those_of_a_closed_one() {
        let stall = ms(300)..ms(700);
        let mut open = course(Pace::Rate(100.0), 10_000);
        run(&mut open, ms(1), stall.clone());
        adds_up(&open);
        // 40 of 100 were due during the stall; that one which waited longest waited for all of it.
        let times = &open.record.latency;
        assert!(times.percentile(50.0) <= ms(2));
        assert!(
            times.percentile(90.0) > ms(250),
            "{:?}",
            times.percentile(90.0)
        );
        assert!(times.percentile(99.0) > ms(380));

        let mut closed = course(Pace::Concurrency(1), 1);
        run(&mut closed, ms(1), stall);
        adds_up(&closed);
        assert!(closed.record.latency.percentile(99.0) <= ms(2));
        assert!(closed.record.latency.max() >= ms(400));
    }

    #[test]
    fn a_stall_shows_also_when_no_more_may_be_open() {
        let mut course = course(Pace::Rate(100.0), 1);
        run(&mut course, ms(1), ms(300)..ms(700));
        adds_up(&course);
        assert!(course.was_full());
        assert_eq!(course.record.sent, 100);
        assert!(course.record.latency.percentile(90.0) > ms(250));
        assert!(course.record.lag.percentile(90.0) > ms(250));
    }

    #[test]
    fn a_target_that_is_too_slow_has_not_kept_up_and_one_that_takes_its_time_has() {
        let mut slow = course(Pace::Rate(100.0), 10_000);
        run(&mut slow, ms(50), ms(0)..ms(0));
        adds_up(&slow);
        assert!(!slow.kept_up());
        assert!(slow.answered_per_second() < 21.0);

        // Each job takes 300 ms, any number at a time.
        let mut patient = course(Pace::Rate(100.0), 10_000);
        let mut open = VecDeque::new();
        for now in (0..2000).map(ms) {
            patient.tick(now);
            while open.front().is_some_and(|(_, end)| *end == now) {
                let (number, _) = open.pop_front().unwrap();
                patient.end(number, Ok(()), now);
            }
            open.extend(std::iter::from_fn(|| {
                Some((patient.next(now)?, now + ms(300)))
            }));
        }
        assert!(patient.is_over(2 * SECOND));
        assert!(patient.kept_up());
        assert!(course(Pace::Concurrency(1), 1).kept_up());
    }

    #[test]
    fn a_closed_loop_has_so_many_open_until_its_time_is_up() {
        let mut course = course(Pace::Concurrency(3), 10_000);
        let sent: Vec<_> = std::iter::from_fn(|| course.next(ms(0))).collect();
        assert_eq!(sent, [0, 1, 2]);
        course.end(1, Ok(()), ms(5));
        assert_eq!(course.next(ms(5)), Some(3));
        assert_eq!(course.next(ms(5)), None);
        for number in [0, 2, 3] {
            course.end(number, Ok(()), ms(1500));
        }
        assert_eq!(course.next(ms(1500)), None);
        assert!(course.is_over(ms(1500)));
        // What was answered after the time was up is no throughput.
        assert_eq!(
            (course.record.answered, course.record.answered_in_time),
            (4, 1)
        );
    }

    #[test]
    fn what_is_not_answered_in_time_is_a_timeout_and_its_answer_comes_too_late() {
        let mut course = course(Pace::Concurrency(2), 10_000);
        assert_eq!((course.next(ms(0)), course.next(ms(1))), (Some(0), Some(1)));
        course.end(1, Ok(()), ms(2));
        assert_eq!(course.next(ms(2)), Some(2));
        assert_eq!(course.wake_at(ms(5000)), Some(10 * SECOND));
        course.tick(10 * SECOND);
        assert_eq!(course.record.failed.get("timeout").unwrap().n, 1);
        course.end(0, Ok(()), 11 * SECOND);
        assert_eq!((course.record.answered, course.n_open), (1, 1));
        course.tick(10 * SECOND + ms(2));
        assert!(course.is_over(10 * SECOND + ms(2)));
        adds_up(&course);
    }

    #[test]
    fn what_is_broken_off_adds_up() {
        let mut course = course(Pace::Rate(1000.0), 5);
        while course.next(ms(100)).is_some() {}
        course.end(0, Ok(()), ms(100));
        let failed = CallError::Failed {
            worker: "WB:1".to_owned(),
            attempts: 1,
            reason: "no".to_owned(),
        };
        course.end(1, Err(failed), ms(100));
        course.break_off(ms(100));
        adds_up(&course);
        let record = &course.record;
        assert_eq!((record.sent, record.answered, record.unanswered), (5, 1, 3));
        assert_eq!(course.window(), ms(100));
        assert_eq!(course.n_due(), Some(100));
    }
}
