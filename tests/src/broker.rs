//! A private RabbitMQ node on free ports of 127.0.0.1, with its own data, cookie and epmd, beside
//! whatever else runs on the machine (RELIABILITY "A private broker for a test").
//!
//! Invariant: nothing outlives the process that started it (see `node::guard`).

#![allow(clippy::panic, reason = "a test without its broker has failed")]

use std::{env, net::Ipv4Addr, time::Duration};

use anyhow::Result;
use tokio::{sync::OnceCell, time::sleep};

use crate::node::{self, Epmd, Guard, Node, REMEDY, Settings, free_ports};

/// The environment variable that names a broker which the tests may use, such as
/// `amqp://guest:guest@127.0.0.1:5672`. The tests leave queues of their own there.
pub const SHARED_BROKER: &str = "WARREN_TEST_BROKER";

/// RabbitMQ 3.10 writes the register of its quorum queues to disk a moment after it has confirmed
/// their declaration. Killed in between, it comes back with a queue that never finds a leader: every
/// declare works, every consume waits for ever. No client can mend that, so it is not what the tests
/// are about.
const REGISTER_INTERVAL: Duration = Duration::from_secs(2);

/// A RabbitMQ node of this process's own. Dropping it kills the node and removes its data.
pub struct Broker {
    /// Dropped first: it kills the others, so that neither is waited for long.
    guard: Guard,
    node: Node,
    _epmd: Epmd,
}

/// The URL of a broker that several tests share: the one that [`SHARED_BROKER`] names, or one that
/// is started for this process. Tests keep apart by using worker types of their own.
///
/// # Panics
/// When there is none and none can be started; the text says what to do.
pub async fn shared() -> String {
    match env::var(SHARED_BROKER) {
        Ok(url) => url,
        Err(_) => own().await.url(),
    }
}

/// The broker of this process's own, which its tests share.
pub(crate) async fn own() -> &'static Broker {
    static OWN: OnceCell<Broker> = OnceCell::const_new();
    OWN.get_or_init(Broker::start).await
}

/// The version of RabbitMQ that nodes of ours run.
///
/// # Errors
/// When it is not installed.
pub fn version() -> Result<String> {
    node::version()
}

impl Broker {
    /// Starts a node and returns when it accepts connections.
    ///
    /// # Panics
    /// When it cannot be started; the text says what to do.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// As [`Broker::start`], with further lines of `rabbitmq.conf`.
    ///
    /// # Panics
    /// As [`Broker::start`].
    pub async fn start_with(settings: &str) -> Self {
        Self::start_with_plugins(settings, &[]).await
    }

    /// As [`Broker::start_with`], with plugins of RabbitMQ that are not on by default.
    ///
    /// # Panics
    /// As [`Broker::start`].
    pub async fn start_with_plugins(settings: &str, plugins: &[&str]) -> Self {
        match Self::try_start_with(settings, plugins).await {
            Ok(broker) => broker,
            Err(error) => panic!("no RabbitMQ for this test: {error:#}; {REMEDY}"),
        }
    }

    /// Starts a node and returns when it accepts connections.
    ///
    /// # Errors
    /// When RabbitMQ is not installed or does not come up.
    pub async fn try_start() -> Result<Self> {
        Self::try_start_with("", &[]).await
    }

    async fn try_start_with(settings: &str, plugins: &[&str]) -> Result<Self> {
        let guard = Guard::new("warren-broker-")?;
        let [port, distribution_port, epmd_port] = free_ports()?;
        let address = Ipv4Addr::LOCALHOST;
        let mut node = Node::new(Settings {
            name: format!("t{port}@localhost"),
            folder: guard.folder().to_owned(),
            address,
            namespace: None,
            port,
            distribution_port,
            epmd_port,
            lines: settings.to_owned(),
            plugins: plugins.join(","),
            machine: String::new(),
        })?;
        let epmd = Epmd::start(&guard, None, address, epmd_port)?;
        node.spawn(&guard)?;
        node.wait().await?;
        Ok(Self {
            guard,
            node,
            _epmd: epmd,
        })
    }

    /// Where a client connects to.
    #[must_use]
    pub fn url(&self) -> String {
        self.node.url()
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.node.port()
    }

    /// Where the node listens to other Erlang nodes, such as `127.0.0.1:25672`.
    #[must_use]
    pub fn node_address(&self) -> String {
        self.node.distribution_address()
    }

    /// The process that its others descend from, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.node.pid()
    }

    /// Stops the node the way an operator does, and waits for its end. Its data stay.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(&mut self) {
        self.node.end(&self.guard, "-TERM").await;
    }

    /// Kills the node with all its processes. Its data stay.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn kill(&mut self) {
        sleep(REGISTER_INTERVAL).await;
        self.node.end(&self.guard, "-KILL").await;
    }

    /// Starts the node again on the same port with the same data.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_again(&mut self) {
        if let Err(error) = self.try_start_again().await {
            panic!("the broker does not start again: {error:#}");
        }
    }

    async fn try_start_again(&mut self) -> Result<()> {
        self.node.spawn(&self.guard)?;
        self.node.wait().await
    }

    /// Runs `rabbitmqctl` for this node and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        match self.node.tool("rabbitmqctl", arguments).await {
            Ok(printed) => printed,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// What the node has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.node.log()
    }
}
