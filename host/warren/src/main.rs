//! `warren`: reads what it is told, starts the host, and ends it when asked to.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use warren::{
    EXIT_USAGE,
    cli::{self, Cli, Command},
    commands::{self, Verdict},
    compile,
    config::{self, Config, Sources},
    dev, manager,
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
    let sources = Sources {
        without_secrets: !cli.command.runs_workers(),
        ..cli.command.options().sources(cli::environment())
    };
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
        Command::Dev { folder, .. } => What::Dev(folder),
        Command::Manager { .. } => What::Manager,
        command @ (Command::Call { .. }
        | Command::Check { .. }
        | Command::Dlq { .. }
        | Command::Plugins { .. }
        | Command::Send { .. }
        | Command::Topology { .. }) => {
            return operate(&command, &config);
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

/// Carries out a command of an operator. A signal ends it at once: every step of every command may
/// be the last one.
fn operate(command: &Command, config: &Config) -> ExitCode {
    for warning in &config.warnings {
        complain(&format!("warning: {warning}"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(command, config)),
        Err(error) => Err(error.into()),
    };
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

/// What goes on until a signal.
enum What {
    Host,
    Manager,
    /// Builds the guests of this workspace.
    Dev(PathBuf),
}

fn start(what: What, config: Config) -> anyhow::Result<()> {
    logs::init(&config.log, std::io::stderr().is_terminal())?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(run::n_threads())
        .enable_all()
        .event_interval(POLLS_BETWEEN_EVENTS)
        .build()?;
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
            What::Dev(folder) => dev::dev(config, &folder, shutdown).await,
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
