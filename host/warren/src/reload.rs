//! One plugin's way into the house, at the start and at every change: seen, read when it is quiet,
//! compared by digest, loaded, and only then put to work. A failure at any step leaves the version
//! before it serving.

mod shelf;
mod stage;
mod watch;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use warren_protocol::WorkerType;
use warren_runtime::{Digest, Engine, MAX_FILE_BYTES, Plugin};

use crate::{equip::Equipment, host::Host, registry::file_name};

pub(crate) use shelf::{FileState, Shelf};
use stage::{Rejection, Stage};
use watch::Stamp;

/// A file that has not changed for this long is complete: copying tools write without pauses, and
/// one that does pause leaves a file that does not validate.
const QUIET: Duration = Duration::from_millis(100);
/// How often the folder is looked at without being told of a change: some file systems (network
/// mounts) tell of none.
const POLL: Duration = Duration::from_secs(2);
/// The worker type under which a file that has not been asked yet writes its log.
const UNKNOWN_TYPE: &str = "unknown";

/// Keeps the workers of a host as its plugins folder says.
pub(crate) struct Reload {
    folder: PathBuf,
    engine: Engine,
    host: Arc<Host>,
    equipment: Arc<Equipment>,
    stage: Stage,
    shelf: Shelf,
    /// The files as they were last read.
    known: BTreeMap<PathBuf, Known>,
    folder_was_missing: bool,
}

struct Known {
    stamp: Stamp,
    /// `None` when it could not be read.
    digest: Option<Digest>,
}

/// A file whose content is new.
struct Candidate {
    file: PathBuf,
    stamp: Stamp,
    content: Result<Vec<u8>, Rejection>,
    digest: Option<Digest>,
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
    ) -> Self {
        Self {
            stage: Stage::new(host.clone(), equipment.clone()),
            folder,
            engine,
            host,
            equipment,
            shelf,
            known: BTreeMap::new(),
            folder_was_missing: false,
        }
    }

    /// Loads what is there, then follows every change until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut changes = watch::Changes::of(&self.folder);
        let follow = async {
            let mut again = self.scan(true).await;
            self.shelf.set_started();
            if self.shelf.paths().is_empty() {
                tracing::info!(folder = %self.folder.display(), "no plugins yet: copy a .wasm there");
            }
            loop {
                // A change that comes while a scan is under way is seen by the next one.
                if !again {
                    changes.next(POLL).await;
                }
                again = self.scan(false).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow => {}
        }
    }

    /// Compares the folder with what is known and makes the workers follow. Returns whether to look
    /// again at once.
    async fn scan(&mut self, at_start: bool) -> bool {
        let Some(files) = self.list() else {
            return false;
        };
        let mut gone = self.shelf.paths();
        gone.retain(|file| !files.contains_key(file));
        let candidates = self.read_changed(&files).await;
        if candidates.is_empty() && gone.is_empty() {
            return false;
        }
        for (candidate, loaded) in self.load(candidates).await {
            let Candidate {
                file,
                stamp,
                digest,
                ..
            } = candidate;
            self.known.insert(file.clone(), Known { stamp, digest });
            let applied = match loaded {
                Ok(plugin) => self.stage.put(&file, plugin, &gone).await,
                Err(rejection) => Err(rejection),
            };
            match applied {
                Ok(serving) => self.shelf.serving(&file, serving),
                Err(rejection) => self.reject(&file, digest, rejection, at_start),
            }
        }
        for file in gone {
            self.known.remove(&file);
            self.shelf.remove(&file);
            self.stage.take_away(&file).await;
        }
        // A file that was turned away because of another one gets its chance: the next scan finds
        // it new.
        let n_known = self.known.len();
        let (shelf, registry) = (&self.shelf, &self.host.registry);
        self.known.retain(|file, _| {
            let wanted = shelf.wanted(file);
            wanted.is_none_or(|wanted| registry.get(&wanted).is_some())
        });
        self.known.len() < n_known
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

    /// Reads the files whose stamp is new and has been quiet, and keeps those whose content is.
    async fn read_changed(&mut self, files: &BTreeMap<PathBuf, Stamp>) -> Vec<Candidate> {
        let is_new = |(file, stamp): &(&PathBuf, &Stamp)| {
            self.known
                .get(*file)
                .is_none_or(|known| known.stamp != **stamp)
        };
        let changed: Vec<(&PathBuf, &Stamp)> = files.iter().filter(is_new).collect();
        if changed.is_empty() {
            return Vec::new();
        }
        tokio::time::sleep(QUIET).await;
        let mut candidates = Vec::new();
        for (file, stamp) in changed {
            // Still being written: the next scan sees it again, because nothing is remembered.
            if Stamp::of(file).ok().as_ref() != Some(stamp) {
                continue;
            }
            let content = read(file, stamp).await;
            let digest = content.as_deref().ok().map(Digest::of);
            match self.known.get_mut(file) {
                // Touched, or written again with the same content.
                Some(known) if digest.is_some() && known.digest == digest => {
                    known.stamp = stamp.clone();
                }
                _ => candidates.push(Candidate {
                    file: file.clone(),
                    stamp: stamp.clone(),
                    content,
                    digest,
                }),
            }
        }
        candidates
    }

    /// Loads all at once, and returns them in the order of their names.
    async fn load(
        &self,
        candidates: Vec<Candidate>,
    ) -> Vec<(Candidate, Result<Plugin, Rejection>)> {
        let Ok(unknown) = WorkerType::new(UNKNOWN_TYPE) else {
            return Vec::new();
        };
        let scratch = self.equipment.scratch(unknown);
        let loads = candidates.into_iter().map(|mut candidate| {
            let (engine, scratch) = (self.engine.clone(), scratch.clone());
            async move {
                let loaded = match std::mem::replace(&mut candidate.content, Ok(Vec::new())) {
                    Err(rejection) => Err(rejection),
                    Ok(bytes) => {
                        tracing::info!(
                            plugin.name = file_name(&candidate.file),
                            bytes = bytes.len(),
                            "loading plugin"
                        );
                        engine.load(bytes, &scratch).await.map_err(Rejection::from)
                    }
                };
                (candidate, loaded)
            }
        });
        futures_util::future::join_all(loads).await
    }

    fn reject(&self, file: &Path, digest: Option<Digest>, rejection: Rejection, at_start: bool) {
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
        self.shelf
            .rejected(file, digest, rejection, at_start, still_serving.is_some());
    }
}

/// Reads a file that is not larger than a plugin may be.
async fn read(file: &Path, stamp: &Stamp) -> Result<Vec<u8>, Rejection> {
    let rejection = |error: String| Rejection {
        step: "read",
        error,
        wanted: None,
    };
    if stamp.length > MAX_FILE_BYTES as u64 {
        return Err(rejection(format!(
            "read: the file has {} bytes; at most {MAX_FILE_BYTES} are taken",
            stamp.length
        )));
    }
    tokio::fs::read(file)
        .await
        .map_err(|error| rejection(format!("read: {error}; allow this user to read the file")))
}
