//! Pausing a worker whose jobs all fail, and finding out when they work again.

use std::sync::Arc;

use warren_bus::Delivery;
use warren_protocol::{Address, Outcome};
use warren_runtime::JobRun;

use crate::{
    breaker::{Phase, Reaction, Round, Sign},
    host::Host,
    registry::{Seat, Version},
    telemetry::logs::WORKER_TARGET,
};

/// What a run says about the world outside. A wait that the guest has chosen is a plan, no failure,
/// and whoever rejects a job could look at it.
fn sign(run: &JobRun) -> Sign {
    match &run.verdict {
        Ok(Outcome::Done | Outcome::Forward(_) | Outcome::Route(_)) => Sign::Good,
        Ok(Outcome::Retry { after: None, .. }) => Sign::Bad,
        Ok(Outcome::Retry { .. } | Outcome::Reject { .. }) => Sign::Fair,
        Err(_) => Sign::None,
    }
}

/// Takes in how a run ended, and pauses its worker when that was one failure too many. Says what is
/// to be done with the job. Whoever waits for a call is told of its failure in any case.
pub(crate) fn react(
    host: &Arc<Host>,
    seat: &Arc<Seat>,
    version: &Version,
    delivery: &Delivery,
    run: &JobRun,
    begun: Round,
) -> Reaction {
    let reaction = seat.breaker.note(sign(run), begun, version.retry.breaker);
    if reaction == Reaction::Pause {
        tracing::warn!(
            target: WORKER_TARGET,
            { "worker.type" = %seat.id.worker_type(), failures = version.retry.breaker },
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
