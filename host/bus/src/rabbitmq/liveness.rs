//! Whether anybody, on any host, consumes the jobs of a type: asked of the broker, once a second,
//! for the types whose answers somebody waits for here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lapin::Channel;
use tokio::sync::Notify;
use warren_protocol::WorkerType;

use super::{
    Shared,
    bounded::{Failure, STEP_TIMEOUT, within},
    epoch::Epoch,
    names, topology,
};
use crate::absence::{Absence, lasting};

/// Between two looks at a queue.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a type is looked at after the last call to it, so that the next one fails at once.
const KEPT: Duration = Duration::from_secs(60);

/// The types that are looked at.
#[derive(Default)]
pub(super) struct Liveness {
    types: Mutex<HashMap<WorkerType, Entry>>,
    wanted: Notify,
}

struct Entry {
    absence: Arc<Absence>,
    last_watched: tokio::time::Instant,
}

impl Liveness {
    /// Returns when nobody has consumed the type's jobs for `grace`.
    pub(super) async fn absence(&self, worker_type: &WorkerType, grace: Duration) {
        let since = {
            let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = types.entry(worker_type.clone()).or_insert_with(|| Entry {
                absence: Arc::new(Absence::new()),
                last_watched: tokio::time::Instant::now(),
            });
            entry.absence.watch()
        };
        self.wanted.notify_one();
        lasting(since, grace).await;
    }

    /// The types to look at now.
    fn due(&self) -> Vec<(WorkerType, Arc<Absence>)> {
        let now = tokio::time::Instant::now();
        let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in types.values_mut() {
            if entry.absence.is_watched() {
                entry.last_watched = now;
            }
        }
        types.retain(|_, entry| now.duration_since(entry.last_watched) < KEPT);
        let due = types.iter();
        due.map(|(ty, entry)| (ty.clone(), Arc::clone(&entry.absence)))
            .collect()
    }
}

/// Looks until the epoch is over. Without a connection nobody is known to be absent.
pub(super) async fn run(shared: Arc<Shared>, epoch: Arc<Epoch>) {
    let mut channel = None;
    while !epoch.over.is_cancelled() {
        let due = shared.liveness.due();
        let is_idle = due.is_empty();
        for (worker_type, absence) in due {
            match is_present(&epoch, &mut channel, &worker_type).await {
                Ok(is_present) => absence.note(is_present),
                // A queue that is not there ends the channel. Publishing tells what that means.
                Err(failure) if failure.is_not_found() => channel = None,
                Err(_) => {
                    channel = None;
                    absence.note(true);
                }
            }
        }
        tokio::select! {
            () = epoch.over.cancelled() => {}
            () = shared.liveness.wanted.notified(), if is_idle => {}
            () = tokio::time::sleep(INTERVAL), if !is_idle => {}
        }
    }
    for (_, absence) in shared.liveness.due() {
        absence.note(true);
    }
}

async fn is_present(
    epoch: &Epoch,
    channel: &mut Option<Channel>,
    worker_type: &WorkerType,
) -> Result<bool, Failure> {
    let channel = match channel {
        Some(channel) if channel.status().connected() => channel,
        slot => {
            let opened = epoch.consuming.create_channel();
            slot.insert(within(STEP_TIMEOUT, "open a channel", opened).await?)
        }
    };
    let queue = topology::look(channel, names::work_queue(worker_type)).await?;
    Ok(queue.consumer_count() > 0)
}
