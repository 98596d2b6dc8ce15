//! `tests/BENCHMARKS.md`: each target with what was measured beside it, then all figures.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    contender::Contender,
    hop::{Hop, Percentiles},
    resources::Resources,
    scaling::Line,
    trio::{Requests, Trio},
};

/// Between these the tables are put; what stands around them is a person's.
const BEGIN: &str = "<!-- figures: written by tests/bench/run -->";
const END: &str = "<!-- end of the figures -->";
const MIB: f64 = (1 << 20) as f64;

/// All that a run has measured.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The machine and the versions, in words.
    pub(crate) machine: String,
    pub(crate) rounds: Vec<Round>,
    /// Min, median and max of the rounds of the benchmark `fresh`.
    pub(crate) fresh: Option<[f64; 3]>,
    pub(crate) scaling: Vec<Line>,
}

/// One round: everybody once.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Round {
    /// In the order of [`Contender::ALL`].
    pub(crate) hops: Vec<Hop>,
    /// In the order of [`Trio::ALL`].
    pub(crate) trios: Vec<Requests>,
    pub(crate) resources: Resources,
}

/// Whether more or less is better.
#[derive(Clone, Copy)]
enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

impl Run {
    fn hops(&self, contender: Contender) -> Vec<&Hop> {
        let index = Contender::ALL.iter().position(|one| *one == contender);
        let rounds = self.rounds.iter();
        rounds.filter_map(|round| round.hops.get(index?)).collect()
    }

    fn trios(&self, trio: Trio) -> Vec<&Requests> {
        let index = Trio::ALL.iter().position(|one| *one == trio);
        let rounds = self.rounds.iter();
        rounds.filter_map(|round| round.trios.get(index?)).collect()
    }

    fn targets(&self) -> String {
        let mut table = String::from(
            "| figure | target | min | median | max | met by the median |\n|---|---|---|---|---|---|\n",
        );
        let (bare, rust) = (self.hops(Contender::Bare), self.hops(Contender::Rust));
        let pairs = || bare.iter().zip(&rust);
        let same = |hop: &&Hop| hop.same.unwrap_or_default();
        let added = |at: fn(Percentiles) -> u64| {
            let added = |(bare, rust): (&&Hop, &&Hop)| at(rust.open) as f64 - at(same(bare)) as f64;
            pairs().map(added).collect::<Vec<_>>()
        };
        let node = self.trios(Trio::Node);
        let against_node = |trio: Trio, ratio: fn(&Requests, &Requests) -> f64| {
            let trios = self.trios(trio);
            let pairs = trios.iter().zip(&node);
            pairs
                .map(|(trio, node)| ratio(trio, node))
                .collect::<Vec<_>>()
        };
        let resources = |figure: fn(&Resources) -> f64| {
            let rounds = self.rounds.iter();
            rounds
                .map(|round| figure(&round.resources))
                .collect::<Vec<_>>()
        };
        let swaps = |figure: fn(&(f64, f64)) -> f64| {
            let rounds = self.rounds.iter();
            rounds
                .map(|round| middle(round.resources.swaps.iter().map(figure).collect()))
                .collect::<Vec<_>>()
        };
        let rows: [(&str, Aim, &str, Vec<f64>); 13] = [
            (
                "durable one-hop jobs/s out of a backlog, Rust guest, a fresh instance for each job, against the bare lapin consumer",
                Aim::AtLeast(0.85),
                " ×",
                pairs()
                    .map(|(bare, rust)| rust.drained / bare.drained)
                    .collect(),
            ),
            (
                "the same with replies, 64 questions open",
                Aim::AtLeast(0.85),
                " ×",
                pairs()
                    .map(|(bare, rust)| rust.asked / bare.asked)
                    .collect(),
            ),
            (
                "added latency per hop over bare lapin, both asked at half of what Warren can, p50",
                Aim::AtMost(100.0),
                " µs",
                added(|latency| latency.p50),
            ),
            (
                "the same, p99",
                Aim::AtMost(1000.0),
                " µs",
                added(|latency| latency.p99),
            ),
            (
                "a fresh instance and a trivial handler, against bare wasmtime",
                Aim::AtMost(1.2),
                " ×",
                self.fresh.map(Vec::from).unwrap_or_default(),
            ),
            (
                "trio over RabbitMQ, 64 clients, requests/s against the Node trio",
                Aim::AtLeast(3.0),
                " ×",
                against_node(Trio::RabbitMq, |trio, node| trio.rate / node.rate),
            ),
            (
                "the same, p99",
                Aim::AtMost(1.0 / 3.0),
                " ×",
                against_node(Trio::RabbitMq, |trio, node| {
                    trio.latency.p99 as f64 / node.latency.p99 as f64
                }),
            ),
            (
                "trio on the embedded bus, requests/s against the Node trio on RabbitMQ",
                Aim::AtLeast(15.0),
                " ×",
                against_node(Trio::Embedded, |trio, node| trio.rate / node.rate),
            ),
            (
                "memory of one host with the trio at rest",
                Aim::AtMost(60.0),
                " MiB",
                resources(|resources| resources.rest as f64 / MIB),
            ),
            (
                "start to ready, trio, embedded bus, compiled artifacts known",
                Aim::AtMost(150.0),
                " ms",
                resources(|resources| resources.start),
            ),
            (
                "file complete to new version serving, Rust guest, p50",
                Aim::AtMost(400.0),
                " ms",
                swaps(|(took, _)| *took),
            ),
            (
                "of which not compiling, p50",
                Aim::AtMost(100.0),
                " ms",
                swaps(|(took, compiled)| took - compiled),
            ),
            (
                "each further idle Rust plugin",
                Aim::AtMost(1.0),
                " MiB",
                resources(|resources| resources.idle_plugin / MIB),
            ),
        ];
        for (figure, aim, unit, values) in rows {
            let (sign, bound, digits) = match aim {
                Aim::AtLeast(bound) => ("≥", bound, digits(bound)),
                Aim::AtMost(bound) => ("≤", bound, digits(bound)),
            };
            let Some([least, median, most]) = spread(values) else {
                let _ = writeln!(
                    table,
                    "| {figure} | {sign} {bound:.digits$}{unit} | not measured | | | |"
                );
                continue;
            };
            let is_met = match aim {
                Aim::AtLeast(bound) => median >= bound,
                Aim::AtMost(bound) => median <= bound,
            };
            let met = if is_met { "yes" } else { "**no**" };
            let _ = writeln!(
                table,
                "| {figure} | {sign} {bound:.digits$}{unit} | {least:.digits$} | {median:.digits$} | {most:.digits$} | {met} |",
            );
        }
        table
    }

    fn one_hop(&self) -> String {
        let mut table = String::from(
            "| who | jobs/s out of a backlog | CPU per job | replies/s, 64 open | CPU per reply, and the broker's | p50 / p99 / p99.9 there | \
             one open: p50 / p99 | \
             at half of what it can: p50 / p99 / p99.9 | memory at start → load | start to first job |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
        );
        for contender in Contender::ALL {
            let hops = self.hops(contender);
            let of = |figure: &dyn Fn(&Hop) -> f64| hops.iter().map(|hop| figure(hop)).collect();
            let (Some(drained), Some(asked)) =
                (spread(of(&|hop| hop.drained)), spread(of(&|hop| hop.asked)))
            else {
                continue;
            };
            let latency = |of_hop: &dyn Fn(&Hop) -> Percentiles| {
                let at = |figure: fn(Percentiles) -> u64| {
                    middle(hops.iter().map(|hop| figure(of_hop(hop)) as f64).collect()) / 1e3
                };
                let (p50, p99, p999) = (at(|p| p.p50), at(|p| p.p99), at(|p| p.p999));
                format!("{p50:.2} / {p99:.2} / {p999:.2} ms")
            };
            let _ = writeln!(
                table,
                "| {} | {} | {:.0} µs | {} | {:.0} µs, {:.0} µs | {} | {:.2} / {:.2} ms | {} | {:.0} → {:.0} MiB | {:.2} s |",
                contender.name(),
                whole(drained),
                middle(of(&|hop| hop.cpu)),
                whole(asked),
                middle(of(&|hop| hop.asked_cpu)),
                middle(of(&|hop| hop.broker_cpu)),
                latency(&|hop| hop.closed),
                middle(of(&|hop| hop.alone.p50 as f64 / 1e3)),
                middle(of(&|hop| hop.alone.p99 as f64 / 1e3)),
                latency(&|hop| hop.open),
                middle(of(&|hop| hop.memory.0 as f64 / MIB)),
                middle(of(&|hop| hop.memory.1 as f64 / MIB)),
                middle(of(&|hop| hop.start)),
            );
        }
        table
    }

    fn requests(&self) -> String {
        let mut table = String::from(
            "| who | requests/s | p50 / p99 / p99.9 | CPU per request, and the broker's | memory at start → load |\n\
             |---|---|---|---|---|\n",
        );
        for trio in Trio::ALL {
            let trios = self.trios(trio);
            let of =
                |figure: &dyn Fn(&Requests) -> f64| trios.iter().map(|trio| figure(trio)).collect();
            let Some(rate) = spread(of(&|trio| trio.rate)) else {
                continue;
            };
            let _ = writeln!(
                table,
                "| {} | {} | {:.1} / {:.1} / {:.1} ms | {:.0} µs, {:.0} µs | {:.0} → {:.0} MiB |",
                trio.name(),
                whole(rate),
                middle(of(&|trio| trio.latency.p50 as f64 / 1e3)),
                middle(of(&|trio| trio.latency.p99 as f64 / 1e3)),
                middle(of(&|trio| trio.latency.p999 as f64 / 1e3)),
                middle(of(&|trio| trio.cpu)),
                middle(of(&|trio| trio.broker_cpu)),
                middle(of(&|trio| trio.memory.0 as f64 / MIB)),
                middle(of(&|trio| trio.memory.1 as f64 / MIB)),
            );
        }
        table
    }

    fn scaling(&self) -> String {
        let mut table = String::from("| what | figures |\n|---|---|\n");
        // The first round has many of them, the others fewer.
        for round in self.rounds.iter().take(2) {
            let (n, start) = round.resources.idle;
            let _ = writeln!(
                table,
                "| {n} idle plugins, embedded bus | ready after {start:.0} ms, {:.2} MiB resident each, a swap \
                 among them {:.0} ms |",
                round.resources.idle_plugin / MIB,
                round.resources.swap_among,
            );
        }
        for Line { what, figures } in &self.scaling {
            let _ = writeln!(table, "| {what} | {figures} |");
        }
        table
    }

    fn tables(&self) -> String {
        let n = self.rounds.len();
        format!(
            "{}, {n} rounds.\n\n## Targets\n\n{}\n## One hop\n\nMedians over the rounds; jobs/s and replies/s with \
             (min to max).\n\n{}\n## The trio over HTTP, 64 clients\n\n{}\n## Scaling\n\nMeasured once.\n\n{}",
            self.machine,
            self.targets(),
            self.one_hop(),
            self.requests(),
            self.scaling(),
        )
    }

    /// Writes the tables into the document, in the place of those that are there.
    pub(crate) fn write(&self, document: &Path) -> Result<()> {
        let text = fs::read_to_string(document)
            .with_context(|| format!("reading {}", document.display()))?;
        let parts = text
            .split_once(BEGIN)
            .and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
        let (head, tail) = parts.with_context(|| format!("{BEGIN} and {END} are not there"))?;
        let tables = self.tables();
        fs::write(document, format!("{head}{BEGIN}\n\n{tables}\n{END}{tail}"))?;
        Ok(())
    }
}

fn digits(bound: f64) -> usize {
    if bound < 10.0 { 2 } else { 0 }
}

fn whole([least, median, most]: [f64; 3]) -> String {
    format!("{median:.0} ({least:.0} to {most:.0})")
}

/// The least, the median and the greatest.
fn spread(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    let median = middle(values.clone());
    Some([*values.first()?, median, *values.last()?])
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What it was measured on, without a name of the machine.
pub(crate) fn machine() -> String {
    let said = |program: &str, argument: &str| {
        let said = Command::new(program).arg(argument).output();
        let said = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
        said.unwrap_or_default()
    };
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    let n = std::thread::available_parallelism().map_or(0, usize::from);
    let rabbitmq = warren_tests::broker::version().unwrap_or_default();
    format!(
        "{n} processors ({model}), which broker, workers and load share; Linux {}, RabbitMQ {rabbitmq}, Node {}; \
         the broker's data in memory",
        said("uname", "-r"),
        said("node", "--version"),
    )
}
