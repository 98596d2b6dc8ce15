//! What one instance owns: the data of its Store. What belongs to one run of it is apart, and is
//! replaced as a whole: nothing of a run can be forgotten when the next one begins.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio_util::sync::CancellationToken;
use warren_protocol::{Encoding, Slip};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, p2::DynPollable};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use crate::{
    Limits, Occasion, Worker,
    capability::{
        keyvalue,
        log::{LogBudget, Stream},
        outgoing::Requests,
        sql::Session,
    },
    limits::MemoryLimiter,
    meter::Meter,
};

/// What lasts as long as the instance.
pub(crate) struct State {
    pub(crate) worker: Arc<Worker>,
    pub(crate) accepts: Encoding,
    pub(crate) memory: MemoryLimiter,
    /// The pipe is the instance's, because a guest keeps its standard streams; what is in it is
    /// the run's.
    pub(crate) log: LogBudget,
    pub(crate) table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    /// The run that it serves.
    pub(crate) run: Run,
}

/// What belongs to one run: one field for each capability that remembers something.
pub(crate) struct Run {
    pub(crate) occasion: Occasion,
    pub(crate) began: Instant,
    pub(crate) deadline: Instant,
    pub(crate) cancelled: CancellationToken,
    pub(crate) sends: Arc<Sends>,
    pub(crate) sql: Session,
    pub(crate) keyvalue: keyvalue::Session,
    pub(crate) meter: Meter,
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
pub(crate) const MAX_RESOURCES: usize = 1000;
/// Standard output and standard error, of which the guest gets copies.
const STREAMS_OF_A_STORE: usize = 2;

impl State {
    pub(crate) fn new(worker: Arc<Worker>, accepts: Encoding, run: Run) -> Self {
        let log = LogBudget::new(&worker, &run.occasion);
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
            worker,
            accepts,
            log,
            table,
            wasi,
            http: WasiHttpCtx::new(),
            run,
        }
    }

    /// Serves another run from now on. What it knew of the one before is gone.
    pub(crate) fn begin(&mut self, run: Run) {
        self.log.begin(&self.worker, &run.occasion);
        self.run = run;
    }

    /// How many entries of the table the guest holds, its standard streams not counted. Nor is what
    /// it waits for them with: a pollable is never there without what it belongs to.
    pub(crate) fn n_held(&mut self) -> usize {
        let entries = self.table.iter_mut();
        let n_entries = entries.filter(|entry| !entry.is::<DynPollable>()).count();
        (n_entries + STREAMS_OF_A_STORE).saturating_sub(self.log.n_streams())
    }
}

impl Run {
    pub(crate) fn new(
        worker: &Arc<Worker>,
        occasion: Occasion,
        began: Instant,
        deadline: Instant,
        cancelled: CancellationToken,
    ) -> Self {
        Self {
            sql: Session::new(worker),
            keyvalue: keyvalue::Session::default(),
            occasion,
            began,
            deadline,
            cancelled,
            sends: Arc::default(),
            meter: Meter::new(),
            outgoing: Requests::new(worker, deadline),
        }
    }

    /// The run of an instance that serves none: it holds nothing, and it is over.
    pub(crate) fn none(worker: &Arc<Worker>) -> Self {
        let occasion = Occasion {
            job_id: String::new(),
            attempt: 0,
            correlation_id: None,
            trace_parent: None,
        };
        let now = Instant::now();
        Self::new(worker, occasion, now, now, CancellationToken::new())
    }

    /// Whether its time is up, it has used more than it may, or somebody has stopped it.
    pub(crate) fn is_over(&self, limits: &Limits) -> bool {
        self.cancelled.is_cancelled()
            || Instant::now() >= self.deadline
            || self.meter.exceeded(limits).is_some()
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
            return Err(format!(
                "one run may send {} jobs: raise `sends` of the worker if that is right",
                limits.sends
            ));
        }
        if bytes > most_bytes {
            return Err(format!(
                "one run may send {most_bytes} bytes: raise `payload` of the worker, of which that \
                 is {MAX_SENT_PAYLOADS} times, if that is right"
            ));
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
    /// Every call of the base WASI comes through here.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.run.meter.count_call();
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    /// Every call of `wasi:http` comes through here.
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.run.meter.count_call();
        let hooks: &mut dyn WasiHttpHooks = &mut self.run.outgoing;
        WasiHttpCtxView {
            hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}
