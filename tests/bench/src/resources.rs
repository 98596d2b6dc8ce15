//! What a host takes when nothing happens, and how long it takes to begin: starting, swapping a
//! plugin, holding idle ones. On the embedded bus.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::sleep;
use warren_tests::{Host, Setup, Site, digest_of, host, variant};

use crate::processes::usage;

/// Between two looks at a host, and so the error of a time.
const LOOK: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a host may compile before it is ready.
const COMPILING: Duration = Duration::from_secs(1800);

/// What one round has shown.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Resources {
    /// From the start of a host with the trio to its readiness, in milliseconds; its plugins have been
    /// compiled before.
    pub(crate) start: f64,
    /// Resident memory of that host at rest, in bytes.
    pub(crate) rest: u64,
    /// From a complete file to the new version serving, in milliseconds: each swap, and how much of it
    /// was compiling.
    pub(crate) swaps: Vec<(f64, f64)>,
    /// Resident memory of each further idle plugin, in bytes.
    pub(crate) idle_plugin: f64,
    /// How many those were, and from the start of their host to its readiness in milliseconds.
    pub(crate) idle: (usize, f64),
    /// From a complete file to the new version serving among so many, in milliseconds.
    pub(crate) swap_among: f64,
}

const N_SWAPS: usize = 10;

pub(crate) async fn measure(n_plugins: usize) -> Result<Resources> {
    let mut resources = Resources::default();
    let data = tempfile::tempdir()?;
    let trio = || Setup::new(&Site::embedded()).with_movies();
    let start = async |setup: Setup| {
        let begun = Instant::now();
        let host = setup.with_option("--data-dir", data.path()).start().await;
        (host, begun.elapsed().as_secs_f64() * 1e3)
    };
    // Compiled now, found again later.
    drop(start(trio()).await);
    let (host, took) = start(trio()).await;
    resources.start = took;
    // What only starting needed is given back.
    sleep(Duration::from_secs(2)).await;
    resources.rest = usage(&[host.pid()]).memory;
    drop(host);

    let tally = guest()?;
    let setup = Setup::new(&Site::embedded()).with_file("plugins/tally.wasm", &tally);
    let host = setup.start().await;
    for number in 0..N_SWAPS {
        let build = variant(&tally, format!("{number} {:?}", Instant::now()));
        resources
            .swaps
            .push(swap(&host, "tally.wasm", &build).await?);
    }
    drop(host);

    let setup = |n| {
        let alone = Setup::new(&Site::embedded());
        (0..n).fold(alone, |setup: Setup, index| {
            setup.with_file(&format!("plugins/p{index}.wasm"), renamed(&tally, index))
        })
    };
    let settled = async |host: &Host| {
        sleep(Duration::from_secs(2)).await;
        usage(&[host.pid()]).memory
    };
    let compiling = setup(n_plugins).with_option("--data-dir", data.path());
    let compiling = compiling.start_unready().await;
    compiling.ready_within(COMPILING).await;
    drop(compiling);
    let (one, _) = start(setup(1)).await;
    let with_one = settled(&one).await;
    drop(one);
    let (all, took) = start(setup(n_plugins)).await;
    let more = settled(&all).await.saturating_sub(with_one);
    resources.idle_plugin = more as f64 / n_plugins.saturating_sub(1).max(1) as f64;
    resources.idle = (n_plugins, took);
    let build = variant(&renamed(&tally, 0), format!("{:?}", Instant::now()));
    resources.swap_among = swap(&all, "p0.wasm", &build).await?.0;
    Ok(resources)
}

/// Replaces a plugin, and says how long it took until the new one serves and how much of that was
/// compiling, in milliseconds.
async fn swap(host: &Host, file: &str, build: &[u8]) -> Result<(f64, f64)> {
    let digest = digest_of(build);
    // Complete in one moment, as a careful deployment does it.
    let hidden = host.plugins.join(".next");
    fs::write(&hidden, build)?;
    let begun = Instant::now();
    fs::rename(&hidden, host.plugins.join(file))?;
    loop {
        let entry = host.file(file).await.unwrap_or_default();
        let took = begun.elapsed();
        if is_serving(&entry, &digest) {
            let compiled = entry.get("compile_ms").and_then(Value::as_f64);
            return Ok((took.as_secs_f64() * 1e3, compiled.unwrap_or_default()));
        }
        if took > PATIENCE {
            bail!("{file} does not serve: {entry}");
        }
        sleep(LOOK).await;
    }
}

fn is_serving(entry: &Value, digest: &str) -> bool {
    let says = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    says("state") == "serving" && !says("digest").is_empty() && digest.starts_with(says("digest"))
}

/// The tally in Rust.
pub(crate) fn guest() -> Result<Vec<u8>> {
    let file = host::repository().join("guests/target/wasm32-wasip2/release/tally.wasm");
    fs::read(&file).with_context(|| format!("reading {}: tests/bench/run builds it", show(&file)))
}

/// The same worker under another type, of the same length.
pub(crate) fn renamed(tally: &[u8], index: usize) -> Vec<u8> {
    let name = format!("T{index:04}");
    let mut bytes = tally.to_vec();
    let old = b"TALLY";
    let mut at = 0;
    while let Some(found) = bytes
        .get(at..)
        .and_then(|rest| rest.windows(old.len()).position(|window| window == old))
    {
        at += found;
        if let Some(place) = bytes.get_mut(at..at + old.len()) {
            place.copy_from_slice(name.as_bytes());
        }
        at += old.len();
    }
    bytes
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
