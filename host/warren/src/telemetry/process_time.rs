//! The processor time of this process, split as prom-client splits it, so that the dashboards of
//! MicroServices.js find it. The `prometheus` crate has the sum and the other process metrics.

use prometheus::{
    CounterVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Clock ticks per second in /proc/self/stat: 100 on every Linux since 2.6 (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// `process_cpu_user_seconds_total` and `process_cpu_system_seconds_total`, read at each scrape.
pub(super) struct ProcessTime(Vec<Desc>);

impl ProcessTime {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let mut descriptions = Vec::new();
        for counter in counters()? {
            descriptions.extend(counter.desc().into_iter().cloned());
        }
        Ok(Self(descriptions))
    }
}

impl Collector for ProcessTime {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (Ok(counters), Some(seconds)) = (counters(), read()) else {
            return Vec::new();
        };
        let no_labels: [&str; 0] = [];
        let measured = counters.into_iter().zip(seconds);
        measured
            .flat_map(|(counter, seconds)| {
                counter.with_label_values(&no_labels).inc_by(seconds);
                counter.collect()
            })
            .collect()
    }
}

fn counters() -> Result<[CounterVec; 2], prometheus::Error> {
    let counter = |name: &str, help: &str| CounterVec::new(Opts::new(name, help), &[]);
    Ok([
        counter(
            "process_cpu_user_seconds_total",
            "Total user CPU time spent in seconds.",
        )?,
        counter(
            "process_cpu_system_seconds_total",
            "Total system CPU time spent in seconds.",
        )?,
    ])
}

/// User and system time in seconds. `None` where there is no /proc.
fn read() -> Option<[f64; 2]> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold blanks; after it, user
    // and system time are the 12th and 13th (proc(5): fields 14 and 15).
    let (_, rest) = stat.rsplit_once(')')?;
    let mut ticks = rest.split_whitespace().skip(11).map(str::parse::<f64>);
    let user = ticks.next()?.ok()?;
    let system = ticks.next()?.ok()?;
    Some([user / TICKS_PER_SECOND, system / TICKS_PER_SECOND])
}
