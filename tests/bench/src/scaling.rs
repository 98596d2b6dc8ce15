//! What grows with what: hosts, worker types, backlog, suspended calls, payloads.

use std::{
    fmt,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;
use warren_tests::{Broker, Host, Setup, Site};

use crate::{
    contender::Contender,
    hop::Percentiles,
    loader::{Loader, Target},
    processes::{Usage, usage},
    resources::{guest, renamed},
};

const LOOK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(180);
/// How long a host may stand still without the broker taking it for lost.
const LONGEST_STILL: Duration = Duration::from_secs(12);
const MIB: f64 = (1 << 20) as f64;

/// One line of the table: what it was measured with, and what came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) figures: String,
}

/// Adds to `lines`, which keep what has been measured where the rest fails.
pub(crate) async fn measure(
    broker: &Broker,
    loader: &mut Loader,
    lines: &mut Vec<Line>,
) -> Result<()> {
    let url = &broker.url();
    for n_hosts in [1, 2, 4] {
        lines.push(hosts(broker, loader, n_hosts).await?);
    }
    for n_types in [1, 8, 64] {
        lines.push(types(broker, loader, n_types).await?);
    }
    lines.push(backlog(url, loader).await?);
    lines.push(suspended().await?);
    for size in [100, 10_000, 100_000, 1_000_000, 10_000_000] {
        lines.push(payload(url, loader, size).await?);
    }
    Ok(())
}

/// One backlog, drained by several hosts.
async fn hosts(broker: &Broker, loader: &mut Loader, n_hosts: usize) -> Result<Line> {
    let tally = guest()?;
    let hosts = (0..n_hosts).map(|_| {
        let setup = Setup::new(&Site::embedded()).with_broker(&broker.url());
        setup.with_file("plugins/tally.wasm", &tally).start()
    });
    let hosts = join_all(hosts).await;
    let drained = drain(broker, loader, &hosts, &[Contender::Rust.target()]).await?;
    Ok(Line {
        what: format!("{n_hosts} {}, one type, RabbitMQ", plural("host", n_hosts)),
        figures: drained.to_string(),
    })
}

/// One host with several types, each with its share of the backlog.
async fn types(broker: &Broker, loader: &mut Loader, n_types: usize) -> Result<Line> {
    let tally = guest()?;
    let setup = Setup::new(&Site::embedded()).with_broker(&broker.url());
    let setup = (0..n_types).fold(setup, |setup: Setup, index| {
        setup.with_file(&format!("plugins/p{index}.wasm"), renamed(&tally, index))
    });
    let targets: Vec<Target> = (0..n_types)
        .map(|index| Target {
            queue: format!("warren.v1.q.T{index:04}"),
            key: format!("T{index:04}:*"),
            ..Contender::Rust.target()
        })
        .collect();
    let hosts = [setup.start().await];
    let drained = drain(broker, loader, &hosts, &targets).await?;
    Ok(Line {
        what: format!("{n_types} {}, one host, RabbitMQ", plural("type", n_types)),
        figures: drained.to_string(),
    })
}

fn plural(word: &str, n: usize) -> String {
    format!("{word}{}", if n == 1 { "" } else { "s" })
}

/// How hosts got through a backlog.
struct Drained {
    /// In a second.
    jobs: f64,
    /// Time on processors for each job, in microseconds: of the hosts, and of the broker.
    host_cpu: f64,
    broker_cpu: f64,
    /// Of the hosts before, and when nine tenths were done, in MiB.
    memory: (f64, f64),
}

impl fmt::Display for Drained {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:.0} jobs/s, {:.0} µs of the hosts for each and {:.0} of the broker, {:.0} → {:.0} MiB",
            self.jobs, self.host_cpu, self.broker_cpu, self.memory.0, self.memory.1
        )
    }
}

/// Has a backlog drained that the hosts find when they all are up.
async fn drain(
    broker: &Broker,
    loader: &Loader,
    hosts: &[Host],
    targets: &[Target],
) -> Result<Drained> {
    const N: usize = 128_000;
    let pids: Vec<u32> = hosts.iter().map(Host::pid).collect();
    let of_broker: Vec<u32> = broker.pid().into_iter().collect();
    let used = || (usage(&pids), usage(&of_broker));
    let left = async || {
        let mut left = 0;
        for target in targets {
            left += loader.n_ready(&target.queue).await? as usize;
        }
        anyhow::Ok((Instant::now(), left))
    };
    // What is ready would be taken meanwhile.
    let still = Still::new(hosts)?;
    let stood = Instant::now();
    for target in targets {
        loader.fill(target, N / targets.len()).await?;
    }
    let (began, n_first) = left().await?;
    let before = used();
    drop(still);
    if stood.elapsed() > LONGEST_STILL || n_first < N / 2 {
        bail!(
            "{n_first} of {N} jobs were ready after {:?}, in which the hosts stood still",
            stood.elapsed()
        );
    }
    loop {
        let (now, n_left) = left().await?;
        if n_left <= n_first / 10 {
            let (after, n) = (used(), (n_first - n_left) as f64);
            let each = |after: Usage, before: Usage| (after.cpu - before.cpu) / n * 1e6;
            return Ok(Drained {
                jobs: n / (now - began).as_secs_f64(),
                host_cpu: each(after.0, before.0),
                broker_cpu: each(after.1, before.1),
                memory: (before.0.memory as f64 / MIB, after.0.memory as f64 / MIB),
            });
        }
        if began.elapsed() > PATIENCE {
            bail!("{n_left} of {N} jobs are left");
        }
        sleep(LOOK).await;
    }
}

/// Hosts that stand still as long as this lives.
struct Still<'a>(&'a [Host]);

impl<'a> Still<'a> {
    fn new(hosts: &'a [Host]) -> Result<Self> {
        let still = Self(hosts);
        still.signal("STOP")?;
        Ok(still)
    }

    fn signal(&self, name: &str) -> Result<()> {
        let pids = self.0.iter().map(|host| host.pid().to_string());
        let status = Command::new("kill")
            .args(["-s", name])
            .args(pids)
            .status()?;
        ensure!(status.success(), "a host cannot be sent {name}");
        Ok(())
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        let _ = self.signal("CONT");
    }
}

/// A backlog that is far larger than what a host holds.
async fn backlog(url: &str, loader: &mut Loader) -> Result<Line> {
    const N: usize = 100_000;
    let target = Contender::Rust.target();
    Contender::Rust.prepare(url, loader).await?;
    loader.fill(&target, N).await?;
    let running = Contender::Rust.start(url).await?;
    let before = usage(&running.pids).memory as f64 / MIB;
    let (begun, mut most) = (Instant::now(), before);
    while loader.n_ready(&target.queue).await? > 0 {
        most = most.max(usage(&running.pids).memory as f64 / MIB);
        if begun.elapsed() > PATIENCE {
            bail!("a backlog of {N} jobs is not drained");
        }
        sleep(LOOK).await;
    }
    Ok(Line {
        what: format!("backlog of {N} jobs, RabbitMQ"),
        figures: format!("resident {before:.0} MiB at its begin, {most:.0} MiB at the most"),
    })
}

/// Guests that wait for a reply, all at once.
async fn suspended() -> Result<Line> {
    const N: usize = 8000;
    let config = format!(
        "call_timeout = \"10m\"\ninstances = {}\n[limits]\ndeadline = \"10m\"\n[workers.TALLY]\nconcurrency = {N}\n\
         [workers.FK]\nconcurrency = 1\n",
        N + 100,
    );
    let setup = Setup::new(&Site::embedded()).with_plugins(["tally", "attacker", "http_faulty"]);
    let host = setup.with_config(&config).start().await;
    let send = async |to: &str, order: serde_json::Value| {
        let path = format!("/faulty/?do=send&to={to}");
        host.post(&path, order.to_string()).await
    };
    // The only instance sleeps: whoever calls the type waits.
    send("FK:*", json!({"do": "sleep"})).await;
    in_flight(&host, "FK", 1).await?;
    let before = usage(&[host.pid()]).memory;
    let begun = Instant::now();
    for _ in 0..N {
        send("TALLY:*", json!({"ask": "FK:*"})).await;
    }
    in_flight(&host, "TALLY", N).await?;
    let took = begun.elapsed().as_secs_f64();
    let each = usage(&[host.pid()]).memory.saturating_sub(before) / N as u64 / 1024;
    let asked = Instant::now();
    let is_well = host.admin("/readyz").await.status.is_success();
    let answered = asked.elapsed().as_secs_f64() * 1e3;
    if !is_well {
        bail!("a host with {N} suspended calls is not ready");
    }
    Ok(Line {
        what: format!("{N} suspended calls, embedded bus"),
        figures: format!(
            "{each} KiB resident each; all suspended {took:.1} s after the first was sent over HTTP; \
             ready, says so in {answered:.1} ms"
        ),
    })
}

async fn in_flight(host: &Host, worker: &str, n: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let entry = host.worker(worker).await.unwrap_or_default();
        if entry.get("in_flight").and_then(serde_json::Value::as_u64) == Some(n as u64) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("{n} runs of {worker} do not come together: {entry}");
        }
        sleep(LOOK).await;
    }
}

/// Jobs that carry more: to the guest and back.
async fn payload(url: &str, loader: &mut Loader, size: usize) -> Result<Line> {
    const LIMITS: &str = "[limits]\npayload = \"64MiB\"\nmemory = \"256MiB\"\n";
    let setup = Setup::new(&Site::embedded()).with_broker(url);
    let setup = setup.with_plugins(["attacker"]).with_config(LIMITS);
    let host = setup.start().await;
    let target = Target {
        queue: "warren.v1.q.FK".to_owned(),
        key: "FK:*".to_owned(),
        data: json!({"do": "echo", "data": "x".repeat(size)}),
        ..Contender::Rust.target()
    };
    let asked = loader
        .ask_always(&target, 1, Duration::from_secs(3))
        .await?;
    let latency = Percentiles::from(&asked.latency);
    let memory = usage(&[host.pid()]).memory as f64 / MIB;
    Ok(Line {
        what: format!("payload of {size} B there and back, one at a time, RabbitMQ"),
        figures: format!(
            "{:.0} jobs/s, p50 {:.2} ms, p99 {:.2} ms, {memory:.0} MiB",
            asked.rate,
            latency.p50 as f64 / 1e3,
            latency.p99 as f64 / 1e3,
        ),
    })
}
