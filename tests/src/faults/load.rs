//! Producers in the test's own process: they offer jobs at a rate, and know of each whether the
//! broker has taken responsibility for it.
//!
//! Invariant: a job counts as acknowledged only when its publish returned `Ok`. One whose fate is
//! unknown is sent again under the same id, until it is known.

#![allow(clippy::panic, reason = "a test without its producers has failed")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};
use warren_bus::{Bus, Inbox, Message, PublishError, RabbitMq, RabbitMqConfig};
use warren_protocol::{Encoding, Identity, Job, Payload, Stop, WorkerId, WorkerType};

/// Between two tries of a job that the broker could not take.
const PAUSE: Duration = Duration::from_millis(50);

/// What is to be offered.
#[derive(Clone)]
pub struct Plan {
    name: String,
    n: usize,
    rate: f64,
    concurrency: usize,
    patience: Duration,
    make: Arc<dyn Fn(usize) -> (Vec<String>, Value) + Send + Sync>,
}

/// Producers at work.
pub struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    began: Instant,
    _inbox: Inbox,
}

struct Shared {
    plan: Plan,
    bus: RabbitMq,
    next: AtomicUsize,
    stop: AtomicBool,
    sent: Mutex<Sent>,
}

/// What became of the jobs that were offered.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// The keys of all that were tried at least once.
    pub attempted: BTreeSet<String>,
    /// Those that the broker confirmed.
    pub acknowledged: BTreeSet<String>,
    /// Those that it refused for good, with its words.
    pub refused: Vec<(String, PublishError)>,
    /// How often one was sent again because nobody knew what had become of it.
    pub republished: usize,
    /// How often a queue was full.
    pub n_full: usize,
    /// The longest time without any confirm.
    pub longest_stall: Duration,
    /// From the first to the last.
    pub took: Duration,
    last_ack: Option<Instant>,
}

impl Plan {
    /// This many jobs for `FL:*`, 200 in a second, by 8 producers. The keys are `<name>-<index>`.
    #[must_use]
    pub fn new(name: &str, n: usize) -> Self {
        Self {
            name: name.to_owned(),
            n,
            rate: 200.0,
            concurrency: 8,
            patience: Duration::from_secs(120),
            make: Arc::new(|_| (vec!["FL:*".to_owned()], json!({}))),
        }
    }

    /// Jobs in a second, all producers together.
    #[must_use]
    pub fn rate(mut self, rate: f64) -> Self {
        self.rate = rate;
        self
    }

    /// As many jobs as are offered at the same time.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// How long a producer tries one job.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The route and the data of all jobs; the key is added.
    #[must_use]
    pub fn of<const N: usize>(self, stops: [&str; N], data: Value) -> Self {
        let stops = stops.map(str::to_owned).to_vec();
        self.each(move |_| (stops.clone(), data.clone()))
    }

    /// The route and the data of each job, by its index.
    #[must_use]
    pub fn each(
        mut self,
        make: impl Fn(usize) -> (Vec<String>, Value) + Send + Sync + 'static,
    ) -> Self {
        self.make = Arc::new(make);
        self
    }

    fn message(&self, index: usize) -> (String, Message) {
        let key = format!("{}-{index:05}", self.name);
        let (stops, data) = (self.make)(index);
        let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
        (key.clone(), job(&key, &stops, data))
    }
}

impl Load {
    /// Begins to offer. `urls`: a broker, a proxy before it, or the nodes of a cluster.
    ///
    /// # Panics
    /// When a URL cannot be read.
    #[must_use]
    pub fn start(urls: &[String], plan: Plan) -> Self {
        let name = format!("producer-{}-{}", plan.name, std::process::id());
        let config = RabbitMqConfig::new(urls.to_vec(), name);
        let (bus, inbox) = match RabbitMq::connect(config) {
            Ok(connected) => connected,
            Err(error) => panic!("the producers cannot connect: {error}"),
        };
        let concurrency = plan.concurrency;
        let shared = Arc::new(Shared {
            plan,
            bus,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            sent: Mutex::default(),
        });
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..concurrency {
            tasks.spawn(produce(shared.clone(), began));
        }
        Self {
            shared,
            tasks,
            began,
            _inbox: inbox,
        }
    }

    /// How many jobs have been tried by now.
    #[must_use]
    pub fn n_attempted(&self) -> usize {
        self.shared.sent().attempted.len()
    }

    /// How many jobs have been confirmed by now.
    #[must_use]
    pub fn n_acknowledged(&self) -> usize {
        self.shared.sent().acknowledged.len()
    }

    /// Returns when this many jobs have been confirmed.
    ///
    /// # Panics
    /// When that takes longer than the producers' patience.
    pub async fn acknowledged(&self, n: usize) {
        let what = format!("{n} jobs are confirmed");
        crate::eventually_within(self.shared.plan.patience, &what, async || {
            (self.n_acknowledged() >= n).then_some(())
        })
        .await;
    }

    /// Offers no further job. Those that are under way go on.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until each job has been confirmed, refused, or tried for long enough.
    ///
    /// # Panics
    /// When a producer did.
    pub async fn finish(mut self) -> Sent {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                panic!("a producer failed: {error}");
            }
        }
        let mut sent = self.shared.sent().clone();
        sent.took = self.began.elapsed();
        self.shared.bus.close().await;
        sent
    }
}

impl Shared {
    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sent {
    fn acknowledge(&mut self, key: String) {
        let now = Instant::now();
        if let Some(last) = self.last_ack.replace(now) {
            self.longest_stall = self.longest_stall.max(now.duration_since(last));
        }
        self.acknowledged.insert(key);
    }
}

async fn produce(shared: Arc<Shared>, began: Instant) {
    let plan = &shared.plan;
    loop {
        let index = shared.next.fetch_add(1, Ordering::Relaxed);
        if index >= plan.n {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let due = Duration::from_secs_f64(index as f64 / plan.rate.max(0.001));
        sleep_until((began + due).into()).await;
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let (key, message) = plan.message(index);
        shared.sent().attempted.insert(key.clone());
        offer(&shared, key, message).await;
    }
}

async fn offer(shared: &Shared, key: String, message: Message) {
    let since = Instant::now();
    loop {
        match shared.bus.publish(message.clone()).await {
            Ok(()) => return shared.sent().acknowledge(key),
            Err(error) if error.is_retryable() && since.elapsed() < shared.plan.patience => {
                match error {
                    PublishError::QueueFull(_) => shared.sent().n_full += 1,
                    _ => shared.sent().republished += 1,
                }
                sleep(PAUSE).await;
            }
            Err(error) => return shared.sent().refused.push((key, error)),
        }
    }
}

/// A job with this key, which is its id too.
///
/// # Panics
/// When the first stop is no address, or the data are no object.
#[must_use]
pub fn job(key: &str, stops: &[&str], mut data: Value) -> Message {
    let Value::Object(members) = &mut data else {
        panic!("the data of a ledger's job are an object");
    };
    members.insert("key".to_owned(), key.into());
    let sender = worker_of("FT");
    let payload = Payload::new(Encoding::Json, data.to_string().into_bytes().into());
    let job = Job {
        route: stops.iter().map(|stop| Stop::new(*stop)).collect(),
        position: 0,
        data: must("writing JSON", payload),
        sender: Identity::from(&sender),
        id: key.to_owned(),
    };
    let to = job.stop().map(Stop::address);
    Message::new(
        key.to_owned(),
        must("reading the first stop", to.unwrap_or_else(|| "".parse())),
        Encoding::Json,
        must("writing a job", Encoding::Json.encode_job(&job)),
    )
}

/// A new worker of this type.
///
/// # Panics
/// When it is no type.
#[must_use]
pub fn worker_of(worker_type: &str) -> WorkerId {
    WorkerId::draw(&must("reading a type", WorkerType::new(worker_type)))
}

/// Publishes a message, again and again until it is stored.
///
/// # Panics
/// When it is refused for good, or is not stored within a minute.
pub async fn publish_until_stored(bus: &RabbitMq, message: &Message) {
    crate::eventually("a message is stored", async || {
        match bus.publish(message.clone()).await {
            Ok(()) => Some(()),
            Err(error) if error.is_retryable() => None,
            Err(error) => panic!("publishing {}: {error}", message.id),
        }
    })
    .await;
}

#[track_caller]
fn must<T, E: std::fmt::Debug>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error:?}"),
    }
}
