//! A folder with a guard: a shell that waits for the end of its input, kills the process groups that
//! are ours, runs what else is to be undone, and removes the folder.
//!
//! Invariant: nothing outlives the process that started it, also when that process is killed.

use std::{
    env, fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Dropping it ends whatever was started under it.
pub(crate) struct Guard {
    folder: TempDir,
    /// Ends when its input does.
    shell: Child,
}

impl Guard {
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(place())?;
        fs::create_dir(folder.path().join("groups"))?;
        fs::write(folder.path().join("undo"), "")?;
        let script = r#"
            trap '' INT TERM HUP
            read -r _
            for group in "$0"/groups/*; do kill -KILL "-${group##*/}"; done
            sh "$0/undo"
            for try in 1 2 3 4 5; do rm -rf "$0" && break; sleep 0.1; done
        "#;
        let shell = Command::new("sh")
            .args(["-c", script])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting the guard of the broker")?;
        Ok(Self { folder, shell })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A shell command that is run at the end, when all processes are dead.
    pub(crate) fn undo(&self, command: &str) -> Result<()> {
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(self.folder().join("undo"))?;
        Ok(writeln!(file, "{command}")?)
    }

    /// Starts a process in a group of its own, which is killed at the end.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<Child> {
        let child = command.process_group(0).spawn();
        let child = child.with_context(|| format!("starting {:?}", command.get_program()))?;
        fs::write(self.group(&child), "")?;
        Ok(child)
    }

    /// The group has ended: its number may become somebody else's.
    pub(crate) fn forget(&self, child: &Child) -> Result<()> {
        Ok(fs::remove_file(self.group(child))?)
    }

    fn group(&self, child: &Child) -> std::path::PathBuf {
        self.folder().join("groups").join(child.id().to_string())
    }
}

/// In memory, where there is room: what one test writes to a disk otherwise delays every confirm of
/// another one's broker, for seconds when much has been compiled just before. A node that is killed
/// finds its data again all the same.
fn place() -> PathBuf {
    let in_memory = Path::new("/dev/shm");
    let room = Command::new("df")
        .args(["--output=avail", "--block-size=1"])
        .arg(in_memory)
        .output();
    let room = room.map(|room| String::from_utf8_lossy(&room.stdout).into_owned());
    let room = room.unwrap_or_default();
    let n_bytes = room.split_whitespace().last().and_then(|n| n.parse().ok());
    if n_bytes.is_some_and(|n_bytes: u64| n_bytes >= NEEDED_BYTES) {
        in_memory.to_owned()
    } else {
        env::temp_dir()
    }
}

/// What the nodes that run at the same time may come to write.
const NEEDED_BYTES: u64 = 8 << 30;

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
