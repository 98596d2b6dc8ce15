//! What became of each file of the plugins folder, for `/plugins`, `/readyz` and the log.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use warren_protocol::WorkerType;
use warren_runtime::Digest;

use super::stage::Rejection;
use crate::registry::Version;

/// The state of every file. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    files: BTreeMap<PathBuf, FileState>,
    started: bool,
}

/// What became of one file.
#[derive(Clone)]
pub(crate) enum FileState {
    /// It serves.
    Serving(Arc<Version>),
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

impl Shelf {
    /// Every file and what became of it.
    #[must_use]
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, FileState> {
        self.lock().files.clone()
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

    pub(super) fn serving(&self, file: &Path, version: Arc<Version>) {
        self.lock()
            .files
            .insert(file.to_owned(), FileState::Serving(version));
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

    pub(super) fn remove(&self, file: &Path) {
        self.lock().files.remove(file);
    }

    /// The type that the file would have served, had another one not been there before it.
    pub(super) fn wanted(&self, file: &Path) -> Option<WorkerType> {
        match self.lock().files.get(file) {
            Some(FileState::Rejected { wanted, .. }) => wanted.clone(),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
