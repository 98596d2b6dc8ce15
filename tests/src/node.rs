//! One RabbitMQ node as a process of ours: its folder, its ports, its start and its end. A
//! [`Broker`](crate::Broker) is one of them, a [`Cluster`](crate::Cluster) three.
//!
//! Invariant: a node that has ended has left its ports, so that it can be started again at once.

#![allow(clippy::panic, reason = "a test without its broker has failed")]

mod guard;

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{net::TcpStream, time::sleep};

pub(crate) use guard::Guard;

/// What lets Erlang nodes, and `erl_call`, talk to a node of ours.
pub(crate) const COOKIE: &str = "warren-tests";
pub(crate) const REMEDY: &str = "install RabbitMQ (apt-get install -y rabbitmq-server), or set WARREN_TEST_BROKER to the URL \
     of a broker that the tests may use";
/// A node needs 4 to 9 s on a quiet machine.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Where a node lives, and what it is told.
pub(crate) struct Settings {
    /// Its Erlang name, such as `c1@localhost`.
    pub(crate) name: String,
    /// Its own folder.
    pub(crate) folder: PathBuf,
    pub(crate) address: Ipv4Addr,
    /// The network namespace that it is started in.
    pub(crate) namespace: Option<String>,
    pub(crate) port: u16,
    pub(crate) distribution_port: u16,
    /// Of an epmd that is running.
    pub(crate) epmd_port: u16,
    /// Lines of `rabbitmq.conf`.
    pub(crate) lines: String,
    /// Plugins that are not on by default, with commas between them.
    pub(crate) plugins: String,
    /// Further arguments of the Erlang machine.
    pub(crate) machine: String,
}

/// A node that runs or does not. Its data stay in its folder in between.
pub(crate) struct Node {
    settings: Settings,
    sbin: PathBuf,
    process: Option<Child>,
}

impl Node {
    /// Makes the folder of a node that has not run yet.
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        let folder = &settings.folder;
        fs::create_dir_all(folder)?;
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(folder.join(".erlang.cookie"))?
            .write_all(COOKIE.as_bytes())?;
        let plugins = format!("[{}].\n", settings.plugins);
        fs::write(folder.join("enabled_plugins"), plugins)?;
        // A nearly full disk is not the subject of these tests.
        let lines = format!("disk_free_limit.absolute = 1MB\n{}\n", settings.lines);
        fs::write(folder.join("rabbitmq.conf"), lines)?;
        Ok(Self {
            settings,
            sbin: scripts()?,
            process: None,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    pub(crate) fn port(&self) -> u16 {
        self.settings.port
    }

    pub(crate) fn url(&self) -> String {
        let Settings { address, port, .. } = &self.settings;
        format!("amqp://guest:guest@{address}:{port}")
    }

    /// Where it listens to other Erlang nodes.
    pub(crate) fn distribution_address(&self) -> String {
        format!(
            "{}:{}",
            self.settings.address, self.settings.distribution_port
        )
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// The process that its others descend from, if it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Starts the process; [`Node::wait`] waits until it is of use.
    pub(crate) fn spawn(&mut self, guard: &Guard) -> Result<()> {
        ensure!(self.process.is_none(), "the node is running");
        let output = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.settings.folder.join("output"))?;
        let mut command = self.command(&self.sbin.join("rabbitmq-server"));
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        self.process = Some(guard.spawn(&mut command)?);
        Ok(())
    }

    /// Returns when it accepts connections.
    pub(crate) async fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        let place = (self.settings.address, self.settings.port);
        while TcpStream::connect(place).await.is_err() {
            let ended = self.process.as_mut().map(Child::try_wait).transpose()?;
            if ended.flatten().is_some() || start.elapsed() > START_LIMIT {
                let output = fs::read_to_string(self.settings.folder.join("output"))?;
                bail!("RabbitMQ did not come up; its output: {output}");
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Sends all its processes a signal, such as `-TERM`, and waits for their end.
    ///
    /// # Panics
    /// When they do not end.
    pub(crate) async fn end(&mut self, guard: &Guard, signal: &str) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let group = format!("-{}", process.id());
        send_signal(signal, &group);
        let start = Instant::now();
        // The script may end before the machine, which still holds the ports.
        while !matches!(process.try_wait(), Ok(Some(_))) || send_signal("-0", &group) {
            if start.elapsed() > STOP_LIMIT {
                panic!("a process of the broker does not end on {signal}");
            }
            sleep(Duration::from_millis(20)).await;
        }
        if let Err(error) = guard.forget(&process) {
            panic!("the guard cannot be told: {error:#}");
        }
    }

    /// Runs one of RabbitMQ's scripts, such as `rabbitmqctl`, for this node.
    pub(crate) async fn tool(&self, script: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(&self.sbin.join(script));
        command.args(arguments).stdin(Stdio::null());
        let output = tokio::process::Command::from(command).output().await?;
        if !output.status.success() {
            bail!("{script} {arguments:?} failed: {output:?}");
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        let files = fs::read_dir(self.settings.folder.join("log"));
        let files = files.into_iter().flatten().filter_map(Result::ok);
        files
            .filter_map(|file| fs::read_to_string(file.path()).ok())
            .collect()
    }

    fn command(&self, program: &Path) -> Command {
        let settings = &self.settings;
        let folder = &settings.folder;
        let mut command = command_in(settings.namespace.as_deref(), program);
        let [a, b, c, d] = settings.address.octets();
        command
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", &settings.name)
            .env("RABBITMQ_NODE_IP_ADDRESS", settings.address.to_string())
            .env("RABBITMQ_NODE_PORT", settings.port.to_string())
            .env("RABBITMQ_DIST_PORT", settings.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env(
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                folder.join("enabled_plugins"),
            )
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env("ERL_EPMD_ADDRESS", settings.address.to_string())
            .env("ERL_EPMD_PORT", settings.epmd_port.to_string())
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                format!(
                    "-kernel inet_dist_use_interface {{{a},{b},{c},{d}}} {}",
                    settings.machine
                ),
            );
        if settings.name.contains('.') {
            command.env("RABBITMQ_USE_LONGNAME", "true");
        }
        command
    }
}

impl Drop for Node {
    /// The guard has killed it.
    fn drop(&mut self) {
        let _ = self.process.as_mut().map(Child::wait);
    }
}

/// The register of the Erlang nodes that find each other, beside any other of the machine.
pub(crate) struct Epmd(Child);

impl Epmd {
    pub(crate) fn start(
        guard: &Guard,
        namespace: Option<&str>,
        address: Ipv4Addr,
        port: u16,
    ) -> Result<Self> {
        let mut command = command_in(namespace, Path::new("epmd"));
        command
            .args(["-port", &port.to_string()])
            .args(["-address", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = guard.spawn(&mut command);
        Ok(Self(child.context("epmd comes with Erlang")?))
    }
}

impl Drop for Epmd {
    /// The guard has killed it.
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

/// Ports that were free a moment ago.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let bind = |_| TcpListener::bind("127.0.0.1:0");
    let listeners: Vec<TcpListener> = (0..N).map(bind).collect::<Result<_, _>>()?;
    let ports = listeners.iter().map(|listener| listener.local_addr());
    let ports: Vec<u16> = ports
        .map(|place| place.map(|place| place.port()))
        .collect::<Result<_, _>>()?;
    ports
        .try_into()
        .map_err(|_| anyhow::anyhow!("no free ports"))
}

/// A program in a network namespace, or in ours.
pub(crate) fn command_in(namespace: Option<&str>, program: &Path) -> Command {
    let Some(namespace) = namespace else {
        return Command::new(program);
    };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// The version of RabbitMQ that nodes of ours run.
pub(crate) fn version() -> Result<String> {
    let sbin = scripts()?;
    let release = sbin.parent().and_then(Path::file_name);
    let release = release.unwrap_or_default().to_string_lossy();
    Ok(release.trim_start_matches("rabbitmq_server-").to_owned())
}

/// The real scripts: the wrapper on the path changes to another user.
fn scripts() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/rabbitmq/lib").context("RabbitMQ is not installed")?;
    versions
        .filter_map(Result::ok)
        .map(|version| version.path().join("sbin"))
        .find(|sbin| sbin.join("rabbitmq-server").exists())
        .context("RabbitMQ is not installed")
}

/// Whether there was a process to send it to.
fn send_signal(signal: &str, target: &str) -> bool {
    Command::new("kill")
        .args([signal, "--", target])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
