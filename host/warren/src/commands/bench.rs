//! `warren bench`: how many jobs a second a worker answers, and how long each takes.
//!
//! A first job goes as by `warren call`, so that what is wrong is said before anything is measured.
//! Then a course (`bench/course.rs`, which knows no clock) says which job is due when, a line
//! (`bench/line.rs`) carries them, and `bench/drive.rs` stands between. Invariant: the number of jobs
//! that were sent is said, and each of them is in one of the counts.

mod course;
mod drive;
mod line;
mod measure;
mod progress;
mod record;
mod report;
mod timer;

use std::{
    future::pending, num::NonZeroU32, path::PathBuf, pin::Pin, str::FromStr, time::Duration,
};

use anyhow::Context;
use clap::Args;
use serde_json::json;
use warren_protocol::{Address, CallError, Stop};

use super::{
    Verdict,
    ask::{self, Door, Route, data::Source},
    output::{Output, say},
};
use crate::{
    cli::Options,
    config::{Broker, Config, parse_duration},
    desk,
};
use course::{Bounds, Pace};
use drive::{Around, Ending, Interruption};
use line::{Line, Order};
use measure::{Plan, measure};
use progress::Progress;
use report::Report;
use timer::Timer;

pub(crate) const ABOUT: &str = "\
Sends a worker the same job again and again and measures: how many it answers a second, and how long each \
takes, from the moment when the job was due until its reply is here. These are real jobs for real workers: \
what they do, they do each time. Try the job first: it is written as for `warren call`.

Without --rate and --concurrency it measures twice. First 64 jobs are open at a time, a new one for each \
that ends, for half of --duration: that is how many jobs a second can be reached. Then jobs are sent at half of \
that rate, for --duration: that is the latency to expect from a system that is busy and not overloaded.

With --rate, jobs are due at fixed times, as many a second as you say, whether or not those before have been \
answered (an open loop). When the worker stalls, the jobs that were due meanwhile have waited, and it shows \
in the percentiles. This is what to compare versions by. With --concurrency, a job is sent when another has \
ended (a closed loop): right for the most that can be reached, and for clients that wait for each \
other; its percentiles hide a stall, because little is sent while it lasts.

It finds the bus as `warren call` does. On RabbitMQ it is one more client, with a queue for replies that \
ends with it. The bus inside a host is reached through the host's admin port: that costs an HTTP request \
for each job, which is in the figures, and at most 24 jobs are open at a time; workers that call each other \
in the host are faster than that.";

pub(crate) const AFTER: &str = "\
On standard output there is a row for each measurement:
  jobs/s  answers that came before the time was up, a second
  p50 …   so many of a hundred answered jobs took no longer; failed ones are counted, not timed

With --json there is one object:
  outcome         measured, interrupted, or the word for why it ended early (see `warren call --help`)
  to, bus         where the jobs went; embedded or rabbitmq
  ends_with       reply, or confirm with --no-reply
  id_prefix       what the ids of all these jobs begin with
  n_before        jobs sent before the measurements: the first one, and those for warming up
  warm_up, measurements[]   each with
    loop          open (then wanted_per_second, due, kept_up, sent_late_us) or closed (then concurrency)
    duration_ms, answered_per_second
    sent          = answered + the sum of failed + unanswered; failed: {word: n}
    latency_us    p50, p90, p99, p99_9, max, mean: microseconds, of the answered jobs
    sent_late_us  the same, of what a job was late when it was sent; it is part of its latency
  n_strays        answers that belonged to no job
  error           why it ended early

Exit codes: 0 every job was answered, 1 some were not, 64 misuse, 130 interrupted (SIGINT or SIGTERM): what was \
measured until then is printed. When the first job is not answered nothing else is sent, and the code is that \
of `warren call` (2 failed, 3 timeout, 4 unknown-type, 5 no-live-worker, 6 queue-full, 7 unavailable); so it is \
when nobody is left to answer.

Examples:
  warren bench WD '{\"method\":\"GET\",\"params\":{}}'    what it can do, and the latency at half of that
  warren bench WB:* --data @movie.json --rate 500   500 jobs a second: do they keep up, and how long do they take?
  warren bench WB @movie.json --concurrency 1       one after the other: how long is the way?
  warren bench WB @movie.json --rate 200 --json | jq '.measurements[].latency_us.p99'
  warren bench WB @movie.json --no-reply --rate 2000 --duration 1m    how fast are jobs stored?";

/// How many jobs are open at a time while it is found out how many can be reached.
const MOST: usize = 64;
/// How many jobs may be open on RabbitMQ: what waits there is in this process as well.
const MAX_OPEN: usize = 10_000;
/// How many bytes of data may be open. What waits for its confirm may be twice as much, which is held here:
/// 256 MiB.
const MAX_OPEN_BYTES: usize = 128 << 20;
/// On the bus inside a host some calls are left for others.
const MAX_OPEN_AT_HOST: usize = desk::MAX_CALLS - desk::MAX_CALLS / 4;
/// As shells say it of a command that SIGINT has ended.
const EXIT_INTERRUPTED: u8 = 130;
const MAX_RATE: u32 = 1_000_000;

/// What is sent, and how.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Bench {
    /// Where the jobs go: TYPE (any worker of that type; 'TYPE:*' says the same) or a worker id. Several
    /// with commas between are a route
    #[arg(value_name = "TO", value_parser = Route::from_str)]
    pub to: Route,
    /// What each job carries, in JSON: the text itself, @FILE, or - for standard input [default: null]
    #[arg(value_name = "DATA", allow_hyphen_values = true)]
    pub data: Option<String>,
    /// The same as DATA
    #[arg(
        long = "data",
        value_name = "DATA",
        allow_hyphen_values = true,
        conflicts_with = "data"
    )]
    pub data_option: Option<String>,
    /// Jobs a second, at fixed times: an open loop
    #[arg(long, value_name = "N", value_parser = parse_rate, conflicts_with = "concurrency")]
    pub rate: Option<NonZeroU32>,
    /// Jobs that are open at a time; the next one is sent when one has ended: a closed loop
    #[arg(long, value_name = "N", value_parser = parse_concurrency)]
    pub concurrency: Option<NonZeroU32>,
    /// For how long jobs are sent: 10s, 500ms, 2m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = ask::parse_timeout)]
    pub duration: Duration,
    /// For how long jobs are sent before, which do not count; 0s for none
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_warm_up)]
    pub warm_up: Duration,
    /// How long each job waits for its reply [default: call_timeout, 10s]
    #[arg(long, value_name = "DURATION", value_parser = ask::parse_timeout)]
    pub timeout: Option<Duration>,
    /// Wait for no replies: a job ends when the bus has stored it. The worker runs it all the same, now or
    /// later, and what fails is a dead letter
    #[arg(long, conflicts_with = "timeout")]
    pub no_reply: bool,
    /// Answer in JSON, for programs
    #[arg(long)]
    pub json: bool,
    /// The configuration of the hosts: the broker and the admin port are read there
    /// [default: config/warren.toml if it exists] [env: WARREN_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A RabbitMQ node, amqp://user:password@host:port/vhost; once for each node of a cluster
    /// [env: WARREN_BROKER, else BROKER_URL]
    #[arg(long, value_name = "URL")]
    pub broker: Vec<String>,
    /// Where a host answers that has the bus inside it [default: 127.0.0.1:9091] [env: WARREN_ADMIN]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,
}

impl Bench {
    /// The same as options of `warren run`, for the configuration.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            config: self.config.clone(),
            broker: self.broker.clone(),
            admin: self.admin.clone(),
            ..Options::default()
        }
    }

    /// `max_open`: how many jobs may be open.
    fn plan(&self, max_open: usize) -> Plan {
        let n = |n: NonZeroU32| usize::try_from(n.get()).unwrap_or(usize::MAX);
        let (pace, then_half) = match (self.rate, self.concurrency) {
            (Some(rate), _) => (Pace::Rate(rate.get().into()), false),
            (None, Some(concurrency)) => (Pace::Concurrency(n(concurrency)), false),
            (None, None) => (Pace::Concurrency(MOST.min(max_open)), true),
        };
        Plan {
            warm_up: self.warm_up,
            duration: self.duration,
            pace,
            then_half,
        }
    }
}

/// # Errors
/// When the answer cannot be written, or the system gives no timer.
pub(super) async fn run(config: &Config, bench: &Bench) -> anyhow::Result<Verdict> {
    let data = bench.data.as_deref().or(bench.data_option.as_deref());
    let data = match Source::of(data).all().and_then(ask::payload) {
        Ok(data) => data,
        Err(error) => return Ok(ask::misuse(&error)),
    };
    let is_embedded = matches!(config.broker, Broker::Embedded);
    let max_open = match is_embedded {
        true => MAX_OPEN_AT_HOST,
        false => MAX_OPEN.min(MAX_OPEN_BYTES / data.len().max(1)).max(1),
    };
    let plan = bench.plan(max_open);
    let place = place(config);
    if let Pace::Concurrency(n) = plan.pace
        && n > max_open
    {
        say(&format!(
            "warren: --concurrency {n}: at most {max_open} of these jobs can be open at a time {place}"
        ));
        return Ok(Verdict::Misuse);
    }
    let stops: Vec<_> = bench.to.0.iter().map(Stop::as_str).collect();
    let to = stops.join(",");
    let order = Order {
        prefix: format!("bench-{:08x}-", rand::random::<u32>()),
        stops: bench.to.0.clone(),
        data,
        timeout: (!bench.no_reply).then(|| bench.timeout.unwrap_or(config.call_timeout)),
        // A reply may come before the confirm of its job, so what is unconfirmed may be more than what is open.
        max_unconfirmed: max_open.saturating_mul(2),
    };
    say(&format!("to {to} {place}: {}", plan.shown()));
    let mut interruption = Interruption::new().context("waiting for signals")?;
    let begun = tokio::select! {
        begun = begin(config, &order) => begun,
        () = interruption.arrive() => {
            say("warren: interrupted before anything was measured");
            return Ok(Verdict::Failed(EXIT_INTERRUPTED));
        }
    };
    let (door, line) = match begun {
        Ok(begun) => begun,
        Err(error) => return unmeasured(bench, &to, &error),
    };
    let measured = {
        let bounds = Bounds {
            length: Duration::ZERO,
            patience: line.patience(),
            max_open,
            to: to.clone(),
        };
        let around = Around {
            interruption,
            desertion: desertion(&door, &order),
            timer: Timer::new().context("making a timer")?,
            progress: Progress::new(bench.json),
        };
        measure(&plan, bounds, line, around).await
    };
    door.close().await;
    let report = Report {
        to,
        is_embedded,
        no_reply: bench.no_reply,
        id_prefix: order.prefix,
        measured: measured?,
    };
    let mut output = Output::new();
    match bench.json {
        true => output.json(&report.json()?)?,
        false => report.print(&mut output)?,
    }
    output.flush()?;
    Ok(match &report.measured.ending {
        Ending::Interrupted => Verdict::Failed(EXIT_INTERRUPTED),
        Ending::Broken(error) => Verdict::Failed(ask::exit_code(error)),
        Ending::Whole if report.is_flawless() => Verdict::Done,
        Ending::Whole => Verdict::Incomplete,
    })
}

/// Sends the first job, and opens the line for the others when it has been answered.
async fn begin(config: &Config, order: &Order) -> Result<(Door, Line), CallError> {
    let mut door = Door::open(config).await?;
    let id = order.id("first");
    let answered = match order.timeout {
        Some(timeout) => door.call(&id, order.slip(), timeout).await.map(drop),
        None => door.send(&id, order.slip()).await,
    };
    let opened = match answered {
        Ok(()) => Line::open(&door, order.clone(), config.admin).await,
        Err(error) => Err(error),
    };
    match opened {
        Ok(line) => Ok((door, line)),
        Err(error) => {
            door.close().await;
            Err(error)
        }
    }
}

/// Ends when nobody has been there to answer for a while. A host says so itself, for each job.
fn desertion<'a>(
    door: &'a Door,
    order: &Order,
) -> Pin<Box<dyn Future<Output = CallError> + Send + 'a>> {
    let to = order.stops.first().and_then(|stop| stop.address().ok());
    match (door, to) {
        (Door::Broker(broker), Some(to @ Address::Any(_))) if order.timeout.is_some() => {
            Box::pin(async move {
                broker.operator.absence(to.worker_type()).await;
                CallError::NoLiveWorker {
                    address: to.to_string(),
                }
            })
        }
        _ => Box::pin(pending()),
    }
}

/// Says why nothing was measured.
fn unmeasured(bench: &Bench, to: &str, error: &CallError) -> anyhow::Result<Verdict> {
    if bench.json {
        let mut output = Output::new();
        output.json(&json!({
            "outcome": ask::code(error)?, "to": to, "measurements": [], "error": error.to_string(),
        }))?;
        output.flush()?;
    }
    let remedy = match error {
        CallError::Failed { .. } | CallError::Timeout { .. } => {
            ", and nothing else was sent: try it with `warren call` until it is answered"
        }
        _ => ", and nothing else was sent",
    };
    say(&format!(
        "warren: {}\n  this was the first job{remedy}",
        ask::shown(error)
    ));
    Ok(Verdict::Failed(ask::exit_code(error)))
}

/// Where the bus is, for a person.
fn place(config: &Config) -> String {
    match &config.broker {
        Broker::Embedded => format!("on the bus inside the host at {}", config.admin),
        Broker::RabbitMq(urls) => {
            let urls: Vec<_> = urls.iter().map(ToString::to_string).collect();
            format!("on {}", urls.join(" or "))
        }
    }
}

fn parse_number(text: &str, max: u32) -> Result<NonZeroU32, String> {
    let number = text.parse().ok().filter(|n: &NonZeroU32| n.get() <= max);
    number.ok_or_else(|| format!("write a whole number from 1 to {max}"))
}

fn parse_rate(text: &str) -> Result<NonZeroU32, String> {
    parse_number(text, MAX_RATE)
}

fn parse_concurrency(text: &str) -> Result<NonZeroU32, String> {
    parse_number(text, u32::try_from(MAX_OPEN).unwrap_or(u32::MAX))
}

fn parse_warm_up(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Some(Duration::ZERO) => Ok(Duration::ZERO),
        _ => ask::parse_timeout(text),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(arguments: &[&str]) -> Result<Bench, String> {
        let line = ["warren", "bench"].iter().chain(arguments);
        match Cli::try_parse_from(line) {
            Ok(Cli {
                command: Command::Bench(bench),
            }) => Ok(bench),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[track_caller]
    fn shows(arguments: &[&str], expected: &str) {
        assert_eq!(parse(arguments).unwrap().plan(10_000).shown(), expected);
    }

    #[test]
    fn what_it_is_going_to_do_is_said_first() {
        shows(
            &["WB"],
            "64 at a time, as many as are answered in 5 s, then at half of that rate for 10 s, \
             after 2 s of warming up",
        );
        shows(
            &["WB", "--rate", "5000", "--warm-up", "0s"],
            "50,000 jobs, 5,000/s for 10 s",
        );
        shows(
            &["WB", "--concurrency", "1", "--duration", "500ms"],
            "1 at a time, as many as are answered in 500 ms, after 2 s of warming up",
        );
    }

    #[test]
    fn the_bus_inside_a_host_has_fewer_jobs_open() {
        let plan = parse(&["WB"]).unwrap().plan(MAX_OPEN_AT_HOST);
        assert_eq!(plan.pace, Pace::Concurrency(24));
    }

    #[test]
    fn data_are_an_argument_or_an_option_and_not_both() {
        let data = |arguments: &[&str]| {
            let bench = parse(arguments).unwrap();
            bench.data.or(bench.data_option)
        };
        assert_eq!(data(&["WB", "{}"]).as_deref(), Some("{}"));
        assert_eq!(data(&["WB", "--data", "-"]).as_deref(), Some("-"));
        assert_eq!(data(&["WB"]), None);
        assert!(parse(&["WB", "{}", "--data", "{}"]).is_err());
    }

    #[test]
    fn what_contradicts_itself_or_is_no_number_is_refused() {
        for (arguments, part) in [
            (&["--rate", "5", "--concurrency", "5"][..], "--concurrency"),
            (&["--no-reply", "--timeout", "1s"], "--timeout"),
            (&["--rate", "0"], "from 1 to 1000000"),
            (&["--rate", "2000000"], "from 1 to 1000000"),
            (&["--concurrency", "many"], "from 1 to 10000"),
            (&["--duration", "0s"], "such as 500ms"),
            (&["--warm-up", "2"], "such as 500ms"),
        ] {
            let error = parse(&[&["WB"], arguments].concat()).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
