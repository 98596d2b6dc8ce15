//! Tools of npm and PyPI, in exact versions, in a folder that all projects share.
//!
//! Each set of tools has a folder of its own, named by its versions. What is in it counts only once
//! its mark is there, which is written last: an installation that was interrupted is begun anew.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use crate::{
    Error, Workshop,
    build::turn,
    process::{Tool, command},
};

/// The mark of a complete set.
const COMPLETE: &str = ".complete";

pub(crate) const NODE: &str =
    "apt install nodejs npm (Debian, Ubuntu), brew install node (macOS), or https://nodejs.org";
pub(crate) const PYTHON: &str = "apt install python3 python3-venv (Debian, Ubuntu), brew install python (macOS), or https://python.org";

/// What a registry has.
pub(crate) struct Set {
    /// The name of its folder, with the versions.
    pub(crate) folder: String,
    /// What is asked for, as the registry's client takes it.
    pub(crate) packages: &'static [&'static str],
    /// What it needs on disk, for people.
    pub(crate) size: &'static str,
}

/// The folder of a set from npm, installed if it is not there.
pub(crate) async fn npm(project: &str, workshop: &Workshop, set: &Set) -> Result<PathBuf, Error> {
    let folder = workshop.tools.join(&set.folder);
    let Some(_turn) = begin(&folder, project, workshop, set, "npm").await? else {
        return Ok(folder);
    };
    let npm = Tool {
        project,
        name: "npm",
        remedy: NODE,
    };
    let mut install = command(&folder, "npm");
    install
        .args(["install", "--no-audit", "--no-fund", "--save-exact"])
        // Nothing of a package runs before it is used. Those of esbuild would put another program in
        // place of the script that is run here.
        .arg("--ignore-scripts")
        .args(["--loglevel=error", "--prefix", "."])
        .args(set.packages);
    fs::write(folder.join("package.json"), "{\"private\": true}\n")
        .map_err(Error::writing(&folder))?;
    let ran = npm.run(install).await?;
    if !ran.succeeded {
        return Err(not_installed(project, set, &ran.text));
    }
    complete(&folder)?;
    Ok(folder)
}

/// The folder of a set from PyPI, a virtual environment, installed if it is not there.
pub(crate) async fn pypi(project: &str, workshop: &Workshop, set: &Set) -> Result<PathBuf, Error> {
    let folder = workshop.tools.join(&set.folder);
    let Some(_turn) = begin(&folder, project, workshop, set, "PyPI").await? else {
        return Ok(folder);
    };
    let python = Tool {
        project,
        name: "python3",
        remedy: PYTHON,
    };
    let mut venv = command(&folder, "python3");
    venv.args(["-m", "venv", "."]);
    if !python.run(venv).await?.succeeded {
        let venv = Tool {
            name: "the module venv of python3",
            ..python
        };
        return Err(venv.missing());
    }
    let mut install = command(&folder, folder.join("bin/python"));
    install
        .args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:"])
        .arg("--disable-pip-version-check")
        .args(set.packages);
    let ran = python.run(install).await?;
    if !ran.succeeded {
        return Err(not_installed(project, set, &ran.text));
    }
    complete(&folder)?;
    Ok(folder)
}

/// Gives the turn to install a set into its empty folder; none where it is complete. The system ends
/// the turn with the file, also when the process is killed.
async fn begin(
    folder: &Path,
    project: &str,
    workshop: &Workshop,
    set: &Set,
    registry: &str,
) -> Result<Option<File>, Error> {
    let is_complete = || folder.join(COMPLETE).is_file();
    if is_complete() {
        return Ok(None);
    }
    let packages = set.packages.join(", ");
    if workshop.offline {
        return Err(Error::Missing {
            project: project.to_owned(),
            what: format!("{packages} from {registry}"),
            remedy: "run this once without --offline".to_owned(),
        });
    }
    workshop.step(
        project,
        format!(
            "installing {packages} from {registry} into {} ({}, once)",
            folder.display(),
            set.size
        ),
    );
    let turn = turn(&workshop.tools).await?;
    // Somebody else may have installed it in the meantime.
    if is_complete() {
        return Ok(None);
    }
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::writing(folder))?;
    }
    fs::create_dir_all(folder).map_err(Error::writing(folder))?;
    Ok(Some(turn))
}

fn not_installed(project: &str, set: &Set, text: &str) -> Error {
    Error::Missing {
        project: project.to_owned(),
        what: set.packages.join(", "),
        remedy: format!(
            "it could not be installed, mend this and try again:\n{}",
            text.trim_end()
        ),
    }
}

fn complete(folder: &Path) -> Result<(), Error> {
    let mark = folder.join(COMPLETE);
    fs::write(&mark, "").map_err(Error::writing(&mark))
}
