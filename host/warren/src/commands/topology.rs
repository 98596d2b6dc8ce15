//! `warren topology`: the exchanges and queues on the broker, held against what they should be.

mod prune;
mod remedy;

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use serde_json::json;
use warren_bus::operator::{Finding, Operator, State, Thing};
use warren_protocol::WorkerType;

use super::{
    Reach, Verdict, connect,
    output::{Output, clean, say},
};
use crate::config::Config;

pub(crate) const ABOUT: &str = "\
The topology: the exchanges and queues that hosts use on RabbitMQ. Hosts declare it themselves; \
these commands look at it, put it right beside them, and remove what a retired type leaves.

Looked at is what every host needs, and the queues of the types that have a table in the \
configuration's [workers]; others are named with --type.

Over AMQP neither bindings nor policies can be seen, and queues cannot be listed: the commands print \
the rabbitmqctl lines that show them. The management API is not used.";

pub(crate) const AFTER: &str = "\
Exit codes: 0 all right or done, 1 something differs or could not be done, 64 misuse.

Examples:
  warren topology check --type WB
  warren topology apply --type WB
  warren topology prune WB --drain --dry-run
  warren topology prune WB --drain --yes";

/// What to do with the topology.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Topology {
    /// Say what is missing or differs, and what to do; change nothing
    Check(Types),
    /// Say what `apply` would do; change nothing
    Plan(Types),
    /// Declare what is missing. Deletes nothing, and does nothing at all when something differs
    Apply(Types),
    /// Delete the queues of a worker type that nobody serves any more
    #[command(long_about = "\
Deletes the queues of a worker type that nobody serves any more. Refuses while anybody consumes. \
The work queue is taken off its exchange, so that nothing new comes; jobs that wait become dead \
letters (--drain) or are a reason to refuse; then it is deleted. The queue of dead letters is \
deleted when it is empty, and kept otherwise.

What a host holds without having acknowledged it cannot be seen over AMQP: remove the plugins from \
the hosts first and wait until what runs has ended. `rabbitmqctl list_queues name \
messages_unacknowledged` shows it.")]
    Prune {
        /// The worker type
        #[arg(value_name = "TYPE", value_parser = WorkerType::new)]
        worker_type: WorkerType,
        /// Make dead letters of the jobs that wait (reason: unrouted)
        #[arg(long)]
        drain: bool,
        /// Do it: nothing is deleted without
        #[arg(long)]
        yes: bool,
        /// Say what would be done, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// Whose queues are looked at.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Types {
    /// A worker type whose queues are looked at, too; once for each
    #[arg(long = "type", value_name = "TYPE", value_parser = WorkerType::new)]
    pub types: Vec<WorkerType>,
}

pub(super) async fn run(
    config: &Config,
    reach: &Reach,
    command: &Topology,
) -> anyhow::Result<Verdict> {
    if let Topology::Prune {
        yes: false,
        dry_run: false,
        ..
    } = command
    {
        say(
            "warren: queues that are deleted are gone: add --yes to do it, or --dry-run to see what \
             would be done",
        );
        return Ok(Verdict::Misuse);
    }
    let operator = connect(config).await?;
    let mut output = Output::new();
    let view = View {
        operator: &operator,
        json: reach.json,
    };
    let done = match command {
        Topology::Check(types) => check(&view, &types.with(config), &mut output).await,
        Topology::Plan(types) => plan(&view, &types.with(config), &mut output).await,
        Topology::Apply(types) => apply(&view, &types.with(config), &mut output).await,
        Topology::Prune {
            worker_type,
            drain,
            dry_run,
            ..
        } => prune::run(&view, worker_type, *drain, *dry_run, &mut output).await,
    };
    operator.close().await;
    let done = done?;
    output.flush()?;
    Ok(done)
}

/// The broker, and how it is shown.
struct View<'a> {
    operator: &'a Operator,
    json: bool,
}

impl Types {
    fn with(&self, config: &Config) -> Vec<WorkerType> {
        let all: BTreeSet<_> = self.types.iter().chain(config.workers.keys()).collect();
        all.into_iter().cloned().collect()
    }
}

async fn check(
    view: &View<'_>,
    types: &[WorkerType],
    output: &mut Output,
) -> anyhow::Result<Verdict> {
    let findings = view.operator.inspect(types).await?;
    if view.json {
        print_json(&findings, output)?;
    } else {
        for finding in &findings {
            print_problem(finding, view.operator.vhost(), output)?;
        }
        let n_of = |state: &State| {
            findings
                .iter()
                .filter(|found| found.state == *state)
                .count()
        };
        output.line(&format!(
            "{} exchanges and queues are as they should be, {} are missing, {} differ{}",
            n_of(&State::Right),
            n_of(&State::Missing),
            findings.iter().filter(|found| found.is_problem()).count() - n_of(&State::Missing),
            names_of(types)
        ))?;
        let n_unseen = n_of(&State::Unseen);
        output.line(&format!(
            "{n_unseen} bindings and all policies cannot be seen over AMQP; `warren topology apply` \
             makes the bindings that are missing. To look:"
        ))?;
        for line in remedy::looking(view.operator.vhost()) {
            output.line(&format!("    {line}"))?;
        }
    }
    Ok(verdict(&findings))
}

async fn plan(
    view: &View<'_>,
    types: &[WorkerType],
    output: &mut Output,
) -> anyhow::Result<Verdict> {
    let findings = view.operator.inspect(types).await?;
    if view.json {
        print_json(&findings, output)?;
        return Ok(verdict_of_plan(&findings));
    }
    let mut n_missing = 0;
    for finding in &findings {
        if finding.state == State::Missing {
            n_missing += 1;
            output.line(&format!("would declare {}", finding.thing_text()))?;
        } else {
            print_problem(finding, view.operator.vhost(), output)?;
        }
    }
    let n_bindings = findings.iter().filter(|found| found.state == State::Unseen);
    let verdict = verdict_of_plan(&findings);
    output.line(&match verdict {
        Verdict::Done => format!(
            "apply would declare {n_missing} exchanges and queues, and {} bindings, which is \
             harmless where they are there",
            n_bindings.count()
        ),
        _ => "apply would do nothing before what differs is put right".to_owned(),
    })?;
    Ok(verdict)
}

async fn apply(
    view: &View<'_>,
    types: &[WorkerType],
    output: &mut Output,
) -> anyhow::Result<Verdict> {
    let findings = view.operator.inspect(types).await?;
    if verdict_of_plan(&findings) != Verdict::Done {
        if view.json {
            print_json(&findings, output)?;
        }
        let differing = findings
            .iter()
            .filter(|found| found.state != State::Missing);
        for finding in differing.filter(|_| !view.json) {
            print_problem(finding, view.operator.vhost(), output)?;
        }
        output.flush()?;
        say("warren: nothing was declared: put right first what differs");
        return Ok(Verdict::Incomplete);
    }
    let declared = view.operator.apply(&findings).await?;
    let (bindings, others): (Vec<_>, Vec<_>) = declared
        .iter()
        .partition(|thing| matches!(thing, Thing::Binding { .. }));
    for thing in &others {
        match view.json {
            true => output.json(&json!({"kind": "declared", "what": text_of(thing)}))?,
            false => output.line(&format!("declared {}", text_of(thing)))?,
        }
    }
    let (n_others, n_bindings) = (others.len(), bindings.len());
    if view.json {
        output.json(&json!({
            "kind": "summary", "declared": n_others, "bindings": n_bindings,
        }))?;
    } else {
        output.line(&format!(
            "declared {n_others} exchanges and queues that were missing, and {n_bindings} bindings, \
             which may have been there{}",
            names_of(types)
        ))?;
    }
    Ok(Verdict::Done)
}

/// What a person reads of a finding.
trait Told {
    fn is_problem(&self) -> bool;
    fn thing_text(&self) -> String;
}

impl Told for Finding {
    fn is_problem(&self) -> bool {
        !matches!(self.state, State::Right | State::Unseen)
    }

    fn thing_text(&self) -> String {
        text_of(&self.thing)
    }
}

fn text_of(thing: &Thing) -> String {
    match thing {
        Thing::Exchange(name) => format!("exchange {name}"),
        Thing::Queue(name) => format!("queue {name}"),
        Thing::Binding {
            exchange,
            key,
            queue,
        } => format!("binding of {queue} to {exchange} with the key `{key}`"),
    }
}

fn verdict(findings: &[Finding]) -> Verdict {
    match findings.iter().any(Told::is_problem) {
        true => Verdict::Incomplete,
        false => Verdict::Done,
    }
}

/// What is missing is what apply is for.
fn verdict_of_plan(findings: &[Finding]) -> Verdict {
    let mut others = findings
        .iter()
        .filter(|found| found.state != State::Missing);
    match others.any(Told::is_problem) {
        true => Verdict::Incomplete,
        false => Verdict::Done,
    }
}

fn print_problem(finding: &Finding, vhost: &str, output: &mut Output) -> anyhow::Result<()> {
    let (word, why) = match &finding.state {
        State::Right | State::Unseen => return Ok(()),
        State::Missing => ("missing", None),
        State::Differs(why) => ("differs", Some(why)),
        State::Refused(why) => ("refused", Some(why)),
    };
    let why = why
        .map(|why| format!(": {}", clean(why)))
        .unwrap_or_default();
    output.line(&format!("{word}  {}{why}", finding.thing_text()))?;
    for line in remedy::lines(finding, vhost) {
        output.line(&format!("    {line}"))?;
    }
    Ok(())
}

fn print_json(findings: &[Finding], output: &mut Output) -> anyhow::Result<()> {
    for finding in findings {
        let (state, why) = match &finding.state {
            State::Right => ("right", None),
            State::Missing => ("missing", None),
            State::Differs(why) => ("differs", Some(why)),
            State::Refused(why) => ("refused", Some(why)),
            State::Unseen => ("unseen", None),
        };
        output.json(&json!({
            "kind": "finding",
            "what": finding.thing_text(),
            "state": state,
            "why": why,
        }))?;
    }
    Ok(())
}

fn names_of(types: &[WorkerType]) -> String {
    if types.is_empty() {
        return " (no worker type was looked at: name them with --type)".to_owned();
    }
    let names: Vec<_> = types.iter().map(WorkerType::as_str).collect();
    format!(" (types: {})", names.join(", "))
}
