//! Python: componentize-py puts the sources, the SDK and the packages of `requirements.txt` into a
//! component together with CPython.

use std::{fs, path::Path, path::PathBuf};

use crate::{
    Error,
    build::{Work, replace},
    fingerprint,
    javascript::absolute,
    process::{Tool, command},
    tools::{self, Set},
};

const PACKAGES: [&str; 1] = ["componentize-py==0.25.1"];

/// What the result depends on beside the sources.
pub(crate) fn tools() -> String {
    PACKAGES.join(" ")
}

pub(crate) async fn build(work: &Work<'_>) -> Result<Vec<u8>, Error> {
    let (manifest, name) = (work.manifest, work.project.name.as_str());
    let tool = |tool: &'static str| Tool {
        project: name,
        name: tool,
        remedy: tools::PYTHON,
    };
    let set = Set {
        folder: format!("pypi-{}", PACKAGES.join("-")),
        packages: &PACKAGES,
        size: "75 MB",
    };
    let environment = tools::pypi(name, work.workshop, &set).await?;
    let python = environment.join("bin/python");
    let source = &manifest.source;
    let module = source.file_stem().unwrap_or_default();
    let folder = source.parent().unwrap_or(Path::new("."));
    if !source.is_file() {
        let text = format!("there is no file {}", source.display());
        return Err(tool("componentize-py").failed(text));
    }
    let component = absolute(&work.folder.join("worker.wasm"))?;
    let mut componentize = command(
        &work.project.folder,
        environment.join("bin/componentize-py"),
    );
    componentize
        .arg("--quiet")
        .arg("--wit-path")
        .arg(absolute(&manifest.wit)?)
        .args(["--world", &manifest.world, "componentize"])
        // Without it, the packages of this machine would get in.
        .env("VIRTUAL_ENV", &environment);
    for folder in [
        Some(folder.to_owned()),
        Some(manifest.sdk.clone()),
        packages(work, &python).await?,
    ]
    .into_iter()
    .flatten()
    {
        componentize.arg("--python-path").arg(absolute(&folder)?);
    }
    componentize.arg("--output").arg(&component).arg(module);
    work.workshop
        .step(name, "making a component with componentize-py");
    let said = tool("componentize-py").build(componentize).await;
    said.map_err(|error| {
        error.with_hint(
            "has no attribute 'Descriptor'",
            "there is no worker in it: put @warren.worker(...) before the function that runs jobs",
        )
    })?;
    fs::read(&component).map_err(Error::reading(Path::new(&component)))
}

/// The folder of what `requirements.txt` asks for; none where there is no such file.
async fn packages(work: &Work<'_>, python: &Path) -> Result<Option<PathBuf>, Error> {
    let name = work.project.name.as_str();
    let requirements = work.project.folder.join("requirements.txt");
    let Some(wanted) = fingerprint::of_file(&requirements) else {
        return Ok(None);
    };
    let folder = work.folder.join("site");
    let mark = folder.join(".requirements");
    // Options name other files, of which nothing is known here.
    let text = fs::read_to_string(&requirements).map_err(Error::reading(&requirements))?;
    let is_all = !text.lines().any(|line| line.trim_start().starts_with('-'));
    if is_all && fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(Some(folder));
    }
    if work.workshop.offline {
        return Err(Error::Missing {
            project: name.to_owned(),
            what: "what requirements.txt asks for".to_owned(),
            remedy: "run this once without --offline".to_owned(),
        });
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(Error::writing(&folder))?;
    }
    let mut pip = command(&work.project.folder, python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ])
    .args(["--only-binary", ":all:", "--no-compile", "--requirement"])
    .arg(absolute(&requirements)?)
    .arg("--target")
    .arg(absolute(&folder)?);
    work.workshop
        .step(name, "installing what requirements.txt asks for");
    let tool = Tool {
        project: name,
        name: "pip",
        remedy: tools::PYTHON,
    };
    tool.build(pip).await?;
    replace(&mark, wanted.as_bytes())?;
    Ok(Some(folder))
}
