//! Finds what is to be tested: plugins, and the files of cases that belong to them.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use warren_project::{MANIFEST, Project, Workshop};

/// Where the cases of a project are, below its folder.
const CASES: &str = "tests";
/// Where cargo puts plugins, below its folder of built things.
const CARGO_RELEASE: &str = "target/wasm32-wasip2/release";

/// A plugin, and its cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) wasm: PathBuf,
    /// Files, by name; at least one.
    pub(super) cases: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct CargoFile {
    package: Option<CargoPackage>,
}

#[derive(Deserialize)]
struct CargoPackage {
    name: String,
}

/// The targets that a path names: a plugin file, a project, or a folder of projects. `cases` is where
/// the cases of a plugin file are. Projects are built first, where there is a workshop.
///
/// # Errors
/// When there is nothing to test, or not all of it; a [`warren_project::Error`] when a project does not
/// build.
pub(super) async fn find(
    path: &Path,
    cases: Option<&Path>,
    workshop: Option<&Workshop>,
) -> anyhow::Result<Vec<Target>> {
    if path.extension() == Some(OsStr::new("wasm")) {
        let beside = path.parent().unwrap_or(Path::new("")).join(CASES);
        let cases = files(cases.unwrap_or(&beside))?;
        let wasm = path.to_owned();
        return Ok(vec![Target { wasm, cases }]);
    }
    ensure!(
        path.is_dir(),
        "there is no {}; name the folder of a worker, or a plugin file: warren test greeter",
        path.display()
    );
    if let Some(wasm) = built(path, workshop).await? {
        let own = path.join(CASES);
        let cases = files(cases.unwrap_or(&own))?;
        return Ok(vec![Target { wasm, cases }]);
    }
    let mut targets = Vec::new();
    for folder in folders(path)? {
        // A worker without cases is tested by nobody, which is no mistake in a folder of many.
        if folder.join(CASES).is_dir()
            && has_cases(&folder.join(CASES))
            && let Some(wasm) = built(&folder, workshop).await?
        {
            let cases = files(&folder.join(CASES))?;
            targets.push(Target { wasm, cases });
        }
    }
    ensure!(
        !targets.is_empty(),
        "{} has no worker with cases: a worker has a worker.toml (or a Cargo.toml) and its cases in \
         {CASES}/*.toml",
        path.display()
    );
    Ok(targets)
}

/// The plugin of a project; `None` when the folder is none.
async fn built(folder: &Path, workshop: Option<&Workshop>) -> anyhow::Result<Option<PathBuf>> {
    let cargo = folder.join("Cargo.toml");
    let file = if folder.join(MANIFEST).is_file() {
        None
    } else if !cargo.is_file() {
        return Ok(None);
    } else {
        // What is no package is a workspace: its members are the projects.
        let CargoFile { package } = read(&cargo)?;
        let Some(CargoPackage { name }) = package else {
            return Ok(None);
        };
        Some(format!("{}.wasm", name.replace('-', "_")))
    };
    let projects = warren_project::find(folder)?;
    let Some(project) = projects.first() else {
        return Ok(None);
    };
    let built = match workshop {
        Some(workshop) => warren_project::build(project, workshop).await?.files,
        None => project.output().into_iter().collect(),
    };
    match file {
        None => Ok(Some(there(project, built.into_iter().next())?)),
        Some(file) => {
            let made = built.into_iter().find(|made| made.ends_with(&file));
            Ok(Some(there(
                project,
                made.or_else(|| beside(folder, &file)),
            )?))
        }
    }
}

fn there(project: &Project, wasm: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let folder = project.folder.display();
    match wasm {
        Some(wasm) if wasm.is_file() => Ok(wasm),
        Some(wasm) => bail!(
            "{folder} is not built: there is no {}; leave --no-build out",
            wasm.display()
        ),
        None => bail!("{folder} is not built; leave --no-build out"),
    }
}

/// A package of a Cargo workspace is built beside the others.
fn beside(folder: &Path, file: &str) -> Option<PathBuf> {
    let above = folder.canonicalize().ok()?;
    let mut places = above.ancestors().take(3);
    places.find_map(|place| {
        let wasm = place.join(CARGO_RELEASE).join(file);
        wasm.is_file().then_some(wasm)
    })
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> anyhow::Result<T> {
    let content = std::fs::read_to_string(path);
    let content = content.with_context(|| format!("reading {}", path.display()))?;
    toml::from_str(&content).with_context(|| format!("reading {}", path.display()))
}

fn folders(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(path);
    let entries = entries.with_context(|| format!("reading {}", path.display()))?;
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?.path();
        if entry.is_dir() {
            folders.push(entry);
        }
    }
    folders.sort();
    Ok(folders)
}

fn has_cases(folder: &Path) -> bool {
    files(folder).is_ok()
}

/// A file of cases, or all of a folder.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).with_context(|| {
        format!(
            "there are no cases: cannot read {}; write cases there, or name their folder with --cases",
            path.display()
        )
    })?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry?.path();
        if file.extension() == Some(OsStr::new("toml")) {
            files.push(file);
        }
    }
    files.sort();
    ensure!(
        !files.is_empty(),
        "there are no cases: {} has no file *.toml",
        path.display()
    );
    Ok(files)
}
