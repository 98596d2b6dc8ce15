//! One job's way through the host, read from top to bottom: taken from the bus, decoded, run,
//! settled. What an outcome leads to is [`crate::settle`]'s.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::Semaphore;
use warren_bus::{Delivery, Inbox, Kind, Subscription};
use warren_protocol::{Address, Job};
use warren_runtime::{Occasion, Permit, Stop};

use crate::{
    breaker::{Phase, Reaction},
    calls::reply,
    clock::now_ms,
    host::Host,
    pausing::react,
    registry::{Seat, Version},
    settle,
    telemetry::logs::WORKER_TARGET,
    treat,
    witness::Seen,
};

/// Jobs by id that may wait for a permit at the same time. Further ones go to the end of the inbox:
/// it hands out a bounded number of messages, and replies must be among them.
const MAX_WAITING_BY_ID: usize = 200;
/// The same for the news of jobs that were given up: they keep no job from its place.
const MAX_WAITING_NEWS: usize = 50;
/// How long a job waits for a permit at the least. What is kept clear of the broker's timeout is
/// more.
const SHORTEST_WAIT: Duration = Duration::from_secs(5);
/// How long a job by id that goes to the end of the inbox is held before.
const TURN_AWAY_DELAY: Duration = Duration::from_millis(20);

/// Runs the jobs of one worker as they come, until its subscription ends.
pub(crate) async fn serve(host: Arc<Host>, seat: Arc<Seat>, mut subscription: Subscription) {
    // What has come while the first in line waited for a permit; the prefetch bounds it.
    let mut line = VecDeque::new();
    loop {
        let first = match line.pop_front() {
            Some(first) => first,
            None => match subscription.recv().await {
                Some(next) => next,
                None => return,
            },
        };
        let Some(first) = open_if_bundle(&host, first) else {
            continue;
        };
        let starting = start(&host, &seat, first);
        tokio::pin!(starting);
        let not_started = loop {
            tokio::select! {
                biased;
                not_started = &mut starting => break not_started,
                // A bundle does not wait behind jobs: what is in it may be what they wait for.
                Some(next) = subscription.recv() => line.extend(open_if_bundle(&host, next)),
            }
        };
        if let Some(delivery) = not_started {
            // Beside the others: each waits for the broker's confirm.
            let host = host.clone();
            host.work.clone().spawn(async move {
                settle::put_back(&host, delivery).await;
            });
        }
    }
}

/// A bundle needs no instance: its messages are sent on beside the jobs that run.
fn open_if_bundle(host: &Arc<Host>, delivery: Delivery) -> Option<Delivery> {
    if delivery.message.kind != Kind::Bundle {
        return Some(delivery);
    }
    let host = host.clone();
    host.work.clone().spawn(async move {
        settle::open_bundle(&host, delivery).await;
    });
    None
}

/// Takes what is addressed to this host's worker ids: replies and errors for its calls, and jobs
/// by id. Never waits for a permit: a reply behind a job could be what that job waits for.
pub(crate) async fn attend(host: Arc<Host>, mut inbox: Inbox) {
    let room = Arc::new(Semaphore::new(MAX_WAITING_BY_ID));
    let room_for_news = Arc::new(Semaphore::new(MAX_WAITING_NEWS));
    // Beside what comes next: no answer waits until the one before it is acknowledged. The prefetch
    // bounds them.
    let mut acks = FuturesUnordered::new();
    loop {
        let delivery = tokio::select! {
            Some(()) = acks.next() => continue,
            delivery = inbox.recv() => delivery,
        };
        let Some(delivery) = delivery else {
            break;
        };
        match delivery.message.kind {
            Kind::Error if delivery.message.correlation_id.is_none() => {
                let (host, place) = (host.clone(), room_for_news.clone().try_acquire_owned());
                host.work.clone().spawn(async move {
                    match place {
                        Ok(_place) => treat::tell(&host, delivery).await,
                        Err(_) => turn_away(&host, delivery).await,
                    }
                });
            }
            Kind::Reply | Kind::Error => acks.push(resolve(&host, delivery)),
            Kind::Job if answers_a_call(&host, &delivery) => acks.push(resolve(&host, delivery)),
            Kind::Job | Kind::Bundle => {
                let (host, place) = (host.clone(), room.clone().try_acquire_owned());
                host.work.clone().spawn(async move {
                    match place {
                        Ok(_place) => run_by_id(&host, delivery).await,
                        Err(_) => turn_away(&host, delivery).await,
                    }
                });
            }
        }
    }
    while acks.next().await.is_some() {}
}

/// Puts what has no place to wait to the end of the inbox.
async fn turn_away(host: &Host, delivery: Delivery) {
    tokio::time::sleep(TURN_AWAY_DELAY).await;
    settle::put_back(host, delivery).await;
}

/// A Node worker answers a call that waits.
fn answers_a_call(host: &Host, delivery: &Delivery) -> bool {
    let message = &delivery.message;
    let correlation_id = message.correlation_id.as_deref();
    correlation_id.is_some_and(|id| host.calls.is_open(id)) && reply::is_answer_of_a_peer(message)
}

/// A job for one worker of this host and no other. When that worker has retired there is nobody
/// else to give it back to.
async fn run_by_id(host: &Arc<Host>, delivery: Delivery) {
    let seat = host.registry.get(delivery.message.to.worker_type());
    let seat = seat.filter(|seat| delivery.message.to == Address::One(seat.id.clone()));
    let delivery = match &seat {
        Some(seat) => start(host, seat, delivery).await,
        None => Some(delivery),
    };
    match delivery {
        None => {}
        // Not ours any more: it is delivered again.
        Some(delivery) if delivery.lost.is_cancelled() => delivery.give_back(),
        // It has waited for too long to be held on.
        Some(delivery) if seat.is_some_and(|seat| !seat.retired.is_cancelled()) => {
            settle::put_back(host, delivery).await;
        }
        Some(delivery) => settle::unrouted(host, delivery).await,
    }
}

/// A reply or an error: the call that waits for it goes on, now. What is left to do is to acknowledge
/// it.
fn resolve(host: &Host, delivery: Delivery) -> impl Future<Output = ()> + use<> {
    let message = &delivery.message;
    let correlation_id = message.correlation_id.as_deref().unwrap_or_default();
    if !host.calls.resolve(correlation_id, reply::read(message)) {
        host.metrics.reply_dropped(message.to.worker_type());
        tracing::debug!(
            target: WORKER_TARGET,
            { "job.id" = message.id },
            "a reply came when nobody waited any more"
        );
    }
    settle::ack(delivery)
}

/// Waits for the right to run, then runs beside the others. The job is handed back when the worker
/// has retired or pauses in the meantime, and when it has waited for so long that the broker would
/// take it back before it has run.
async fn start(host: &Arc<Host>, seat: &Arc<Seat>, delivery: Delivery) -> Option<Delivery> {
    let latest = latest_start(host, seat, &delivery);
    let mut phase = seat.breaker.phase();
    // A job for this worker and no other has nowhere to wait but here.
    let pauses = async {
        match delivery.message.to {
            Address::Any(_) => drop(phase.wait_for(|phase| *phase == Phase::Open).await),
            Address::One(_) => std::future::pending().await,
        }
    };
    let granted = tokio::select! {
        biased;
        () = seat.retired.cancelled() => None,
        () = delivery.lost.cancelled() => None,
        () = pauses => None,
        () = tokio::time::sleep_until(latest) => None,
        (version, permit) = seat.permit() => permit.map(|permit| (version, permit)),
    };
    let Some((version, permit)) = granted else {
        return Some(delivery);
    };
    let (host, seat, run) = (host.clone(), seat.clone(), seat.runs.token());
    host.work.clone().spawn(async move {
        let _run = run;
        dispatch(&host, &seat, &version, permit, delivery).await;
    });
    None
}

/// Until when a delivery may wait for a permit.
pub(crate) fn latest_start(host: &Host, seat: &Seat, delivery: &Delivery) -> tokio::time::Instant {
    let deadline = seat.current().pool.worker().limits.deadline;
    let wait = host.longest_hold.saturating_sub(deadline);
    (delivery.received + wait.max(SHORTEST_WAIT)).into()
}

/// One job, from delivery to settlement.
async fn dispatch(
    host: &Arc<Host>,
    seat: &Arc<Seat>,
    version: &Arc<Version>,
    permit: Permit,
    delivery: Delivery,
) {
    let message = &delivery.message;
    let worker_type = seat.id.worker_type();
    host.metrics.received(worker_type, "job_request");

    let job = match message.encoding.decode_job(&message.body) {
        Ok(job) => job,
        Err(error) => return settle::undecodable(host, seat, delivery, &error).await,
    };
    if message
        .deadline_ms
        .is_some_and(|deadline| deadline <= now_ms())
    {
        return settle::expired(host, seat, delivery).await;
    }

    host.metrics.received(worker_type, "job_activated");
    // Two jobs that a Node worker sends in one millisecond have one id: a guest that goes by it would
    // take them for one.
    let shown = message.from_peer.then(|| Job {
        id: message.id.clone(),
        ..job.clone()
    });
    let shown = shown.as_ref().unwrap_or(&job);
    let occasion = Occasion {
        job_id: shown.id.clone(),
        attempt: message.attempt,
        correlation_id: message.correlation_id.clone(),
        trace_parent: message.trace_parent.clone(),
    };
    let stop = seat.interrupt.child_token();
    let (begun, round) = (host.pulse.moment(), seat.breaker.round());
    let run = {
        // Asked before the guest goes on, each time: it must not have an effect when this host has
        // stood still for so long that the job may be somebody else's.
        let asked = host.clone();
        let is_over = Arc::new(move || asked.pulse.has_stood_still_since(begun));
        let stop_of_run = Stop::when(stop.clone(), is_over);
        let run = version.pool.run(&permit, shown, occasion, stop_of_run);
        tokio::pin!(run);
        tokio::select! {
            run = &mut run => run,
            // The connection that delivered the job is gone: the broker gives it to somebody else.
            () = delivery.lost.cancelled() => {
                stop.cancel();
                run.await
            }
        }
    };
    // The instance is free for the next job while this one's consequences are made safe.
    drop(permit);

    let took: Duration = run.took;
    if react(host, seat, version, &delivery, &run, round) == Reaction::PutBack {
        settle::put_back(host, delivery).await;
        return host.metrics.finished(worker_type, "interrupted", took);
    }
    let witness = host.witness.as_ref();
    let seen = witness.map(|witness| (witness, Seen::of(&delivery.message, &run)));
    let outcome = settle::settle(host, seat, version, delivery, job, run).await;
    host.metrics.finished(worker_type, outcome, took);
    if let Some((witness, seen)) = seen {
        witness.tell(seen, outcome);
    }
}
