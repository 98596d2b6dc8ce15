//! `warren`: reads what it is told, starts the host, and ends it when asked to.

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use warren::{
    EXIT_USAGE,
    cli::{self, Cli, Command},
    commands::{self, Verdict, making},
    compile,
    config::{self, Config, Sources},
    dev::{self, Dev},
    manager,
    run::{self, Link},
    telemetry::logs,
};

/// After so many polls of tasks a thread looks at sockets and timers. One poll of a guest that
/// computes lasts a tick of the engine, 10 ms: with tokio's 61 and busy threads, timers would be
/// half a second late.
const POLLS_BETWEEN_EVENTS: u32 = 8;

fn main() -> ExitCode {
    if let Some(bounds) = compile::asked(std::env::args_os()) {
        return match warren_runtime::compile_apart(&bounds) {
            Ok(()) => ExitCode::SUCCESS,
            Err(text) => {
                complain(&text);
                ExitCode::FAILURE
            }
        };
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    // What makes workers is the same whatever the configuration of a host is.
    match &cli.command {
        Command::New(new) => return verdict(commands::new::run(new)),
        Command::Build(build) => {
            let tools = making::tools_folder(&cli::environment());
            return operate(Threads::Few, commands::build::run(build, tools));
        }
        _ => {}
    }
    let sources = sources(&cli.command);
    let config = match config::load(&sources) {
        Ok(config) => config,
        Err(mistakes) => {
            complain(&mistakes.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if let Command::Run { check: true, .. } = cli.command {
        show(&config);
        return ExitCode::SUCCESS;
    }
    if let Command::Dev { options, .. } = &cli.command
        && options.plugins.is_some()
    {
        complain(
            "option --plugins: `warren dev` has a plugins folder of its own, <data-dir>/dev/plugins\n  \
             leave it out, or use `warren run`",
        );
        return ExitCode::from(EXIT_USAGE);
    }
    let what = match cli.command {
        Command::Run { .. } => What::Host,
        Command::Dev {
            folders, offline, ..
        } => What::Dev(Dev {
            folders,
            offline,
            tools: making::tools_folder(&cli::environment()),
        }),
        Command::Manager { .. } => What::Manager,
        command => {
            for warning in &config.warnings {
                complain(&format!("warning: {warning}"));
            }
            // One that runs workers has the threads of a host.
            let threads = match command {
                _ if command.runs_workers() => Threads::OfHost,
                Command::Bench(_) => Threads::One,
                _ => Threads::Few,
            };
            let tools = making::tools_folder(&cli::environment());
            return operate(threads, commands::run(&command, &config, &tools));
        }
    };
    match start(what, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("warren: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Where the configuration comes from. A single project may bring it along.
fn sources(command: &Command) -> Sources {
    let mut sources = Sources {
        without_secrets: !command.runs_workers(),
        alone: command.stands_alone(),
        ..command.options().sources(cli::environment())
    };
    if let Command::Dev { folders, .. } = command
        && let [folder] = folders.as_slice()
        && sources.file.is_none()
        && !sources.environment.contains_key("WARREN_CONFIG")
    {
        let brought = folder.join(dev::CONFIGURATION);
        sources.file = brought.is_file().then_some(brought);
    }
    sources
}

/// Carries out a command that ends by itself. A signal ends it at once: every step of every command
/// may be the last one.
fn operate(threads: Threads, command: impl Future<Output = anyhow::Result<Verdict>>) -> ExitCode {
    verdict(match threads.runtime() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Err(error.into()),
    })
}

fn verdict(done: anyhow::Result<Verdict>) -> ExitCode {
    match done {
        Ok(Verdict::Done) => ExitCode::SUCCESS,
        Ok(Verdict::Incomplete) => ExitCode::FAILURE,
        Ok(Verdict::Misuse) => ExitCode::from(EXIT_USAGE),
        Ok(Verdict::Failed(code)) => ExitCode::from(code),
        Err(error) => {
            complain(&format!("warren: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The threads that a command has.
enum Threads {
    /// What it hears wakes no second thread before it is dealt with: that would be in every latency.
    One,
    Few,
    OfHost,
}

impl Threads {
    fn runtime(self) -> std::io::Result<tokio::runtime::Runtime> {
        let mut runtime = match self {
            Self::One => tokio::runtime::Builder::new_current_thread(),
            Self::Few | Self::OfHost => tokio::runtime::Builder::new_multi_thread(),
        };
        match self {
            Self::One => &mut runtime,
            Self::Few => runtime.worker_threads(2),
            Self::OfHost => runtime
                .worker_threads(run::n_threads())
                .event_interval(POLLS_BETWEEN_EVENTS),
        };
        runtime
            .thread_stack_size(warren_runtime::THREAD_STACK_BYTES)
            .enable_all()
            .build()
    }
}

/// What goes on until a signal.
enum What {
    Host,
    Manager,
    /// Builds projects as well.
    Dev(Dev),
}

fn start(what: What, config: Config) -> anyhow::Result<()> {
    logs::init(&config.log, std::io::stderr().is_terminal())?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = Threads::OfHost.runtime()?;
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        follow_signals(shutdown.clone())?;
        match what {
            What::Host => {
                let engine = run::engine(&config)?;
                let link = Link::open(&config)?;
                run::run(config, link, engine, shutdown, |_| {}).await
            }
            What::Manager => manager::run(config, shutdown).await,
            What::Dev(dev) => dev::dev(config, dev, shutdown).await,
        }
    });
    // A plugin that is being compiled would otherwise hold the exit for seconds.
    runtime.shutdown_background();
    ended
}

/// The first SIGINT, SIGTERM or SIGHUP begins a clean end, the second one ends at once.
fn follow_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if shutdown.is_cancelled() {
                complain(
                    "warren: stopped at once by a second signal; RabbitMQ delivers again what ran",
                );
                std::process::exit(1);
            }
            shutdown.cancel();
        }
    });
    Ok(())
}

#[allow(clippy::print_stderr, reason = "there may be no log yet")]
fn complain(text: &str) {
    eprintln!("{text}");
}

#[allow(clippy::print_stdout, reason = "what was asked for")]
fn show(config: &Config) {
    println!("{config}");
}
