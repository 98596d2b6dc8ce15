//! Declares again what should be there, from time to time and when something is missed: somebody
//! may have deleted an exchange, a binding or a dead-letter queue. Sees on the way how many dead
//! letters there are.

use std::{sync::Arc, time::Duration};

use lapin::{Channel, types::ShortString};
use rand::RngExt;
use warren_protocol::WorkerType;

use super::{
    Shared,
    bounded::{Failure, STEP_TIMEOUT, within},
    epoch::Epoch,
    failure_log::FailureLog,
    names::{self, JOBS, UNROUTED},
    topology::{self, Entity},
};

/// Between two rounds; a deleted binding is missed for no longer. Less up to a fifth, so that many
/// hosts do not ask in the same moment.
const INTERVAL: Duration = Duration::from_secs(20);
/// While ids may still lead to an inbox whose node was down: when that node is back, what is sent to
/// them arrives in two inboxes.
const INTERVAL_OF_MOVING: Duration = Duration::from_secs(2);
/// Whoever misses something calls for a round at once, but not more often than this.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Goes its rounds until the epoch is over.
pub(super) async fn run(shared: Arc<Shared>, epoch: Arc<Epoch>) {
    let mut log = FailureLog::default();
    loop {
        let interval = if shared.membership.abandoned().is_empty() {
            INTERVAL
        } else {
            INTERVAL_OF_MOVING
        };
        let until_next = interval.mul_f64(rand::rng().random_range(0.8..=1.0));
        tokio::select! {
            () = epoch.over.cancelled() => return,
            () = shared.closing.cancelled() => return,
            () = tokio::time::sleep(until_next) => {}
            () = shared.mend.notified() => {}
        }
        let problem = match round(&shared, &epoch).await {
            Ok(()) => None,
            Err(failure) if epoch.over.is_cancelled() => {
                tracing::debug!(error = %failure, "the connection ended");
                return;
            }
            Err(failure) => {
                let problem = format!(
                    "the topology cannot be kept up ({failure}): compare it with `warren topology \
                     check`"
                );
                log.note(&problem);
                Some(problem)
            }
        };
        shared.board.topology(problem);
        tokio::time::sleep(SHORTEST_INTERVAL).await;
    }
}

/// Declares everything once. One type's failure does not keep the others from being looked at.
async fn round(shared: &Shared, epoch: &Epoch) -> Result<(), Failure> {
    let mut first_failure = None;
    match declare(epoch, &topology::common(), UNROUTED).await {
        Ok(n_unrouted) => shared.board.unrouted(n_unrouted),
        Err(failure) => first_failure = Some(failure),
    }
    for worker in shared.membership.workers() {
        let worker_type = worker.worker_type();
        // A type that is refused says so itself, where it is consumed.
        if let Ok(n) = declare_type(epoch, worker_type).await {
            shared.board.dead_letters(worker_type, n);
        }
    }
    let inbox = shared.host.inbox();
    let ids = shared.membership.ids();
    let bindings: Vec<_> = ids
        .iter()
        .map(|id| topology::binding(inbox.as_str(), JOBS, id.as_str()))
        .collect();
    if let Err(failure) = declare(epoch, &bindings, UNROUTED).await {
        first_failure.get_or_insert(failure);
    }
    for old in shared.membership.abandoned() {
        // Out of reach as long as its node is down; until then nothing gets there.
        if let Ok(()) | Err(Unbinding::Missing) = lead_away(shared, epoch, &old).await {
            shared.membership.forget_inbox(&old);
        }
    }
    first_failure.map_or(Ok(()), Err)
}

enum Unbinding {
    /// The queue is not there any more.
    Missing,
    Failed,
}

/// Lets no id lead to an inbox that was given up. What is in it is the janitor's.
async fn lead_away(shared: &Shared, epoch: &Epoch, old: &ShortString) -> Result<(), Unbinding> {
    let unbound = async {
        let opened = epoch.consuming.create_channel();
        let channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
        topology::look(&channel, old.clone()).await?;
        for id in shared.membership.ids() {
            topology::unbind(&channel, old.clone(), JOBS, id.as_str().into()).await?;
        }
        topology::close(&channel).await;
        Ok::<_, Failure>(())
    };
    unbound.await.map_err(|failure| {
        if failure.is_missing_queue() {
            Unbinding::Missing
        } else {
            Unbinding::Failed
        }
    })
}

async fn declare_type(epoch: &Epoch, worker_type: &WorkerType) -> Result<u64, Failure> {
    let dead_letters = names::dead_letter_queue(worker_type);
    declare(
        epoch,
        &topology::of_type(worker_type),
        dead_letters.as_str(),
    )
    .await
}

/// Declares on a channel of its own, which a refusal ends. Returns how many messages are ready in
/// the queue `counted`, or 0 when it is not among them.
async fn declare(epoch: &Epoch, wanted: &[Entity], counted: &str) -> Result<u64, Failure> {
    let opened = epoch.consuming.create_channel();
    let channel: Channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
    let mut n_ready = 0;
    for entity in wanted {
        if let Some(queue) = topology::declare(&channel, entity).await?
            && queue.name().as_str() == counted
        {
            n_ready = u64::from(queue.message_count());
        }
    }
    topology::close(&channel).await;
    Ok(n_ready)
}
