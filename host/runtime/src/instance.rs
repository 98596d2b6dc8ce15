//! A guest in its Store: made for one run, and kept for the next ones where the operator wants it.

use std::{sync::Arc, time::Instant};

use wasmtime::{PoolConcurrencyLimitError, Store, component};

use crate::{
    Plugin, Worker,
    reuse::{Dropped, End},
    run,
    state::{Run, State},
};

/// One guest, from the making of its Store to its end.
pub(crate) struct Instance {
    pub(crate) store: Store<State>,
    /// `None` until its first run has started it.
    started: Option<component::Instance>,
    born: Instant,
    n_runs: u32,
    end: End,
}

impl Instance {
    /// A Store for a first run, in which [`Self::start`] starts the guest.
    pub(crate) fn new(plugin: &Plugin, worker: &Arc<Worker>, run: Run, end: End) -> Self {
        Self {
            born: run.began,
            store: store(plugin, worker, run),
            started: None,
            n_runs: 0,
            end,
        }
    }

    /// Gives it another run to serve.
    pub(crate) fn begin(&mut self, run: Run) {
        self.store.data_mut().begin(run);
        // The clock of the engine went on while it was idle.
        self.store.set_epoch_deadline(1);
    }

    /// Takes its run from it: while it is idle it holds no connection, no job and no text of one.
    pub(crate) fn rest(&mut self) {
        let state = self.store.data_mut();
        let run = Run::none(&state.worker);
        state.begin(run);
    }

    /// Starts the guest, unless an earlier run has. Where idle instances have taken what it needs,
    /// they give way.
    pub(crate) async fn start(&mut self, plugin: &Plugin) -> wasmtime::Result<component::Instance> {
        self.n_runs = self.n_runs.saturating_add(1);
        if let Some(started) = self.started {
            return Ok(started);
        }
        plugin.scheduling.make_room();
        let guest = loop {
            let error = match plugin.pre.instantiate_async(&mut self.store).await {
                Ok(guest) => break guest,
                Err(error) => error,
            };
            let is_full = error.downcast_ref::<PoolConcurrencyLimitError>().is_some();
            if !is_full || !plugin.scheduling.evict() {
                return Err(error);
            }
            // What it has got so far is given back with its Store.
            let state = self.store.data_mut();
            let worker = state.worker.clone();
            let run = std::mem::replace(&mut state.run, Run::none(&worker));
            self.store = store(plugin, &worker, run);
        };
        self.started = Some(guest);
        Ok(guest)
    }

    /// When it was made.
    pub(crate) fn born(&self) -> Instant {
        self.born
    }

    /// How many runs it has served.
    pub(crate) fn n_runs(&self) -> u32 {
        self.n_runs
    }

    /// Whether its run has left something in the host that the next one would find: a transaction,
    /// a request, a response that was never given.
    pub(crate) fn holds_something(&mut self) -> bool {
        self.started.is_none() || self.store.data_mut().n_held() > 0
    }

    /// Ends it. One that is dropped in any other way has failed.
    pub(crate) fn drop_for(mut self, why: Dropped) {
        self.end.why = why;
    }
}

fn store(plugin: &Plugin, worker: &Arc<Worker>, run: Run) -> Store<State> {
    let accepts = plugin.description.accepts;
    run::store(&plugin.pre, worker, accepts, run)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use futures_util::FutureExt;
    use prometheus::Registry;
    use tokio_util::sync::CancellationToken;
    use warren_protocol::{CallError, Encoding, WorkerId, WorkerType};
    use wasmtime::{
        Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
        component::{Component, Linker},
    };

    use super::*;
    use crate::{
        Call, Databases, Description, Digest, GuestMetrics, InstanceMetrics, KeyValueStore, Limits,
        Occasion, Outgoing, Reach, Reuse, reuse::Instances, scheduling::Scheduling,
        symbols::Symbols,
    };

    /// An engine with three memories, and a guest that needs all of them.
    fn plugin() -> Plugin {
        const GUEST: &str = "(component
            (core module $m (memory 1))
            (core instance (instantiate $m))
            (core instance (instantiate $m))
            (core instance (instantiate $m)))";
        let mut pool = PoolingAllocationConfig::new();
        pool.total_memories(3).max_memory_size(1 << 16);
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config).unwrap();
        let component = Component::new(&engine, wat::parse_str(GUEST).unwrap()).unwrap();
        Plugin {
            scheduling: Arc::new(Scheduling::new(10, 1).unwrap()),
            pre: Linker::new(&engine).instantiate_pre(&component).unwrap(),
            handler: None,
            http: None,
            errors: None,
            description: Description {
                worker_type: WorkerType::new("FX").unwrap(),
                version: String::new(),
                summary: String::new(),
                accepts: Encoding::Json,
                http_path: None,
            },
            symbols: Arc::new(Symbols::of(GUEST.as_bytes())),
            digest: Digest::of(GUEST.as_bytes()),
            size_bytes: GUEST.len(),
            compile_time: Duration::ZERO,
            is_cached: false,
            imports: Vec::new(),
            reach: Reach::default(),
        }
    }

    fn worker() -> Arc<Worker> {
        let call = |call: Call| {
            let address = call.slip.stops[0].as_str().to_owned();
            async move { Err(CallError::NoLiveWorker { address }) }.boxed()
        };
        Arc::new(Worker {
            id: WorkerId::draw(&WorkerType::new("FX").unwrap()),
            limits: Limits::default(),
            config: BTreeMap::new(),
            call: Arc::new(call),
            call_timeout: Duration::from_secs(1),
            metrics: Arc::new(GuestMetrics::new(Registry::new()).unwrap()),
            databases: Arc::new(Databases::new(std::env::temp_dir())),
            keyvalue: KeyValueStore::default(),
            reach: Reach::default(),
            outgoing: Arc::new(Outgoing::new(&Registry::new()).unwrap()),
            reuse: Some(Reuse {
                calls: 10,
                memory_bytes: 1 << 20,
                age: Duration::from_secs(60),
            }),
            instances: Arc::new(InstanceMetrics::new(&Registry::new()).unwrap()),
        })
    }

    fn a_run(worker: &Arc<Worker>) -> Run {
        let occasion = Occasion {
            job_id: "J1".to_owned(),
            attempt: 1,
            correlation_id: None,
            trace_parent: None,
        };
        let deadline = Duration::from_secs(20);
        run::begin(worker, occasion, deadline, CancellationToken::new())
    }

    #[tokio::test]
    async fn an_idle_instance_gives_its_memories_to_one_that_runs() {
        let (plugin, worker) = (plugin(), worker());
        let instances = Instances::new(&worker);
        plugin.scheduling.add(&instances);
        let mut idle = instances.instance(&plugin, a_run(&worker));
        idle.start(&plugin).await.unwrap();
        instances.give_back(idle);
        assert_eq!(instances.n_idle(), 1);

        let other = || Instance::new(&plugin, &worker, a_run(&worker), End::new(None));
        let mut running = other();
        running.start(&plugin).await.unwrap();
        assert_eq!(instances.n_idle(), 0);
        assert_eq!(running.store.data().run.occasion.job_id, "J1");
        // Nobody is idle any more: there is no room, and this run is told so.
        let error = other().start(&plugin).await.err().unwrap();
        assert!(error.is::<PoolConcurrencyLimitError>(), "{error:?}");
    }
}
