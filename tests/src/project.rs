//! Workers in languages other than Rust, built by `warren build` as anybody would.

#![allow(
    clippy::panic,
    reason = "a test whose plugin cannot be built has failed"
)]

use std::{
    fs,
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

/// Where cargo puts what it builds of the guests, below its folder for that.
pub const BUILT_GUESTS: [&str; 2] = ["release", "wasm32-wasip2/release"];

/// Copies what cargo has built of the guests, while it builds nothing there.
///
/// # Panics
/// When it cannot be copied.
pub fn copy_built(part: &str, to: &Path) {
    let from = repository().join("guests/target").join(part);
    let turn = File::open(from.join(".cargo-lock")).and_then(|file| {
        file.lock_shared()?;
        Ok(file)
    });
    let turn = turn.unwrap_or_else(|error| panic!("the lock of {}: {error}", from.display()));
    let made = to.parent().map_or(Ok(()), fs::create_dir_all);
    made.unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    let copied = Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .args([from.as_path(), to])
        .status();
    drop(turn);
    assert!(
        copied.is_ok_and(|status| status.success()),
        "copying {}",
        from.display()
    );
}

/// The plugin of a folder with a `worker.toml`, by its path in the repository and its name. Built where it
/// is not, or not of these sources; tests of other processes wait meanwhile.
///
/// # Panics
/// When it cannot be built; the text is what `warren build` says, which names the remedy.
pub async fn built(folder: &str, name: &str) -> Vec<u8> {
    let (folder, name) = (repository().join(folder), name.to_owned());
    let work = tokio::task::spawn_blocking(move || {
        // Those of one folder take turns by themselves; so many compilers at once would only wait.
        let turn = File::create(tools().with_extension("lock"))
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|error| format!("waiting for a turn: {error}"))?;
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
