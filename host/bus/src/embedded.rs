//! The bus inside one process: the same semantics as RabbitMQ, without a broker.
//!
//! An [`EmbeddedBroker`] holds the queues; each host has a handle of it, an [`Embedded`]. In
//! memory: what is queued when the process ends is gone.
//!
//! Invariant: no lock is held across an await, and none is held while a delivery is dropped (the
//! drop gives it back and takes the lock of its queue again).

mod queue;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio::sync::watch;
use warren_protocol::{Address, WorkerId, WorkerType};

use crate::{
    ABSENCE_GRACE, Bus, DEFAULT_MAX_MESSAGE_BYTES, Delivery, Epitaph, Health, INBOX_PREFETCH,
    Inbox, JoinError, Message, PublishError, Subscription, absence, notice,
};
use queue::{ConsumerId, Full, Queue};

/// How many dead letters are kept, and how many bytes of them. The oldest go when another one
/// comes: they are kept for a person to look at, and memory is all that there is.
const MAX_DEAD_LETTERS: usize = 10_000;
const MAX_DEAD_BYTES: usize = 64 << 20;
/// How long a message waits whose queue was full when its time had come.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(1);

/// The queues of one process. Cloning it gives another handle of the same broker; it lives as long
/// as the last handle or host.
#[derive(Clone)]
pub struct EmbeddedBroker(Arc<Broker>);

/// One host's handle of an [`EmbeddedBroker`]. What it has not settled goes back to the queues when
/// it is closed or dropped.
pub struct Embedded {
    broker: Arc<Broker>,
    host: Arc<str>,
    inbox: Arc<Queue>,
    members: Mutex<Members>,
    /// The same as in `members`, for publishing, which does not need them.
    closed: AtomicBool,
    health: watch::Sender<Health>,
}

struct Broker {
    /// Messages per queue.
    limit: usize,
    max_message_bytes: usize,
    /// Made at the first join of the type and kept for ever, so that messages wait.
    queues: RwLock<HashMap<WorkerType, Arc<Queue>>>,
    /// Which host's inbox a worker id leads to.
    ids: RwLock<HashMap<WorkerId, Arc<Queue>>>,
    dead: Mutex<DeadLetters>,
}

/// The last dead letters of all types, oldest first.
#[derive(Default)]
struct DeadLetters {
    letters: VecDeque<(Message, Epitaph)>,
    n_bytes: usize,
}

/// What one host has on the bus.
#[derive(Default)]
struct Members {
    closed: bool,
    joined: HashMap<WorkerType, (WorkerId, ConsumerId)>,
    /// Consumers of workers that have left: what they were given is still being settled.
    left: Vec<(WorkerType, ConsumerId)>,
    /// Ids that reach this host, those of workers that have left but are not forgotten included.
    ids: HashSet<WorkerId>,
}

impl EmbeddedBroker {
    /// How many messages a queue takes by default.
    pub const DEFAULT_LIMIT: usize = 100_000;

    /// A broker without queues. `limit`: how many messages wait in one queue before it refuses
    /// more. `max_message_bytes`: the largest body that it takes.
    #[must_use]
    pub fn new(limit: usize, max_message_bytes: usize) -> Self {
        Self(Arc::new(Broker {
            limit,
            max_message_bytes,
            queues: RwLock::default(),
            ids: RwLock::default(),
            dead: Mutex::default(),
        }))
    }

    /// Puts a host on the broker. `host` names it in debug output.
    #[must_use]
    pub fn connect(&self, host: &str) -> (Embedded, Inbox) {
        let inbox = Queue::new(self.0.limit);
        let (_, deliveries) = inbox.subscribe(INBOX_PREFETCH);
        let health = Health {
            connected: true,
            ..Health::default()
        };
        let embedded = Embedded {
            broker: Arc::clone(&self.0),
            host: host.into(),
            inbox,
            members: Mutex::default(),
            closed: AtomicBool::new(false),
            health: watch::Sender::new(health),
        };
        (embedded, deliveries)
    }

    /// The dead letters of a type, oldest first: those among the last 10,000 (or 64 MiB) of all
    /// types.
    #[must_use]
    pub fn dead_letters(&self, worker_type: &WorkerType) -> Vec<(Message, Epitaph)> {
        let dead = locked(&self.0.dead);
        let of_type = |letter: &&(Message, Epitaph)| letter.0.to.worker_type() == worker_type;
        dead.letters.iter().filter(of_type).cloned().collect()
    }

    /// How many messages of a type wait to be delivered.
    #[must_use]
    pub fn waiting(&self, worker_type: &WorkerType) -> usize {
        self.0.queue(worker_type).map_or(0, |queue| queue.waiting())
    }
}

impl Default for EmbeddedBroker {
    fn default() -> Self {
        Self::new(Self::DEFAULT_LIMIT, DEFAULT_MAX_MESSAGE_BYTES)
    }
}

#[async_trait]
impl Bus for Embedded {
    async fn join(&self, worker: &WorkerId, prefetch: u16) -> Result<Subscription, JoinError> {
        let worker_type = worker.worker_type();
        let mut members = locked(&self.members);
        if members.closed {
            return Err(JoinError::Closed);
        }
        if members.joined.contains_key(worker_type) {
            return Err(JoinError::Taken(worker_type.clone()));
        }
        write(&self.broker.ids).insert(worker.clone(), Arc::clone(&self.inbox));
        let queue = self.broker.queue_or_new(worker_type);
        let (consumer, subscription) = queue.subscribe(prefetch);
        members.ids.insert(worker.clone());
        members
            .joined
            .insert(worker_type.clone(), (worker.clone(), consumer));
        self.show(&members);
        Ok(subscription)
    }

    async fn leave(&self, worker: &WorkerId) {
        let worker_type = worker.worker_type();
        let mut members = locked(&self.members);
        let Some((id, consumer)) = members.joined.get(worker_type).cloned() else {
            return;
        };
        if id != *worker {
            return;
        }
        members.joined.remove(worker_type);
        if let Some(queue) = self.broker.queue(worker_type) {
            queue.cancel(consumer);
        }
        members.left.push((worker_type.clone(), consumer));
        self.show(&members);
    }

    async fn forget(&self, worker: &WorkerId) {
        if locked(&self.members).ids.remove(worker) {
            write(&self.broker.ids).remove(worker);
        }
    }

    async fn publish(&self, message: Message) -> Result<(), PublishError> {
        self.check_open()?;
        self.broker.take(message).map_err(|(error, _)| error)
    }

    async fn park(&self, message: Message, until_ms: u64) -> Result<(), PublishError> {
        self.check_open()?;
        let wait = Duration::from_millis(until_ms.saturating_sub(now_ms()));
        // What waits lives as long as the broker, and not longer.
        let broker = Arc::downgrade(&self.broker);
        tokio::spawn(send_later(broker, message, wait));
        Ok(())
    }

    async fn put_back(&self, delivery: Delivery) {
        delivery.put_behind();
    }

    async fn set_prefetch(&self, worker: &WorkerId, prefetch: u16) {
        let members = locked(&self.members);
        if let Some((id, consumer)) = members.joined.get(worker.worker_type())
            && id == worker
            && let Some(queue) = self.broker.queue(worker.worker_type())
        {
            queue.set_prefetch(*consumer, prefetch);
        }
    }

    async fn absence(&self, worker_type: &WorkerType) {
        match self.broker.queue(worker_type) {
            Some(queue) => absence::lasting(queue.absence(), ABSENCE_GRACE).await,
            None => std::future::pending().await,
        }
    }

    async fn bury(&self, message: Message, epitaph: Epitaph) -> Result<(), PublishError> {
        self.check_open()?;
        self.broker.bury(message, epitaph);
        Ok(())
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    async fn close(&self) {
        self.shut();
    }
}

impl DeadLetters {
    fn keep(&mut self, message: Message, epitaph: Epitaph) {
        self.n_bytes += message.body.len();
        self.letters.push_back((message, epitaph));
        while self.letters.len() > MAX_DEAD_LETTERS
            || (self.n_bytes > MAX_DEAD_BYTES && self.letters.len() > 1)
        {
            let oldest = self.letters.pop_front();
            self.n_bytes -= oldest.map_or(0, |(message, _)| message.body.len());
        }
    }
}

impl Embedded {
    /// Leads what is addressed to an id to this inbox, for somebody who asks and takes no jobs.
    pub fn answer_to(&self, id: &WorkerId) {
        let mut members = locked(&self.members);
        if !members.closed {
            write(&self.broker.ids).insert(id.clone(), Arc::clone(&self.inbox));
            members.ids.insert(id.clone());
        }
    }

    /// Tells the state to whoever watches it.
    fn show(&self, members: &Members) {
        let mut consuming: Vec<_> = members.joined.keys().cloned().collect();
        consuming.sort();
        self.health.send_replace(Health {
            connected: !members.closed,
            consuming,
            problem: members.closed.then(|| "the bus is closed".into()),
            ..Health::default()
        });
    }

    fn check_open(&self) -> Result<(), PublishError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(PublishError::Unavailable("the bus is closed".to_owned()));
        }
        Ok(())
    }

    fn shut(&self) {
        let mut members = locked(&self.members);
        if members.closed {
            return;
        }
        members.closed = true;
        self.closed.store(true, Ordering::Relaxed);
        {
            let mut ids = write(&self.broker.ids);
            for id in members.ids.drain() {
                ids.remove(&id);
            }
        }
        let joined = std::mem::take(&mut members.joined);
        let joined = joined.into_iter().map(|(ty, (_, consumer))| (ty, consumer));
        for (worker_type, consumer) in joined.chain(std::mem::take(&mut members.left)) {
            if let Some(queue) = self.broker.queue(&worker_type) {
                queue.disconnect(consumer);
            }
        }
        self.inbox.disconnect_all();
        self.show(&members);
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shut();
    }
}

/// Hands a message over when it has waited. A full queue is tried again, and what has no receiver
/// is buried.
async fn send_later(broker: Weak<Broker>, mut message: Message, mut wait: Duration) {
    loop {
        tokio::time::sleep(wait).await;
        let Some(broker) = broker.upgrade() else {
            return;
        };
        match broker.take(message) {
            Ok(()) => return,
            Err((error, refused)) if error.is_retryable() => message = refused,
            Err((error, refused)) => {
                let epitaph = Epitaph {
                    reason: "unrouted",
                    error: error.to_string(),
                    plugin: None,
                    stack: None,
                    host: "embedded".to_owned(),
                };
                return broker.bury(refused, epitaph);
            }
        }
        wait = WAIT_FOR_ROOM;
    }
}

impl Broker {
    /// Keeps a dead letter, and tells its sender: one that is gone needs no news.
    fn bury(&self, message: Message, epitaph: Epitaph) {
        let news = notice::of(&message, &epitaph);
        locked(&self.dead).keep(message, epitaph);
        if let Some(news) = news {
            let _ = self.take(news);
        }
    }

    /// Puts a message into the queue of its address, or gives it back with the reason.
    #[allow(
        clippy::result_large_err,
        reason = "the message goes back to whoever tries again"
    )]
    fn take(&self, mut message: Message) -> Result<(), (PublishError, Message)> {
        let (size, limit) = (message.body.len(), self.max_message_bytes);
        if size > limit {
            return Err((PublishError::TooLarge { size, limit }, message));
        }
        let queue = match &message.to {
            Address::Any(worker_type) => self.queue(worker_type),
            Address::One(id) => read(&self.ids).get(id).cloned(),
        };
        let Some(queue) = queue else {
            let error = PublishError::Unroutable(message.to.to_string());
            return Err((error, message));
        };
        message.first_ms.get_or_insert_with(now_ms);
        queue.push(message).map_err(|Full(message)| {
            let error = PublishError::QueueFull(message.to.to_string());
            (error, *message)
        })
    }

    fn queue(&self, worker_type: &WorkerType) -> Option<Arc<Queue>> {
        read(&self.queues).get(worker_type).cloned()
    }

    fn queue_or_new(&self, worker_type: &WorkerType) -> Arc<Queue> {
        let mut queues = write(&self.queues);
        let queue = queues
            .entry(worker_type.clone())
            .or_insert_with(|| Queue::new(self.limit));
        Arc::clone(queue)
    }
}

impl fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBroker")
            .field("limit", &self.0.limit)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// Milliseconds since 1970 (UTC).
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

// A panic elsewhere must not take the bus down: every critical section leaves the maps whole, so a
// poisoned lock is used on.

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use warren_protocol::Encoding;

    use super::*;

    fn job(worker: &WorkerId, id: &str) -> Message {
        Message::new(
            id.to_owned(),
            Address::Any(worker.worker_type().clone()),
            Encoding::Json,
            bytes::Bytes::new(),
        )
    }

    fn worker() -> WorkerId {
        WorkerId::draw(&WorkerType::new("WB").unwrap())
    }

    #[tokio::test]
    async fn a_queue_at_its_limit_refuses_and_takes_again_when_there_is_room() {
        let (bus, _inbox) = EmbeddedBroker::new(2, DEFAULT_MAX_MESSAGE_BYTES).connect("host");
        let worker = worker();
        let mut jobs = bus.join(&worker, 1).await.unwrap();
        // One is handed out, two wait.
        for id in ["a", "b", "c"] {
            bus.publish(job(&worker, id)).await.unwrap();
        }
        let refused = bus.publish(job(&worker, "d")).await;
        assert_eq!(refused, Err(PublishError::QueueFull("WB:*".to_owned())));
        jobs.recv().await.unwrap().ack().await.unwrap();
        bus.publish(job(&worker, "d")).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_given_back_goes_to_its_old_place() {
        let (bus, _inbox) = EmbeddedBroker::default().connect("host");
        let worker = worker();
        let mut jobs = bus.join(&worker, 2).await.unwrap();
        for id in ["a", "b", "c"] {
            bus.publish(job(&worker, id)).await.unwrap();
        }
        let (a, b) = (jobs.recv().await.unwrap(), jobs.recv().await.unwrap());
        bus.leave(&worker).await;
        b.give_back();
        a.give_back();
        let mut jobs = bus.join(&worker, 3).await.unwrap();
        for expected in ["a", "b", "c"] {
            assert_eq!(jobs.recv().await.unwrap().message.id, expected);
        }
    }

    #[tokio::test]
    async fn a_host_that_is_dropped_gives_everything_back() {
        let broker = EmbeddedBroker::default();
        let (bus, _inbox) = broker.connect("host");
        let worker = worker();
        let mut jobs = bus.join(&worker, 10).await.unwrap();
        bus.publish(job(&worker, "a")).await.unwrap();
        let running = jobs.recv().await.unwrap();
        drop(bus);
        assert!(running.lost.is_cancelled());
        assert!(running.ack().await.is_err());
        assert_eq!(broker.waiting(worker.worker_type()), 1);
    }

    #[tokio::test]
    async fn a_subscription_that_is_dropped_gives_its_deliveries_back() {
        let broker = EmbeddedBroker::default();
        let (bus, _inbox) = broker.connect("host");
        let worker = worker();
        let jobs = bus.join(&worker, 10).await.unwrap();
        for id in ["a", "b", "c"] {
            bus.publish(job(&worker, id)).await.unwrap();
        }
        drop(jobs);
        assert_eq!(broker.waiting(worker.worker_type()), 3);
    }
}
