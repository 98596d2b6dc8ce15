//! Where the hosts of a test meet: nowhere (the bus of each is embedded), or on a RabbitMQ.
//!
//! The example workers always have the same types, so tests that use them on the shared broker
//! take turns, and each begins with queues of its own making.

#![allow(clippy::panic, reason = "a test without its broker has failed")]

use std::{env, fs::File};

use anyhow::{Context, Result};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicGetOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};

use crate::{Broker, VirtualHost, broker, eventually, peer::PEER_TYPE};

/// The types of every plugin that the tests run in a host, and of the tests' own worker.
const WORKER_TYPES: [&str; 25] = [
    "WA",
    "WB",
    "WD",
    "FE",
    "FS",
    "FX",
    "FH",
    "FI",
    "FK",
    "FV",
    "FRONT",
    "ORDERS",
    "PRICING",
    "INVOICE",
    "LABEL",
    "RIDES",
    "DISPATCH",
    "PAYMENT",
    "NOTIFY",
    "LANG-RUST",
    "LANG-JS",
    "LANG-TS",
    "LANG-PYTHON",
    "LANG-C",
    PEER_TYPE,
];

/// A bus for the hosts of one test.
pub struct Site {
    url: Option<String>,
    /// Held while this test has its turn on the shared broker.
    _turn: Option<File>,
}

/// A job that was given up, as it is kept on RabbitMQ.
#[derive(Debug)]
pub struct DeadLetter {
    /// The id of the message.
    pub id: String,
    /// The word for why it was given up.
    pub reason: String,
    /// The text for a person.
    pub error: String,
    /// The file, version and digest of the plugin that ran it; empty where none did.
    pub plugin: String,
    /// Where the guest was when it failed; empty where none was or nobody knows.
    pub stack: String,
    /// The attempt that was its last.
    pub attempt: i64,
    /// The envelope.
    pub body: Vec<u8>,
}

impl Site {
    /// No broker: each host has a bus of its own.
    #[must_use]
    pub fn embedded() -> Self {
        Self {
            url: None,
            _turn: None,
        }
    }

    /// The shared broker, without any other test that uses it in this way, and without the queues
    /// of one before.
    ///
    /// # Panics
    /// When there is none and none can be started; the text says what to do.
    pub async fn rabbitmq() -> Self {
        let turn = take_turn().await;
        let url = broker::shared().await;
        if let Err(error) = forget_queues(&url).await {
            panic!("the queues of the test before cannot be deleted: {error:#}");
        }
        Self {
            url: Some(url),
            _turn: Some(turn),
        }
    }

    /// A broker of the test's own.
    #[must_use]
    pub fn of(broker: &Broker) -> Self {
        Self {
            url: Some(broker.url()),
            _turn: None,
        }
    }

    /// A virtual host of the test's own.
    #[must_use]
    pub fn within(host: &VirtualHost) -> Self {
        Self {
            url: Some(host.url().to_owned()),
            _turn: None,
        }
    }

    /// The broker's URL; `None` for the embedded bus.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Takes the oldest dead letter of a type, as soon as there is one. `None` on the embedded
    /// bus, whose dead letters nobody sees from outside.
    ///
    /// # Panics
    /// When there is none.
    pub async fn dead_letter(&self, worker_type: &str) -> Option<DeadLetter> {
        let (_connection, channel) = must(open_channel(self.url()?).await);
        let queue = format!("warren.v1.dlq.{worker_type}");
        let options = BasicGetOptions { no_ack: true };
        let letter = eventually("there is a dead letter", async || {
            let got = channel.basic_get(queue.as_str().into(), options).await;
            must(got.context("asking for a dead letter"))
        });
        let letter = letter.await.delivery;
        let headers = letter.properties.headers().clone().unwrap_or_default();
        let text = |name: &str| match headers.inner().get(name) {
            Some(AMQPValue::LongString(text)) => text.to_string(),
            _ => String::new(),
        };
        let attempt = match headers.inner().get("x-warren-attempt") {
            Some(AMQPValue::LongLongInt(attempt)) => *attempt,
            other => panic!("the attempt of a dead letter is {other:?}"),
        };
        let id = letter.properties.message_id().as_ref();
        Some(DeadLetter {
            id: id.map(ToString::to_string).unwrap_or_default(),
            reason: text("x-warren-reason"),
            error: text("x-warren-error"),
            plugin: text("x-warren-plugin"),
            stack: text("x-warren-stack"),
            attempt,
            body: letter.data,
        })
    }

    /// How many messages wait in a queue of RabbitMQ, without those that a host holds: `q` for the
    /// jobs of a type, `dlq` for its dead letters. `None` on the embedded bus.
    ///
    /// # Panics
    /// When the queue does not exist.
    pub async fn n_queued(&self, kind: &str, worker_type: &str) -> Option<u32> {
        let (_connection, channel) = must(open_channel(self.url()?).await);
        let queue = format!("warren.v1.{kind}.{worker_type}");
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(queue.as_str().into(), options, FieldTable::default());
        Some(must(declared.await.context(queue.clone())).message_count())
    }
}

/// A channel and its connection, which is to live as long.
async fn open_channel(url: &str) -> Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .with_context(|| format!("connecting to {}", broker::SHARED_BROKER))?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

#[track_caller]
fn must<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("the broker does not do as it is told: {error:#}"),
    }
}

/// Waits for the tests before, in this process and in others. The system ends the turn with the
/// file, also when the process is killed.
async fn take_turn() -> File {
    let path = env::temp_dir().join("warren-tests-rabbitmq.lock");
    let locked = tokio::task::spawn_blocking(move || {
        let file = File::create(path)?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    });
    match locked.await {
        Ok(Ok(file)) => file,
        failed => panic!("no turn on the shared broker: {failed:?}"),
    }
}

async fn forget_queues(url: &str) -> Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .with_context(|| format!("connecting to {}", broker::SHARED_BROKER))?;
    let channel = connection.create_channel().await?;
    for worker_type in WORKER_TYPES {
        for queue in ["q", "dlq"].map(|kind| format!("warren.v1.{kind}.{worker_type}")) {
            let options = QueueDeleteOptions::default();
            channel.queue_delete(queue.into(), options).await?;
        }
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
