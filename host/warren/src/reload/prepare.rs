//! One file's way up to the point where it could serve: read when it is quiet, validated, compiled
//! or found compiled, linked, and asked what it is. Beside all other files, and without a change to
//! what serves.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use warren_protocol::WorkerType;
use warren_runtime::{Digest, Engine, MAX_FILE_BYTES, Plugin, is_whole};

use super::{Shelf, stage::Rejection, watch::Stamp};
use crate::{equip::Equipment, registry::file_name};

/// A new file that is whole and has not changed for this long is read. One that is overwritten in place may
/// look whole all the time.
const SHORT_QUIET: Duration = Duration::from_millis(20);
/// What has not changed for this long is read, whatever it is: copying tools write without pauses.
const QUIET: Duration = Duration::from_millis(100);
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

/// What is known of a file before it is looked at.
#[derive(Clone, Default)]
pub(super) struct Before {
    /// Its stamp when it was read last.
    pub(super) stamp: Option<Stamp>,
    /// What serves of it, or was refused.
    pub(super) digest: Option<Digest>,
    /// Set as soon as it has been read now.
    pub(super) is_read: Arc<AtomicBool>,
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
    /// Makes a plugin of a file.
    pub(super) async fn prepare(&self, file: &Path, before: &Before) -> Prepared {
        let (stamp, content) = match read_when_quiet(file, before.stamp.as_ref()).await {
            Ok((stamp, content)) => (stamp, content),
            Err((stamp, rejection)) => {
                return Prepared {
                    stamp,
                    digest: None,
                    found: Err(rejection),
                };
            }
        };
        before.is_read.store(true, Relaxed);
        let bytes = content.clone();
        let digest = tokio::task::spawn_blocking(move || Digest::of(&bytes)).await;
        let found = match &digest {
            Ok(digest) if Some(*digest) == before.digest => Ok(Found::TheSame),
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

/// Reads a file that nobody is writing to any more. `before` is its stamp when it was read last.
async fn read_when_quiet(
    file: &Path,
    before: Option<&Stamp>,
) -> Result<(Stamp, Bytes), (Option<Stamp>, Rejection)> {
    loop {
        let seen = Stamp::of(file);
        let seen = seen.map_err(|error| (None, unreadable(format!("read: {error}"))))?;
        if !is_quiet(file, &seen, before).await {
            continue;
        }
        if seen.length > MAX_FILE_BYTES as u64 {
            let error = format!(
                "read: the file has {} bytes; at most {MAX_FILE_BYTES} are taken",
                seen.length
            );
            return Err((Some(seen), unreadable(error)));
        }
        let content = tokio::fs::read(file).await.map_err(|error| {
            let error = format!("read: {error}; allow this user to read the file");
            (Some(seen.clone()), unreadable(error))
        })?;
        // What was written while it was read is another file.
        if is_still(file, &seen) {
            return Ok((seen, content.into()));
        }
    }
}

/// Waits for as long as a file that was seen like this has to stay so; `false` when it has changed.
async fn is_quiet(file: &Path, seen: &Stamp, before: Option<&Stamp>) -> bool {
    // At a start, most files have been quiet for days.
    if seen.is_older_than(LONG_QUIET) {
        return true;
    }
    let is_new = before.is_none_or(|before| seen.is_of_another_file_than(before));
    let mut left = QUIET;
    if is_new {
        tokio::time::sleep(SHORT_QUIET).await;
        if !is_still(file, seen) {
            return false;
        }
        if looks_whole(file).await {
            return true;
        }
        left = left.saturating_sub(SHORT_QUIET);
    }
    tokio::time::sleep(left).await;
    is_still(file, seen)
}

/// Whether a file is the same as when it was seen.
fn is_still(file: &Path, seen: &Stamp) -> bool {
    Stamp::of(file).is_ok_and(|now| now == *seen)
}

/// Whether a file is a whole component, by the beginnings of its sections.
async fn looks_whole(file: &Path) -> bool {
    let file = file.to_owned();
    let look = move || is_whole(&mut BufReader::new(File::open(file)?));
    let looked = tokio::task::spawn_blocking(look).await;
    matches!(looked, Ok(Ok(true)))
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
