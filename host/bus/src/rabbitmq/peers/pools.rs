//! The pools of types that Node workers serve: whether hosts serve them too, and who has the turn.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use lapin::Queue;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;
use warren_protocol::{Encoding, Identity, ListEntry, WorkerId, WorkerType, topic};

use super::{
    gateway::{Gateway, LOG},
    hearing::MOST_TYPES,
    pin::{Pin, State as PinState},
    serve,
};
use crate::{
    ABSENCE_GRACE,
    rabbitmq::{
        bounded::{Failure, STEP_TIMEOUT, within},
        names, topology,
    },
};

/// How long Node workers need to hear of a change: a list and a removal, or that one has left. (One
/// that leaves takes jobs for 200 ms after its goodbye.) Longer where they are slow.
const CHANGING: Duration = Duration::from_millis(600);
/// How old a look at the consumers of a queue may be when a job is decided on.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// A list and the removal from it travel through different queues of a Node worker: one removal in
/// twenty comes first and does nothing.
const REMOVE_AGAIN: [Duration; 2] = [Duration::from_millis(30), Duration::from_millis(300)];

/// What is known of one type.
#[derive(Default)]
pub(super) struct Pool {
    pub(super) pin: Option<Pin>,
    /// When hosts were last seen to consume its queue, and when that was last looked at.
    consumed: Option<Instant>,
    looked: Option<Instant>,
    /// When it last changed who takes its jobs.
    changed: Option<Instant>,
    /// The Node workers for which its queue is consumed here.
    served: HashMap<WorkerId, CancellationToken>,
    /// How many of these consumers the broker counts.
    n_served: u32,
}

/// Whether hosts serve a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Now,
    /// Not now, but a moment ago: a host may be on its way back.
    Lately,
    No,
}

impl Gateway {
    /// Whether hosts serve a type. Looks at its queue when the last look is not new.
    pub(super) async fn presence(&self, worker_type: &WorkerType) -> Presence {
        let looked = {
            let memory = self.memory();
            memory.pools.get(worker_type).and_then(|pool| pool.looked)
        };
        if looked.is_none_or(|at| at.elapsed() >= LOOK_AGAIN) {
            self.look(worker_type).await;
        }
        let memory = self.memory();
        let pool = memory.pools.get(worker_type);
        match pool.and_then(|pool| pool.consumed) {
            Some(at) if pool.is_some_and(|pool| pool.looked == Some(at)) => Presence::Now,
            Some(at) if at.elapsed() < ABSENCE_GRACE => Presence::Lately,
            _ => Presence::No,
        }
    }

    /// It changes who takes a type's jobs, where that concerns hosts.
    pub(super) fn note_change(&self, worker_type: &WorkerType) {
        let mut memory = self.memory();
        let has_ours = !memory.roster.ours(worker_type).is_empty();
        if let Some(pool) = memory.pools.get_mut(worker_type)
            && (has_ours || pool.pin.is_some())
        {
            pool.changed = Some(Instant::now());
        }
    }

    /// Whether it changes just now who takes a type's jobs, so that nobody can tell.
    pub(super) fn is_changing(&self, worker_type: &WorkerType) -> bool {
        let changing = CHANGING + self.slowness();
        let memory = self.memory();
        let pool = memory.pools.get(worker_type);
        pool.and_then(|pool| pool.changed)
            .is_some_and(|at| at.elapsed() < changing)
    }

    /// Whether any pool with Node workers is changing.
    pub(super) fn has_changing_pools(&self) -> bool {
        let changing = CHANGING + self.slowness();
        let memory = self.memory();
        let mut pools = memory.pools.iter();
        pools.any(|(worker_type, pool)| {
            pool.changed.is_some_and(|at| at.elapsed() < changing)
                && !memory.roster.nodes(worker_type).is_empty()
        })
    }

    /// What was seen of a type's queue is not new any more.
    pub(super) fn look_again(&self, worker_type: &WorkerType) {
        if let Some(pool) = self.memory().pools.get_mut(worker_type) {
            pool.looked = None;
        }
    }

    /// How many messages are ready in a type's queue.
    pub(super) async fn n_ready(&self, worker_type: &WorkerType) -> u32 {
        let seen = self.queue(worker_type).await;
        seen.map_or(0, |queue| queue.message_count())
    }

    async fn queue(&self, worker_type: &WorkerType) -> Result<Queue, Failure> {
        let mut slot = self.look.lock().await;
        let channel = match slot.as_ref() {
            Some(channel) if channel.status().connected() => channel,
            _ => {
                let opened = self.connection.create_channel();
                slot.insert(within(STEP_TIMEOUT, "open a channel", opened).await?)
            }
        };
        topology::look(channel, names::work_queue(worker_type)).await
    }

    async fn look(&self, worker_type: &WorkerType) {
        let n_consumers = match self.queue(worker_type).await {
            Ok(queue) => Some(queue.consumer_count()),
            Err(failure) if failure.is_not_found() => Some(0),
            Err(_) => None,
        };
        // What cannot be seen is taken to be as it was.
        let Some(n_consumers) = n_consumers else {
            return;
        };
        let now = Instant::now();
        let mut memory = self.memory();
        let is_known = memory.pools.contains_key(worker_type);
        if !is_known && (n_consumers == 0 || memory.pools.len() >= MOST_TYPES) {
            return; // Whoever sends to types without end makes nothing of them known.
        }
        let pool = memory.pools.entry(worker_type.clone()).or_default();
        pool.looked = Some(now);
        if n_consumers > pool.n_served {
            pool.consumed = Some(now);
        }
    }

    /// Whether pools can be pinned: BSON has no lists at the top of a message.
    pub(super) fn can_pin(&self) -> bool {
        self.encoding() != Encoding::Bson
    }

    /// Whether peers may send to a type.
    pub(super) fn exposes(&self, worker_type: &WorkerType) -> bool {
        let exposed = self.shared.config.peers.exposed.as_ref();
        exposed.is_none_or(|types| types.contains(worker_type))
    }

    /// Sends a pool's list and the removal from it.
    async fn send_pin(self: &Arc<Self>, list: &[ListEntry], third: &WorkerId) {
        if !self
            .say(topic::WORKER_LIST, self.encoding().encode_worker_list(list))
            .await
        {
            return;
        }
        self.remove(third).await;
        let (gateway, third) = (Arc::clone(self), third.clone());
        self.tasks.spawn(async move {
            for wait in REMOVE_AGAIN {
                tokio::select! {
                    () = gateway.over.cancelled() => return,
                    () = sleep(wait) => gateway.remove(&third).await,
                }
            }
        });
    }

    pub(super) async fn remove(&self, worker: &WorkerId) {
        let identity = Identity::from(worker);
        self.say(
            topic::WORKER_DEL,
            self.encoding().encode_identity(&identity),
        )
        .await;
    }

    /// Pins a type's pool where that is right and possible, and lets go of it where it is not: a
    /// pinned pool takes no job by itself.
    pub(super) async fn tend_pool(self: &Arc<Self>, worker_type: &WorkerType, must_repeat: bool) {
        let presence = self.presence(worker_type).await;
        let action = {
            let mut memory = self.memory();
            let memory = &mut *memory;
            let has_ours = !memory.roster.ours(worker_type).is_empty();
            let nodes = memory.roster.all_nodes(worker_type);
            let taker = memory.roster.nodes(worker_type).into_iter().next();
            let pool = memory.pools.entry(worker_type.clone()).or_default();
            let wants = has_ours
                && presence != Presence::No
                && !nodes.is_empty()
                && self.exposes(worker_type)
                && self.can_pin()
                && !self.stopping.is_cancelled();
            match &mut pool.pin {
                None if wants => Some(pool.pin.insert(Pin::new(worker_type)))
                    .map(|pin| (pin.list().to_vec(), pin.third.clone())),
                Some(pin) if wants => {
                    let is_held = matches!(pin.state, PinState::Sent | PinState::Heard);
                    if is_held && !must_repeat {
                        None
                    } else {
                        if !is_held {
                            pin.state = PinState::Sent;
                        }
                        Some((pin.list().to_vec(), pin.third.clone()))
                    }
                }
                Some(pin) => match taker.or_else(|| nodes.first().cloned()) {
                    Some(taker) if pin.state != PinState::Releasing => {
                        pin.state = PinState::Releasing;
                        info!(target: LOG, { "worker.type" = %worker_type, to = %taker }, "the pool is left to its Node workers");
                        Some((pin.release(&taker).to_vec(), pin.third.clone()))
                    }
                    Some(_) => None,
                    None => {
                        pool.pin = None;
                        None
                    }
                },
                None => None,
            }
        };
        if let Some((list, third)) = action {
            if !must_repeat {
                self.note_change(worker_type);
            }
            self.send_pin(&list, &third).await;
        }
    }

    /// A Node worker did not take what it was handed.
    pub(super) async fn doubt(self: &Arc<Self>, id: &WorkerId) {
        if self.memory().roster.doubt(id) {
            self.stop_serving(id);
            info!(target: LOG, { "worker.id" = %id }, "a Node worker took nothing: it gets no jobs until it is heard");
            self.show();
            self.call_all().await;
        }
    }

    /// Consumes the type's queue for a Node worker no longer.
    pub(super) fn stop_serving(&self, id: &WorkerId) {
        let mut memory = self.memory();
        let pool = memory.pools.get_mut(id.worker_type());
        if let Some(stop) = pool.and_then(|pool| pool.served.remove(id)) {
            stop.cancel();
        }
    }

    /// Consumes the type's queue for a Node worker.
    pub(super) fn serve(self: &Arc<Self>, id: &WorkerId) {
        let stop = {
            let mut memory = self.memory();
            let pool = memory.pools.entry(id.worker_type().clone()).or_default();
            if pool.served.contains_key(id) || self.stopping.is_cancelled() {
                return;
            }
            let stop = self.stopping.child_token();
            pool.served.insert(id.clone(), stop.clone());
            stop
        };
        self.tasks
            .spawn(serve::worker(Arc::clone(self), id.clone(), stop));
    }

    /// One consumer more or less on the queue of a type that is not a host's.
    pub(super) fn count_served(&self, worker: &WorkerId, difference: i32) {
        let mut memory = self.memory();
        let pool = memory
            .pools
            .entry(worker.worker_type().clone())
            .or_default();
        pool.n_served = pool.n_served.saturating_add_signed(difference);
    }

    pub(super) fn pinned(&self) -> Vec<WorkerType> {
        let memory = self.memory();
        let pools = memory.pools.iter();
        pools
            .filter(|(_, pool)| pool.pin.is_some())
            .map(|(worker_type, _)| worker_type.clone())
            .collect()
    }

    /// The types that both kinds serve, and those that are pinned.
    pub(super) fn mixed(&self) -> BTreeSet<WorkerType> {
        let mut types: BTreeSet<_> = self.pinned().into_iter().collect();
        let memory = self.memory();
        for (id, is_ours, _) in memory.roster.all() {
            if !is_ours && !memory.roster.ours(id.worker_type()).is_empty() {
                types.insert(id.worker_type().clone());
            }
        }
        types
    }
}
