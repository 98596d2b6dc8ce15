//! The desk: sends jobs for whoever reaches the operator's port. Only a host on the embedded bus has
//! one: nobody else can reach that bus, while everybody who may use a RabbitMQ can connect to it.
//!
//! A place of its own on the bus, beside the host's: it serves no type, and what is answered to it
//! comes to an inbox of its own.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use warren_bus::{Bus, Delivery, Embedded, Epitaph, Inbox, Kind};
use warren_protocol::{CallError, Encoding, Slip, WorkerId, WorkerType};
use warren_runtime::Call;

use crate::{
    calls::{
        Calls, call_error,
        reply::{self, Reply},
        request::Request,
    },
    config::Config,
    settle,
    telemetry::{logs::WORKER_TARGET, metrics::Metrics},
};

/// Under which type it sends. No plugin has to fear it: its ids are drawn, and its jobs are none.
pub(crate) const SENDER_TYPE: &str = "warren-cli";
/// Calls that may wait at the same time. The port is the operator's: a scraper must find room.
pub(crate) const MAX_CALLS: usize = 32;

/// The desk of one host.
pub(crate) struct Desk {
    id: WorkerId,
    bus: Arc<dyn Bus>,
    calls: Calls,
    encoding: Encoding,
    room: Semaphore,
    /// How long a call waits that does not say.
    pub(crate) call_timeout: Duration,
    /// The largest data of a job.
    pub(crate) max_bytes: usize,
}

impl Desk {
    /// Takes its place on the bus.
    ///
    /// # Errors
    /// Never: the type of its id is a constant.
    pub(crate) fn open(
        bus: Embedded,
        config: &Config,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let id = WorkerId::draw(&WorkerType::new(SENDER_TYPE)?);
        bus.answer_to(&id);
        let bus: Arc<dyn Bus> = Arc::new(bus);
        Ok(Self {
            id,
            calls: Calls::new(bus.clone(), config.encoding, metrics, None),
            bus,
            encoding: config.encoding,
            room: Semaphore::new(MAX_CALLS),
            call_timeout: config.call_timeout,
            max_bytes: usize::try_from(config.limits.payload_bytes).unwrap_or(usize::MAX),
        })
    }

    /// Sends a job that nobody waits for.
    pub(crate) async fn send(&self, id: String, slip: Slip) -> Result<(), CallError> {
        // An id of its own: what a worker sends to it later has no receiver, and is given up.
        let sender = WorkerId::draw(self.id.worker_type());
        let Request { to, message, .. } = Request::new(&sender, id, slip, self.encoding)?;
        let published = self.bus.publish(message).await;
        published.map_err(|error| call_error(error, &to))
    }

    /// Sends a job and waits for its reply.
    pub(crate) async fn call(&self, id: String, slip: Slip, timeout: Duration) -> Reply {
        let Ok(_place) = self.room.try_acquire() else {
            return Err(CallError::Unavailable {
                reason: format!("{MAX_CALLS} calls wait at this host already: try again later"),
            });
        };
        let call = Call {
            slip,
            timeout,
            trace_parent: None,
        };
        self.calls.call_as(&self.id, id, call).await
    }

    /// Gives up its place on the bus.
    pub(crate) async fn close(&self) {
        self.bus.close().await;
    }

    async fn take(&self, delivery: Delivery) {
        let message = &delivery.message;
        let correlation_id = message.correlation_id.as_deref().unwrap_or_default();
        match message.kind {
            Kind::Reply | Kind::Error => {
                // Who is not there any more does not need it.
                self.calls.resolve(correlation_id, reply::read(message));
            }
            Kind::Job | Kind::Bundle => {
                tracing::warn!(
                    target: WORKER_TARGET,
                    { "job.id" = message.id },
                    "a job came for the command line, which takes none"
                );
                let epitaph = Epitaph {
                    reason: "unrouted",
                    error: format!("{} takes no jobs", message.to),
                    plugin: None,
                    stack: None,
                    host: "embedded".to_owned(),
                };
                // The embedded bus refuses nothing while it is open.
                let _ = self.bus.bury(message.clone(), epitaph).await;
            }
        }
        settle::ack(delivery).await;
    }
}

/// Takes what is addressed to the desk, until its place on the bus is given up.
pub(crate) async fn attend(desk: Arc<Desk>, mut inbox: Inbox) {
    while let Some(delivery) = inbox.recv().await {
        desk.take(delivery).await;
    }
}
