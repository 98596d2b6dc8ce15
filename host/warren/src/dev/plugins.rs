//! The plugins folder of `warren dev`: what its projects have built, and what a person puts there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use warren_project::Project;

use crate::registry::file_name;

/// Lists, in the plugins folder, the names that the last build has put there.
const BUILT: &str = ".built";

/// What each project has built last.
pub(super) struct Plugins {
    folder: PathBuf,
    /// By the folder of the project.
    built: BTreeMap<PathBuf, Vec<PathBuf>>,
}

impl Plugins {
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            built: BTreeMap::new(),
        }
    }

    /// Notes what a project has built, instead of what it has built before.
    pub(super) fn keep(&mut self, project: &Project, files: Vec<PathBuf>) {
        self.built.insert(project.folder.clone(), files);
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.built.values().flatten()
    }

    /// Makes the folder hold what the projects have built.
    pub(super) fn put(&self) -> anyhow::Result<()> {
        let mut named = BTreeMap::new();
        for file in self.files() {
            if let Some(other) = named.insert(file_name(file), file) {
                ensure!(
                    other == file,
                    "{} and {} have one name; give one of the projects another `name`",
                    other.display(),
                    file.display()
                );
            }
        }
        put(&named, &self.folder)
            .with_context(|| format!("copying plugins to {}", self.folder.display()))
    }
}

/// Makes a folder hold these files, and none that an earlier build has put there; what a person has
/// put there stays. Each is written beside its place and renamed, so that nobody sees half of one;
/// one that is the same is left alone.
fn put(files: &BTreeMap<String, &PathBuf>, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let list = folder.join(BUILT);
    let before = fs::read_to_string(&list).unwrap_or_default();
    for name in before.lines().filter(|name| !files.contains_key(*name)) {
        // It may be gone already.
        let _ = fs::remove_file(folder.join(name));
    }
    let names: BTreeSet<&str> = files.keys().map(String::as_str).collect();
    fs::write(&list, names.into_iter().collect::<Vec<_>>().join("\n"))?;
    for (name, file) in files {
        let (place, bytes) = (folder.join(name), fs::read(file)?);
        if fs::read(&place).is_ok_and(|present| present == bytes) {
            continue;
        }
        let beside = folder.join(format!(".{name}.tmp"));
        fs::write(&beside, bytes)?;
        fs::rename(&beside, &place)?;
    }
    Ok(())
}
