//! What leads to Node workers: the bindings of their ids, and the queues of their types.

use std::collections::BTreeSet;

use lapin::Channel;
use tracing::debug;
use warren_protocol::{WorkerId, WorkerType};

use super::gateway::Gateway;
use crate::rabbitmq::{
    bounded::{Failure, STEP_TIMEOUT, within},
    names::{JOBS, PEERS_IN},
    topology,
};

/// What is bound and declared, and the channel on which that is done.
pub(super) struct Bound {
    channel: Channel,
    ids: BTreeSet<WorkerId>,
    /// Types whose queues have been declared.
    types: BTreeSet<WorkerType>,
}

impl Bound {
    /// Nothing is known to be there.
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            ids: BTreeSet::new(),
            types: BTreeSet::new(),
        }
    }
}

impl Gateway {
    /// Leads what is addressed to these Node workers here. Must be done before a job is stored whose
    /// answer goes to them.
    pub(super) async fn make_reachable(&self, ids: &[WorkerId]) -> Result<(), Failure> {
        let mut bound = self.bound.lock().await;
        for id in ids {
            if !bound.ids.contains(id) {
                let binding = topology::binding(PEERS_IN, JOBS, id.as_str());
                topology::declare(self.channel(&mut bound).await?, &binding).await?;
                bound.ids.insert(id.clone());
            }
        }
        Ok(())
    }

    /// Declares the queues of a type: what is sent to it from now on is kept.
    pub(super) async fn make_known(&self, worker_type: &WorkerType) -> Result<(), Failure> {
        let mut bound = self.bound.lock().await;
        if !bound.types.contains(worker_type) {
            let wanted = topology::of_type(worker_type);
            topology::declare_all(self.channel(&mut bound).await?, &wanted).await?;
            bound.types.insert(worker_type.clone());
        }
        Ok(())
    }

    pub(super) async fn make_unreachable(&self, id: &WorkerId) {
        let mut bound = self.bound.lock().await;
        bound.ids.remove(id);
        let unbound = async {
            // Also one that another gateway has bound.
            let channel = self.channel(&mut bound).await?;
            topology::unbind(channel, PEERS_IN.into(), JOBS, id.as_str().into()).await
        };
        if let Err(failure) = unbound.await {
            debug!("worker.id" = %id, error = %failure, "a peer that is gone still has its place");
        }
    }

    /// The channel for declaring, which a refusal ends.
    async fn channel<'a>(&self, bound: &'a mut Bound) -> Result<&'a Channel, Failure> {
        if !bound.channel.status().connected() {
            let opened = self.connection.create_channel();
            bound.channel = within(STEP_TIMEOUT, "open a channel", opened).await?;
        }
        Ok(&bound.channel)
    }
}
