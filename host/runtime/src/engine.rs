//! The one owner of wasmtime: its configuration, the linkers, the compiled artifacts and the epoch
//! ticker. Bytes in, [`Plugin`] out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig,
    component::{Component, HasSelf, Linker},
};
use wasmtime_wasi_http::p2::bindings::ProxyIndices;

use crate::{
    ArtifactsConfig, CompilerConfig, Digest, LoadError, MAX_TABLE_ELEMENTS, Plugin, Reach, Worker,
    artifacts::{self, Artifacts},
    binary,
    bindings::{
        self,
        exports::warren::worker::{descriptor, errors, handler},
    },
    probe,
    scheduling::{PROBES, Scheduling},
    state::State,
    symbols::Symbols,
};

/// The largest file that is taken for a plugin: a Python guest with libraries has 30 MB.
pub const MAX_FILE_BYTES: usize = 256 << 20;
/// What the calls of one run may take of the host's stack, all together: wasmtime's default. Rust
/// keeps most of its stack in linear memory, where it is bounded when the guest is linked.
pub(crate) const STACK_BYTES: usize = 512 << 10;

/// How an engine is made.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Instances that may live at the same time, all plugins together; further runs wait. Address
    /// space for each is set aside at the start, memory is not.
    pub max_instances: u32,
    /// The most linear memory that any worker may be granted, in bytes.
    pub max_memory_bytes: u64,
    /// Threads for runs that compute for long: as many as there are processors.
    pub n_threads: usize,
    /// Where compiled plugins are kept; `None`: each is compiled whenever it is loaded.
    pub artifacts: Option<ArtifactsConfig>,
    /// Where they are compiled; `None`: in this process, which bounds neither time nor memory.
    pub compiler: Option<CompilerConfig>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_instances: 1000,
            max_memory_bytes: 256 << 20,
            n_threads: std::thread::available_parallelism().map_or(1, usize::from),
            artifacts: None,
            compiler: None,
        }
    }
}

/// The host cannot run WebAssembly.
#[derive(Debug, thiserror::Error)]
#[error("starting the WebAssembly engine: {0}")]
pub struct EngineError(String);

/// Compiles and links plugins. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    engine: wasmtime::Engine,
    /// What a worker's instances are linked with.
    linker: Linker<State>,
    /// What `describe` is linked with: base WASI, and nothing that reaches anything.
    probe_linker: Linker<State>,
    scheduling: Arc<Scheduling>,
    artifacts: Option<Arc<Artifacts>>,
    compiler: Option<CompilerConfig>,
    /// Compiling uses every processor for one plugin already, and its bounds are those of one.
    compilers: Arc<Semaphore>,
}

/// The right to compile.
type Turn = Result<OwnedSemaphorePermit, AcquireError>;

/// Plugins that are compiled at the same time: a small one need not wait for a large one, and a
/// folder full of large ones does not use up the memory.
const COMPILERS: usize = 4;

/// A plugin's code before it was asked what it is.
pub struct Compiled {
    component: Component,
    symbols: Arc<Symbols>,
    digest: Digest,
    size_bytes: usize,
    compile_time: Duration,
    is_cached: bool,
}

impl Engine {
    /// Makes an engine and starts its ticker, which ends with the engine and its last plugin.
    ///
    /// # Errors
    /// [`EngineError`] when wasmtime refuses the configuration on this machine.
    pub fn new(config: &EngineConfig) -> Result<Self, EngineError> {
        let engine = match wasmtime::Engine::new(&pooling(config)) {
            Ok(engine) => engine,
            Err(error) => {
                // A limit on address space (a container's, strict overcommit) forbids the pool.
                tracing::warn!(
                    %error,
                    "no pooling allocator here, so every job costs more; \
                     allow more address space (ulimit -v, vm.overcommit_memory)"
                );
                wasmtime::Engine::new(&common())
                    .map_err(|error| EngineError(format!("{error:#}")))?
            }
        };
        let (linker, probe_linker) =
            linkers(&engine).map_err(|error| EngineError(format!("{error:#}")))?;
        let scheduling = Scheduling::new(config.max_instances, config.n_threads)
            .map_err(|error| EngineError(format!("threads for runs: {error}")))?;
        let scheduling = Arc::new(scheduling);
        let ticker = &scheduling.background.ticker;
        ticker
            .start(&engine)
            .map_err(|error| EngineError(error.to_string()))?;
        let artifacts = config.artifacts.clone().and_then(|config| {
            let folder = config.folder.clone();
            Artifacts::open(config, &engine)
                .inspect_err(|error| {
                    tracing::warn!(
                        folder = %folder.display(), %error,
                        "compiled plugins are not kept, so every start compiles them again"
                    );
                })
                .ok()
        });
        Ok(Self(Arc::new(Inner {
            engine,
            linker,
            probe_linker,
            scheduling,
            artifacts: artifacts.map(Arc::new),
            compiler: config.compiler.clone(),
            compilers: Arc::new(Semaphore::new(COMPILERS)),
        })))
    }

    /// Turns the bytes of a file into a plugin: [`Engine::compile`], then [`Engine::probe`].
    ///
    /// # Errors
    /// [`LoadError`] names the step, the culprit and the remedy.
    pub async fn load(&self, bytes: Vec<u8>, scratch: &Arc<Worker>) -> Result<Plugin, LoadError> {
        let digest = Digest::of(&bytes);
        let compiled = self.compile(bytes.into(), digest).await?;
        self.probe(compiled, scratch).await
    }

    /// Validates and compiles the bytes of a file, or finds the code that was
    /// compiled before. `digest` is that of the bytes.
    ///
    /// # Errors
    /// [`LoadError`] names the step, the culprit and the remedy.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the line, and ends the process that compiles. What is
    /// being compiled in this process is compiled to its end.
    pub async fn compile(&self, bytes: Bytes, digest: Digest) -> Result<Compiled, LoadError> {
        let off = |error: tokio::task::JoinError| LoadError::Compile(error.to_string());
        let (engine, started, size_bytes) = (self.clone(), Instant::now(), bytes.len());
        let content = bytes.clone();
        let find = move || {
            let artifacts = engine.0.artifacts.as_ref();
            match artifacts.and_then(|artifacts| artifacts.load(&engine.0.engine, &digest)) {
                Some(component) => Ok(Some((component, Symbols::of(&content)))),
                None => binary::validate(&content).map(|()| None),
            }
        };
        let found = tokio::task::spawn_blocking(find).await.map_err(off)??;
        let is_cached = found.is_some();
        let (component, symbols) = match found {
            Some(found) => found,
            None => {
                let turn = self.0.compilers.clone().acquire_owned().await;
                let (code, turn) = self.compile_now(bytes.clone(), turn).await?;
                let engine = self.clone();
                let map = move || {
                    // The code is in memory until it is mapped.
                    let _turn = turn;
                    let component = engine.map(&code, &digest)?;
                    Ok::<_, LoadError>((component, Symbols::of(&bytes)))
                };
                tokio::task::spawn_blocking(map).await.map_err(off)??
            }
        };
        Ok(Compiled {
            component,
            symbols: Arc::new(symbols),
            digest,
            size_bytes,
            compile_time: started.elapsed(),
            is_cached,
        })
    }

    /// The code of a file, as wasmtime writes it down, and the turn, which the caller gives back.
    async fn compile_now(&self, bytes: Bytes, turn: Turn) -> Result<(Vec<u8>, Turn), LoadError> {
        if let Some(compiler) = &self.0.compiler {
            return Ok((compiler.compile(&bytes).await?, turn));
        }
        let failed = |text: String| LoadError::Compile(text);
        // With the turn: it has not ended when nobody waits for it any more.
        let compile = move || (precompile(&bytes), turn);
        let compiled = tokio::task::spawn_blocking(compile).await;
        let (code, turn) = compiled.map_err(|error| failed(error.to_string()))?;
        Ok((code.map_err(|error| failed(format!("{error:#}")))?, turn))
    }

    /// Makes code ready to run: from the file in which it is kept, so that the system can drop its
    /// pages and read them again.
    fn map(&self, code: &[u8], plugin: &Digest) -> Result<Component, LoadError> {
        let engine = &self.0.engine;
        if let Some(artifacts) = &self.0.artifacts {
            artifacts.store(code, plugin);
            if let Some(component) = artifacts.load(engine, plugin) {
                return Ok(component);
            }
        }
        artifacts::deserialize(engine, code)
            .map_err(|error| LoadError::Compile(format!("{error:#}")))
    }

    /// Links compiled code and asks it what it is. `scratch` is the worker as which it is asked; its
    /// type is a placeholder.
    ///
    /// # Errors
    /// [`LoadError`] names the step, the culprit and the remedy.
    pub async fn probe(
        &self,
        compiled: Compiled,
        scratch: &Arc<Worker>,
    ) -> Result<Plugin, LoadError> {
        let Compiled { component, .. } = &compiled;
        let pre = self.0.linker.instantiate_pre(component).map_err(|error| {
            LoadError::Link(format!(
                "{error:#}. This host offers WASI 0.2, wasi:http, wasi:logging, wasi:config, \
                 wasi:keyvalue@0.2.0-draft2 and warren:worker@0.1"
            ))
        })?;
        let descriptor = descriptor::GuestIndices::new(&pre).map_err(|_| {
            LoadError::Link(format!(
                "it does not export warren:worker/descriptor@0.1.0, so it is no Warren worker \
                 (it exports {})",
                exports(component, &self.0.engine)
            ))
        })?;
        let handler = handler::GuestIndices::new(&pre).ok();
        let http = ProxyIndices::new(&pre).ok();
        let errors = errors::GuestIndices::new(&pre).ok();
        if handler.is_none() && http.is_none() {
            return Err(LoadError::Link(format!(
                "it exports neither warren:worker/handler@0.1.0 nor wasi:http/incoming-handler@0.2 \
                 (it exports {}), so there is nothing it could do",
                exports(component, &self.0.engine)
            )));
        }
        let said = probe::describe(
            &self.0.probe_linker,
            &self.0.scheduling,
            component,
            &descriptor,
            scratch,
        )
        .await?;
        let description = probe::read(said, http.is_some())?;
        Ok(Plugin {
            scheduling: self.0.scheduling.clone(),
            pre,
            handler,
            http,
            errors,
            imports: imports(component, &self.0.engine),
            symbols: compiled.symbols,
            description,
            digest: compiled.digest,
            size_bytes: compiled.size_bytes,
            compile_time: compiled.compile_time,
            is_cached: compiled.is_cached,
            reach: Reach::default(),
        })
    }
}

/// Compiles a component, for an engine of this program.
pub(crate) fn precompile(bytes: &[u8]) -> wasmtime::Result<Vec<u8>> {
    // The allocator is no part of the code, and reserves more than a bounded process has.
    wasmtime::Engine::new(&common())?.precompile_component(bytes)
}

/// What every engine has in common (WASMTIME.md §2 has the figures behind it).
fn common() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Tasks of WASI 0.3 cost every job 10 µs, used or not.
        .concurrency_support(false)
        .epoch_interruption(true)
        // wasmtime has this for whole engines only, so there is no key for one worker.
        .max_wasm_stack(STACK_BYTES)
        // Symbolising costs 16 to 34 ms at every trap of a guest with debug information: a
        // poisoned message could keep a processor busy. `symbols` does it once for each place.
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable);
    config
}

/// The pool with the kernel's help to reset only touched pages makes a fresh instance per job
/// cost 11 µs instead of 40.
fn pooling(config: &EngineConfig) -> Config {
    const RESIDENT_BYTES: usize = 256 << 10;
    const CORE_INSTANCES_EACH: u32 = 4;
    // A guest may have a memory for each of its modules, and one for its collector's heap. A slot
    // is 4 GiB of address space and nothing else; a run that finds none is `Fault::Busy`.
    const MEMORIES_EACH: u32 = 2;
    let n = config.max_instances.saturating_add(PROBES);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(n)
        .total_core_instances(n.saturating_mul(CORE_INSTANCES_EACH))
        .total_memories(n.saturating_mul(MEMORIES_EACH))
        .total_tables(n.saturating_mul(CORE_INSTANCES_EACH))
        .total_stacks(n)
        .total_gc_heaps(n)
        .max_memory_size(usize::try_from(config.max_memory_bytes).unwrap_or(usize::MAX))
        .linear_memory_keep_resident(RESIDENT_BYTES)
        .table_elements(MAX_TABLE_ELEMENTS)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut engine = common();
    engine.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    engine
}

fn linkers(engine: &wasmtime::Engine) -> wasmtime::Result<(Linker<State>, Linker<State>)> {
    let mut probe = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut probe)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut probe)?;
    let mut full = probe.clone();
    // Every call of our own interfaces comes through here, as those of WASI do through its views.
    bindings::TreatingWorker::add_to_linker::<_, HasSelf<State>>(
        &mut full,
        |state: &mut State| {
            state.run.meter.count_call();
            state
        },
    )?;
    Ok((full, probe))
}

fn imports(component: &Component, engine: &wasmtime::Engine) -> Vec<String> {
    let component_type = component.component_type();
    let imports = component_type.imports(engine);
    let mut names: Vec<String> = imports.map(|(name, _)| name.to_owned()).collect();
    names.sort();
    names
}

fn exports(component: &Component, engine: &wasmtime::Engine) -> String {
    let component_type = component.component_type();
    let names: Vec<String> = component_type
        .exports(engine)
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::{Instance, Module, Store};

    use super::*;

    #[test]
    fn every_instance_may_have_two_memories() {
        let config = EngineConfig {
            max_instances: 1,
            ..EngineConfig::default()
        };
        let engine = wasmtime::Engine::new(&pooling(&config)).unwrap();
        let module = Module::new(&engine, wat::parse_str("(module (memory 1))").unwrap()).unwrap();
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1);
        for _ in 0..2 * (1 + PROBES) {
            Instance::new(&mut store, &module, &[]).unwrap();
        }
        Instance::new(&mut store, &module, &[]).unwrap_err();
    }
}
