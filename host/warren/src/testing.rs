//! `warren test`: cases from files, carried out on the parts of a real host: its dispatcher and
//! settlement, its calls, its HTTP port, its databases and stores, its grants and limits. What is
//! around a worker (other workers, other hosts) does what its case says.
//!
//! The way of a case: [`project`] finds its file, [`read`] reads it ([`document`], [`fields`],
//! [`pattern`]) into a [`case`], [`perform`] carries it out on a host of its own ([`ground`], [`holdings`]) with
//! others around it ([`bench`], [`outside`]), [`judge`] compares ([`matching`]) and says what is
//! otherwise ([`finding`]).
//!
//! Invariants: a case shares nothing with another one but the compiled plugin; no request leaves the
//! machine (a database that a case names itself may be elsewhere); what a case does not expect is a
//! failure; a case with a mistake is not carried out.

mod bench;
mod case;
mod document;
mod fields;
mod finding;
mod ground;
mod holdings;
mod judge;
mod junit;
mod lines;
mod matching;
mod outside;
mod pattern;
mod perform;
mod project;
mod read;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::{StreamExt, stream};
use warren_project::{Error, Workshop};
use warren_protocol::WorkerType;
use warren_runtime::{
    Databases, Digest, Engine, GuestMetrics, InstanceMetrics, KeyValueStores, Outgoing, Plugin,
};

use self::{case::Case, ground::Shop, lines::Lines, perform::Performed};
use crate::{
    config::{Config, Mistake},
    equip::Equipment,
    run,
    telemetry::metrics::Metrics,
};

/// The worker type under which a file that has not been asked yet writes its log.
const UNKNOWN_TYPE: &str = "unknown";

/// What is to be tested, and how.
pub(crate) struct Plan<'a> {
    /// Plugin files, projects, folders of projects.
    pub(crate) targets: &'a [PathBuf],
    /// Where the cases are, if not where they belong.
    pub(crate) cases: Option<&'a Path>,
    /// Only cases with this in their name or the path of their file.
    pub(crate) filter: Option<&'a str>,
    /// Cases that are carried out beside each other, at least 1.
    pub(crate) n_jobs: usize,
    /// What projects are built with first, if they are to be built.
    pub(crate) workshop: Option<&'a Workshop>,
}

/// Cases that can be carried out.
pub(crate) struct Ready {
    shops: Vec<(Arc<Shop>, Vec<Case>)>,
    lines: Lines,
    n_jobs: usize,
}

/// Why nothing was carried out.
pub(crate) enum Refused {
    /// Mistakes in files of cases.
    Mistakes(Vec<Mistake>),
    /// A worker that does not build.
    NotBuilt(warren_project::Error),
    /// Something else is wrong with what was asked for.
    Misuse(anyhow::Error),
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self::Misuse(error)
    }
}

/// The result of one case.
pub(crate) struct Tested {
    /// Its file, as it was named.
    pub(crate) file: PathBuf,
    pub(crate) name: String,
    pub(crate) took: Duration,
    /// What was found, in lines; empty: it has passed.
    pub(crate) findings: Vec<Vec<String>>,
    /// The same, for programs.
    pub(crate) details: Vec<serde_json::Value>,
    /// What the worker wrote, and what its host said of it.
    pub(crate) log: Vec<String>,
}

/// Finds plugins and cases, and reads them all.
pub(crate) async fn prepare(config: &Config, plan: &Plan<'_>) -> Result<Ready, Refused> {
    let mut targets = Vec::new();
    for path in plan.targets {
        let found = project::find(path, plan.cases, plan.workshop).await;
        targets.extend(found.map_err(not_found)?);
    }
    let engine = run::engine(config)?;
    let lines = Lines::follow()?;
    let (mut shops, mut mistakes) = (Vec::new(), Vec::new());
    for target in targets {
        let plugin = load(&engine, config, &target.wasm).await?;
        let worker_type = plugin.description.worker_type.clone();
        let shop = Shop {
            plugin,
            file: target.wasm.clone(),
        };
        let mut cases = Vec::new();
        for file in &target.cases {
            let content = std::fs::read_to_string(file);
            let content = content.with_context(|| format!("reading {}", file.display()))?;
            match read::read(file, &content, &worker_type, config) {
                Ok(read) => cases.extend(read.into_iter().filter(|case| is_wanted(plan, case))),
                Err(found) => mistakes.extend(found),
            }
        }
        shops.push((Arc::new(shop), cases));
    }
    if !mistakes.is_empty() {
        return Err(Refused::Mistakes(mistakes));
    }
    if shops.iter().all(|(_, cases)| cases.is_empty()) {
        let filter = plan.filter.unwrap_or_default();
        let error = anyhow::anyhow!("no case has `{filter}` in its name or file; see --list");
        return Err(Refused::Misuse(error));
    }
    Ok(Ready {
        shops,
        lines,
        n_jobs: plan.n_jobs,
    })
}

fn not_found(error: anyhow::Error) -> Refused {
    match error.downcast() {
        Ok(error @ (Error::Missing { .. } | Error::Failed { .. } | Error::FailedAbove { .. })) => {
            Refused::NotBuilt(error)
        }
        Ok(error) => Refused::Misuse(error.into()),
        Err(error) => Refused::Misuse(error),
    }
}

fn is_wanted(plan: &Plan<'_>, case: &Case) -> bool {
    plan.filter.is_none_or(|filter| {
        case.name.contains(filter) || case.file.to_string_lossy().contains(filter)
    })
}

impl Ready {
    /// The file and the name of each case, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&Path, &str)> {
        let cases = self.shops.iter().flat_map(|(_, cases)| cases);
        cases.map(|case| (case.file.as_path(), case.name.as_str()))
    }

    /// Carries all cases out, and hands over what came of each in the order of the files.
    pub(crate) async fn run(
        self,
        mut on_tested: impl FnMut(Tested) -> std::io::Result<()>,
    ) -> std::io::Result<Duration> {
        let started = Instant::now();
        let lines = &self.lines;
        let cases = self.shops.iter().flat_map(|(shop, cases)| {
            let shop = shop.clone();
            cases.iter().map(move |case| (shop.clone(), case.clone()))
        });
        let performing = cases.map(|(shop, case)| {
            let lines = lines.clone();
            // A task of its own, so that cases run on all threads.
            let performing = tokio::spawn(async move {
                let performed = perform::perform(&shop, &case, &lines).await;
                tested(&case, performed)
            });
            async move { performing.await.map_err(std::io::Error::other) }
        });
        // Made one after the other: a task runs from the moment it is made.
        let mut performing = stream::iter(performing).buffered(self.n_jobs);
        while let Some(tested) = performing.next().await {
            on_tested(tested?)?;
        }
        Ok(started.elapsed())
    }
}

fn tested(case: &Case, performed: Performed) -> Tested {
    let Performed {
        findings,
        lines,
        took,
    } = performed;
    let log = lines.iter().map(|line| {
        let who = if line.is_guests { "" } else { "host: " };
        format!("{:<5} {who}{}", line.level, line.text)
    });
    Tested {
        file: case.file.clone(),
        name: case.name.clone(),
        took,
        findings: findings.iter().map(finding::Finding::lines).collect(),
        details: findings.iter().map(finding::Finding::to_json).collect(),
        log: log.collect(),
    }
}

/// Compiles a plugin, or finds it compiled, and asks it what it is: once for all its cases.
async fn load(engine: &Engine, config: &Config, file: &Path) -> anyhow::Result<Plugin> {
    let metrics = Metrics::new().context("registering metrics")?;
    let registry = metrics.registry();
    let equipment = Equipment {
        databases: Arc::new(Databases::new(config.data_dir.join("sql"))),
        keyvalue: Arc::new(KeyValueStores::new(config.data_dir.join("keyvalue"))),
        metrics: Arc::new(GuestMetrics::new(registry.clone()).context("registering metrics")?),
        instances: Arc::new(InstanceMetrics::new(registry).context("registering metrics")?),
        outgoing: Arc::new(Outgoing::new(registry).context("registering metrics")?),
        config: config.clone(),
    };
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let bytes = bytes::Bytes::from(bytes);
    let digest = Digest::of(&bytes);
    let scratch = equipment.scratch(WorkerType::new(UNKNOWN_TYPE)?);
    let compiled = engine.compile(bytes, digest).await;
    let compiled = compiled.with_context(|| format!("loading {}", file.display()))?;
    let plugin = engine.probe(compiled, &scratch).await;
    plugin.with_context(|| format!("loading {}", file.display()))
}

/// JUnit's XML of results.
pub(crate) fn junit(results: &[Tested]) -> String {
    let mut suites: Vec<junit::Suite> = Vec::new();
    for tested in results {
        let name = tested.file.display().to_string();
        let entry = junit::Entry {
            name: tested.name.clone(),
            took: tested.took,
            findings: tested.findings.concat(),
            log: tested.log.join("\n"),
        };
        match suites.iter_mut().find(|suite| suite.name == name) {
            Some(suite) => suite.cases.push(entry),
            None => suites.push(junit::Suite {
                name,
                cases: vec![entry],
            }),
        }
    }
    junit::document(&suites)
}
