//! The command line. It is only taken apart here; what it means, and what is wrong with it, is
//! decided in [`crate::config`], together with the file and the environment.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{
    commands::{Reach, ask, bench, build, check, dlq, new, plugins, test, topology},
    config::{Given, Sources},
};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(
    name = "warren",
    version,
    about = "Runs WebAssembly components as workers on RabbitMQ, or on a bus in this process.",
    long_about = "\
Runs WebAssembly components as workers on RabbitMQ, or on a bus in this process.

A plugin is a file: copy it into the plugin folder and it serves within a second; copy a new build \
over it and the next job runs the new one; delete it and the worker leaves.",
    after_long_help = "\
Examples:
  warren new greeter --lang python  make a worker of your own: rust, js, ts, python or c
  warren dev greeter                build it, run it, reload it on every change
  warren run                        run what is in plugins/, by config/warren.toml if it exists
  warren run --broker amqp://guest:guest@127.0.0.1:5672
  warren run --check                say what the configuration means, and whether it is right
  warren manager --broker URL       look after Node workers, without workers of its own
  warren call WD '{\"method\":\"GET\"}'  send a job and print the reply
  warren send WB @jobs.jsonl --lines  send one job for each line of a file
  warren bench WD '{\"method\":\"GET\"}' how many of these a second, and how long each takes
  warren dlq ls                     what was given up, by type and reason
  warren dlq replay WB --since 2h   run it again, after the mistake is mended
  warren topology check             is everything on the broker as it should be?
  warren test greeter               run a worker against the cases in greeter/tests
  warren check db.wasm              what a file is, and whether it would be loaded
  warren plugins rollback WB        let the version before serve again"
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the plugins of a folder
    #[command(long_about = "\
Runs the plugins of a folder, until SIGINT or SIGTERM.

Each setting is looked for in four places, the last one counts: the built-in default, the \
configuration file, the environment, the command line. All mistakes of all places are reported \
together, before anything starts, with exit code 64. config/warren.toml shows every setting; most \
have no option here.")]
    Run {
        /// What to run, and where.
        #[command(flatten)]
        options: Options,
        /// Read the configuration, say what it means, and exit: 0, or 64 if it has mistakes
        #[arg(long)]
        check: bool,
    },
    /// Make a folder for a new worker, in any language
    #[command(long_about = new::ABOUT, after_long_help = new::AFTER)]
    New(new::New),
    /// Make plugins of projects
    #[command(long_about = build::ABOUT, after_long_help = build::AFTER)]
    Build(build::Build),
    /// Build projects, run them, rebuild and reload on every change
    #[command(long_about = "\
Builds projects (see `warren build`) and runs their plugins. When a source of one is saved, that one is \
built and takes over; when it does not build, the compiler's text is shown and the version before goes on \
serving. Without a broker, the bus is in this process.

A single folder may bring its configuration along: its warren.toml counts unless --config or WARREN_CONFIG \
names another one.")]
    Dev {
        /// The folders of projects: with a worker.toml, a Cargo workspace, or a folder of such
        #[arg(default_value = ".", value_name = "FOLDER")]
        folders: Vec<PathBuf>,
        /// Fetch nothing from the network: no tools, and no packages
        #[arg(long)]
        offline: bool,
        /// What to run, and where.
        #[command(flatten)]
        options: Options,
    },
    /// Be the SystemManager of MicroServices.js, without workers
    #[command(long_about = "\
Keeps the list of all workers on the broker, those of MicroServices.js (Node.js) included, and is the \
gateway between them and the workers of Warren hosts: it takes the jobs of Node workers into the \
durable queues, hands jobs to Node workers, and tells a sender when nobody is there.

Every `warren run` with a RabbitMQ broker does the same beside its work, one of them at a time, and \
the next one takes over within a second. A manager of its own is for a bus on which no host should \
do it (peers.enabled = false), and for one where all workers are still Node workers: it takes the \
place of MicroServices.js' SystemManager, and may run beside it. It serves no HTTP but the admin \
port: /peers lists the workers.")]
    Manager {
        /// The configuration, in TOML or in the JSON of MicroServices.js
        /// [default: config/warren.toml if it exists] [env: WARREN_CONFIG]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// A RabbitMQ node, amqp://user:password@host:port/vhost; once for each node of a cluster
        /// [env: WARREN_BROKER, else BROKER_URL]
        #[arg(long, value_name = "URL")]
        broker: Vec<String>,
        /// Where metrics, health and the list of workers are served
        /// [default: 127.0.0.1:9091] [env: WARREN_ADMIN]
        #[arg(long, value_name = "ADDRESS")]
        admin: Option<String>,
        /// What is logged [default: info] [env: WARREN_LOG]
        #[arg(long, value_name = "LEVEL")]
        log: Option<String>,
        /// The form of log lines: text, json, or auto [default: auto] [env: WARREN_LOG_FORMAT]
        #[arg(long, value_name = "FORMAT")]
        log_format: Option<String>,
    },
    /// Send a job and print the reply
    #[command(long_about = ask::ABOUT_CALL, after_long_help = ask::AFTER_CALL)]
    Call {
        /// What is sent, and where.
        #[command(flatten)]
        ask: ask::Ask,
        /// How long to wait for the reply: 500ms, 10s, 2m [default: call_timeout, 10s]
        #[arg(long, value_name = "DURATION", value_parser = ask::parse_timeout)]
        timeout: Option<Duration>,
    },
    /// Send a job, or one for each line of a file, without waiting for what comes of it
    #[command(long_about = ask::ABOUT_SEND, after_long_help = ask::AFTER_SEND)]
    Send {
        /// What is sent, and where.
        #[command(flatten)]
        ask: ask::Ask,
        /// Each line of the data is a job; empty lines are passed over
        #[arg(long)]
        lines: bool,
    },
    /// Measure how many jobs a second a worker answers, and how long each takes
    #[command(long_about = bench::ABOUT, after_long_help = bench::AFTER)]
    Bench(bench::Bench),
    /// Look at dead letters, run them again, throw them away
    #[command(long_about = dlq::ABOUT, after_long_help = dlq::AFTER)]
    Dlq {
        /// Where the broker is.
        #[command(flatten)]
        reach: Reach,
        /// What to do.
        #[command(subcommand)]
        command: dlq::Dlq,
    },
    /// Say what a plugin file is, what it wants, and whether it would be loaded
    #[command(long_about = check::ABOUT, after_long_help = check::AFTER)]
    Check {
        /// The files, or the folders of projects, for what `warren build` has made of them
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The configuration of the host that is to load them
        /// [default: config/warren.toml if it exists] [env: WARREN_CONFIG]
        #[arg(long, value_name = "CONFIG")]
        config: Option<PathBuf>,
        /// Answer in JSON, one object per line, for programs
        #[arg(long)]
        json: bool,
    },
    /// Run workers against cases from files, without a broker
    #[command(long_about = test::ABOUT, after_long_help = test::AFTER)]
    Test {
        /// What is to be tested, and how.
        #[command(flatten)]
        test: test::Test,
    },
    /// List the versions of the workers of a host, go back to an earlier one
    #[command(long_about = plugins::ABOUT, after_long_help = plugins::AFTER)]
    Plugins {
        /// Where the host is.
        #[command(flatten)]
        place: plugins::Place,
        /// What to do.
        #[command(subcommand)]
        command: plugins::Plugins,
    },
    /// Compare the exchanges and queues on the broker with what they should be
    #[command(long_about = topology::ABOUT, after_long_help = topology::AFTER)]
    Topology {
        /// Where the broker is.
        #[command(flatten)]
        reach: Reach,
        /// What to do.
        #[command(subcommand)]
        command: topology::Topology,
    },
}

impl Command {
    /// Whether it runs workers, so that their secrets are needed.
    #[must_use]
    pub fn runs_workers(&self) -> bool {
        matches!(
            self,
            Self::Run { .. } | Self::Dev { .. } | Self::Test { .. }
        )
    }

    /// Whether what it does must not depend on where it is done, unless a configuration is named.
    #[must_use]
    pub fn stands_alone(&self) -> bool {
        matches!(self, Self::Test { test } if test.config.is_none())
    }

    /// The options that it was given.
    #[must_use]
    pub fn options(&self) -> Options {
        match self {
            Self::Run { options, .. } | Self::Dev { options, .. } => options.clone(),
            Self::Manager {
                config,
                broker,
                admin,
                log,
                log_format,
            } => Options {
                config: config.clone(),
                broker: broker.clone(),
                admin: admin.clone(),
                log: log.clone(),
                log_format: log_format.clone(),
                ..Options::default()
            },
            Self::Dlq { reach, .. } | Self::Topology { reach, .. } => reach.options(),
            Self::Plugins { place, .. } => place.options(),
            Self::New(_) | Self::Build(_) => Options::default(),
            Self::Call { ask, .. } | Self::Send { ask, .. } => ask.options(),
            Self::Bench(bench) => bench.options(),
            Self::Test { test } => Options {
                config: test.config.clone(),
                data_dir: test.data_dir.clone(),
                ..Options::default()
            },
            Self::Check { config, .. } => Options {
                config: config.clone(),
                ..Options::default()
            },
        }
    }
}

/// What every command that runs a host takes. Values stay texts here: a bad one is reported with all others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Options {
    /// The configuration, in TOML or in the JSON of MicroServices.js
    /// [default: config/warren.toml if it exists] [env: WARREN_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The folder that is watched for plugins; not for `dev`, which has one of its own
    /// [default: plugins] [env: WARREN_PLUGINS]
    #[arg(long, value_name = "FOLDER")]
    pub plugins: Option<String>,
    /// A RabbitMQ node, amqp://user:password@host:port/vhost, or `embedded` for the bus in this
    /// process; once for each node of a cluster. A password is better kept in the environment: the
    /// list of processes shows a command line to everybody
    /// [default: embedded] [env: WARREN_BROKER, else BROKER_URL]
    #[arg(long, value_name = "URL")]
    pub broker: Vec<String>,
    /// Where HTTP workers are reached [default: 127.0.0.1:8080] [env: WARREN_HTTP]
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<String>,
    /// Where metrics and health are served [default: 127.0.0.1:9091] [env: WARREN_ADMIN]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,
    /// Where the host keeps its files: databases, key-value stores, versions, compiled plugins [default: data] [env: WARREN_DATA_DIR]
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<String>,
    /// What is logged: error, warn, info, debug, trace or off, or a filter such as
    /// info,warren_bus=debug [default: info] [env: WARREN_LOG]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
    /// The form of log lines: text, json, or auto (coloured text on a terminal)
    /// [default: auto] [env: WARREN_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl Options {
    /// The sources of the configuration, for [`crate::config::load`].
    #[must_use]
    pub fn sources(&self, environment: BTreeMap<String, String>) -> Sources {
        // Taken apart so that a new option cannot be forgotten.
        let Self {
            config,
            plugins,
            broker,
            http,
            admin,
            data_dir,
            log,
            log_format,
        } = self;
        // The form in which a text names several brokers.
        let broker = (!broker.is_empty()).then(|| broker.join(","));
        let options = [
            ("--broker", "broker", &broker),
            ("--plugins", "plugins", plugins),
            ("--data-dir", "data_dir", data_dir),
            ("--http", "http", http),
            ("--admin", "admin", admin),
            ("--log", "log.level", log),
            ("--log-format", "log.format", log_format),
        ];
        let given = |(option, key, text): (&'static str, &'static str, &Option<String>)| {
            text.clone().map(|text| Given { option, key, text })
        };
        Sources {
            file: config.clone(),
            environment,
            options: options.into_iter().filter_map(given).collect(),
            without_secrets: false,
            alone: false,
        }
    }
}

/// The variables of this process, of which [`crate::config::load`] looks at its own and at those that
/// the operator names as secrets. What is not Unicode in them becomes `U+FFFD`, and then a mistake with a place instead of a panic.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    #[track_caller]
    fn check(line: &str, expected: &[(&str, &str, &str)]) {
        let given = parse(line)
            .unwrap()
            .options()
            .sources(BTreeMap::new())
            .options;
        let given: Vec<_> = given
            .iter()
            .map(|g| (g.option, g.key, g.text.as_str()))
            .collect();
        assert_eq!(given, expected);
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn dev_takes_this_folder_unless_told_otherwise() {
        for (line, expected) in [("warren dev", "."), ("warren dev mine", "mine")] {
            let Command::Dev { folders, .. } = parse(line).unwrap() else {
                panic!("not dev")
            };
            assert_eq!(folders, [PathBuf::from(expected)]);
        }
    }

    #[test]
    fn only_run_can_check() {
        assert!(matches!(
            parse("warren run --check").unwrap(),
            Command::Run { check: true, .. }
        ));
        assert!(matches!(
            parse("warren run").unwrap(),
            Command::Run { check: false, .. }
        ));
        assert!(parse("warren dev --check").is_err());
    }

    #[test]
    fn each_option_sets_its_key() {
        check("warren run", &[]);
        check(
            "warren run --broker amqp://a --plugins p --data-dir d --http h --admin a --log l --log-format f",
            &[
                ("--broker", "broker", "amqp://a"),
                ("--plugins", "plugins", "p"),
                ("--data-dir", "data_dir", "d"),
                ("--http", "http", "h"),
                ("--admin", "admin", "a"),
                ("--log", "log.level", "l"),
                ("--log-format", "log.format", "f"),
            ],
        );
        check("warren dev x --http=:0", &[("--http", "http", ":0")]);
    }

    #[test]
    fn several_brokers_are_one_list() {
        check(
            "warren run --broker amqp://a --broker amqp://b",
            &[("--broker", "broker", "amqp://a,amqp://b")],
        );
    }

    #[test]
    fn the_commands_of_an_operator_find_the_broker_where_a_host_does() {
        let broker = [("--broker", "broker", "amqp://a")];
        check("warren dlq ls", &[]);
        check("warren dlq ls WB --broker amqp://a", &broker);
        check("warren dlq --broker amqp://a ls", &broker);
        check("warren topology check --broker amqp://a", &broker);
    }

    #[test]
    fn the_file_is_named_by_config() {
        let Command::Run { options, .. } = parse("warren run --config x.toml").unwrap() else {
            panic!("not run")
        };
        assert_eq!(
            options.sources(BTreeMap::new()).file,
            Some(PathBuf::from("x.toml"))
        );
    }

    #[test]
    fn the_help_names_the_variable_of_every_option() {
        let mut run = Cli::command();
        let help = run
            .find_subcommand_mut("run")
            .unwrap()
            .render_long_help()
            .to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for variable in [
            "CONFIG",
            "PLUGINS",
            "BROKER",
            "HTTP",
            "ADMIN",
            "DATA_DIR",
            "LOG",
            "LOG_FORMAT",
        ] {
            let named = [
                format!("[env: WARREN_{variable}]"),
                format!("[env: WARREN_{variable},"),
            ];
            assert!(
                named.iter().any(|text| help.contains(text)),
                "{variable} in {help}"
            );
        }
    }
}
