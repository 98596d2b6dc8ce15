//! Notices that something in a folder has changed. What it was is never trusted: the folder is
//! listed and compared.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::mpsc;

/// What tells one state of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) length: u64,
    modified: Option<SystemTime>,
    /// The inode, and when it was changed last: a file that may be read now is new, too.
    inode: (u64, i64),
}

impl Stamp {
    /// The stamp of a file; a symbolic link is followed.
    pub(super) fn of(file: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(file)?;
        #[cfg(unix)]
        let inode = {
            use std::os::unix::fs::MetadataExt;
            (metadata.ino(), metadata.ctime())
        };
        #[cfg(not(unix))]
        let inode = (0, 0);
        Ok(Self {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            inode,
        })
    }

    /// Whether this is of another file, and not of the same one with other content.
    pub(super) fn is_of_another_file_than(&self, other: &Self) -> bool {
        let ((own, _), (other, _)) = (self.inode, other.inode);
        own != other
    }

    /// Whether neither its content nor its place has changed for so long.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        let now = SystemTime::now();
        let is_old = |then: SystemTime| now.duration_since(then).is_ok_and(|past| past > age);
        #[cfg(unix)]
        let placed = {
            let (_, seconds) = self.inode;
            u64::try_from(seconds).ok().and_then(|seconds| {
                SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
            })
        };
        #[cfg(not(unix))]
        let placed = self.modified;
        self.modified.is_some_and(is_old) && placed.is_some_and(is_old)
    }
}

/// The plugin files of a folder: `*.wasm`, unless the name begins with a dot. (Copying tools write
/// to `.name.tmp` or `name.part` first, which this leaves out.)
pub(super) fn list(folder: &Path) -> io::Result<BTreeMap<PathBuf, Stamp>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let file = entry?.path();
        let hidden = file
            .file_name()
            .is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if hidden || file.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        // It may be gone by now, or be a folder.
        match Stamp::of(&file) {
            Ok(stamp) if file.is_file() => {
                files.insert(file, stamp);
            }
            _ => {}
        }
    }
    Ok(files)
}

/// Changes of a folder, as they come. The folder may be missing, appear later, or be a symbolic link
/// that leads elsewhere tomorrow.
pub(super) struct Changes {
    folder: PathBuf,
    recursive: RecursiveMode,
    notice: mpsc::Sender<()>,
    changed: mpsc::Receiver<()>,
    /// Watches as long as it lives. `None` where the system cannot watch this folder.
    watcher: Option<RecommendedWatcher>,
    /// Which folder is watched; `None`: none is there.
    watched: Option<FolderId>,
    has_complained: bool,
}

/// Tells a folder from another one that has taken its name.
type FolderId = (u64, u64);

impl Changes {
    /// Of the files of a folder.
    pub(super) fn of(folder: &Path) -> Self {
        Self::new(folder, RecursiveMode::NonRecursive)
    }

    /// Of the files of a folder and of the folders in it.
    pub(super) fn of_all(folder: &Path) -> Self {
        Self::new(folder, RecursiveMode::Recursive)
    }

    fn new(folder: &Path, recursive: RecursiveMode) -> Self {
        // One waiting notice is enough: it says "look", not what to see.
        let (notice, changed) = mpsc::channel(1);
        let mut changes = Self {
            folder: folder.to_owned(),
            recursive,
            notice,
            changed,
            watcher: None,
            watched: None,
            has_complained: false,
        };
        changes.follow();
        changes
    }

    /// Watches the folder that has the name now: another one may have taken it.
    pub(super) fn follow(&mut self) {
        let id = folder_id(&self.folder);
        if self.watched == id {
            return;
        }
        self.watched = id;
        self.watcher = None;
        if id.is_none() {
            return;
        }
        let (notice, folder) = (self.notice.clone(), self.folder.clone());
        // The parent tells of its other entries, too.
        // Some systems tell of whole paths, however the folder was named.
        let whole = std::path::absolute(&folder).unwrap_or_else(|_| folder.clone());
        let is_meant = move |path: &PathBuf| {
            path.starts_with(&folder)
                || path.starts_with(&whole)
                || path.file_name() == folder.file_name()
        };
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error may have swallowed a change.
            let is_one = event.map_or(true, |event| {
                // Without a path: some were lost.
                is_change(&event.kind)
                    && (event.paths.is_empty() || event.paths.iter().any(&is_meant))
            });
            if is_one {
                let _ = notice.try_send(());
            }
        })
        .and_then(|mut watcher| {
            watcher.watch(&self.folder, self.recursive)?;
            // Whoever replaces the folder itself, or a link that leads to it, changes its parent.
            let parent = match self.folder.parent() {
                Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".")),
                parent => parent,
            };
            if let Some(parent) = parent {
                // Where that is forbidden, looking from time to time has to do.
                let _ = watcher.watch(parent, RecursiveMode::NonRecursive);
            }
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                if !std::mem::replace(&mut self.has_complained, true) {
                    tracing::warn!(
                        folder = %self.folder.display(), %error,
                        "the folder cannot be watched, so it is looked at every two seconds"
                    );
                }
            }
        }
    }

    /// Returns when something has changed (`true`), or after `at_most`.
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    pub(super) async fn next(&mut self, at_most: Duration) -> bool {
        let notice = async {
            if self.changed.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
        };
        // Running out of time is the polling fallback.
        tokio::time::timeout(at_most, notice).await.is_ok()
    }
}

fn folder_id(folder: &Path) -> Option<FolderId> {
    let metadata = std::fs::metadata(folder).ok()?;
    #[cfg(unix)]
    let id = {
        use std::os::unix::fs::MetadataExt;
        (metadata.dev(), metadata.ino())
    };
    #[cfg(not(unix))]
    let id = (0, u64::from(metadata.is_dir()));
    Some(id)
}

/// Looking at the folder is an event too: to answer it by looking again would never end.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const A_WHILE: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn writing_a_file_is_a_change_and_looking_at_it_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut changes = Changes::of(folder.path());
        std::fs::write(folder.path().join("a.wasm"), "x").unwrap();
        assert!(changes.next(SOON).await);
        // One write is several events.
        while changes.next(A_WHILE).await {}
        let files = list(folder.path()).unwrap();
        for file in files.keys() {
            std::fs::read(file).unwrap();
        }
        assert!(!changes.next(A_WHILE).await);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_is_overwritten_is_the_same_and_one_that_takes_its_place_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("a.wasm"), folder.path().join("b.tmp"));
        std::fs::write(&file, "x").unwrap();
        let before = Stamp::of(&file).unwrap();
        std::fs::write(&file, "longer").unwrap();
        let overwritten = Stamp::of(&file).unwrap();
        assert_ne!(overwritten, before);
        assert!(!overwritten.is_of_another_file_than(&before));
        std::fs::write(&other, "x").unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert!(Stamp::of(&file).unwrap().is_of_another_file_than(&before));
    }

    #[test]
    fn only_complete_plugin_files_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.wasm", ".b.wasm", "c.wasm.tmp", "d.wasm.part", "e.txt"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(folder.path().join("f.wasm")).unwrap();
        let names: Vec<_> = list(folder.path()).unwrap().into_keys().collect();
        assert_eq!(names, [folder.path().join("a.wasm")]);
    }

    #[tokio::test]
    async fn a_folder_that_takes_the_place_of_another_is_followed() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("plugins");
        let mut changes = Changes::of(&folder);
        std::fs::create_dir(&folder).unwrap();
        changes.follow();
        std::fs::write(folder.join("a.wasm"), "x").unwrap();
        assert!(changes.next(SOON).await);
        while changes.next(A_WHILE).await {}
        // The parent tells of it, so nobody has to wait for the next look.
        std::fs::rename(&folder, place.path().join("old")).unwrap();
        std::fs::create_dir(&folder).unwrap();
        assert!(changes.next(SOON).await);
        changes.follow();
        while changes.next(A_WHILE).await {}
        std::fs::write(folder.join("b.wasm"), "x").unwrap();
        assert!(changes.next(SOON).await);
    }

    /// The folder of a host is named relative to where it was started, mostly.
    #[tokio::test]
    async fn a_folder_that_is_named_relatively_tells_of_its_files() {
        let here = std::env::current_dir().unwrap();
        let place = tempfile::tempdir_in(&here).unwrap();
        let folder = place.path().strip_prefix(&here).unwrap();
        let mut changes = Changes::of(folder);
        std::fs::write(folder.join("a.wasm"), "x").unwrap();
        assert!(changes.next(SOON).await);
    }
}
