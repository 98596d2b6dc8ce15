//! Rust: cargo, and the target for components, which rustup adds.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde::Deserialize;
use toml::{Table, Value};

use crate::{
    Error, Project, Workshop, embedded,
    process::{Tool, command},
};

/// The target of guests: a component comes out of the ordinary linker.
const TARGET: &str = "wasm32-wasip2";
const GET_RUST: &str = "install Rust from https://rustup.rs";

/// Builds a Cargo workspace, with cargo's own progress on standard error. Returns its components, and
/// whether all of them were there before.
pub(crate) async fn build(
    project: &Project,
    workshop: &Workshop,
) -> Result<(Vec<PathBuf>, bool), Error> {
    ensure_target(project, workshop).await?;
    let cargo = tool(project, "cargo");
    let mut build = command(&project.folder, "cargo");
    build
        .args(["build", "--release", "--target", TARGET])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    if workshop.offline {
        build.arg("--offline").env("RUSTUP_AUTO_INSTALL", "0");
    }
    workshop.tool(&project.name, "building with cargo");
    let ran = cargo.run(build).await?;
    if !ran.succeeded {
        return Err(Error::FailedAbove {
            project: project.name.clone(),
        });
    }
    let (components, is_unchanged) = components(&ran.out);
    if components.is_empty() {
        let text = "builds no component; a guest is a library with crate-type = [\"cdylib\"]";
        return Err(cargo.failed(format!("{} {text}", project.folder.display())));
    }
    Ok((components.into_iter().collect(), is_unchanged))
}

/// Builds a project of one worker.
pub(crate) async fn build_one(
    project: &Project,
    workshop: &Workshop,
) -> Result<(PathBuf, bool), Error> {
    let (mut components, is_unchanged) = build(project, workshop).await?;
    match (components.pop(), components.len()) {
        (Some(component), 0) => Ok((component, is_unchanged)),
        (_, more) => Err(tool(project, "cargo").failed(format!(
            "{} components come out; a project with a worker.toml is one worker",
            more + 1
        ))),
    }
}

fn tool<'a>(project: &'a Project, name: &'a str) -> Tool<'a> {
    Tool {
        project: &project.name,
        name,
        remedy: GET_RUST,
    }
}

/// Adds the target with rustup where it is missing.
async fn ensure_target(project: &Project, workshop: &Workshop) -> Result<(), Error> {
    let mut rustc = command(&project.folder, "rustc");
    rustc.args(["--print", "sysroot"]).stderr(Stdio::inherit());
    if workshop.offline {
        rustc.env("RUSTUP_AUTO_INSTALL", "0");
    }
    let sysroot = tool(project, "Rust").run(rustc).await?;
    let sysroot = String::from_utf8_lossy(&sysroot.out).trim().to_owned();
    let libraries = Path::new(&sysroot)
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib");
    if libraries.is_dir() {
        return Ok(());
    }
    let rustup = Tool {
        name: &format!("the target {TARGET} of Rust"),
        remedy: &format!("rustup target add {TARGET}"),
        ..tool(project, "")
    };
    if workshop.offline {
        return Err(rustup.missing());
    }
    workshop.tool(
        &project.name,
        format!("adding the target {TARGET} with rustup"),
    );
    let mut add = command(&project.folder, "rustup");
    add.args(["target", "add", TARGET]).stderr(Stdio::inherit());
    if rustup.run(add).await?.succeeded {
        Ok(())
    } else {
        Err(rustup.missing())
    }
}

/// One line of cargo's output; everything else in it is skipped.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    filenames: Vec<PathBuf>,
    #[serde(default)]
    fresh: bool,
}

/// The components among what cargo built, and whether all were there before.
fn components(stdout: &[u8]) -> (BTreeSet<PathBuf>, bool) {
    let lines = stdout.split(|byte| *byte == b'\n');
    let messages = lines.filter_map(|line| serde_json::from_slice::<Message>(line).ok());
    let (mut components, mut is_unchanged) = (BTreeSet::new(), true);
    for message in messages {
        let files = message.filenames.into_iter();
        let mut files = files
            .filter(|file| file.extension() == Some(OsStr::new("wasm")))
            .peekable();
        if files.peek().is_some() {
            is_unchanged &= message.fresh;
        }
        components.extend(files);
    }
    (components, is_unchanged)
}

/// The manifest of the SDK as a crate that stands by itself: what it takes from the workspace of the
/// guests is written out, and what only its tests need is left out.
pub(crate) fn sdk_manifest() -> Option<String> {
    let read = |path: &str| embedded::text(path)?.parse::<Table>().ok();
    let workspace = read("cargo/Cargo.toml")?;
    let workspace = workspace.get("workspace")?.as_table()?;
    let mut manifest = read("sdk/rust/Cargo.toml")?;
    manifest.remove("dev-dependencies");
    manifest.remove("lints");
    for (section, shared) in [("package", "package"), ("dependencies", "dependencies")] {
        let shared = workspace.get(shared)?.as_table()?;
        for (key, value) in manifest.get_mut(section)?.as_table_mut()? {
            if value.get("workspace").and_then(Value::as_bool) == Some(true) {
                *value = shared.get(key)?.clone();
            }
        }
    }
    toml::to_string(&manifest).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_takes_nothing_from_a_workspace() {
        let manifest = sdk_manifest().unwrap();
        assert!(!manifest.contains("workspace"), "{manifest}");
        let manifest: Table = manifest.parse().unwrap();
        let wit_bindgen = &manifest["dependencies"]["wit-bindgen"];
        assert!(wit_bindgen["version"].is_str(), "{wit_bindgen}");
    }
}
