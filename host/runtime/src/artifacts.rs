//! Compiled plugins on disk: a plugin that was compiled once is ready in a millisecond, and not in
//! the seconds that compiling a large one takes.
//!
//! Invariant: what is mapped here runs as native code, so nothing is mapped that this program has
//! not written. The folder belongs to this user and nobody else may write to it; a file's name
//! holds the digest of what it was compiled from, of the engine that compiled it, and of its own
//! content, which is compared before it is mapped; files appear by a rename and never change.

use std::{
    fs,
    hash::{Hash, Hasher},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;

use crate::{Digest, private_folder};

/// The kind of file.
const EXTENSION: &str = "cwasm";
/// A file that was begun and never finished: its writer was killed.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Where compiled plugins are kept, and how much room they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactsConfig {
    /// The folder; made when it is missing, with access for this user alone.
    pub folder: PathBuf,
    /// All files together, in bytes. Those that were not used for the longest time go first.
    pub max_bytes: u64,
}

/// The compiled plugins of one engine.
pub(crate) struct Artifacts {
    config: ArtifactsConfig,
    /// What the code depends on: wasmtime, its settings and this processor.
    engine: String,
    has_complained: AtomicBool,
}

impl Artifacts {
    /// # Errors
    /// When the folder cannot be made, or others may write to it.
    pub(crate) fn open(config: ArtifactsConfig, engine: &wasmtime::Engine) -> io::Result<Self> {
        private_folder::make(&config.folder)?;
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            config,
            engine: short(&hasher.0.finalize().into()),
            has_complained: AtomicBool::new(false),
        })
    }

    /// The compiled code of a plugin, if it is there and whole. Blocks on the disk.
    pub(crate) fn load(&self, engine: &wasmtime::Engine, plugin: &Digest) -> Option<Component> {
        let prefix = self.prefix(plugin);
        let entries = fs::read_dir(&self.config.folder).ok()?;
        let file = entries.filter_map(Result::ok).find_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.starts_with(&prefix).then(|| entry.path())
        })?;
        match self.map(engine, &file, &prefix) {
            Ok(component) => {
                touch(&file);
                Some(component)
            }
            Err(why) => {
                tracing::warn!(
                    file = %file.display(), why,
                    "a compiled plugin cannot be used; it is removed, and compiled anew"
                );
                let _ = fs::remove_file(&file);
                None
            }
        }
    }

    /// Keeps the compiled code of a plugin. That it cannot be kept is told once: the plugin serves
    /// all the same. Blocks on the disk.
    pub(crate) fn store(&self, code: &[u8], plugin: &Digest) {
        if let Err(error) = self.write(code, plugin)
            && !self.has_complained.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                folder = %self.config.folder.display(), %error,
                "compiled plugins cannot be kept, so the next start compiles them again"
            );
        }
    }

    fn write(&self, code: &[u8], plugin: &Digest) -> io::Result<()> {
        if code.len() as u64 > self.config.max_bytes {
            return Ok(());
        }
        let name = format!("{}{}.{EXTENSION}", self.prefix(plugin), Digest::of(code));
        let file = self.config.folder.join(name);
        private_folder::write_soon(&file, code)?;
        self.make_room(&file)
    }

    fn map(
        &self,
        engine: &wasmtime::Engine,
        file: &Path,
        prefix: &str,
    ) -> Result<Component, String> {
        let content = fs::read(file).map_err(|error| error.to_string())?;
        let name = file.file_name().and_then(|name| name.to_str());
        let digest = name
            .and_then(|name| name.strip_prefix(prefix))
            .and_then(|rest| rest.strip_suffix(EXTENSION)?.strip_suffix('.'));
        if digest != Some(&Digest::of(&content).to_string()) {
            return Err("its content is not what was written".to_owned());
        }
        drop(content);
        // SAFETY: the code is what `write` got from our compiler: nobody else can write to the folder,
        // the name holds the digest of the content, and a file is never changed in place.
        #[expect(unsafe_code, reason = "mapping code that this program has compiled")]
        let component = unsafe { Component::deserialize_file(engine, file) };
        component.map_err(|error| format!("{error:#}"))
    }

    /// Removes what was not used for the longest time until the rest fits, and what was never
    /// finished.
    fn make_room(&self, newest: &Path) -> io::Result<()> {
        let now = SystemTime::now();
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.config.folder)? {
            let entry = entry?;
            // Another host that shares the folder may have removed it.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let (path, used) = (entry.path(), metadata.modified().unwrap_or(now));
            if path.extension().is_some_and(|kind| kind == EXTENSION) {
                files.push((used, metadata.len(), path));
            } else if now.duration_since(used).is_ok_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(path);
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if total <= self.config.max_bytes {
                break;
            }
            if path != newest {
                // Code that is mapped stays so until it is not used any more. Another host that
                // shares the folder may have been quicker.
                let _ = fs::remove_file(&path);
                total -= length;
            }
        }
        Ok(())
    }

    fn prefix(&self, plugin: &Digest) -> String {
        format!("{plugin}.{}.", self.engine)
    }
}

/// Takes code that our compiler has handed over just now, and that nobody keeps.
pub(crate) fn deserialize(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: it comes from `precompile`, in this process or by a pipe of a process of this program. A
    // file that takes that process over has this one, too: its bounds are no sandbox.
    #[expect(unsafe_code, reason = "mapping code that this program has compiled")]
    unsafe {
        Component::deserialize(engine, code)
    }
}

/// Notes that a file was used.
fn touch(file: &Path) {
    let touched = fs::File::options()
        .append(true)
        .open(file)
        .and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = touched {
        tracing::debug!(file = %file.display(), %error, "the time of use could not be noted");
    }
}

/// The first 16 hexadecimal digits: enough to tell engines apart.
fn short(digest: &[u8; 32]) -> String {
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Unlike the standard library's hasher, the same in every release.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Not what this is for.
    fn finish(&self) -> u64 {
        let digest: [u8; 32] = self.0.clone().finalize().into();
        digest
            .iter()
            .take(8)
            .fold(0, |n, byte| n << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: u64 = 1 << 20;

    fn compile(engine: &wasmtime::Engine, name: &str) -> (Component, Digest) {
        let text = format!("(component (core module ${name} (func (export \"{name}\"))))");
        let bytes = wat::parse_str(text).unwrap();
        (Component::new(engine, &bytes).unwrap(), Digest::of(&bytes))
    }

    fn open(folder: &Path, max_bytes: u64, engine: &wasmtime::Engine) -> Artifacts {
        let folder = folder.join("compiled");
        Artifacts::open(ArtifactsConfig { folder, max_bytes }, engine).unwrap()
    }

    fn files(artifacts: &Artifacts) -> Vec<PathBuf> {
        let entries = fs::read_dir(&artifacts.config.folder).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn what_was_compiled_is_found_again_by_its_digest_and_by_the_same_engine() {
        let folder = tempfile::tempdir().unwrap();
        let engine = wasmtime::Engine::default();
        let artifacts = open(folder.path(), SMALL, &engine);
        let (component, digest) = compile(&engine, "a");
        assert!(artifacts.load(&engine, &digest).is_none());
        artifacts.store(&component.serialize().unwrap(), &digest);
        assert!(artifacts.load(&engine, &digest).is_some());
        assert!(artifacts.load(&engine, &compile(&engine, "b").1).is_none());

        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let other = wasmtime::Engine::new(&config).unwrap();
        let artifacts = open(folder.path(), SMALL, &other);
        assert!(artifacts.load(&other, &digest).is_none());
    }

    #[test]
    fn a_file_that_was_changed_is_not_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let engine = wasmtime::Engine::default();
        let artifacts = open(folder.path(), SMALL, &engine);
        let (component, digest) = compile(&engine, "a");
        artifacts.store(&component.serialize().unwrap(), &digest);
        let [file] = files(&artifacts).try_into().unwrap();
        let mut content = fs::read(&file).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(&file, content).unwrap();
        assert!(artifacts.load(&engine, &digest).is_none());
        assert!(files(&artifacts).is_empty());
        // And neither is one that is cut off.
        artifacts.store(&component.serialize().unwrap(), &digest);
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_len(100)
            .unwrap();
        assert!(artifacts.load(&engine, &digest).is_none());
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let engine = wasmtime::Engine::default();
        let compiled = ["a", "b", "c"].map(|name| compile(&engine, name));
        let length = compiled[0].0.serialize().unwrap().len() as u64;
        let artifacts = open(folder.path(), length * 5 / 2, &engine);
        for (n, (component, digest)) in compiled.iter().enumerate() {
            artifacts.store(&component.serialize().unwrap(), digest);
            // The oldest by far, each of them.
            for file in files(&artifacts) {
                let file = fs::File::options().append(true).open(file).unwrap();
                let age = Duration::from_secs(1000 - n as u64);
                file.set_modified(SystemTime::now() - age).unwrap();
            }
            // The first one is used again and again.
            artifacts.load(&engine, &compiled[0].1);
        }
        let found = compiled.map(|(_, digest)| artifacts.load(&engine, &digest).is_some());
        assert_eq!(found, [true, false, true]);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_to_which_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let shared = folder.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
        let config = ArtifactsConfig {
            folder: shared,
            max_bytes: SMALL,
        };
        let Err(error) = Artifacts::open(config, &wasmtime::Engine::default()) else {
            panic!("it was taken");
        };
        assert!(error.to_string().contains("chmod"), "{error}");
    }
}
