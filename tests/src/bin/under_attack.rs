//! A benchmark: how much longer the jobs of a well-behaved worker take while another plugin attacks
//! the host.
//!
//! ```text
//! cargo build --release --workspace --bins && (cd guests && cargo build --release --workspace)
//! target/release/under_attack [ROUNDS] [ATTACK…]
//! ```
//!
//! One host on the embedded bus, with default limits but for the attacker's deadline (2 s) and
//! attempts, and without its breaker, which would keep the attacks away. Its neighbour is asked over HTTP, one request after the other on one connection: each is
//! a request of one guest that calls another. Each round measures that in peace and then under each
//! attack, so that what else the machine does meets both; an attack is four jobs of the attacker at a
//! time, replaced as they are killed. Printed are the medians of p50 and p99 over the rounds, and the
//! ratio of each round's p99 to that of its peace: the least, the median and the greatest.
//!
//! The target is a ratio of 2 (two cores or more for the host).

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark prints, and ends where it cannot go on"
)]

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::Method;
use serde_json::json;
use warren_tests::{Host, Setup, Site, faults::usage, http::Client};

const ATTACKS: [&str; 14] = [
    "loop",
    "sleep",
    "recurse",
    "recurse-deep",
    "grow",
    "grow-giant",
    "result",
    "log",
    "stdout",
    "host-calls",
    "resources",
    "panic",
    "labels",
    "send-itself",
];
const CONFIG: &str = "[workers.FK]\nattempts = 1\nbreaker = 0\ndeadline = \"2s\"\n";
const AT_ONCE: usize = 4;
/// How long peace and each attack are measured in each round.
const PERIOD: Duration = Duration::from_millis(1500);
/// How long an attack goes on before it is measured, and until the peace after it.
const PAUSE: Duration = Duration::from_millis(300);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = env::args().skip(1);
    let n_rounds = arguments.next().map_or(5, |n| {
        n.parse().unwrap_or_else(|_| panic!("ROUNDS is a number"))
    });
    let wanted: Vec<String> = arguments.collect();
    let attacks: Vec<&str> = ATTACKS
        .into_iter()
        .filter(|attack| wanted.is_empty() || wanted.iter().any(|one| one == attack))
        .collect();

    let setup = Setup::new(&Site::embedded()).with_plugins(["attacker", "faulty", "http_faulty"]);
    let host = Arc::new(setup.with_config(CONFIG).start().await);
    measure(&host).await;
    let mut rounds = vec![Vec::new(); attacks.len()];
    for _ in 0..n_rounds {
        for (attack, rounds) in attacks.iter().zip(&mut rounds) {
            let peace = measure(&host).await;
            let (attacked, n_killed) = under(&host, attack).await;
            rounds.push((peace, attacked, n_killed));
        }
    }
    println!(
        "{n_rounds} rounds of {:.1} s; {} processors; the host ends with {} MiB",
        PERIOD.as_secs_f64(),
        std::thread::available_parallelism().map_or(0, usize::from),
        usage(host.pid()).rss_kib >> 10
    );
    println!(
        "attack        attacks/s  p50 ms: peace attack  p99 ms: peace attack  p99 ratio: min median max"
    );
    for (attack, rounds) in attacks.iter().zip(&rounds) {
        let of = |figure: &dyn Fn(&(Latency, Latency, f64)) -> f64| {
            let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures
        };
        let median = |figures: &[f64]| figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN);
        let middle = |figure: &dyn Fn(&(Latency, Latency, f64)) -> f64| median(&of(figure));
        let ratios = of(&|(peace, attacked, _)| attacked.p99 / peace.p99);
        println!(
            "{attack:<13} {:>9.1} {:>14.2} {:>6.2} {:>14.2} {:>6.2} {:>15.2} {:>6.2} {:>4.2}",
            middle(&|(_, _, n)| *n),
            middle(&|(peace, _, _)| peace.p50),
            middle(&|(_, attacked, _)| attacked.p50),
            middle(&|(peace, _, _)| peace.p99),
            middle(&|(_, attacked, _)| attacked.p99),
            ratios.first().copied().unwrap_or(f64::NAN),
            median(&ratios),
            ratios.last().copied().unwrap_or(f64::NAN),
        );
    }
}

/// In milliseconds.
#[derive(Clone, Copy)]
struct Latency {
    p50: f64,
    p99: f64,
}

/// Asks the neighbour for a while.
async fn measure(host: &Host) -> Latency {
    let mut client = Client::connect(host.http).await.unwrap();
    let order = json!({"do": "echo", "data": "x".repeat(200)}).to_string();
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < PERIOD || took.len() < 100 {
        let asked = Instant::now();
        let path = "/faulty/?do=call&to=FX:*";
        let answer = client
            .send(Method::POST, path, order.clone())
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        took.push(asked.elapsed().as_secs_f64() * 1000.0);
    }
    took.sort_by(f64::total_cmp);
    let at = |share: usize| {
        took.get(took.len() * share / 100)
            .copied()
            .unwrap_or(f64::NAN)
    };
    Latency {
        p50: at(50),
        p99: at(99),
    }
}

/// The same while the attacker has its jobs, and how many of them end in a second.
async fn under(host: &Arc<Host>, attack: &str) -> (Latency, f64) {
    let stop = Arc::new(AtomicBool::new(false));
    let n_ended = Arc::new(AtomicU64::new(0));
    let mut attackers = Vec::new();
    for _ in 0..AT_ONCE {
        let (host, stop, n_ended) = (host.clone(), stop.clone(), n_ended.clone());
        // One that sends itself does so for a few generations.
        let order = json!({"do": attack, "n": 2, "left": 6}).to_string();
        attackers.push(tokio::spawn(async move {
            let mut client = Client::connect(host.http).await.unwrap();
            while !stop.load(Ordering::Relaxed) {
                let path = "/faulty/?do=call&to=FK:*";
                client
                    .send(Method::POST, path, order.clone())
                    .await
                    .unwrap();
                n_ended.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    tokio::time::sleep(PAUSE).await;
    let (n_before, begun) = (n_ended.load(Ordering::Relaxed), Instant::now());
    let latency = measure(host).await;
    let n = n_ended.load(Ordering::Relaxed) - n_before;
    #[allow(clippy::cast_precision_loss, reason = "a rate for a person")]
    let rate = n as f64 / begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for attacker in attackers {
        attacker.await.unwrap();
    }
    tokio::time::sleep(PAUSE).await;
    (latency, rate)
}
