//! Node workers wait without end. What is sent on for one of them is begun within the time in which a
//! Node sender would have given up, or the one who waits is told.
//!
//! Whoever takes such a message too late says so. This is for one that nobody takes.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tracing::debug;
use warren_protocol::{Address, CallError, WorkerType};

use super::ending::news;
use crate::{
    Kind, Message,
    rabbitmq::{
        Shared,
        bounded::{STEP_TIMEOUT, within},
        names, publish, topology, wire,
    },
};

/// How long a look takes at whether a type has anybody.
const LOOK: Duration = Duration::from_secs(3);
/// Absent for this long is absent: a consumer that is only changing is back sooner.
const ABSENT: Duration = Duration::from_secs(1);

/// Watches over a message that has been stored: at its deadline, when its type has nobody, whoever
/// waits for the answer is told.
pub(in crate::rabbitmq) fn watch_over(shared: &Arc<Shared>, message: &Message) {
    let (Address::Any(worker_type), Some(caller), Some(deadline_ms)) =
        (&message.to, &message.reply_to, message.deadline_ms)
    else {
        return;
    };
    if !message.from_peer || message.kind != Kind::Job {
        return;
    }
    let (shared, message) = (Arc::clone(shared), message.clone());
    let (worker_type, caller) = (worker_type.clone(), caller.clone());
    tokio::spawn(async move {
        let left = Duration::from_millis(deadline_ms.saturating_sub(wire::now_ms()));
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = sleep(left) => {}
        }
        let absence = shared.liveness.absence(&worker_type, ABSENT);
        if timeout(LOOK, absence).await.is_err() || !is_waiting(&shared, &worker_type).await {
            return; // Whoever is there runs it, or finds that it is too late; or it has long been run.
        }
        let address = message.to.to_string();
        let cause = CallError::NoLiveWorker { address };
        let Some(news) = news(shared.config.encoding, &message, &caller, cause) else {
            return;
        };
        if let Err(error) = publish::publish(&shared, &news).await {
            debug!("job.id" = message.id, %error, "a peer could not be told");
        }
    });
}

/// Whether jobs of a type wait in its queue.
async fn is_waiting(shared: &Shared, worker_type: &WorkerType) -> bool {
    let Some(epoch) = shared.current_epoch() else {
        return false;
    };
    let opened = epoch.consuming.create_channel();
    let Ok(channel) = within(STEP_TIMEOUT, "open a channel", opened).await else {
        return false;
    };
    let Ok(queue) = topology::look(&channel, names::work_queue(worker_type)).await else {
        return false;
    };
    topology::close(&channel).await;
    queue.message_count() > 0
}
