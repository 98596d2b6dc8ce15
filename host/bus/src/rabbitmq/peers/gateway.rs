//! The gateway while it is one: its connection, what it hears, and the times at which it acts by
//! itself.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use lapin::{
    Channel, Connection, Consumer,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use tokio::{
    sync::Semaphore,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};
use warren_protocol::{CodecError, Encoding, GET_ALL, Identity, WorkerId, WorkerType, topic};

use super::{
    PeerCount, PeerWorker,
    claim::Heard,
    hearing::{MOST_TYPES, hear, hear_acks, read_claims},
    ledger::Ledger,
    pending::Pending,
    pin::State as PinState,
    pools::Pool,
    reach::Bound,
    roster::Roster,
    serve,
    told::Told,
    voice::Voice,
};
use crate::rabbitmq::{
    Shared,
    bounded::{Failure, STEP_TIMEOUT, within},
    config::Broker,
    link,
    names::{CLAIMED, JOBS, NOTIFICATIONS, PEERS, PEERS_ACKS, PEERS_CLAIMS, PEERS_IN, POLLING},
    publish::Lanes,
    topology, wire,
};

/// What the SystemManager of MicroServices.js writes to its log is written here.
pub(super) const LOG: &str = "warren::manager";
/// The type of the gateway's own id. Nobody serves it.
pub(super) const SINK: &str = "Warren";
/// The same on every gateway: managers know it once and for all.
const SINK_ID: &str = "Warren:9000000000000";

/// A frozen gateway is noticed after about three of these.
const HEARTBEAT_SECONDS: u16 = 2;
/// What is heard and not looked at yet.
const PREFETCH: u16 = 1000;
/// Acknowledgements that are held: each for half a second.
const PREFETCH_OF_ACKS: u16 = 20_000;
/// Jobs of peers that are being stored at the same time.
const MOST_CLAIMS: usize = 256;
/// Jobs of peers whose workers are gone for a moment, or whose queues are full.
const MOST_WAITING: usize = 10_000;
/// How long those who are there have to answer the first call, before any job is decided on.
const LEARNING: Duration = Duration::from_millis(300);
/// After standing still for so long a gateway lets go of the jobs that came in the meantime: their
/// senders have sent them again.
const STANDSTILL: Duration = Duration::from_secs(2);
const PULSE: Duration = Duration::from_millis(200);
/// Between two looks at pools and memories.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// What a gateway that stops gives to pools and jobs that are half way.
const FINISHING: Duration = Duration::from_millis(4500);
/// How soon a call may follow another one.
pub(super) const SHORTEST_CALL: Duration = Duration::from_millis(500);

/// One host's time as the gateway.
pub(super) struct Gateway {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    /// Jobs of peers are stored on the connection that the lock hangs on: a gateway that was taken
    /// for dead can store nothing.
    pub(super) lanes: Lanes,
    pub(super) voice: Voice,
    /// Ids that lead to [`PEERS_IN`], and the channel on which they are bound.
    pub(super) bound: tokio::sync::Mutex<Bound>,
    memory: Mutex<Memory>,
    pub(super) told: Mutex<Told>,
    pub(super) pending: Pending,
    /// Where Node workers that always forward send what nobody waits for.
    pub(super) sink: WorkerId,
    pub(super) room: Arc<Semaphore>,
    /// How many jobs of peers may wait for somebody who takes them.
    pub(super) patience: Semaphore,
    /// When it began.
    pub(super) since: Instant,
    pub(super) since_ms: u64,
    /// Cancelled when the connection is gone, or is to be closed.
    pub(super) over: CancellationToken,
    /// Cancelled when it is known who is there, and what the gateway before has handed over.
    pub(super) learned: CancellationToken,
    /// Cancelled when a planned stop has given the pools back: what Node workers can take is left to them.
    pub(super) finishing: CancellationToken,
    /// Cancelled when nothing new is taken.
    pub(super) stopping: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) look: tokio::sync::Mutex<Option<Channel>>,
}

#[derive(Default)]
pub(super) struct Memory {
    pub(super) roster: Roster,
    pub(super) ledger: Ledger,
    pub(super) pools: HashMap<WorkerType, Pool>,
    /// Jobs that came before it was known who is there. `None`: it is.
    pub(super) early: Option<Vec<Heard>>,
    /// Since a standstill: jobs are let go of until our own call comes back.
    pub(super) is_stale: bool,
    last_call: Option<Instant>,
    pub(super) malformed: BTreeSet<String>,
    /// Types that peers have sent to without `:*`.
    pub(super) bare: BTreeSet<WorkerType>,
}

/// A gateway that has the lock.
pub(super) struct Opened {
    gateway: Arc<Gateway>,
    hears: Consumer,
    acks: Consumer,
    claims: (Channel, Consumer),
    inbox: (Channel, Consumer),
}

/// What a gateway has on its connection.
struct Settled {
    hears: Consumer,
    acks: Consumer,
    claims: (Channel, Consumer),
    inbox: (Channel, Consumer),
    voice: Voice,
    bindings: Channel,
}

impl Gateway {
    /// Takes the lock on a connection of its own.
    pub(super) async fn open(shared: &Arc<Shared>, broker: &Broker) -> Result<Opened, Failure> {
        let name = format!("warren {} peers", shared.host.as_str());
        let connection = link::dial(&broker.with_heartbeat(HEARTBEAT_SECONDS), name).await?;
        match Self::settle_in(shared, &connection).await {
            Ok(settled) => {
                let Ok(sink) = SINK_ID.parse() else {
                    return Err(Failure::Ended("the gateway has no name"));
                };
                let gateway = Self {
                    shared: Arc::clone(shared),
                    connection,
                    lanes: Lanes::default(),
                    voice: settled.voice,
                    bound: tokio::sync::Mutex::new(Bound::new(settled.bindings)),
                    memory: Mutex::default(),
                    told: Mutex::default(),
                    pending: Pending::default(),
                    sink,
                    room: Arc::new(Semaphore::new(MOST_CLAIMS)),
                    patience: Semaphore::new(MOST_WAITING),
                    since: Instant::now(),
                    since_ms: wire::now_ms(),
                    over: CancellationToken::new(),
                    learned: CancellationToken::new(),
                    finishing: CancellationToken::new(),
                    stopping: CancellationToken::new(),
                    tasks: TaskTracker::new(),
                    look: tokio::sync::Mutex::default(),
                };
                Ok(Opened {
                    gateway: Arc::new(gateway),
                    hears: settled.hears,
                    acks: settled.acks,
                    claims: settled.claims,
                    inbox: settled.inbox,
                })
            }
            Err(failure) => {
                tokio::spawn(async move { close(&connection).await });
                Err(failure)
            }
        }
    }

    async fn settle_in(shared: &Shared, connection: &Connection) -> Result<Settled, Failure> {
        let open = async || {
            let opened = connection.create_channel();
            within(STEP_TIMEOUT, "open a channel", opened).await
        };
        let voice = Voice::open(connection).await?;
        let channel = open().await?;
        topology::declare(&channel, &topology::peers_exchange(POLLING)).await?;
        let queue = ShortString::from(PEERS);
        topology::declare(&channel, &topology::exclusive(queue.clone())).await?;
        for key in ["worker.#", topic::ERROR] {
            let binding = topology::binding(PEERS, NOTIFICATIONS, key);
            topology::declare(&channel, &binding).await?;
        }
        let questions = topology::binding(PEERS, POLLING, topic::WORKER_LIST);
        topology::declare(&channel, &questions).await?;
        let qos = channel.basic_qos(PREFETCH, BasicQosOptions::default());
        within(STEP_TIMEOUT, "set the prefetch", qos).await?;
        let consume = async |channel: &Channel, queue: ShortString, tag: &str| {
            let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
            let consumer = channel.basic_consume(queue, tag.into(), options, none);
            within(STEP_TIMEOUT, "consume what peers say", consumer).await
        };
        let hears = consume(&channel, queue, "warren-peers").await?;
        let acks = open().await?;
        let qos = acks.basic_qos(PREFETCH_OF_ACKS, BasicQosOptions::default());
        within(STEP_TIMEOUT, "set the prefetch", qos).await?;
        topology::declare(&acks, &topology::peers_acks()).await?;
        let all = topology::binding(PEERS_ACKS, NOTIFICATIONS, topic::WORKER_NEXT_ACK);
        topology::declare(&acks, &all).await?;
        let acks = consume(&acks, PEERS_ACKS.into(), "warren-peers-acks").await?;
        let claims = open().await?;
        topology::declare(&claims, &topology::peers_claims()).await?;
        let all = topology::binding(PEERS_CLAIMS, JOBS, CLAIMED);
        topology::declare(&claims, &all).await?;
        let claimed = consume(&claims, PEERS_CLAIMS.into(), "warren-peers-claims").await?;
        let inbox = open().await?;
        topology::declare(&inbox, &topology::inbox(PEERS_IN)).await?;
        let qos = inbox.basic_qos(serve::INBOX_PREFETCH, BasicQosOptions::default());
        within(STEP_TIMEOUT, "set the prefetch", qos).await?;
        let messages = consume(&inbox, PEERS_IN.into(), "warren-peers-in").await?;
        debug!(
            host = shared.host.as_str(),
            "this host has the lock of the peer gateway"
        );
        Ok(Settled {
            hears,
            acks,
            claims: (claims, claimed),
            inbox: (inbox, messages),
            voice,
            bindings: open().await?,
        })
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.shared.config.encoding
    }

    pub(super) fn count(&self, what: PeerCount) {
        self.shared.peers.count(what);
    }

    /// Says something to the peers; what cannot be said ends the gateway.
    pub(super) async fn say(&self, key: &str, body: Result<Bytes, CodecError>) -> bool {
        let body = match body {
            Ok(body) => body,
            Err(error) => {
                warn!(target: LOG, key, %error, "peers cannot be told");
                return false;
            }
        };
        match self.voice.say(key, &body).await {
            Ok(()) => true,
            Err(failure) => {
                debug!(key, error = %failure, "the gateway cannot speak");
                self.over.cancel();
                false
            }
        }
    }

    /// Asks everybody who is there.
    pub(super) async fn call_all(&self) {
        {
            let mut memory = self.memory();
            let now = Instant::now();
            let is_soon = |last: Instant| now.duration_since(last) < SHORTEST_CALL;
            if memory.last_call.is_some_and(is_soon) {
                return;
            }
            memory.last_call = Some(now);
        }
        self.count(PeerCount::Keepalives);
        self.say(
            topic::WORKER_GET_ALL,
            Ok(Bytes::from_static(GET_ALL.as_bytes())),
        )
        .await;
    }

    pub(super) fn show(&self) {
        let memory = self.memory();
        let workers = memory.roster.all();
        let workers = workers.map(|(id, is_ours, is_doubted)| PeerWorker {
            id: id.clone(),
            is_ours,
            is_doubted,
        });
        self.shared.peers.show(workers.collect());
    }
}

impl Memory {
    /// Whether no peer has sent to this type without `:*` before.
    pub(super) fn is_first_bare(&mut self, worker_type: &WorkerType) -> bool {
        self.bare.len() < MOST_TYPES && self.bare.insert(worker_type.clone())
    }
}

impl Opened {
    /// Is the gateway until the connection or the bus ends.
    pub(super) async fn run(self) {
        let Self {
            gateway,
            hears,
            acks,
            claims,
            inbox,
        } = self;
        info!(target: LOG, "this host is the gateway to workers of MicroServices.js");
        gateway.memory().early = Some(Vec::new());
        gateway.show();
        let hearing = tokio::spawn(hear(Arc::clone(&gateway), hears));
        let (channel, claimed) = claims;
        gateway
            .tasks
            .spawn(read_claims(Arc::clone(&gateway), channel, claimed));
        let acknowledged = tokio::spawn(hear_acks(Arc::clone(&gateway), acks));
        gateway
            .tasks
            .spawn(serve::inbox(Arc::clone(&gateway), inbox.0, inbox.1));
        gateway.announce_sink().await;
        gateway.call_all().await;
        {
            let gateway = Arc::clone(&gateway);
            gateway.tasks.clone().spawn(async move {
                tokio::select! {
                    () = gateway.over.cancelled() => return,
                    () = sleep(LEARNING) => {}
                }
                gateway.learned.cancel();
                let early = gateway.memory().early.take();
                for heard in early.unwrap_or_default() {
                    gateway.consider(heard).await;
                }
            });
        }
        let closing = gateway.shared.closing.clone();
        tokio::select! {
            () = gateway.over.cancelled() => {}
            () = gateway.keep() => {}
            () = gateway.feel_pulse() => {}
            () = closing.cancelled() => {
                let _ = timeout(FINISHING, gateway.finish()).await;
            }
        }
        gateway.stopping.cancel();
        gateway.over.cancel();
        hearing.abort();
        acknowledged.abort();
        close(&gateway.connection).await;
        gateway.tasks.close();
        let _ = timeout(FINISHING, gateway.tasks.wait()).await;
        info!(target: LOG, "this host is not the gateway any more");
    }
}

impl Gateway {
    /// A manager of MicroServices.js complains about each job for an id that it does not know.
    async fn announce_sink(&self) {
        let identity = Identity::from(&self.sink);
        self.say(
            topic::WORKER_NEW_RESEND,
            self.encoding().encode_identity(&identity),
        )
        .await;
    }

    /// Notices when this process has stood still.
    async fn feel_pulse(&self) {
        loop {
            let before = Instant::now();
            sleep(PULSE).await;
            if before.elapsed() > STANDSTILL {
                warn!(target: LOG, "the gateway stood still: jobs that came meanwhile are sent again by their senders");
                self.memory().is_stale = true;
                self.memory().last_call = None;
                self.call_all().await;
            }
        }
    }

    /// Does what is due by itself.
    async fn keep(self: &Arc<Self>) {
        let keepalive = self.shared.config.peers.keepalive;
        let mut calls = interval(keepalive.max(Duration::from_millis(1)));
        calls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        calls.tick().await;
        let mut tending = interval(TEND_EVERY);
        tending.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = calls.tick(), if !keepalive.is_zero() => {
                    self.announce_sink().await;
                    self.call_all().await;
                    for worker_type in self.pinned() {
                        self.tend_pool(&worker_type, true).await;
                    }
                }
                _ = tending.tick() => {
                    self.memory().ledger.forget_old(Instant::now());
                    if self.memory().roster.has_doubts() {
                        self.call_all().await;
                    }
                    for worker_type in self.mixed() {
                        self.tend_pool(&worker_type, false).await;
                    }
                }
            }
        }
    }

    /// A planned stop: pools that no other host serves are given back, and what is half way gets to
    /// its end.
    async fn finish(self: &Arc<Self>) {
        for id in self.shared.membership.former_ids() {
            self.memory().roster.left(&id);
        }
        let pinned = self.pinned();
        for worker_type in &pinned {
            if self.memory().roster.ours(worker_type).is_empty() {
                self.tend_pool(worker_type, false).await;
            }
        }
        let is_releasing = || {
            let memory = self.memory();
            let mut pools = memory.pools.values();
            pools.any(|pool| {
                let state = pool.pin.as_ref().map(|pin| pin.state);
                state == Some(PinState::Releasing)
            })
        };
        while is_releasing() {
            sleep(Duration::from_millis(10)).await;
        }
        // Until the Node workers have heard of it, nobody may take what is sent to them: it is still stored
        // then, and handed over below.
        while self.has_changing_pools() {
            sleep(Duration::from_millis(20)).await;
        }
        self.finishing.cancel();
        // What was stored for pools that only Node workers are left in is handed over first.
        while self.has_work_left().await {
            sleep(Duration::from_millis(20)).await;
        }
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn has_work_left(&self) -> bool {
        if !self.pending.is_empty() {
            return true;
        }
        let types: BTreeSet<_> = {
            let memory = self.memory();
            let all = memory.roster.all();
            let nodes = all.filter(|(_, is_ours, is_doubted)| !is_ours && !is_doubted);
            nodes
                .map(|(id, _, _)| id.worker_type().clone())
                .filter(|worker_type| memory.roster.ours(worker_type).is_empty())
                .collect()
        };
        for worker_type in types {
            if self.n_ready(&worker_type).await > 0 {
                return true;
            }
        }
        false
    }
}

async fn close(connection: &Connection) {
    const SUCCESS: u16 = 200;
    const LONGEST: Duration = Duration::from_secs(1);
    if connection.status().connected() {
        let answer = connection.close(SUCCESS, "OK".into());
        let _ = within(LONGEST, "close", answer).await;
    }
}
