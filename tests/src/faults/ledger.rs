//! The databases of the ledger guest, one folder for each host, read from outside while the hosts
//! run, are frozen, or are gone.

#![allow(clippy::panic, reason = "a test that cannot read its proof has failed")]

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

/// Where the hosts of one test keep their databases. Removed with it.
pub struct Ledger {
    folder: TempDir,
}

/// One row of the guest: that a job ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What the test knows the job by.
    pub key: String,
    /// The id in the envelope.
    pub job: String,
    /// `begun`, `failed` or `done`. Only `done` is an effect.
    pub phase: String,
    /// Which attempt it was, from 1.
    pub attempt: i64,
    /// The worker's id.
    pub worker: String,
    /// The host's clock, in milliseconds since 1970.
    pub at_ms: i64,
    /// The build of the guest: `one`, `two` or `next`.
    pub build: String,
    /// The host, as the test calls it.
    pub slot: String,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    /// An empty one.
    ///
    /// # Panics
    /// When no folder can be made.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("warren-ledger-").tempdir();
        match folder {
            Ok(folder) => Self { folder },
            Err(error) => panic!("no folder for the ledger: {error}"),
        }
    }

    /// The `data_dir` of the host that has this name here. A host that comes back keeps its own.
    #[must_use]
    pub fn slot(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Every run of a worker type on every host, in no order.
    ///
    /// # Panics
    /// When a database cannot be read.
    pub async fn runs(&self, worker_type: &str) -> Vec<Run> {
        let mut runs = Vec::new();
        for slot in self.slots() {
            let folder = self.slot(&slot).join("sql").join(worker_type);
            let file = [folder.join("worker.sqlite")];
            for file in file.iter().filter(|file| file.exists()) {
                match read(file, &slot) {
                    Ok(read) => runs.extend(read),
                    Err(error) if error.to_string().contains("no such table") => {}
                    Err(error) => panic!("{} cannot be read: {error}", file.display()),
                }
            }
        }
        runs
    }

    /// The effects among [`Ledger::runs`].
    ///
    /// # Panics
    /// As [`Ledger::runs`].
    pub async fn effects(&self, worker_type: &str) -> Vec<Run> {
        let mut runs = self.runs(worker_type).await;
        runs.retain(|run| run.phase == "done");
        runs
    }

    fn slots(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path());
        let entries = entries.into_iter().flatten().filter_map(Result::ok);
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }
}

fn read(file: &Path, slot: &str) -> rusqlite::Result<Vec<Run>> {
    // It is there. To read the log of one that others write, its index has to be written.
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut runs =
        connection.prepare("SELECT key, job, phase, attempt, worker, at_ms, build FROM runs")?;
    let runs = runs.query_map([], |row| {
        Ok(Run {
            key: row.get("key")?,
            job: row.get("job")?,
            phase: row.get("phase")?,
            attempt: row.get("attempt")?,
            worker: row.get("worker")?,
            at_ms: row.get("at_ms")?,
            build: row.get("build")?,
            slot: slot.to_owned(),
        })
    })?;
    runs.collect()
}
