//! Giving messages to the bus and not letting go of the job before it has them: outputs, news for a
//! caller, dead letters.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;

use uuid::Uuid;
use warren_bus::{Delivery, Epitaph, Kind, Message, PublishError};
use warren_protocol::{Address, CallError, ErrorTarget, Job, JobError, Payload, WorkerId};

use super::{
    ack,
    consequences::{HOP_NAMESPACE, one_message_by_request},
};
use crate::{
    calls::call_error, clock::now_ms, host::Host, registry::Seat, telemetry::logs::WORKER_TARGET,
};

/// Between two tries to hand a message to a bus that did not take it.
const PUBLISH_RETRY_DELAY: Duration = Duration::from_millis(200);
/// How long a job is held whose message does not fit into a full queue. That slows its worker down,
/// as it should; afterwards the message waits on the bus, or two workers that fill each other's
/// queue would wait for each other for ever.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(10);
/// How long the message waits there before it is tried again.
const PARKED_FOR_ROOM: Duration = Duration::from_secs(5);

/// Hands a message over, however long it takes, while the job is ours. `false`: it could not be,
/// and the job must be given back.
pub(super) async fn hand_over(host: &Host, delivery: &Delivery, message: Message) -> bool {
    let begun = Instant::now();
    loop {
        let error = match publish_while_ours(host, delivery, &message).await {
            None => return false,
            Some(Ok(())) => return true,
            Some(Err(error)) => error,
        };
        let caller = message
            .reply_to
            .clone()
            .filter(|_| message.kind == Kind::Job);
        match error {
            PublishError::Unavailable(_) => {}
            // Whoever waits for an answer is told at once; a job that nobody waits for can wait.
            PublishError::QueueFull(_) if caller.is_none() => {
                // A host that stops has no time to wait.
                if begun.elapsed() > WAIT_FOR_ROOM || host.stopping.is_cancelled() {
                    let wait = PARKED_FOR_ROOM.as_millis() as u64;
                    let until_ms = now_ms().saturating_add(wait);
                    return park(host, delivery, message, until_ms).await;
                }
            }
            error => {
                // The worker that ran the job. Where a guest sends is its own choice, and no label.
                let sender = delivery.message.to.worker_type();
                let to = message.to.clone();
                return match (message.kind, caller) {
                    (Kind::Reply, _) if matches!(error, PublishError::TooLarge { .. }) => {
                        let cause = CallError::Failed {
                            worker: sender.to_string(),
                            attempts: delivery.message.attempt,
                            reason: error.to_string(),
                        };
                        let Address::One(caller) = &to else {
                            return true;
                        };
                        tell_caller(host, delivery, &message, caller, None, cause).await
                    }
                    // The caller is gone.
                    (Kind::Reply | Kind::Error, _) => {
                        host.metrics.reply_dropped(sender);
                        true
                    }
                    (Kind::Job | Kind::Bundle, Some(caller)) => {
                        host.metrics.job_error(sender, "no_worker_available");
                        let cause = call_error(error, &to);
                        tell_caller(host, delivery, &message, &caller, None, cause).await
                    }
                    (Kind::Job | Kind::Bundle, None) => {
                        host.metrics.job_error(sender, "no_worker_available");
                        tracing::warn!(
                            target: WORKER_TARGET,
                            { "job.id" = message.id, %error },
                            "a job that was sent is dead-lettered"
                        );
                        let epitaph = epitaph(host, "unrouted", error.to_string(), None);
                        store_dead(host, delivery, message, epitaph).await
                    }
                };
            }
        }
        if !pause(host, delivery, PUBLISH_RETRY_DELAY).await {
            return false;
        }
    }
}

/// Hands a bundle over, as [`hand_over`].
///
/// # Errors
/// A text for the job's dead letter when there is more in it than the bus takes.
pub(super) async fn hand_over_bundle(
    host: &Host,
    delivery: &Delivery,
    bundle: Message,
) -> Result<bool, String> {
    match publish_while_ours(host, delivery, &bundle).await {
        None => Ok(false),
        Some(Ok(())) => Ok(true),
        Some(Err(PublishError::TooLarge { size, limit })) => Err(format!(
            "its messages have {size} bytes together, and the bus takes {limit} in one go: send \
             fewer or smaller ones"
        )),
        Some(Err(_)) => Ok(hand_over(host, delivery, bundle).await),
    }
}

/// Publishes, and stops trying when the job is no longer ours (`None`): whoever has it now decides
/// what is sent for it.
async fn publish_while_ours(
    host: &Host,
    delivery: &Delivery,
    message: &Message,
) -> Option<Result<(), PublishError>> {
    tokio::select! {
        biased;
        () = delivery.lost.cancelled() => None,
        published = host.bus.publish(message.clone()) => Some(published),
    }
}

/// Leaves a message on the bus until its time has come. `false`: it could not be, and the job must
/// be given back.
pub(super) async fn park(
    host: &Host,
    delivery: &Delivery,
    message: Message,
    until_ms: u64,
) -> bool {
    loop {
        let parked = tokio::select! {
            biased;
            () = delivery.lost.cancelled() => return false,
            parked = host.bus.park(message.clone(), until_ms) => parked,
        };
        match parked {
            Ok(()) => return true,
            Err(error) if error.is_retryable() => {}
            // Its time had come already, and nobody takes it.
            Err(_) => return hand_over_anyway(host, delivery, message).await,
        }
        if !pause(host, delivery, PUBLISH_RETRY_DELAY).await {
            return false;
        }
    }
}

/// Breaks the circle of [`hand_over`] and [`park`], which call each other.
fn hand_over_anyway<'a>(
    host: &'a Host,
    delivery: &'a Delivery,
    message: Message,
) -> BoxFuture<'a, bool> {
    Box::pin(hand_over(host, delivery, message))
}

/// Waits; `false` when the host's time is up or the job is no longer ours.
pub(super) async fn pause(host: &Host, delivery: &Delivery, delay: Duration) -> bool {
    tokio::select! {
        biased;
        () = delivery.lost.cancelled() => false,
        () = host.interrupt.cancelled() => false,
        () = tokio::time::sleep(delay) => true,
    }
}

/// Tells whoever waits for a call that there will be no reply. `failed`: the message that the call
/// has come to. `true` when that is settled: said, or there is nobody to say it to.
pub(super) async fn tell_caller(
    host: &Host,
    delivery: &Delivery,
    failed: &Message,
    caller: &WorkerId,
    job: Option<Job>,
    cause: CallError,
) -> bool {
    // What came here: the message that failed may be too large to be told of.
    let incoming = &delivery.message;
    let (id, data) = match job {
        Some(job) => (job.id, job.data),
        None => match incoming.encoding.decode_job(&incoming.body) {
            Ok(job) => (job.id, job.data),
            Err(_) => (incoming.id.clone(), Payload::null(host.encoding)),
        },
    };
    let mut error = JobError {
        target: ErrorTarget::Id(caller.to_string()),
        error: cause.to_string(),
        id: id.clone(),
        data,
        cause: Some(cause),
        ending: None,
    };
    let body = host.encoding.encode_error(&error).or_else(|_| {
        // The bus's encoding has no form for what the job carried; the news must get through.
        error.data = Payload::null(host.encoding);
        host.encoding.encode_error(&error)
    });
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(
                target: WORKER_TARGET,
                { "job.id" = id, %error },
                "a caller could not be told and waits until its timeout"
            );
            return true;
        }
    };
    let name = Uuid::new_v5(&HOP_NAMESPACE, format!("{id}\nerror").as_bytes());
    let to = Address::One(caller.clone());
    let message = Message {
        kind: Kind::Error,
        correlation_id: failed.correlation_id.clone(),
        deadline_ms: failed.deadline_ms,
        first_ms: failed.first_ms,
        trace_parent: failed.trace_parent.clone(),
        ..Message::new(name.to_string(), to, host.encoding, body)
    };
    loop {
        match host.bus.publish(message.clone()).await {
            Ok(()) => return true,
            Err(error) if error.is_retryable() => {}
            // The caller is gone; there is nobody to tell.
            Err(_) => return true,
        }
        if !pause(host, delivery, PUBLISH_RETRY_DELAY).await {
            return false;
        }
    }
}

/// What ran a job that is given up.
pub(super) struct Ran {
    /// The file, version and digest of the plugin.
    pub(super) plugin: String,
    /// Where the guest was.
    pub(super) stack: Option<String>,
}

/// Puts a job among the dead letters, then acknowledges it.
pub(super) async fn bury(
    host: &Host,
    delivery: Delivery,
    reason: &'static str,
    error: String,
    ran: Option<Ran>,
) {
    let epitaph = epitaph(host, reason, error, ran);
    let message = delivery.message.clone();
    if store_dead(host, &delivery, message, epitaph.clone()).await {
        tell_peer(host, &delivery, &epitaph).await;
        ack(delivery).await;
    } else {
        delivery.give_back();
    }
}

/// Tells the Node worker that began the work that it was given up: the one that the route ends with,
/// since that one waits, else the sender. Its job is safe among the dead letters by now.
async fn tell_peer(host: &Host, delivery: &Delivery, epitaph: &Epitaph) {
    let message = &delivery.message;
    if !message.from_peer {
        return;
    }
    let Ok(job) = message.encoding.decode_job(&message.body) else {
        return;
    };
    let Some(waits) = job.waits() else { return };
    let cause = CallError::Failed {
        worker: message.to.worker_type().to_string(),
        attempts: message.attempt,
        reason: epitaph.error.clone(),
    };
    tell_caller(host, delivery, message, &waits, Some(job), cause).await;
}

async fn store_dead(
    host: &Host,
    delivery: &Delivery,
    mut message: Message,
    mut epitaph: Epitaph,
) -> bool {
    loop {
        match host.bus.bury(message.clone(), epitaph.clone()).await {
            Ok(()) => return true,
            // The broker takes no message of this size. It has taken the job that led to it.
            Err(PublishError::TooLarge { .. }) if message.id != delivery.message.id => {
                epitaph.reason = "permanent";
                message = delivery.message.clone();
                continue;
            }
            Err(error) => {
                tracing::warn!(
                    target: WORKER_TARGET,
                    { "job.id" = message.id, %error },
                    "a dead letter could not be stored yet"
                );
            }
        }
        if !pause(host, delivery, PUBLISH_RETRY_DELAY).await {
            return false;
        }
    }
}

fn epitaph(host: &Host, reason: &'static str, error: String, ran: Option<Ran>) -> Epitaph {
    let (plugin, stack) = match ran {
        Some(Ran { plugin, stack }) => (Some(plugin), stack),
        None => (None, None),
    };
    Epitaph {
        reason,
        error,
        plugin,
        stack,
        host: host.name.clone(),
    }
}

/// Hands over what an HTTP request sent: all of it is confirmed, or none is sent.
///
/// # Errors
/// A text that says which job was not taken and why.
pub(crate) async fn publish_for_request(
    host: &Arc<Host>,
    seat: &Seat,
    messages: Vec<Message>,
) -> Result<(), String> {
    let Some(message) = one_message_by_request(seat.id.worker_type(), messages) else {
        return Ok(());
    };
    let to = message.to.clone();
    host.bus.publish(message).await.map_err(|error| {
        format!(
            "a job for {to} could not be sent: {}",
            call_error(error, &to)
        )
    })
}
