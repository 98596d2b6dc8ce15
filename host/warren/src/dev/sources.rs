//! Notices that a source of a workspace has changed.

use std::{
    ffi::OsStr,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::say;

/// A burst of saves (an editor's "save all", a checkout) is one change.
const QUIET: Duration = Duration::from_millis(100);

/// The sources below one folder.
pub(super) struct Sources {
    changed: mpsc::Receiver<()>,
    /// Watches as long as it lives.
    _watcher: Option<RecommendedWatcher>,
}

impl Sources {
    /// Watches what is there now; a folder that is added later wants a new `Sources`.
    pub(super) fn of(folder: &Path) -> Self {
        let (notice, changed) = mpsc::channel(1);
        let root = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let below = root.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let is_source = |event: &notify::Event| {
                !matches!(event.kind, EventKind::Access(_))
                    && event.paths.iter().any(|path| is_source(&below, path))
            };
            if event.as_ref().is_ok_and(is_source) {
                let _ = notice.try_send(());
            }
        })
        .and_then(|mut watcher| {
            // What cargo writes is not watched at all: it would be thousands of folders.
            watcher.watch(&root, RecursiveMode::NonRecursive)?;
            for folder in source_folders(&root) {
                watcher.watch(&folder, RecursiveMode::Recursive)?;
            }
            Ok(watcher)
        });
        let watcher = watcher
            .inspect_err(|error| {
                say(&format!(
                    "sources cannot be watched ({error}); restart to build again"
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

/// The folders of a workspace that hold sources.
fn source_folders(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && path.file_name().is_some_and(|name| !is_ignored(name)))
        .collect()
}

/// Cargo's output, and what is hidden.
fn is_ignored(name: &OsStr) -> bool {
    name == OsStr::new("target") || name.to_string_lossy().starts_with('.')
}

/// Rust, Cargo and WIT files, not what cargo writes itself.
fn is_source(root: &Path, path: &Path) -> bool {
    let inside = path.strip_prefix(root).unwrap_or(path);
    let ignored = |part: Component<'_>| is_ignored(part.as_os_str());
    let source = |extension: &OsStr| {
        ["rs", "toml", "wit"]
            .iter()
            .any(|known| extension == OsStr::new(known))
    };
    !inside.components().any(ignored) && path.extension().is_some_and(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_and_editors_write_is_no_source() {
        let check = |path: &str, expected| {
            assert_eq!(
                is_source(Path::new("/g"), &Path::new("/g").join(path)),
                expected,
                "{path}"
            );
        };
        check("pilot/src/lib.rs", true);
        check("pilot/Cargo.toml", true);
        check("wit/deps/x.wit", true);
        check("target/release/build.rs", false);
        check("pilot/src/.lib.rs.swp", false);
        check("pilot/README.md", false);
        check("Cargo.lock", false);
    }
}
