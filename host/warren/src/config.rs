//! What the operator wants: one plain value, read from a file, the environment and the command
//! line.
//!
//! [`load`] merges the sources (defaults < file < environment < command line) and reports every
//! mistake of all of them together, each with its place and remedy. Nothing below this module ever
//! sees a text of a duration, a size or an address: they are parsed here, once.
//!
//! Invariant: the environment and the command line are handed in ([`Sources`]); nothing in here
//! reads the process. A secret (the password of a broker, what a worker finds in its `config` or its
//! `secrets`) never shows in a message or a debug print.

mod apart;
mod broker_access;
mod broker_url;
mod describe;
mod from_json;
mod from_toml;
mod keys;
mod keyvalue;
mod load;
mod mistakes;
mod reach;
mod read;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod values;

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use warren_bus::{BrokerFiles, PeersConfig};
use warren_protocol::{Encoding, WorkerType};
use warren_runtime::{CompilerBounds, DatabaseUrl, Digest, Grants, RedisUrl, Secret};

pub(crate) use self::{
    apart::{Apart, Step},
    keyvalue::read_redis,
    reach::{read_all as read_secrets, read_authorities, read_database},
    read::closest,
    values::parse_duration,
};
pub use self::{
    broker_url::{BrokerUrl, BrokerUrlError},
    load::load,
    mistakes::{Mistake, Mistakes, Place},
};

/// Read when no file is named, if it exists.
pub const DEFAULT_FILE: &str = "config/warren.toml";

/// Everything the host is told from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where jobs travel.
    pub broker: Broker,
    /// The password and the certificates for RabbitMQ. Each can be read, as far as it counts.
    pub broker_files: BrokerFiles,
    /// The folder that is watched for plugins (`*.wasm`).
    pub plugins: PathBuf,
    /// Where the host keeps files: the embedded databases and key-value stores of the workers, the versions that they
    /// can go back to, compiled plugins.
    pub data_dir: PathBuf,
    /// How many versions of each worker are kept beside the one that serves.
    pub keep_versions: u32,
    /// Instances of guests that may live at the same time, all workers together; further runs wait.
    pub instances: u32,
    /// How much room compiled plugins may take, in bytes; 0: none are kept.
    pub compile_cache_bytes: u64,
    /// What compiling one plugin may take.
    pub compiler: CompilerBounds,
    /// Where HTTP workers are reached. Port 0 takes a free one.
    pub http: SocketAddr,
    /// Where metrics, health and the lists of workers and plugins are served. Port 0 takes a free
    /// one.
    pub admin: SocketAddr,
    /// How job envelopes are written on the bus.
    pub encoding: Encoding,
    /// How long a guest's `bus.call` waits for its reply, unless the guest says otherwise.
    pub call_timeout: Duration,
    /// From the signal to the exit of the process; what still runs then is interrupted.
    pub shutdown_grace: Duration,
    /// How long running jobs may go on when their worker is removed or the host stops (at a stop
    /// the shorter of this and `shutdown_grace` counts).
    pub drain_timeout: Duration,
    /// After how long the broker takes back a delivery that is not settled (RabbitMQ's
    /// `consumer_timeout`, which it does not tell). No delivery is held for longer.
    pub consumer_timeout: Duration,
    /// How often the workers of MicroServices.js are asked who is there. Zero: only by a gateway
    /// that begins.
    pub keepalive: Duration,
    /// How workers of MicroServices.js are served.
    pub peers: Peers,
    /// What is logged, and how.
    pub log: Log,
    /// The limits of every worker that has none of its own in [`Config::workers`].
    pub limits: Limits,
    /// What single workers are told and allowed; a worker without an entry has the defaults.
    pub workers: BTreeMap<WorkerType, WorkerConfig>,
    /// Where it came from.
    pub source: Source,
    /// What works but is probably not meant; for the log, once it is up. No secrets.
    pub warnings: Vec<String>,
}

/// The two buses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Broker {
    /// In this process and in memory.
    #[default]
    Embedded,
    /// The nodes of one RabbitMQ cluster, at least one, tried in this order.
    RabbitMq(Vec<BrokerUrl>),
}

/// The file under a configuration; environment and command line come on top of either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// There was no file.
    #[default]
    Defaults,
    /// This file.
    File(PathBuf),
}

/// How workers of MicroServices.js on the same broker are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Whether this host may be the gateway to them.
    pub enabled: bool,
    /// The worker types that they may send to; `None`: all.
    pub expose: Option<Vec<WorkerType>>,
    /// The field of a job's data that names its request.
    pub request_field: String,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A filter in the language of `tracing`: `info`, or `info,warren_bus=debug`. Valid.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
    /// Whether the peer gateway logs (`SystemManager_log` of MicroServices.js).
    pub system_manager: bool,
    /// Whether workers and their guests log (`Worker_log` of MicroServices.js).
    pub worker: bool,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Coloured text on a terminal, plain text elsewhere.
    #[default]
    Auto,
    /// Plain text, never coloured.
    Text,
    /// One JSON object per line.
    Json,
}

/// What one worker type may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory and tables of one instance, in bytes.
    pub memory_bytes: u64,
    /// From the start of a job to its forced end.
    pub deadline: Duration,
    /// Time on a processor for one run of a job, waiting not included.
    pub cpu: Duration,
    /// Calls of the host in one run.
    pub host_calls: u32,
    /// Instances that run at the same time on this host, at least 1.
    pub concurrency: usize,
    /// Runs of one job before it is dead-lettered, the first included, at least 1.
    pub attempts: u32,
    /// The wait before the second attempt; each further one waits twice as long.
    pub retry_base: Duration,
    /// The longest wait before another attempt.
    pub retry_cap: Duration,
    /// Failures in a row after which the worker pauses; 0: it never does.
    pub breaker: u32,
    /// The largest payload that goes into or comes out of a guest, in bytes.
    pub payload_bytes: u64,
    /// Jobs that one run may send.
    pub sends: u32,
    /// What one run may write to its log, in bytes.
    pub log_bytes: u64,
    /// Elements of all tables of one instance together.
    pub tables: u32,
    /// Rows that one query may return.
    pub sql_rows: usize,
    /// How long one statement may work.
    pub statement_timeout: Duration,
    /// The size of the worker's database, and of its embedded key-value store, in bytes.
    pub database_bytes: u64,
    /// Requests to other hosts under way at the same time, of all runs together.
    pub http_connections: usize,
    /// Requests to other hosts that one run may make.
    pub http_requests: u32,
    /// What the bodies of a run's requests and their responses may have together, in bytes.
    pub http_transfer_bytes: u64,
    /// The head of a response of another host, in bytes.
    pub http_header_bytes: u64,
}

/// What one worker type is told and allowed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Its own limits over [`Config::limits`]; complete.
    pub limits: Limits,
    /// The path prefix under which an HTTP worker is reached, with a leading slash; no other
    /// worker has the same.
    pub http_path: Option<String>,
    /// The name of the only file that may be this worker.
    pub plugin: Option<String>,
    /// The digest of the only build that may be this worker.
    pub sha256: Option<Digest>,
    /// What the guest reads through `wasi:config/store`. May hold secrets.
    pub config: BTreeMap<String, String>,
    /// For how long an instance is kept for further jobs; `None`: each job has one of its own.
    pub reuse: Option<Reuse>,
    /// What it may reach.
    pub grants: Grants,
    /// Which database it has, where `grants` gives it one; `None`: one of its own in `data_dir`.
    pub database: Option<DatabaseSource>,
    /// Whether somebody has written that the database is in `data_dir`.
    pub keeps_rows_here: bool,
    /// The server that has its keys and values, where it has them; `None`: a file of this host.
    pub redis: Option<RedisSource>,
    /// Whether somebody has written that its keys and values are in `data_dir`.
    pub keeps_values_here: bool,
    /// Where the secrets are kept that the guest reads beside `config`; no name is in both.
    pub secrets: BTreeMap<String, SecretSource>,
    /// The certificates (PEM) of authorities that may sign those of the hosts that it makes requests
    /// to, beside those of the operating system.
    pub outgoing_ca_file: Option<PathBuf>,
}

/// For how long an instance serves one job after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// Jobs that one instance serves, at least 1.
    pub calls: u32,
    /// Memory beyond which an instance serves no further job, in bytes; `None`: half of what it
    /// may have.
    pub memory_bytes: Option<u64>,
    /// From the making of an instance to its end.
    pub age: Duration,
}

/// The address of a worker's database on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseSource {
    /// As it was written.
    Url(DatabaseUrl),
    /// Kept like a secret: it may hold a password.
    Kept(SecretSource),
}

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file, read anew for each version of a plugin that is loaded.
    File(PathBuf),
    /// A variable of the environment.
    Variable {
        /// Its name.
        name: String,
        /// What was in it when the host was started. `None`: nobody has looked.
        value: Option<Secret>,
    },
}

/// Where the address of a Redis server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisSource {
    /// In the configuration itself.
    Written(RedisUrl),
    /// In a place of its own, because it holds a password.
    Kept(SecretSource),
}

/// Where [`load`] reads.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file that the operator named. `None`: [`DEFAULT_FILE`] if it exists.
    pub file: Option<PathBuf>,
    /// The environment, by name. Only `WARREN_*`, `BROKER_URL` and what `[workers.TYPE.secrets]` names
    /// are looked at.
    pub environment: BTreeMap<String, String>,
    /// What the command line sets, in its order.
    pub options: Vec<Given>,
    /// No workers will run: their secrets are not looked for, and need not be there.
    pub without_secrets: bool,
    /// A file is read only where it is named, and of the environment nothing: what comes out is the
    /// same in every folder and for everybody.
    pub alone: bool,
}

/// One key set by an option of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// As the operator wrote it: `--http`.
    pub option: &'static str,
    /// The key that it sets: `http`.
    pub key: &'static str,
    /// Its value.
    pub text: String,
}

impl Config {
    /// The field of a call's data by which a Node worker's answer is known; `None` where there are
    /// no such workers.
    #[must_use]
    pub fn peer_field(&self) -> Option<String> {
        let has_peers = matches!(self.broker, Broker::RabbitMq(_)) && self.peers.enabled;
        has_peers.then(|| self.peers.request_field.clone())
    }

    /// How long a delivery may be in this host's hands before it is settled: less than the broker's
    /// `consumer_timeout`, which runs from the delivery on, by two minutes or by half of it.
    #[must_use]
    pub fn longest_hold(&self) -> Duration {
        const MARGIN: Duration = Duration::from_secs(120);
        let timeout = self.consumer_timeout;
        timeout.saturating_sub(MARGIN.min(timeout / 2))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            broker: Broker::Embedded,
            broker_files: BrokerFiles::default(),
            plugins: PathBuf::from("plugins"),
            data_dir: PathBuf::from("data"),
            keep_versions: 3,
            instances: 1000,
            compile_cache_bytes: 1 << 30,
            compiler: CompilerBounds {
                memory_bytes: 4 << 30,
                timeout: Duration::from_secs(120),
            },
            http: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin: SocketAddr::from(([127, 0, 0, 1], 9091)),
            encoding: Encoding::Json,
            call_timeout: Duration::from_secs(10),
            // The time that orchestrators commonly give before they kill.
            shutdown_grace: Duration::from_secs(30),
            // Leaves time to give back what was interrupted and to say goodbye on the bus.
            drain_timeout: Duration::from_secs(25),
            // RabbitMQ's default since 3.8.17.
            consumer_timeout: Duration::from_secs(30 * 60),
            // PROTOCOL.md §2: what MicroServices.js has.
            keepalive: Duration::from_secs(10),
            peers: Peers::default(),
            log: Log::default(),
            limits: Limits::default(),
            workers: BTreeMap::new(),
            source: Source::Defaults,
            warnings: Vec::new(),
        }
    }
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            enabled: true,
            expose: None,
            request_field: PeersConfig::DEFAULT_REQUEST_FIELD.to_owned(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
            system_manager: true,
            worker: true,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            deadline: Duration::from_secs(30),
            cpu: Duration::from_secs(10),
            host_calls: 1_000_000,
            concurrency: 64,
            attempts: 5,
            retry_base: Duration::from_secs(2),
            retry_cap: Duration::from_secs(3600),
            breaker: 10,
            payload_bytes: 8 << 20,
            sends: 1000,
            log_bytes: 64 << 10,
            tables: 100_000,
            sql_rows: 10_000,
            statement_timeout: Duration::from_secs(10),
            database_bytes: 4 << 30,
            http_connections: 64,
            http_requests: 100,
            http_transfer_bytes: 64 << 20,
            http_header_bytes: 32 << 10,
        }
    }
}

impl Default for Reuse {
    fn default() -> Self {
        Self {
            // Guests that leak do so slowly, and a thousandth of a start is not felt.
            calls: 1000,
            memory_bytes: None,
            // Memory that nobody needs is back soon.
            age: Duration::from_secs(5 * 60),
        }
    }
}

impl fmt::Display for SecretSource {
    /// Where it is; nothing of what is there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Variable { name, .. } => write!(f, "the environment variable {name}"),
        }
    }
}

impl fmt::Debug for WorkerConfig {
    /// Shows the keys of `config` without their values, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerConfig")
            .field("limits", &self.limits)
            .field("http_path", &self.http_path)
            .field("plugin", &self.plugin)
            .field("sha256", &self.sha256)
            .field("config", &self.config.keys())
            .field("reuse", &self.reuse)
            .field("grants", &self.grants)
            .field("database", &self.database)
            .field("redis", &self.redis)
            .field("secrets", &self.secrets)
            .field("outgoing_ca_file", &self.outgoing_ca_file)
            .finish()
    }
}

impl fmt::Debug for Sources {
    /// Shows the names of the environment without the values, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("environment", &self.environment.keys())
            .field("options", &self.options)
            .field("without_secrets", &self.without_secrets)
            .field("alone", &self.alone)
            .finish()
    }
}
