//! Notices that a source of a project has changed.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use warren_project::{Project, is_source};

use super::say;

/// A burst of saves (an editor's "save all", a checkout) is one change.
const QUIET: Duration = Duration::from_millis(100);

/// The sources of one project.
pub(super) struct Sources {
    changed: mpsc::Receiver<()>,
    /// Watches as long as it lives.
    _watcher: Option<RecommendedWatcher>,
}

impl Sources {
    /// Watches what is there now; a folder that is added later wants a new `Sources`.
    pub(super) fn of(project: &Project) -> Self {
        let (notice, changed) = mpsc::channel(1);
        let roots = project.folders();
        let below = roots.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let is_source = |path: &PathBuf| {
                let mut roots = below.iter().filter(|root| path.starts_with(root));
                roots.any(|root| path != root && is_source(root, path))
            };
            let is_change = |event: &notify::Event| {
                !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(is_source)
            };
            if event.as_ref().is_ok_and(is_change) {
                let _ = notice.try_send(());
            }
        })
        .and_then(|mut watcher| {
            // What tools write is not watched at all: it would be thousands of folders.
            for root in &roots {
                watcher.watch(root, RecursiveMode::NonRecursive)?;
                for folder in source_folders(root) {
                    watcher.watch(&folder, RecursiveMode::Recursive)?;
                }
            }
            Ok(watcher)
        });
        let watcher = watcher
            .inspect_err(|error| {
                say(&format!(
                    "{}: sources cannot be watched ({error}); restart to build again",
                    project.name
                ))
            })
            .ok();
        Self {
            changed,
            _watcher: watcher,
        }
    }

    /// Returns when a source has changed and it has been quiet since.
    pub(super) async fn changed(&mut self) {
        if self.changed.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        while tokio::time::timeout(QUIET, self.changed.recv())
            .await
            .is_ok()
        {}
    }
}

/// The folders of a project that hold sources.
fn source_folders(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && is_source(root, path))
        .collect()
}
