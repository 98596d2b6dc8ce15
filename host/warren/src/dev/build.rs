//! Builds a Cargo workspace of guests and copies what came out into a plugins folder.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use tokio::process::Command;

use super::say;
use crate::registry::file_name;

/// The target of guests: a component comes out of the ordinary linker.
const TARGET: &str = "wasm32-wasip2";

/// Says so when there is nothing to build.
pub(super) fn check_workspace(folder: &Path) -> anyhow::Result<()> {
    ensure!(
        folder.join("Cargo.toml").is_file(),
        "{} has no Cargo.toml; name the folder of a Cargo workspace of guests: warren dev FOLDER",
        folder.display()
    );
    Ok(())
}

/// Adds the target with rustup where it is missing.
pub(super) async fn ensure_target(folder: &Path) -> anyhow::Result<()> {
    let sysroot = output(folder, "rustc", ["--print", "sysroot"]).await?;
    let sysroot = String::from_utf8_lossy(&sysroot.stdout).trim().to_owned();
    let libraries = Path::new(&sysroot)
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib");
    if libraries.is_dir() {
        return Ok(());
    }
    say(&format!("adding the target {TARGET} with rustup"));
    let status = command(folder, "rustup", ["target", "add", TARGET])
        .status()
        .await
        .with_context(|| {
            format!("rustup is not there; add the target {TARGET} to your Rust by hand")
        })?;
    ensure!(
        status.success(),
        "`rustup target add {TARGET}` failed; see above"
    );
    Ok(())
}

/// Builds, with cargo's own progress on the terminal, and puts what came out into `plugins`. Returns the names of the plugins.
pub(super) async fn build(folder: &Path, plugins: &Path) -> anyhow::Result<Vec<String>> {
    let arguments = [
        "build",
        "--release",
        "--target",
        TARGET,
        "--message-format=json-render-diagnostics",
    ];
    let built = output(folder, "cargo", arguments).await?;
    ensure!(built.status.success(), "the guests do not build; see above");
    let artifacts = components(&built.stdout);
    if artifacts.is_empty() {
        bail!(
            "{} builds no component; a guest is a library with crate-type = [\"cdylib\"]",
            folder.display()
        );
    }
    put(&artifacts, plugins)
        .with_context(|| format!("copying plugins to {}", plugins.display()))?;
    Ok(artifacts.iter().map(|file| file_name(file)).collect())
}

/// One line of cargo's output; everything else in it is skipped.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// The components among what cargo built.
fn components(stdout: &[u8]) -> BTreeSet<PathBuf> {
    let lines = stdout.split(|byte| *byte == b'\n');
    let messages = lines.filter_map(|line| serde_json::from_slice::<Message>(line).ok());
    messages
        .flat_map(|message| message.filenames)
        .filter(|file| file.extension() == Some(OsStr::new("wasm")))
        .collect()
}

/// Lists, in the plugins folder, the names that the last build has put there.
const BUILT: &str = ".built";

/// Makes a folder hold these files, and none that an earlier build has put there; what a person has
/// put there stays. Each is written beside its place and renamed, so that nobody sees half of one;
/// one that is the same is left alone.
fn put(artifacts: &BTreeSet<PathBuf>, plugins: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(plugins)?;
    let list = plugins.join(BUILT);
    let names: BTreeSet<String> = artifacts.iter().map(|file| file_name(file)).collect();
    let before = std::fs::read_to_string(&list).unwrap_or_default();
    for name in before.lines().filter(|name| !names.contains(*name)) {
        // It may be gone already.
        let _ = std::fs::remove_file(plugins.join(name));
    }
    std::fs::write(&list, names.into_iter().collect::<Vec<_>>().join("\n"))?;
    for artifact in artifacts {
        let Some(name) = artifact.file_name() else {
            continue;
        };
        let (place, bytes) = (plugins.join(name), std::fs::read(artifact)?);
        if std::fs::read(&place).is_ok_and(|present| present == bytes) {
            continue;
        }
        let beside = plugins.join(format!(".{}.tmp", name.to_string_lossy()));
        std::fs::write(&beside, bytes)?;
        std::fs::rename(&beside, &place)?;
    }
    Ok(())
}

async fn output<const N: usize>(
    folder: &Path,
    program: &str,
    arguments: [&str; N],
) -> anyhow::Result<Output> {
    command(folder, program, arguments)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}; install Rust from https://rustup.rs"))?
        .wait_with_output()
        .await
        .with_context(|| format!("running {program}"))
}

fn command<const N: usize>(folder: &Path, program: &str, arguments: [&str; N]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        // A build of the guests must not inherit what the host was built with.
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}
