//! Workers in languages other than Rust, built by `warren build` as anybody would.

#![allow(
    clippy::panic,
    reason = "a test whose plugin cannot be built has failed"
)]

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use crate::host::{binary, repository};

/// The folder in which tests keep the tools that they have installed, for the next ones
/// (`WARREN_TOOLS`).
///
/// # Panics
/// When the program is in no folder of built things.
#[must_use]
pub fn tools() -> PathBuf {
    let program = binary();
    let target = program.parent().and_then(Path::parent);
    let target = target.unwrap_or_else(|| panic!("{} is in no folder", program.display()));
    target.join("worker-tools")
}

/// The plugin of a folder with a `worker.toml`, by its path in the repository and its name. Built where it
/// is not, or not of these sources; tests of other processes wait meanwhile.
///
/// # Panics
/// When it cannot be built; the text is what `warren build` says, which names the remedy.
pub async fn built(folder: &str, name: &str) -> Vec<u8> {
    let (folder, name) = (repository().join(folder), name.to_owned());
    let work = tokio::task::spawn_blocking(move || {
        let turn = File::create(env::temp_dir().join("warren-tests-build.lock"))
            .and_then(|file| file.lock().map(|()| file));
        let mut build = Command::new(binary());
        build.arg("build").arg(&folder).env("WARREN_TOOLS", tools());
        let ran = build.output();
        drop(turn);
        match ran {
            Ok(ran) if ran.status.success() => {
                let plugin = folder.join("build").join(format!("{name}.wasm"));
                fs::read(&plugin).map_err(|error| format!("{}: {error}", plugin.display()))
            }
            Ok(ran) => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    });
    match work.await {
        Ok(Ok(plugin)) => plugin,
        Ok(Err(reason)) => panic!("warren build does not build it: {reason}"),
        Err(error) => panic!("warren build could not be waited for: {error}"),
    }
}
