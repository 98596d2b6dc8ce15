//! What an outcome leads to: its messages are published and confirmed, then the job is
//! acknowledged. Never the other way round: a crash in between repeats a job, it loses none.

mod consequences;
mod hand_over;

use std::time::Duration;

use rand::RngExt;
use warren_bus::{Delivery, Kind, PEER_PATIENCE};
use warren_protocol::{CallError, CodecError, Identity, Job, JobError, Outcome, Slip};
use warren_runtime::{Fault, JobRun};

use crate::{
    clock::now_ms,
    host::Host,
    registry::{Retry, Seat, Version},
    telemetry::logs::WORKER_TARGET,
};
use consequences::{consequences, one_message};
use hand_over::{Ran, bury, hand_over, hand_over_bundle, park, tell_caller};

pub(crate) use consequences::sent_by_request;
pub(crate) use hand_over::publish_for_request;

/// A trap, an exceeded limit or a missed deadline rarely goes away: it is tried this often.
const MOST_ATTEMPTS_AFTER_FAULT: u32 = 3;

/// Settles one run, and says in a word what came of it.
pub(crate) async fn settle(
    host: &Host,
    seat: &Seat,
    version: &Version,
    delivery: Delivery,
    job: Job,
    run: JobRun,
) -> &'static str {
    let JobRun {
        verdict,
        sends,
        stack,
        ..
    } = run;
    match verdict {
        Ok(outcome @ (Outcome::Done | Outcome::Forward(_) | Outcome::Route(_))) => {
            succeed(host, seat, version, delivery, job, outcome, sends).await
        }
        Ok(Outcome::Retry { after, reason }) => {
            let failure = Failure {
                reason: "error",
                text: reason,
                attempts: version.retry.attempts,
                after,
                stack: None,
            };
            fail(host, seat, version, delivery, job, failure).await
        }
        Ok(Outcome::Reject { reason }) => {
            fail(
                host,
                seat,
                version,
                delivery,
                job,
                Failure::permanent(reason),
            )
            .await
        }
        Err(Fault::Interrupted) => {
            delivery.give_back();
            "interrupted"
        }
        Err(fault @ (Fault::Host(_) | Fault::Payload(_) | Fault::Denied(_))) => {
            let failure = Failure {
                reason: fault.reason(),
                stack,
                ..Failure::permanent(fault.to_string())
            };
            fail(host, seat, version, delivery, job, failure).await
        }
        Err(fault) => {
            // A call's sender waits and decides by itself; it learns of a crash at once.
            let is_call = delivery.message.reply_to.is_some();
            let most = if is_call {
                1
            } else {
                MOST_ATTEMPTS_AFTER_FAULT
            };
            let failure = Failure {
                reason: fault.reason(),
                text: fault.to_string(),
                attempts: version.retry.attempts.min(most),
                after: None,
                stack,
            };
            fail(host, seat, version, delivery, job, failure).await
        }
    }
}

/// A job whose envelope cannot be read. It is kept for a person to look at; whoever waits is told.
pub(crate) async fn undecodable(host: &Host, seat: &Seat, delivery: Delivery, error: &CodecError) {
    let worker_type = seat.id.worker_type();
    host.metrics.failed(worker_type, "decode");
    tracing::warn!(
        target: WORKER_TARGET,
        { "worker.type" = %worker_type, "job.id" = delivery.message.id, %error },
        "job cannot be read"
    );
    let text = format!("the envelope cannot be read: {error}");
    if let Some(caller) = delivery.message.reply_to.clone() {
        let cause = CallError::Failed {
            worker: worker_type.to_string(),
            attempts: delivery.message.attempt,
            reason: text.clone(),
        };
        let failed = &delivery.message;
        if !tell_caller(host, &delivery, failed, &caller, None, cause).await {
            return delivery.give_back();
        }
    }
    bury(host, delivery, "decode", text, None).await;
}

/// A job that came too late. Nobody waits for a call any more; a job that was sent is kept.
pub(crate) async fn expired(host: &Host, seat: &Seat, delivery: Delivery) {
    host.metrics
        .finished(seat.id.worker_type(), "expired", Duration::ZERO);
    let message = &delivery.message;
    if let Some(caller) = message.reply_to.clone() {
        // A host does not wait any more; a Node worker does.
        if message.from_peer {
            let cause = CallError::Timeout {
                address: message.to.to_string(),
                after_ms: millis(PEER_PATIENCE),
            };
            if !tell_caller(host, &delivery, message, &caller, None, cause).await {
                return delivery.give_back();
            }
        }
        ack(delivery).await;
    } else {
        bury(
            host,
            delivery,
            "expired",
            "its deadline had passed".to_owned(),
            None,
        )
        .await;
    }
}

/// A job for a worker id that this host does not have (any more).
pub(crate) async fn unrouted(host: &Host, delivery: Delivery) {
    let address = delivery.message.to.to_string();
    if let Some(caller) = delivery.message.reply_to.clone() {
        let cause = CallError::NoLiveWorker { address };
        let failed = &delivery.message;
        if tell_caller(host, &delivery, failed, &caller, None, cause).await {
            ack(delivery).await;
        }
    } else {
        bury(
            host,
            delivery,
            "unrouted",
            format!("{address} is not here any more"),
            None,
        )
        .await;
    }
}

/// Takes a message off its queue. When that is no longer ours to do, it is delivered again.
pub(crate) async fn ack(delivery: Delivery) {
    let id = delivery.message.id.clone();
    if let Err(error) = delivery.ack().await {
        tracing::warn!(
            target: WORKER_TARGET,
            { "job.id" = id, %error },
            "a job could not be acknowledged and will run again"
        );
    }
}

async fn succeed(
    host: &Host,
    seat: &Seat,
    version: &Version,
    delivery: Delivery,
    job: Job,
    outcome: Outcome,
    sends: Vec<Slip>,
) -> &'static str {
    let messages = match consequences(host, seat, &delivery.message, &job, outcome, sends) {
        Ok(messages) => messages,
        Err(reason) => {
            return fail(
                host,
                seat,
                version,
                delivery,
                job,
                Failure::permanent(reason),
            )
            .await;
        }
    };
    let worker_type = seat.id.worker_type();
    for _ in &messages {
        host.metrics.sent(worker_type, "job_request");
    }
    // One message decides: there is no moment in which some of a job's messages are sent.
    let sent = match one_message(worker_type, &delivery.message, &job, messages) {
        None => Ok(true),
        Some(message) if message.kind == Kind::Bundle => {
            hand_over_bundle(host, &delivery, message).await
        }
        Some(message) => Ok(hand_over(host, &delivery, message).await),
    };
    match sent {
        Ok(true) => {
            ack(delivery).await;
            "ok"
        }
        Ok(false) => {
            delivery.give_back();
            "interrupted"
        }
        Err(reason) => {
            let failure = Failure::permanent(reason);
            fail(host, seat, version, delivery, job, failure).await
        }
    }
}

/// Hands over what a plugin has sent when it was told that a job was given up.
///
/// # Errors
/// A text that says why nothing was sent.
pub(crate) async fn send_for_error(
    host: &Host,
    seat: &Seat,
    delivery: &Delivery,
    error: &JobError,
    sends: Vec<Slip>,
) -> Result<(), String> {
    let incoming = &delivery.message;
    let job = Job {
        route: Vec::new(),
        position: 0,
        data: error.data.clone(),
        sender: Identity::from(&seat.id),
        // The news, not the job: that one may have sent the same.
        id: incoming.id.clone(),
    };
    let mut messages = consequences(host, seat, incoming, &job, Outcome::Done, sends)?;
    for message in &mut messages {
        // No news of what news have led to: there would be no end to it.
        message.errors_to = None;
        host.metrics.sent(seat.id.worker_type(), "job_request");
    }
    let sent = match one_message(seat.id.worker_type(), incoming, &job, messages) {
        None => true,
        Some(message) if message.kind == Kind::Bundle => {
            hand_over_bundle(host, delivery, message).await?
        }
        Some(message) => hand_over(host, delivery, message).await,
    };
    if sent {
        Ok(())
    } else {
        Err("the host ended before the bus had what was sent".to_owned())
    }
}

/// Sends the parts of a bundle on, then acknowledges it. A crash in between sends some of them
/// twice, with the same ids.
pub(crate) async fn open_bundle(host: &Host, delivery: Delivery) {
    let parts = match delivery.message.unbundle() {
        Ok(parts) => parts,
        Err(error) => return bury(host, delivery, "decode", error.to_string(), None).await,
    };
    for part in parts {
        if !hand_over(host, &delivery, part).await {
            return delivery.give_back();
        }
    }
    ack(delivery).await;
}

/// Gives back a job that nobody has started.
pub(crate) async fn put_back(host: &Host, delivery: Delivery) {
    host.bus.put_back(delivery).await;
}

/// How a run failed and what is to be done.
struct Failure {
    /// The word for metrics and dead letters.
    reason: &'static str,
    text: String,
    /// Runs that the job may have.
    attempts: u32,
    /// The guest's wish for the wait before the next one.
    after: Option<Duration>,
    /// Where the guest was.
    stack: Option<String>,
}

impl Failure {
    fn permanent(text: String) -> Self {
        Self {
            reason: "permanent",
            text,
            attempts: 1,
            after: None,
            stack: None,
        }
    }
}

async fn fail(
    host: &Host,
    seat: &Seat,
    version: &Version,
    delivery: Delivery,
    job: Job,
    failure: Failure,
) -> &'static str {
    let worker_type = seat.id.worker_type();
    let message = &delivery.message;
    host.metrics.failed(worker_type, failure.reason);

    let delay = failure
        .after
        .unwrap_or_else(|| backoff(version.retry, message.attempt));
    let in_time = message
        .deadline_ms
        .is_none_or(|deadline| now_ms().saturating_add(delay.as_millis() as u64) < deadline);
    if message.attempt < failure.attempts && in_time {
        host.metrics.job_error(worker_type, "job_retry");
        tracing::info!(
            target: WORKER_TARGET,
            {
                "worker.type" = %worker_type,
                "job.id" = job.id,
                "job.attempt" = message.attempt,
                reason = failure.text,
                stack = failure.stack,
                delay_ms = delay.as_millis() as u64,
            },
            "job failed and will run again"
        );
        return retry(host, delivery, delay).await;
    }

    host.metrics
        .job_error(worker_type, "job_max_retries_exceeded");
    let plugin = version.pool.plugin();
    tracing::warn!(
        target: WORKER_TARGET,
        {
            "worker.type" = %worker_type,
            "job.id" = job.id,
            "job.attempt" = message.attempt,
            "plugin.version" = plugin.description.version,
            "plugin.digest" = plugin.digest.short(),
            "error.type" = failure.reason,
            reason = failure.text,
            stack = failure.stack,
        },
        "job failed for good"
    );
    match message.reply_to.clone() {
        Some(caller) => {
            let cause = CallError::Failed {
                worker: worker_type.to_string(),
                attempts: message.attempt,
                reason: failure.text,
            };
            let failed = &delivery.message;
            if tell_caller(host, &delivery, failed, &caller, Some(job), cause).await {
                ack(delivery).await;
                "failed"
            } else {
                delivery.give_back();
                "interrupted"
            }
        }
        None => {
            let reason = if failure.reason == "error" {
                "max_attempts"
            } else {
                failure.reason
            };
            let ran = Ran {
                plugin: format!(
                    "{} {} {}",
                    version.file_name(),
                    plugin.description.version,
                    plugin.digest
                ),
                stack: failure.stack,
            };
            bury(host, delivery, reason, failure.text, Some(ran)).await;
            "dead"
        }
    }
}

/// Runs the job again after a while. It waits on the bus, which keeps it.
async fn retry(host: &Host, delivery: Delivery, delay: Duration) -> &'static str {
    let mut again = delivery.message.clone();
    again.attempt = again.attempt.saturating_add(1);
    let until_ms = now_ms().saturating_add(millis(delay));
    if park(host, &delivery, again, until_ms).await {
        ack(delivery).await;
        "retry"
    } else {
        delivery.give_back();
        "interrupted"
    }
}

/// base × 2^(attempt − 1), no more than the cap, ± 20 % so that what failed together is not tried
/// together.
fn backoff(retry: Retry, attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(20);
    let delay = retry.base.saturating_mul(1 << doublings).min(retry.cap);
    delay.mul_f64(rand::rng().random_range(0.8..1.2))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_waits_about_twice_as_long_up_to_the_cap() {
        let retry = Retry {
            attempts: 100,
            base: Duration::from_secs(2),
            cap: Duration::from_secs(600),
            breaker: 0,
        };
        let check = |attempt, seconds: f64| {
            let delay = backoff(retry, attempt).as_secs_f64();
            let range = seconds * 0.8..=seconds * 1.2;
            assert!(range.contains(&delay), "attempt {attempt}: {delay} s");
        };
        check(1, 2.0);
        check(2, 4.0);
        check(4, 16.0);
        check(40, 600.0);
    }
}
