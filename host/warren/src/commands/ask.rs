//! `warren send` and `warren call`: one job from the command line, and its reply.
//!
//! With a RabbitMQ they connect to it as what they are, a sender that serves nothing (`broker`). The
//! bus inside a host has no door, so there the host is asked at its admin port (`host`).

pub(super) mod broker;
pub(super) mod data;
pub(super) mod host;

use std::{
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use serde_json::{json, value::RawValue};
use warren_protocol::{AddressError, CallError, Encoding, Payload, Slip, Stop, job_id};

use super::{
    Verdict,
    output::{Output, clean, say},
};
use crate::{
    cli::Options,
    clock::now_ms,
    config::{Broker, Config, parse_duration},
};
use data::Source;

pub(crate) const ABOUT_CALL: &str = "\
Sends a job and waits for its reply, which goes to standard output: what the last stop forwards.

Where a RabbitMQ is configured (--broker, WARREN_BROKER or `broker` in config/warren.toml), it connects \
there, with a queue for the reply that ends with it. Without one, it asks the host at the admin port \
(--admin), which sends the job on the bus inside it; only a host on this machine does that.

A call is not repeated by itself. Interrupted with Ctrl-C it leaves nothing behind but the job, which \
runs to its end.";

pub(crate) const ABOUT_SEND: &str = "\
Sends a job and does not wait for what comes of it: ends when the bus has the job safely, and prints \
the job's id. With a RabbitMQ that means stored on disk; what fails later is a dead letter (`warren dlq`). \
So is an answer to the sender, who is not there any more: use `warren call` for that.

Where it sends to is found as `warren call` does.";

pub(crate) const AFTER_CALL: &str = "\
Exit codes: 0 a reply, 1 something else went wrong, 64 misuse, and for a call without a reply:
  2  failed          a worker gave the job up; it is said why
  3  timeout         no reply in time; the job may still run
  4  unknown-type    no worker of that type has ever been on the bus
  5  no-live-worker  the type is known, but no worker of it is there
  6  queue-full      the type's queue is at its limit
  7  unavailable     the broker, or the host, cannot be reached

With --json there is one object on standard output, whatever happened: `id` (of the job), `outcome` \
(reply, or one of the words above), `took_ms`, and `reply` or `error`.

Examples:
  warren call WD '{\"method\":\"GET\",\"params\":{}}'         any worker of a type: the same as 'WD:*'
  warren call WD @question.json --timeout 1m           the data from a file
  jq .order o.json | warren call WD - | jq .content    or from standard input
  warren call WC,WB '{\"n\":1}'                          along a route: WB's answer is the reply
  warren call WB:2795220940610 '{}'                    one worker and no other (see /workers)";

pub(crate) const AFTER_SEND: &str = "\
Exit codes: 0 sent, 1 something else went wrong, 64 misuse, 4 unknown-type, 5 no-live-worker (a worker \
id that is not there), 6 queue-full, 7 unavailable. A type that is known and has no worker now is no \
error: the job waits.

With --json there is one object on standard output for each job: `id`, `outcome` (sent, or one of the \
words above), `took_ms`, `error`, and `line` with --lines.

Examples:
  warren send WB '{\"method\":\"GET\",\"params\":{}}'
  warren send WB @job.json --id order-4711      again with the same id: workers can tell
  warren send WB @jobs.jsonl --lines            each line is a job; stops at the first that fails
  zcat jobs.jsonl.gz | warren send WB - --lines";

/// Between two lines that say how far it has come.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// The longest id of a job that AMQP carries.
const MAX_ID_BYTES: usize = 255;

/// What is sent, and where.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Ask {
    /// Where it goes: TYPE (any worker of that type; 'TYPE:*' says the same) or a worker id. Several
    /// with commas between are a route
    #[arg(value_name = "TO", value_parser = Route::from_str)]
    pub to: Route,
    /// What it carries, in JSON: the text itself, @FILE, or - for standard input [default: null].
    /// Dates, binary and large numbers are written as in Extended JSON: {"$date":"2026-01-31T12:00:00Z"}
    #[arg(value_name = "DATA", allow_hyphen_values = true)]
    pub data: Option<String>,
    /// The id of the job, by which workers make effects idempotent [default: a new one]
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    pub id: Option<String>,
    /// Answer in JSON, one object per line, for programs
    #[arg(long)]
    pub json: bool,
    /// The configuration of the hosts: the broker and the admin port are read there
    /// [default: config/warren.toml if it exists] [env: WARREN_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<std::path::PathBuf>,
    /// A RabbitMQ node, amqp://user:password@host:port/vhost; once for each node of a cluster
    /// [env: WARREN_BROKER, else BROKER_URL]
    #[arg(long, value_name = "URL")]
    pub broker: Vec<String>,
    /// Where a host answers that has the bus inside it [default: 127.0.0.1:9091] [env: WARREN_ADMIN]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,
}

/// The stops of a job, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route(pub(super) Vec<Stop>);

impl FromStr for Route {
    type Err = AddressError;

    /// A bare type is written out, so that every worker that sees the route reads it.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let stops = text.split(',').map(|stop| {
            let address = Stop::new(stop.trim()).address()?;
            Ok(Stop::from(&address))
        });
        stops.collect::<Result<_, _>>().map(Self)
    }
}

impl Ask {
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
}

/// Where jobs are handed over.
pub(super) enum Door {
    Broker(Box<broker::Broker>),
    Host(host::Host),
}

impl Door {
    pub(super) async fn open(config: &Config) -> Result<Self, CallError> {
        match &config.broker {
            Broker::Embedded => Ok(Self::Host(host::Host::new(config.admin))),
            Broker::RabbitMq(urls) => {
                let broker = broker::Broker::connect(config, urls).await?;
                Ok(Self::Broker(Box::new(broker)))
            }
        }
    }

    pub(super) async fn send(&mut self, id: &str, slip: Slip) -> Result<(), CallError> {
        match self {
            Self::Broker(broker) => broker.send(id, slip).await,
            Self::Host(host) => host.send(id, slip).await,
        }
    }

    pub(super) async fn call(
        &mut self,
        id: &str,
        slip: Slip,
        timeout: Duration,
    ) -> Result<Payload, CallError> {
        match self {
            Self::Broker(broker) => broker.call(id, slip, timeout).await,
            Self::Host(host) => host.call(id, slip, timeout).await,
        }
    }

    pub(super) async fn close(self) {
        if let Self::Broker(broker) = self {
            broker.close().await;
        }
    }
}

pub(super) async fn call(
    config: &Config,
    ask: &Ask,
    timeout: Option<Duration>,
) -> anyhow::Result<Verdict> {
    let data = match Source::of(ask.data.as_deref()).all().and_then(payload) {
        Ok(data) => data,
        Err(error) => return Ok(misuse(&error)),
    };
    let (id, slip) = (ask.job_id(), ask.slip(data));
    let timeout = timeout.unwrap_or(config.call_timeout);
    let begun = Instant::now();
    let replied = match Door::open(config).await {
        Ok(mut door) => {
            let replied = door.call(&id, slip, timeout).await;
            // Its time is up; the reply has come or never will.
            door.close().await;
            replied
        }
        Err(error) => Err(error),
    };
    let mut output = Output::new();
    let verdict = match replied {
        Ok(reply) => {
            let reply = reply.to(Encoding::Json).and_then(|reply| reply.to_bytes());
            let reply = reply.context("the reply cannot be written as JSON")?;
            if ask.json {
                let reply: &RawValue = serde_json::from_slice(&reply)?;
                output.json(&json!({
                    "id": id, "outcome": "reply", "took_ms": ms(begun), "reply": reply,
                }))?;
            } else {
                output.bytes(&reply)?;
                output.line("")?;
            }
            Verdict::Done
        }
        Err(error) => ask.tell(&mut output, &id, begun, None, &error)?,
    };
    output.flush()?;
    Ok(verdict)
}

pub(super) async fn send(config: &Config, ask: &Ask, lines: bool) -> anyhow::Result<Verdict> {
    if lines && ask.id.is_some() {
        say("warren: --id names one job, and --lines sends many");
        return Ok(Verdict::Misuse);
    }
    let source = Source::of(ask.data.as_deref());
    if lines {
        return send_lines(config, ask, source).await;
    }
    let data = match source.all().and_then(payload) {
        Ok(data) => data,
        Err(error) => return Ok(misuse(&error)),
    };
    let (id, begun) = (ask.job_id(), Instant::now());
    let sent = match Door::open(config).await {
        Ok(mut door) => {
            let sent = door.send(&id, ask.slip(data)).await;
            door.close().await;
            sent
        }
        Err(error) => Err(error),
    };
    let mut output = Output::new();
    let verdict = match sent {
        Ok(()) => {
            ask.sent(&mut output, &id, begun, None)?;
            Verdict::Done
        }
        Err(error) => ask.tell(&mut output, &id, begun, None, &error)?,
    };
    output.flush()?;
    Ok(verdict)
}

/// One after the other, so that it can be said where it has stopped.
async fn send_lines(config: &Config, ask: &Ask, source: Source) -> anyhow::Result<Verdict> {
    let mut lines = match source.lines() {
        Ok(lines) => lines,
        Err(error) => return Ok(misuse(&error)),
    };
    let mut output = Output::new();
    let begun = Instant::now();
    let mut door = match Door::open(config).await {
        Ok(door) => door,
        Err(error) => {
            let verdict = ask.tell(&mut output, "", begun, Some(1), &error)?;
            output.flush()?;
            return Ok(verdict);
        }
    };
    let (mut n_sent, mut last_said) = (0_u64, Instant::now());
    let verdict = loop {
        let Some((number, line)) = lines.recv().await else {
            break Verdict::Done;
        };
        let stopped = |what: &str| {
            say(&format!(
                "warren: line {number}: {what}\n  {n_sent} jobs of the lines before were sent, and none \
                 after it: go on with `tail -n +{number}`"
            ));
        };
        let (id, begun) = (job_id(now_ms()), Instant::now());
        let data = match line.and_then(payload) {
            Ok(data) => data,
            Err(error) => {
                stopped(&format!("{error:#}"));
                break Verdict::Misuse;
            }
        };
        match door.send(&id, ask.slip(data)).await {
            Ok(()) => ask.sent(&mut output, &id, begun, Some(number))?,
            Err(error) => {
                stopped(&shown(&error));
                if ask.json {
                    ask.fail(&mut output, &id, begun, Some(number), &error)?;
                }
                break Verdict::Failed(exit_code(&error));
            }
        }
        n_sent += 1;
        if last_said.elapsed() >= PROGRESS_INTERVAL {
            last_said = Instant::now();
            say(&format!("{n_sent} jobs sent"));
        }
    };
    door.close().await;
    output.flush()?;
    if verdict == Verdict::Done {
        let took = begun.elapsed().as_secs_f64();
        say(&format!("{n_sent} jobs sent in {took:.1} s"));
    }
    Ok(verdict)
}

impl Ask {
    fn job_id(&self) -> String {
        self.id.clone().unwrap_or_else(|| job_id(now_ms()))
    }

    fn slip(&self, data: Payload) -> Slip {
        Slip {
            stops: self.to.0.clone(),
            data,
        }
    }

    /// Says that a job was sent.
    fn sent(
        &self,
        output: &mut Output,
        id: &str,
        begun: Instant,
        line: Option<u64>,
    ) -> anyhow::Result<()> {
        if self.json {
            let mut said = json!({ "id": id, "outcome": "sent", "took_ms": ms(begun) });
            with_line(&mut said, line);
            output.json(&said)?;
        } else {
            output.line(id)?;
        }
        Ok(())
    }

    /// Says why there is no reply, or why nothing was sent.
    fn tell(
        &self,
        output: &mut Output,
        id: &str,
        begun: Instant,
        line: Option<u64>,
        error: &CallError,
    ) -> anyhow::Result<Verdict> {
        if self.json {
            self.fail(output, id, begun, line, error)?;
        }
        say(&format!("warren: {}", shown(error)));
        Ok(match error {
            CallError::Invalid { .. } => Verdict::Misuse,
            error => Verdict::Failed(exit_code(error)),
        })
    }

    fn fail(
        &self,
        output: &mut Output,
        id: &str,
        begun: Instant,
        line: Option<u64>,
        error: &CallError,
    ) -> anyhow::Result<()> {
        let mut said = json!({
            "id": id, "outcome": code(error)?, "took_ms": ms(begun), "error": error.to_string(),
        });
        with_line(&mut said, line);
        Ok(output.json(&said)?)
    }
}

fn with_line(said: &mut serde_json::Value, line: Option<u64>) {
    if let (Some(line), Some(said)) = (line, said.as_object_mut()) {
        said.insert("line".to_owned(), json!(line));
    }
}

/// The word of an error, as it is on the wire.
pub(super) fn code(error: &CallError) -> anyhow::Result<String> {
    let error = serde_json::to_value(error)?;
    let code = error.get("code").and_then(serde_json::Value::as_str);
    Ok(code.unwrap_or("other").to_owned())
}

/// As [`AFTER_CALL`] says.
pub(super) fn exit_code(error: &CallError) -> u8 {
    match error {
        CallError::Invalid { .. } => crate::EXIT_USAGE,
        CallError::Failed { .. } => 2,
        CallError::Timeout { .. } => 3,
        CallError::UnknownType { .. } => 4,
        CallError::NoLiveWorker { .. } => 5,
        CallError::QueueFull { .. } => 6,
        CallError::Unavailable { .. } => 7,
    }
}

/// The error with its remedy. The texts of plugins are in it.
pub(super) fn shown(error: &CallError) -> String {
    let remedy = match error {
        CallError::Timeout { .. } => {
            ": the job may still run; wait longer with --timeout, and repeat only what may be done twice"
        }
        _ => "",
    };
    format!("{}{remedy}", clean(&error.to_string()))
}

pub(super) fn misuse(error: &anyhow::Error) -> Verdict {
    say(&format!("warren: {error:#}"));
    Verdict::Misuse
}

pub(super) fn payload(json: Bytes) -> anyhow::Result<Payload> {
    Payload::new(Encoding::Json, json)
        .context("the data is not JSON (a text is written with quotes: '\"text\"')")
}

fn ms(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn parse_id(text: &str) -> Result<String, String> {
    let is_one = !text.is_empty() && text.len() <= MAX_ID_BYTES;
    if is_one && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "write up to {MAX_ID_BYTES} visible ASCII characters"
        ))
    }
}

/// Reads how long a call waits.
pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|timeout| !timeout.is_zero() && *timeout <= Duration::from_secs(24 * 3600))
        .ok_or_else(|| "write a duration of up to 24h, such as 500ms, 10s or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_one_stop_or_several_with_commas() {
        let stops = |text: &str| -> Option<Vec<String>> {
            let Route(stops) = text.parse().ok()?;
            Some(stops.iter().map(|stop| stop.as_str().to_owned()).collect())
        };
        let expected = |stops: &[&str]| Some(stops.iter().map(|&stop| stop.to_owned()).collect());
        assert_eq!(stops("WD"), expected(&["WD:*"]));
        assert_eq!(
            stops("WD:*, WB:2795220940610"),
            expected(&["WD:*", "WB:2795220940610"])
        );
        for wrong in ["", "WD,", "W D", "WD:1", "WD:*;WB:*"] {
            assert_eq!(stops(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_timeout_has_a_unit_and_a_bound() {
        assert_eq!(parse_timeout("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_timeout("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["10", "0s", "25h", "soon", ""] {
            assert!(parse_timeout(wrong).is_err(), "{wrong}");
        }
    }
}
