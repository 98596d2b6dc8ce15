//! Handing one message to a Node worker: said by its exact id, again every two seconds, until it
//! acknowledges. Up to that moment the message is the broker's.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::seq::IndexedRandom;
use tokio::time::{sleep, sleep_until};
use tracing::debug;
use uuid::Uuid;
use warren_protocol::{Address, CallError, CodecError, Job, Stop, WorkerId, topic};

use super::{
    PeerCount,
    gateway::{Gateway, LOG},
    pending::{News, Waiting},
    pools::Presence,
    told::Answer,
};
use crate::{Delivery, Kind, Message, PEER_PATIENCE, rabbitmq::wire};

/// What MicroServices.js does with a job that nobody acknowledges.
const MOST_TRIES: u32 = 5;
const TRY_EVERY: Duration = Duration::from_secs(2);
/// An acknowledgement comes before the work begins, so a worker that needs longer is not well.
const DOUBT_AFTER: Duration = Duration::from_millis(800);
/// For which a Node worker that has said goodbye still takes jobs.
const AFTER_GOODBYE: Duration = Duration::from_millis(200);
/// After a manager has said that there is no such worker: the worker itself may know better.
const AFTER_REFUSAL: Duration = Duration::from_millis(250);

/// Between two looks at whether another copy of a message has been handed over.
const OTHER_COPY: Duration = Duration::from_millis(20);

pub(super) const NAMESPACE: Uuid = Uuid::from_u128(0x9be1_0d4e_2a6f_4c0b_b1f3_7a5d_90c2_44e8);

/// How handing over ended.
enum End {
    Taken,
    /// Nobody is there to be handed anything.
    Nobody,
    /// Nobody has acknowledged it, and this is all that was heard.
    Ignored(String),
    /// The delivery, or the gateway, is over.
    Over,
}

/// Deals with one message for Node workers. `consumed_for`: the worker for which it was taken off the
/// queue of its type.
pub(super) async fn hand_over(
    gateway: Arc<Gateway>,
    delivery: Delivery,
    consumed_for: Option<WorkerId>,
) {
    let message = &delivery.message;
    let id = wire_id(&message.id);
    let waiting = loop {
        match gateway.pending.begin(&id) {
            Some(waiting) => break waiting,
            None => tokio::select! {
                () = delivery.lost.cancelled() => return,
                () = gateway.over.cancelled() => return,
                () = sleep(OTHER_COPY) => {}
            },
        }
    };
    let was_taken = {
        let told = gateway.told();
        // Said by the gateway before this one, too.
        told.has_handed_over(&message.id) || told.is_acknowledged(&id)
    };
    if was_taken {
        debug!("job.id" = message.id, "a Node worker has had this message");
        gateway.count(PeerCount::Withheld);
        return gateway.ack(delivery).await;
    }
    match message.kind {
        Kind::Bundle => gateway.open_bundle(delivery).await,
        Kind::Error => gateway.pass_error(delivery).await,
        Kind::Job | Kind::Reply => match message.encoding.decode_job(&message.body) {
            // A stop that is not there ends the connection of every Node worker that looks for it.
            Ok(job) if job.stop().is_none() => {
                let text = format!("there is no stop {} in its route", job.position);
                gateway.bury(delivery, "decode", text).await;
            }
            Ok(job) => gateway.pass_job(delivery, job, waiting, consumed_for).await,
            Err(error) => {
                let text = format!("the envelope cannot be read: {error}");
                gateway.bury(delivery, "decode", text).await;
            }
        },
    }
}

impl Gateway {
    async fn pass_job(
        self: &Arc<Self>,
        delivery: Delivery,
        job: Job,
        mut waiting: Waiting<'_>,
        consumed_for: Option<WorkerId>,
    ) {
        let message = &delivery.message;
        let is_late = message.deadline_ms.is_some_and(|at| at <= wire::now_ms());
        if is_late && let Some(caller) = message.reply_to.clone() {
            // A host does not wait any more; a Node worker does.
            if message.from_peer && !self.tell(message, &caller, too_late(message)).await {
                return;
            }
            return self.ack(delivery).await;
        }
        if is_late {
            let text = "its deadline had passed".to_owned();
            return self.bury(delivery, "expired", text).await;
        }
        let prepared = match self.prepare(message, job) {
            Ok(prepared) => prepared,
            Err(error) => return self.give_up(delivery, "permanent", error.to_string()).await,
        };
        let answer = self.answer_of(message, &prepared);
        if let Some((who, request)) = &answer
            && !self
                .told()
                .tell(who, request, Answer::Result, Instant::now())
        {
            debug!(target: LOG, { "job.id" = message.id }, "a peer that was told of an error gets no result");
            self.count(PeerCount::Withheld);
            return self.ack(delivery).await;
        }
        let end = tokio::select! {
            () = delivery.lost.cancelled() => End::Over,
            () = self.over.cancelled() => End::Over,
            end = self.say_until_taken(message, prepared, &mut waiting, consumed_for) => end,
        };
        match end {
            End::Taken => {
                self.count(PeerCount::HandedOver);
                self.told().handed_over(&message.id, Instant::now());
                self.ack(delivery).await;
            }
            End::Nobody => match message.to {
                Address::Any(_) => self.put_back(delivery).await,
                Address::One(_) => {
                    let text = format!("{} is not here any more", message.to);
                    self.give_up(delivery, "unrouted", text).await;
                }
            },
            // Those that it was said to are gone: hosts take it.
            End::Ignored(_) if self.is_for_hosts(&message.to).await => {
                // Heard while that was looked at.
                if !self.told().is_acknowledged(&wire_id(&message.id)) {
                    return self.put_back(delivery).await;
                }
                self.count(PeerCount::HandedOver);
                self.told().handed_over(&message.id, Instant::now());
                self.ack(delivery).await;
            }
            End::Ignored(text) => {
                if let Address::One(id) = &message.to
                    && !self.memory().roster.has_node(id)
                {
                    // Left over from a time without a gateway.
                    self.make_unreachable(id).await;
                }
                self.try_later(delivery, text).await;
            }
            // Dropped: it goes back to the queue.
            End::Over => {}
        }
    }

    /// The job as a Node worker is to hear it; its stop is still to be made exact.
    ///
    /// # Errors
    /// When the data has no form in which its answer could be known again.
    fn prepare(&self, message: &Message, mut job: Job) -> Result<Job, CodecError> {
        job.id = wire_id(&message.id);
        let field = &self.shared.config.peers.request_field;
        if let Some(id) = &message.correlation_id
            && job.data.text_field(field).is_none()
        {
            let is_answer = self.is_answer(message);
            // Whoever waits needs an object, in which its request is named.
            let data = if is_answer && !job.data.is_object() {
                job.data.wrapped("content")?
            } else {
                job.data.clone()
            };
            job.data = data.with_text_field(field, id)?;
        }
        // All of them read it, not only the one that it is for.
        if let Some(what) = job.data.to(self.encoding())?.hazard_for_node() {
            return Err(CodecError::Inexpressible {
                encoding: self.encoding(),
                what: format!("{what} to a Node worker").into(),
            });
        }
        // A worker that always forwards would send its result to itself at the end of the route.
        let waits = message.reply_to.clone().map(Address::One);
        if waits.as_ref() != Some(&message.to) {
            let end = waits.map_or_else(|| Stop::new(self.sink.as_str()), |one| Stop::from(&one));
            let has_end = job.next_stop().is_some() && job.route.last() == Some(&end);
            if job.next_stop().is_none() || (message.reply_to.is_some() && !has_end) {
                job.route.push(end);
            }
        }
        Ok(job)
    }

    /// Whether a message is what its receiver waits for.
    pub(super) fn is_answer(&self, message: &Message) -> bool {
        let waits = message.reply_to.clone().map(Address::One);
        message.kind == Kind::Reply || waits.as_ref() == Some(&message.to)
    }

    /// Who is answered by a job, and which request.
    fn answer_of(&self, message: &Message, job: &Job) -> Option<(WorkerId, String)> {
        match &message.to {
            Address::One(id) if self.is_answer(message) || job.next_stop().is_none() => {
                Some((id.clone(), self.request_of(job)?))
            }
            _ => None,
        }
    }

    async fn say_until_taken(
        self: &Arc<Self>,
        message: &Message,
        mut job: Job,
        waiting: &mut Waiting<'_>,
        consumed_for: Option<WorkerId>,
    ) -> End {
        let mut heard = format!("no Node worker has acknowledged it in {MOST_TRIES} tries");
        let mut last = None;
        for n_tries in 0..MOST_TRIES {
            if n_tries > 0 && self.is_answer(message) && !self.lives(&message.to) {
                return End::Ignored(heard);
            }
            let Some(worker) = self.choose(&message.to, consumed_for.as_ref(), last.as_ref())
            else {
                return if n_tries == 0 {
                    End::Nobody
                } else {
                    End::Ignored(heard)
                };
            };
            if let Some(stop) = job.route.get_mut(job.position) {
                *stop = Stop::new(worker.as_str());
            }
            if n_tries > 0 {
                self.count(PeerCount::Repeated);
            }
            self.told().said(&job.id, Instant::now());
            if !self
                .say(topic::WORKER_NEXT, self.encoding().encode_job(&job))
                .await
            {
                return if self.over.is_cancelled() {
                    End::Over
                } else {
                    End::Ignored(format!("{} cannot say it", self.encoding()))
                };
            }
            let said = tokio::time::Instant::now();
            let (mut until, mut doubt) = (said + TRY_EVERY, Some(said + DOUBT_AFTER));
            loop {
                tokio::select! {
                    news = waiting.news.recv() => match news {
                        Some(News::Taken) => {
                            self.memory().ledger.needed(said.elapsed(), Instant::now());
                            return End::Taken;
                        }
                        Some(News::Refused(text)) => {
                            heard = format!("{worker}: {text}");
                            until = until.min(tokio::time::Instant::now() + AFTER_REFUSAL);
                        }
                        None => return End::Over,
                    },
                    () = sleep_until(doubt.unwrap_or(until)), if doubt.is_some_and(|at| at < until) => {
                        doubt = None;
                        let was_known = matches!(message.to, Address::Any(_));
                        if was_known && !self.memory().roster.knows(&worker) {
                            // It has said goodbye, and takes nothing more soon.
                            let soon = AFTER_GOODBYE + self.slowness();
                            until = until.min(tokio::time::Instant::now() + soon);
                        }
                        self.doubt(&worker).await;
                    }
                    () = sleep_until(until) => break,
                }
            }
            self.doubt(&worker).await;
            last = Some(worker);
        }
        End::Ignored(heard)
    }

    /// Whether a Node worker is there, as far as is known.
    fn lives(&self, to: &Address) -> bool {
        match to {
            Address::One(id) => self.memory().roster.nodes(id.worker_type()).contains(id),
            Address::Any(_) => true,
        }
    }

    /// Whether hosts serve a type, and no Node worker that lives. Both are looked at: the broker counts a
    /// Node worker's consumer for a moment after it was cancelled, and a host that was killed is missed late.
    async fn is_for_hosts(self: &Arc<Self>, to: &Address) -> bool {
        let Address::Any(worker_type) = to else {
            return false;
        };
        {
            let roster = &self.memory().roster;
            if roster.ours(worker_type).is_empty() || !roster.nodes(worker_type).is_empty() {
                return false;
            }
        }
        self.presence(worker_type).await != Presence::No
    }

    /// The worker to hand a message to: the one that it was consumed for, then any other that lives.
    fn choose(
        &self,
        to: &Address,
        consumed_for: Option<&WorkerId>,
        last: Option<&WorkerId>,
    ) -> Option<WorkerId> {
        let memory = self.memory();
        match to {
            // One that has never announced itself may still hear.
            Address::One(id) => Some(id.clone()),
            Address::Any(worker_type) => {
                let mut living = memory.roster.nodes(worker_type);
                if let Some(first) = consumed_for.filter(|id| last.is_none() && living.contains(id))
                {
                    return Some(first.clone());
                }
                if living.len() > 1 {
                    living.retain(|id| Some(id) != last);
                }
                living.choose(&mut rand::rng()).cloned()
            }
        }
    }
}

fn too_late(message: &Message) -> CallError {
    CallError::Timeout {
        address: message.to.to_string(),
        after_ms: u64::try_from(PEER_PATIENCE.as_millis()).unwrap_or(u64::MAX),
    }
}

/// The id under which a message is said: `J` and 13 digits, as a Node worker writes them, and the same
/// on every gateway, so that an acknowledgement is understood after a change.
fn wire_id(message_id: &str) -> String {
    const IDS: u128 = 10_000_000_000_000;
    let hash = Uuid::new_v5(&NAMESPACE, message_id.as_bytes()).as_u128();
    format!("J{:013}", hash % IDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_one_id_on_the_wire() {
        let id = wire_id("m1");
        assert_eq!(id, wire_id("m1"));
        assert_ne!(id, wire_id("m2"));
        assert!(id.len() == 14 && id[1..].bytes().all(|b| b.is_ascii_digit()));
    }
}
