//! The processor time of this process, in fractions of a second and split as prom-client splits it,
//! so that the dashboards of MicroServices.js find it. The `prometheus` crate has the other process
//! metrics, and the sum in whole seconds only.

use prometheus::{
    CounterVec, Opts,
    core::{Collector, Desc},
    process_collector::ProcessCollector,
    proto::MetricFamily,
};

/// Clock ticks per second in /proc/self/stat: 100 on every Linux since 2.6 (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// What the `prometheus` crate calls the sum.
const WHOLE_SECONDS: &str = "process_cpu_seconds_total";

/// The process metrics, read at each scrape.
pub(super) struct ProcessTime {
    descriptions: Vec<Desc>,
    others: ProcessCollector,
}

impl ProcessTime {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let others = ProcessCollector::for_self();
        let of_others = others.desc().into_iter();
        let mut descriptions: Vec<Desc> = of_others
            .filter(|description| description.fq_name != WHOLE_SECONDS)
            .cloned()
            .collect();
        for counter in counters()? {
            descriptions.extend(counter.desc().into_iter().cloned());
        }
        Ok(Self {
            descriptions,
            others,
        })
    }
}

impl Collector for ProcessTime {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.others.collect();
        families.retain(|family| family.name() != WHOLE_SECONDS);
        if let (Ok(counters), Some(seconds)) = (counters(), read()) {
            let no_labels: [&str; 0] = [];
            for (counter, seconds) in counters.into_iter().zip(seconds) {
                counter.with_label_values(&no_labels).inc_by(seconds);
                families.extend(counter.collect());
            }
        }
        families
    }
}

fn counters() -> Result<[CounterVec; 3], prometheus::Error> {
    let counter = |name: &str, help: &str| CounterVec::new(Opts::new(name, help), &[]);
    Ok([
        counter(
            WHOLE_SECONDS,
            "Total user and system CPU time spent in seconds.",
        )?,
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

/// The sum, user and system time in seconds. `None` where there is no /proc.
fn read() -> Option<[f64; 3]> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold blanks; after it, user
    // and system time are the 12th and 13th (proc(5): fields 14 and 15).
    let (_, rest) = stat.rsplit_once(')')?;
    let mut ticks = rest.split_whitespace().skip(11).map(str::parse::<f64>);
    let user = ticks.next()?.ok()?;
    let system = ticks.next()?.ok()?;
    Some([user + system, user, system].map(|ticks| ticks / TICKS_PER_SECOND))
}
