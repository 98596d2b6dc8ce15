//! Where the commands are tried: a broker, a worker type, and a client that looks behind them.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    message::Delivery,
    options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use warren_bus::{Bus, Epitaph, Message, RabbitMq, RabbitMqConfig};
use warren_protocol::{Encoding, Identity, Job, Payload, Stop, WorkerId, WorkerType};
use warren_tests::{Command, Ran, broker, soon};

pub(crate) struct Bench {
    pub(crate) url: String,
    /// The worker type.
    pub(crate) own: String,
    bus: RabbitMq,
    connection: Connection,
}

impl Bench {
    /// On the broker that tests share.
    pub(crate) async fn new() -> Self {
        Self::at(&broker::shared().await).await
    }

    /// With the queues of the type declared, and nothing in them.
    pub(crate) async fn at(url: &str) -> Self {
        let bench = Self::bare(url).await;
        bench
            .warren(&format!("topology apply --type {}", bench.own))
            .await
            .ended_with(0);
        bench
    }

    /// Without any queue of the type.
    pub(crate) async fn bare(url: &str) -> Self {
        let drawn = WorkerId::draw(&WorkerType::new("OP").unwrap());
        let own = drawn.as_str().replace(':', "");
        let config = RabbitMqConfig::new(vec![url.to_owned()], own.clone());
        let (bus, _inbox) = RabbitMq::connect(config).unwrap();
        let mut health = bus.health();
        let connected = health.wait_for(|health| health.connected);
        soon("the bus connects", connected).await.unwrap();
        let connection = Connection::connect(url, ConnectionProperties::default());
        Self {
            url: url.to_owned(),
            own,
            bus,
            connection: connection.await.unwrap(),
        }
    }

    /// Runs `warren` on this broker.
    pub(crate) async fn warren(&self, arguments: &str) -> Ran {
        Command::new(Some(&self.url), arguments).run().await
    }

    /// A job for the type, in its third attempt.
    pub(crate) fn job(&self, id: &str, encoding: Encoding, data: &Value) -> Message {
        let data = Payload::new(Encoding::Json, data.to_string().into_bytes().into());
        let job = Job {
            route: vec![Stop::new(format!("{}:*", self.own)), Stop::new("ZZ:*")],
            position: 0,
            data: data.unwrap(),
            sender: Identity {
                id: "WA:9123456789012".to_owned(),
                worker_type: "WA".to_owned(),
            },
            id: id.to_owned(),
        };
        self.message(id, encoding, encoding.encode_job(&job).unwrap())
    }

    /// A message for the type, in its third attempt.
    pub(crate) fn message(&self, id: &str, encoding: Encoding, body: Bytes) -> Message {
        let to = format!("{}:*", self.own).parse().unwrap();
        Message {
            attempt: 3,
            ..Message::new(id.to_owned(), to, encoding, body)
        }
    }

    /// Gives a job up, as a host does.
    pub(crate) async fn bury(&self, message: Message, reason: &'static str, error: &str) {
        let epitaph = Epitaph {
            reason,
            error: error.to_owned(),
            plugin: Some(format!("test.wasm 0.1.0 {}", "ab".repeat(32))),
            stack: Some("0: test::inner at src/lib.rs:7:9\n1: test::outer".to_owned()),
            host: "bench".to_owned(),
        };
        self.bus.bury(message, epitaph).await.unwrap();
    }

    /// Gives many jobs up: `n0`, `n1`, …
    pub(crate) async fn bury_many(&self, n_jobs: usize) {
        let jobs = stream::iter(0..n_jobs).map(|n| {
            let data = serde_json::json!({"n": n});
            let job = self.job(&format!("n{n}"), Encoding::Json, &data);
            self.bury(job, "permanent", "many")
        });
        jobs.buffer_unordered(64).collect::<Vec<()>>().await;
    }

    /// A queue of the type: `q` or `dlq`.
    pub(crate) fn queue(&self, kind: &str) -> String {
        format!("warren.v1.{kind}.{}", self.own)
    }

    pub(crate) async fn channel(&self) -> Channel {
        self.connection.create_channel().await.unwrap()
    }

    /// How many messages are ready; `None` when there is no such queue.
    pub(crate) async fn n_ready(&self, queue: &str) -> Option<u32> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let channel = self.channel().await;
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
        declared.await.ok().map(|queue| queue.message_count())
    }

    /// Takes everything out of a queue, in its order.
    pub(crate) async fn take_all(&self, queue: &str) -> Vec<Delivery> {
        let channel = self.channel().await;
        let mut all = Vec::new();
        let get = || channel.basic_get(queue.into(), BasicGetOptions::default());
        while let Some(got) = get().await.unwrap() {
            got.delivery
                .acker
                .ack(BasicAckOptions::default())
                .await
                .unwrap();
            all.push(got.delivery);
        }
        all
    }

    /// How often each id is in a queue, which is empty afterwards.
    pub(crate) async fn ids(&self, queue: &str) -> BTreeMap<String, usize> {
        let mut ids = BTreeMap::new();
        for taken in self.take_all(queue).await {
            *ids.entry(id_of(&taken.properties)).or_default() += 1;
        }
        ids
    }

    pub(crate) async fn leave(self) {
        self.bus.close().await;
    }
}

pub(crate) fn id_of(properties: &BasicProperties) -> String {
    properties.message_id().as_ref().unwrap().to_string()
}

/// The names of the headers of a message.
pub(crate) fn headers(properties: &BasicProperties) -> BTreeMap<String, AMQPValue> {
    let headers = properties.headers().clone().unwrap_or_default();
    let pairs = headers.inner().iter();
    pairs
        .map(|(name, value)| (name.to_string(), value.clone()))
        .collect()
}
