//! What one instance owns while it runs: the data of its Store.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio_util::sync::CancellationToken;
use warren_protocol::{Encoding, Slip};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use crate::{
    Limits, Occasion, Worker,
    capability::{
        log::{LogBudget, Stream},
        outgoing::Requests,
        sql::Session,
    },
    limits::MemoryLimiter,
};

/// One field for each capability.
pub(crate) struct State {
    pub(crate) worker: Arc<Worker>,
    pub(crate) occasion: Occasion,
    pub(crate) accepts: Encoding,
    pub(crate) deadline: Instant,
    pub(crate) cancelled: CancellationToken,
    pub(crate) memory: MemoryLimiter,
    pub(crate) log: LogBudget,
    pub(crate) sends: Arc<Sends>,
    pub(crate) sql: Session,
    pub(crate) table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: Requests,
}

/// What a run has sent and the host holds back until the run has succeeded. Shared, because an
/// HTTP run's sends go out when its response head does, while the guest is still running.
#[derive(Default)]
pub(crate) struct Sends(Mutex<Held>);

#[derive(Default)]
struct Held {
    slips: Vec<Slip>,
    /// How many were sent, those taken included.
    n: usize,
    /// What they carried, in bytes.
    bytes: usize,
}

/// All that a run sends is in memory until it has succeeded: so many full payloads.
const MAX_SENT_PAYLOADS: usize = 4;
/// Resources of the base WASI and `wasi:http` that one instance may hold: streams, pollables,
/// header fields (of up to 128 KiB each).
const MAX_RESOURCES: usize = 1000;

impl State {
    pub(crate) fn new(
        worker: Arc<Worker>,
        occasion: Occasion,
        accepts: Encoding,
        deadline: Instant,
        cancelled: CancellationToken,
    ) -> Self {
        let log = LogBudget::new(&worker, &occasion);
        let outgoing = Requests::new(&worker, deadline);
        // No files, no environment, no sockets: every toolchain's standard library imports them,
        // and finds nothing.
        let wasi = WasiCtx::builder()
            .stdout(Stream::stdout(&log))
            .stderr(Stream::stderr(&log))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Self {
            memory: MemoryLimiter::new(&worker.limits),
            sql: Session::new(&worker),
            worker,
            occasion,
            accepts,
            deadline,
            cancelled,
            log,
            sends: Arc::default(),
            table,
            wasi,
            http: WasiHttpCtx::new(),
            outgoing,
        }
    }

    /// Whether the run's time is up or somebody has stopped it.
    pub(crate) fn is_over(&self) -> bool {
        self.cancelled.is_cancelled() || Instant::now() >= self.deadline
    }
}

impl Sends {
    /// Holds one more; the error says which limit forbids it.
    pub(crate) fn push(&self, slip: Slip, limits: &Limits) -> Result<(), String> {
        let mut held = self.lock();
        let most_bytes = limits.payload_bytes.saturating_mul(MAX_SENT_PAYLOADS);
        let route: usize = slip.stops.iter().map(|stop| stop.as_str().len()).sum();
        let bytes = held
            .bytes
            .saturating_add(route)
            .saturating_add(slip.data.len());
        if held.n >= limits.sends {
            return Err(format!("one run may send {} jobs", limits.sends));
        }
        if bytes > most_bytes {
            return Err(format!("one run may send {most_bytes} bytes"));
        }
        held.n += 1;
        held.bytes = bytes;
        held.slips.push(slip);
        Ok(())
    }

    /// Takes what has been sent so far.
    pub(crate) fn take(&self) -> Vec<Slip> {
        std::mem::take(&mut self.lock().slips)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let hooks: &mut dyn WasiHttpHooks = &mut self.outgoing;
        WasiHttpCtxView {
            hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}
