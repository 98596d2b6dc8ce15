//! What an operator does from the command line, beside the hosts that run: dead letters (`warren
//! dlq`) and the topology (`warren topology`) on a broker, the versions that a host has kept (`warren
//! plugins`), single jobs (`warren send`, `warren call`), many of them
//! against a clock (`warren bench`). Beside them what makes workers: `warren new`, `warren
//! build`.
//!
//! What is asked for goes to standard output, what is said about it to standard error. Invariant:
//! what only looks changes nothing on the broker, and nothing is taken off a queue unless the
//! command says so by its name.

pub mod ask;
pub mod bench;
pub mod build;
pub mod check;
pub mod dlq;
mod filter;
mod letter;
pub mod making;
mod moment;
pub mod new;
mod output;
pub mod plugins;
mod progress;
pub mod test;
pub mod topology;

use std::{io, path::Path};

use anyhow::bail;
use clap::Args;
use warren_bus::operator::Operator;

use crate::{
    cli::{Command, Options},
    config::{Broker, Config},
    run,
};

/// How a command ended that could be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be: exit code 0.
    Done,
    /// Something of it could not be done, or is not as it should be: exit code 1.
    Incomplete,
    /// It was not asked for in the right way: exit code 64.
    Misuse,
    /// With an exit code that says what went wrong; the help of the command has the list.
    Failed(u8),
}

/// Where the broker is, and how to answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Reach {
    /// The configuration of the hosts: the broker is read there
    /// [default: config/warren.toml if it exists] [env: WARREN_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<std::path::PathBuf>,
    /// A RabbitMQ node, amqp://user:password@host:port/vhost; once for each node of a cluster
    /// [env: WARREN_BROKER, else BROKER_URL]
    #[arg(long, value_name = "URL", global = true)]
    pub broker: Vec<String>,
    /// Answer in JSON, one object per line, for programs
    #[arg(long, global = true)]
    pub json: bool,
}

impl Reach {
    /// The same as options of `warren run`, for the configuration.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            config: self.config.clone(),
            broker: self.broker.clone(),
            ..Options::default()
        }
    }
}

/// Carries out a command that ends by itself. `tools` is the folder for tools of npm and PyPI.
///
/// # Errors
/// When the broker cannot be reached or refuses, or what was asked for cannot be written.
pub async fn run(command: &Command, config: &Config, tools: &Path) -> anyhow::Result<Verdict> {
    let done = match command {
        Command::Dlq { reach, command } => dlq::run(config, reach, command).await,
        Command::Topology { reach, command } => topology::run(config, reach, command).await,
        Command::Check { files, json, .. } => check::run(config, files, *json).await,
        Command::Call { ask, timeout } => ask::call(config, ask, *timeout).await,
        Command::Send { ask, lines } => ask::send(config, ask, *lines).await,
        Command::Bench(bench) => bench::run(config, bench).await,
        Command::Test { test } => test::run(config, test, tools).await,
        Command::Plugins { place, command } => plugins::run(config, place, command).await,
        Command::New(_) | Command::Build(_) => bail!("this command needs no configuration"),
        Command::Run { .. } | Command::Dev { .. } | Command::Manager { .. } => {
            bail!("this command runs a host")
        }
    };
    match done {
        // Whoever read this has seen enough (`warren dlq ls | head`).
        Err(error) if is_closed_pipe(&error) => Ok(Verdict::Done),
        done => done,
    }
}

/// Connects to the broker of the configuration.
async fn connect(config: &Config) -> anyhow::Result<Operator> {
    let Broker::RabbitMq(urls) = &config.broker else {
        bail!(
            "no broker is configured, and the bus inside a host keeps nothing that could be looked \
             at from outside\n  name the broker with --broker, WARREN_BROKER or `broker` in \
             config/warren.toml"
        );
    };
    Ok(Operator::connect(&run::settings(config, urls, "operator")).await?)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
    causes.any(|error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe)
}
