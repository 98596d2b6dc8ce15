//! A small host around one guest: what a test needs to give it an order.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use prometheus::Registry;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;
use warren_protocol::{
    CallError, Encoding, Identity, Job, Outcome, Payload, Stop, WorkerId, WorkerType,
};
use warren_runtime::{
    CallFn, DatabaseUrl, Databases, Engine, EngineConfig, GuestMetrics, InstanceMetrics, JobRun,
    KeyValueStore, Limits, Occasion, Outgoing, Plugin, Pool, Reach, Worker,
};

/// Long enough for a guest on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(20);
/// Short enough to wait for.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

/// A host that can load plugins, and the folder of its databases.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    pub(crate) folder: TempDir,
    pub(crate) databases: Arc<Databases>,
    /// The database of all workers; `None`: each type has one of its own in the folder.
    pub(crate) database: Option<DatabaseUrl>,
    pub(crate) registry: Registry,
    metrics: Arc<GuestMetrics>,
    instances: Arc<InstanceMetrics>,
    outgoing: Arc<Outgoing>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::of(50)
    }

    /// A host in which so many instances may live.
    pub(crate) fn of(max_instances: u32) -> Self {
        Self::on(&EngineConfig {
            max_instances,
            ..EngineConfig::default()
        })
    }

    pub(crate) fn on(config: &EngineConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::new();
        Self {
            engine: Engine::new(config).unwrap(),
            databases: Arc::new(Databases::new(folder.path().to_owned())),
            database: None,
            folder,
            metrics: Arc::new(GuestMetrics::new(registry.clone()).unwrap()),
            instances: Arc::new(InstanceMetrics::new(&registry).unwrap()),
            outgoing: Arc::new(Outgoing::new(&registry).unwrap()),
            registry,
        }
    }

    /// A worker with usual limits whose calls find nobody.
    pub(crate) fn worker(&self, worker_type: &str) -> Worker {
        let limits = Limits {
            deadline: LONG,
            cpu: LONG,
            ..Limits::default()
        };
        Worker {
            id: WorkerId::draw(&WorkerType::new(worker_type).unwrap()),
            limits,
            config: BTreeMap::new(),
            call: nobody(),
            call_timeout: Duration::from_secs(10),
            metrics: self.metrics.clone(),
            databases: self.databases.clone(),
            keyvalue: KeyValueStore::default(),
            reuse: None,
            instances: self.instances.clone(),
            reach: Reach {
                database: self.database.clone(),
                ..Reach::default()
            },
            outgoing: self.outgoing.clone(),
        }
    }

    pub(crate) async fn load(&self, bytes: Vec<u8>) -> Result<Plugin, warren_runtime::LoadError> {
        self.engine
            .load(bytes, &Arc::new(self.worker("PROBE")))
            .await
    }

    /// The guest `faulty` at work; `set` changes its worker first.
    pub(crate) async fn faulty(&self, set: impl FnOnce(&mut Worker)) -> Pool {
        let mut worker = self.worker("FX");
        set(&mut worker);
        Pool::new(self.load(guest("faulty")).await.unwrap(), worker)
    }

    /// The guest `reacher` at work; `set` changes its worker first.
    pub(crate) async fn reacher(&self, set: impl FnOnce(&mut Worker)) -> Pool {
        let mut worker = self.worker("FR");
        set(&mut worker);
        Pool::new(self.load(guest("reacher")).await.unwrap(), worker)
    }
}

fn nobody() -> CallFn {
    Arc::new(|call| {
        let address = call.slip.stops[0].as_str().to_owned();
        async move { Err(CallError::NoLiveWorker { address }) }.boxed()
    })
}

/// The bytes of a built guest.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file: PathBuf = root.join(format!("guests/target/wasm32-wasip2/release/{name}.wasm"));
    std::fs::read(&file).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; run `cargo build --release --workspace` in guests/",
            file.display()
        )
    })
}

pub(crate) fn json(value: &Value) -> Payload {
    Payload::new(Encoding::Json, Bytes::from(value.to_string())).unwrap()
}

pub(crate) fn value(payload: &Payload) -> Value {
    let json = payload.to(Encoding::Json).unwrap();
    serde_json::from_slice(&json.to_bytes().unwrap()).unwrap()
}

pub(crate) fn job(data: &Value) -> Job {
    Job {
        route: vec![Stop::new("FX:*"), Stop::new("NEXT:*")],
        position: 0,
        data: json(data),
        sender: Identity {
            id: "FROM:2000000000000".to_owned(),
            worker_type: "FROM".to_owned(),
        },
        id: "J1".to_owned(),
    }
}

pub(crate) fn occasion() -> Occasion {
    Occasion {
        job_id: "J1".to_owned(),
        attempt: 2,
        correlation_id: Some("C1".to_owned()),
        trace_parent: Some("00-01-02-01".to_owned()),
    }
}

/// Runs one job with this order.
pub(crate) async fn order(pool: &Pool, data: Value) -> JobRun {
    order_until(pool, data, CancellationToken::new()).await
}

pub(crate) async fn order_until(pool: &Pool, data: Value, stop: CancellationToken) -> JobRun {
    let permit = pool.permit().await.unwrap();
    pool.run(&permit, &job(&data), occasion(), stop).await
}

/// Runs one job with this order and returns what it forwards.
pub(crate) async fn reply(pool: &Pool, data: Value) -> Value {
    match order(pool, data).await.verdict {
        Ok(Outcome::Forward(payload)) => value(&payload),
        other => panic!("no reply, but {other:?}"),
    }
}

/// What was logged.
#[derive(Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Captures what this thread logs.
pub(crate) fn capture() -> (Captured, tracing::subscriber::DefaultGuard) {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(LevelFilter::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    (captured, tracing::subscriber::set_default(subscriber))
}

/// Has `faulty` add 1 in its database, for this job, and says whether that has worked.
pub(crate) async fn add(pool: &Pool, job_id: &str) -> bool {
    let mut job = job(&serde_json::json!({"do": "sql-add"}));
    job.id = job_id.to_owned();
    let permit = pool.permit().await.unwrap();
    let run = pool.run(&permit, &job, occasion(), CancellationToken::new());
    match run.await.verdict {
        Ok(Outcome::Forward(_)) => true,
        Ok(Outcome::Retry { .. }) => false,
        other => panic!("neither done nor to be retried, but {other:?}"),
    }
}
