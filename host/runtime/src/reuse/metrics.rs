//! The figures of instances: how many were made, used again, and given up, and why.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::Worker;

/// The instances of all workers of one host, in its metrics.
pub struct InstanceMetrics {
    created: IntCounterVec,
    reused: IntCounterVec,
    dropped: IntCounterVec,
    idle: IntGaugeVec,
}

/// Why an instance that might have served another run did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Its run trapped, exceeded a limit, was stopped, or gave a result that cannot be used.
    Fault,
    /// Its run asked for another attempt, which is to find a guest that remembers nothing.
    Retry,
    /// Its HTTP run ended without a response.
    Unanswered,
    /// It was denied memory.
    Denied,
    /// Its run left something open in the host.
    Held,
    /// It has served its number of runs.
    Calls,
    /// Its memory has grown too large.
    Memory,
    /// It is too old.
    Age,
    /// Another one needed its place.
    Evicted,
    /// Another version serves, or the worker was removed.
    Replaced,
}

impl Dropped {
    fn reason(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Retry => "retry",
            Self::Unanswered => "unanswered",
            Self::Denied => "denied",
            Self::Held => "held",
            Self::Calls => "calls",
            Self::Memory => "memory",
            Self::Age => "age",
            Self::Evicted => "evicted",
            Self::Replaced => "replaced",
        }
    }
}

/// Counts the end of an instance, whichever way it comes: a run whose future is dropped included.
pub(crate) struct End {
    pub(crate) why: Dropped,
    worker: Option<Arc<Worker>>,
}

impl End {
    /// `worker` is the one whose instances are counted; one that uses none again has no ends.
    pub(crate) fn new(worker: Option<Arc<Worker>>) -> Self {
        Self {
            why: Dropped::Fault,
            worker,
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(worker) = &self.worker {
            let labels = [worker.id.worker_type().as_str(), self.why.reason()];
            worker.instances.dropped.with_label_values(&labels).inc();
        }
    }
}

impl InstanceMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When the registry has a metric of one of the names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vector = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vector.clone()))?;
            Ok::<_, prometheus::Error>(vector)
        };
        let idle = IntGaugeVec::new(
            Opts::new(
                "warren_instances_idle",
                "Instances that wait for another run, where they are reused",
            ),
            &["worker"],
        )?;
        registry.register(Box::new(idle.clone()))?;
        Ok(Self {
            created: counter(
                "warren_instances_created_total",
                "Instances that were made for a run",
                &["worker"],
            )?,
            reused: counter(
                "warren_instances_reused_total",
                "Runs that an instance served after another one",
                &["worker"],
            )?,
            dropped: counter(
                "warren_instances_dropped_total",
                "Instances that served no further run, where they are reused, by reason",
                &["worker", "reason"],
            )?,
            idle,
        })
    }

    pub(crate) fn created(&self, worker_type: &str) -> IntCounter {
        self.created.with_label_values(&[worker_type])
    }

    pub(crate) fn reused(&self, worker_type: &str) -> IntCounter {
        self.reused.with_label_values(&[worker_type])
    }

    pub(crate) fn idle(&self, worker_type: &str) -> IntGauge {
        self.idle.with_label_values(&[worker_type])
    }
}
