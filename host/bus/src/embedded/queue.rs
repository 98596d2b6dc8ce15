//! One queue: what waits, who consumes, and what has been handed out but not settled.
//!
//! A message enters with [`Queue::push`] and leaves when its delivery is acknowledged. Until then
//! the queue keeps it, so that a consumer can disappear at any moment without losing it.
//!
//! Invariant: a sender of deliveries is never dropped under the lock. Dropping the last handle of a
//! channel drops the deliveries in it, and each of them takes the lock to give itself back.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use futures_util::future::{self, BoxFuture};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Delivery, Message,
    absence::Absence,
    delivery::{Settle, SettleError},
};

/// Names a consumer within its queue; never used twice.
pub(super) type ConsumerId = u64;

/// A first-in, first-out queue with competing consumers.
pub(super) struct Queue {
    me: Weak<Self>,
    limit: usize,
    state: Mutex<State>,
    absence: Absence,
}

#[derive(Default)]
struct State {
    /// Oldest first, by number.
    ready: VecDeque<Stored>,
    /// Handed out, not settled; by number.
    unsettled: BTreeMap<u64, (ConsumerId, Message)>,
    consumers: HashMap<ConsumerId, Consumer>,
    /// Consumers that may get another message, whose turn is next first.
    turns: VecDeque<ConsumerId>,
    next_number: u64,
    next_consumer: ConsumerId,
}

struct Stored {
    /// Counts up with every push: the place in the queue, kept when a message is given back.
    number: u64,
    redelivered: bool,
    message: Message,
}

struct Consumer {
    /// `None` after a cancel: takes nothing new, settles what it has.
    sender: Option<mpsc::Sender<Delivery>>,
    prefetch: usize,
    unsettled: usize,
    lost: CancellationToken,
}

/// The queue is at its limit and does not take the message.
pub(super) struct Full(pub(super) Box<Message>);

/// Senders that leave a critical section to be dropped after it.
type Retired = Vec<mpsc::Sender<Delivery>>;

impl Queue {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            limit,
            state: Mutex::default(),
            absence: Absence::new(),
        })
    }

    /// Adds a message at the back.
    pub(super) fn push(&self, message: Message) -> Result<(), Full> {
        self.locked(|state, retired| {
            if state.ready.len() >= self.limit {
                return Err(Full(Box::new(message)));
            }
            let number = state.next_number;
            state.next_number += 1;
            state.ready.push_back(Stored {
                number,
                redelivered: false,
                message,
            });
            self.hand_out(state, retired);
            Ok(())
        })
    }

    /// Adds a consumer that holds at most `prefetch` unsettled deliveries.
    pub(super) fn subscribe(&self, prefetch: u16) -> (ConsumerId, mpsc::Receiver<Delivery>) {
        let prefetch = usize::from(prefetch.max(1));
        // What is in the channel is unsettled, so it never holds more than the prefetch.
        let (sender, receiver) = mpsc::channel(prefetch);
        let id = self.locked(|state, retired| {
            let id = state.next_consumer;
            state.next_consumer += 1;
            let consumer = Consumer {
                sender: Some(sender),
                prefetch,
                unsettled: 0,
                lost: CancellationToken::new(),
            };
            state.consumers.insert(id, consumer);
            state.turns.push_back(id);
            self.hand_out(state, retired);
            id
        });
        (id, receiver)
    }

    /// Changes how many unsettled deliveries a consumer may hold; 0: it gets nothing.
    pub(super) fn set_prefetch(&self, id: ConsumerId, prefetch: u16) {
        self.locked(|state, retired| {
            if let Some(consumer) = state.consumers.get_mut(&id) {
                consumer.prefetch = usize::from(prefetch);
                state.turns.retain(|other| *other != id);
                if consumer.unsettled < consumer.prefetch {
                    state.turns.push_back(id);
                }
            }
            self.hand_out(state, retired);
        });
    }

    /// Who wants to know since when nobody has consumed.
    pub(super) fn absence(&self) -> watch::Receiver<Option<Instant>> {
        self.absence.watch()
    }

    /// Gives nothing more to a consumer. What it has stays its own.
    pub(super) fn cancel(&self, id: ConsumerId) {
        self.locked(|state, retired| state.cancel(id, retired));
    }

    /// Takes a consumer off, and what it has not settled back, in its old place.
    pub(super) fn disconnect(&self, id: ConsumerId) {
        self.locked(|state, retired| {
            state.disconnect(id, retired);
            self.hand_out(state, retired);
        });
    }

    /// Takes every consumer off.
    pub(super) fn disconnect_all(&self) {
        self.locked(|state, retired| {
            let ids: Vec<_> = state.consumers.keys().copied().collect();
            for id in ids {
                state.disconnect(id, retired);
            }
        });
    }

    /// How many messages wait.
    pub(super) fn waiting(&self) -> usize {
        self.locked(|state, _| state.ready.len())
    }

    /// Runs a critical section and drops the senders that it retires after it.
    fn locked<T>(&self, section: impl FnOnce(&mut State, &mut Retired) -> T) -> T {
        let mut retired = Retired::new();
        let mut guard: MutexGuard<'_, State> =
            self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = section(&mut guard, &mut retired);
        self.absence.note(guard.is_consumed());
        drop(guard);
        drop(retired);
        result
    }

    /// Gives what waits to the consumers that have room, in turns.
    fn hand_out(&self, state: &mut State, retired: &mut Retired) {
        while !state.ready.is_empty() {
            let Some(id) = state.turns.pop_front() else {
                return;
            };
            let Some(consumer) = state.consumers.get_mut(&id) else {
                continue;
            };
            let Some(sender) = consumer.sender.as_ref() else {
                continue;
            };
            let Some(stored) = state.ready.pop_front() else {
                return;
            };
            let claim = Claim {
                queue: Weak::clone(&self.me),
                consumer: id,
                number: stored.number,
            };
            let delivery = Delivery::new(
                stored.message.clone(),
                stored.redelivered,
                consumer.lost.clone(),
                Box::new(claim),
            );
            match sender.try_send(delivery) {
                Ok(()) => {
                    consumer.unsettled += 1;
                    if consumer.unsettled < consumer.prefetch {
                        state.turns.push_back(id);
                    }
                    state.unsettled.insert(stored.number, (id, stored.message));
                }
                // The subscription was dropped.
                Err(TrySendError::Closed(delivery) | TrySendError::Full(delivery)) => {
                    delivery.disarm();
                    state.ready.push_front(stored);
                    state.cancel(id, retired);
                }
            }
        }
    }
}

impl State {
    fn is_consumed(&self) -> bool {
        let takes = |consumer: &Consumer| consumer.sender.is_some() && consumer.prefetch > 0;
        self.consumers.values().any(takes)
    }

    fn cancel(&mut self, id: ConsumerId, retired: &mut Retired) {
        if let Some(consumer) = self.consumers.get_mut(&id) {
            retired.extend(consumer.sender.take());
            if consumer.unsettled == 0 {
                self.consumers.remove(&id);
            }
        }
    }

    fn disconnect(&mut self, id: ConsumerId, retired: &mut Retired) {
        let Some(consumer) = self.consumers.remove(&id) else {
            return;
        };
        consumer.lost.cancel();
        retired.extend(consumer.sender);
        let numbers: Vec<u64> = self
            .unsettled
            .iter()
            .filter(|(_, (holder, _))| *holder == id)
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            if let Some((_, message)) = self.unsettled.remove(&number) {
                self.put_back(number, message);
            }
        }
    }

    /// Takes a message out of a consumer's hands: `None` when it is in somebody else's by now.
    fn take_from(&mut self, id: ConsumerId, number: u64) -> Option<Message> {
        match self.unsettled.get(&number) {
            Some((holder, _)) if *holder == id => {}
            _ => return None,
        }
        let (_, message) = self.unsettled.remove(&number)?;
        if let Some(consumer) = self.consumers.get_mut(&id) {
            let was_at_its_bound = consumer.unsettled >= consumer.prefetch;
            consumer.unsettled = consumer.unsettled.saturating_sub(1);
            if consumer.sender.is_none() {
                if consumer.unsettled == 0 {
                    self.consumers.remove(&id);
                }
            } else if was_at_its_bound && consumer.unsettled < consumer.prefetch {
                self.turns.push_back(id);
            }
        }
        Some(message)
    }

    /// Puts a message back where it was, which is near the front.
    fn put_back(&mut self, number: u64, message: Message) {
        let place = self.ready.partition_point(|stored| stored.number < number);
        let stored = Stored {
            number,
            redelivered: true,
            message,
        };
        self.ready.insert(place, stored);
    }
}

/// The right to settle one message, as long as the queue says so.
struct Claim {
    queue: Weak<Queue>,
    consumer: ConsumerId,
    number: u64,
}

impl Settle for Claim {
    fn ack(self: Box<Self>) -> BoxFuture<'static, Result<(), SettleError>> {
        let settled = self.queue.upgrade().and_then(|queue| {
            queue.locked(|state, retired| {
                let message = state.take_from(self.consumer, self.number);
                queue.hand_out(state, retired);
                message
            })
        });
        Box::pin(future::ready(settled.map(drop).ok_or(SettleError)))
    }

    fn put_behind(self: Box<Self>) {
        if let Some(queue) = self.queue.upgrade() {
            queue.locked(|state, retired| {
                if let Some(message) = state.take_from(self.consumer, self.number) {
                    let number = state.next_number;
                    state.next_number += 1;
                    state.put_back(number, message);
                    queue.hand_out(state, retired);
                }
            });
        }
    }

    fn requeue(self: Box<Self>) {
        if let Some(queue) = self.queue.upgrade() {
            queue.locked(|state, retired| {
                if let Some(message) = state.take_from(self.consumer, self.number) {
                    state.put_back(self.number, message);
                    queue.hand_out(state, retired);
                }
            });
        }
    }
}
