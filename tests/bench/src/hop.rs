//! One hop: a job from a durable quorum queue to its worker, with and without a reply.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use warren_tests::Broker;

use crate::{contender::Contender, loader::Loader, processes::usage};

/// Questions that are open at the same time where as many as possible are to be answered.
const N_OPEN: usize = 64;
/// Between two looks at the queue.
const LOOK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(120);

/// What one round has shown of one contender.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Hop {
    /// From its start to the first job that is taken, in seconds, with all that it needs compiled.
    pub(crate) start: f64,
    /// Jobs in a second out of a backlog, without replies.
    pub(crate) drained: f64,
    /// Time on a processor for each of them, in microseconds.
    pub(crate) cpu: f64,
    /// Resident memory when it was ready, with its backlog waiting, and at the end, in bytes.
    pub(crate) memory: (u64, u64),
    /// Replies in a second with 64 questions open, their latencies, and the time on a processor for each, in
    /// microseconds.
    pub(crate) asked: f64,
    pub(crate) asked_cpu: f64,
    pub(crate) closed: Percentiles,
    /// The broker's time on a processor for each of those, in microseconds.
    pub(crate) broker_cpu: f64,
    /// Latencies where one question at a time is open, so that nobody waits for a processor.
    pub(crate) alone: Percentiles,
    /// The rate of the open loop, half of what it has shown to be able to, and the latencies there.
    pub(crate) half: f64,
    pub(crate) open: Percentiles,
    /// The same at half of what Warren's guest in Rust is able to: for the contenders that can.
    pub(crate) same: Option<Percentiles>,
}

/// In microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
}

impl From<&Histogram<u64>> for Percentiles {
    fn from(latency: &Histogram<u64>) -> Self {
        let at = |quantile| latency.value_at_quantile(quantile);
        Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
        }
    }
}

/// Measures one contender. `same_rate`: a rate at which it is asked as well, in jobs per second.
pub(crate) async fn measure(
    contender: Contender,
    broker: &Broker,
    loader: &mut Loader,
    seconds: f64,
    same_rate: Option<f64>,
) -> Result<Hop> {
    let target = contender.target();
    let url = &broker.url();
    contender.prepare(url, loader).await?;
    let n = contender.n_backlog();
    loader.fill(&target, n).await?;

    let begun = Instant::now();
    let running = contender.start(url).await?;
    let mut hop = Hop::default();
    hop.memory.0 = usage(&running.pids).memory;
    // The slope between a fifth and nine tenths: how it starts and how it ends is not its speed.
    let (high, low) = (n * 8 / 10, n / 10);
    let mut first = None;
    let last = loop {
        let left = loader.n_ready(&target.queue).await? as usize;
        if hop.start == 0.0 && left < n {
            hop.start = begun.elapsed().as_secs_f64();
        }
        let look = || (Instant::now(), left, usage(&running.pids));
        if left <= low {
            break look();
        }
        if left <= high && first.is_none() {
            first = Some(look());
        }
        if begun.elapsed() > PATIENCE {
            bail!("{}: {left} of {n} jobs are left", contender.name());
        }
        sleep(LOOK).await;
    };
    let Some((began, more, before)) = first else {
        bail!("{}: {n} jobs are too few to measure it", contender.name());
    };
    let (ended, less, after) = last;
    let n_done = (more - less) as f64;
    hop.drained = n_done / (ended - began).as_secs_f64();
    hop.cpu = (after.cpu - before.cpu) / n_done * 1e6;
    while loader.n_ready(&target.queue).await? > 0 {
        if begun.elapsed() > PATIENCE {
            bail!(
                "{} does not come to the end of its backlog",
                contender.name()
            );
        }
        sleep(LOOK).await;
    }

    let during = Duration::from_secs_f64(seconds);
    loader.ask_always(&target, N_OPEN, during / 4).await?;
    let broker: Vec<u32> = broker.pid().into_iter().collect();
    let used = || (usage(&running.pids).cpu, usage(&broker).cpu);
    let before = used();
    let closed = loader.ask_always(&target, N_OPEN, during).await?;
    let after = used();
    let n = closed.latency.len() as f64;
    hop.asked_cpu = (after.0 - before.0) / n * 1e6;
    hop.broker_cpu = (after.1 - before.1) / n * 1e6;
    let alone = loader.ask_always(&target, 1, during / 4).await?;
    hop.alone = Percentiles::from(&alone.latency);
    (hop.asked, hop.closed) = (closed.rate, Percentiles::from(&closed.latency));
    hop.half = closed.rate / 2.0;
    let open = loader.ask_at(&target, hop.half, during).await?;
    hop.open = Percentiles::from(&open.latency);
    if let Some(rate) = same_rate {
        let open = loader.ask_at(&target, rate, during).await?;
        hop.same = Some(Percentiles::from(&open.latency));
    }
    hop.memory.1 = usage(&running.pids).memory;
    Ok(hop)
}
