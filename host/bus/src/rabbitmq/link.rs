//! The link: keeps an epoch alive for as long as the bus lives, through whatever the broker does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{join_all, try_join};
use lapin::{Connection, ConnectionProperties};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{
    Bus, RabbitMq, Shared,
    announce::{self, Announcer},
    backoff::Backoff,
    bounded::{CONNECT_TIMEOUT, Failure, STEP_TIMEOUT, within},
    config::Broker,
    delay,
    epoch::Epoch,
    failure_log::FailureLog,
    inbox, janitor, liveness, reconcile, tls, topology,
};
use crate::Delivery;

/// Between two tries to connect: a broker that is back is used within this. A refused connection
/// costs a broker next to nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// An epoch that lived this long has been a good one: the next failure is a first one.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Connects, and connects again, until the bus is closed.
pub(super) async fn run(shared: Arc<Shared>, brokers: Vec<Broker>, inbox: mpsc::Sender<Delivery>) {
    tokio::select! {
        // First: an end that was asked for is not a loss.
        biased;
        () = shared.stop.cancelled() => {}
        () = keep_up(&shared, &brokers, inbox) => {}
    }
    if let Some(epoch) = shared.epoch.send_replace(None) {
        epoch.close().await;
    }
}

async fn keep_up(shared: &Arc<Shared>, brokers: &[Broker], inbox: mpsc::Sender<Delivery>) {
    let mut backoff = Backoff::up_to(LONGEST_WAIT);
    let mut log = FailureLog::default();
    for (number, broker) in (1..).zip(brokers.iter().cycle()) {
        match open(shared, broker, number, &inbox).await {
            Ok(epoch) => {
                info!(broker = broker.shown, "connected to the broker");
                // First: what is consumed without a link is not noted, and nobody would say it again.
                shared.board.link_up();
                shared.epoch.send_replace(Some(Arc::clone(&epoch)));
                let since = Instant::now();
                epoch.watch(shared).await;
                shared.epoch.send_replace(None);
                let problem = format!("{} is lost: {}", broker.shown, epoch.reason());
                warn!(
                    broker = broker.shown,
                    error = epoch.reason(),
                    "lost the broker, connecting again"
                );
                shared.board.link_down(problem);
                tokio::spawn(async move { epoch.close().await });
                if since.elapsed() > STABLE_AFTER {
                    backoff.reset();
                }
                log = FailureLog::default();
            }
            Err(failure) => {
                let problem = problem(broker, &failure);
                log.note(&problem);
                shared.board.link_down(problem);
            }
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Connects twice, and declares and consumes what does not belong to one worker.
async fn open(
    shared: &Arc<Shared>,
    broker: &Broker,
    number: u64,
    inbox: &mpsc::Sender<Delivery>,
) -> Result<Arc<Epoch>, Failure> {
    let (consuming, publishing) = try_join(
        connect(shared, broker, "consume"),
        connect(shared, broker, "publish"),
    )
    .await?;
    let control = within(STEP_TIMEOUT, "open a channel", consuming.create_channel()).await?;
    topology::declare_all(&control, &topology::common()).await?;
    topology::close(&control).await;
    let announcer = Announcer::new(shared.config.encoding);
    let epoch = Arc::new(Epoch::new(number, consuming, publishing, announcer));
    let opened = match inbox::open(shared, &epoch).await {
        Ok(opened) => opened,
        Err(failure) => {
            // Not only dropped: a connection that the broker has blocked would stay.
            tokio::spawn(async move { epoch.close().await });
            return Err(failure);
        }
    };
    // Heard before anybody says hello, so that no call is missed; a failure is the listener's own.
    let calls = announce::subscribe(shared, &epoch, 0).await;
    let both = || (Arc::clone(shared), Arc::clone(&epoch));
    let (ours, this) = both();
    tokio::spawn(inbox::run(ours, this, opened, inbox.clone()));
    let (ours, this) = both();
    tokio::spawn(announce::listen(ours, this, calls.ok()));
    let (ours, this) = both();
    epoch.background.spawn(delay::run(ours, this));
    let (ours, this) = both();
    tokio::spawn(reconcile::run(ours, this));
    let (ours, this) = both();
    tokio::spawn(liveness::run(ours, this));
    let (ours, this) = both();
    epoch.background.spawn(janitor::run(ours, this));
    Ok(epoch)
}

async fn connect(shared: &Shared, broker: &Broker, use_for: &str) -> Result<Connection, Failure> {
    let name = format!("warren {} {use_for}", shared.host.as_str());
    dial(broker, name).await
}

/// Opens one connection. `name`: what an operator sees of it on the broker.
pub(super) async fn dial(broker: &Broker, name: String) -> Result<Connection, Failure> {
    // Automatic recovery stays off: it replays consumers without being asked, and lets publishers
    // go before the topology is back.
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    within(CONNECT_TIMEOUT, "connect", tls::connect(broker, properties)).await
}

/// Says goodbye for everybody and removes what only this host needs.
pub(super) async fn say_goodbye(bus: &RabbitMq) {
    let shared = &bus.shared;
    let workers = shared.membership.workers();
    join_all(workers.iter().map(|worker| bus.leave(worker))).await;
    let ids = shared.membership.ids();
    join_all(ids.iter().map(|id| bus.forget(id))).await;
    shared.closing.cancel();
    // It gives back the pools of Node workers that nobody else looks after.
    shared.gateway.wait().await;
    if let Some(epoch) = shared.current_epoch() {
        // Ends at once; the whole goodbye has a bound in any case.
        epoch.inbox_ended.cancelled().await;
        // What is half way from one queue to another gets there.
        epoch.background.close();
        epoch.background.wait().await;
        inbox::delete(shared, &epoch).await;
        shared.stop.cancel();
        epoch.close().await;
    }
}

/// Why the broker cannot be reached, and what to do.
fn problem(broker: &Broker, failure: &Failure) -> String {
    let remedy = remedy(broker, failure);
    format!(
        "cannot use the broker {} ({failure}): {remedy}; trying on",
        broker.shown
    )
}

/// What to do about a broker that cannot be reached.
pub(super) fn remedy(broker: &Broker, failure: &Failure) -> String {
    let vhost = &broker.uri.vhost;
    let user = &broker.uri.authority.userinfo.username;
    if let Some(remedy) = tls::remedy(broker, failure) {
        remedy
    } else if failure.is_connection_refused() {
        "nothing listens there: start RabbitMQ, or correct the URL".to_owned()
    } else if failure.is_not_allowed() {
        format!("create the virtual host `{vhost}` and give `{user}` permissions on it")
    } else if failure.is_access_refused() {
        format!("check the password of `{user}` and its permissions on virtual host `{vhost}`")
    } else if failure.is_mismatch() {
        "something of this name exists with other properties: delete it or use another virtual \
         host"
            .to_owned()
    } else {
        "check that the URL is right and the broker is well".to_owned()
    }
}
