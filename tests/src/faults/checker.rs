//! What is left when the fault is over, in the way of Jepsen's total-queue checker: every job that
//! was confirmed has had its effect, is among the dead letters, or waits in a queue. Anything else
//! is lost.

#![allow(clippy::panic, reason = "a test that cannot check has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicGetOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::Value;
use tokio::time::timeout;
use warren_protocol::Encoding;

use super::{Ledger, Sent};
use crate::{Broker, try_within};

/// A quorum queue tells how many of its messages are held every 5 s only.
const STILL: Duration = Duration::from_secs(12);

/// Queues are named here once.
pub mod names {
    /// The work queue of a type.
    #[must_use]
    pub fn work(worker_type: &str) -> String {
        format!("warren.v1.q.{worker_type}")
    }

    /// The dead letters of a type.
    #[must_use]
    pub fn dead(worker_type: &str) -> String {
        format!("warren.v1.dlq.{worker_type}")
    }

    /// A delay tier, such as `1s`.
    #[must_use]
    pub fn delay(tier: &str) -> String {
        format!("warren.v1.delay.{tier}")
    }

    /// The tiers, shortest first.
    pub const TIERS: [&str; 8] = ["1s", "5s", "30s", "2m", "10m", "1h", "6h", "24h"];
    /// Where expired tiers end.
    pub const DUE: &str = "warren.v1.due";
    /// The parking lot.
    pub const UNROUTED: &str = "warren.v1.unrouted";
}

/// The keys of the effects that a job with this key leads to.
type Expand<'a> = Box<dyn Fn(&str) -> Vec<String> + Send + Sync + 'a>;

/// Counts for one worker type.
pub struct Checker<'a> {
    broker: &'a Broker,
    url: String,
    ledger: &'a Ledger,
    worker_type: String,
    expand: Expand<'a>,
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Jobs that producers tried to hand over.
    pub attempted: usize,
    /// Those that the broker confirmed.
    pub acknowledged: usize,
    /// Effects that were expected and are there, each once.
    pub effected: usize,
    /// Confirmed, no effect, among the dead letters.
    pub dead: BTreeSet<String>,
    /// Confirmed, no effect, in a queue.
    pub queued: BTreeSet<String>,
    /// Confirmed and nowhere.
    pub lost: BTreeSet<String>,
    /// Effects of jobs that nobody tried.
    pub unexpected: BTreeSet<String>,
    /// Runs with an effect beyond the first, of each job.
    pub duplicated: usize,
    /// Sent again by the producers.
    pub republished: usize,
}

/// A queue as `rabbitmqctl` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// Its name.
    pub name: String,
    /// Messages that wait.
    pub ready: u64,
    /// Messages that a consumer holds.
    pub unacked: u64,
    /// How many consume it.
    pub consumers: u64,
}

impl<'a> Checker<'a> {
    /// For the type `FL`, whose effects have the keys of the jobs.
    #[must_use]
    pub fn new(broker: &'a Broker, ledger: &'a Ledger) -> Self {
        Self {
            broker,
            url: broker.url(),
            ledger,
            worker_type: "FL".to_owned(),
            expand: Box::new(|key| vec![key.to_owned()]),
        }
    }

    /// For another type.
    #[must_use]
    pub fn of(mut self, worker_type: &str) -> Self {
        worker_type.clone_into(&mut self.worker_type);
        self
    }

    /// For a job that leads to several effects, or to one of another key.
    #[must_use]
    pub fn expecting(mut self, expand: impl Fn(&str) -> Vec<String> + Send + Sync + 'a) -> Self {
        self.expand = Box::new(expand);
        self
    }

    /// Counts queued messages through this URL and not the broker's.
    #[must_use]
    pub fn by(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self
    }

    /// Waits until every confirmed job has had its effect, and no longer than `limit`: then counts.
    ///
    /// # Panics
    /// When something cannot be read.
    pub async fn settle(&self, sent: &Sent, limit: Duration) -> Figures {
        let wanted = self.expected(&sent.acknowledged);
        let (mut n_before, mut since) = (usize::MAX, Instant::now());
        try_within(limit, async || {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let runs = self.ledger.runs(&self.worker_type).await;
            let effects = runs.iter().filter(|run| run.phase == "done");
            let effected: BTreeSet<&str> = effects.map(|run| run.key.as_str()).collect();
            if wanted.iter().all(|key| effected.contains(key.as_str())) {
                return Some(());
            }
            // Some may have been given up: then nothing runs any more, and nothing waits or is
            // held.
            if n_before != runs.len() {
                (n_before, since) = (runs.len(), Instant::now());
            }
            (since.elapsed() > STILL && self.n_open().await == Some(0)).then_some(())
        })
        .await;
        self.count(sent).await
    }

    /// Counts now.
    ///
    /// # Panics
    /// When something cannot be read.
    pub async fn count(&self, sent: &Sent) -> Figures {
        let wanted = self.expected(&sent.acknowledged);
        let effected = self.effected().await;
        let missing: BTreeSet<String> = wanted
            .into_iter()
            .filter(|key| !effected.contains_key(key))
            .collect();
        let (mut dead, mut queued) = (BTreeSet::new(), BTreeSet::new());
        if !missing.is_empty() {
            let work = names::work(&self.worker_type);
            let tiers = names::TIERS.map(names::delay);
            for queue in tiers.iter().map(String::as_str).chain([&*work, names::DUE]) {
                queued.extend(self.keys_in(queue).await);
            }
            for queue in [&*names::dead(&self.worker_type), names::UNROUTED] {
                dead.extend(self.keys_in(queue).await);
            }
        }
        let root = |key: &String| key.split('/').next().unwrap_or_default().to_owned();
        let in_any =
            |key: &String, keys: &BTreeSet<String>| keys.contains(key) || keys.contains(&root(key));
        let attempted = self.expected(&sent.attempted);
        let unexpected = effected.keys().filter(|key| !attempted.contains(*key));
        let lost = missing
            .iter()
            .filter(|key| !in_any(key, &dead) && !in_any(key, &queued));
        Figures {
            attempted: sent.attempted.len(),
            acknowledged: sent.acknowledged.len(),
            effected: effected.len(),
            unexpected: unexpected.cloned().collect(),
            duplicated: effected.values().map(|n| n.saturating_sub(1)).sum(),
            lost: lost.cloned().collect(),
            dead: missing
                .iter()
                .filter(|key| in_any(key, &dead))
                .cloned()
                .collect(),
            queued: missing
                .iter()
                .filter(|key| in_any(key, &queued))
                .cloned()
                .collect(),
            republished: sent.republished,
        }
    }

    /// Says what is wrong with the queue of the type at the end: nothing may wait or be held, and
    /// it has this many consumers, each with this prefetch. Waits a while for it to be so.
    ///
    /// # Errors
    /// When it is not.
    pub async fn at_rest(&self, consumers: usize, prefetch: u16) -> Result<(), String> {
        // A quorum queue tells its numbers every 5 s.
        let limit = Duration::from_secs(20);
        let mut last = String::new();
        let name = names::work(&self.worker_type);
        let rested = try_within(limit, async || {
            let states = self.queues().await;
            let Some(state) = states.into_iter().find(|state| state.name == name) else {
                last = format!("{name} is not there");
                return None;
            };
            let prefetches = self.prefetches().await;
            let is_right = (state.ready, state.unacked) == (0, 0)
                && prefetches.len() == consumers
                && prefetches.iter().all(|other| *other == prefetch);
            last = format!(
                "{name} has {} ready, {} unacked, and consumers with prefetch {prefetches:?}; \
                 wanted are 0, 0 and {consumers} with {prefetch}",
                state.ready, state.unacked
            );
            is_right.then_some(())
        });
        rested.await.ok_or(last)
    }

    /// Every queue of Warren's.
    pub async fn queues(&self) -> Vec<QueueState> {
        let columns = [
            "name",
            "messages_ready",
            "messages_unacknowledged",
            "consumers",
        ];
        let mut words = vec!["-s", "list_queues", "--formatter", "json"];
        words.extend(columns);
        let listed = json(&self.broker.ctl(&words).await);
        let listed = listed.as_array().cloned().unwrap_or_default();
        let queues = listed.iter().map(|queue| {
            let number = |key: &str| queue.get(key).and_then(Value::as_u64).unwrap_or_default();
            QueueState {
                name: text(queue, "name"),
                ready: number("messages_ready"),
                unacked: number("messages_unacknowledged"),
                consumers: number("consumers"),
            }
        });
        queues
            .filter(|queue| queue.name.starts_with("warren."))
            .collect()
    }

    /// The prefetch of each consumer of the type's work queue.
    pub async fn prefetches(&self) -> Vec<u16> {
        let words = ["-s", "list_consumers", "--formatter", "json"];
        let listed = json(&self.broker.ctl(&words).await);
        let listed = listed.as_array().cloned().unwrap_or_default();
        let name = names::work(&self.worker_type);
        let ours = listed
            .iter()
            .filter(|entry| text(entry, "queue_name") == name);
        let prefetches = ours.map(|entry| entry.get("prefetch_count").and_then(Value::as_u64));
        prefetches
            .map(|n| n.and_then(|n| u16::try_from(n).ok()).unwrap_or_default())
            .collect()
    }

    /// How often each key has had its effect.
    pub async fn effected(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for run in self.ledger.effects(&self.worker_type).await {
            *counts.entry(run.key).or_insert(0) += 1;
        }
        counts
    }

    /// How many messages wait in a queue; `None` when there is none of this name, or no broker.
    pub async fn n_ready(&self, queue: &str) -> Option<u32> {
        let asked = async {
            let (connection, channel) = open(&self.url).await.ok()?;
            let options = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
            let n = declared.await.ok().map(|queue| queue.message_count());
            let _ = connection.close(200, "done".into()).await;
            n
        };
        timeout(Duration::from_secs(10), asked).await.ok().flatten()
    }

    /// The keys of the messages in a queue, which stay there.
    ///
    /// # Panics
    /// When the broker cannot be asked.
    pub async fn keys_in(&self, queue: &str) -> Vec<String> {
        if self.n_ready(queue).await.is_none() {
            return Vec::new();
        }
        match timeout(Duration::from_secs(30), read_keys(&self.url, queue)).await {
            Ok(Ok(keys)) => keys,
            failed => panic!("{queue} cannot be read: {failed:?}"),
        }
    }

    /// What waits for the type, delayed or not.
    async fn n_open(&self) -> Option<u32> {
        let mut n = self.n_ready(&names::work(&self.worker_type)).await?;
        let tiers = names::TIERS.map(names::delay);
        for queue in tiers.iter().map(String::as_str).chain([names::DUE]) {
            n += self.n_ready(queue).await.unwrap_or_default();
        }
        let states = self.queues().await;
        let held: u64 = states.iter().map(|state| state.unacked).sum();
        Some(n + u32::try_from(held).unwrap_or(u32::MAX))
    }

    fn expected(&self, keys: &BTreeSet<String>) -> BTreeSet<String> {
        keys.iter().flat_map(|key| (self.expand)(key)).collect()
    }
}

impl Figures {
    /// Both together, for a chain: the jobs of the one, the effects of both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.effected += other.effected;
        self.dead.extend(other.dead);
        self.queued.extend(other.queued);
        self.lost.extend(other.lost);
        self.unexpected.extend(other.unexpected);
        self.duplicated += other.duplicated;
        self
    }
}

async fn open(url: &str) -> Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

/// Takes every message without an answer: the end of the connection puts them back.
async fn read_keys(url: &str, queue: &str) -> Result<Vec<String>> {
    let (connection, channel) = open(url).await?;
    let mut keys = Vec::new();
    let options = BasicGetOptions { no_ack: false };
    while let Some(got) = channel.basic_get(queue.into(), options).await? {
        let delivery = got.delivery;
        let id = delivery.properties.message_id().as_ref();
        let id = id.map(ToString::to_string).unwrap_or_default();
        keys.push(key_of(&delivery.data).unwrap_or(id));
    }
    connection
        .close(200, "done".into())
        .await
        .context("closing")?;
    Ok(keys)
}

fn key_of(body: &[u8]) -> Option<String> {
    let job = Encoding::Json.decode_job(&body.to_vec().into()).ok()?;
    let data: Value = serde_json::from_slice(&job.data.to_bytes().ok()?).ok()?;
    data.get("key")?.as_str().map(str::to_owned)
}

fn json(printed: &str) -> Value {
    serde_json::from_str(printed).unwrap_or_default()
}

fn text(value: &Value, key: &str) -> String {
    let text = value.get(key).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}
