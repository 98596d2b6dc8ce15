//! `warren plugins`: the versions of each worker that a host has kept, and going back to one.
//!
//! What is decided is written to the folder of the versions, where the host finds it at once, or
//! when it starts.

mod admin;

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::time::Instant;
use warren_protocol::WorkerType;
use warren_runtime::Digest;

use super::{
    Verdict,
    moment::shown as moment,
    output::{Output, clean, say},
};
use crate::{
    cli::Options,
    clock::now_ms,
    config::Config,
    versions::{Hold, Kept, Versions},
};

pub(crate) const ABOUT: &str = "\
The versions of each worker that this host has served and kept (keep_versions in the configuration), \
and going back to one of them.

A new version that fails at its first jobs is taken back by the host itself; `rollback` does it by \
hand. Either way the file in the plugins folder stays as it is and does not serve, also after a \
restart, until another build is put there or `retry` takes the decision back. Each host decides for \
itself: on several hosts, run the command on each.";

pub(crate) const AFTER: &str = "\
Exit codes: 0 done, 1 not possible or not done in time, 64 misuse.

Examples:
  warren plugins ls
  warren plugins rollback WB                  back to the version before
  warren plugins rollback WB --to 1.4.2       or to the one that says so, or has this digest
  warren plugins retry WB                     give the build in the folder another chance";

/// How long a host may take to follow: it reads, loads and swaps.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// What `--to` takes for the beginning of a digest.
const FEWEST_DIGITS: usize = 6;

/// What to do with the versions.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Plugins {
    /// List the versions that are kept, the newest first
    Ls {
        /// Only of this worker type
        #[arg(value_name = "TYPE", value_parser = WorkerType::new)]
        worker_type: Option<WorkerType>,
    },
    /// Let an earlier version serve in place of the build in the plugins folder
    Rollback {
        /// The worker type
        #[arg(value_name = "TYPE", value_parser = WorkerType::new)]
        worker_type: WorkerType,
        /// The version to go back to: what it says of itself, or the beginning of its digest
        /// [default: the last one before that has not failed]
        #[arg(long, value_name = "VERSION")]
        to: Option<String>,
    },
    /// Let the build in the plugins folder serve again
    Retry {
        /// The worker type
        #[arg(value_name = "TYPE", value_parser = WorkerType::new)]
        worker_type: WorkerType,
    },
}

/// Where the host keeps its files and answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Place {
    /// The configuration of the host [default: config/warren.toml if it exists]
    /// [env: WARREN_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<std::path::PathBuf>,
    /// Where the host keeps its files [default: data] [env: WARREN_DATA_DIR]
    #[arg(long, value_name = "FOLDER", global = true)]
    pub data_dir: Option<String>,
    /// Where the host answers, to see what it makes of it [default: 127.0.0.1:9091]
    /// [env: WARREN_ADMIN]
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub admin: Option<String>,
    /// Answer in JSON, one object per line, for programs
    #[arg(long, global = true)]
    pub json: bool,
}

impl Place {
    /// The same as options of `warren run`, for the configuration.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            config: self.config.clone(),
            data_dir: self.data_dir.clone(),
            admin: self.admin.clone(),
            ..Options::default()
        }
    }
}

pub(super) async fn run(
    config: &Config,
    place: &Place,
    command: &Plugins,
) -> anyhow::Result<Verdict> {
    let folder = config.data_dir.join("versions");
    let versions = Versions::new(folder, config.keep_versions as usize);
    match command {
        Plugins::Ls { worker_type } => {
            ls(config, &versions, worker_type.as_ref(), place.json).await
        }
        Plugins::Rollback { worker_type, to } => {
            rollback(config, &versions, worker_type, to.as_deref()).await
        }
        Plugins::Retry { worker_type } => retry(config, &versions, worker_type).await,
    }
}

async fn ls(
    config: &Config,
    versions: &Versions,
    only: Option<&WorkerType>,
    as_json: bool,
) -> anyhow::Result<Verdict> {
    let mut types = versions.types();
    types.retain(|worker_type| only.is_none_or(|only| only == worker_type));
    let workers = admin::get(config.admin, "/workers").await.ok();
    let mut output = Output::new();
    let mut rows = Vec::new();
    for worker_type in types {
        let hold = versions.hold(&worker_type);
        let serving = workers
            .as_ref()
            .and_then(|workers| digest_of(workers, &worker_type));
        for kept in versions.of(&worker_type) {
            let serves = serving.as_deref().map(|digest| digest == kept.digest);
            if as_json {
                output.json(&json!({
                    "type": worker_type.as_str(),
                    "version": kept.version,
                    "digest": kept.digest,
                    "file": kept.file,
                    "size_bytes": kept.size_bytes,
                    "since_ms": kept.since_ms,
                    "proven": kept.proven,
                    "serves": serves,
                    "failed": kept.failed,
                    "held": hold.as_ref().filter(|hold| hold.digest == kept.digest),
                }))?;
            } else {
                rows.push([
                    worker_type.to_string(),
                    clean(&kept.version),
                    kept.digest.chars().take(12).collect(),
                    clean(&kept.file),
                    moment(u64::try_from(kept.since_ms).ok()),
                    state(&kept, hold.as_ref(), serves),
                ]);
            }
        }
    }
    if !as_json && rows.is_empty() {
        say(&format!(
            "no versions are kept in {}: a host keeps what it serves there (data_dir, keep_versions)",
            versions.folder().display()
        ));
    } else if !as_json {
        let heads = ["TYPE", "VERSION", "DIGEST", "FILE", "SINCE", "STATE"];
        output.table(heads, &rows)?;
        if workers.is_none() {
            say(&format!(
                "no host answers at {}, so what serves now cannot be seen",
                config.admin
            ));
        }
    }
    output.flush()?;
    Ok(Verdict::Done)
}

/// The state of a version in words.
fn state(kept: &Kept, hold: Option<&Hold>, serves: Option<bool>) -> String {
    let serves = serves == Some(true);
    match hold {
        Some(hold) if hold.digest == kept.digest => {
            format!("held back: {}", clean(&hold.why))
        }
        Some(hold) if hold.serve == kept.digest && serves => {
            "serves in place of the build in the folder".to_owned()
        }
        _ if serves && kept.proven => "serves".to_owned(),
        _ if serves => "serves, on trial".to_owned(),
        _ => match &kept.failed {
            Some(why) => format!("failed: {}", clean(why)),
            None if kept.proven => "kept, has worked".to_owned(),
            None => "kept".to_owned(),
        },
    }
}

async fn rollback(
    config: &Config,
    versions: &Versions,
    worker_type: &WorkerType,
    to: Option<&str>,
) -> anyhow::Result<Verdict> {
    let kept = versions.of(worker_type);
    let Some(last) = kept.first() else {
        bail!(
            "no versions of {worker_type} are kept in {}: `warren plugins ls` shows what is, \
             --data-dir says where",
            versions.folder().display()
        );
    };
    let hold = versions.hold(worker_type);
    let current = hold.as_ref().map_or(&last.digest, |hold| &hold.serve);
    let target = match to {
        Some(to) => wanted(&kept, to)?,
        None => versions.before(worker_type, current).with_context(|| {
            format!("no version of {worker_type} before the one that serves is kept")
        })?,
    };
    let in_folder = in_folder(&config.plugins, last, hold.as_ref());
    let workers = admin::get(config.admin, "/workers").await.ok();
    let now = workers.and_then(|workers| digest_of(&workers, worker_type));
    let is_decided = match &hold {
        Some(hold) => hold.digest == in_folder && hold.serve == target.digest,
        None => in_folder == target.digest,
    };
    if is_decided && now.as_deref().unwrap_or(current) == target.digest {
        say(&format!("{worker_type} serves {} already", shown(&target)));
        return Ok(Verdict::Done);
    }
    if target.digest == in_folder {
        versions.release(worker_type)?;
    } else {
        let why = "rolled back by hand";
        versions.fail(worker_type, current, why)?;
        versions.set_hold(
            worker_type,
            &Hold {
                digest: in_folder,
                serve: target.digest.clone(),
                why: why.to_owned(),
                at_ms: i64::try_from(now_ms()).unwrap_or(i64::MAX),
            },
        )?;
    }
    follow(config, worker_type, &target.digest, &shown(&target)).await
}

async fn retry(
    config: &Config,
    versions: &Versions,
    worker_type: &WorkerType,
) -> anyhow::Result<Verdict> {
    let Some(hold) = versions.hold(worker_type) else {
        say(&format!(
            "nothing is held back of {worker_type}: the build in the plugins folder serves, or \
             /plugins of the host says why not"
        ));
        return Ok(Verdict::Done);
    };
    versions.release(worker_type)?;
    let text = versions.get(worker_type, &hold.digest);
    let text = text.map_or_else(|| short(&hold.digest), |kept| shown(&kept));
    follow(config, worker_type, &hold.digest, &text).await
}

/// Waits until the host serves this version.
async fn follow(
    config: &Config,
    worker_type: &WorkerType,
    digest: &str,
    text: &str,
) -> anyhow::Result<Verdict> {
    let end = Instant::now() + PATIENCE;
    loop {
        match admin::get(config.admin, "/workers").await {
            Err(_) => {
                say(&format!(
                    "no host answers at {}: it serves {text} as {worker_type} when it starts",
                    config.admin
                ));
                return Ok(Verdict::Done);
            }
            Ok(workers) if digest_of(&workers, worker_type).as_deref() == Some(digest) => {
                say(&format!("{worker_type} serves {text}"));
                return Ok(Verdict::Done);
            }
            Ok(_) if Instant::now() > end => {
                say(&format!(
                    "warren: the host at {} does not serve {text} as {worker_type} after \
                     {PATIENCE:?}: its log and /plugins say why; is {} its data_dir?",
                    config.admin,
                    config.data_dir.display()
                ));
                return Ok(Verdict::Incomplete);
            }
            Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// The version that somebody means.
fn wanted(kept: &[Kept], to: &str) -> anyhow::Result<Kept> {
    let is_digest = |kept: &&Kept| to.len() >= FEWEST_DIGITS && kept.digest.starts_with(to);
    let mut found: Vec<&Kept> = kept.iter().filter(|kept| kept.version == to).collect();
    if found.is_empty() {
        found = kept.iter().filter(is_digest).collect();
    }
    let list = |kept: &[&Kept]| {
        kept.iter()
            .map(|kept| shown(kept))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => bail!(
            "no version {} is kept; there are {}",
            clean(to),
            list(&kept.iter().collect::<Vec<_>>())
        ),
        several => bail!(
            "{} may be {}: name one by its digest",
            clean(to),
            list(several)
        ),
    }
}

/// The digest of what is in the plugins folder under the name of the version that serves.
fn in_folder(plugins: &Path, last: &Kept, hold: Option<&Hold>) -> String {
    match (std::fs::read(plugins.join(&last.file)), hold) {
        (Ok(content), _) => Digest::of(&content).to_string(),
        (Err(_), Some(hold)) => hold.digest.clone(),
        (Err(_), None) => last.digest.clone(),
    }
}

fn digest_of(workers: &Value, worker_type: &WorkerType) -> Option<String> {
    let mut workers = workers.as_array()?.iter();
    let worker = workers.find(|worker| worker["type"] == worker_type.as_str())?;
    Some(worker["digest"].as_str()?.to_owned())
}

fn shown(kept: &Kept) -> String {
    format!("{} ({})", clean(&kept.version), short(&kept.digest))
}

fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(version: &str, digest: &str) -> Kept {
        Kept {
            digest: digest.to_owned(),
            version: version.to_owned(),
            file: "db.wasm".to_owned(),
            size_bytes: 1,
            since_ms: 0,
            proven: false,
            failed: None,
        }
    }

    #[test]
    fn a_version_is_meant_by_what_it_says_or_by_its_digest() {
        let all = [
            kept("2", "abcdef11"),
            kept("1", "abcdef22"),
            kept("1", "333333"),
        ];
        let find = |to: &str| wanted(&all, to).map(|kept| kept.digest);
        assert_eq!(find("2").unwrap(), "abcdef11");
        assert_eq!(find("abcdef2").unwrap(), "abcdef22");
        assert_eq!(find("333333").unwrap(), "333333");
        for (wrong, said) in [
            ("1", "by its digest"),
            ("abcdef", "by its digest"),
            ("3333", "no version 3333"),
            ("9", "there are 2 (abcdef11)"),
        ] {
            let error = find(wrong).unwrap_err().to_string();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }
}
