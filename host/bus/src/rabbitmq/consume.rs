//! One worker's consumption of the jobs of its type, over all epochs.

use std::sync::Arc;

use futures_util::{StreamExt, future::BoxFuture};
use lapin::{
    Acker, Channel, Consumer,
    message::Delivery as Arrived,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;
use warren_protocol::{Address, Encoding, WorkerId, WorkerType};

use super::{
    Shared,
    acks::Acks,
    backoff::Backoff,
    barrier::{self, Barrier},
    bounded::{Failure, STEP_TIMEOUT, WRITE_TIMEOUT, within},
    epoch::Epoch,
    failure_log::FailureLog,
    names::{self, JOBS},
    topology, wire,
};
use crate::{
    Delivery,
    delivery::{Settle, SettleError},
};

/// What one worker's task needs for its whole life.
pub(super) struct Consumption {
    pub(super) worker: WorkerId,
    /// How many unsettled deliveries it may hold; 0: it pauses.
    pub(super) prefetch: watch::Receiver<u16>,
    pub(super) sender: mpsc::Sender<Delivery>,
    /// Cancelled when the worker leaves.
    pub(super) leaving: CancellationToken,
    /// Says that the task has ended.
    pub(super) _finished: DropGuard,
}

/// Why the consumption stopped.
enum Stop {
    /// The worker has left, or nobody reads its subscription any more.
    Done,
    /// Another prefetch is wanted, which begins with another consumer.
    Changed,
    /// The channel or the connection is gone.
    Failed(Failure),
}

/// Consumes until the worker leaves. A channel that fails is built again, alone, however often.
pub(super) async fn run(shared: Arc<Shared>, mut consumption: Consumption) {
    let worker_type = consumption.worker.worker_type().clone();
    let mut backoff = Backoff::default();
    let mut log = FailureLog::default();
    loop {
        let epoch = tokio::select! {
            () = consumption.leaving.cancelled() => return,
            () = consumption.sender.closed() => return,
            epoch = shared.living_epoch() => epoch,
        };
        let Some(epoch) = epoch else { return };
        let stop = tokio::select! {
            () = shared.stop.cancelled() => return,
            stop = serve(&shared, &epoch, &mut consumption, &mut backoff) => stop,
        };
        let failure = match stop {
            Stop::Done => return,
            Stop::Changed => continue,
            Stop::Failed(failure) => failure,
        };
        if epoch.over.is_cancelled() {
            continue; // The link tells it, once for all workers.
        }
        let problem = problem(&worker_type, &failure);
        log.note(&problem);
        shared.board.failing(&worker_type, problem);
        tokio::select! {
            () = consumption.leaving.cancelled() => return,
            () = epoch.over.cancelled() => {}
            () = tokio::time::sleep(backoff.next()) => {}
        }
    }
}

/// Consumes on one channel, from its opening to its end.
async fn serve(
    shared: &Arc<Shared>,
    epoch: &Epoch,
    consumption: &mut Consumption,
    backoff: &mut Backoff,
) -> Stop {
    let prefetch = *consumption.prefetch.borrow_and_update();
    if prefetch == 0 {
        return pause(shared, epoch, consumption).await;
    }
    let opened = tokio::select! {
        () = consumption.leaving.cancelled() => return Stop::Done,
        opened = open(shared, epoch, &consumption.worker, prefetch) => opened,
    };
    let (origin, mut consumer) = match opened {
        Ok(opened) => opened,
        Err(failure) => return Stop::Failed(failure),
    };
    let worker = &consumption.worker;
    shared.board.consuming(worker.worker_type());
    backoff.reset();
    let (announcer, connection) = (&epoch.announcer, &epoch.publishing);
    announcer
        .hello(connection, worker, &shared.membership)
        .await;
    let mut stop = Stop::Done;
    loop {
        let next = tokio::select! {
            () = consumption.leaving.cancelled() => break,
            () = consumption.sender.closed() => break,
            Ok(()) = consumption.prefetch.changed() => {
                stop = Stop::Changed;
                break;
            }
            () = epoch.over.cancelled() => {
                return Stop::Failed(Failure::Ended("the connection ended"));
            }
            next = consumer.next() => next,
        };
        match next {
            Some(Ok(arrived)) => {
                let delivery = deliver(shared, &origin, arrived, worker.worker_type());
                tokio::select! {
                    // The delivery is dropped, and so given back.
                    () = consumption.leaving.cancelled() => break,
                    () = epoch.over.cancelled() => {}
                    _ = consumption.sender.send(delivery) => {}
                }
            }
            Some(Err(error)) => {
                origin.lose();
                return Stop::Failed(Failure::Refused("consume", error));
            }
            // The channel lives on, and what it has handed out can still be settled on it.
            None => {
                return Stop::Failed(Failure::Ended("the broker has ended the consumer"));
            }
        }
    }
    cancel(&origin, consumer, consumption, |arrived| {
        deliver(shared, &origin, arrived, worker.worker_type())
    })
    .await;
    stop
}

/// Takes nothing until another prefetch is wanted.
async fn pause(shared: &Shared, epoch: &Epoch, consumption: &mut Consumption) -> Stop {
    shared.board.paused(consumption.worker.worker_type());
    tokio::select! {
        () = consumption.leaving.cancelled() => Stop::Done,
        () = consumption.sender.closed() => Stop::Done,
        () = epoch.over.cancelled() => Stop::Failed(Failure::Ended("the connection ended")),
        changed = consumption.prefetch.changed() => match changed {
            Ok(()) => Stop::Changed,
            Err(_) => Stop::Done,
        },
    }
}

async fn open(
    shared: &Arc<Shared>,
    epoch: &Epoch,
    worker: &WorkerId,
    prefetch: u16,
) -> Result<(Arc<Origin>, Consumer), Failure> {
    let worker_type = worker.worker_type();
    let opened = epoch.consuming.create_channel();
    let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
    topology::declare_all(&channel, &topology::of_type(worker_type)).await?;
    let to_inbox = topology::binding(shared.host.inbox().as_str(), JOBS, worker.as_str());
    topology::declare(&channel, &to_inbox).await?;
    let limit = channel.basic_qos(prefetch, BasicQosOptions::default());
    within(STEP_TIMEOUT, "set the prefetch", limit).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let (queue, tag) = (names::work_queue(worker_type), worker.as_str().into());
    let barrier = Barrier {
        shared: Arc::clone(shared),
        queue: queue.clone(),
        worker_type: worker_type.clone(),
        background: epoch.background.clone(),
    };
    let consumer = channel.basic_consume(queue, tag, options, none);
    let consumer = within(STEP_TIMEOUT, "consume", consumer).await?;
    let origin = Origin::with_barrier(channel, &epoch.over, barrier);
    Ok((origin, consumer))
}

/// Takes no new job. What lapin had received already is handed on where there is room.
async fn cancel(
    origin: &Origin,
    mut consumer: Consumer,
    consumption: &Consumption,
    deliver: impl Fn(Arrived) -> Delivery,
) {
    let answer = origin
        .channel
        .basic_cancel(consumer.tag(), BasicCancelOptions::default());
    if let Err(failure) = within(WRITE_TIMEOUT, "stop consuming", answer).await {
        debug!(error = %failure, "the consumer was not cancelled");
        return;
    }
    let rest = async {
        while let Some(Ok(arrived)) = consumer.next().await {
            // Without room it is dropped, and so given back.
            let _ = consumption.sender.try_send(deliver(arrived));
        }
    };
    // After the broker's answer the rest is in memory, followed by the end of the stream.
    let _ = tokio::time::timeout(WRITE_TIMEOUT, rest).await;
}

fn deliver(
    shared: &Shared,
    origin: &Arc<Origin>,
    arrived: Arrived,
    worker_type: &WorkerType,
) -> Delivery {
    // The queue is bound with one key; a person may have bound it with more.
    let to = arrived.routing_key.as_str().parse();
    let to = to.unwrap_or_else(|_| Address::Any(worker_type.clone()));
    origin.deliver(arrived, to, shared.config.encoding)
}

/// What is wrong with a type, and what to do.
fn problem(worker_type: &WorkerType, failure: &Failure) -> String {
    let (queue, dead) = (
        names::work_queue(worker_type),
        names::dead_letter_queue(worker_type),
    );
    let remedy = if failure.is_mismatch() {
        format!(
            "a queue exists with other arguments; move its messages and delete {queue} or {dead}"
        )
    } else if failure.is_access_refused() {
        format!("allow this user to configure, write and read {queue}, {dead} and {JOBS}")
    } else {
        "it is tried again".to_owned()
    };
    format!("{worker_type} takes no jobs ({failure}): {remedy}")
}

/// The channel that deliveries came on. It lives until the last of them is settled: its end gives
/// back all that is not.
pub(super) struct Origin {
    channel: Channel,
    lost: CancellationToken,
    runtime: Handle,
    /// For the channel of a work queue.
    barrier: Option<Barrier>,
    /// Likewise: there all messages pass through [`Origin::deliver`].
    acks: Option<Arc<Acks>>,
}

impl Origin {
    /// Must be called inside a runtime.
    pub(super) fn new(channel: Channel, epoch_over: &CancellationToken) -> Arc<Self> {
        Self::with_barrier(channel, epoch_over, None)
    }

    /// As [`Origin::new`], of a work queue: its channel is closed behind a barrier.
    pub(super) fn with_barrier(
        channel: Channel,
        epoch_over: &CancellationToken,
        barrier: impl Into<Option<Barrier>>,
    ) -> Arc<Self> {
        let barrier = barrier.into();
        Arc::new(Self {
            channel,
            lost: epoch_over.child_token(),
            runtime: Handle::current(),
            acks: barrier.is_some().then(Arc::default),
            barrier,
        })
    }

    /// Closes the channel: what has not been settled goes back.
    pub(super) async fn close(&self) {
        self.lose();
        topology::close(&self.channel).await;
    }

    /// As [`Origin::close`], of a channel on which this quorum queue was consumed.
    pub(super) async fn close_behind_barrier(&self, queue: &ShortString) {
        if let Err(failure) = barrier::pass(&self.channel, queue).await {
            debug!(error = %failure, "some messages may come again");
        }
        self.close().await;
    }

    /// Takes nothing more. What has come is still to be settled.
    pub(super) async fn cancel(&self, consumer: &Consumer) {
        let options = BasicCancelOptions::default();
        let answer = self.channel.basic_cancel(consumer.tag(), options);
        if let Err(failure) = within(WRITE_TIMEOUT, "stop consuming", answer).await {
            debug!(error = %failure, "the consumer was not cancelled");
        }
    }

    /// The channel has ended: the broker has taken back all that it had handed out on it.
    pub(super) fn lose(&self) {
        self.lost.cancel();
    }

    pub(super) fn deliver(
        self: &Arc<Self>,
        arrived: Arrived,
        to: Address,
        encoding: Encoding,
    ) -> Delivery {
        let message = wire::read(to, encoding, &arrived.properties, arrived.data);
        if let Some(acks) = &self.acks {
            acks.hold(arrived.delivery_tag);
        }
        let claim = Claim {
            tag: arrived.delivery_tag,
            acker: arrived.acker,
            origin: Arc::clone(self),
        };
        Delivery::new(
            message,
            arrived.redelivered,
            self.lost.clone(),
            Box::new(claim),
        )
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(barrier) = self.barrier.take()
            && !self.lost.is_cancelled()
        {
            barrier.close(self.channel.clone(), &self.runtime);
        }
    }
}

/// The right to settle one message on the channel that it came on.
struct Claim {
    tag: u64,
    acker: Acker,
    origin: Arc<Origin>,
}

impl Settle for Claim {
    fn ack(self: Box<Self>) -> BoxFuture<'static, Result<(), SettleError>> {
        Box::pin(async move {
            let origin = self.origin;
            if let Some(acks) = &origin.acks {
                let acked = acks.clone().ack(self.tag, self.acker, &origin.runtime);
                return if acked.await {
                    Ok(())
                } else {
                    Err(SettleError)
                };
            }
            let acked = self.acker.ack(BasicAckOptions::default());
            // lapin says `false` when the channel is gone, and may not answer at all when it goes
            // in this moment.
            match within(WRITE_TIMEOUT, "acknowledge", acked).await {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(SettleError),
            }
        })
    }

    fn put_behind(self: Box<Self>) {
        // A nack has no such wish; `RabbitMq::put_back` publishes a copy.
        self.requeue();
    }

    fn requeue(self: Box<Self>) {
        if self.origin.lost.is_cancelled() {
            return; // The broker has it back already.
        }
        let runtime = self.origin.runtime.clone();
        let acks = self.origin.acks.clone();
        runtime.spawn(async move {
            let options = BasicNackOptions {
                requeue: true,
                ..BasicNackOptions::default()
            };
            let nacked = self.acker.nack(options);
            if let Err(failure) = within(WRITE_TIMEOUT, "give a job back", nacked).await {
                debug!(error = %failure, "the job goes back with its channel");
            } else if let Some(acks) = acks {
                acks.release(self.tag);
            }
        });
    }
}
