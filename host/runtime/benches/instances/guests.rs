//! The guests that are measured, and one run of one.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use warren_protocol::Outcome;
use warren_runtime::{ArtifactsConfig, EngineConfig, Pool, Reuse};

use crate::host::{Host, job, occasion};

const GUESTS: [(&str, &str); 4] = [
    ("Rust", "guests/target/wasm32-wasip2/release/tally.wasm"),
    (
        "JavaScript, QuickJS",
        "tests/guests/tally/js/build/tally-js.wasm",
    ),
    (
        "JavaScript, StarlingMonkey",
        "guests/target/wasm32-wasip2/release/tally_starlingmonkey.wasm",
    ),
    (
        "Python",
        "tests/guests/tally/python/build/tally-python.wasm",
    ),
];

/// The languages whose guest has been built, each with its file. Says which one has not.
pub(crate) fn built() -> impl Iterator<Item = (&'static str, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let guests = GUESTS.map(|(language, file)| (language, root.join(file)));
    guests.into_iter().filter(|(language, file)| {
        let is_built = file.exists();
        if !is_built {
            println!("{language}: not built, left out; tests/guests/tally has what builds it");
        }
        is_built
    })
}

/// A host that finds what an earlier benchmark has compiled.
pub(crate) fn host() -> Host {
    Host::on(&EngineConfig {
        // A Python guest has more core instances than the engine sets aside for each.
        max_instances: 200,
        artifacts: Some(ArtifactsConfig {
            folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("benches"),
            max_bytes: 1 << 30,
        }),
        ..EngineConfig::default()
    })
}

/// The defaults of the configuration, with room for what a Python guest begins with.
pub(crate) fn reuse() -> Reuse {
    Reuse {
        calls: 1000,
        memory_bytes: 32 << 20,
        age: std::time::Duration::from_secs(300),
    }
}

/// Runs one job, from the asking for a permit to the outcome.
pub(crate) async fn run(pool: &Pool, data: &Value) {
    let job = job(data);
    let permit = pool.permit().await.unwrap();
    let stop = CancellationToken::new();
    let run = pool.run(&permit, &job, occasion(), stop).await;
    let is_done = matches!(run.verdict, Ok(Outcome::Done | Outcome::Forward(_)));
    assert!(is_done, "{:?}", run.verdict);
}
