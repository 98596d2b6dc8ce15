//! The host's metrics: the six of MicroServices.js with their names, labels and buckets (PROTOCOL
//! §5), so that its dashboards work, and Warren's own under `warren_`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use warren_bus::{PeerCount, PeerReport};
use warren_protocol::WorkerType;

use super::process_time::ProcessTime;

/// Every metric of one host.
pub struct Metrics {
    registry: Registry,
    received: IntCounterVec,
    sent: IntCounterVec,
    processing: HistogramVec,
    workers: IntGaugeVec,
    errors: IntCounterVec,
    connected_workers: IntGauge,
    finished: IntCounterVec,
    failures: IntCounterVec,
    http: IntCounterVec,
    replies_dropped: IntCounterVec,
    errors_treated: IntCounterVec,
    reloads: IntCounterVec,
    worker_info: IntGaugeVec,
    circuit_open: IntGaugeVec,
    held: IntGaugeVec,
    dead_letters: IntGaugeVec,
    unrouted: IntGauge,
    peers: IntCounterVec,
    gateway: IntGauge,
    /// How far the gateway's counts have been shown.
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    counts: HashMap<PeerCount, u64>,
    /// Types that were ever there: one that is gone is 0, not missing.
    types: BTreeMap<WorkerType, i64>,
}

impl Metrics {
    /// All metrics, registered and at zero.
    ///
    /// # Errors
    /// When two metrics have the same name, which is a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vector = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vector.clone()))?;
            Ok::<_, prometheus::Error>(vector)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let vector = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vector.clone()))?;
            Ok::<_, prometheus::Error>(vector)
        };
        let processing = HistogramVec::new(
            HistogramOpts::new(
                "microservices_job_processing_seconds",
                "Time spent processing jobs",
            )
            .buckets(vec![0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0]),
            &["service", "job_type"],
        )?;
        registry.register(Box::new(processing.clone()))?;
        let connected_workers = IntGauge::new(
            "microservices_connected_workers",
            "Number of workers connected to the bus",
        )?;
        registry.register(Box::new(connected_workers.clone()))?;
        let unrouted = IntGauge::new(
            "warren_unrouted_depth",
            "Messages that could not even be dead-lettered, as last seen: should be 0",
        )?;
        registry.register(Box::new(unrouted.clone()))?;
        let gateway = IntGauge::new(
            "warren_peer_gateway",
            "1 while this host is the gateway to workers of MicroServices.js",
        )?;
        registry.register(Box::new(gateway.clone()))?;
        let all = Self {
            received: counter(
                "microservices_messages_received_total",
                "Total number of messages received by service",
                &["service", "type"],
            )?,
            sent: counter(
                "microservices_messages_sent_total",
                "Total number of messages sent by service",
                &["service", "type"],
            )?,
            errors: counter(
                "microservices_job_errors_total",
                "Total number of job processing errors",
                &["service", "error_type"],
            )?,
            workers: gauge(
                "microservices_workers_total",
                "Number of workers by type",
                &["type"],
            )?,
            finished: counter(
                "warren_jobs_finished_total",
                "Runs of jobs by what came of them",
                &["worker", "outcome"],
            )?,
            failures: counter(
                "warren_job_failures_total",
                "Runs of jobs that failed, by reason",
                &["worker", "reason"],
            )?,
            http: counter(
                "warren_http_requests_total",
                "HTTP requests by worker and status",
                &["worker", "status"],
            )?,
            replies_dropped: counter(
                "warren_replies_dropped_total",
                "Replies and errors that no call waited for any more",
                &["worker"],
            )?,
            errors_treated: counter(
                "warren_errors_treated_total",
                "Jobs that were given up and of which the worker that sent them was told, by what \
                 came of telling it",
                &["worker", "outcome"],
            )?,
            reloads: counter(
                "warren_reloads_total",
                "Plugin files by what came of them",
                &["result"],
            )?,
            worker_info: gauge(
                "warren_worker_info",
                "The version that serves: always 1",
                &["worker", "version", "digest"],
            )?,
            circuit_open: gauge(
                "warren_circuit_open",
                "1 while a worker pauses because its jobs fail one after the other",
                &["worker"],
            )?,
            held: gauge(
                "warren_plugin_held",
                "1 while a worker serves another version than the one in the plugins folder",
                &["worker"],
            )?,
            dead_letters: gauge(
                "warren_dlq_depth",
                "Dead letters of a worker's type on the broker, as last seen",
                &["worker"],
            )?,
            peers: counter(
                "warren_peer_messages_total",
                "What the gateway to workers of MicroServices.js did with their messages",
                &["what"],
            )?,
            gateway,
            shown: Mutex::default(),
            unrouted,
            processing,
            connected_workers,
            registry,
        };
        all.registry.register(Box::new(ProcessTime::new()?))?;
        Ok(all)
    }

    /// The registry, for metrics that are registered elsewhere.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The text that Prometheus scrapes.
    ///
    /// # Errors
    /// When a metric cannot be written, which is a mistake in this file.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// A message reached a worker. `kind` is one of MicroServices.js' words: `job_request`,
    /// `job_activated`, `error`.
    pub fn received(&self, worker: &WorkerType, kind: &str) {
        self.received
            .with_label_values(&[&service(worker), kind])
            .inc();
    }

    /// A worker sent a message: `job_request`, `worker_registration`.
    pub fn sent(&self, worker: &WorkerType, kind: &str) {
        self.sent.with_label_values(&[&service(worker), kind]).inc();
    }

    /// A run of a job has ended. `outcome`: `ok`, `retry`, `dead`, `failed`, `expired` or
    /// `interrupted`.
    pub fn finished(&self, worker: &WorkerType, outcome: &str, took: Duration) {
        self.finished
            .with_label_values(&[worker.as_str(), outcome])
            .inc();
        self.processing
            .with_label_values(&[service(worker).as_str(), "job_processing"])
            .observe(took.as_secs_f64());
    }

    /// A run has failed for this reason.
    pub fn failed(&self, worker: &WorkerType, reason: &str) {
        self.failures
            .with_label_values(&[worker.as_str(), reason])
            .inc();
    }

    /// A job went wrong in MicroServices.js' sense: `no_worker_available`, `job_retry`,
    /// `job_max_retries_exceeded`.
    pub fn job_error(&self, worker: &WorkerType, error_type: &str) {
        self.errors
            .with_label_values(&[&service(worker), error_type])
            .inc();
    }

    /// An HTTP request was answered.
    pub fn answered(&self, worker: &str, status: u16) {
        self.http
            .with_label_values(&[worker, &status.to_string()])
            .inc();
    }

    /// A reply came too late.
    pub fn reply_dropped(&self, worker: &WorkerType) {
        self.replies_dropped
            .with_label_values(&[worker.as_str()])
            .inc();
    }

    /// A worker was told that a job which it had sent was given up: `treated`, `failed`, or the word
    /// for a fault.
    pub fn error_treated(&self, worker: &WorkerType, outcome: &str) {
        self.errors_treated
            .with_label_values(&[worker.as_str(), outcome])
            .inc();
    }

    /// Whether a worker serves another version than the one in the plugins folder.
    pub fn held(&self, worker: &WorkerType, is_held: bool) {
        self.held
            .with_label_values(&[worker.as_str()])
            .set(i64::from(is_held));
    }

    /// A plugin file was `loaded`, `swapped`, `rejected`, `rolled-back` or `removed`.
    pub fn reloaded(&self, result: &str) {
        self.reloads.with_label_values(&[result]).inc();
    }

    /// The workers on the bus by type: all that the gateway knows, those of this host elsewhere.
    pub fn on_the_bus(&self, workers: impl IntoIterator<Item = WorkerType>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.types.values_mut().for_each(|n| *n = 0);
        for worker_type in workers {
            *shown.types.entry(worker_type).or_default() += 1;
        }
        for (worker_type, n) in &shown.types {
            self.workers
                .with_label_values(&[worker_type.as_str()])
                .set(*n);
        }
        self.connected_workers.set(shown.types.values().sum());
    }

    /// What the gateway to workers of MicroServices.js has done on this host.
    pub fn gateway(&self, report: &PeerReport) {
        const SERVICE: &str = "system-manager";
        self.gateway.set(i64::from(report.is_gateway));
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, n) in &report.counts {
            let before = shown.counts.insert(*what, *n).unwrap_or_default();
            let counter = match what {
                PeerCount::Registrations => self.received_by(SERVICE, "worker_registration"),
                PeerCount::JobRequests => self.received_by(SERVICE, "job_request"),
                PeerCount::ListRequests => self.received_by(SERVICE, "workers_list_request"),
                PeerCount::Deletions => self.received_by(SERVICE, "worker_deletion"),
                PeerCount::Keepalives => self.sent.with_label_values(&[SERVICE, "keepalive"]),
                PeerCount::NoWorker => self
                    .errors
                    .with_label_values(&[SERVICE, "no_worker_available"]),
                PeerCount::Claimed => self.peers.with_label_values(&["claimed"]),
                PeerCount::HandedOver => self.peers.with_label_values(&["handed_over"]),
                PeerCount::Repeated => self.peers.with_label_values(&["repeated"]),
                PeerCount::Malformed => self.peers.with_label_values(&["malformed"]),
                PeerCount::Withheld => self.peers.with_label_values(&["withheld"]),
            };
            counter.inc_by(n.saturating_sub(before));
        }
    }

    fn received_by(&self, service: &str, kind: &str) -> IntCounter {
        self.received.with_label_values(&[service, kind])
    }

    /// A worker pauses because its jobs fail one after the other, or no longer.
    pub fn circuit_open(&self, worker: &WorkerType, is_open: bool) {
        self.circuit_open
            .with_label_values(&[worker.as_str()])
            .set(i64::from(is_open));
    }

    /// What lies on the broker for a person to look at.
    pub fn left_behind(&self, dead_letters: &[(WorkerType, u64)], n_unrouted: u64) {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        for (worker, n) in dead_letters {
            self.dead_letters
                .with_label_values(&[worker.as_str()])
                .set(count(*n));
        }
        self.unrouted.set(count(n_unrouted));
    }

    /// This version of a worker serves, or no longer.
    pub fn serving(&self, worker: &WorkerType, version: &str, digest: &str, serves: bool) {
        let labels = [worker.as_str(), version, digest];
        if serves {
            self.worker_info.with_label_values(&labels).set(1);
        } else {
            // It may never have been set.
            let _ = self.worker_info.remove_label_values(&labels);
        }
    }
}

/// What MicroServices.js calls a worker in its metrics.
fn service(worker: &WorkerType) -> String {
    format!("worker-{worker}")
}
