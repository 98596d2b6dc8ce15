//! Jobs of Node senders: whom each is for, and taking those that are for hosts into the durable
//! queues. A job is stored before its sender hears that it is taken. One that hears nothing sends it
//! again, but not surely: an acknowledgement of any other job with the same id stops it.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};
use uuid::Uuid;
use warren_protocol::{
    Acknowledgement, Address, Encoding, ErrorTarget, Job, JobError, Stop, WorkerId, WorkerType,
    topic,
};

use super::{
    PeerCount,
    gateway::{Gateway, LOG, SHORTEST_CALL, SINK},
    ledger::{Fate, Sight},
    patience::watch_over,
    pin::State as PinState,
    pools::Presence,
    roster::Change,
    told::Answer,
};
use crate::{
    Message, PEER_PATIENCE, PublishError,
    rabbitmq::{
        names::{CLAIMED, JOBS},
        publish::{Parcel, too_large, verdict},
        wire,
    },
};

/// What a Node worker reads where its manager finds nobody.
const NOBODY: &str = "No worker available for this job";
/// How long those that are doubted have to show that they live.
const PROBE: Duration = Duration::from_millis(300);

/// In which a Node worker acknowledges a job that it takes, with Nagle's 40 ms; and in which a slow one
/// does, before the sender sends it again.
const SEEN_WITHIN: Duration = Duration::from_millis(200);
const SEEN_WITHIN_AT_MOST: Duration = Duration::from_millis(1500);
/// In its first moments a gateway does not know who is merely slow to answer its first call. It refuses
/// no job for want of a taker then: an error for one that is taken after all is the second answer, of
/// which a Node REST worker dies.
const SETTLING: Duration = Duration::from_secs(4);
/// A job that cannot be stored is tried for less than the 10 s after which its sender gives up by
/// itself: an error after that would be the second one.
const TRIED_FOR: Duration = Duration::from_secs(8);
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// A confirm that takes longer is not waited for: the job is stored again, with the same id.
const STORED_WITHIN: Duration = Duration::from_secs(4);
/// A job that no Node worker takes is refused when it comes again for this time, after 4 s.
const REFUSE_AT: u32 = 2;

/// A job as it was heard.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) encoding: Encoding,
    pub(super) job: Job,
    pub(super) body: Bytes,
    /// When.
    pub(super) at: Instant,
}

/// What is to be done about a job.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    /// Store it for its address, and tell its sender that it is taken.
    Claim(Address),
    /// It is for a Node worker, which takes it by itself.
    Leave,
    /// Not now: whoever served it was there a moment ago, or it is not known yet who is there.
    Wait,
    /// Tell its sender that nobody takes it.
    Refuse(String),
    /// Nobody waits for it: take it and let go of it.
    Drop,
}

impl Gateway {
    /// Deals with one job of a Node sender.
    pub(super) async fn consider(self: &Arc<Self>, heard: Heard) {
        let request = self.request_of(&heard.job);
        let mut returned = None;
        let sight = {
            let mut memory = self.memory();
            if let Ok(sender) = heard.job.sender.id.parse::<WorkerId>()
                && memory.roster.has_node(&sender)
                && memory.roster.heard(&sender, false, Instant::now()) == Change::Returned
            {
                returned = Some(sender);
            }
            memory
                .ledger
                .see(&heard.job, request.as_deref(), Instant::now())
        };
        if let Some(sender) = returned {
            self.serve(&sender);
        }
        match sight {
            Sight::New(key) => {
                if let (Some(request), Ok(sender)) = (&request, heard.job.sender.id.parse()) {
                    self.told().asked(&sender, request, Instant::now());
                }
                let decision = self.decide(&heard.job).await;
                match self.changing_type(&heard.job, &decision) {
                    true => self.wait_and_see(heard, key),
                    false => self.act(heard, key, decision).await,
                }
            }
            Sight::Again(_, Fate::Open | Fate::Awaited | Fate::Taken | Fate::Refused, _) => {}
            Sight::Again(_, Fate::Claimed, _) => self.acknowledge(&heard.job).await,
            Sight::Again(key, Fate::Left, times) => self.rescue(heard, key, times),
        }
    }

    /// Whether a job is for a type of which nobody can tell just now who takes its jobs.
    fn changing_type(&self, job: &Job, decision: &Decision) -> bool {
        matches!(decision, Decision::Claim(_) | Decision::Leave)
            && match job.stop().map(Stop::address) {
                Some(Ok(Address::Any(worker_type))) => self.is_changing(&worker_type),
                _ => false,
            }
    }

    /// By how much Node workers are slower than they should be, up to the time in which a sender sends
    /// again: on a machine that is busy a job that is being taken looks like one that nobody takes, and
    /// would be run twice.
    pub(super) fn slowness(&self) -> Duration {
        let slowest = self.memory().ledger.slowest(Instant::now());
        let seen_within = (slowest * 2).clamp(SEEN_WITHIN, SEEN_WITHIN_AT_MOST);
        seen_within - SEEN_WITHIN
    }

    /// Leaves a job to Node workers for a moment: the one that takes it acknowledges it. Otherwise it
    /// is stored.
    fn wait_and_see(self: &Arc<Self>, heard: Heard, key: Uuid) {
        self.memory().ledger.decide(key, &heard.job, Fate::Left);
        let gateway = Arc::clone(self);
        self.tasks.spawn(async move {
            sleep(SEEN_WITHIN + gateway.slowness()).await;
            let decision = match gateway.decide(&heard.job).await {
                Decision::Leave => match heard.job.stop().map(Stop::address) {
                    Some(Ok(to)) if gateway.exposes(to.worker_type()) => Decision::Claim(to),
                    _ => Decision::Leave,
                },
                decision => decision,
            };
            // Nobody would hand over what a gateway stores that ends.
            if gateway.finishing.is_cancelled() || !gateway.memory().ledger.reopen(key) {
                return;
            }
            gateway.act(heard, key, decision).await;
        });
    }

    /// A job that was left to Node workers comes again, so none of them has taken it: they are gone,
    /// or each believes that it is another's turn. Whoever of them lives gets it by its id. It is not
    /// refused at once: one that is only slow would take it after all, and its sender would be
    /// answered twice.
    fn rescue(self: &Arc<Self>, heard: Heard, key: Uuid, times: u32) {
        let gateway = Arc::clone(self);
        self.tasks.spawn(async move {
            let job = &heard.job;
            let Some(Ok(to)) = job.stop().map(Stop::address) else {
                return;
            };
            let asked = Instant::now();
            gateway.call_all().await;
            sleep(PROBE).await;
            let silent = gateway.memory().roster.unheard_since(
                to.worker_type(),
                asked.checked_sub(SHORTEST_CALL).unwrap_or(asked),
            );
            for worker in silent {
                gateway.doubt(&worker).await;
            }
            if gateway.finishing.is_cancelled() || !gateway.memory().ledger.is_free(key) {
                return; // Somebody has taken it in the meantime, or will.
            }
            let decision = match gateway.decide(job).await {
                Decision::Leave if gateway.exposes(to.worker_type()) => Decision::Claim(to),
                Decision::Refuse(_) | Decision::Wait if times < REFUSE_AT => Decision::Leave,
                decision => decision,
            };
            if decision != Decision::Leave && gateway.memory().ledger.reopen(key) {
                gateway.act(heard, key, decision).await;
            }
        });
    }

    async fn decide(&self, job: &Job) -> Decision {
        let Some(stop) = job.stop() else {
            return Decision::Refuse(format!(
                "{NOBODY}: workers_list_id {} lies outside of workers_list",
                job.position
            ));
        };
        if let Some(hidden) = self.hidden_stop(job) {
            return Decision::Refuse(format!("{NOBODY}: {hidden} is not for peers"));
        }
        match stop.address() {
            Err(error) => Decision::Refuse(format!("{NOBODY}: {error}")),
            Ok(Address::One(id)) => self.decide_on_one(id),
            Ok(Address::Any(worker_type)) => {
                let is_bare = !stop.as_str().ends_with(":*");
                self.decide_on_any(worker_type, is_bare).await
            }
        }
    }

    /// A stop of the rest of the route that hosts serve, and not for peers: the job would be sent on to
    /// it.
    fn hidden_stop(&self, job: &Job) -> Option<WorkerType> {
        let rest = job.route.get(job.position..)?;
        let mut types = rest.iter().filter_map(|stop| {
            let address = stop.address().ok()?;
            Some(address.worker_type().clone())
        });
        let memory = self.memory();
        types.find(|worker_type| {
            !self.exposes(worker_type) && !memory.roster.ours(worker_type).is_empty()
        })
    }

    fn decide_on_one(&self, id: WorkerId) -> Decision {
        if id.worker_type().as_str() == SINK {
            return Decision::Drop;
        }
        let memory = self.memory();
        if memory.roster.has_node(&id) {
            Decision::Leave
        } else if !memory.roster.is_ours(&id) && self.is_new() {
            Decision::Wait
        } else if !memory.roster.is_ours(&id) || !self.exposes(id.worker_type()) {
            Decision::Refuse(NOBODY.to_owned())
        } else {
            Decision::Claim(Address::One(id))
        }
    }

    async fn decide_on_any(&self, worker_type: WorkerType, is_bare: bool) -> Decision {
        let is_exposed = self.exposes(&worker_type);
        let presence = if is_exposed {
            self.presence(&worker_type).await
        } else {
            Presence::No
        };
        if is_bare {
            self.warn_of_bare(&worker_type);
        }
        let memory = self.memory();
        let has_nodes = !memory.roster.nodes(&worker_type).is_empty();
        let pin = memory
            .pools
            .get(&worker_type)
            .and_then(|pool| pool.pin.as_ref());
        let is_pinned = pin.is_some_and(|pin| pin.state != PinState::Sent);
        let to = Address::Any(worker_type);
        match (presence, has_nodes) {
            // No Node worker takes `TYPE` without `:*`.
            (_, true) if is_exposed && (is_bare || is_pinned) => Decision::Claim(to),
            (_, true) if is_bare => Decision::Refuse(NOBODY.to_owned()),
            (_, true) => Decision::Leave,
            (Presence::Now, false) => Decision::Claim(to),
            (Presence::Lately, false) => Decision::Wait,
            // Busy Node workers answer the first call of a gateway late.
            (Presence::No, false) if self.is_new() => Decision::Wait,
            (Presence::No, false) => Decision::Refuse(NOBODY.to_owned()),
        }
    }

    fn is_new(&self) -> bool {
        self.since.elapsed() < SETTLING
    }

    fn warn_of_bare(&self, worker_type: &WorkerType) {
        if self.memory().is_first_bare(worker_type) {
            warn!(target: LOG, { "worker.type" = %worker_type }, "a peer sends to the type without `:*`: read as `TYPE:*`");
        }
    }

    async fn act(self: &Arc<Self>, heard: Heard, key: Uuid, decision: Decision) {
        match decision {
            Decision::Claim(to) => {
                // Bounded: what is heard waits until there is room.
                let Ok(place) = Arc::clone(&self.room).acquire_owned().await else {
                    return;
                };
                let gateway = Arc::clone(self);
                self.tasks.spawn(async move {
                    let claimed = gateway.claim(&heard, key, to).await;
                    drop(place);
                    if claimed.is_break() {
                        return;
                    }
                    gateway.try_again(heard, key).await;
                });
            }
            Decision::Wait => {
                // Before anything else is heard: the acknowledgement may be next.
                self.memory().ledger.decide(key, &heard.job, Fate::Awaited);
                let gateway = Arc::clone(self);
                self.tasks
                    .spawn(async move { gateway.try_again(heard, key).await });
            }
            decision => self.conclude(&heard, key, decision).await,
        }
    }

    /// Deals with a job that is not to be stored.
    async fn conclude(&self, heard: &Heard, key: Uuid, decision: Decision) {
        match decision {
            Decision::Leave => {
                self.memory().ledger.decide(key, &heard.job, Fate::Left);
                self.note_direct_answer(&heard.job);
            }
            Decision::Refuse(text) => self.refuse(&heard.job, key, text).await,
            Decision::Drop => {
                self.memory().ledger.decide(key, &heard.job, Fate::Claimed);
                self.acknowledge(&heard.job).await;
            }
            Decision::Claim(_) | Decision::Wait => {}
        }
    }

    /// Whoever is to take a job may come back, and a full queue may have room again. Its sender may not
    /// send it again: an acknowledgement of any other job with its id stops it. A Node worker of which
    /// nothing is known yet may take it meanwhile: an error would be the second answer.
    async fn try_again(self: &Arc<Self>, heard: Heard, key: Uuid) {
        let wait = || {
            let mut memory = self.memory();
            memory.ledger.decide(key, &heard.job, Fate::Awaited);
        };
        wait();
        let Ok(_patience) = self.patience.try_acquire() else {
            if self.memory().ledger.reopen(key) {
                let text = format!("{NOBODY}: too many jobs wait");
                self.refuse(&heard.job, key, text).await;
            }
            return;
        };
        while heard.at.elapsed() < TRIED_FOR {
            tokio::select! {
                () = self.over.cancelled() => return,
                () = self.stopping.cancelled() => return,
                () = sleep(TRY_AGAIN) => {}
            }
            let decision = self.decide(&heard.job).await;
            if !self.memory().ledger.is_free(key) {
                return self.note_direct_answer(&heard.job);
            }
            if decision == Decision::Wait || !self.memory().ledger.reopen(key) {
                continue;
            }
            match decision {
                Decision::Claim(to) => {
                    if self.claim(&heard, key, to).await.is_break() {
                        return;
                    }
                    wait();
                }
                decision => return self.conclude(&heard, key, decision).await,
            }
        }
        if self.memory().ledger.reopen(key) {
            let text = format!("{NOBODY}: its queue is full, or its workers are gone");
            self.refuse(&heard.job, key, text).await;
        }
    }

    /// A Node worker answers another one without us: what we might say to that one later would be
    /// the second answer.
    fn note_direct_answer(&self, job: &Job) {
        if let (Some(Ok(Address::One(id))), None, Some(request)) = (
            job.stop().map(Stop::address),
            job.next_stop(),
            self.request_of(job),
        ) {
            self.told()
                .tell(&id, &request, Answer::Result, Instant::now());
        }
    }

    /// Stores a job, and tells its sender. `Continue`: it could not be stored now.
    async fn claim(self: &Arc<Self>, heard: &Heard, key: Uuid, to: Address) -> ControlFlow<()> {
        let job = &heard.job;
        let waits = job.waits();
        let answerable: Vec<WorkerId> = {
            let memory = self.memory();
            let sender = job.sender.id.parse().ok();
            let ids = waits.iter().cloned().chain(sender);
            ids.filter(|id| !memory.roster.is_ours(id)).collect()
        };
        if let Err(failure) = self.make_reachable(&answerable).await {
            debug!(error = %failure, "a sender cannot be reached: its job is not taken yet");
            return ControlFlow::Continue(());
        }
        if self.memory().ledger.is_taken(key) {
            return ControlFlow::Break(());
        }
        let request = self.request_of(job);
        let reply_to = waits.filter(|_| request.is_some());
        let patience = u64::try_from(PEER_PATIENCE.as_millis()).unwrap_or(u64::MAX);
        let message = Message {
            correlation_id: request.clone(),
            deadline_ms: reply_to
                .as_ref()
                .map(|_| wire::now_ms().saturating_add(patience)),
            reply_to,
            from_peer: true,
            ..Message::new(key.to_string(), to, heard.encoding, heard.body.clone())
        };
        match self.store(&message).await {
            Ok(()) => {
                self.memory().ledger.decide(key, job, Fate::Claimed);
                self.count(PeerCount::Claimed);
                watch_over(&self.shared, &message);
                self.acknowledge(job).await;
            }
            Err(error @ (PublishError::Unroutable(_) | PublishError::TooLarge { .. })) => {
                self.refuse(job, key, format!("{NOBODY}: {error}")).await;
            }
            Err(error) => {
                debug!("job.id" = job.id, %error, "a job of a peer could not be stored yet");
                return ControlFlow::Continue(());
            }
        }
        ControlFlow::Break(())
    }

    /// Stores a message, on the connection of the lock.
    async fn store(&self, message: &Message) -> Result<(), PublishError> {
        let (size, limit) = (message.body.len(), self.shared.config.max_message_bytes);
        if size > limit {
            return Err(PublishError::TooLarge { size, limit });
        }
        let key = message.to.to_string();
        let mut properties = wire::properties(message)?;
        // With a copy, what has no queue of its own counts as routed: only where there surely is one.
        if let Address::Any(worker_type) = &message.to
            && self.make_known(worker_type).await.is_ok()
        {
            properties = wire::with_copy_to(properties, CLAIMED);
        }
        let parcel = Parcel {
            exchange: JOBS.into(),
            key: &key,
            body: &message.body,
            properties,
        };
        let sent = self.lanes.send(&self.connection, &parcel);
        match timeout(STORED_WITHIN, sent).await {
            Ok(Ok(confirmation)) => verdict(confirmation, &key),
            Ok(Err(failure)) if failure.is_mismatch() => Err(too_large(&failure, &parcel)),
            Ok(Err(failure)) if failure.is_not_found() => {
                self.shared.mend.notify_one();
                Err(PublishError::Unavailable(failure.to_string()))
            }
            Ok(Err(failure)) => Err(PublishError::Unavailable(failure.to_string())),
            Err(_) => Err(PublishError::Unavailable(
                "no answer from the broker".to_owned(),
            )),
        }
    }

    /// Tells a sender that its job is taken, as a Node worker does.
    async fn acknowledge(&self, job: &Job) {
        let is_exact = matches!(job.stop().map(Stop::address), Some(Ok(Address::One(_))));
        let mut job = job.clone();
        if job.next_stop().is_some() {
            job.position += 1;
        }
        let ack = Acknowledgement {
            job,
            ignore_update: is_exact,
        };
        self.say(topic::WORKER_NEXT_ACK, self.encoding().encode_ack(&ack))
            .await;
    }

    /// Tells a sender, and whoever waits at the end of the route, that nobody takes the job.
    async fn refuse(&self, job: &Job, key: Uuid, text: String) {
        self.memory().ledger.decide(key, job, Fate::Refused);
        self.count(PeerCount::NoWorker);
        debug!(target: LOG, { "job.id" = job.id, "job.sender" = job.sender.id, text }, "a peer's job is refused");
        let waits = job.waits().map(|id| id.to_string());
        let waits = waits.filter(|id| *id != job.sender.id);
        for target in [Some(job.sender.id.clone()), waits].into_iter().flatten() {
            self.say_error(target, &text, job).await;
        }
    }

    async fn say_error(&self, target: String, text: &str, job: &Job) {
        if let (Ok(id), Some(request)) = (target.parse::<WorkerId>(), self.request_of(job))
            && !self
                .told()
                .tell(&id, &request, Answer::Error, Instant::now())
        {
            return self.count(PeerCount::Withheld);
        }
        let error = JobError {
            target: ErrorTarget::Id(target),
            error: text.to_owned(),
            id: job.id.clone(),
            data: job.data.clone(),
            cause: None,
            ending: None,
        };
        self.say(topic::ERROR, self.encoding().encode_error(&error))
            .await;
    }

    /// The request that a job belongs to, as its data names it.
    pub(super) fn request_of(&self, job: &Job) -> Option<String> {
        job.data.text_field(&self.shared.config.peers.request_field)
    }
}
