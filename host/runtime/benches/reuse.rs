//! What a fresh instance for each job costs, and what an instance that is kept costs instead: the
//! figures of `host/decisions/0006-instance-reuse.md`.
//!
//!     (cd guests && cargo build --release -p tally)
//!     tests/guests/tally/js/build && tests/guests/tally/py/build
//!     cargo bench --workspace --bench reuse
//!
//! A guest that has not been built is left out. Times are the medians of runs one after the other on
//! one thread, from the asking for a permit to the outcome.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a table for a person; a benchmark that cannot go on has failed"
)]

#[path = "../tests/runtime/host.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod host;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::join_all};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use warren_protocol::Outcome;
use warren_runtime::{Plugin, Pool, Reuse};

use host::{Host, guest, job, occasion};

const GUESTS: [(&str, &str); 4] = [
    ("Rust", "tally"),
    ("JavaScript, QuickJS", "tally_qjs"),
    ("JavaScript, StarlingMonkey", "tally_js"),
    ("Python", "tally_py"),
];
/// How long each figure is measured.
const MEASURED: Duration = Duration::from_secs(3);
/// Runs before that.
const WARM_UP: usize = 20;
/// Idle instances whose memory is measured.
const N_IDLE: usize = 30;
/// What each of them has run when it is measured again.
const N_RUNS: usize = 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    println!("| guest | job | first run | fresh | reused | instances per 1000 runs |");
    println!("|---|---|---|---|---|---|");
    let mut memory = Vec::new();
    for (language, name) in GUESTS {
        if is_built(name) {
            memory.push((language, runtime.block_on(measure(language, name))));
        } else {
            println!("| {language} | not built | | | | |");
        }
    }
    println!("\n| guest | idle, just started | idle, after 20 runs each |");
    println!("|---|---|---|");
    for (language, [started, used]) in memory {
        println!("| {language} | {started} | {used} |");
    }
}

fn is_built(name: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(format!("guests/target/wasm32-wasip2/release/{name}.wasm"))
        .exists()
}

/// Prints the times and returns the memory.
async fn measure(language: &str, name: &str) -> [String; 2] {
    let host = Host::new();
    let items: Vec<Value> = (1..=10)
        .map(|n| json!({"name": format!("item {n}"), "price": n, "count": 2}))
        .collect();
    let jobs = [("null", Value::Null), ("JSON", json!({"items": items}))];

    let started = Instant::now();
    let fresh = pool(&host, load(&host, name).await, None);
    let compiled = started.elapsed();
    let reused = pool(&host, load(&host, name).await, Some(reuse()));
    for (what, data) in jobs {
        let first = run(&fresh, &data).await;
        let each_fresh = median(&fresh, &data).await;
        run(&reused, &data).await;
        let created = n_created(&host);
        let (each_reused, n_runs) = median(&reused, &data).await;
        let per_thousand = (n_created(&host) - created) * 1000 / n_runs;
        println!(
            "| {language} | {what} | {} | {} | {} | {per_thousand} |",
            micros(first),
            micros(each_fresh.0),
            micros(each_reused),
        );
    }
    println!("| | (compiled in {} ms) | | | | |", compiled.as_millis());
    drop((fresh, reused));
    drop(host);
    idle_memory(name).await
}

fn reuse() -> Reuse {
    Reuse {
        calls: 1000,
        memory_bytes: 32 << 20,
        age: Duration::from_secs(300),
    }
}

async fn load(host: &Host, name: &str) -> Plugin {
    host.load(guest(name)).await.unwrap()
}

fn pool(host: &Host, plugin: Plugin, reuse: Option<Reuse>) -> Pool {
    let mut worker = host.worker("TALLY");
    worker.reuse = reuse;
    Pool::new(plugin, worker)
}

/// Runs one job and says how long it took.
async fn run(pool: &Pool, data: &Value) -> Duration {
    let job = job(data);
    let started = Instant::now();
    let permit = pool.permit().await.unwrap();
    let stop = CancellationToken::new();
    let run = pool.run(&permit, &job, occasion(), stop).await;
    drop(permit);
    let took = started.elapsed();
    let is_done = matches!(run.verdict, Ok(Outcome::Done | Outcome::Forward(_)));
    assert!(is_done, "{:?}", run.verdict);
    took
}

/// The median of a run, and how many there were.
async fn median(pool: &Pool, data: &Value) -> (Duration, u64) {
    for _ in 0..WARM_UP {
        run(pool, data).await;
    }
    let started = Instant::now();
    let mut took = Vec::new();
    while started.elapsed() < MEASURED {
        took.push(run(pool, data).await);
    }
    took.sort();
    (took[took.len() / 2], took.len() as u64)
}

/// What an idle instance adds to the memory of this process: just started, and after some runs.
async fn idle_memory(name: &str) -> [String; 2] {
    // A Python guest has more core instances than the engine sets aside for each.
    let host = Host::of(200);
    let mut worker = host.worker("TALLY");
    worker.reuse = Some(reuse());
    // Every instance waits until all have asked.
    let answers = Arc::new(Semaphore::new(0));
    let (answering, reply) = (answers.clone(), host::json(&Value::Null));
    worker.call = Arc::new(move |_| {
        let (answers, reply) = (answering.clone(), reply.clone());
        async move {
            answers.acquire().await.unwrap().forget();
            Ok(reply)
        }
        .boxed()
    });
    let pool = Pool::new(load(&host, name).await, worker);
    let ask = json!({"ask": "ASKED:*"});
    // What the first one brings into memory is there for all.
    answers.add_permits(1);
    run(&pool, &ask).await;
    let all = async || {
        let asking = join_all((0..N_IDLE).map(|_| run(&pool, &ask)));
        let answer = async {
            while pool.in_flight() < N_IDLE {
                tokio::task::yield_now().await;
            }
            answers.add_permits(N_IDLE);
        };
        tokio::join!(asking, answer);
        assert_eq!(pool.idle_instances(), N_IDLE);
    };
    let before = Memory::now();
    all().await;
    let started = before.until_now(N_IDLE - 1);
    for _ in 0..N_RUNS {
        all().await;
    }
    let used = before.until_now(N_IDLE - 1);
    [started, used]
}

/// Resident memory of this process, in KiB.
struct Memory {
    resident: u64,
    private: u64,
}

impl Memory {
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let read = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        Self {
            resident: read("Rss:"),
            private: read("Anonymous:"),
        }
    }

    /// What each of so many instances has added.
    fn until_now(&self, n: usize) -> String {
        let (now, n) = (Self::now(), n as u64);
        let each = |now: u64, before: u64| now.saturating_sub(before) / n;
        format!(
            "{} KiB resident, {} KiB of it private",
            each(now.resident, self.resident),
            each(now.private, self.private)
        )
    }
}

fn n_created(host: &Host) -> u64 {
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&host.registry.gather())
        .unwrap();
    let series = r#"warren_instances_created_total{worker="TALLY"} "#;
    let value = text.lines().find_map(|line| line.strip_prefix(series));
    value.map_or(0, |value| value.parse().unwrap())
}

fn micros(took: Duration) -> String {
    let micros = took.as_secs_f64() * 1e6;
    if micros < 10_000.0 {
        format!("{micros:.1} µs")
    } else {
        format!("{:.1} ms", micros / 1000.0)
    }
}
