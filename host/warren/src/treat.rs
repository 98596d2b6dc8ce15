//! The news that a job which a worker of this host has sent was given up: told to the plugin, where
//! it wants to know.
//!
//! Told once, unless the host or the connection ends meanwhile. Whatever comes of it, the news is taken off the inbox: a failure is logged and counted,
//! it is not tried again, and it makes no news of its own.

use std::sync::Arc;

use warren_bus::Delivery;
use warren_protocol::{Address, JobError, Outcome};
use warren_runtime::{JobRun, Occasion};

use crate::{
    dispatch,
    host::Host,
    registry::{Seat, Version},
    settle,
    telemetry::logs::WORKER_TARGET,
};

/// Tells the worker that the news is for.
pub(crate) async fn tell(host: &Arc<Host>, delivery: Delivery) {
    let worker_type = delivery.message.to.worker_type().clone();
    host.metrics.received(&worker_type, "error");
    let seat = host.registry.get(&worker_type);
    let seat = seat.filter(|seat| delivery.message.to == Address::One(seat.id.clone()));
    let Some(seat) = seat.filter(|seat| seat.hears_errors().is_some()) else {
        host.metrics.reply_dropped(&worker_type);
        return settle::ack(delivery).await;
    };
    let message = &delivery.message;
    let error = match message.encoding.decode_error(&message.body) {
        Ok(error) => error,
        Err(error) => {
            tracing::warn!(
                target: WORKER_TARGET,
                { "worker.type" = %worker_type, "job.id" = message.id, %error },
                "the news of a job that was given up cannot be read"
            );
            host.metrics.error_treated(&worker_type, "decode");
            return settle::ack(delivery).await;
        }
    };
    let _run = seat.runs.token();
    let latest = dispatch::latest_start(host, &seat, &delivery);
    let granted = tokio::select! {
        biased;
        () = seat.retired.cancelled() => None,
        () = delivery.lost.cancelled() => return,
        // To the end of the inbox, before the broker takes it back and all that is held with it.
        () = tokio::time::sleep_until(latest) => return settle::put_back(host, delivery).await,
        (version, permit) = seat.permit() => permit.map(|permit| (version, permit)),
    };
    let Some((version, permit)) = granted else {
        host.metrics.error_treated(&worker_type, "interrupted");
        return settle::ack(delivery).await;
    };
    let occasion = Occasion {
        job_id: error.id.clone(),
        attempt: 1,
        correlation_id: None,
        trace_parent: message.trace_parent.clone(),
    };
    let stop = seat.interrupt.child_token();
    let run = {
        let run = version.pool.treat(&permit, &error, occasion, stop.clone());
        tokio::pin!(run);
        tokio::select! {
            run = &mut run => run,
            // It is delivered again.
            () = delivery.lost.cancelled() => {
                stop.cancel();
                run.await
            }
        }
    };
    drop(permit);
    let outcome = end(host, &seat, &version, &delivery, &error, run).await;
    host.metrics.error_treated(&worker_type, outcome);
    settle::ack(delivery).await;
}

/// Sends what the plugin has sent, or says why it has failed. A word for what came of it.
async fn end(
    host: &Host,
    seat: &Seat,
    version: &Version,
    delivery: &Delivery,
    error: &JobError,
    run: JobRun,
) -> &'static str {
    let (outcome, reason) = match run.verdict {
        Ok(Outcome::Reject { reason }) => ("failed", reason),
        Ok(_) => match settle::send_for_error(host, seat, delivery, error, run.sends).await {
            Ok(()) => return "treated",
            Err(reason) => ("failed", reason),
        },
        Err(fault) => (fault.reason(), fault.to_string()),
    };
    let plugin = version.pool.plugin();
    tracing::warn!(
        target: WORKER_TARGET,
        {
            "worker.type" = %seat.id.worker_type(),
            "job.id" = error.id,
            "plugin.version" = plugin.description.version,
            "plugin.digest" = plugin.digest.short(),
            "error.type" = outcome,
            reason,
            stack = run.stack,
            given_up = error.error,
        },
        "treat-error failed; the job is still among the dead letters"
    );
    outcome
}
