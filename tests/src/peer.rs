//! Another host on a site's RabbitMQ, in the test's own process. It sends and calls like any
//! worker, and takes what workers send to its type, `FT`.
//!
//! A worker that calls it waits for the answer: so a test knows that a job runs, and decides when
//! the run ends.

#![allow(clippy::panic, reason = "a test without its peer has failed")]

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use warren_bus::{Bus, Delivery, Inbox, Kind, Message, RabbitMq, RabbitMqConfig, Subscription};
use warren_protocol::{Address, Encoding, Identity, Job, Payload, Stop, WorkerId, WorkerType};

use crate::{Site, soon};

/// The type of every peer.
pub(crate) const PEER_TYPE: &str = "FT";

const PREFETCH: u16 = 100;

/// A worker of type `FT`.
pub struct Peer {
    bus: RabbitMq,
    id: WorkerId,
    jobs: Subscription,
    inbox: Inbox,
    /// Answers that came before they were asked for, by correlation id.
    answers: HashMap<String, Answer>,
}

/// What a call ends with: the reply, or the text of the error.
pub type Answer = Result<Value, String>;

/// A job that has reached the peer, and is off its queue.
#[derive(Debug)]
pub struct Taken {
    /// What it came as.
    pub message: Message,
    /// What it carries.
    pub data: Value,
}

impl Peer {
    /// Joins a RabbitMQ.
    ///
    /// # Panics
    /// When the site is the embedded bus, or the broker cannot be used.
    pub async fn join(site: &Site) -> Self {
        let Some(url) = site.url() else {
            panic!("the embedded bus is inside the host: nobody else can join it");
        };
        let worker_type = must("naming the peer", WorkerType::new(PEER_TYPE));
        let id = WorkerId::draw(&worker_type);
        let name = id.as_str().replace(':', "-");
        let config = RabbitMqConfig::new(vec![url.to_owned()], name);
        let (bus, inbox) = must("connecting", RabbitMq::connect(config));
        let mut health = bus.health();
        let consuming = health.wait_for(|health| health.connected);
        must("connecting", soon("the peer connects", consuming).await);
        let jobs = must("joining", bus.join(&id, PREFETCH).await);
        let consuming = health.wait_for(|health| health.consuming.contains(&worker_type));
        must("joining", soon("the peer consumes", consuming).await);
        Self {
            bus,
            id,
            jobs,
            inbox,
            answers: HashMap::new(),
        }
    }

    /// A job with this route that nobody waits for, to be published with or without a change.
    ///
    /// # Panics
    /// When the first stop is no address.
    #[must_use]
    pub fn job<const N: usize>(&self, stops: [&str; N], data: &Value) -> Message {
        let now_ms = now_ms();
        let job = Job {
            route: stops.map(Stop::new).to_vec(),
            position: 0,
            data: payload(data),
            sender: Identity::from(&self.id),
            id: warren_protocol::job_id(now_ms),
        };
        let to = job.stop().map(Stop::address);
        Message::new(
            job.id.clone(),
            must("reading the first stop", to.unwrap_or_else(|| "".parse())),
            Encoding::Json,
            must("writing a job", Encoding::Json.encode_job(&job)),
        )
    }

    /// The same job as a call: its answer comes to [`Peer::answer_to`] under the message's id.
    #[must_use]
    pub fn call<const N: usize>(&self, stops: [&str; N], data: &Value) -> Message {
        let job = self.job(stops, data);
        Message {
            correlation_id: Some(job.id.clone()),
            reply_to: Some(self.id.clone()),
            ..job
        }
    }

    /// Publishes a message and returns when the broker has it.
    ///
    /// # Panics
    /// When the broker does not take it.
    pub async fn publish(&self, message: &Message) {
        must("publishing", self.bus.publish(message.clone()).await);
    }

    /// What a call of this peer's ended with. `call_id`: the id of its message.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn answer_to(&mut self, call_id: &str) -> Answer {
        loop {
            if let Some(answer) = self.answers.remove(call_id) {
                return answer;
            }
            let delivery = soon("an answer reaches the peer", self.inbox.recv()).await;
            let (message, answer) = take(delivery, read_answer).await;
            let id = message.correlation_id.unwrap_or_default();
            self.answers.insert(id, answer);
        }
    }

    /// The next job that is sent to the type of the peer.
    ///
    /// # Panics
    /// When none comes.
    pub async fn next_job(&mut self) -> Taken {
        let delivery = soon("a job reaches the peer", self.jobs.recv()).await;
        let (message, data) = take(delivery, |message| {
            let job = message.encoding.decode_job(&message.body);
            value(must("reading a job", job).data)
        })
        .await;
        Taken { message, data }
    }

    /// Answers a call: the run that waits for it goes on.
    ///
    /// # Panics
    /// When nobody called, or the caller cannot be reached any more.
    pub async fn answer(&self, call: &Taken, data: &Value) {
        let Some(caller) = &call.message.reply_to else {
            panic!("nobody waits for an answer to {call:?}");
        };
        let job = self.job([caller.as_str()], data);
        let reply = Message {
            to: Address::One(caller.clone()),
            kind: Kind::Reply,
            correlation_id: call.message.correlation_id.clone(),
            reply_to: call.message.reply_to.clone(),
            ..job
        };
        self.publish(&reply).await;
    }

    /// Leaves, and takes its queues along.
    pub async fn leave(self) {
        self.bus.close().await;
    }
}

/// A moment that has passed, as the deadline of a message.
#[must_use]
pub fn past_ms() -> u64 {
    now_ms().saturating_sub(60_000)
}

/// Reads a message and takes it off its queue.
async fn take<T>(delivery: Option<Delivery>, read: impl Fn(&Message) -> T) -> (Message, T) {
    let Some(delivery) = delivery else {
        panic!("the peer's bus has ended");
    };
    let message = delivery.message.clone();
    let content = read(&message);
    must("acknowledging", delivery.ack().await);
    (message, content)
}

fn read_answer(message: &Message) -> Answer {
    match message.kind {
        Kind::Job | Kind::Reply | Kind::Bundle => {
            let job = message.encoding.decode_job(&message.body);
            Ok(value(must("reading a reply", job).data))
        }
        Kind::Error => {
            let error = message.encoding.decode_error(&message.body);
            Err(must("reading an error", error).error)
        }
    }
}

fn payload(data: &Value) -> Payload {
    let body = data.to_string().into_bytes().into();
    must("writing JSON", Payload::new(Encoding::Json, body))
}

fn value(payload: Payload) -> Value {
    let json = payload.to(Encoding::Json).and_then(|json| json.to_bytes());
    let json = must("reading a payload", json);
    must("reading JSON", serde_json::from_slice(&json))
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now: Duration = now.unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[track_caller]
fn must<T, E: std::fmt::Debug>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error:?}"),
    }
}
