//! The benchmark of the whole system: Warren beside what people would use instead, on one broker, in
//! one run, everybody once in each round. `tests/bench/run --help` says how to use it.

#![allow(clippy::print_stderr, reason = "progress, for a person")]

mod bare;
mod contender;
mod hop;
mod loader;
mod processes;
mod report;
mod resources;
mod scaling;
mod trio;
mod work;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use warren_tests::Broker;

use contender::Contender;
use loader::Loader;
use report::{Round, Run};
use trio::Trio;

/// Started by tests/bench/run.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// How often everybody is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each load goes on, in seconds.
    #[arg(long, default_value_t = 4.0, global = true)]
    seconds: f64,
    /// How many idle plugins a host is given in the first round.
    #[arg(long, default_value_t = 1000)]
    plugins: usize,
    /// Leave the scaling out.
    #[arg(long)]
    no_scaling: bool,
    /// What the benchmark `fresh` has written.
    #[arg(long)]
    fresh: Option<PathBuf>,
    /// Where all figures are kept.
    #[arg(long, default_value = "target/bench/figures.json")]
    json: PathBuf,
    /// The document whose tables are replaced.
    #[arg(long, default_value = "tests/BENCHMARKS.md")]
    document: PathBuf,
}

#[derive(Subcommand)]
enum Role {
    /// The ceiling, started by the benchmark itself.
    #[command(hide = true)]
    BareConsumer { url: String, queue: String },
    /// Only writes the document, from the figures that are kept.
    Render,
    /// Only measures the scaling, and puts it with the figures that are kept.
    Scaling,
    /// Measures one contender by itself and prints its figures: for a profile, or before and after a change.
    One {
        /// bare, rust, java-script, python, node or celery.
        contender: Contender,
    },
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.role {
        Some(Role::BareConsumer { url, queue }) => return bare::run(url, queue).await,
        Some(Role::Render) => {
            return kept(&arguments)?.write(&arguments.document);
        }
        Some(Role::One { .. } | Role::Scaling) | None => {}
    }
    // What it has started goes with the values that hold it, also when it is interrupted.
    let mut end = signal(SignalKind::terminate())?;
    let measured = async {
        match arguments.role {
            Some(Role::One { contender }) => one(contender, arguments.seconds).await,
            Some(Role::Scaling) => {
                let broker = Broker::start().await;
                let url = broker.url();
                let mut loader = Loader::connect(&url).await?;
                scale(&arguments, kept(&arguments)?, &broker, &mut loader).await
            }
            _ => measure(&arguments).await,
        }
    };
    tokio::select! {
        measured = measured => measured,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = end.recv() => bail!("ended"),
    }
}

#[allow(clippy::print_stdout, reason = "what was asked for")]
async fn one(contender: Contender, seconds: f64) -> Result<()> {
    let broker = Broker::start().await;
    let url = broker.url();
    let mut loader = Loader::connect(&url).await?;
    let hop = hop::measure(contender, &broker, &mut loader, seconds, None).await?;
    println!("{}", serde_json::to_string_pretty(&hop)?);
    Ok(())
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let broker = Broker::start().await;
    let url = broker.url();
    let mut loader = Loader::connect(&url).await?;
    let mut run = Run {
        machine: report::machine(),
        fresh: arguments.fresh.as_deref().map(fresh).transpose()?,
        ..Run::default()
    };
    for number in 1..=arguments.rounds {
        let mut round = Round::default();
        for trio in Trio::ALL {
            eprintln!("round {number}: {}", trio.name());
            round
                .trios
                .push(trio.measure(&broker, arguments.seconds).await?);
        }
        // Before the ceiling, which is asked at the same rate as well.
        let seconds = arguments.seconds;
        eprintln!("round {number}: {}", Contender::Rust.name());
        let rust = hop::measure(Contender::Rust, &broker, &mut loader, seconds, None).await?;
        let same_rate = rust.half;
        let mut rust = Some(rust);
        for contender in Contender::ALL {
            let hop = match contender {
                Contender::Rust => rust.take().unwrap_or_default(),
                _ => {
                    eprintln!("round {number}: {}", contender.name());
                    let same_rate = (contender == Contender::Bare).then_some(same_rate);
                    hop::measure(contender, &broker, &mut loader, seconds, same_rate).await?
                }
            };
            round.hops.push(hop);
        }
        eprintln!("round {number}: start, swap, idle plugins");
        // Compiling a thousand takes minutes: once is enough.
        let n_plugins = if number == 1 { arguments.plugins } else { 100 };
        round.resources = resources::measure(n_plugins).await?;
        run.rounds.push(round);
        fs::write(&arguments.json, serde_json::to_vec_pretty(&run)?)?;
    }
    if arguments.no_scaling {
        return run.write(&arguments.document);
    }
    scale(arguments, run, &broker, &mut loader).await
}

/// The figures of the last run.
fn kept(arguments: &Arguments) -> Result<Run> {
    let file = &arguments.json;
    let figures = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(serde_json::from_slice(&figures)?)
}

/// Replaces the scaling of `run`. Where it fails, what it has measured until then is kept.
async fn scale(
    arguments: &Arguments,
    mut run: Run,
    broker: &Broker,
    loader: &mut Loader,
) -> Result<()> {
    eprintln!("scaling");
    run.scaling.clear();
    let measured = scaling::measure(broker, loader, &mut run.scaling).await;
    fs::write(&arguments.json, serde_json::to_vec_pretty(&run)?)?;
    run.write(&arguments.document)?;
    measured
}

fn fresh(file: &std::path::Path) -> Result<[f64; 3]> {
    let figures: Value = serde_json::from_slice(&fs::read(file)?)?;
    let at = |name: &str| {
        let ratio = figures.pointer(&format!("/fresh_instance/ratio/{name}"));
        ratio.and_then(Value::as_f64)
    };
    let figures = (|| Some([at("min")?, at("median")?, at("max")?]))();
    figures.with_context(|| format!("{}: no ratio of a fresh instance", file.display()))
}
