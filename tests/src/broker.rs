//! A private RabbitMQ node on free ports of 127.0.0.1, with its own data, cookie and epmd, beside
//! whatever else runs on the machine (RELIABILITY "A private broker for a test").
//!
//! Invariant: nothing outlives the process that started it. A guard (a shell that waits for the end
//! of its input) kills the node and removes its folder, also when the process is killed.

#![allow(clippy::panic, reason = "a test without its broker has failed")]

use std::{
    env, fs,
    io::Write,
    net::TcpListener,
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::OnceCell, time::sleep};

/// The environment variable that names a broker which the tests may use, such as
/// `amqp://guest:guest@127.0.0.1:5672`. The tests leave queues of their own there.
pub const SHARED_BROKER: &str = "WARREN_TEST_BROKER";

const REMEDY: &str = "install RabbitMQ (apt-get install -y rabbitmq-server), or set \
                      WARREN_TEST_BROKER to the URL of a broker that the tests may use";
/// A node needs 4 to 9 s on a quiet machine.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// RabbitMQ 3.10 writes the register of its quorum queues to disk a moment after it has confirmed
/// their declaration. Killed in between, it comes back with a queue that never finds a leader: every
/// declare works, every consume waits for ever. No client can mend that, so it is not what the tests
/// are about.
const REGISTER_INTERVAL: Duration = Duration::from_secs(2);

/// A RabbitMQ node of this process's own. Dropping it kills the node and removes its data.
pub struct Broker {
    folder: TempDir,
    sbin: PathBuf,
    port: u16,
    distribution_port: u16,
    epmd_port: u16,
    epmd: Child,
    node: Option<Child>,
    /// Ends when its input does.
    guard: Child,
}

/// The URL of a broker that several tests share: the one that [`SHARED_BROKER`] names, or one that
/// is started for this process. Tests keep apart by using worker types of their own.
///
/// # Panics
/// When there is none and none can be started; the text says what to do.
pub async fn shared() -> String {
    static OWN: OnceCell<Broker> = OnceCell::const_new();
    if let Ok(url) = env::var(SHARED_BROKER) {
        return url;
    }
    OWN.get_or_init(Broker::start).await.url()
}

impl Broker {
    /// Starts a node and returns when it accepts connections.
    ///
    /// # Panics
    /// When it cannot be started; the text says what to do.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// As [`Broker::start`], with further lines of `rabbitmq.conf`.
    ///
    /// # Panics
    /// As [`Broker::start`].
    pub async fn start_with(settings: &str) -> Self {
        Self::start_with_plugins(settings, &[]).await
    }

    /// As [`Broker::start_with`], with plugins of RabbitMQ that are not on by default.
    ///
    /// # Panics
    /// As [`Broker::start`].
    pub async fn start_with_plugins(settings: &str, plugins: &[&str]) -> Self {
        match Self::try_start_with(settings, plugins).await {
            Ok(broker) => broker,
            Err(error) => panic!("no RabbitMQ for this test: {error:#}; {REMEDY}"),
        }
    }

    /// Starts a node and returns when it accepts connections.
    ///
    /// # Errors
    /// When RabbitMQ is not installed or does not come up.
    pub async fn try_start() -> Result<Self> {
        Self::try_start_with("", &[]).await
    }

    async fn try_start_with(settings: &str, plugins: &[&str]) -> Result<Self> {
        let sbin = scripts()?;
        let folder = tempfile::Builder::new()
            .prefix("warren-broker-")
            .tempdir()?;
        write_settings(folder.path(), settings, plugins)?;
        let [port, distribution_port, epmd_port] = free_ports()?;
        let epmd = Command::new("epmd")
            .args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting epmd, which comes with Erlang")?;
        let guard = guard(folder.path())?;
        let mut broker = Self {
            folder,
            sbin,
            port,
            distribution_port,
            epmd_port,
            epmd,
            node: None,
            guard,
        };
        broker.try_start_again().await?;
        Ok(broker)
    }

    /// Where a client connects to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port)
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops the node the way an operator does, and waits for its end. Its data stay.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(&mut self) {
        self.end("-TERM").await;
    }

    /// Kills the node with all its processes. Its data stay.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn kill(&mut self) {
        sleep(REGISTER_INTERVAL).await;
        self.end("-KILL").await;
    }

    /// Starts the node again on the same port with the same data.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_again(&mut self) {
        if let Err(error) = self.try_start_again().await {
            panic!("the broker does not start again: {error:#}");
        }
    }

    /// Runs `rabbitmqctl` for this node and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(self.sbin.join("rabbitmqctl"));
        self.environment(&mut command).args(arguments);
        let output = tokio::process::Command::from(command).output().await;
        match output {
            Ok(output) if output.status.success() => {
                String::from_utf8_lossy(&output.stdout).into_owned()
            }
            failed => panic!("rabbitmqctl {arguments:?} failed: {failed:?}"),
        }
    }

    /// What the node has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let files = fs::read_dir(self.folder.path().join("log"));
        let files = files.into_iter().flatten().filter_map(Result::ok);
        files
            .filter_map(|file| fs::read_to_string(file.path()).ok())
            .collect()
    }

    async fn try_start_again(&mut self) -> Result<()> {
        ensure!(self.node.is_none(), "the node is running");
        let output = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("output"))?;
        let mut command = Command::new(self.sbin.join("rabbitmq-server"));
        let node = self
            .environment(&mut command)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .context("starting rabbitmq-server")?;
        let group = node.id();
        self.node = Some(node);
        self.tell_guard(Some(group))?;
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let ended = self
                .node
                .as_mut()
                .map(Child::try_wait)
                .transpose()?
                .flatten();
            if ended.is_some() || start.elapsed() > START_LIMIT {
                let output = fs::read_to_string(self.folder.path().join("output"))?;
                bail!("RabbitMQ did not come up; its output: {output}");
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn end(&mut self, signal: &str) {
        let Some(mut node) = self.node.take() else {
            return;
        };
        send_signal(signal, &format!("-{}", node.id()));
        let start = Instant::now();
        while !matches!(node.try_wait(), Ok(Some(_))) {
            if start.elapsed() > STOP_LIMIT {
                panic!("the broker does not end on {signal}");
            }
            sleep(Duration::from_millis(20)).await;
        }
        // The script may end before the machine, which still holds the ports.
        while send_signal("-0", &format!("-{}", node.id())) {
            if start.elapsed() > STOP_LIMIT {
                panic!("a process of the broker does not end on {signal}");
            }
            sleep(Duration::from_millis(20)).await;
        }
        if let Err(error) = self.tell_guard(None) {
            panic!("the guard cannot be told: {error:#}");
        }
    }

    /// Writes down for the guard which process groups are ours.
    fn tell_guard(&self, node: Option<u32>) -> Result<()> {
        let node = node.map(|group| group.to_string()).unwrap_or_default();
        let groups = format!("{} {node}", self.epmd.id());
        Ok(fs::write(self.folder.path().join("groups"), groups)?)
    }

    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let folder = self.folder.path();
        command
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", format!("t{}@localhost", self.port))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env(
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                folder.join("enabled_plugins"),
            )
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            )
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // It kills both, so neither wait is long.
        let _ = self.guard.wait();
        let _ = self.epmd.wait();
        let _ = self.node.as_mut().map(Child::wait);
    }
}

/// The version of RabbitMQ that nodes of ours run.
///
/// # Errors
/// When it is not installed.
pub fn version() -> Result<String> {
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

fn write_settings(folder: &Path, settings: &str, plugins: &[&str]) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(folder.join(".erlang.cookie"))?
        .write_all(b"warren-tests")?;
    let plugins = format!("[{}].\n", plugins.join(","));
    fs::write(folder.join("enabled_plugins"), plugins)?;
    // A nearly full disk is not the subject of these tests.
    fs::write(
        folder.join("rabbitmq.conf"),
        format!("disk_free_limit.absolute = 1MB\n{settings}\n"),
    )?;
    Ok(())
}

/// Three ports that were free a moment ago.
fn free_ports() -> Result<[u16; 3]> {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let listeners = [bind()?, bind()?, bind()?];
    let [a, b, c] = &listeners;
    Ok([
        a.local_addr()?.port(),
        b.local_addr()?.port(),
        c.local_addr()?.port(),
    ])
}

/// Starts the guard of a folder: at the end of its input it kills the process groups that are
/// listed there, and removes it.
fn guard(folder: &Path) -> Result<Child> {
    let script = r#"
        trap '' INT TERM HUP
        read -r _
        for group in $(cat "$0/groups"); do kill -KILL "-$group"; done
        for try in 1 2 3 4 5; do rm -rf "$0" && break; sleep 0.1; done
    "#;
    Command::new("sh")
        .args(["-c", script])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("starting the guard of the broker")
}

/// Whether there was a process to send it to.
fn send_signal(signal: &str, target: &str) -> bool {
    Command::new("kill")
        .args([signal, "--", target])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
