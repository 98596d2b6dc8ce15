//! The peer plane: sharing the bus with workers of MicroServices.js (PROTOCOL, RELIABILITY "The
//! peer gateway's rules").
//!
//! All that concerns peers is done by one host at a time, the *gateway*: whichever holds an
//! exclusive queue, on a connection of its own, so that the broker lets go of one that is frozen or
//! gone. It is the SystemManager of the bus. `gateway` is its life, `hearing` what it hears. `claim` takes
//! jobs of Node senders into the durable queues; `serve` consumes these queues for Node workers,
//! `hand_over` gives them one job each, and `ending` deals with what they do not take. `pools` sees to
//! types that both kinds serve. `roster`, `ledger`, `told`, `pending` and `pin` are its memory, and pure.
//!
//! This is the one place of the bus that reads bodies: peers have no other protocol.

mod claim;
mod ending;
mod gateway;
mod hand_over;
mod hearing;
mod ledger;
pub(super) mod patience;
mod pending;
mod pin;
mod pools;
mod reach;
mod report;
mod roster;
mod serve;
mod told;
pub(super) mod voice;

use std::{sync::Arc, time::Duration};

use lapin::Channel;
use rand::RngExt;
use tokio::time::sleep;
use tracing::debug;
use warren_protocol::WorkerType;

use super::{
    Shared,
    bounded::{Failure, STEP_TIMEOUT, within},
    config::Broker,
    epoch::Epoch,
    failure_log::FailureLog,
    names::PEERS_IN,
    topology,
};
use gateway::Gateway;

pub(super) use report::Register;
pub use report::{PeerCount, PeerReport, PeerWorker};

/// Between two looks at the lock: with what taking over needs, less than a second without a gateway.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// How a host gets on with peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeersConfig {
    /// Whether this host may be the gateway.
    pub enabled: bool,
    /// How often everybody is asked who is there. Zero: only when the gateway begins.
    pub keepalive: Duration,
    /// The worker types that peers may send to; `None`: all.
    pub exposed: Option<Vec<WorkerType>>,
    /// The field of a job's data that names the request which it belongs to.
    pub request_field: String,
}

impl PeersConfig {
    /// What MicroServices.js' example calls the field.
    pub const DEFAULT_REQUEST_FIELD: &str = "resId";
    /// What MicroServices.js' manager does.
    pub const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(10);
}

impl Default for PeersConfig {
    /// A host that leaves peers alone.
    fn default() -> Self {
        Self {
            enabled: false,
            keepalive: Self::DEFAULT_KEEPALIVE,
            exposed: None,
            request_field: Self::DEFAULT_REQUEST_FIELD.to_owned(),
        }
    }
}

/// Waits for the place of the gateway, and takes it whenever it is free, until the bus is closed.
pub(super) async fn run(shared: Arc<Shared>, brokers: Vec<Broker>) {
    let mut log = FailureLog::default();
    for broker in brokers.iter().cycle() {
        if next_chance(&shared).await.is_none() {
            return;
        }
        let opened = tokio::select! {
            () = shared.closing.cancelled() => return,
            opened = Gateway::open(&shared, broker) => opened,
        };
        match opened {
            Ok(opened) => {
                shared.board.peers(None);
                log = FailureLog::default();
                opened.run().await;
                shared.peers.hide();
            }
            // Another host was faster.
            Err(failure) if failure.is_locked() => debug!("another host is the peer gateway"),
            Err(failure) => {
                let problem = problem(&failure);
                log.note(&problem);
                shared.board.peers(Some(problem));
                pause(&shared).await;
            }
        }
        if shared.closing.is_cancelled() {
            return;
        }
    }
}

/// After something did not work.
async fn pause(shared: &Shared) {
    tokio::select! {
        () = shared.closing.cancelled() => {}
        () = sleep(LOOK_EVERY * 10) => {}
    }
}

/// Returns when the place is free. `None`: the bus is being closed.
async fn next_chance(shared: &Shared) -> Option<Arc<Epoch>> {
    let mut channel = None;
    loop {
        let wait = LOOK_EVERY.mul_f64(rand::rng().random_range(0.5..=1.0));
        let epoch = tokio::select! {
            () = shared.closing.cancelled() => return None,
            epoch = async { sleep(wait).await; shared.living_epoch().await } => epoch?,
        };
        match is_free(&epoch, &mut channel).await {
            Ok(true) => return Some(epoch),
            // Somebody else does it.
            Ok(false) => shared.board.peers(None),
            Err(failure) => {
                channel = None;
                if failure.is_not_found() {
                    shared.mend.notify_one();
                }
                debug!(error = %failure, "cannot see whether there is a peer gateway");
                pause(shared).await;
            }
        }
    }
}

/// Only the gateway consumes what is for Node workers. Asking so makes no error: a look at the lock
/// itself would, and the broker logs each one.
async fn is_free(epoch: &Epoch, channel: &mut Option<(u64, Channel)>) -> Result<bool, Failure> {
    let channel = match channel {
        Some((number, channel)) if *number == epoch.number && channel.status().connected() => {
            channel
        }
        slot => {
            let opened = epoch.consuming.create_channel();
            let opened = within(STEP_TIMEOUT, "open a channel", opened).await?;
            &mut slot.insert((epoch.number, opened)).1
        }
    };
    let queue = topology::look(channel, PEERS_IN.into()).await?;
    Ok(queue.consumer_count() == 0)
}

fn problem(failure: &Failure) -> String {
    let remedy = if failure.is_mismatch() {
        "delete the exchange `notifications` or `polling`, or declare it as topic, non-durable"
    } else if failure.is_access_refused() {
        "allow this user to configure, write and read `notifications`, `polling` and `warren.v1.*`"
    } else {
        "it is tried again"
    };
    format!("workers of MicroServices.js are not served ({failure}): {remedy}")
}
