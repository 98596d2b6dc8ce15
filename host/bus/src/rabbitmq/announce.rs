//! Telling the bus who is there, as MicroServices.js does it (PROTOCOL "The wire"): who arrives
//! publishes `worker.new.resend`, who hears `worker.getAll` answers with the same, and who leaves
//! publishes `worker.del`.
//!
//! `worker.new.send` is never used: it makes Node workers of the type change whose turn it is.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{
    Connection, Consumer,
    options::{BasicAckOptions, BasicConsumeOptions},
    types::FieldTable,
};
use tokio::{sync::Mutex, time::timeout};
use tracing::debug;
use warren_protocol::{Encoding, GET_ALL, Identity, WorkerId, topic};

use super::{
    Shared,
    backoff::Backoff,
    bounded::{Failure, STEP_TIMEOUT, WRITE_TIMEOUT, within},
    epoch::Epoch,
    failure_log::FailureLog,
    membership::Membership,
    names::NOTIFICATIONS,
    peers::voice::Voice as Speaker,
    topology,
};

/// What an announcement may take in all, other announcements that go first included. It is news,
/// not a promise: the next `worker.getAll` repeats it.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(2);

/// The voice of this host on `notifications`, for one epoch.
pub(super) struct Announcer {
    encoding: Encoding,
    /// One announcement at a time, so that the answer to a `worker.getAll` never puts a worker
    /// back on the list that has just said goodbye.
    voice: Mutex<Voice>,
}

#[derive(Default)]
struct Voice {
    /// Opened at the first word, and again when it broke.
    speaker: Option<Speaker>,
    present: BTreeSet<WorkerId>,
}

impl Announcer {
    pub(super) fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            voice: Mutex::default(),
        }
    }

    /// A worker takes jobs from now on, unless it has begun to leave: then its goodbye has been
    /// said, or will be if it is present.
    pub(super) async fn hello(
        &self,
        connection: &Connection,
        worker: &WorkerId,
        membership: &Membership,
    ) {
        let said = timeout(ANNOUNCE_TIMEOUT, async {
            let mut voice = self.voice.lock().await;
            if !membership.has(worker) {
                return Ok(());
            }
            voice.present.insert(worker.clone());
            voice
                .say(connection, self.encoding, topic::WORKER_NEW_RESEND, worker)
                .await
        });
        note(said.await, worker);
    }

    /// A worker takes no more jobs.
    pub(super) async fn goodbye(&self, connection: &Connection, worker: &WorkerId) {
        let said = timeout(ANNOUNCE_TIMEOUT, async {
            let mut voice = self.voice.lock().await;
            if voice.present.remove(worker) {
                voice
                    .say(connection, self.encoding, topic::WORKER_DEL, worker)
                    .await
            } else {
                Ok(())
            }
        });
        note(said.await, worker);
    }

    /// Every worker that is there says so.
    async fn roll_call(&self, connection: &Connection) {
        let mut voice = self.voice.lock().await;
        for worker in voice.present.clone() {
            let said = voice.say(connection, self.encoding, topic::WORKER_NEW_RESEND, &worker);
            note(timeout(ANNOUNCE_TIMEOUT, said).await, &worker);
        }
    }
}

impl Voice {
    async fn say(
        &mut self,
        connection: &Connection,
        encoding: Encoding,
        key: &str,
        worker: &WorkerId,
    ) -> Result<(), Failure> {
        let Ok(body) = encoding.encode_identity(&Identity::from(worker)) else {
            return Ok(()); // Two short texts: every encoding can say them.
        };
        let speaker = match self.speaker.take() {
            Some(speaker) if speaker.is_open() => speaker,
            _ => Speaker::open(connection).await?,
        };
        speaker.say(key, &body).await?;
        self.speaker = Some(speaker);
        Ok(())
    }
}

fn note(said: Result<Result<(), Failure>, tokio::time::error::Elapsed>, worker: &WorkerId) {
    match said {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => debug!("worker.id" = %worker, error = %failure, "not announced"),
        Err(_) => debug!("worker.id" = %worker, "not announced in time"),
    }
}

/// Answers `worker.getAll` until the epoch is over. A failure costs the announcements, not the
/// jobs: the exchange belongs to others, who may have declared it differently.
pub(super) async fn listen(shared: Arc<Shared>, epoch: Arc<Epoch>, mut first: Option<Consumer>) {
    let mut backoff = Backoff::default();
    let mut log = FailureLog::default();
    let mut n_tries: u64 = 0;
    loop {
        let calls = match first.take() {
            Some(calls) => Ok(calls),
            None => subscribe(&shared, &epoch, n_tries).await,
        };
        let failure = match calls {
            Ok(calls) => {
                shared.board.announcements(None);
                backoff.reset();
                answer(&epoch, calls).await
            }
            Err(failure) => failure,
        };
        if epoch.over.is_cancelled() {
            return;
        }
        n_tries += 1;
        let problem = problem(&failure);
        log.note(&problem);
        shared.board.announcements(Some(problem));
        tokio::select! {
            () = epoch.over.cancelled() => return,
            () = tokio::time::sleep(backoff.next()) => {}
        }
    }
}

/// Starts to hear `worker.getAll`. `n_tries` keeps the queue's name new: the one of a channel that
/// broke may still be there.
pub(super) async fn subscribe(
    shared: &Shared,
    epoch: &Epoch,
    n_tries: u64,
) -> Result<Consumer, Failure> {
    let opened = epoch.consuming.create_channel();
    let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
    let queue = shared.host.registration(epoch.number, n_tries);
    let wanted = [
        topology::peers_exchange(NOTIFICATIONS),
        topology::exclusive(queue.clone()),
        topology::binding(queue.as_str(), NOTIFICATIONS, topic::WORKER_GET_ALL),
    ];
    topology::declare_all(&channel, &wanted).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let consumer = channel.basic_consume(queue, "warren-registration".into(), options, none);
    within(STEP_TIMEOUT, "consume announcements", consumer).await
}

/// Answers until the consumer ends.
async fn answer(epoch: &Epoch, mut calls: Consumer) -> Failure {
    loop {
        let call = tokio::select! {
            () = epoch.over.cancelled() => return Failure::Ended("the epoch is over"),
            call = calls.next() => call,
        };
        match call {
            Some(Ok(call)) => {
                // Receipt, as everybody on this exchange acknowledges.
                let acked = call.acker.ack(BasicAckOptions::default());
                let _ = within(WRITE_TIMEOUT, "acknowledge", acked).await;
                if call.data != GET_ALL.as_bytes() {
                    debug!(
                        n_bytes = call.data.len(),
                        "an unusual worker.getAll, answered all the same"
                    );
                }
                epoch.announcer.roll_call(&epoch.publishing).await;
            }
            Some(Err(error)) => return Failure::Refused("consume announcements", error),
            None => return Failure::Ended("the broker ended the registration queue"),
        }
    }
}

fn problem(failure: &Failure) -> String {
    let remedy = if failure.is_mismatch() {
        "delete the exchange `notifications` or declare it as topic, non-durable"
    } else if failure.is_access_refused() {
        "allow this user to configure, write and read `notifications` and `warren.v1.*`"
    } else {
        "it is tried again"
    };
    format!("workers are not announced to peers ({failure}): {remedy}")
}
