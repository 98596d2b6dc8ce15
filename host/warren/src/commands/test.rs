//! `warren test`: what it is asked, and what it says. The cases are `testing`'s.

use std::{
    io::IsTerminal,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::json;
use warren_project::Workshop;

use super::{
    Verdict,
    build::not_built,
    making::listen,
    output::{Output, clean, say},
};
use crate::{
    config::Config,
    telemetry::logs::wants_no_colour,
    testing::{self, Plan, Refused, Tested},
};

pub(crate) const ABOUT: &str = "\
Runs workers against cases from files: a job or an HTTP request in, and what is expected of the worker. \
No broker has to run, and each case takes milliseconds: it has a host of its own in this process, with \
the dispatcher, the limits and the grants of `warren run`, and a database and a key-value store that are \
empty. Other workers, and hosts that it makes requests to, answer what the case says. What a case does \
not expect is a failure.";

pub(crate) const AFTER: &str = "\
A file of cases, tests/greeter.toml (guests/TESTING.md has every key):

  [[case]]
  name = \"a name is greeted\"
  job.data = { name = \"Ripley\" }
  expect.forward = { text = \"Hello, Ripley!\" }

  [[case]]
  name = \"nobody is not greeted\"
  job.data = { name = \"\" }
  expect.reject = \"#contains nobody\"

Exit codes: 0 all cases have passed, 1 some have not, or a worker does not build, 64 misuse or a mistake \
in a file of cases, 69 a tool for building is missing.

Examples:
  warren test greeter                       the worker in this folder, its cases in greeter/tests
  warren test db.wasm --cases tests         a plugin file, its cases elsewhere
  warren test greeter --filter greeted
  warren test greeter --junit report.xml    for a CI system";

/// What is to be tested, and how.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Test {
    /// Folders of workers, folders of such folders, or plugin files
    #[arg(value_name = "FOLDER|FILE.wasm", default_value = ".")]
    pub targets: Vec<PathBuf>,
    /// A folder of cases, or one file of them [default: tests in the worker's folder, or beside FILE.wasm]
    #[arg(long, value_name = "FOLDER|FILE")]
    pub cases: Option<PathBuf>,
    /// Take what was built before, and build nothing
    #[arg(long)]
    pub no_build: bool,
    /// Build without the network: fetch no tools, and no packages
    #[arg(long)]
    pub offline: bool,
    /// Only cases with this text in their name, or in the path of their file
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// List the cases, and run none
    #[arg(long)]
    pub list: bool,
    /// Write a report that CI systems read (JUnit's XML)
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Answer in JSON, one object per line, for programs
    #[arg(long)]
    pub json: bool,
    /// Cases that run beside each other [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Whether the output is coloured; `auto`: on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// What a case does not say is read here; without it, a case has the defaults of a host, whatever
    /// folder and environment it runs in
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where compiled plugins are kept [default: data]
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<String>,
}

/// Whether the output is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Wherever it goes.
    Always,
    /// Nowhere.
    Never,
}

/// Builds and tests. `tools` is the folder for tools of npm and PyPI.
///
/// # Errors
/// When the answer or the report cannot be written, or a part of a host cannot be started.
pub(super) async fn run(config: &Config, test: &Test, tools: &Path) -> anyhow::Result<Verdict> {
    let workshop = Workshop {
        tools: tools.to_owned(),
        offline: test.offline,
        listen: listen(),
    };
    let n_jobs = test.jobs.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        NonZeroUsize::get,
    );
    let plan = Plan {
        targets: &test.targets,
        cases: test.cases.as_deref(),
        filter: test.filter.as_deref(),
        n_jobs,
        workshop: (!test.no_build).then_some(&workshop),
    };
    let ready = match testing::prepare(config, &plan).await {
        Ok(ready) => ready,
        Err(Refused::NotBuilt(error)) => {
            say(&error.to_string());
            return Ok(not_built(&error));
        }
        Err(Refused::Misuse(error)) => {
            say(&format!("warren: {error:#}"));
            return Ok(Verdict::Misuse);
        }
        Err(Refused::Mistakes(mistakes)) => {
            let n_mistakes = mistakes.len();
            let (have, plural) = if n_mistakes == 1 {
                ("a", "")
            } else {
                ("these", "s")
            };
            say(&format!(
                "the cases have {have} mistake{plural}, and none was run:"
            ));
            for mistake in mistakes {
                say(&format!("\n{mistake}"));
            }
            return Ok(Verdict::Misuse);
        }
    };
    let mut printer = Printer {
        output: Output::new(),
        colours: Colours::of(test.color),
        as_json: test.json,
        file: PathBuf::new(),
    };
    if test.list {
        for (file, name) in ready.names() {
            printer.name(file, name)?;
        }
        printer.output.flush()?;
        return Ok(Verdict::Done);
    }
    let mut results = Vec::new();
    let took = ready.run(|tested| {
        printer.case(&tested)?;
        results.push(tested);
        Ok(())
    });
    let took = took.await?;
    printer.summary(&results, took)?;
    if let Some(file) = &test.junit {
        std::fs::write(file, testing::junit(&results))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let is_good = results.iter().all(|tested| tested.findings.is_empty());
    Ok(if is_good {
        Verdict::Done
    } else {
        Verdict::Incomplete
    })
}

/// The codes of a terminal, or nothing.
#[derive(Clone, Copy)]
struct Colours {
    are_on: bool,
}

impl Colours {
    fn of(when: Color) -> Self {
        let are_on = match when {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => std::io::stdout().is_terminal() && !wants_no_colour(),
        };
        Self { are_on }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.are_on {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }
}

struct Printer {
    output: Output,
    colours: Colours,
    as_json: bool,
    /// The file whose cases are being shown.
    file: PathBuf,
}

impl Printer {
    fn name(&mut self, file: &Path, name: &str) -> std::io::Result<()> {
        if self.as_json {
            let line = json!({ "file": file.to_string_lossy(), "case": name });
            return self.output.json(&line);
        }
        self.output
            .line(&format!("{}: {}", file.display(), clean(name)))
    }

    fn case(&mut self, tested: &Tested) -> std::io::Result<()> {
        let passed = tested.findings.is_empty();
        if self.as_json {
            self.output.json(&json!({
                "file": tested.file.to_string_lossy(),
                "case": tested.name,
                "passed": passed,
                "ms": millis(tested.took),
                "findings": tested.details,
                "log": tested.log,
            }))?;
            return self.output.flush();
        }
        if self.file != tested.file {
            self.file.clone_from(&tested.file);
            let file = clean(&tested.file.to_string_lossy());
            self.output.line(&file)?;
        }
        let word = if passed {
            self.colours.green("ok  ")
        } else {
            self.colours.red("FAIL")
        };
        let took = format!("({:.1} ms)", millis(tested.took));
        let took = self.colours.dim(&took);
        let name = clean(&tested.name);
        self.output.line(&format!("  {word} {name} {took}"))?;
        for line in tested.findings.iter().flatten() {
            // What comes from a guest must not tell the terminal what to do.
            let line = clean(line).replace('\n', "\n         ");
            let line = match line.trim_start().get(..2) {
                Some("- ") => self.colours.red(&line),
                Some("+ ") => self.colours.green(&line),
                _ => line,
            };
            self.output.line(&format!("       {line}"))?;
        }
        if !passed && !tested.log.is_empty() {
            self.output.line("       its log:")?;
            for line in &tested.log {
                let line = clean(line).replace('\n', "\n         ");
                self.output
                    .line(&format!("         {}", self.colours.dim(&line)))?;
            }
        }
        // A person watches.
        self.output.flush()
    }

    fn summary(&mut self, results: &[Tested], took: Duration) -> std::io::Result<()> {
        let n_failed = results.iter().filter(|tested| !tested.findings.is_empty());
        let n_failed = n_failed.count();
        let n_passed = results.len() - n_failed;
        let median = median(results);
        if self.as_json {
            self.output.json(&json!({
                "passed": n_passed,
                "failed": n_failed,
                "ms": millis(took),
                "median_ms": millis(median),
            }))?;
            return self.output.flush();
        }
        let passed = self.colours.green(&format!("{n_passed} passed"));
        let failed = match n_failed {
            0 => String::new(),
            n_failed => format!(", {}", self.colours.red(&format!("{n_failed} failed"))),
        };
        let line = format!(
            "{passed}{failed} in {:.2} s (median {:.1} ms for a case)",
            took.as_secs_f64(),
            millis(median)
        );
        self.output.line("")?;
        self.output.line(&line)?;
        self.output.flush()
    }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn median(results: &[Tested]) -> Duration {
    let mut all: Vec<_> = results.iter().map(|tested| tested.took).collect();
    all.sort();
    all.get(all.len() / 2).copied().unwrap_or_default()
}
