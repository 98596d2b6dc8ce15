//! What became of each file of the plugins folder, for `/plugins`, `/readyz` and the log.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde::Serialize;
use warren_protocol::WorkerType;
use warren_runtime::Digest;

use super::stage::Rejection;
use crate::{
    clock::now_ms,
    registry::{Version, file_name},
    versions::Hold,
};

/// The state of every file. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    files: BTreeMap<PathBuf, FileState>,
    /// What has happened, the newest last.
    history: VecDeque<Happening>,
    started: bool,
}

/// What became of one file.
#[derive(Clone)]
pub(crate) enum FileState {
    /// It is new here and on its way: this step is being taken, since then.
    Loading(&'static str, Instant),
    /// It serves.
    Serving(Arc<Version>),
    /// A version before it serves in its place.
    Held { hold: Hold, serving: Arc<Version> },
    /// It was turned away.
    Rejected {
        /// The content that was turned away; `None` when it could not be read.
        digest: Option<Digest>,
        /// The step that failed.
        step: &'static str,
        /// Why, and what to do.
        error: String,
        /// The type that another file serves.
        wanted: Option<WorkerType>,
        /// It was there when the host started.
        at_start: bool,
        /// The version before it goes on serving.
        old_version_serves: bool,
    },
}

/// Something that has happened to a plugin.
#[derive(Clone, Serialize)]
pub(crate) struct Happening {
    /// Milliseconds since 1970.
    at_ms: u64,
    /// `loaded`, `swapped`, `rejected`, `rolled-back` or `removed`.
    what: &'static str,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// What is remembered of the past.
const MAX_HISTORY: usize = 200;

impl Shelf {
    /// Every file and what became of it.
    #[must_use]
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, FileState> {
        self.lock().files.clone()
    }

    /// What has happened, the newest first.
    #[must_use]
    pub(crate) fn history(&self) -> Vec<Happening> {
        self.lock().history.iter().rev().cloned().collect()
    }

    /// The state of one file.
    pub(super) fn state(&self, file: &Path) -> Option<FileState> {
        self.lock().files.get(file).cloned()
    }

    /// Whether nothing has become of a file yet.
    pub(super) fn is_loading(&self, file: &Path) -> bool {
        matches!(self.lock().files.get(file), Some(FileState::Loading(..)))
    }

    /// The files.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.lock().files.keys().cloned().collect()
    }

    /// Whether everything that was there at the start has been looked at.
    #[must_use]
    pub(crate) fn is_started(&self) -> bool {
        self.lock().started
    }

    pub(crate) fn set_started(&self) {
        self.lock().started = true;
    }

    /// The step that a file is at. What serves under its name is still shown.
    pub(super) fn loading(&self, file: &Path, step: &'static str) {
        let mut inner = self.lock();
        match inner.files.get_mut(file) {
            None => {
                let state = FileState::Loading(step, Instant::now());
                inner.files.insert(file.to_owned(), state);
            }
            Some(FileState::Loading(current, _)) => *current = step,
            Some(_) => {}
        }
    }

    pub(super) fn serving(&self, file: &Path, version: Arc<Version>, what: &'static str) {
        self.note(Happening::of(what, file, Some(&version), None));
        let state = FileState::Serving(version);
        self.lock().files.insert(file.to_owned(), state);
    }

    pub(super) fn held(&self, file: &Path, hold: Hold, serving: Arc<Version>) {
        self.note(Happening::of(
            "rolled-back",
            file,
            Some(&serving),
            Some(&hold.why),
        ));
        let state = FileState::Held { hold, serving };
        self.lock().files.insert(file.to_owned(), state);
    }

    pub(super) fn rejected(
        &self,
        file: &Path,
        digest: Option<Digest>,
        rejection: Rejection,
        at_start: bool,
        old_version_serves: bool,
    ) {
        let Rejection {
            step,
            error,
            wanted,
        } = rejection;
        let mut happening = Happening::of("rejected", file, None, Some(&error));
        happening.digest = digest.map(|digest| digest.to_string());
        self.note(happening);
        let state = FileState::Rejected {
            digest,
            step,
            error,
            wanted,
            at_start,
            old_version_serves,
        };
        self.lock().files.insert(file.to_owned(), state);
    }

    /// The file has another name now.
    pub(super) fn forget(&self, file: &Path) {
        self.lock().files.remove(file);
    }

    pub(super) fn remove(&self, file: &Path) {
        let removed = self.lock().files.remove(file);
        if let Some(
            FileState::Serving(version)
            | FileState::Held {
                serving: version, ..
            },
        ) = removed
        {
            self.note(Happening::of("removed", file, Some(&version), None));
        }
    }

    /// The type that the file would have served, had another one not been there before it.
    pub(super) fn wanted(&self, file: &Path) -> Option<WorkerType> {
        match self.lock().files.get(file) {
            Some(FileState::Rejected { wanted, .. }) => wanted.clone(),
            _ => None,
        }
    }

    fn note(&self, happening: Happening) {
        let mut inner = self.lock();
        if inner.history.len() >= MAX_HISTORY {
            inner.history.pop_front();
        }
        inner.history.push_back(happening);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Happening {
    fn of(
        what: &'static str,
        file: &Path,
        version: Option<&Arc<Version>>,
        why: Option<&str>,
    ) -> Self {
        let plugin = version.map(|version| version.pool.plugin());
        Self {
            at_ms: now_ms(),
            what,
            file: file_name(file),
            worker_type: plugin.map(|plugin| plugin.description.worker_type.to_string()),
            version: plugin.map(|plugin| plugin.description.version.clone()),
            digest: plugin.map(|plugin| plugin.digest.to_string()),
            why: why.map(str::to_owned),
        }
    }
}
