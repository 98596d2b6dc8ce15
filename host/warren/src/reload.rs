//! One plugin's way into the house, at the start and at every change:
//!
//! 1. watch: something in the folder has changed, so it is compared with what is known
//!    ([`watch`]);
//! 2. read when it is quiet, validate, compile or find compiled, link, probe ([`prepare`]), for all
//!    files beside each other;
//! 3. claim its type, warm a first instance, swap, announce ([`stage`]), one after the other, each
//!    as soon as it is prepared;
//! 4. watch its first jobs, and go back to the version before when they all fail ([`rollback`]).
//!
//! A failure at any step leaves the version before it serving. What became of each file is on the
//! [`Shelf`].

mod prepare;
mod progress;
mod rollback;
mod shelf;
mod stage;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use warren_protocol::WorkerType;
use warren_runtime::{Digest, Engine, Plugin};

use crate::{
    clock::now_ms,
    equip::Equipment,
    host::Host,
    registry::file_name,
    versions::{Hold, Kept, Versions},
};

use prepare::{Before, Found, Loaded, Prepared, Workshop};
use progress::Progress;
pub(crate) use shelf::{FileState, Shelf};
use stage::taken;
pub(crate) use stage::{Rejection, Stage};
use watch::{Changes, Stamp};

/// How often the folder is looked at without being told of a change: some file systems (network
/// mounts) tell of none.
const POLL: Duration = Duration::from_secs(2);
/// A file that has disappeared for less than this is being replaced: its worker stays.
const MISSED_AFTER: Duration = Duration::from_secs(1);

/// Keeps the workers of a host as its plugins folder says.
pub(crate) struct Reload {
    folder: PathBuf,
    host: Arc<Host>,
    workshop: Workshop,
    stage: Stage,
    shelf: Shelf,
    versions: Versions,
    /// The files as they were last read.
    known: BTreeMap<PathBuf, Known>,
    /// The files that are on their way.
    loading: BTreeMap<PathBuf, Loading>,
    loads: JoinSet<Loaded>,
    serial: u64,
    /// The files that have disappeared, and when.
    gone: BTreeMap<PathBuf, Instant>,
    /// The files of the start; `None` when all of them have been looked at.
    starting: Option<BTreeSet<PathBuf>>,
    /// Those of the start that are still on their way.
    progress: Progress,
    folder_was_missing: bool,
    /// What failed and could not be rolled back, so that it is told once.
    hopeless: HashSet<Digest>,
    /// Decisions that could not be written down, and those that are about a build that does not
    /// even load.
    holds: BTreeMap<WorkerType, Hold>,
}

struct Known {
    stamp: Option<Stamp>,
    /// `None` when it could not be read.
    digest: Option<Digest>,
}

struct Loading {
    serial: u64,
    stamp: Stamp,
    before: Before,
    abort: AbortHandle,
}

impl Reload {
    /// Nothing is read yet.
    #[must_use]
    pub(crate) fn new(
        folder: PathBuf,
        engine: Engine,
        host: Arc<Host>,
        equipment: Arc<Equipment>,
        shelf: Shelf,
        versions: Versions,
    ) -> Self {
        Self {
            stage: Stage::new(host.clone(), equipment.clone()),
            workshop: Workshop {
                engine,
                equipment,
                shelf: shelf.clone(),
            },
            folder,
            host,
            shelf,
            versions,
            known: BTreeMap::new(),
            loading: BTreeMap::new(),
            loads: JoinSet::new(),
            serial: 0,
            gone: BTreeMap::new(),
            starting: Some(BTreeSet::new()),
            progress: Progress::default(),
            folder_was_missing: false,
            hopeless: HashSet::new(),
            holds: BTreeMap::new(),
        }
    }

    /// Loads what is there, then follows every change until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut files = Changes::of(&self.folder);
        let mut decisions = Changes::of_all(self.versions.folder());
        let host = self.host.clone();
        self.scan().await;
        self.starting = Some(self.loading.keys().cloned().collect());
        self.progress = Progress::begin(self.loading.len());
        loop {
            self.note_started();
            let patience = self.patience();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(loaded) = self.loads.join_next(), if !self.loads.is_empty() => match loaded {
                    Ok(loaded) => self.apply(loaded).await,
                    Err(error) => self.note_lost(&error),
                },
                _ = files.next(patience) => {
                    files.follow();
                    self.scan().await;
                    self.obey().await;
                }
                true = decisions.next(POLL) => {
                    self.obey().await;
                }
                () = host.judged.notified() => self.judge().await,
            }
            decisions.follow();
        }
    }

    /// Everything that was there at the start has been looked at.
    fn note_started(&mut self) {
        let loading = &self.loading;
        self.progress.show(&self.shelf);
        let is_over =
            |files: &BTreeSet<PathBuf>| files.iter().all(|file| !loading.contains_key(file));
        if self.starting.as_ref().is_some_and(is_over) {
            self.starting = None;
            self.progress.end();
            self.shelf.set_started();
            if self.shelf.paths().is_empty() {
                tracing::info!(folder = %self.folder.display(), "no plugins yet: copy a .wasm there");
            }
        }
    }

    /// How long until the folder is looked at, unless something changes.
    fn patience(&self) -> Duration {
        let gone = self.gone.values().map(Instant::elapsed);
        let next = gone.filter_map(|elapsed| MISSED_AFTER.checked_sub(elapsed));
        let shown = self.starting.is_some().then_some(Progress::INTERVAL);
        let shortest = next.chain(shown).min().unwrap_or(POLL);
        shortest.clamp(Duration::from_millis(10), POLL)
    }

    /// A file's task has ended without a result: it was given up for a later one, or it panicked.
    fn note_lost(&mut self, error: &JoinError) {
        if !error.is_panic() {
            return;
        }
        let lost = self
            .loading
            .iter()
            .find(|(_, loading)| loading.abort.id() == error.id());
        if let Some(file) = lost.map(|(file, _)| file.clone()) {
            self.loading.remove(&file);
            let rejection = Rejection {
                step: "compile",
                error: format!("the host could not make a plugin of it: {error}"),
                wanted: None,
            };
            self.reject(&file, None, rejection);
        }
    }

    /// Compares the folder with what is known, and begins to load what is new.
    async fn scan(&mut self) {
        let Some(files) = self.list() else {
            return;
        };
        let paths = self.shelf.paths();
        for file in paths.iter().chain(self.loading.keys()) {
            if !files.contains_key(file) {
                self.gone.entry(file.clone()).or_insert_with(Instant::now);
            }
        }
        self.gone.retain(|file, _| !files.contains_key(file));
        for (file, stamp) in files {
            let is_known = self
                .known
                .get(&file)
                .is_some_and(|known| known.stamp.as_ref() == Some(&stamp));
            let is_on_its_way = self
                .loading
                .get(&file)
                .is_some_and(|loading| loading.stamp == stamp);
            if !is_on_its_way && (!is_known || self.loading.contains_key(&file)) {
                self.begin(file, stamp);
            }
        }
        self.take_away().await;
    }

    /// The plugin files in the folder. `None` when it cannot be listed: that is no reason to stop
    /// what serves.
    fn list(&mut self) -> Option<BTreeMap<PathBuf, Stamp>> {
        match watch::list(&self.folder) {
            Ok(files) => {
                self.folder_was_missing = false;
                Some(files)
            }
            Err(error) => {
                // What has disappeared with its folder comes back with it.
                self.gone.clear();
                if !std::mem::replace(&mut self.folder_was_missing, true) {
                    tracing::warn!(
                        folder = %self.folder.display(), %error,
                        "the plugins folder cannot be read; what serves goes on serving"
                    );
                }
                None
            }
        }
    }

    /// Begins to load a file. What is on its way under the same name is given up.
    fn begin(&mut self, file: PathBuf, stamp: Stamp) {
        self.serial += 1;
        let (serial, workshop, path) = (self.serial, self.workshop.clone(), file.clone());
        let before = self.before(&file);
        let known = before.clone();
        self.shelf.loading(&file, "read");
        let abort = self.loads.spawn(async move {
            let prepared = workshop.prepare(&path, &known).await;
            Loaded {
                file: path,
                serial,
                prepared,
            }
        });
        let loading = Loading {
            serial,
            stamp,
            before,
            abort,
        };
        if let Some(earlier) = self.loading.insert(file, loading) {
            earlier.abort.abort();
        }
    }

    /// What is known of a file that is going to be loaded.
    fn before(&self, file: &Path) -> Before {
        let known = self.known.get(file);
        let stamp = match self.loading.get(file) {
            // It is known already, although nothing has come of it.
            Some(loading) if loading.before.is_read.load(Relaxed) => Some(loading.stamp.clone()),
            Some(loading) => loading.before.stamp.clone(),
            None => known.and_then(|known| known.stamp.clone()),
        };
        Before {
            stamp,
            digest: known.and_then(|known| known.digest),
            ..Before::default()
        }
    }

    /// A file has been prepared: puts it to work, or says why not.
    async fn apply(&mut self, loaded: Loaded) {
        let Loaded {
            file,
            serial,
            prepared,
        } = loaded;
        if self
            .loading
            .get(&file)
            .is_none_or(|loading| loading.serial != serial)
        {
            return;
        }
        self.loading.remove(&file);
        let Prepared {
            stamp,
            digest,
            found,
        } = prepared;
        // It has disappeared while it was read; the next scan sees it, or its successor.
        if stamp.is_none() {
            if self.shelf.is_loading(&file) {
                self.shelf.remove(&file);
            }
            return self.take_away().await;
        }
        self.known.insert(file.clone(), Known { stamp, digest });
        match found {
            Ok(Found::TheSame) => {}
            Ok(Found::Plugin(plugin, bytes)) => self.put_to_work(&file, *plugin, bytes).await,
            Err(rejection) => {
                self.reject(&file, digest, rejection);
                self.serve_kept(&file, digest).await;
            }
        }
        self.take_away().await;
    }

    /// Lets a new plugin serve, unless it was decided that this build does not.
    async fn put_to_work(&mut self, file: &Path, plugin: Plugin, bytes: Bytes) {
        let (worker_type, digest) = (plugin.description.worker_type.clone(), plugin.digest);
        let yielding = self.yielding(file);
        if let Some(hold) = self.hold(&worker_type) {
            let is_meant = hold.digest == digest.to_string();
            if is_meant && self.serve_instead(file, &worker_type, hold).await {
                return self.send_away(file, &yielding, &worker_type).await;
            }
            self.release(&worker_type);
        }
        let kept = self.versions.get(&worker_type, &digest.to_string());
        let proven = kept.is_some_and(|kept| kept.proven);
        match self.stage.put(file, plugin, &yielding, proven).await {
            Ok(placed) => {
                self.hopeless.remove(&digest);
                self.shelf
                    .serving(file, placed.version.clone(), placed.what);
                self.host.metrics.held(&worker_type, false);
                self.send_away(file, &yielding, &worker_type).await;
                let version = &placed.version.pool.plugin().description.version;
                self.keep(file, version, digest, worker_type, bytes).await;
            }
            Err(rejection) => {
                self.reject(file, Some(digest), rejection);
                self.serve_kept(file, Some(digest)).await;
            }
        }
    }

    /// The files that give way to this one: those that have disappeared, and at the start, where
    /// the order of names decides, those after it.
    fn yielding(&self, file: &Path) -> Vec<PathBuf> {
        let starting = self
            .starting
            .iter()
            .flatten()
            .filter(|other| other.as_path() > file);
        let is_starting = self
            .starting
            .as_ref()
            .is_some_and(|files| files.contains(file));
        let later = starting.filter(|_| is_starting);
        self.gone.keys().chain(later).cloned().collect()
    }

    /// Says of the files that gave way to this one that they did: to its type, or to its path.
    async fn send_away(&mut self, file: &Path, yielding: &[PathBuf], worker_type: &WorkerType) {
        let path = self
            .stage
            .serving(file)
            .and_then(|version| version.http_path.clone());
        for other in yielding {
            let served = match self.shelf.state(other) {
                Some(
                    FileState::Serving(version)
                    | FileState::Held {
                        serving: version, ..
                    },
                ) => version,
                _ => continue,
            };
            let plugin = served.pool.plugin();
            let is_same_type = plugin.description.worker_type == *worker_type;
            let is_same_path = path.is_some() && served.http_path == path;
            if !is_same_type && !is_same_path {
                continue;
            }
            if is_same_type && self.gone.remove(other).is_some() {
                // It has another name now: nothing has left.
                self.known.remove(other);
                self.shelf.forget(other);
            } else if !self.gone.contains_key(other) {
                // Of one type, its worker has a new version already.
                self.stage.take_away(other).await;
                let rejection = Rejection {
                    wanted: Some(worker_type.clone()),
                    ..taken(worker_type, other, file)
                };
                self.reject(other, Some(plugin.digest), rejection);
            }
        }
    }

    /// Keeps what serves now, for the day on which its successor fails.
    async fn keep(
        &self,
        file: &Path,
        version: &str,
        digest: Digest,
        worker_type: WorkerType,
        bytes: Bytes,
    ) {
        let about = Kept {
            digest: digest.to_string(),
            version: version.to_owned(),
            file: file_name(file),
            size_bytes: bytes.len() as u64,
            since_ms: i64::try_from(now_ms()).unwrap_or(i64::MAX),
            proven: false,
            failed: None,
        };
        let versions = self.versions.clone();
        let kept =
            tokio::task::spawn_blocking(move || versions.keep(&worker_type, about, &bytes)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(
                folder = %self.versions.folder().display(), %error,
                "this version cannot be kept, so nothing can go back to it"
            );
        }
    }

    /// Takes away the workers of the files that are gone for good, but not while a file is on its
    /// way that may take one over.
    async fn take_away(&mut self) {
        let missed: Vec<PathBuf> = self
            .gone
            .iter()
            .filter(|(_, since)| since.elapsed() >= MISSED_AFTER)
            .map(|(file, _)| file.clone())
            .collect();
        for file in missed {
            if let Some(loading) = self.loading.remove(&file) {
                loading.abort.abort();
            }
            let (gone, loading) = (&self.gone, &self.loading);
            if loading.keys().any(|file| !gone.contains_key(file)) {
                continue;
            }
            self.gone.remove(&file);
            self.known.remove(&file);
            if let Some(version) = self.stage.serving(&file) {
                let worker_type = &version.pool.plugin().description.worker_type;
                self.host.metrics.held(worker_type, false);
            }
            self.shelf.remove(&file);
            self.stage.take_away(&file).await;
        }
        // A file that was turned away because of another one gets its chance: the next scan finds
        // it new.
        let (shelf, registry) = (&self.shelf, &self.host.registry);
        self.known.retain(|file, _| {
            let wanted = shelf.wanted(file);
            wanted.is_none_or(|wanted| registry.get(&wanted).is_some())
        });
    }

    fn reject(&self, file: &Path, digest: Option<Digest>, rejection: Rejection) {
        let still_serving = self.stage.serving(file);
        tracing::error!(
            plugin.name = file_name(file),
            plugin.digest = digest.map(|digest| digest.short()),
            stage = rejection.step,
            error = rejection.error,
            still_serving = still_serving.as_ref().map(|version| version
                .pool
                .plugin()
                .description
                .version
                .as_str()),
            "plugin rejected"
        );
        self.host.metrics.reloaded("rejected");
        let at_start = self
            .starting
            .as_ref()
            .is_some_and(|files| files.contains(file));
        self.shelf
            .rejected(file, digest, rejection, at_start, still_serving.is_some());
    }
}
