//! Who is measured: the same work behind the same queue, done by different means.

use std::{any::Any, env, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use warren_tests::{Setup, Site, host};

use crate::{
    loader::{Format, JOBS, Loader, Target},
    processes::Ready,
    work::{self, PREFETCH, TYPE},
};

/// How long a worker may take to start.
const START: Duration = Duration::from_secs(60);

/// One way to do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Contender {
    /// A consumer on lapin: the ceiling.
    Bare,
    /// A host with the guest in Rust.
    Rust,
    /// A host with the guest in JavaScript.
    JavaScript,
    /// A host with the guest in Python.
    Python,
    /// A worker on amqplib, with noDelay.
    Node,
    /// A worker of Celery.
    Celery,
}

/// A contender at work.
pub(crate) struct Running {
    /// The processes whose use of the machine is its price.
    pub(crate) pids: Vec<u32>,
    _held: Box<dyn Any>,
}

impl Contender {
    pub(crate) const ALL: [Self; 6] = [
        Self::Bare,
        Self::Rust,
        Self::JavaScript,
        Self::Python,
        Self::Node,
        Self::Celery,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare lapin consumer",
            Self::Rust => "Warren, Rust guest",
            Self::JavaScript => "Warren, JavaScript guest",
            Self::Python => "Warren, Python guest",
            Self::Node => "Node, amqplib with noDelay",
            Self::Celery => "Celery",
        }
    }

    /// Jobs that it takes some seconds for.
    pub(crate) fn n_backlog(self) -> usize {
        match self {
            Self::Bare | Self::Rust | Self::Node => 40_000,
            Self::JavaScript => 8_000,
            Self::Celery => 6_000,
            Self::Python => 1_500,
        }
    }

    fn is_host(self) -> bool {
        matches!(self, Self::Rust | Self::JavaScript | Self::Python)
    }

    pub(crate) fn target(self) -> Target {
        let data = work::order();
        let host = Target {
            queue: format!("warren.v1.q.{TYPE}"),
            exchange: JOBS,
            key: format!("{TYPE}:*"),
            format: Format::Warren,
            data,
        };
        match self {
            Self::Bare => Target {
                queue: "bench.bare".to_owned(),
                key: "BARE:*".to_owned(),
                ..host
            },
            Self::Node => Target {
                queue: "bench.node".to_owned(),
                key: "NODE:*".to_owned(),
                ..host
            },
            Self::Celery => Target {
                queue: "bench.celery".to_owned(),
                exchange: "",
                key: "bench.celery".to_owned(),
                format: Format::Celery,
                ..host
            },
            Self::Rust | Self::JavaScript | Self::Python => host,
        }
    }

    /// Makes its queue, empty.
    pub(crate) async fn prepare(self, url: &str, loader: &Loader) -> Result<()> {
        let target = self.target();
        if self.is_host() {
            // It declares its own.
            drop(self.start(url).await?);
        } else {
            loader.declare(&target).await?;
        }
        loader.purge(&target.queue).await
    }

    /// Starts it, and returns when it takes jobs.
    pub(crate) async fn start(self, url: &str) -> Result<Running> {
        let bench = host::repository().join("tests/bench");
        let queue = self.target().queue;
        match self {
            Self::Bare => {
                let mut command = Command::new(env::current_exe()?);
                command.args(["bare-consumer", url, &queue]);
                Running::of(Ready::start(command, "ready", START)?)
            }
            Self::Node => {
                let mut command = Command::new("node");
                command
                    .arg(bench.join("rivals/node/worker.js"))
                    .env("BROKER", url)
                    .env("QUEUE", queue)
                    .env("PREFETCH", PREFETCH.to_string());
                Running::of(Ready::start(command, "ready", START)?)
            }
            Self::Celery => {
                let mut command = Command::new(bench.join("rivals/celery/worker"));
                command.env("BROKER", url).env("QUEUE", queue);
                Running::of(Ready::start(command, "ready", START)?)
            }
            Self::Rust | Self::JavaScript | Self::Python => {
                let file = self.plugin()?;
                let setup = Setup::new(&Site::embedded()).with_broker(url);
                let setup = setup.with_file("plugins/tally.wasm", file);
                let host = setup.start().await;
                Ok(Running {
                    pids: vec![host.pid()],
                    _held: Box::new(host),
                })
            }
        }
    }

    fn plugin(self) -> Result<Vec<u8>> {
        read(&host::repository().join(match self {
            Self::JavaScript => "tests/guests/tally/js/build/tally-js.wasm",
            Self::Python => "tests/guests/tally/python/build/tally-python.wasm",
            _ => "guests/target/wasm32-wasip2/release/tally.wasm",
        }))
    }
}

impl Running {
    #[allow(clippy::unnecessary_wraps, reason = "an arm of a match of results")]
    fn of(process: Ready) -> Result<Self> {
        Ok(Self {
            pids: vec![process.pid()],
            _held: Box::new(process),
        })
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("reading {}: tests/bench/run builds it", file.display()))
}
