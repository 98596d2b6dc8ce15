//! The versions of each worker that this host has served, on disk: what a rollback goes back to,
//! also after a restart and also when the plugins folder holds nothing but the bad build.
//!
//! A folder per worker type, a pair of files per version (the plugin and what is known of it), and
//! at most one [`Hold`]. Files appear by a rename; hosts and commands that share the folder need no
//! lock. Invariant: a plugin that is read from here is the one of its name, compared by digest.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use warren_protocol::WorkerType;
use warren_runtime::{Digest, private_folder};

const PLUGIN: &str = "wasm";
const ABOUT: &str = "json";
const HOLD: &str = "hold.json";

/// Where the versions are. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Versions {
    folder: PathBuf,
    /// Versions that are kept beside the one that serves; 0: none, and nothing can be rolled back.
    n_earlier: usize,
}

/// What is known of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The SHA-256 of the plugin.
    pub(crate) digest: String,
    /// What the plugin says of itself.
    pub(crate) version: String,
    /// The name of the file that it came in.
    pub(crate) file: String,
    pub(crate) size_bytes: u64,
    /// When it was put to work last, in milliseconds since 1970.
    pub(crate) since_ms: i64,
    /// Its first jobs have shown that it works.
    pub(crate) proven: bool,
    /// Why it was taken away, if it was.
    pub(crate) failed: Option<String>,
}

/// A build that is in the plugins folder and does not serve, and what serves in its place, until
/// another build is there or somebody takes the decision back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hold {
    /// The digest of the build that does not serve.
    pub(crate) digest: String,
    /// The digest of the version that does.
    pub(crate) serve: String,
    pub(crate) why: String,
    /// When it was decided, in milliseconds since 1970.
    pub(crate) at_ms: i64,
}

impl Versions {
    /// The versions in this folder, which is made when it is needed.
    pub(crate) fn new(folder: PathBuf, n_earlier: usize) -> Self {
        Self { folder, n_earlier }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The types that have versions here.
    pub(crate) fn types(&self) -> Vec<WorkerType> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut types: Vec<_> = names
            .filter_map(|name| WorkerType::new(&name).ok())
            .collect();
        types.sort();
        types
    }

    /// The versions of a type, the one that was put to work last first.
    pub(crate) fn of(&self, worker_type: &WorkerType) -> Vec<Kept> {
        let entries = fs::read_dir(self.of_type(worker_type))
            .into_iter()
            .flatten();
        let mut kept: Vec<Kept> = entries
            .filter_map(|entry| {
                let file = entry.ok()?.path();
                let digest = file.file_stem()?.to_str()?.to_owned();
                let about: Kept = read_json(&file)?;
                // One without its plugin is of no use.
                let plugin = file.with_extension(PLUGIN);
                (about.digest == digest && plugin.exists()).then_some(about)
            })
            .collect();
        kept.sort_by(|a, b| (b.since_ms, &b.digest).cmp(&(a.since_ms, &a.digest)));
        kept
    }

    /// Keeps a version that has just been put to work, and lets go of those that are too many.
    /// Blocks on the disk.
    pub(crate) fn keep(
        &self,
        worker_type: &WorkerType,
        mut about: Kept,
        plugin: &[u8],
    ) -> io::Result<()> {
        if self.n_earlier == 0 {
            return Ok(());
        }
        let folder = self.of_type(worker_type);
        private_folder::make(&folder)?;
        let file = folder.join(&about.digest).with_extension(PLUGIN);
        if !file.exists() {
            private_folder::write(&file, plugin)?;
        }
        if let Some(before) = self.get(worker_type, &about.digest) {
            about.proven |= before.proven;
        }
        // The order must hold also when the clock goes back.
        let newest = self
            .of(worker_type)
            .into_iter()
            .find(|kept| kept.digest != about.digest);
        if let Some(newest) = newest {
            about.since_ms = about.since_ms.max(newest.since_ms.saturating_add(1));
        }
        self.write(worker_type, &about)?;
        self.let_go(worker_type);
        Ok(())
    }

    /// The plugin of a version, as it was when it was kept. Blocks on the disk.
    pub(crate) fn plugin(&self, worker_type: &WorkerType, digest: &str) -> io::Result<Vec<u8>> {
        let file = self
            .of_type(worker_type)
            .join(digest)
            .with_extension(PLUGIN);
        let plugin = fs::read(&file)?;
        if Digest::of(&plugin).to_string() == digest {
            Ok(plugin)
        } else {
            Err(io::Error::other(format!(
                "{} is damaged: it is not what was kept",
                file.display()
            )))
        }
    }

    /// What is known of one version.
    pub(crate) fn get(&self, worker_type: &WorkerType, digest: &str) -> Option<Kept> {
        read_json(&self.of_type(worker_type).join(digest).with_extension(ABOUT))
    }

    /// The last version before this one that has not failed.
    pub(crate) fn before(&self, worker_type: &WorkerType, digest: &str) -> Option<Kept> {
        if self.n_earlier == 0 {
            return None;
        }
        let mut kept = self.of(worker_type).into_iter();
        // What was put to work after it does not come before it; one that is not kept is the last.
        let all = self.of(worker_type);
        if all.iter().any(|kept| kept.digest == digest) {
            kept.find(|kept| kept.digest == digest)?;
        }
        kept.find(|kept| kept.failed.is_none())
    }

    /// Notes that a version works.
    pub(crate) fn prove(&self, worker_type: &WorkerType, digest: &str) -> io::Result<()> {
        self.change(worker_type, digest, |kept| {
            kept.proven = true;
            kept.failed = None;
        })
    }

    /// Notes that a version serves again: nothing is held against it any more.
    pub(crate) fn pardon(&self, worker_type: &WorkerType, digest: &str) -> io::Result<()> {
        self.change(worker_type, digest, |kept| kept.failed = None)
    }

    /// The last version that came in a file of this name and has not failed.
    pub(crate) fn last_in(&self, file: &str) -> Option<(WorkerType, Kept)> {
        if self.n_earlier == 0 {
            return None;
        }
        let last = self.types().into_iter().filter_map(|worker_type| {
            let mut kept = self.of(&worker_type).into_iter();
            let last = kept.find(|kept| kept.file == file && kept.failed.is_none())?;
            Some((worker_type, last))
        });
        last.max_by_key(|(_, kept)| kept.since_ms)
    }

    /// Notes why a version was taken away.
    pub(crate) fn fail(&self, worker_type: &WorkerType, digest: &str, why: &str) -> io::Result<()> {
        self.change(worker_type, digest, |kept| {
            kept.failed = Some(why.to_owned())
        })
    }

    /// The decision against the build in the folder, if there is one.
    pub(crate) fn hold(&self, worker_type: &WorkerType) -> Option<Hold> {
        self.read_hold(worker_type).ok().flatten()
    }

    /// As [`Versions::hold`]; that it cannot be read is not that it was taken back.
    pub(crate) fn read_hold(&self, worker_type: &WorkerType) -> io::Result<Option<Hold>> {
        match fs::read(self.of_type(worker_type).join(HOLD)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Decides against a build.
    pub(crate) fn set_hold(&self, worker_type: &WorkerType, hold: &Hold) -> io::Result<()> {
        let folder = self.of_type(worker_type);
        private_folder::make(&folder)?;
        write_json(&folder.join(HOLD), hold)
    }

    /// Takes the decision back. Returns whether there was one.
    pub(crate) fn release(&self, worker_type: &WorkerType) -> io::Result<bool> {
        match fs::remove_file(self.of_type(worker_type).join(HOLD)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn change(
        &self,
        worker_type: &WorkerType,
        digest: &str,
        change: impl FnOnce(&mut Kept),
    ) -> io::Result<()> {
        match self.get(worker_type, digest) {
            Some(mut kept) => {
                change(&mut kept);
                self.write(worker_type, &kept)
            }
            None => Ok(()),
        }
    }

    fn write(&self, worker_type: &WorkerType, about: &Kept) -> io::Result<()> {
        let file = self.of_type(worker_type).join(&about.digest);
        write_json(&file.with_extension(ABOUT), about)
    }

    /// Removes the oldest beyond the number that is kept, but none that may have to serve.
    fn let_go(&self, worker_type: &WorkerType) {
        let needed = self.hold(worker_type).map(|hold| hold.serve);
        let kept = self.of(worker_type);
        // The last one that works outlives any number of builds that do not.
        let last_proven = kept.iter().skip(1).find(|kept| kept.proven).cloned();
        for old in kept.iter().skip(1 + self.n_earlier) {
            let is_needed = needed.as_ref() == Some(&old.digest)
                || last_proven
                    .as_ref()
                    .is_some_and(|proven| proven.digest == old.digest);
            if !is_needed {
                let file = self.of_type(worker_type).join(&old.digest);
                let _ = fs::remove_file(file.with_extension(ABOUT));
                let _ = fs::remove_file(file.with_extension(PLUGIN));
            }
        }
    }

    fn of_type(&self, worker_type: &WorkerType) -> PathBuf {
        self.folder.join(worker_type.as_str())
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(file: &Path) -> Option<T> {
    if file.extension().is_none_or(|kind| kind != ABOUT) {
        return None;
    }
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

fn write_json(file: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    private_folder::write(file, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ground {
        versions: Versions,
        worker_type: WorkerType,
        _folder: tempfile::TempDir,
    }

    impl Ground {
        fn new(n_earlier: usize) -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self {
                versions: Versions::new(folder.path().join("versions"), n_earlier),
                worker_type: WorkerType::new("WB").unwrap(),
                _folder: folder,
            }
        }

        /// Puts the build with this content to work.
        fn keep(&self, content: &str, since_ms: i64) -> String {
            let digest = Digest::of(content.as_bytes()).to_string();
            let about = Kept {
                digest: digest.clone(),
                version: content.to_owned(),
                file: "db.wasm".to_owned(),
                size_bytes: content.len() as u64,
                since_ms,
                proven: false,
                failed: None,
            };
            let kept = self
                .versions
                .keep(&self.worker_type, about, content.as_bytes());
            kept.unwrap();
            digest
        }

        fn kept(&self) -> Vec<String> {
            let kept = self.versions.of(&self.worker_type).into_iter();
            kept.map(|kept| kept.version).collect()
        }

        fn before(&self, digest: &str) -> Option<String> {
            let before = self.versions.before(&self.worker_type, digest);
            before.map(|kept| kept.version)
        }
    }

    #[test]
    fn so_many_are_kept_beside_the_one_that_serves() {
        let ground = Ground::new(2);
        for (since, content) in (0..).zip(["a", "b", "c", "d"]) {
            ground.keep(content, since);
        }
        assert_eq!(ground.kept(), ["d", "c", "b"]);
        assert_eq!(
            ground.versions.types(),
            std::slice::from_ref(&ground.worker_type)
        );
        let none = Ground::new(0);
        none.keep("a", 0);
        assert!(none.kept().is_empty());
    }

    #[test]
    fn the_last_one_that_works_and_the_one_that_serves_in_place_of_another_are_kept() {
        let ground = Ground::new(1);
        let (old, proven) = (ground.keep("old", 0), ground.keep("proven", 1));
        ground.versions.prove(&ground.worker_type, &proven).unwrap();
        let hold = Hold {
            digest: "x".to_owned(),
            serve: old,
            why: "it fails".to_owned(),
            at_ms: 0,
        };
        ground
            .versions
            .set_hold(&ground.worker_type, &hold)
            .unwrap();
        for (since, content) in (2..).zip(["a", "b", "c"]) {
            ground.keep(content, since);
        }
        assert_eq!(ground.kept(), ["c", "b", "proven", "old"]);
    }

    #[test]
    fn a_rollback_goes_back_to_the_last_version_that_has_not_failed() {
        let ground = Ground::new(9);
        let [a, b, c, d] = [("a", 0), ("b", 1), ("c", 2), ("d", 3)]
            .map(|(content, since)| ground.keep(content, since));
        assert_eq!(ground.before(&d).as_deref(), Some("c"));
        ground
            .versions
            .fail(&ground.worker_type, &c, "why")
            .unwrap();
        assert_eq!(ground.before(&d).as_deref(), Some("b"));
        assert_eq!(ground.before(&b).as_deref(), Some("a"));
        assert_eq!(ground.before(&a), None);
        // It is put to work again, and is the last one then, with nothing against it.
        ground.keep("c", 4);
        assert_eq!(ground.kept(), ["c", "d", "b", "a"]);
        assert_eq!(ground.before(&c).as_deref(), Some("d"));
    }

    #[test]
    fn what_was_proven_once_stays_so() {
        let ground = Ground::new(3);
        let digest = ground.keep("a", 0);
        ground.versions.prove(&ground.worker_type, &digest).unwrap();
        ground.keep("a", 7);
        let kept = ground.versions.get(&ground.worker_type, &digest).unwrap();
        assert!(kept.proven);
        assert_eq!(kept.since_ms, 7);
    }

    #[test]
    fn a_damaged_plugin_is_not_handed_out() {
        let ground = Ground::new(3);
        let digest = ground.keep("a", 0);
        let plugin = |digest: &str| ground.versions.plugin(&ground.worker_type, digest);
        assert_eq!(plugin(&digest).unwrap(), b"a");
        let folder = ground.versions.of_type(&ground.worker_type);
        fs::write(folder.join(&digest).with_extension(PLUGIN), "b").unwrap();
        plugin(&digest).unwrap_err();
    }

    #[test]
    fn a_decision_is_there_until_it_is_taken_back() {
        let ground = Ground::new(3);
        let (versions, worker_type) = (&ground.versions, &ground.worker_type);
        assert_eq!(versions.hold(worker_type), None);
        assert!(!versions.release(worker_type).unwrap());
        let hold = Hold {
            digest: "x".to_owned(),
            serve: "y".to_owned(),
            why: "z".to_owned(),
            at_ms: 1,
        };
        versions.set_hold(worker_type, &hold).unwrap();
        assert_eq!(versions.hold(worker_type), Some(hold));
        assert!(versions.release(worker_type).unwrap());
        assert_eq!(versions.hold(worker_type), None);
    }
}
