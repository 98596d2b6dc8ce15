//! Consuming for Node workers: the durable queue of a type, once for each of them, so that the broker
//! shares the work out evenly over Node workers and hosts; and the queue of what is addressed to them
//! by id.

use std::sync::Arc;

use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use warren_protocol::{Address, WorkerId};

use super::{gateway::Gateway, hand_over::hand_over};
use crate::rabbitmq::{
    backoff::Backoff,
    barrier::Barrier,
    bounded::{Failure, STEP_TIMEOUT, WRITE_TIMEOUT, within},
    consume::Origin,
    failure_log::FailureLog,
    names, publish, topology,
};

/// What one Node worker may have been handed without having acknowledged it. Enough to keep it busy
/// although its acknowledgements take 40 ms (PROTOCOL "Defects by cause", 10), few enough that what
/// waits 2 s when it dies is little.
const PREFETCH: u16 = 20;
/// The same for all messages by id together.
pub(super) const INBOX_PREFETCH: u16 = 500;

/// Consumes the jobs of a Node worker's type for it, until it is gone.
pub(super) async fn worker(gateway: Arc<Gateway>, worker: WorkerId, stop: CancellationToken) {
    tokio::select! {
        () = gateway.learned.cancelled() => {}
        () = gateway.over.cancelled() => return,
    }
    let mut backoff = Backoff::default();
    let mut log = FailureLog::default();
    while !stop.is_cancelled() && !gateway.over.is_cancelled() {
        match open(&gateway, &worker).await {
            Ok((origin, consumer)) => {
                backoff.reset();
                gateway.count_served(&worker, 1);
                let failure = pump(&gateway, &worker, &stop, &origin, consumer).await;
                match failure {
                    Some(failure) => debug!(error = %failure, "no jobs for a Node worker"),
                    None => return,
                }
            }
            Err(failure) => log.note(&format!(
                "{worker} gets no jobs of hosts ({failure}); trying on"
            )),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = gateway.over.cancelled() => return,
            () = tokio::time::sleep(backoff.next()) => {}
        }
    }
}

async fn open(gateway: &Gateway, worker: &WorkerId) -> Result<(Arc<Origin>, Consumer), Failure> {
    let worker_type = worker.worker_type();
    let opened = gateway.connection.create_channel();
    let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
    topology::declare_all(&channel, &topology::of_type(worker_type)).await?;
    let qos = channel.basic_qos(PREFETCH, BasicQosOptions::default());
    within(STEP_TIMEOUT, "set the prefetch", qos).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let tag = format!("peer {worker}");
    let queue = names::work_queue(worker_type);
    let barrier = Barrier {
        shared: Arc::clone(&gateway.shared),
        queue: queue.clone(),
        worker_type: worker_type.clone(),
        background: gateway.tasks.clone(),
    };
    let consumer = channel.basic_consume(queue, tag.into(), options, none);
    let consumer = within(STEP_TIMEOUT, "consume for a Node worker", consumer).await?;
    let origin = Origin::with_barrier(channel, &gateway.over, barrier);
    Ok((origin, consumer))
}

/// `None`: it was asked to stop.
async fn pump(
    gateway: &Arc<Gateway>,
    worker: &WorkerId,
    stop: &CancellationToken,
    origin: &Arc<Origin>,
    mut consumer: Consumer,
) -> Option<Failure> {
    let encoding = gateway.encoding();
    let deliver = |arrived: lapin::message::Delivery| {
        let to = arrived.routing_key.as_str().parse();
        let to = to.unwrap_or_else(|_| Address::Any(worker.worker_type().clone()));
        origin.deliver(arrived, to, encoding)
    };
    let ended = loop {
        let next = tokio::select! {
            () = gateway.over.cancelled() => break None,
            () = stop.cancelled() => break None,
            next = consumer.next() => next,
        };
        match next {
            Some(Ok(arrived)) => {
                let (gateway, delivery) = (Arc::clone(gateway), deliver(arrived));
                let tasks = gateway.tasks.clone();
                tasks.spawn(hand_over(gateway, delivery, Some(worker.clone())));
            }
            Some(Err(error)) => {
                origin.lose();
                break Some(Failure::Refused("consume for a Node worker", error));
            }
            None => break Some(Failure::Ended("the broker has ended the consumer")),
        }
    };
    if ended.is_none() && !gateway.over.is_cancelled() {
        origin.cancel(&consumer).await;
    }
    gateway.count_served(worker, -1);
    if ended.is_some() {
        return ended;
    }
    // What had come already is for somebody else of the type.
    while let Ok(Some(Ok(arrived))) = timeout(WRITE_TIMEOUT, consumer.next()).await {
        let (gateway, delivery) = (Arc::clone(gateway), deliver(arrived));
        gateway
            .tasks
            .clone()
            .spawn(async move { gateway.put_back(delivery).await });
    }
    None
}

/// Hands over what is addressed to Node workers by id, until the gateway ends.
pub(super) async fn inbox(gateway: Arc<Gateway>, channel: Channel, mut messages: Consumer) {
    let origin = Origin::new(channel, &gateway.over);
    tokio::select! {
        () = gateway.learned.cancelled() => {}
        () = gateway.over.cancelled() => return,
    }
    loop {
        let next = tokio::select! {
            () = gateway.over.cancelled() => return,
            () = gateway.stopping.cancelled() => break,
            next = messages.next() => next,
        };
        let arrived = match next {
            Some(Ok(arrived)) => arrived,
            Some(Err(error)) => {
                debug!(%error, "the gateway's inbox ended");
                return gateway.over.cancel();
            }
            None => return gateway.over.cancel(),
        };
        let Ok(to) = arrived.routing_key.as_str().parse::<WorkerId>() else {
            let _ = publish::set_aside(&gateway.shared, arrived).await;
            continue;
        };
        let delivery = origin.deliver(arrived, Address::One(to), gateway.encoding());
        gateway
            .tasks
            .spawn(hand_over(Arc::clone(&gateway), delivery, None));
    }
    // What is on its way goes to the next gateway.
    origin.cancel(&messages).await;
}
