//! One file's way up to the point where it could serve: read when it is quiet, validated, compiled
//! or found compiled, linked, and asked what it is. Beside all other files, and without a change to
//! what serves.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use warren_protocol::WorkerType;
use warren_runtime::{Digest, Engine, MAX_FILE_BYTES, Plugin, is_whole};

use super::{Shelf, stage::Rejection, watch::Stamp};
use crate::{equip::Equipment, registry::file_name};

/// A file that has not changed for this long is read.
const QUIET: Duration = Duration::from_millis(20);
/// What has not changed for this long and still is no whole component never becomes one by itself:
/// copying tools write without pauses.
const STUCK: Duration = Duration::from_millis(100);
/// A file that nobody has touched for this long need not be waited for. Whole seconds, because that is
/// what some file systems tell.
const LONG_QUIET: Duration = Duration::from_secs(3);
/// The worker type under which a file that has not been asked yet writes its log.
const UNKNOWN_TYPE: &str = "unknown";

/// What it takes to make a plugin of a file. Cheap to clone.
#[derive(Clone)]
pub(super) struct Workshop {
    pub(super) engine: Engine,
    pub(super) equipment: Arc<Equipment>,
    pub(super) shelf: Shelf,
}

/// A file that has been looked at.
pub(super) struct Prepared {
    /// The file as it was when it was read.
    pub(super) stamp: Option<Stamp>,
    /// `None` when it could not be read.
    pub(super) digest: Option<Digest>,
    pub(super) found: Result<Found, Rejection>,
}

/// What was in a file.
pub(super) enum Found {
    /// What had been there before.
    TheSame,
    /// A plugin, and its bytes.
    Plugin(Box<Plugin>, Bytes),
}

impl Workshop {
    /// Makes a plugin of a file. `known` is the digest of what is known of it already.
    pub(super) async fn prepare(&self, file: &Path, known: Option<Digest>) -> Prepared {
        let (stamp, content) = match read_when_quiet(file).await {
            Ok((stamp, content)) => (stamp, content),
            Err((stamp, rejection)) => {
                return Prepared {
                    stamp,
                    digest: None,
                    found: Err(rejection),
                };
            }
        };
        let bytes = content.clone();
        let digest = tokio::task::spawn_blocking(move || Digest::of(&bytes)).await;
        let found = match &digest {
            Ok(digest) if Some(*digest) == known => Ok(Found::TheSame),
            Ok(digest) => {
                tracing::info!(
                    plugin.name = file_name(file),
                    bytes = content.len(),
                    "loading plugin"
                );
                self.shelf.loading(file, "compile");
                let plugin = self.plugin(content.clone(), *digest).await;
                plugin.map(|plugin| Found::Plugin(Box::new(plugin), content))
            }
            Err(error) => Err(unreadable(error.to_string())),
        };
        Prepared {
            stamp: Some(stamp),
            digest: digest.ok(),
            found,
        }
    }

    /// Makes a plugin of bytes.
    pub(super) async fn plugin(&self, bytes: Bytes, digest: Digest) -> Result<Plugin, Rejection> {
        let unknown =
            WorkerType::new(UNKNOWN_TYPE).map_err(|error| unreadable(error.to_string()))?;
        let scratch = self.equipment.scratch(unknown);
        let compiled = self.engine.compile(bytes, digest).await?;
        Ok(self.engine.probe(compiled, &scratch).await?)
    }
}

/// Reads a file that nobody is writing to any more.
async fn read_when_quiet(file: &Path) -> Result<(Stamp, Bytes), (Option<Stamp>, Rejection)> {
    let mut quiet = QUIET;
    loop {
        let Some(before) = stamp(file, quiet).await.map_err(|error| (None, error))? else {
            continue;
        };
        if before.length > MAX_FILE_BYTES as u64 {
            let error = format!(
                "read: the file has {} bytes; at most {MAX_FILE_BYTES} are taken",
                before.length
            );
            return Err((Some(before), unreadable(error)));
        }
        let content = tokio::fs::read(file).await.map_err(|error| {
            let error = format!("read: {error}; allow this user to read the file");
            (Some(before.clone()), unreadable(error))
        })?;
        // What was written while it was read is another file.
        if Stamp::of(file).ok().as_ref() != Some(&before) {
            continue;
        }
        if quiet == STUCK || is_whole(&content) {
            return Ok((before, content.into()));
        }
        quiet = STUCK;
    }
}

/// The stamp of a file that keeps it for so long; `None` when it does not.
async fn stamp(file: &Path, quiet: Duration) -> Result<Option<Stamp>, Rejection> {
    let gone = |error: io::Error| unreadable(format!("read: {error}"));
    let before = Stamp::of(file).map_err(gone)?;
    // At a start, most files have been quiet for days.
    if before.is_older_than(LONG_QUIET) {
        return Ok(Some(before));
    }
    tokio::time::sleep(quiet).await;
    let after = Stamp::of(file).map_err(gone)?;
    Ok((before == after).then_some(after))
}

fn unreadable(error: String) -> Rejection {
    Rejection {
        step: "read",
        error,
        wanted: None,
    }
}

/// A file that is on its way.
pub(super) struct Loaded {
    pub(super) file: PathBuf,
    /// Tells this try from later ones.
    pub(super) serial: u64,
    pub(super) prepared: Prepared,
}
