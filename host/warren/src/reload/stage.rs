//! Puts loaded plugins to work and takes them away: arrival, swap, change of type, removal.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use warren_protocol::{WorkerId, WorkerType};
use warren_runtime::{LoadError, Plugin};

use crate::{
    dispatch,
    equip::Equipment,
    host::Host,
    reach::NotGranted,
    registry::{Seat, Version, file_name},
    telemetry::logs::MANAGER_TARGET,
};

/// Deliveries that a worker may hold beyond two for each permit: those that are being settled.
const SETTLE_WINDOW: usize = 64;

/// Who serves what, and the rules for changing it.
pub(crate) struct Stage {
    host: Arc<Host>,
    equipment: Arc<Equipment>,
}

/// What was made of a plugin.
pub(crate) struct Placed {
    /// `loaded` or `swapped`.
    pub(crate) what: &'static str,
    /// What serves now.
    pub(crate) version: Arc<Version>,
}

/// Why a file does not serve.
pub(crate) struct Rejection {
    /// `read`, `validate`, `compile`, `link`, `probe`, `claim`, `grant`, `warm` or `join`.
    pub(crate) step: &'static str,
    pub(crate) error: String,
    /// The type that another file serves: it may become free.
    pub(crate) wanted: Option<WorkerType>,
}

impl From<LoadError> for Rejection {
    fn from(error: LoadError) -> Self {
        Self {
            step: error.step(),
            error: error.to_string(),
            wanted: None,
        }
    }
}

impl From<NotGranted> for Rejection {
    fn from(error: NotGranted) -> Self {
        Self {
            step: "grant",
            error: error.to_string(),
            wanted: None,
        }
    }
}

impl Stage {
    pub(crate) fn new(host: Arc<Host>, equipment: Arc<Equipment>) -> Self {
        Self { host, equipment }
    }

    /// The version that a file serves now.
    pub(super) fn serving(&self, file: &Path) -> Option<Arc<Version>> {
        self.seat_of(file).map(|seat| seat.current())
    }

    /// Puts a plugin to work. `yielding` are the files that give way: those that have just
    /// disappeared, and at the start those that come after this one. Whoever takes over the type of
    /// one of them continues its worker.
    pub(crate) async fn put(
        &mut self,
        file: &Path,
        plugin: Plugin,
        yielding: &[PathBuf],
        proven: bool,
    ) -> Result<Placed, Rejection> {
        let plugin = self.equipment.grant(plugin, file)?;
        let worker_type = plugin.description.worker_type.clone();
        let pinned = self.equipment.check_pin(&plugin, &file_name(file));
        pinned.map_err(|error| Rejection {
            step: "claim",
            error,
            wanted: None,
        })?;
        self.check_path(&worker_type, &plugin, file, yielding)?;
        let before = self.seat_of(file);
        let seat = self.host.registry.get(&worker_type);
        if let Some(seat) = &seat {
            let holder = seat.current().file.clone();
            if holder != file && !yielding.contains(&holder) {
                return Err(taken(&worker_type, file, &holder));
            }
        }
        let id = seat
            .as_ref()
            .map_or_else(|| WorkerId::draw(&worker_type), |seat| seat.id.clone());
        let version = self
            .equipment
            .version(&self.host, &id, plugin, file.to_owned());
        if proven {
            version.trial.trust();
        }
        version.pool.warm().await?;
        self.leave_other_type(before, &worker_type).await;
        match seat {
            Some(seat) => Ok(Placed {
                what: "swapped",
                version: self.swap(&seat, version),
            }),
            None => Ok(Placed {
                what: "loaded",
                version: self.arrive(id, version).await?,
            }),
        }
    }

    /// Takes away the worker of a file, if it has one.
    pub(super) async fn take_away(&mut self, file: &Path) {
        if let Some(seat) = self.seat_of(file) {
            self.remove(&seat).await;
        }
    }

    /// One path prefix leads to one worker.
    fn check_path(
        &self,
        worker_type: &WorkerType,
        plugin: &Plugin,
        file: &Path,
        yielding: &[PathBuf],
    ) -> Result<(), Rejection> {
        let Some(path) = self.equipment.http_path(worker_type, plugin) else {
            return Ok(());
        };
        let seats = self.host.registry.all();
        let holder = seats.iter().find(|seat| {
            let version = seat.current();
            let leaves = version.file == file || yielding.contains(&version.file);
            seat.id.worker_type() != worker_type
                && !leaves
                && version.http_path.as_ref() == Some(&path)
        });
        match holder {
            None => Ok(()),
            Some(holder) => Err(Rejection {
                step: "claim",
                error: format!(
                    "the path {path} leads to worker {} ({}) already; give {} another one with \
                     `http_path` in [workers.{worker_type}]",
                    holder.id.worker_type(),
                    holder.current().file_name(),
                    file_name(file)
                ),
                wanted: Some(holder.id.worker_type().clone()),
            }),
        }
    }

    fn seat_of(&self, file: &Path) -> Option<Arc<Seat>> {
        let seats = self.host.registry.all();
        seats.into_iter().find(|seat| seat.current().file == file)
    }

    /// A build that has changed its type is a removal and an arrival.
    async fn leave_other_type(&self, before: Option<Arc<Seat>>, worker_type: &WorkerType) {
        if let Some(seat) = before.filter(|seat| seat.id.worker_type() != worker_type) {
            self.remove(&seat).await;
        }
    }

    fn swap(&self, seat: &Arc<Seat>, version: Version) -> Arc<Version> {
        let before = seat.swap(version);
        let after = seat.current();
        self.note(&before, false);
        self.note(&after, true);
        self.host.metrics.reloaded("swapped");
        let plugin = after.pool.plugin();
        tracing::info!(
            target: MANAGER_TARGET,
            {
                "worker.type" = %seat.id.worker_type(),
                "worker.id" = %seat.id,
                "plugin.name" = after.file_name(),
                "plugin.version" = plugin.description.version,
                "plugin.digest" = plugin.digest.short(),
                before = before.pool.plugin().description.version,
                compile_ms = plugin.compile_time.as_millis() as u64,
                cached = plugin.is_cached,
            },
            "plugin swapped"
        );
        after
    }

    async fn arrive(&self, id: WorkerId, version: Version) -> Result<Arc<Version>, Rejection> {
        let worker_type = id.worker_type().clone();
        let permits = version.pool.worker().limits.concurrency;
        let prefetch = prefetch(permits, version.pool.worker().limits.deadline);
        let seat = Arc::new(Seat::new(
            id,
            version,
            prefetch,
            self.host.stopping.child_token(),
            self.host.interrupt.child_token(),
        ));
        // In the registry first: what is addressed to its id may come as soon as it has joined.
        self.host.registry.insert(seat.clone());
        let subscription = match self.host.bus.join(&seat.id, prefetch).await {
            Ok(subscription) => subscription,
            Err(error) => {
                self.host.registry.remove(&worker_type);
                return Err(Rejection {
                    step: "join",
                    error: error.to_string(),
                    wanted: None,
                });
            }
        };
        seat.set_joined();
        // Part of the host's work: what it has not started when the host stops, it puts back.
        self.host.work.spawn(dispatch::serve(
            self.host.clone(),
            seat.clone(),
            subscription,
        ));
        let serving = seat.current();
        self.note(&serving, true);
        self.host.metrics.sent(&worker_type, "worker_registration");
        self.host.metrics.reloaded("loaded");
        let plugin = serving.pool.plugin();
        tracing::info!(
            target: MANAGER_TARGET,
            {
                "worker.type" = %worker_type,
                "worker.id" = %seat.id,
                "plugin.name" = serving.file_name(),
                "plugin.version" = plugin.description.version,
                "plugin.digest" = plugin.digest.short(),
                http_path = serving.http_path,
                compile_ms = plugin.compile_time.as_millis() as u64,
                cached = plugin.is_cached,
            },
            "worker joined"
        );
        Ok(serving)
    }

    async fn remove(&self, seat: &Arc<Seat>) {
        let worker_type = seat.id.worker_type();
        self.host.registry.remove(worker_type);
        self.host.bus.leave(&seat.id).await;
        seat.retired.cancel();
        let version = seat.current();
        self.note(&version, false);
        self.host.metrics.reloaded("removed");
        tracing::info!(
            target: MANAGER_TARGET,
            {
                "worker.type" = %worker_type,
                "worker.id" = %seat.id,
                "plugin.name" = version.file_name(),
                running = version.pool.in_flight(),
            },
            "worker left"
        );
        let drain = drain(
            self.host.clone(),
            seat.clone(),
            self.equipment.config.drain_timeout,
        );
        self.host.work.spawn(drain);
    }

    fn note(&self, version: &Version, serves: bool) {
        let plugin = version.pool.plugin();
        let description = &plugin.description;
        self.host.metrics.serving(
            &description.worker_type,
            &description.version,
            &plugin.digest.short(),
            serves,
        );
    }
}

/// Lets a removed worker finish what it runs, in whatever version, then stops listening for its id.
async fn drain(host: Arc<Host>, seat: Arc<Seat>, timeout: Duration) {
    seat.runs.close();
    if tokio::time::timeout(timeout, seat.runs.wait())
        .await
        .is_err()
    {
        tracing::warn!("worker.id" = %seat.id, "jobs still ran after drain_timeout and are interrupted");
        seat.interrupt.cancel();
        seat.runs.wait().await;
    }
    host.bus.forget(&seat.id).await;
}

/// How many deliveries a worker may hold. What waits here, no other host can run: long jobs do not
/// wait in the host.
fn prefetch(permits: usize, deadline: Duration) -> u16 {
    const LONG: Duration = Duration::from_secs(300);
    let prefetch = if deadline > LONG {
        permits
    } else {
        permits.saturating_mul(2).saturating_add(SETTLE_WINDOW)
    };
    u16::try_from(prefetch).unwrap_or(u16::MAX)
}

/// Two files say that they are one type.
pub(super) fn taken(worker_type: &WorkerType, file: &Path, holder: &Path) -> Rejection {
    Rejection {
        step: "claim",
        error: format!(
            "worker type {worker_type} is served by {} already; remove one of the two, or give {} \
             another type",
            file_name(holder),
            file_name(file)
        ),
        wanted: Some(worker_type.clone()),
    }
}
