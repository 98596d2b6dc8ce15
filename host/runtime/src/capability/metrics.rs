//! `warren:worker/metrics`: figures of a guest's own on the host's `/metrics`, as
//! `warren_guest_<name>` with the label `worker`. Names and label combinations are bounded: a
//! hostile guest could otherwise fill the memory of the host and of whoever scrapes it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry,
    core::Collector,
};

use crate::{bindings::warren::worker::metrics::Host, state::State};

/// Metrics of all workers together.
const MAX_METRICS: usize = 500;
/// Metrics that one worker may be the first to name: no worker takes all of them.
const MAX_METRICS_EACH: usize = 100;
/// Label combinations of one metric of one worker.
const MAX_SERIES: usize = 100;
/// Labels of one metric, `worker` not counted.
const MAX_LABELS: usize = 8;
/// Bytes of a name, and of a label's value.
const MAX_TEXT_BYTES: usize = 64;

/// From 1 ms to the default deadline of a job.
const SECONDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// From 256 B to 64 MiB.
const BYTES: [f64; 10] = [
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// For a unit that the host does not know.
const ANYTHING: [f64; 15] = [
    0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0,
    10_000.0,
];

/// The guests' metrics of one host.
pub struct GuestMetrics {
    registry: Registry,
    dropped: IntCounterVec,
    metrics: Mutex<HashMap<String, Metric>>,
}

struct Metric {
    /// The worker that named it first.
    owner: String,
    label_names: Vec<String>,
    vector: Vector,
    series: HashSet<Vec<String>>,
    series_of: HashMap<String, usize>,
}

enum Vector {
    Counter(CounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

#[derive(Clone, Copy)]
enum Update {
    Count(u64),
    Observe(f64),
    Gauge(f64),
}

/// Why an update was dropped: the `reason` of `warren_guest_metrics_dropped_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropped {
    Name,
    Labels,
    Kind,
    TooManyMetrics,
    TooManySeries,
    Value,
}

impl GuestMetrics {
    /// Registers the guests' metrics in the host's registry as they appear.
    ///
    /// # Errors
    /// When the registry has a metric of the name `warren_guest_metrics_dropped_total` already.
    pub fn new(registry: Registry) -> Result<Self, prometheus::Error> {
        let dropped = IntCounterVec::new(
            Opts::new(
                "warren_guest_metrics_dropped_total",
                "Updates of guests' metrics that were malformed or over the bound",
            ),
            &["worker", "reason"],
        )?;
        registry.register(Box::new(dropped.clone()))?;
        Ok(Self {
            registry,
            dropped,
            metrics: Mutex::default(),
        })
    }

    fn update(&self, worker: &str, name: &str, labels: &[(String, String)], update: Update) {
        if let Err(why) = self.try_update(worker, name, labels, update) {
            let reason = why.reason();
            let counter = self.dropped.with_label_values(&[worker, reason]);
            if counter.get() == 0 {
                tracing::warn!(
                    "worker.type" = worker,
                    reason,
                    "a metric of the guest was dropped; further ones are only counted"
                );
            }
            counter.inc();
        }
    }

    fn try_update(
        &self,
        worker: &str,
        name: &str,
        labels: &[(String, String)],
        update: Update,
    ) -> Result<(), Dropped> {
        if !is_name(name) {
            return Err(Dropped::Name);
        }
        let well_formed = |(label, value): &(String, String)| {
            is_name(label) && label != "worker" && label != "le" && value.len() <= MAX_TEXT_BYTES
        };
        if labels.len() > MAX_LABELS || !labels.iter().all(well_formed) {
            return Err(Dropped::Labels);
        }
        let mut labels: Vec<&(String, String)> = labels.iter().collect();
        labels.sort();
        let names: Vec<&str> = labels.iter().map(|(label, _)| label.as_str()).collect();
        let mut values = vec![worker.to_owned()];
        values.extend(labels.iter().map(|(_, value)| value.clone()));

        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        if !metrics.contains_key(name) {
            let owned = metrics.values().filter(|metric| metric.owner == worker);
            if metrics.len() >= MAX_METRICS || owned.count() >= MAX_METRICS_EACH {
                return Err(Dropped::TooManyMetrics);
            }
            let metric = Metric::new(worker, name, &names, update).map_err(|_| Dropped::Labels)?;
            metric.register(&self.registry).map_err(|_| Dropped::Name)?;
            metrics.insert(name.to_owned(), metric);
        }
        let metric = metrics.get_mut(name).ok_or(Dropped::Name)?;
        if metric.label_names != names {
            return Err(Dropped::Labels);
        }
        if !metric.series.contains(&values) {
            let series = metric.series_of.entry(worker.to_owned()).or_default();
            if *series >= MAX_SERIES {
                return Err(Dropped::TooManySeries);
            }
            *series += 1;
            metric.series.insert(values.clone());
        }
        metric.apply(&values, update)
    }
}

impl Metric {
    fn new(
        owner: &str,
        name: &str,
        label_names: &[&str],
        update: Update,
    ) -> Result<Self, prometheus::Error> {
        let full_name = format!("warren_guest_{name}");
        let help = "A figure of a worker's own";
        let mut all_labels = vec!["worker"];
        all_labels.extend(label_names);
        let vector = match update {
            Update::Count(_) => {
                Vector::Counter(CounterVec::new(Opts::new(full_name, help), &all_labels)?)
            }
            Update::Gauge(_) => {
                Vector::Gauge(GaugeVec::new(Opts::new(full_name, help), &all_labels)?)
            }
            Update::Observe(_) => Vector::Histogram(HistogramVec::new(
                HistogramOpts::new(full_name, help).buckets(buckets(name).to_vec()),
                &all_labels,
            )?),
        };
        Ok(Self {
            owner: owner.to_owned(),
            label_names: label_names.iter().map(|&label| label.to_owned()).collect(),
            vector,
            series: HashSet::new(),
            series_of: HashMap::new(),
        })
    }

    fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let collector: Box<dyn Collector> = match &self.vector {
            Vector::Counter(vector) => Box::new(vector.clone()),
            Vector::Gauge(vector) => Box::new(vector.clone()),
            Vector::Histogram(vector) => Box::new(vector.clone()),
        };
        registry.register(collector)
    }

    fn apply(&self, values: &[String], update: Update) -> Result<(), Dropped> {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        match (&self.vector, update) {
            #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
            (Vector::Counter(vector), Update::Count(by)) => {
                vector.with_label_values(&values).inc_by(by as f64);
            }
            (Vector::Gauge(vector), Update::Gauge(value)) => {
                vector.with_label_values(&values).set(value)
            }
            (Vector::Histogram(vector), Update::Observe(value)) => {
                if value.is_nan() {
                    return Err(Dropped::Value);
                }
                vector.with_label_values(&values).observe(value);
            }
            _ => return Err(Dropped::Kind),
        }
        Ok(())
    }
}

impl Dropped {
    fn reason(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Labels => "labels",
            Self::Kind => "kind",
            Self::TooManyMetrics => "too_many_metrics",
            Self::TooManySeries => "too_many_series",
            Self::Value => "value",
        }
    }
}

/// The upper bounds of a histogram's buckets, by the unit that its name ends with. The metric's own
/// would have to be said in every instance, since each run starts in a fresh one.
fn buckets(name: &str) -> &'static [f64] {
    match name.rsplit('_').next() {
        Some("seconds") => &SECONDS,
        Some("bytes") => &BYTES,
        _ => &ANYTHING,
    }
}

/// `[a-z][a-z0-9_]*`, at most 64 bytes.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_TEXT_BYTES
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

impl Host for State {
    fn count(
        &mut self,
        name: String,
        labels: Vec<(String, String)>,
        by: u64,
    ) -> wasmtime::Result<()> {
        self.update_metric(&name, &labels, Update::Count(by));
        Ok(())
    }

    fn observe(
        &mut self,
        name: String,
        labels: Vec<(String, String)>,
        value: f64,
    ) -> wasmtime::Result<()> {
        self.update_metric(&name, &labels, Update::Observe(value));
        Ok(())
    }

    fn gauge(
        &mut self,
        name: String,
        labels: Vec<(String, String)>,
        value: f64,
    ) -> wasmtime::Result<()> {
        self.update_metric(&name, &labels, Update::Gauge(value));
        Ok(())
    }
}

impl State {
    fn update_metric(&self, name: &str, labels: &[(String, String)], update: Update) {
        let worker_type = self.worker.id.worker_type().as_str();
        self.worker
            .metrics
            .update(worker_type, name, labels, update);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(value: &str) -> Vec<(String, String)> {
        vec![("kind".to_owned(), value.to_owned())]
    }

    #[test]
    fn a_metric_appears_under_the_hosts_prefix_with_the_worker_as_label() {
        let registry = Registry::new();
        let metrics = GuestMetrics::new(registry.clone()).unwrap();
        metrics.update("WB", "rows", &label("read"), Update::Count(3));
        metrics.update("WB", "rows", &label("read"), Update::Count(4));
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        assert!(
            text.contains(r#"warren_guest_rows{kind="read",worker="WB"} 7"#),
            "{text}"
        );
    }

    #[test]
    fn the_unit_of_a_histogram_decides_its_buckets() {
        let registry = Registry::new();
        let metrics = GuestMetrics::new(registry.clone()).unwrap();
        for (name, value) in [
            ("query_seconds", 20.0),
            ("photo_bytes", 2_000_000.0),
            ("rows_read", 500.0),
        ] {
            metrics.update("WB", name, &[], Update::Observe(value));
        }
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            r#"warren_guest_query_seconds_bucket{worker="WB",le="10"} 0"#,
            r#"warren_guest_query_seconds_bucket{worker="WB",le="30"} 1"#,
            r#"warren_guest_photo_bytes_bucket{worker="WB",le="1048576"} 0"#,
            r#"warren_guest_photo_bytes_bucket{worker="WB",le="4194304"} 1"#,
            r#"warren_guest_rows_read_bucket{worker="WB",le="300"} 0"#,
            r#"warren_guest_rows_read_bucket{worker="WB",le="1000"} 1"#,
        ] {
            assert!(text.contains(line), "`{line}` is missing in:\n{text}");
        }
    }

    #[test]
    fn an_explosion_of_labels_is_bounded_per_worker() {
        let metrics = GuestMetrics::new(Registry::new()).unwrap();
        for i in 0..1000 {
            metrics.update("WB", "rows", &label(&i.to_string()), Update::Count(1));
        }
        assert_eq!(
            metrics
                .dropped
                .with_label_values(&["WB", "too_many_series"])
                .get(),
            900
        );
        assert_eq!(
            metrics.try_update("WC", "rows", &label("x"), Update::Count(1)),
            Ok(())
        );
    }

    #[test]
    fn one_worker_cannot_take_every_metric() {
        let metrics = GuestMetrics::new(Registry::new()).unwrap();
        for i in 0..=MAX_METRICS_EACH {
            metrics.update("WB", &format!("rows_{i}"), &[], Update::Count(1));
        }
        let too_many = Err(Dropped::TooManyMetrics);
        let update = |worker| metrics.try_update(worker, "movies", &[], Update::Count(1));
        assert_eq!(update("WB"), too_many);
        assert_eq!(update("WC"), Ok(()));
        assert_eq!(update("WB"), Ok(()), "a metric that exists is open to all");
    }

    #[test]
    fn malformed_and_mismatching_updates_are_dropped_with_a_reason() {
        let metrics = GuestMetrics::new(Registry::new()).unwrap();
        let check = |name: &str, labels: &[(String, String)], update, expected| {
            assert_eq!(
                metrics.try_update("WB", name, labels, update),
                expected,
                "{name}"
            );
        };
        check("rows", &label("a"), Update::Count(1), Ok(()));
        check("Rows!", &[], Update::Count(1), Err(Dropped::Name));
        check("rows", &[], Update::Count(1), Err(Dropped::Labels));
        check("rows", &label("a"), Update::Gauge(1.0), Err(Dropped::Kind));
        check(
            "x",
            &[("worker".to_owned(), String::new())],
            Update::Count(1),
            Err(Dropped::Labels),
        );
        check(
            "x",
            &label(&"v".repeat(65)),
            Update::Count(1),
            Err(Dropped::Labels),
        );
        check(
            "seconds",
            &[],
            Update::Observe(f64::NAN),
            Err(Dropped::Value),
        );
    }
}
