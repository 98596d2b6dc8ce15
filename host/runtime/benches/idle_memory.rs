//! What an idle instance that is kept for further jobs holds in memory: the second table of
//! `host/decisions/0006-instance-reuse.md`.
//!
//!     (cd guests && cargo build --release -p tally)
//!     target/release/warren build tests/guests/tally/js tests/guests/tally/python
//!     tests/guests/tally/starlingmonkey/build
//!     cargo bench --workspace --bench idle_memory
//!
//! A guest that has not been built is left out. Each figure is of thirty instances, less what was there
//! before them. Resident includes pages that all of them share: the image of the guest's memory.

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

#[path = "instances/guests.rs"]
mod guests;

use std::{path::Path, sync::Arc};

use futures_util::{FutureExt, future::join_all};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use warren_runtime::Pool;

use guests::{built, reuse, run};

/// Idle instances whose memory is measured.
const N_IDLE: usize = 30;
/// What each of them has run when it is measured again.
const N_RUNS: usize = 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    println!("| guest | idle, just started | idle, after {N_RUNS} runs more |");
    println!("|---|---|---|");
    for (language, file) in built() {
        let [started, used] = runtime.block_on(idle_memory(&file));
        println!("| {language} | {started} | {used} |");
    }
}

/// What an idle instance adds to the memory of this process: just started, and after some runs.
async fn idle_memory(file: &Path) -> [String; 2] {
    let host = guests::host();
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
    let plugin = host.load(std::fs::read(file).unwrap()).await.unwrap();
    let pool = Pool::new(plugin, worker);
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
