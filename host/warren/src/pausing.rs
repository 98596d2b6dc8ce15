//! Pausing a worker whose jobs all fail, and finding out when they work again.

use std::sync::Arc;

use warren_bus::Delivery;
use warren_protocol::{Address, Outcome};
use warren_runtime::{Fault, JobRun};

use crate::{
    breaker::{Phase, Reaction, Round, Sign},
    host::Host,
    registry::{Seat, Version},
    telemetry::logs::WORKER_TARGET,
    trial::{Evidence, Judgement},
};

/// What a run says about the world outside. A wait that the guest has chosen is a plan, no failure,
/// and whoever rejects a job could look at it.
fn sign(run: &JobRun) -> Sign {
    match &run.verdict {
        Ok(Outcome::Done | Outcome::Forward(_) | Outcome::Route(_)) => Sign::Good,
        Ok(Outcome::Retry { after: None, .. }) => Sign::Bad,
        Ok(Outcome::Retry { .. } | Outcome::Reject { .. }) => Sign::Fair,
        Err(fault) if is_the_hosts(fault) => Sign::None,
        Err(_) => Sign::Broken,
    }
}

/// What a run says about the version that ran it.
fn evidence(run: &JobRun) -> Evidence {
    match &run.verdict {
        Ok(Outcome::Done | Outcome::Forward(_) | Outcome::Route(_)) => Evidence::Good,
        Ok(Outcome::Retry { after: Some(_), .. }) => Evidence::None,
        Ok(Outcome::Retry { after: None, .. }) => Evidence::Failed,
        Ok(Outcome::Reject { .. }) => Evidence::Rejected,
        Err(fault) if is_the_hosts(fault) => Evidence::None,
        Err(_) => Evidence::Failed,
    }
}

/// Whether a run ended for a reason that is neither the plugin's nor the job's.
pub(crate) fn is_the_hosts(fault: &Fault) -> bool {
    matches!(fault, Fault::Host(_) | Fault::Busy(_) | Fault::Interrupted)
}

fn words(run: &JobRun) -> String {
    match &run.verdict {
        Ok(Outcome::Retry { reason, .. } | Outcome::Reject { reason }) => reason.clone(),
        Ok(_) => String::new(),
        Err(fault) => fault.to_string(),
    }
}

/// Takes in how a run ended, and pauses its worker when that was one failure too many. Says what is
/// to be done with the job. Whoever waits for a call is told of its failure in any case.
pub(crate) fn react(
    host: &Arc<Host>,
    seat: &Arc<Seat>,
    version: &Arc<Version>,
    delivery: &Delivery,
    run: &JobRun,
    begun: Round,
) -> Reaction {
    let job_id = &delivery.message.id;
    let judged = version.trial.note(evidence(run), job_id, || words(run));
    let (sign, most_bad) = (sign(run), version.retry.breaker);
    let reaction = if is_replaced(seat, version) {
        // What it did says nothing about the version that serves now, and its failures are not the
        // jobs' when it was taken away for them.
        match (version.trial.judgement(), sign) {
            (Judgement::Condemned, Sign::Bad | Sign::Broken) => Reaction::PutBack,
            _ => Reaction::Settle,
        }
    } else {
        seat.breaker.note(sign, job_id, begun, most_bad)
    };
    // Nothing more is spent on it, while the version before is on its way back.
    let is_condemned = judged == Some(Judgement::Condemned) && most_bad > 0;
    if is_condemned && sign != Sign::Fair && seat.breaker.condemn() {
        tokio::spawn(pause(host.clone(), seat.clone()));
    }
    let judged = judged.or_else(|| {
        let why = || format!("every job fails, the last one with: {}", words(run));
        (reaction == Reaction::Pause).then(|| version.trial.fail(why()))?
    });
    if judged.is_some() {
        host.judged.notify_one();
    }
    if reaction == Reaction::Pause {
        tracing::warn!(
            target: WORKER_TARGET,
            { "worker.type" = %seat.id.worker_type(), error = words(run) },
            "every job fails: the worker pauses, its queue keeps the work"
        );
        tokio::spawn(pause(host.clone(), seat.clone()));
    }
    // A job for this worker and no other would come back at once.
    let is_for_anybody = matches!(delivery.message.to, Address::Any(_));
    match reaction {
        Reaction::PutBack if delivery.message.reply_to.is_some() || !is_for_anybody => {
            Reaction::Settle
        }
        reaction => reaction,
    }
}

fn is_replaced(seat: &Seat, version: &Arc<Version>) -> bool {
    !Arc::ptr_eq(&seat.current(), version)
}

/// Pauses, tries with one job at a time, and pauses longer, until one succeeds.
async fn pause(host: Arc<Host>, seat: Arc<Seat>) {
    let worker_type = seat.id.worker_type();
    let mut phase = seat.breaker.phase();
    host.metrics.circuit_open(worker_type, true);
    loop {
        host.bus.set_prefetch(&seat.id, 0).await;
        tokio::select! {
            () = seat.retired.cancelled() => break,
            () = tokio::time::sleep(seat.breaker.pause()) => {}
            // Another version need not wait for what the one before has earned.
            () = seat.another_version() => {}
        }
        seat.breaker.try_again();
        host.bus.set_prefetch(&seat.id, 1).await;
        let decided = tokio::select! {
            () = seat.retired.cancelled() => break,
            decided = phase.wait_for(|phase| *phase != Phase::Trial) => decided.map(|phase| *phase),
        };
        match decided {
            Ok(Phase::Open) => {}
            _ => {
                host.bus.set_prefetch(&seat.id, seat.prefetch).await;
                if !seat.breaker.end_pause() {
                    continue; // Everything failed again in the meantime.
                }
                tracing::info!(
                    target: WORKER_TARGET,
                    { "worker.type" = %worker_type },
                    "jobs succeed again: the worker goes on"
                );
                break;
            }
        }
    }
    host.metrics.circuit_open(worker_type, false);
}
