//! The bus on a RabbitMQ broker: durable, and shared by any number of hosts.
//!
//! [`RabbitMq`] is a handle of tasks that never give up. The *link* keeps two connections up, one
//! to consume and one to publish, and calls each life of the pair an *epoch*. Nothing survives an
//! epoch: every channel, consumer and queue is built again from what is wanted now (the joined
//! workers), never from a record of past calls. A message enters in `consume` and leaves in
//! `publish`; what both look like in AMQP is in `wire`.
//!
//! Invariant: no await on lapin is without a bound in time (some of them never end when the
//! connection does), and no password reaches a log, an error or a debug print.

mod acks;
mod announce;
mod backoff;
mod barrier;
mod bounded;
mod config;
mod consume;
mod delay;
mod epoch;
mod failure_log;
mod files;
mod health;
mod inbox;
mod janitor;
mod link;
mod liveness;
mod membership;
mod names;
pub mod operator;
mod peers;
mod publish;
mod reconcile;
mod tls;
mod topology;
mod wire;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use warren_protocol::{WorkerId, WorkerType};

use crate::{
    Bus, Delivery, Epitaph, Health, INBOX_PREFETCH, Inbox, JoinError, Message, PublishError,
    Subscription,
};
use bounded::{CLOSE_TIMEOUT, JOIN_TIMEOUT};
use epoch::Epoch;
use health::Board;
use liveness::Liveness;
use membership::Membership;
use names::Host;

pub use config::{ConfigError, RabbitMqConfig};
pub use files::{BrokerFiles, FileProblem};
pub use peers::{PeerCount, PeerReport, PeerWorker, PeersConfig};

/// One host's place on a RabbitMQ broker. Its tasks end when it is closed or dropped.
pub struct RabbitMq {
    shared: Arc<Shared>,
    _stop_when_dropped: DropGuard,
}

/// What the tasks of one [`RabbitMq`] have in common.
struct Shared {
    config: RabbitMqConfig,
    host: Host,
    membership: Membership,
    board: Board,
    liveness: Liveness,
    /// What the gateway sees and does, while this host is it.
    peers: peers::Register,
    /// Has ended when this host cannot be the gateway any more.
    gateway: TaskTracker,
    /// Something of the topology is missing: declare it again.
    mend: Notify,
    /// The epoch that is alive, if one is.
    epoch: watch::Sender<Option<Arc<Epoch>>>,
    /// Cancelled when the bus is being closed: nothing that ends from now on is a failure.
    closing: CancellationToken,
    /// Cancelled when everything has to end.
    stop: CancellationToken,
}

impl RabbitMq {
    /// Starts to connect, and returns at once: whether the broker has been reached is asked with
    /// [`Bus::health`]. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// [`ConfigError`] when a URL cannot be read, or the host's name cannot be part of a queue's.
    pub fn connect(config: RabbitMqConfig) -> Result<(Self, Inbox), ConfigError> {
        let brokers = config.brokers()?;
        let host = Host::new(&config.host)?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            config,
            host,
            membership: Membership::default(),
            board: Board::default(),
            liveness: Liveness::default(),
            peers: peers::Register::default(),
            gateway: TaskTracker::new(),
            mend: Notify::new(),
            epoch: watch::Sender::new(None),
            closing: CancellationToken::new(),
            stop: stop.clone(),
        });
        if shared.config.peers.enabled {
            let gateway = peers::run(Arc::clone(&shared), brokers.clone());
            shared.gateway.spawn(gateway);
        }
        shared.gateway.close();
        let (sender, inbox) = mpsc::channel(usize::from(INBOX_PREFETCH));
        tokio::spawn(link::run(Arc::clone(&shared), brokers, sender));
        let bus = Self {
            shared,
            _stop_when_dropped: stop.drop_guard(),
        };
        Ok((bus, inbox))
    }
}

#[async_trait]
impl Bus for RabbitMq {
    async fn join(&self, worker: &WorkerId, prefetch: u16) -> Result<Subscription, JoinError> {
        if self.shared.stop.is_cancelled() {
            return Err(JoinError::Closed);
        }
        let admission = self.shared.membership.join(worker, prefetch.max(1))?;
        let (sender, subscription) = mpsc::channel(usize::from(prefetch.max(1)));
        let consumption = consume::Consumption {
            worker: worker.clone(),
            prefetch: admission.prefetch,
            sender,
            leaving: admission.leaving,
            _finished: admission.finished,
        };
        tokio::spawn(consume::run(Arc::clone(&self.shared), consumption));
        let settled = self.shared.board.first_verdict(worker.worker_type());
        // Out of time or out of reach: the task goes on, and the health says how it went.
        let _ = timeout(JOIN_TIMEOUT, settled).await;
        Ok(subscription)
    }

    async fn leave(&self, worker: &WorkerId) {
        let Some(departure) = self.shared.membership.leave(worker) else {
            return;
        };
        if let Some(epoch) = self.shared.current_epoch() {
            epoch.announcer.goodbye(&epoch.publishing, worker).await;
        }
        let _ = timeout(CLOSE_TIMEOUT, departure.wait()).await;
        self.shared.board.forget(worker.worker_type());
    }

    async fn forget(&self, worker: &WorkerId) {
        self.shared.membership.forget(worker);
        if let Some(epoch) = self.shared.current_epoch() {
            inbox::unbind(&self.shared, &epoch, worker).await;
        }
    }

    async fn publish(&self, message: Message) -> Result<(), PublishError> {
        publish::publish(&self.shared, &message).await?;
        peers::patience::watch_over(&self.shared, &message);
        Ok(())
    }

    async fn park(&self, message: Message, until_ms: u64) -> Result<(), PublishError> {
        delay::park(&self.shared, &message, until_ms).await
    }

    async fn put_back(&self, delivery: Delivery) {
        // A copy behind the others, and then the original away: a nack would count as a delivery.
        let sent = tokio::select! {
            biased;
            () = delivery.lost.cancelled() => return,
            sent = publish::forward(&self.shared, &delivery.message) => sent,
        };
        match sent {
            Ok(()) => {
                if let Err(error) = delivery.ack().await {
                    tracing::debug!(%error, "a job that was put back will run twice");
                }
            }
            // Full, or out of reach: its place is still its own.
            Err(error) => {
                tracing::debug!(%error, "a job is given back to the front of its queue");
                delivery.give_back();
            }
        }
    }

    async fn set_prefetch(&self, worker: &WorkerId, prefetch: u16) {
        self.shared.membership.set_prefetch(worker, prefetch);
    }

    async fn absence(&self, worker_type: &WorkerType) {
        let grace = crate::ABSENCE_GRACE;
        self.shared.liveness.absence(worker_type, grace).await;
    }

    async fn bury(&self, message: Message, epitaph: Epitaph) -> Result<(), PublishError> {
        publish::bury(&self.shared, &message, &epitaph).await
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.board.watch()
    }

    fn peers(&self) -> Option<PeerReport> {
        let is_possible = self.shared.config.peers.enabled;
        is_possible.then(|| self.shared.peers.report())
    }

    async fn close(&self) {
        let _ = timeout(CLOSE_TIMEOUT, link::say_goodbye(self)).await;
        self.shared.stop.cancel();
        self.shared.board.closed();
    }
}

impl Shared {
    fn current_epoch(&self) -> Option<Arc<Epoch>> {
        self.epoch.borrow().clone()
    }

    /// Waits for an epoch that is alive. `None` when the bus has been closed.
    async fn living_epoch(&self) -> Option<Arc<Epoch>> {
        let mut epochs = self.epoch.subscribe();
        let is_alive = |epoch: &Option<Arc<Epoch>>| {
            epoch
                .as_ref()
                .is_some_and(|epoch| !epoch.over.is_cancelled())
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            epoch = epochs.wait_for(is_alive) => epoch.ok()?.clone(),
        }
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}
