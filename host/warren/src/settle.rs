//! What an outcome leads to: its messages are published and confirmed, then the job is
//! acknowledged. Never the other way round: a crash in between repeats a job, it loses none.

mod consequences;
mod hand_over;

use std::time::Duration;

use rand::RngExt;
use warren_bus::Delivery;
use warren_protocol::{CallError, CodecError, Job, Outcome, Slip};
use warren_runtime::{Fault, JobRun};

use crate::{
    clock::now_ms,
    host::Host,
    registry::{Seat, Version},
    telemetry::logs::WORKER_TARGET,
};
use consequences::consequences;
use hand_over::{bury, hand_over, pause, tell_caller};

pub(crate) use consequences::sent_by_request;
pub(crate) use hand_over::publish_all;

/// A trap, an exceeded limit or a missed deadline rarely goes away: it is tried this often.
const MOST_ATTEMPTS_AFTER_FAULT: u32 = 3;
/// The longest wait between two attempts, the run before it included. The job is held in the
/// meantime, and the broker takes back what is held for half an hour.
const MAX_HOLD: Duration = Duration::from_secs(600);

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
        took,
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
                took,
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
        Err(fault @ (Fault::Host(_) | Fault::Payload(_))) => {
            let failure = Failure {
                reason: fault.reason(),
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
                took,
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
        if !tell_caller(host, &delivery, &caller, None, cause).await {
            return delivery.give_back();
        }
    }
    bury(host, delivery, "decode", text, None).await;
}

/// A job that came too late. Nobody waits for a call any more; a job that was sent is kept.
pub(crate) async fn expired(host: &Host, seat: &Seat, delivery: Delivery) {
    host.metrics
        .finished(seat.id.worker_type(), "expired", Duration::ZERO);
    if delivery.message.reply_to.is_some() {
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
        if tell_caller(host, &delivery, &caller, None, cause).await {
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

/// Puts a message behind the others of its queue, as it is.
pub(crate) async fn send_to_the_end(host: &Host, delivery: Delivery) {
    let message = delivery.message.clone();
    if hand_over(host, &delivery, message).await {
        ack(delivery).await;
    } else {
        delivery.give_back();
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
    for message in messages {
        host.metrics.sent(seat.id.worker_type(), "job_request");
        if !hand_over(host, &delivery, message).await {
            delivery.give_back();
            return "interrupted";
        }
    }
    ack(delivery).await;
    "ok"
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
    /// How long the run took.
    took: Duration,
}

impl Failure {
    fn permanent(text: String) -> Self {
        Self {
            reason: "permanent",
            text,
            attempts: 1,
            after: None,
            took: Duration::ZERO,
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

    let wished = failure
        .after
        .unwrap_or_else(|| backoff(version.retry.base, message.attempt));
    let delay = wished.min(MAX_HOLD.saturating_sub(failure.took));
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
            if tell_caller(host, &delivery, &caller, Some(job), cause).await {
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
            let ran = format!(
                "{} {} {}",
                version.file_name(),
                plugin.description.version,
                plugin.digest
            );
            bury(host, delivery, reason, failure.text, Some(ran)).await;
            "dead"
        }
    }
}

/// Runs the job again after a while. The job is held, unacknowledged, until then.
async fn retry(host: &Host, delivery: Delivery, delay: Duration) -> &'static str {
    if !pause(host, &delivery, delay).await {
        delivery.give_back();
        return "interrupted";
    }
    let mut again = delivery.message.clone();
    again.attempt = again.attempt.saturating_add(1);
    if hand_over(host, &delivery, again).await {
        ack(delivery).await;
        "retry"
    } else {
        delivery.give_back();
        "interrupted"
    }
}

/// base × 2^(attempt − 1), ± 20 % so that what failed together is not tried together.
fn backoff(base: Duration, attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(20);
    let delay = base.saturating_mul(1 << doublings);
    delay
        .mul_f64(rand::rng().random_range(0.8..1.2))
        .min(MAX_HOLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_waits_about_twice_as_long_up_to_ten_minutes() {
        let check = |attempt, seconds: f64| {
            let delay = backoff(Duration::from_secs(2), attempt).as_secs_f64();
            let range = seconds * 0.8..=(seconds * 1.2).min(600.0);
            assert!(range.contains(&delay), "attempt {attempt}: {delay} s");
        };
        check(1, 2.0);
        check(2, 4.0);
        check(4, 16.0);
        check(40, 600.0);
    }
}
