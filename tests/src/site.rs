//! Where the hosts of a test meet: nowhere (the bus of each is embedded), or on a RabbitMQ.
//!
//! The example workers always have the same types, so tests that use them on the shared broker
//! take turns, and each begins with queues of its own making.

#![allow(clippy::panic, reason = "a test without its broker has failed")]

use std::{env, fs::File};

use anyhow::{Context, Result};
use lapin::{Connection, ConnectionProperties, options::QueueDeleteOptions};

use crate::{Broker, broker};

/// The types of every plugin that the tests run in a host.
const WORKER_TYPES: [&str; 5] = ["WA", "WB", "WD", "FX", "FH"];

/// A bus for the hosts of one test.
pub struct Site {
    url: Option<String>,
    /// Held while this test has its turn on the shared broker.
    _turn: Option<File>,
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

    /// The broker's URL; `None` for the embedded bus.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
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
