//! The life of a host, from its parts to a clean end.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::future::join_all;
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use warren_bus::{Bus, Embedded, EmbeddedBroker, Inbox, PeersConfig, RabbitMq, RabbitMqConfig};
use warren_runtime::{
    ArtifactsConfig, Databases, Engine, EngineConfig, GuestMetrics, InstanceMetrics,
    KeyValueStores, Outgoing,
};

use crate::{
    admin,
    calls::Calls,
    compile,
    config::{Broker, BrokerUrl, Config},
    desk::{self, Desk},
    dispatch,
    equip::Equipment,
    host::Host,
    http, local,
    pulse::Pulse,
    registry::Registry,
    reload::{Reload, Shelf},
    telemetry::metrics::Metrics,
    versions::Versions,
    witness::Witness,
};

/// What is kept of the shutdown's time for saying goodbye on the bus and closing files: a fifth,
/// and no more than this.
const MAX_CLOSING_RESERVE: Duration = Duration::from_secs(6);
/// How long the plugin that is being put to work may take.
const END_OF_RELOAD: Duration = Duration::from_millis(500);
/// How long what was interrupted may take to be given back.
const GIVING_BACK: Duration = Duration::from_secs(1);
/// How long closing the databases may take: a statement that runs on is stopped by its deadline.
const CLOSING_DATABASES: Duration = Duration::from_secs(1);
/// How long responses that are complete may still be on their way to slow clients.
const LAST_BYTES: Duration = Duration::from_millis(500);
/// About how many memory mappings an instance has, its stack included.
const MAPPINGS_EACH: u64 = 8;
/// Messages that one queue of the embedded bus may hold.
pub(crate) const EMBEDDED_QUEUE_LIMIT: usize = 100_000;

/// Where a running host listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// HTTP workers.
    pub http: SocketAddr,
    /// Metrics, health and lists.
    pub admin: SocketAddr,
}

/// A host's place on a bus.
pub struct Link {
    /// The host's own id, unlike any other's.
    pub name: String,
    /// Carries its messages.
    pub bus: Arc<dyn Bus>,
    /// What is addressed to its workers.
    pub inbox: Inbox,
    /// On the embedded bus, a second place for what the command line sends.
    desk: Option<(Embedded, Inbox)>,
}

impl Link {
    /// A place on a bus of somebody else's.
    pub(crate) fn on(name: String, bus: Arc<dyn Bus>, inbox: Inbox) -> Self {
        Self {
            name,
            bus,
            inbox,
            desk: None,
        }
    }

    /// Connects as the configuration says. With RabbitMQ this returns before the broker has been
    /// reached: a host that starts before its broker is not an error.
    ///
    /// # Errors
    /// When a broker URL cannot be read.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let name = uuid::Uuid::new_v4().simple().to_string();
        match &config.broker {
            Broker::Embedded => {
                tracing::info!(
                    "bus: embedded, in this process and in memory; jobs that wait are lost when it \
                     is killed. For durable jobs set `broker`"
                );
                let broker = EmbeddedBroker::new(EMBEDDED_QUEUE_LIMIT, message_bytes(config));
                let (bus, inbox) = broker.connect(&name);
                Ok(Self {
                    name,
                    bus: Arc::new(bus),
                    inbox,
                    desk: Some(broker.connect("desk")),
                })
            }
            Broker::RabbitMq(urls) => {
                let (bus, inbox) = RabbitMq::connect(settings(config, urls, &name))?;
                Ok(Self {
                    name,
                    bus: Arc::new(bus),
                    inbox,
                    desk: None,
                })
            }
        }
    }
}

/// How a program with this name uses RabbitMQ.
pub(crate) fn settings(config: &Config, urls: &[BrokerUrl], name: &str) -> RabbitMqConfig {
    let urls = urls.iter().map(|url| url.expose().to_owned()).collect();
    let mut settings = RabbitMqConfig::new(urls, name);
    settings.files = config.broker_files.clone();
    settings.encoding = config.encoding;
    settings.max_message_bytes = message_bytes(config);
    settings.peers = PeersConfig {
        enabled: config.peers.enabled,
        keepalive: config.keepalive,
        exposed: config.peers.expose.clone(),
        request_field: config.peers.request_field.clone(),
    };
    settings
}

/// The largest message that the workers' limits allow: a payload may grow when it is written in
/// another encoding, and the envelope comes on top.
pub(crate) fn message_bytes(config: &Config) -> usize {
    const ENVELOPE: u64 = 64 << 10;
    // A JSON array of small numbers has two bytes for each; BSON names every element.
    const GROWTH: u64 = 8;
    let own = config
        .workers
        .values()
        .map(|worker| worker.limits.payload_bytes);
    let largest = own
        .chain([config.limits.payload_bytes])
        .max()
        .unwrap_or_default();
    usize::try_from(largest.saturating_mul(GROWTH).saturating_add(ENVELOPE)).unwrap_or(usize::MAX)
}

/// Threads for the async runtime of a host. More than there are processors: a guest that touches new
/// memory, or gives much of it back, holds its thread for milliseconds without a tick, and then the
/// system shares the processors out among the threads. (With one thread for each, four such guests
/// kept everybody else waiting for 0.1 to 0.2 s.)
#[must_use]
pub fn n_threads() -> usize {
    n_processors() * 2 + 2
}

fn n_processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// An engine that can serve every worker of the configuration.
///
/// # Errors
/// When wasmtime cannot run on this machine.
pub fn engine(config: &Config) -> anyhow::Result<Engine> {
    let defaults = EngineConfig::default();
    let own = config
        .workers
        .values()
        .map(|worker| worker.limits.memory_bytes);
    let largest = own
        .chain([config.limits.memory_bytes])
        .max()
        .unwrap_or_default();
    Ok(Engine::new(&EngineConfig {
        max_instances: config.instances,
        max_memory_bytes: largest.max(defaults.max_memory_bytes),
        n_threads: n_processors(),
        artifacts: (config.compile_cache_bytes > 0).then(|| ArtifactsConfig {
            folder: config.data_dir.join("compiled"),
            max_bytes: config.compile_cache_bytes,
        }),
        compiler: Some(compile::compiler(config.compiler)?),
    })?)
}

/// What the parts of a running host share, and its inbox.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn assemble(
    config: &Config,
    link: Link,
    metrics: Arc<Metrics>,
    ending: CancellationToken,
    witness: Option<Witness>,
) -> anyhow::Result<(Arc<Host>, Inbox)> {
    let Link {
        name, bus, inbox, ..
    } = link;
    let host = Arc::new(Host {
        name,
        calls: Arc::new(Calls::new(
            bus.clone(),
            config.encoding,
            metrics.clone(),
            config.peer_field(),
        )),
        bus,
        registry: Registry::default(),
        metrics,
        witness,
        pulse: Pulse::of_process().context("starting a thread")?,
        judged: Notify::new(),
        longest_hold: config.longest_hold(),
        encoding: config.encoding,
        ending,
        stopping: CancellationToken::new(),
        interrupt: CancellationToken::new(),
        requests: TaskTracker::new(),
        work: TaskTracker::new(),
    });
    Ok((host, inbox))
}

/// Runs a host until `shutdown`, then ends it cleanly within the configured grace. `on_listening`
/// learns the addresses as soon as they are bound.
///
/// # Errors
/// When an address cannot be bound, or a folder cannot be made or written to.
pub async fn run(
    config: Config,
    link: Link,
    engine: Engine,
    shutdown: CancellationToken,
    on_listening: impl FnOnce(Addresses),
) -> anyhow::Result<()> {
    let (http_listener, http_address) = listen(config.http, "--http").await?;
    let (admin_listener, admin_address) = listen(config.admin, "--admin").await?;
    make_folder(&config.plugins, "plugins folder", "--plugins")?;
    make_folder(&config.data_dir, "data folder", "--data-dir")?;
    check_writable(&config.data_dir)?;
    warn_of_mappings(config.instances);

    let metrics = Arc::new(Metrics::new().context("registering metrics")?);
    let guest_metrics =
        GuestMetrics::new(metrics.registry().clone()).context("registering metrics")?;
    let instance_metrics =
        InstanceMetrics::new(metrics.registry()).context("registering metrics")?;
    let outgoing = Outgoing::new(metrics.registry()).context("registering metrics")?;
    let mut link = link;
    let desk = match link.desk.take() {
        Some((bus, inbox)) => {
            let desk = Arc::new(Desk::open(bus, &config, metrics.clone())?);
            tokio::spawn(desk::attend(desk.clone(), inbox));
            Some(desk)
        }
        None => None,
    };
    let (host, inbox) = assemble(&config, link, metrics, shutdown.clone(), None)?;
    let databases = Databases::new(config.data_dir.join("sql")).telling(local::rows(&config));
    let keyvalue =
        KeyValueStores::new(config.data_dir.join("keyvalue")).telling(local::values(&config));
    let (databases, keyvalue) = (Arc::new(databases), Arc::new(keyvalue));
    let equipment = Arc::new(Equipment {
        databases: databases.clone(),
        keyvalue: keyvalue.clone(),
        metrics: Arc::new(guest_metrics),
        instances: Arc::new(instance_metrics),
        outgoing: Arc::new(outgoing),
        config: config.clone(),
    });
    let shelf = Shelf::default();
    let versions = Versions::new(
        config.data_dir.join("versions"),
        config.keep_versions as usize,
    );

    let stop_http = CancellationToken::new();
    let stop_admin = CancellationToken::new();
    let stop_reload = CancellationToken::new();
    let reload = Reload::new(
        config.plugins.clone(),
        engine,
        host.clone(),
        equipment,
        shelf.clone(),
        versions,
    );
    let mut reload = tokio::spawn(reload.run(stop_reload.clone()));
    let replies = tokio::spawn(dispatch::attend(host.clone(), inbox));
    let mut http = tokio::spawn(http::serve(http_listener, host.clone(), stop_http.clone()));
    let mut admin = tokio::spawn(admin::serve(
        admin_listener,
        host.clone(),
        shelf,
        desk.clone(),
        stop_admin.clone(),
    ));
    tracing::info!(http = %http_address, admin = %admin_address, plugins = %config.plugins.display(), "listening");
    on_listening(Addresses {
        http: http_address,
        admin: admin_address,
    });

    shutdown.cancelled().await;

    let started = Instant::now();
    let reserve = MAX_CLOSING_RESERVE.min(config.shutdown_grace / 5);
    let deadline = started + config.shutdown_grace.saturating_sub(reserve);
    tracing::info!(grace = ?config.shutdown_grace, "shutting down");
    stop_reload.cancel();
    // One that is compiling, or waits for the broker, must not use up the time for draining.
    let _ = tokio::time::timeout(END_OF_RELOAD, &mut reload).await;
    reload.abort();
    // Requests first, while the workers that they need are still on the bus. A client that has
    // sent half a request is not waited for.
    stop_http.cancel();
    host.requests.close();
    let _ = tokio::time::timeout_at(deadline.into(), host.requests.wait()).await;
    drain(&host, deadline.min(started + config.drain_timeout)).await;
    let _ = tokio::time::timeout(LAST_BYTES, &mut http).await;
    http.abort();
    host.bus.close().await;
    if let Some(desk) = desk {
        desk.close().await;
    }
    replies.abort();
    let closing = async { tokio::join!(databases.close(), keyvalue.close()) };
    let _ = tokio::time::timeout(CLOSING_DATABASES, closing).await;
    stop_admin.cancel();
    // A scraper's idle connection must not hold the process.
    let _ = tokio::time::timeout(Duration::from_millis(100), &mut admin).await;
    admin.abort();
    tracing::info!(took_ms = started.elapsed().as_millis() as u64, "stopped");
    Ok(())
}

/// Says goodbye, starts nothing new, lets what runs finish until `deadline` and interrupts the
/// rest, which goes back to the bus.
async fn drain(host: &Arc<Host>, deadline: Instant) {
    // Leave before stopping: what is given back must not come here again.
    let seats = host.registry.all();
    let leaving = join_all(seats.iter().map(|seat| host.bus.leave(&seat.id)));
    let _ = tokio::time::timeout_at(deadline.into(), leaving).await;
    host.stopping.cancel();
    host.work.close();
    let finished = tokio::time::timeout_at(deadline.into(), host.work.wait()).await;
    if finished.is_ok() {
        return;
    }
    tracing::warn!(
        running = host.work.len(),
        "what still runs is interrupted and given back"
    );
    host.interrupt.cancel();
    let _ = tokio::time::timeout(GIVING_BACK, host.work.wait()).await;
}

pub(crate) async fn listen(
    address: SocketAddr,
    option: &str,
) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, bound))
    };
    bound.await.with_context(|| {
        format!("cannot listen on {address}; choose another address with {option}")
    })
}

fn make_folder(folder: &PathBuf, what: &str, option: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| {
        format!(
            "cannot create the {what} {}; choose another with {option}",
            folder.display()
        )
    })
}

/// A folder that cannot be written to is found now, not by the first job.
fn check_writable(folder: &Path) -> anyhow::Result<()> {
    let probe = folder.join(format!(".warren-{}", std::process::id()));
    std::fs::write(&probe, [])
        .and_then(|()| std::fs::remove_file(&probe))
        .with_context(|| {
            format!(
                "cannot write to the data folder {}; allow it, or choose another with --data-dir",
                folder.display()
            )
        })
}

/// Too few memory mappings for all instances are found now, not at the first peak.
fn warn_of_mappings(instances: u32) {
    // Only Linux has this file, and only there is such a bound.
    let most = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    let Some(most) = most.ok().and_then(|text| text.trim().parse::<u64>().ok()) else {
        return;
    };
    let wanted = MAPPINGS_EACH * u64::from(instances);
    if wanted > most {
        tracing::warn!(
            instances,
            mappings_wanted = wanted,
            mappings_allowed = most,
            "so many instances may need more memory mappings than the kernel allows: lower `instances`, or \
             raise it (sysctl -w vm.max_map_count)"
        );
    }
}
