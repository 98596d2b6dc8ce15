//! Turns a plugin into a version that can serve: the operator's limits and settings around the
//! code. What a worker may have comes from the configuration, never from the plugin.

use std::{path::PathBuf, sync::Arc};

use warren_protocol::{CallError, WorkerId, WorkerType};
use warren_runtime::{
    CallFn, Databases, GuestMetrics, InstanceMetrics, KeyValueStore, KeyValueStores, Limits,
    Outgoing, Plugin, Pool, Reach, Reuse, Worker,
};

use crate::{
    config::{self, Config},
    host::Host,
    registry::{Retry, Version},
    trial::Trial,
};

/// What the workers of one host are equipped with.
pub(crate) struct Equipment {
    /// What the operator wants.
    pub config: Config,
    /// The embedded databases.
    pub databases: Arc<Databases>,
    /// Where keys and values are.
    pub keyvalue: Arc<KeyValueStores>,
    /// The guests' figures.
    pub metrics: Arc<GuestMetrics>,
    /// The figures of the guests' instances.
    pub instances: Arc<InstanceMetrics>,
    /// The guests' requests to other hosts.
    pub outgoing: Arc<Outgoing>,
}

impl Equipment {
    /// The worker as which a plugin is asked what it is. It can reach nothing.
    #[must_use]
    pub(crate) fn scratch(&self, worker_type: WorkerType) -> Arc<Worker> {
        let call: CallFn = Arc::new(|_| {
            Box::pin(async {
                Err(CallError::Invalid {
                    reason: "not while being described".to_owned(),
                })
            })
        });
        Arc::new(Worker {
            id: WorkerId::draw(&worker_type),
            limits: runtime_limits(&self.config.limits),
            config: Default::default(),
            call,
            call_timeout: self.config.call_timeout,
            metrics: self.metrics.clone(),
            databases: self.databases.clone(),
            keyvalue: KeyValueStore::default(),
            reuse: None,
            instances: self.instances.clone(),
            reach: Reach::default(),
            outgoing: self.outgoing.clone(),
        })
    }

    /// The path prefix under which a plugin serves HTTP: the operator's, else the plugin's wish, else
    /// its type.
    pub(crate) fn http_path(&self, worker_type: &WorkerType, plugin: &Plugin) -> Option<String> {
        plugin.serves_http().then(|| {
            let own = self.config.workers.get(worker_type);
            let configured = own.and_then(|own| own.http_path.clone());
            let wished = plugin.description.http_path.clone();
            configured
                .or(wished)
                .unwrap_or_else(|| format!("/{worker_type}/"))
        })
    }

    /// Where a worker has its keys and values, if it has any.
    fn keyvalue(
        &self,
        worker_type: &WorkerType,
        reach: &Reach,
        limits: &config::Limits,
    ) -> KeyValueStore {
        match &reach.redis {
            _ if !reach.grants.keyvalue => KeyValueStore::default(),
            Some(url) => self.keyvalue.redis(worker_type, url),
            None => self.keyvalue.embedded(worker_type, limits.database_bytes),
        }
    }

    /// A version of the worker `id`, ready to serve.
    #[must_use]
    pub(crate) fn version(
        &self,
        host: &Host,
        id: &WorkerId,
        plugin: Plugin,
        file: PathBuf,
    ) -> Version {
        let own = self.config.workers.get(id.worker_type());
        let limits = own.map_or(&self.config.limits, |own| &own.limits);
        let http_path = self.http_path(id.worker_type(), &plugin);
        let (calls, caller) = (host.calls.clone(), id.clone());
        let call: CallFn = Arc::new(move |call| {
            let (calls, caller) = (calls.clone(), caller.clone());
            Box::pin(async move { calls.call(&caller, call).await })
        });
        let worker = Worker {
            id: id.clone(),
            limits: runtime_limits(limits),
            config: own.map(|own| own.config.clone()).unwrap_or_default(),
            call,
            call_timeout: self.config.call_timeout,
            metrics: self.metrics.clone(),
            databases: self.databases.clone(),
            keyvalue: self.keyvalue(id.worker_type(), &plugin.reach, limits),
            reuse: own.and_then(runtime_reuse),
            instances: self.instances.clone(),
            reach: plugin.reach.clone(),
            outgoing: self.outgoing.clone(),
        };
        Version {
            pool: Pool::new(plugin, worker),
            file,
            http_path,
            retry: Retry {
                attempts: limits.attempts,
                base: limits.retry_base,
                cap: limits.retry_cap,
                breaker: limits.breaker,
            },
            trial: Trial::default(),
        }
    }
}

/// How long the instances of a worker are kept.
fn runtime_reuse(own: &config::WorkerConfig) -> Option<Reuse> {
    own.reuse.as_ref().map(|reuse| Reuse {
        calls: reuse.calls,
        memory_bytes: reuse.memory_bytes.unwrap_or(own.limits.memory_bytes / 2),
        age: reuse.age,
    })
}

/// The limits that the runtime enforces; the others are dispatch's.
fn runtime_limits(limits: &config::Limits) -> Limits {
    Limits {
        memory_bytes: limits.memory_bytes,
        deadline: limits.deadline,
        cpu: limits.cpu,
        host_calls: limits.host_calls.into(),
        concurrency: limits.concurrency,
        payload_bytes: usize::try_from(limits.payload_bytes).unwrap_or(usize::MAX),
        sends: limits.sends as usize,
        log_bytes: usize::try_from(limits.log_bytes).unwrap_or(usize::MAX),
        table_elements: limits.tables as usize,
        sql_rows: limits.sql_rows,
        statement_timeout: limits.statement_timeout,
        database_bytes: limits.database_bytes,
        http_connections: limits.http_connections,
        http_requests: limits.http_requests,
        http_transfer_bytes: limits.http_transfer_bytes,
        http_header_bytes: usize::try_from(limits.http_header_bytes).unwrap_or(usize::MAX),
    }
}
