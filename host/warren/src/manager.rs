//! `warren manager`: the SystemManager alone, a gateway to workers of MicroServices.js without
//! workers of its own.

use std::sync::Arc;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    config::{Broker, Config},
    dispatch,
    reload::Shelf,
    run::{self, Link},
    telemetry::metrics::Metrics,
};

/// Runs a manager until `shutdown`, then ends it cleanly. It stands by while another host is the
/// gateway.
///
/// # Errors
/// When there is no broker to manage, or the address of the admin port cannot be bound.
pub async fn run(mut config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    if config.broker == Broker::Embedded {
        bail!(
            "no broker is configured, and nobody else is on the bus inside a host\n  name the broker \
             with --broker, WARREN_BROKER or `broker` in config/warren.toml"
        );
    }
    config.peers.enabled = true;
    let (listener, address) = run::listen(config.admin, "--admin").await?;
    let link = Link::open(&config)?;
    let metrics = Arc::new(Metrics::new().context("registering metrics")?);
    let (host, inbox) = run::assemble(&config, link, metrics, shutdown.clone(), None)?;
    let shelf = Shelf::default();
    shelf.set_started();
    let stop = CancellationToken::new();
    let replies = tokio::spawn(dispatch::attend(host.clone(), inbox));
    let admin = tokio::spawn(admin::serve(
        listener,
        host.clone(),
        shelf,
        None,
        stop.clone(),
    ));
    tracing::info!(admin = %address, "listening");
    shutdown.cancelled().await;
    tracing::info!("shutting down");
    host.bus.close().await;
    replies.abort();
    stop.cancel();
    admin.abort();
    tracing::info!("stopped");
    Ok(())
}
