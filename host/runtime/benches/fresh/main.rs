//! What Warren adds to wasmtime: a trivial job in a fresh instance, by `Pool::run` and by the bare
//! calls of wasmtime (`bare.rs`), with the same guest, in one process and on one thread.
//!
//!     (cd guests && cargo build --release -p tally)
//!     cargo bench --workspace --bench fresh
//!     cargo bench --workspace --bench fresh -- --rounds 15 --json /tmp/fresh.json
//!     cargo bench --workspace --bench fresh -- --profile warren
//!
//! A round takes turns: a hundred jobs of one, a hundred of the other, for a second and a half. Its
//! figures are the medians of these hundreds, a job's part of each, from the asking for a permit to the
//! outcome; its ratio is that of the two. The last line is `ratio fresh-instance MIN MEDIAN MAX`, of all
//! rounds. The target is a median of 1.2 at the most.
//!
//! Measure on a machine with two processors or more that does nothing else. Where others take the
//! processor away in the middle of a run, the worker is taken for one that computes a lot, and its runs
//! move to threads of a lower priority (`background`): the ratio is then that of such a worker.
//!
//! The file has the same, and each round: `{"fresh_instance": {"ratio": {"min", "median", "max"}, "bare_us":
//! {…}, "warren_us": {…}, "rounds": [{"ratio", "bare_us", "warren_us"}]}}`. A path that is not absolute begins in
//! `host/runtime`. `--profile bare` and `--profile warren` do nothing but run the jobs of one side for ten
//! seconds, for `perf record`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a table for a person; a benchmark that cannot go on has failed"
)]

#[path = "../../tests/runtime/host.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod host;

mod bare;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use warren_protocol::Outcome;
use warren_runtime::Pool;

use bare::Bare;
use host::{Host, guest, job, occasion};

/// Rounds, where nobody says how many.
const ROUNDS: usize = 9;
/// How long one takes.
const ROUND: Duration = Duration::from_millis(1500);
/// How long one side runs for a profile.
const PROFILE: Duration = Duration::from_secs(10);
/// Jobs of one side before it is the other's turn.
const TURN: u32 = 100;
/// Instances that may live, as in a host by default.
const INSTANCES: u32 = 1000;

/// What a job costs in one round, in microseconds.
struct Round {
    bare: f64,
    warren: f64,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.warren / self.bare
    }
}

fn main() {
    let Arguments {
        n_rounds,
        file,
        profile,
    } = arguments();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    if let Some(side) = profile {
        return runtime.block_on(run_one_side(&side));
    }
    let rounds = runtime.block_on(rounds(n_rounds));
    let figures = [
        ("bare", Round::bare_us as fn(&Round) -> f64),
        ("warren", Round::warren_us),
    ];
    for (name, figure) in figures {
        let [min, median, max] = spread(&rounds, figure);
        println!("{name}: {min:.2} µs at the least, {median:.2} µs, {max:.2} µs at the most");
    }
    let [min, median, max] = spread(&rounds, Round::ratio);
    if let Some(file) = file {
        std::fs::write(file, format!("{:#}\n", report(&rounds))).unwrap();
    }
    println!("ratio fresh-instance {min:.3} {median:.3} {max:.3}");
}

impl Round {
    fn bare_us(&self) -> f64 {
        self.bare
    }

    fn warren_us(&self) -> f64 {
        self.warren
    }
}

struct Arguments {
    n_rounds: usize,
    /// Where the figures go, beside standard output.
    file: Option<PathBuf>,
    /// The one side that runs.
    profile: Option<String>,
}

fn arguments() -> Arguments {
    let (mut n_rounds, mut file, mut profile) = (ROUNDS, None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let value = arguments.next();
            value.unwrap_or_else(|| panic!("{argument} wants a value"))
        };
        match argument.as_str() {
            // Of cargo, to every benchmark.
            "--bench" => {}
            "--rounds" => n_rounds = value().parse().unwrap(),
            "--json" => file = Some(value().into()),
            "--profile" => profile = Some(value()),
            other => panic!("`{other}` is not known; the head of this file says what is"),
        }
    }
    assert!(n_rounds > 0, "at least one round");
    Arguments {
        n_rounds,
        file,
        profile,
    }
}

async fn run_one_side(side: &str) {
    let (bare, pool) = sides().await;
    let (started, mut n_jobs) = (Instant::now(), 0);
    while started.elapsed() < PROFILE {
        match side {
            "bare" => run_bare(&bare).await,
            "warren" => run_warren(&pool).await,
            other => panic!("`{other}` is no side: there are bare and warren"),
        };
        n_jobs += TURN;
    }
    let each = started.elapsed().as_secs_f64() * 1e6 / f64::from(n_jobs);
    println!("{side}: {n_jobs} jobs, {each:.2} µs each");
}

/// The same guest twice.
async fn sides() -> (Bare, Pool) {
    let host = Host::of(INSTANCES);
    let plugin = host.load(guest("tally")).await.unwrap();
    let pool = Pool::new(plugin, host.worker("TALLY"));
    (Bare::new(&guest("tally")), pool)
}

async fn rounds(n_rounds: usize) -> Vec<Round> {
    let (bare, pool) = sides().await;
    println!("| round | bare | Warren | ratio |");
    println!("|---|---|---|---|");
    let mut rounds = Vec::new();
    // The first one warms up.
    for n in 0..=n_rounds {
        let round = round(&bare, &pool).await;
        if n > 0 {
            let ratio = round.ratio();
            let Round { bare, warren } = round;
            println!("| {n} | {bare:.2} µs | {warren:.2} µs | {ratio:.3} |");
            rounds.push(round);
        }
    }
    rounds
}

async fn round(bare: &Bare, pool: &Pool) -> Round {
    let (started, mut took) = (Instant::now(), [Vec::new(), Vec::new()]);
    while started.elapsed() < ROUND {
        took[0].push(run_bare(bare).await);
        took[1].push(run_warren(pool).await);
    }
    let [bare, warren] = took.map(|mut took| {
        took.sort();
        took[took.len() / 2].as_secs_f64() * 1e6 / f64::from(TURN)
    });
    Round { bare, warren }
}

/// Runs the jobs of a turn, and says how long that took.
async fn run_bare(bare: &Bare) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..TURN {
        let started = Instant::now();
        bare.run().await;
        took += started.elapsed();
    }
    took
}

/// The same, as a host does that has taken them from the bus.
async fn run_warren(pool: &Pool) -> Duration {
    let (job, mut took) = (job(&Value::Null), Duration::ZERO);
    for _ in 0..TURN {
        let (occasion, stop) = (occasion(), CancellationToken::new());
        let started = Instant::now();
        let permit = pool.permit().await.unwrap();
        let run = pool.run(&permit, &job, occasion, stop).await;
        drop(permit);
        took += started.elapsed();
        assert!(
            matches!(run.verdict, Ok(Outcome::Done)),
            "{:?}",
            run.verdict
        );
    }
    took
}

/// The least, the median and the most.
fn spread(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> [f64; 3] {
    let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    [
        figures[0],
        figures[figures.len() / 2],
        figures[figures.len() - 1],
    ]
}

fn report(rounds: &[Round]) -> Value {
    let spread = |figure: fn(&Round) -> f64| {
        let [min, median, max] = spread(rounds, figure);
        json!({"min": min, "median": median, "max": max})
    };
    let rounds: Vec<Value> = rounds
        .iter()
        .map(|round| {
            json!({"bare_us": round.bare, "warren_us": round.warren, "ratio": round.ratio()})
        })
        .collect();
    json!({"fresh_instance": {
        "ratio": spread(Round::ratio),
        "bare_us": spread(Round::bare_us),
        "warren_us": spread(Round::warren_us),
        "rounds": rounds,
    }})
}
