//! What the gateway hears: every message of the peers, one after the other. What cannot be read costs
//! itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Consumer,
    message::Delivery as Arrived,
    options::{BasicAckOptions, BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tracing::{debug, info, warn};
use uuid::Uuid;
use warren_protocol::{
    Acknowledgement, Address, CodecError, Encoding, Identity, Job, JobError, ListEntry, Stop,
    WorkerId, topic,
};

use super::{
    PeerCount,
    claim::Heard,
    gateway::{Gateway, LOG, SINK},
    pin::State as PinState,
    roster::{Change, is_a_time},
    told::Answer,
    voice,
};
use crate::rabbitmq::{
    bounded::{Failure, STEP_TIMEOUT, WRITE_TIMEOUT, within},
    names::POLLING,
    topology,
};

/// Each Node worker has a channel of its own, of which a connection has 2047.
const MOST_WORKERS: usize = 1500;
/// Each type has queues of its own.
pub(super) const MOST_TYPES: usize = 300;
/// Jobs that are kept until it is known who is there.
const MOST_EARLY: usize = 10_000;
/// What a peer may call itself, a job or a request, in bytes: such texts are kept for a while.
const LONGEST_NAME: usize = 255;
/// A route of more stops is no route.
const MOST_STOPS: usize = 64;
/// How many workers of the list are shown in the log.
const MOST_SHOWN: usize = 100;

/// What settling a message takes at most, once its acknowledgement is heard.
const HELD: Duration = Duration::from_millis(500);

/// Hears what is said until the connection ends.
pub(super) async fn hear(gateway: Arc<Gateway>, mut said: Consumer) {
    let _over = gateway.over.clone().drop_guard();
    while let Some(arrived) = said.next().await {
        let arrived = match arrived {
            Ok(arrived) => arrived,
            Err(error) => {
                debug!(%error, "the gateway hears nothing any more");
                return;
            }
        };
        // Receipt, as everybody on these exchanges acknowledges.
        let acked = arrived.acker.ack(BasicAckOptions::default());
        if within(WRITE_TIMEOUT, "acknowledge", acked).await.is_err() {
            return;
        }
        gateway.take(arrived).await;
    }
}

/// Hears what Node workers acknowledge. Each acknowledgement is held until the message that it is
/// about has been settled: if this gateway dies in between, the next one reads it.
pub(super) async fn hear_acks(gateway: Arc<Gateway>, mut acks: Consumer) {
    let _over = gateway.over.clone().drop_guard();
    while let Some(Ok(arrived)) = acks.next().await {
        if !voice::is_ours(&arrived.properties)
            && let Ok((_, ack)) = gateway.encoding().read_ack(&Bytes::from(arrived.data))
            && ack.ignore_update
            && is_wire_id(&ack.job.id)
        {
            let request = gateway.request_of(&ack.job);
            let mut told = gateway.told();
            if !gateway.learned.is_cancelled() {
                // Said by the gateway before this one.
                told.said(&ack.job.id, Instant::now());
                if let (Some(Ok(Address::One(who))), None, Some(request)) = (
                    ack.job.stop().map(Stop::address),
                    ack.job.next_stop(),
                    request,
                )
                // An acknowledgement is one stop further: this may be the question of who waits at the end.
                && who.as_str() != ack.job.sender.id
                {
                    told.tell(&who, &request, Answer::Result, Instant::now());
                }
            }
            told.acknowledged(&ack.job.id);
            drop(told);
            gateway.pending.taken(&ack.job.id);
        }
        let over = gateway.over.clone();
        // Not among the tasks that a stop waits for: what it does not come to, the next one does.
        tokio::spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = tokio::time::sleep(HELD) => {
                    let acked = arrived.acker.ack(BasicAckOptions::default());
                    let _ = within(WRITE_TIMEOUT, "acknowledge", acked).await;
                }
            }
        });
    }
}

/// Reads what the gateway before has stored for Node senders. Nothing is taken: the channel's end gives
/// it back.
pub(super) async fn read_claims(gateway: Arc<Gateway>, channel: Channel, mut claims: Consumer) {
    loop {
        let next = tokio::select! {
            () = gateway.learned.cancelled() => break,
            () = gateway.over.cancelled() => break,
            next = claims.next() => next,
        };
        let Some(Ok(arrived)) = next else { break };
        let id = arrived.properties.message_id().as_ref();
        if let Some(Ok(key)) = id.map(|id| Uuid::parse_str(id.as_str())) {
            gateway.memory().ledger.remember(key, Instant::now());
        }
        // What was asked then may be answered now: once.
        if let Ok((_, job)) = gateway.encoding().read_job(&Bytes::from(arrived.data))
            && let (Some(request), Ok(sender)) = (gateway.request_of(&job), job.sender.id.parse())
        {
            gateway.told().asked(&sender, &request, Instant::now());
        }
    }
    topology::close(&channel).await;
}

/// `J` and 13 digits: what a gateway says.
fn is_wire_id(id: &str) -> bool {
    let digits = id.strip_prefix('J');
    digits.is_some_and(|digits| digits.len() == 13 && digits.bytes().all(|b| b.is_ascii_digit()))
}

impl Gateway {
    /// A worker has announced itself.
    async fn arrived(self: &Arc<Self>, identity: &Identity, is_ours: bool, is_newcomer: bool) {
        self.count(PeerCount::Registrations);
        let Ok(id) = identity.id.parse::<WorkerId>() else {
            return self.note_malformed(
                "an announcement of a worker whose id is not `TYPE:` and 13 digits",
            );
        };
        if id.worker_type().as_str() == SINK {
            return;
        }
        // An id of the one kind for a worker of the other would lead its jobs astray.
        if is_ours == is_a_time(&id) {
            return self.note_malformed("an announcement whose id is not of its sender's kind");
        }
        if !self.has_room_for(&id) {
            return self.note_malformed("more workers, or types, than a gateway looks after");
        }
        if !is_ours {
            // Before anybody counts on it: a job for a type without a queue is refused.
            let (by_id, by_type) = (
                self.make_reachable(std::slice::from_ref(&id)).await,
                if self.exposes(id.worker_type()) {
                    self.make_known(id.worker_type()).await
                } else {
                    Ok(())
                },
            );
            for failure in [by_id, by_type].into_iter().filter_map(Result::err) {
                debug!("worker.id" = %id, error = %failure, "a Node worker cannot be reached");
            }
        }
        let change = self.memory().roster.heard(&id, is_ours, Instant::now());
        if is_ours {
            self.look_again(id.worker_type());
        }
        // Without pins Node workers go on taking what they can, whichever hosts come and go.
        let may_change = !is_ours || self.can_pin();
        if may_change && (change == Change::Arrived || (is_newcomer && !is_ours)) {
            self.note_change(id.worker_type());
        }
        if change == Change::Arrived {
            info!(target: LOG, { "worker.id" = %id, is_ours }, "a worker is there");
        }
        // Whoever announces itself could take the jobs of a type that is not for peers.
        if !is_ours && self.exposes(id.worker_type()) {
            self.serve(&id);
        }
        if change != Change::None || is_newcomer {
            self.tend_pool(id.worker_type(), is_newcomer && !is_ours)
                .await;
            self.show();
        }
    }

    /// A hostile peer announces workers without end.
    fn has_room_for(&self, id: &WorkerId) -> bool {
        let memory = self.memory();
        let is_known = memory.roster.knows(id);
        let has_type = memory.pools.contains_key(id.worker_type());
        is_known
            || (memory.roster.len() < MOST_WORKERS && (has_type || memory.pools.len() < MOST_TYPES))
    }

    /// A worker has said goodbye.
    async fn departed(self: &Arc<Self>, id: &WorkerId) {
        let (was_known, was_ours) = {
            let mut memory = self.memory();
            let was_ours = memory.roster.is_ours(id);
            (memory.roster.left(id), was_ours)
        };
        if was_known {
            self.gone(id, was_ours).await;
        }
    }

    /// A worker is not on the roster any more.
    async fn gone(self: &Arc<Self>, id: &WorkerId, was_ours: bool) {
        info!(target: LOG, { "worker.id" = %id }, "a worker is gone");
        if !was_ours || self.can_pin() {
            self.note_change(id.worker_type());
        }
        if !was_ours {
            self.stop_serving(id);
            self.make_unreachable(id).await;
        }
        self.tend_pool(id.worker_type(), false).await;
        self.show();
    }

    pub(super) fn note_malformed(&self, what: &str) {
        self.count(PeerCount::Malformed);
        // Once for each kind: whoever sends one sends thousands.
        if self.memory().malformed.insert(what.to_owned()) {
            warn!(target: LOG, what, "a message of a peer cannot be read and is dropped; further ones are only counted");
        }
    }

    fn read<T>(&self, key: &str, read: Result<(Encoding, T), CodecError>) -> Option<T> {
        match read {
            Ok((_, value)) => Some(value),
            Err(error) => {
                debug!(key, %error, "a message of a peer cannot be read");
                self.note_malformed(key);
                None
            }
        }
    }

    async fn take(self: &Arc<Self>, arrived: Arrived) {
        let is_ours = voice::is_ours(&arrived.properties);
        let body = Bytes::from(arrived.data);
        let encoding = self.encoding();
        let key = arrived.routing_key.as_str();
        if arrived.exchange.as_str() == POLLING {
            return self.answer_poll(&arrived.properties).await;
        }
        match key {
            topic::WORKER_GET_ALL if is_ours => self.called().await,
            topic::WORKER_NEW_SEND | topic::WORKER_NEW_RESEND => {
                if let Some(identity) = self.read(key, encoding.read_identity(&body)) {
                    let is_newcomer = key == topic::WORKER_NEW_SEND;
                    self.arrived(&identity, is_ours, is_newcomer).await;
                }
            }
            topic::WORKER_DEL => {
                if let Some(identity) = self.read(key, encoding.read_identity(&body)) {
                    self.goodbye(&identity, is_ours).await;
                }
            }
            topic::WORKER_LIST if !is_ours => {
                let list = self.read(key, encoding.read_worker_list(&body));
                let first = list.and_then(|list| list.into_iter().next());
                if let Some(Ok(id)) = first.map(|entry| entry.worker.id.parse::<WorkerId>()) {
                    // Who replaces the list of a pool has undone its pin.
                    self.tend_pool(id.worker_type(), true).await;
                }
            }
            topic::WORKER_NEXT if !is_ours => {
                self.count(PeerCount::JobRequests);
                match encoding.read_job(&body) {
                    Ok((encoding, job)) => {
                        self.hear_job(Heard {
                            encoding,
                            job,
                            body,
                            at: Instant::now(),
                        })
                        .await
                    }
                    Err(error) => {
                        debug!(key, %error, "a message of a peer cannot be read");
                        self.note_malformed(key);
                    }
                }
            }
            topic::WORKER_NEXT_ACK if !is_ours => {
                if let Some(ack) = self.read::<Acknowledgement>(key, encoding.read_ack(&body)) {
                    self.acknowledged(&ack.job);
                }
            }
            topic::ERROR if !is_ours => {
                if let Some(error) = self.read::<JobError>(key, encoding.read_error(&body)) {
                    self.pending.refused(&error.id, &error.error);
                }
            }
            _ => {}
        }
    }

    fn acknowledged(&self, job: &Job) {
        let request = self.request_of(job);
        let mut memory = self.memory();
        memory.ledger.taken(job, request.as_deref(), Instant::now());
        if let Some(early) = &mut memory.early {
            early.retain(|heard| heard.job.id != job.id || heard.job.sender.id != job.sender.id);
        }
    }

    async fn hear_job(self: &Arc<Self>, heard: Heard) {
        let job = &heard.job;
        let request = self.request_of(job).unwrap_or_default();
        let names = [&job.id, &job.sender.id, &request];
        if names.iter().any(|name| name.len() > LONGEST_NAME) || job.route.len() > MOST_STOPS {
            return self
                .note_malformed("a job with a name of more than 255 bytes, or more than 64 stops");
        }
        if self.stopping.is_cancelled() {
            return; // The next gateway gets it when it is sent again.
        }
        {
            let mut memory = self.memory();
            if memory.is_stale {
                return;
            }
            if let Some(early) = &mut memory.early {
                if early.len() < MOST_EARLY {
                    early.push(heard);
                }
                return;
            }
        }
        self.consider(heard).await;
    }

    /// Our own call has come back: everything before it has been heard.
    async fn called(self: &Arc<Self>) {
        let gone = {
            let mut memory = self.memory();
            memory.is_stale = false;
            let keepalive = self.shared.config.peers.keepalive;
            memory.roster.called(Instant::now(), keepalive)
        };
        for (id, was_ours) in gone {
            self.gone(&id, was_ours).await;
            if was_ours {
                // Its host was killed. Managers only learn of those that say goodbye.
                self.remove(&id).await;
            }
        }
    }

    async fn goodbye(self: &Arc<Self>, identity: &Identity, is_ours: bool) {
        self.count(PeerCount::Deletions);
        let Ok(id) = identity.id.parse::<WorkerId>() else {
            return;
        };
        if is_ours && self.removed(&id) {
            return;
        }
        self.departed(&id).await;
    }

    /// The removal that is part of a pin has come back: the Node workers have it too. `false`: the id is
    /// no pin's.
    fn removed(&self, id: &WorkerId) -> bool {
        let before = {
            let mut memory = self.memory();
            let Some(pool) = memory.pools.get_mut(id.worker_type()) else {
                return false;
            };
            let Some(pin) = pool.pin.as_mut().filter(|pin| pin.third == *id) else {
                return false;
            };
            let before = pin.state;
            match before {
                PinState::Sent | PinState::Heard => pin.state = PinState::Heard,
                PinState::Releasing => pool.pin = None,
            }
            before
        };
        if before == PinState::Sent {
            self.note_change(id.worker_type());
        }
        true
    }

    /// Somebody asks for the list of workers: into the log, as the manager does, and where an answer
    /// is asked for, to that queue.
    async fn answer_poll(self: &Arc<Self>, properties: &BasicProperties) {
        self.count(PeerCount::ListRequests);
        let list: Vec<ListEntry> = {
            let memory = self.memory();
            let all = memory.roster.all();
            all.map(|(id, _, _)| ListEntry {
                worker: Identity::from(id),
                is_next: false,
            })
            .collect()
        };
        let shown: Vec<_> = list.iter().map(|entry| entry.worker.id.as_str()).collect();
        let shown = shown.get(..MOST_SHOWN.min(shown.len())).unwrap_or_default();
        info!(target: LOG, n_workers = list.len(), workers = shown.join(" "), "the list of workers was asked for");
        let reply_to = properties.reply_to().as_ref().map(|name| name.as_str());
        let Some(reply_to) = reply_to else { return };
        // Queues that the broker has named belong to whoever asks; through the default exchange any other
        // queue could be written to.
        if !reply_to.starts_with("amq.gen-") && !reply_to.starts_with("amq.rabbitmq.reply-to") {
            return warn!(target: LOG, reply_to, "the list of workers is sent only to queues that the broker has named");
        }
        // JSON in every encoding: BSON has no arrays at the top of a message.
        let Ok(body) = Encoding::Json.encode_worker_list(&list) else {
            return;
        };
        let mut answer = voice::properties().with_content_type("application/json".into());
        if let Some(id) = properties.correlation_id() {
            answer = answer.with_correlation_id(id.clone());
        }
        let (gateway, reply_to) = (Arc::clone(self), ShortString::from(reply_to));
        self.tasks.spawn(async move {
            if let Err(failure) = gateway.send_list(reply_to, &body, answer).await {
                warn!(target: LOG, error = %failure, "the list of workers could not be sent: its receiver is reached through the default exchange, to which this user must be allowed to write");
            }
        });
    }

    /// On a channel of its own, confirmed: a user that may not write to the default exchange loses it.
    async fn send_list(
        &self,
        reply_to: ShortString,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), Failure> {
        let opened = self.connection.create_channel();
        let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        within(STEP_TIMEOUT, "ask for confirms", confirms).await?;
        let options = BasicPublishOptions::default();
        let sent = async {
            let sent = channel.basic_publish("".into(), reply_to, options, body, properties);
            sent.await?.await
        };
        within(STEP_TIMEOUT, "answer with the list of workers", sent).await?;
        topology::close(&channel).await;
        Ok(())
    }
}
