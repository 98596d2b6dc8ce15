//! What every part of a running host shares.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use warren_bus::Bus;
use warren_protocol::Encoding;

use crate::{
    calls::Calls, pulse::Pulse, registry::Registry, telemetry::metrics::Metrics, witness::Witness,
};

/// One running host. Made once, shared by reference, ends with the process.
pub(crate) struct Host {
    /// The host's own id: the name of its inbox, and who it is in dead letters.
    pub name: String,
    /// Carries messages.
    pub bus: Arc<dyn Bus>,
    /// The workers.
    pub registry: Registry,
    /// The calls of guests that wait for a reply.
    pub calls: Arc<Calls>,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// Who sees how each run of a job ends; nobody but in `warren test`.
    pub witness: Option<Witness>,
    /// Whether this process has stood still.
    pub pulse: Arc<Pulse>,
    /// Told when the trial of a version has come to a judgement.
    pub judged: Notify,
    /// How long a delivery may be held before it is settled.
    pub longest_hold: Duration,
    /// How envelopes are written.
    pub encoding: Encoding,
    /// Cancelled when the host has been asked to end: it is not ready any more.
    pub(crate) ending: CancellationToken,
    /// Cancelled when nothing new may begin: what is delivered now is given back.
    pub stopping: CancellationToken,
    /// Cancelled when what still runs is interrupted.
    pub interrupt: CancellationToken,
    /// The HTTP requests that are being answered.
    pub(crate) requests: TaskTracker,
    /// The jobs that are being run or settled, and the guests that still stream a response.
    pub work: TaskTracker,
}
