//! The host of a case: the parts of a host that serves, put together as `warren run` does it, on a bus
//! of the case's own and with files of its own.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use warren_bus::EmbeddedBroker;
use warren_runtime::{
    Databases, Detour, GuestMetrics, InstanceMetrics, KeyValueStores, Outgoing, Plugin, Worker,
};

use super::bench::{Bench, Script};
use crate::{
    config::Config,
    dispatch,
    equip::Equipment,
    host::Host,
    registry::{Seat, Version},
    reload::Stage,
    run::{self, Link},
    telemetry::metrics::Metrics,
    witness::Witness,
};

/// What all cases of one plugin share.
pub(super) struct Shop {
    pub(super) plugin: Plugin,
    /// The file of the plugin.
    pub(super) file: std::path::PathBuf,
}

/// A host would not load the worker.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the worker is not loaded: {0}")]
pub(super) struct NotLoaded(pub(super) String);

/// What the hosts of one case share.
pub(super) struct Site<'a> {
    pub(super) shop: &'a Shop,
    pub(super) broker: EmbeddedBroker,
    pub(super) script: Arc<Script>,
    /// For databases and stores.
    pub(super) folder: &'a Path,
    pub(super) detour: Detour,
    pub(super) witness: Witness,
}

/// A host with the worker of the case.
pub(super) struct Ground {
    pub(super) host: Arc<Host>,
    pub(super) bench: Arc<Bench>,
    pub(super) metrics: Arc<Metrics>,
    version: Arc<Version>,
    databases: Arc<Databases>,
    keyvalue: Arc<KeyValueStores>,
    attending: JoinHandle<()>,
}

impl Site<'_> {
    /// Puts a host together and the worker to work, under this name on the bus.
    pub(super) async fn raise(&self, name: &str, config: &Config) -> anyhow::Result<Ground> {
        let (inner, inbox) = self.broker.connect(name);
        let worker_type = self.shop.plugin.description.worker_type.clone();
        let bench = Bench::new(inner, self.script.clone(), worker_type, config.encoding);
        let bench = Arc::new(bench);
        let metrics = Arc::new(Metrics::new().context("registering metrics")?);
        let link = Link::on(name.to_owned(), bench.clone(), inbox);
        let (host, inbox) = run::assemble(
            config,
            link,
            metrics.clone(),
            CancellationToken::new(),
            Some(self.witness.clone()),
        )?;
        let databases = Arc::new(Databases::new(self.folder.join("sql")));
        let keyvalue = Arc::new(KeyValueStores::new(self.folder.join("keyvalue")));
        let registry = metrics.registry();
        let outgoing = Outgoing::new(registry).context("registering metrics")?;
        let equipment = Equipment {
            config: config.clone(),
            databases: databases.clone(),
            keyvalue: keyvalue.clone(),
            metrics: Arc::new(GuestMetrics::new(registry.clone()).context("registering metrics")?),
            instances: Arc::new(InstanceMetrics::new(registry).context("registering metrics")?),
            outgoing: Arc::new(outgoing.led_to(self.detour)),
        };
        let attending = tokio::spawn(dispatch::attend(host.clone(), inbox));
        let version = match self.put(&host, equipment).await {
            Ok(version) => version,
            Err(error) => {
                attending.abort();
                host.bus.close().await;
                return Err(error);
            }
        };
        Ok(Ground {
            host,
            bench,
            metrics,
            version,
            databases,
            keyvalue,
            attending,
        })
    }

    async fn put(&self, host: &Arc<Host>, equipment: Equipment) -> anyhow::Result<Arc<Version>> {
        let mut stage = Stage::new(host.clone(), Arc::new(equipment));
        let plugin = self.shop.plugin.clone();
        let placed = stage.put(&self.shop.file, plugin, &[], true).await;
        let placed = placed.map_err(|refused| NotLoaded(refused.error))?;
        Ok(placed.version)
    }
}

impl Ground {
    /// The worker as its first version was made.
    pub(super) fn worker(&self) -> &Worker {
        self.version.pool.worker()
    }

    /// Its place in the host.
    pub(super) fn seat(&self) -> Option<Arc<Seat>> {
        let worker_type = self.worker().id.worker_type();
        self.host.registry.get(worker_type)
    }

    /// Ends it. Its files may go after this.
    pub(super) async fn close(self) {
        self.host.stopping.cancel();
        self.host.interrupt.cancel();
        self.host.bus.close().await;
        self.attending.abort();
        tokio::join!(self.databases.close(), self.keyvalue.close());
    }
}
