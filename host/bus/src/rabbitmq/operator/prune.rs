//! Taking the queues of a retired worker type off the broker, without losing a message.
//!
//! Quorum queues refuse to be deleted "if empty" or "if unused" (540), so it is done by steps: off
//! the exchange, so that nothing new comes; emptied into the dead letters, confirmed; looked at
//! again; deleted. What is stopped half-way is put back on the exchange.

use std::time::{Duration, Instant};

use lapin::{Channel, options::QueueDeleteOptions, types::ShortString};
use tokio::time::sleep;
use warren_protocol::WorkerType;

use super::{
    super::{
        bounded::{Failure, STEP_TIMEOUT, within},
        names::{self, DEAD, JOBS},
        topology::{self, Entity},
    },
    Depth, Operator, OperatorError,
};
use crate::Epitaph;

/// How long the acknowledgements of what was drained may take to be applied.
const QUIET_AFTER: Duration = Duration::from_secs(5);
/// The word for why the jobs of a retired type are dead letters.
const REASON: &str = "unrouted";

/// The queues of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeQueues {
    /// The queue of its jobs; `None` when it is not there.
    pub work: Option<Depth>,
    /// The queue of its dead letters; `None` when it is not there.
    pub dead: Option<Depth>,
}

/// What was done to retire a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retired {
    /// How many jobs became dead letters.
    pub drained: u64,
    /// Whether there was a work queue, which is deleted now.
    pub work_deleted: bool,
    /// Whether there was an empty queue of dead letters, which is deleted now.
    pub dead_deleted: bool,
    /// The dead letters because of which their queue was kept.
    pub dead_kept: u32,
}

impl Operator {
    /// What is there of a type.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn queues_of(&self, worker_type: &WorkerType) -> Result<TypeQueues, OperatorError> {
        Ok(TypeQueues {
            work: self.depth_of(names::work_queue(worker_type)).await?,
            dead: self.depth_of(names::dead_letter_queue(worker_type)).await?,
        })
    }

    /// Deletes the queues of a type that nobody serves any more.
    ///
    /// `drain`: jobs that wait become dead letters; without it they are a reason to refuse.
    ///
    /// # Errors
    /// [`OperatorError::InUse`] when somebody serves the type, or jobs wait; everything is as it was
    /// then. Otherwise when the broker refuses or does not answer.
    pub async fn retire(
        &self,
        worker_type: &WorkerType,
        drain: bool,
    ) -> Result<Retired, OperatorError> {
        let mut retired = Retired::default();
        let queues = self.queues_of(worker_type).await?;
        if let Some(work) = queues.work {
            refuse_if_used(worker_type, work, drain)?;
            let channel = self.channel().await?;
            if work.ready > 0 && queues.dead.is_none() {
                // The jobs need a place to go.
                declare_dead_letters(&channel, worker_type).await?;
            }
            let (queue, key) = (
                names::work_queue(worker_type),
                names::any_worker(worker_type),
            );
            topology::unbind(&channel, queue.clone(), JOBS, key.clone()).await?;
            let emptied = self.empty_work_queue(&channel, worker_type, drain).await;
            match emptied {
                Ok(drained) => retired.drained = drained,
                Err(error) => {
                    let binding = topology::binding(queue.as_str(), JOBS, key.as_str());
                    topology::declare(&self.channel().await?, &binding).await?;
                    return Err(error);
                }
            }
            delete(&channel, queue).await?;
            topology::close(&channel).await;
            retired.work_deleted = true;
        }
        if queues.dead.is_some() || retired.drained > 0 {
            self.retire_dead_letters(worker_type, &mut retired).await?;
        }
        Ok(retired)
    }

    /// Returns when the queue, which nothing reaches any more, is empty and unused.
    async fn empty_work_queue(
        &self,
        channel: &Channel,
        worker_type: &WorkerType,
        drain: bool,
    ) -> Result<u64, OperatorError> {
        let queue = names::work_queue(worker_type);
        let mut drained = 0;
        loop {
            // Looked at again: a host may have come, or given back what it held.
            let depth = look_when_quiet(channel, &queue).await?;
            refuse_if_used(worker_type, depth, drain)?;
            if depth.ready == 0 {
                return Ok(drained);
            }
            let epitaph = Epitaph {
                reason: REASON,
                error: format!("the worker type {worker_type} was retired by an operator"),
                plugin: None,
                stack: None,
                host: "warren topology prune".to_owned(),
            };
            let tally = self.bury_all(queue.clone(), worker_type, &epitaph).await?;
            drained += tally.done;
            if let Some(why) = tally.broken {
                return Err(OperatorError::Failed(format!(
                    "{why}; {drained} jobs are dead letters by now, the others are where they were"
                )));
            }
            if tally.failed > 0 {
                return Err(OperatorError::InUse(format!(
                    "{} jobs in {} could not be moved to the dead letters",
                    tally.failed,
                    queue.as_str()
                )));
            }
        }
    }

    async fn retire_dead_letters(
        &self,
        worker_type: &WorkerType,
        retired: &mut Retired,
    ) -> Result<(), OperatorError> {
        let queue = names::dead_letter_queue(worker_type);
        let key = ShortString::from(worker_type.as_str());
        let channel = self.channel().await?;
        topology::unbind(&channel, queue.clone(), DEAD, key.clone()).await?;
        let seen = topology::look(&channel, queue.clone()).await?;
        if seen.message_count() > 0 || seen.consumer_count() > 0 {
            let binding = topology::binding(queue.as_str(), DEAD, key.as_str());
            topology::declare(&channel, &binding).await?;
            retired.dead_kept = seen.message_count();
        } else {
            delete(&channel, queue).await?;
            retired.dead_deleted = true;
        }
        topology::close(&channel).await;
        Ok(())
    }
}

async fn declare_dead_letters(channel: &Channel, worker_type: &WorkerType) -> Result<(), Failure> {
    let dead = names::dead_letter_queue(worker_type);
    let mut wanted = topology::of_type(worker_type);
    wanted.retain(|entity| match entity {
        Entity::Queue { name, .. } => *name == dead,
        Entity::Binding { queue, .. } => *queue == dead,
        Entity::Exchange { .. } => false,
    });
    topology::declare_all(channel, &wanted).await
}

/// What is in a queue. A quorum queue counts a message that was taken one by one as a consumer until
/// it has applied the acknowledgement: that is waited for, so that we do not take ourselves for one.
async fn look_when_quiet(channel: &Channel, queue: &ShortString) -> Result<Depth, Failure> {
    let begun = Instant::now();
    loop {
        let seen = topology::look(channel, queue.clone()).await?;
        let depth = Depth {
            ready: seen.message_count(),
            consumers: seen.consumer_count(),
        };
        if depth.consumers == 0 || begun.elapsed() > QUIET_AFTER {
            return Ok(depth);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn refuse_if_used(worker_type: &WorkerType, work: Depth, drain: bool) -> Result<(), OperatorError> {
    let queue = names::work_queue(worker_type);
    if work.consumers > 0 {
        return Err(OperatorError::InUse(format!(
            "{} has {} consumers: remove the plugins of {worker_type} from the hosts first, and \
             wait until what runs has ended",
            queue.as_str(),
            work.consumers
        )));
    }
    if work.ready > 0 && !drain {
        return Err(OperatorError::InUse(format!(
            "{} jobs wait in {}: with --drain they become dead letters of {worker_type}; to have \
             them run, start a host with its plugin",
            work.ready,
            queue.as_str()
        )));
    }
    Ok(())
}

async fn delete(channel: &Channel, queue: ShortString) -> Result<(), Failure> {
    let answer = channel.queue_delete(queue, QueueDeleteOptions::default());
    within(STEP_TIMEOUT, "delete a queue", answer)
        .await
        .map(drop)
}
