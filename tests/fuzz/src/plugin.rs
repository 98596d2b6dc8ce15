//! A file in the plugins folder: the bytes of a component.
//!
//! Promised by `warren_runtime::Engine::load`: no panic; an end within seconds, whatever the code
//! does; bounded memory; and the engine loads and runs other plugins afterwards as it did before.
//!
//! Few changed bytes get past the validator, so that an input may say in other ways what to load:
//!
//! - a text that begins with `(`: WAT, whose changed words often still make a component;
//! - a core module: it is put into a component that runs it as `describe`;
//! - `edit` and four bytes for each change (three for the place, one for the value): a real guest
//!   with these bytes changed.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt;
use prometheus::Registry;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use warren_protocol::{
    CallError, Encoding, Identity, Job, Outcome, Payload, Stop, WorkerId, WorkerType,
};
use warren_runtime::{
    CallFn, Databases, Engine, EngineConfig, GuestMetrics, InstanceMetrics, KeyValueStore, Limits,
    LoadError, Occasion, Outgoing, Plugin, Pool, Reach, Worker,
};

use crate::{feedback, memory};

const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const EDIT: &[u8] = b"edit";
/// The component around a core module; [`around`] puts the module in place of its own.
const AROUND: &str = include_str!("../corpus/plugin/describes.wat");
/// The guest that is run after every input, and that `edit` changes.
const GUEST: &str = "pilot";
/// The 5 s that `describe` has, and as long for the compiler.
const LONGEST: Duration = Duration::from_secs(10);
/// What a plugin may take: the memory of a guest comes beside it, from the pool.
const MEMORY_BYTES: usize = 256 << 20;
/// After so many inputs a good plugin is loaded again; it costs as much as many of the inputs.
const RELOAD_EVERY: u64 = 500;

struct Host {
    engine: Engine,
    runtime: tokio::runtime::Runtime,
    scratch: Arc<Worker>,
    /// A good plugin, loaded before all others.
    pool: Pool,
    guest: Vec<u8>,
    n_inputs: AtomicU64,
    _databases: TempDir,
}

/// Loads what the bytes say.
pub fn check(bytes: &[u8]) {
    let host = host();
    let Some(file) = file(bytes, &host.guest) else {
        return;
    };
    let begun = Instant::now();
    let loaded = memory::bounded("loading a plugin", MEMORY_BYTES, || host.load(file));
    let took = begun.elapsed();
    assert!(took < LONGEST, "loading took {took:?}, {LONGEST:?} at most");
    match loaded {
        Ok(plugin) => feedback::outcome(&format!("loads {}", plugin.takes_jobs())),
        Err(error) => {
            let text = error.to_string();
            feedback::outcome(&text);
            // The compiler is a task of its own, whose panic comes back as an error.
            assert!(!text.contains("panicked"), "{text}");
        }
    }
    host.still_works();
}

fn file(bytes: &[u8], guest: &[u8]) -> Option<Vec<u8>> {
    if bytes.starts_with(b"(") {
        return wat::parse_bytes(bytes).ok().map(Into::into);
    }
    if bytes.starts_with(MODULE) {
        return around(bytes);
    }
    if let Some(edits) = bytes.strip_prefix(EDIT) {
        return Some(edited(guest, edits));
    }
    Some(bytes.to_owned())
}

/// A component whose `describe` is the module's.
fn around(module: &[u8]) -> Option<Vec<u8>> {
    let component = wat::parse_str(AROUND).unwrap();
    // Its first section is the module: a byte for the kind, the length, the module.
    let sections = component.strip_prefix(COMPONENT).unwrap();
    let (own, digits) = leb128(sections.get(1..)?)?;
    let rest = sections.get(1 + digits + own..)?;
    let mut length = Vec::new();
    let mut left = module.len();
    while left > 0x7f {
        length.push(u8::try_from(left & 0x7f).ok()? | 0x80);
        left >>= 7;
    }
    length.push(u8::try_from(left).ok()?);
    Some([COMPONENT, &[1], &length, module, rest].concat())
}

/// A number, and how many bytes it takes.
fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let n_digits = bytes.iter().position(|digit| digit & 0x80 == 0)? + 1;
    let digits = bytes.get(..n_digits)?.iter().rev();
    let number = digits.fold(0, |number, digit| number << 7 | usize::from(digit & 0x7f));
    Some((number, n_digits))
}

fn edited(guest: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut file = guest.to_owned();
    for edit in edits.chunks_exact(4) {
        let &[high, middle, low, value] = edit else {
            continue;
        };
        let place = u32::from_be_bytes([0, high, middle, low]) as usize % guest.len();
        if let Some(byte) = file.get_mut(place) {
            *byte = value;
        }
    }
    file
}

fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(Host::new)
}

impl Host {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let engine = Engine::new(&EngineConfig {
            max_instances: 8,
            ..EngineConfig::default()
        });
        let engine = engine.unwrap();
        let databases = tempfile::tempdir().unwrap();
        let worker = |worker_type: &str| Worker {
            id: WorkerId::draw(&WorkerType::new(worker_type).unwrap()),
            limits: Limits::default(),
            config: BTreeMap::new(),
            call: nobody(),
            call_timeout: Duration::from_secs(1),
            metrics: Arc::new(GuestMetrics::new(Registry::new()).unwrap()),
            databases: Arc::new(Databases::new(databases.path().to_owned())),
            keyvalue: KeyValueStore::default(),
            reach: Reach::default(),
            outgoing: Arc::new(Outgoing::new(&Registry::new()).unwrap()),
            reuse: None,
            instances: Arc::new(InstanceMetrics::new(&Registry::new()).unwrap()),
        };
        let scratch = Arc::new(worker("PROBE"));
        let guest = guest(GUEST);
        let good = runtime.block_on(engine.load(guest.clone(), &scratch));
        Self {
            pool: Pool::new(good.unwrap(), worker("WD")),
            engine,
            runtime,
            scratch,
            guest,
            n_inputs: AtomicU64::new(0),
            _databases: databases,
        }
    }

    fn load(&self, file: Vec<u8>) -> Result<Plugin, LoadError> {
        self.runtime.block_on(self.engine.load(file, &self.scratch))
    }

    /// Runs a job on the plugin that was there before, and at times loads another good one.
    fn still_works(&self) {
        let job = Job {
            route: vec![Stop::new("WD:*")],
            position: 0,
            data: Payload::new(Encoding::Json, Bytes::from_static(b"{}")).unwrap(),
            sender: Identity {
                id: "FROM:2000000000000".to_owned(),
                worker_type: "FROM".to_owned(),
            },
            id: "J1".to_owned(),
        };
        let occasion = Occasion {
            job_id: "J1".to_owned(),
            attempt: 1,
            correlation_id: None,
            trace_parent: None,
        };
        let ran = self.runtime.block_on(async {
            let permit = self.pool.permit().await.unwrap();
            let stop = CancellationToken::new();
            self.pool.run(&permit, &job, occasion, stop).await
        });
        // Its own words: it has read the job, and there is nothing in it.
        assert!(
            matches!(&ran.verdict, Ok(Outcome::Reject { reason }) if reason.contains("method")),
            "a good plugin runs no more: {:?}",
            ran.verdict
        );
        let n_before = self.n_inputs.fetch_add(1, Ordering::Relaxed);
        if n_before.is_multiple_of(RELOAD_EVERY) {
            self.load(self.guest.clone()).unwrap();
        }
    }
}

fn nobody() -> CallFn {
    Arc::new(|_call| {
        let address = "NOBODY:*".to_owned();
        async move { Err(CallError::NoLiveWorker { address }) }.boxed()
    })
}

/// The bytes of a built guest.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!(
        "../../guests/target/wasm32-wasip2/release/{name}.wasm"
    ));
    fs::read(&file).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; run `cargo build --release --workspace` in guests/",
            file.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_around_modules_is_a_good_plugin_and_runs_what_is_put_into_it() {
        let host = host();
        let seed = file(AROUND.as_bytes(), &host.guest).unwrap();
        let plugin = host.load(seed).unwrap();
        assert_eq!(plugin.description.worker_type.as_str(), "FZ");
        let module = wat::parse_str(
            r#"(module (memory (export "memory") 1)
                (func (export "describe") (result i32) unreachable))"#,
        );
        let refused = host.load(file(&module.unwrap(), &host.guest).unwrap());
        assert_eq!(refused.unwrap_err().step(), "probe");
    }

    #[test]
    fn edits_change_bytes_of_a_real_guest() {
        let guest = guest(GUEST);
        assert_eq!(file(EDIT, &guest).unwrap(), guest);
        let edited = file(b"edit\0\0\x09\xff", &guest).unwrap();
        let changed = |at: &usize| edited.get(*at) != guest.get(*at);
        let places: Vec<usize> = (0..guest.len()).filter(changed).collect();
        assert_eq!(places, [9]);
    }
}
