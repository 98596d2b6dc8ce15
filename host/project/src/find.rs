//! Which projects a folder holds.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, MANIFEST, Manifest};

/// Something that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its name, for people.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What `worker.toml` says; none for a Cargo workspace, of which every component is a plugin.
    pub manifest: Option<Manifest>,
    /// Commands that show what it does; `{http}` in them stands for the address of HTTP workers.
    pub examples: Vec<String>,
}

impl Project {
    /// The folders of its sources: its own, and those that it takes the contract and the SDK from.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.folder.clone()];
        if let Some(manifest) = &self.manifest {
            // A file that begins a worker elsewhere has what it uses beside it.
            let source = match manifest.source.is_dir() {
                true => Some(manifest.source.as_path()),
                false => manifest.source.parent(),
            };
            let beside = [Some(manifest.wit.as_path()), Some(&manifest.sdk), source];
            let beside = beside.map(|path| path.unwrap_or(&self.folder).canonicalize());
            let own = self.folder.canonicalize().unwrap_or_default();
            folders.extend(
                beside
                    .into_iter()
                    .flatten()
                    .filter(|path| !path.starts_with(&own)),
            );
        }
        folders
    }

    /// Where the plugin of a folder with a `worker.toml` is, once it is built.
    #[must_use]
    pub fn output(&self) -> Option<PathBuf> {
        let manifest = self.manifest.as_ref()?;
        let file = format!("{}.wasm", manifest.name);
        Some(self.folder.join("build").join(file))
    }
}

/// The projects of a folder: itself, where it has a `worker.toml` or a `Cargo.toml`, otherwise those of
/// its direct subfolders, by name.
///
/// # Errors
/// When there is none, or a `worker.toml` has mistakes.
pub fn find(folder: &Path) -> Result<Vec<Project>, Error> {
    if !folder.is_dir() {
        return Err(Error::Refused(format!(
            "there is no folder {}; name the folder of a worker, or make one: warren new NAME",
            folder.display()
        )));
    }
    if let Some(project) = at(folder)? {
        return Ok(vec![project]);
    }
    let entries = fs::read_dir(folder).map_err(Error::reading(folder))?;
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    let mut projects = Vec::new();
    for folder in folders {
        projects.extend(at(&folder)?);
    }
    if projects.is_empty() {
        return Err(Error::NoProject(folder.to_owned()));
    }
    Ok(projects)
}

/// The project of one folder. A link is followed: tools of others take `..` in the path of the contract
/// for a step in the name, not on the disk.
fn at(folder: &Path) -> Result<Option<Project>, Error> {
    let folder = &folder.canonicalize().map_err(Error::reading(folder))?;
    if folder.join(MANIFEST).is_file() {
        let manifest = Manifest::read(folder)?;
        return Ok(Some(Project {
            name: manifest.name.clone(),
            examples: manifest.examples.clone(),
            folder: folder.to_owned(),
            manifest: Some(manifest),
        }));
    }
    let is_cargo = folder.join("Cargo.toml").is_file();
    Ok(is_cargo.then(|| {
        let name = folder.file_name().unwrap_or(folder.as_os_str());
        Project {
            name: name.to_string_lossy().into_owned(),
            folder: folder.to_owned(),
            manifest: None,
            examples: examples(folder),
        }
    }))
}

/// What a Cargo workspace says in `[workspace.metadata.warren]`. Whether its manifest is right is for
/// cargo to say.
fn examples(folder: &Path) -> Vec<String> {
    let read = || {
        let text = fs::read_to_string(folder.join("Cargo.toml")).ok()?;
        let manifest: toml::Table = text.parse().ok()?;
        let metadata = manifest.get("workspace")?.get("metadata")?;
        let list = metadata.get("warren")?.get("try")?.as_array()?;
        let texts = list.iter().filter_map(toml::Value::as_str);
        Some(texts.map(str::to_owned).collect())
    };
    read().unwrap_or_default()
}
