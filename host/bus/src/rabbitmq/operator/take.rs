//! Moving messages out of a queue, one by one: taken, published elsewhere with a confirm, and only
//! then acknowledged. Killed at any moment, each is in one of the two places, or in both with the
//! same id.
//!
//! What is not wanted stays unacknowledged on the channel, without its body, and goes back when the
//! channel ends: putting it back at once would only bring it again.

use std::{collections::VecDeque, time::Duration};

use futures_util::{
    StreamExt,
    future::{Either, join_all, ready},
    stream,
};
use lapin::{
    Channel,
    message::Delivery as Arrived,
    options::{BasicAckOptions, BasicGetOptions},
    types::ShortString,
};
use tokio::time::{Instant, sleep_until};
use warren_protocol::{Address, WorkerType};

use super::{
    super::{
        bounded::{Failure, STEP_TIMEOUT, WRITE_TIMEOUT, within},
        names::{DEAD, DEAD_LOG, JOBS, LEFT},
        publish::Parcel,
        topology, wire,
    },
    DeadLetter, DeadQueue, Operator, OperatorError,
    letter::{Departure, Left},
};
use crate::{Epitaph, Message, PublishError};

/// How many messages are being moved at once: one for each publish channel.
const WINDOW: usize = 64;
/// How many are asked for in one go. Answers take a write of the queue's log each, and overlap.
const GETS: u64 = 32;
/// After so long the channel is changed, so that what is held unacknowledged stays far below the
/// time after which a broker closes the channel (30 minutes unless configured otherwise).
const TURN: Duration = Duration::from_secs(10 * 60);

/// What is to be done with the dead letters of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Whose.
    pub queue: DeadQueue,
    /// What.
    pub action: Action,
    /// No more than so many.
    pub limit: Option<u64>,
    /// The shortest time between two of them.
    pub pause: Duration,
}

/// What becomes of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is published again as a first attempt: to this address, else to any worker of its type.
    Replay(Option<Address>),
    /// It is thrown away.
    Drop,
}

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not wanted, and goes back.
    Passed,
    /// It is done.
    Done {
        /// Its deadline had passed and was taken off.
        late: bool,
        /// The log does not know that it has left: why.
        unmarked: Option<String>,
    },
    /// It stays where it was.
    Failed {
        /// Its id.
        id: String,
        /// Why.
        why: String,
    },
}

/// How far a command has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many messages were ready at the start: no more are looked at.
    pub ready: u64,
    /// How many were done.
    pub done: u64,
    /// How many were not wanted.
    pub passed: u64,
    /// How many could not be done, and stay where they were.
    pub failed: u64,
    /// How many of those that were done had a deadline that had passed.
    pub late: u64,
    /// How many of those that were done the log still shows.
    pub unmarked: u64,
    /// Why the command ended before its end, if it did.
    pub broken: Option<String>,
}

/// What is done with one message.
enum Task<'a> {
    Replay(Option<&'a Address>),
    Drop,
    Bury(&'a WorkerType, &'a Epitaph),
}

/// One message in hand. Dropped, it goes back with its channel.
struct Taken {
    arrived: Arrived,
    worker_type: WorkerType,
}

/// Why one step ended it all: `Failed` concerns one message, this the link.
struct Broken(String);

/// Takes messages from a queue, as many as there were at the start.
struct Taker<'a, W> {
    channel: Channel,
    queue: ShortString,
    wanted: &'a W,
    buffer: VecDeque<Arrived>,
    /// How many may still be taken, and how many of these may be wanted ones.
    n_left: u64,
    n_wanted_left: u64,
    /// The time of the next one, and between two of them.
    next_at: Instant,
    pause: Duration,
    turn_ends: Instant,
}

impl Operator {
    /// Does with each wanted dead letter what is ordered. `wanted` decides; `each` is told what
    /// became of each, and how far it has come.
    ///
    /// Looks at no more messages than were ready at the start, so it ends even when what it
    /// replays comes back.
    ///
    /// # Errors
    /// When there is no such queue, or no log to note in what leaves. A link that breaks on the way
    /// is in the [`Tally`].
    pub async fn work_off(
        &self,
        order: &Order,
        wanted: impl Fn(&DeadLetter) -> bool,
        each: impl FnMut(&Outcome, &Tally),
    ) -> Result<Tally, OperatorError> {
        self.check_log().await?;
        let task = match &order.action {
            Action::Replay(to) => Task::Replay(to.as_ref()),
            Action::Drop => Task::Drop,
        };
        let is_wanted = |arrived: &mut Arrived| {
            let (key, properties) = (arrived.routing_key.as_str(), &arrived.properties);
            let body = std::mem::take(&mut arrived.data);
            let letter = DeadLetter::read(self.encoding, key, properties, body)?;
            let is_wanted = wanted(&letter);
            let DeadLetter {
                worker_type,
                message,
                ..
            } = letter;
            // The same buffer: nobody else has it.
            arrived.data = message.body.into();
            is_wanted.then_some(worker_type)
        };
        let limits = (order.limit, order.pause);
        self.empty(order.queue.name(), &task, limits, is_wanted, each)
            .await
    }

    /// Moves all jobs of a queue that is to be deleted to the dead letters of their type.
    pub(super) async fn bury_all(
        &self,
        queue: ShortString,
        worker_type: &WorkerType,
        epitaph: &Epitaph,
    ) -> Result<Tally, OperatorError> {
        let task = Task::Bury(worker_type, epitaph);
        let all = |_: &mut Arrived| Some(worker_type.clone());
        let limits = (None, Duration::ZERO);
        self.empty(queue, &task, limits, all, |_, _| {}).await
    }

    async fn empty<W>(
        &self,
        queue: ShortString,
        task: &Task<'_>,
        (limit, pause): (Option<u64>, Duration),
        wanted: W,
        mut each: impl FnMut(&Outcome, &Tally),
    ) -> Result<Tally, OperatorError>
    where
        W: Fn(&mut Arrived) -> Option<WorkerType>,
    {
        let mut tally = Tally::default();
        let mut next_at = Instant::now();
        let mut is_first = true;
        loop {
            let channel = self.channel().await?;
            let n_ready = match topology::look(&channel, queue.clone()).await {
                Ok(queue) => u64::from(queue.message_count()),
                Err(failure) if failure.is_not_found() => {
                    return Err(OperatorError::Missing {
                        queue: queue.as_str().to_owned(),
                        remedy: "nothing was ever given up there, or it was deleted: `warren \
                                 topology apply --type TYPE` declares it",
                    });
                }
                Err(failure) => return Err(failure.into()),
            };
            if is_first {
                tally.ready = n_ready;
            }
            is_first = false;
            let begun = tally.done + tally.failed;
            let taker = Taker {
                channel: channel.clone(),
                queue: queue.clone(),
                wanted: &wanted,
                buffer: VecDeque::new(),
                n_left: n_ready,
                n_wanted_left: limit
                    .unwrap_or(u64::MAX)
                    .min(tally.ready)
                    .saturating_sub(begun),
                next_at,
                pause,
                turn_ends: Instant::now() + TURN,
            };
            // Taking goes on while what was taken is being moved; both in order.
            let taken = stream::unfold(taker, async |mut taker| {
                let next = taker.next().await?;
                Some((next, taker))
            });
            let moves = taken.map(|next| match next {
                Ok(Some(taken)) => Either::Left(self.carry_out(task, taken)),
                Ok(None) => Either::Right(ready(Ok(Outcome::Passed))),
                Err(broken) => Either::Right(ready(Err(broken))),
            });
            let mut moves = std::pin::pin!(moves.buffer_unordered(WINDOW));
            let turn_ends = Instant::now() + TURN;
            while let Some(moved) = moves.next().await {
                match moved {
                    Ok(outcome) => {
                        tally.count(&outcome);
                        each(&outcome, &tally);
                    }
                    Err(Broken(why)) => {
                        // What is under way is given up: it goes back, or is done twice.
                        tally.broken = Some(why);
                        break;
                    }
                }
            }
            topology::close(&channel).await;
            next_at = Instant::now();
            if tally.broken.is_some() || Instant::now() < turn_ends {
                return Ok(tally);
            }
        }
    }

    async fn carry_out(&self, task: &Task<'_>, taken: Taken) -> Result<Outcome, Broken> {
        let Taken {
            mut arrived,
            worker_type,
        } = taken;
        let id = arrived.properties.message_id().clone();
        let mut done = Outcome::Done {
            late: false,
            unmarked: None,
        };
        let sent = match task {
            Task::Replay(to) => {
                let (message, late) = self.fresh(&mut arrived, worker_type.clone(), *to);
                done = Outcome::Done {
                    late,
                    unmarked: None,
                };
                self.replay(&message).await
            }
            Task::Drop => {
                self.note(&worker_type, id.as_ref(), Departure::Dropped)
                    .await
            }
            Task::Bury(of, epitaph) => self.bury(&mut arrived, of, epitaph).await,
        };
        match sent {
            Ok(()) => {}
            Err(PublishError::Unavailable(why)) => return Err(Broken(why)),
            Err(error) => {
                let id = id.map(|id| id.as_str().to_owned()).unwrap_or_default();
                let why = error.to_string();
                return Ok(Outcome::Failed { id, why });
            }
        }
        if let (Task::Replay(_), Outcome::Done { unmarked, .. }) = (task, &mut done) {
            let noted = self.note(&worker_type, id.as_ref(), Departure::Replayed);
            // The job is on its way: not acknowledging it would only run it twice.
            *unmarked = noted.await.err().map(|error| error.to_string());
        }
        let acked = arrived.acker.ack(BasicAckOptions::default());
        match within(WRITE_TIMEOUT, "acknowledge", acked).await {
            Ok(true) => Ok(done),
            Ok(false) => Err(Broken("the channel ended before the last step".to_owned())),
            Err(failure) => Err(Broken(failure.to_string())),
        }
    }

    /// The job as it is published again: the same id, a first attempt, without a deadline that has
    /// passed, and without anything that only a dead letter has.
    fn fresh(
        &self,
        arrived: &mut Arrived,
        worker_type: WorkerType,
        to: Option<&Address>,
    ) -> (Message, bool) {
        let to = to.cloned().unwrap_or(Address::Any(worker_type));
        let body = std::mem::take(&mut arrived.data);
        let mut message = wire::read(to, self.encoding, &arrived.properties, body);
        message.attempt = 1;
        let late = message.deadline_ms.is_some_and(|ms| ms <= wire::now_ms());
        if late {
            message.deadline_ms = None;
        }
        (message, late)
    }

    async fn replay(&self, message: &Message) -> Result<(), PublishError> {
        let key = message.to.to_string();
        let parcel = Parcel {
            exchange: JOBS.into(),
            key: &key,
            body: &message.body,
            properties: wire::properties(message)?,
        };
        self.send(&parcel).await
    }

    /// Notes in the log that a dead letter leaves its queue.
    async fn note(
        &self,
        worker_type: &WorkerType,
        id: Option<&ShortString>,
        how: Departure,
    ) -> Result<(), PublishError> {
        let parcel = Parcel {
            exchange: DEAD_LOG.into(),
            key: LEFT,
            body: &[],
            properties: Left::properties(worker_type, id, how),
        };
        self.send(&parcel).await
    }

    async fn bury(
        &self,
        arrived: &mut Arrived,
        worker_type: &WorkerType,
        epitaph: &Epitaph,
    ) -> Result<(), PublishError> {
        let to = arrived.routing_key.as_str().parse();
        let to = to.unwrap_or_else(|_| Address::Any(worker_type.clone()));
        let body = std::mem::take(&mut arrived.data);
        let message = wire::read(to, self.encoding, &arrived.properties, body);
        let parcel = Parcel {
            exchange: DEAD.into(),
            key: worker_type.as_str(),
            body: &message.body,
            properties: wire::dead_letter(&message, epitaph)?,
        };
        self.send(&parcel).await?;
        // The letter is safe. What is missing in the log is only missing in lists.
        let copy = Parcel {
            exchange: DEAD_LOG.into(),
            ..parcel
        };
        let _ = self.send(&copy).await;
        Ok(())
    }
}

impl<W> Taker<'_, W>
where
    W: Fn(&mut Arrived) -> Option<WorkerType>,
{
    /// The next message: `None` inside for one that is not wanted, `None` outside at the end.
    async fn next(&mut self) -> Option<Result<Option<Taken>, Broken>> {
        if self.n_wanted_left == 0 || Instant::now() >= self.turn_ends {
            return None;
        }
        if self.buffer.is_empty()
            && let Err(failure) = self.fetch().await
        {
            self.n_wanted_left = 0;
            return Some(Err(Broken(failure.to_string())));
        }
        let mut arrived = self.buffer.pop_front()?;
        let Some(worker_type) = (self.wanted)(&mut arrived) else {
            return Some(Ok(None));
        };
        self.n_wanted_left -= 1;
        sleep_until(self.next_at).await;
        self.next_at = self.next_at.max(Instant::now()) + self.pause;
        Some(Ok(Some(Taken {
            arrived,
            worker_type,
        })))
    }

    /// Takes no more than are wanted, so that as few as possible come back as redelivered.
    async fn fetch(&mut self) -> Result<(), Failure> {
        let n_gets = GETS.min(self.n_left).min(self.n_wanted_left);
        // Slow ones are not held for longer than a second.
        let in_a_second = Duration::from_secs(1).as_nanos() / self.pause.as_nanos().max(1);
        let n_gets = n_gets.min(u64::try_from(in_a_second).unwrap_or(u64::MAX).max(1));
        self.n_left -= n_gets;
        let get = || {
            let answer = self
                .channel
                .basic_get(self.queue.clone(), BasicGetOptions::default());
            within(STEP_TIMEOUT, "take a dead letter", answer)
        };
        for got in join_all((0..n_gets).map(|_| get())).await {
            match got? {
                Some(got) => self.buffer.push_back(got.delivery),
                // Somebody else was faster.
                None => self.n_left = 0,
            }
        }
        Ok(())
    }
}

impl Tally {
    fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed { .. } => self.failed += 1,
            Outcome::Done { late, unmarked } => {
                self.done += 1;
                self.late += u64::from(*late);
                self.unmarked += u64::from(unmarked.is_some());
            }
        }
    }
}
