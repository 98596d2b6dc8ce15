//! The least that a program on wasmtime does to run a job in a fresh instance: the configuration that
//! is the fastest for that, WASI, what else the guest imports, and nothing of what a host is for. No
//! limit, no deadline, no way to stop it, no log, no figures; the job is ready before the clock runs.

use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, Result, Store,
    component::{Component, HasSelf, Linker, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use contract::{
    BarePre,
    exports::warren::worker::handler::{Job, Outcome},
    warren::worker::{
        bus::{self, CallError, SendError},
        types::{self, Payload, Slip},
    },
};

mod contract {
    #![allow(unreachable_pub, reason = "generated code")]

    wasmtime::component::bindgen!({
        inline: "
            package warren:bare;
            world bare {
                import warren:worker/bus@0.1.0;
                export warren:worker/handler@0.1.0;
            }
        ",
        path: "../../wit",
        world: "warren:bare/bare",
        imports: {
            "warren:worker/bus@0.1.0.call": async | trappable,
            default: trappable,
        },
        exports: { default: async },
    });
}

/// As many as a host has room for by default.
const INSTANCES: u32 = 1000;

/// A guest on wasmtime alone.
pub(crate) struct Bare {
    engine: wasmtime::Engine,
    guest: BarePre<State>,
    job: Job,
}

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl Bare {
    pub(crate) fn new(guest: &[u8]) -> Self {
        let engine = wasmtime::Engine::new(&fastest()).unwrap();
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        bus::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state).unwrap();
        types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state).unwrap();
        let component = Component::new(&engine, guest).unwrap();
        let guest = BarePre::new(linker.instantiate_pre(&component).unwrap()).unwrap();
        let data = Payload {
            content_type: "application/json".to_owned(),
            body: b"null".to_vec(),
        };
        let job = Job {
            id: "J1".to_owned(),
            sender: "FROM:2000000000000".to_owned(),
            route: vec!["FX:*".to_owned(), "NEXT:*".to_owned()],
            position: 0,
            data,
        };
        Self { engine, guest, job }
    }

    /// Runs one job, from the making of its Store to its end.
    pub(crate) async fn run(&self) {
        let state = State {
            wasi: WasiCtx::builder().build(),
            table: ResourceTable::new(),
        };
        let mut store = Store::new(&self.engine, state);
        store.set_epoch_deadline(1 << 60);
        let guest = self.guest.instantiate_async(&mut store).await.unwrap();
        let handler = guest.warren_worker_handler();
        let said = handler.call_handle(&mut store, &self.job).await.unwrap();
        assert!(matches!(said, Ok(Outcome::Done)));
    }
}

/// What `engine.rs` gives the reasons for, written down a second time: what is measured here shall not
/// follow when that changes.
fn fastest() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES)
        .total_core_instances(4 * INSTANCES)
        .total_memories(INSTANCES)
        .total_tables(4 * INSTANCES)
        .total_stacks(INSTANCES)
        .max_memory_size(256 << 20)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl types::Host for State {}

impl bus::Host for State {
    fn send(&mut self, _: Slip) -> Result<Result<(), SendError>> {
        Ok(Ok(()))
    }

    async fn call(&mut self, _: Slip, _: Option<u64>) -> Result<Result<Payload, CallError>> {
        Ok(Err(CallError::Unavailable("there is no bus".to_owned())))
    }
}
