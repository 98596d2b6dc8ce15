//! What becomes of a message that no Node worker takes, and of those that are not jobs.

use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::time::sleep;
use tracing::{debug, warn};
use uuid::Uuid;
use warren_protocol::{
    Address, CallError, Encoding, ErrorTarget, JobError, Payload, WorkerId, topic,
};

use super::{
    PeerCount,
    gateway::{Gateway, LOG},
    hand_over::NAMESPACE,
    patience::watch_over,
    told::Answer,
};
use crate::{
    Delivery, Epitaph, Kind, Message, PublishError,
    rabbitmq::{delay, publish, wire},
};

/// What a job that no Node worker takes may go through, as for workers of hosts.
const MOST_ATTEMPTS: u32 = 5;
const FIRST_BACKOFF: Duration = Duration::from_secs(2);
/// Between two tries to store something.
const STORE_AGAIN: Duration = Duration::from_millis(200);
const WAIT_FOR_ROOM: Duration = Duration::from_secs(5);

impl Gateway {
    /// Nobody took it: later again, a few times, as a job that has failed.
    pub(super) async fn try_later(&self, delivery: Delivery, text: String) {
        let message = &delivery.message;
        if self.is_answer(message) {
            debug!(target: LOG, { "job.id" = message.id, to = %message.to, text }, "an answer has found nobody");
            return self.ack(delivery).await;
        }
        if message.reply_to.is_some() || message.attempt >= MOST_ATTEMPTS {
            return self.give_up(delivery, "max_attempts", text).await;
        }
        let doublings = message.attempt.saturating_sub(1).min(10);
        let wait = FIRST_BACKOFF * 2u32.pow(doublings);
        let wait = wait.mul_f64(rand::rng().random_range(0.8..1.2));
        let until_ms = wire::now_ms().saturating_add(wait.as_millis() as u64);
        let mut again = message.clone();
        again.attempt = again.attempt.saturating_add(1);
        match delay::park(&self.shared, &again, until_ms).await {
            Ok(()) => self.ack(delivery).await,
            Err(error) => debug!(%error, "a job goes back to its queue"),
        }
    }

    /// A job that ends here: whoever waits for its answer is told, otherwise it is kept among the dead
    /// letters. Whoever waits at a Node worker is told in any case.
    pub(super) async fn give_up(&self, delivery: Delivery, reason: &'static str, text: String) {
        let message = &delivery.message;
        if self.is_answer(message) {
            debug!(target: LOG, { "job.id" = message.id, to = %message.to, text }, "an answer has found nobody");
            return self.ack(delivery).await;
        }
        warn!(target: LOG, { "job.id" = message.id, to = %message.to, reason, text }, "a job for Node workers is given up");
        let Some(caller) = message.reply_to.clone() else {
            return self.bury(delivery, reason, text).await;
        };
        let address = message.to.to_string();
        let cause = if reason == "permanent" {
            CallError::Invalid {
                reason: format!(
                    "a Node worker at {address} cannot answer this call: its data must be an object that such a worker can read ({text})"
                ),
            }
        } else {
            CallError::NoLiveWorker { address }
        };
        if self.tell(message, &caller, cause).await {
            self.ack(delivery).await;
        }
    }

    /// Tells whoever waits for a message's answer that there is none.
    pub(super) async fn tell(
        &self,
        message: &Message,
        caller: &WorkerId,
        cause: CallError,
    ) -> bool {
        match news(self.encoding(), message, caller, cause) {
            Some(news) => self.forward(news).await,
            None => true,
        }
    }

    /// Sends a message to its address, however long it takes. `false`: the gateway is over. What has
    /// no receiver is told to whoever waits for it, or buried.
    async fn forward(&self, message: Message) -> bool {
        loop {
            let error = match publish::publish(&self.shared, &message).await {
                Ok(()) => {
                    watch_over(&self.shared, &message);
                    return true;
                }
                Err(error) => error,
            };
            let stored = match &error {
                PublishError::Unavailable(_) => Err(error),
                PublishError::QueueFull(_) => {
                    let until_ms = wire::now_ms().saturating_add(WAIT_FOR_ROOM.as_millis() as u64);
                    delay::park(&self.shared, &message, until_ms).await
                }
                PublishError::Unroutable(_) | PublishError::TooLarge { .. } => {
                    if !message.kind.is_durable() {
                        return true; // Nobody waits any more.
                    }
                    if let Some(caller) = message.reply_to.clone() {
                        let address = message.to.to_string();
                        let cause = CallError::NoLiveWorker { address };
                        return Box::pin(self.tell(&message, &caller, cause)).await;
                    }
                    let epitaph = self.epitaph("unrouted", error.to_string());
                    publish::bury(&self.shared, &message, &epitaph).await
                }
            };
            match stored {
                Ok(()) => return true,
                Err(_) if self.over.is_cancelled() => return false,
                Err(_) => sleep(STORE_AGAIN).await,
            }
        }
    }

    /// Sends the parts of a bundle on, for a type whose hosts have gone.
    pub(super) async fn open_bundle(&self, delivery: Delivery) {
        let parts = match delivery.message.unbundle() {
            Ok(parts) => parts,
            Err(error) => return self.bury(delivery, "decode", error.to_string()).await,
        };
        for part in parts {
            if delivery.lost.is_cancelled() || !self.forward(part).await {
                return;
            }
        }
        self.ack(delivery).await;
    }

    /// Tells a Node worker that its job has failed.
    pub(super) async fn pass_error(&self, delivery: Delivery) {
        let message = &delivery.message;
        let (Address::One(target), Ok(mut error)) =
            (&message.to, message.encoding.decode_error(&message.body))
        else {
            return self.ack(delivery).await;
        };
        error.target = ErrorTarget::Id(target.to_string());
        let field = &self.shared.config.peers.request_field;
        let request = error
            .data
            .text_field(field)
            .or(message.correlation_id.clone());
        if let Some(request) = &request {
            // The gateway before may have passed the answer on: whoever says that nobody is there looked
            // at a queue, not at this request.
            let is_before = message.first_ms.is_some_and(|at| at < self.since_ms);
            let is_guess = matches!(error.cause, Some(CallError::NoLiveWorker { .. }));
            if is_before && is_guess && !self.told().has_asked(target, request) {
                self.count(PeerCount::Withheld);
                return self.ack(delivery).await;
            }
            if !self
                .told()
                .tell(target, request, Answer::Error, Instant::now())
            {
                self.count(PeerCount::Withheld);
                return self.ack(delivery).await;
            }
            // A Node worker that finds no request in an error loses its connection.
            let named = if error.data.is_object() {
                error.data.with_text_field(field, request)
            } else {
                error
                    .data
                    .wrapped("content")
                    .and_then(|data| data.with_text_field(field, request))
            };
            if let Ok(named) = named {
                error.data = named;
            }
        }
        if self
            .say(topic::ERROR, self.encoding().encode_error(&error))
            .await
            || !self.over.is_cancelled()
        {
            self.ack(delivery).await;
        }
    }

    /// Puts a job among the dead letters, and tells the Node worker that waits for it.
    pub(super) async fn bury(&self, delivery: Delivery, reason: &'static str, text: String) {
        let message = &delivery.message;
        let epitaph = self.epitaph(reason, text);
        while let Err(error) = publish::bury(&self.shared, message, &epitaph).await {
            debug!(%error, "a dead letter could not be stored yet");
            tokio::select! {
                () = delivery.lost.cancelled() => return,
                () = self.over.cancelled() => return,
                () = sleep(STORE_AGAIN) => {}
            }
        }
        if message.from_peer
            && let Ok(job) = message.encoding.decode_job(&message.body)
            && let Some(waits) = job.waits()
        {
            let cause = CallError::Failed {
                worker: message.to.worker_type().to_string(),
                attempts: message.attempt,
                reason: epitaph.error,
            };
            self.tell(message, &waits, cause).await;
        }
        self.ack(delivery).await;
    }

    fn epitaph(&self, reason: &'static str, error: String) -> Epitaph {
        Epitaph {
            reason,
            error,
            plugin: None,
            stack: None,
            host: self.shared.host.as_str().to_owned(),
        }
    }

    pub(super) async fn ack(&self, delivery: Delivery) {
        let id = delivery.message.id.clone();
        if delivery.ack().await.is_err() {
            debug!(
                "job.id" = id,
                "a message may be handed to a Node worker again"
            );
        }
    }

    /// Gives a job to whoever serves its type.
    pub(super) async fn put_back(&self, delivery: Delivery) {
        let sent = tokio::select! {
            () = delivery.lost.cancelled() => return,
            sent = publish::forward(&self.shared, &delivery.message) => sent,
        };
        match sent {
            Ok(()) => self.ack(delivery).await,
            Err(_) => delivery.give_back(),
        }
    }
}

/// The news for whoever waits for a message's answer that there is none.
pub(super) fn news(
    encoding: Encoding,
    message: &Message,
    caller: &WorkerId,
    cause: CallError,
) -> Option<Message> {
    let (id, data) = match message.encoding.decode_job(&message.body) {
        Ok(job) => (job.id, job.data),
        Err(_) => (message.id.clone(), Payload::null(encoding)),
    };
    let mut error = JobError {
        target: ErrorTarget::Id(caller.to_string()),
        error: cause.to_string(),
        id: id.clone(),
        data,
        cause: Some(cause),
        ending: None,
    };
    let body = encoding.encode_error(&error).or_else(|_| {
        // The encoding has no form for what the job carried; the news must get through.
        error.data = Payload::null(encoding);
        encoding.encode_error(&error)
    });
    let body = body.ok()?;
    let name = Uuid::new_v5(&NAMESPACE, format!("{id}\nerror").as_bytes());
    let to = Address::One(caller.clone());
    Some(Message {
        kind: Kind::Error,
        correlation_id: message.correlation_id.clone(),
        first_ms: message.first_ms,
        ..Message::new(name.to_string(), to, encoding, body)
    })
}
