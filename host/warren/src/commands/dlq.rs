//! `warren dlq`: dead letters, from the command line.

mod export;
mod list;
mod moving;
mod show;

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand};
use warren_protocol::{Address, WorkerType};

use super::{Reach, Verdict, connect, filter::Filter, output::Output};
use crate::config::Config;

pub(crate) const ABOUT: &str = "\
Dead letters are jobs that were given up. On RabbitMQ each worker type has a queue of them, \
warren.v1.dlq.TYPE, where they stay until somebody replays or drops them; everything that comes and \
leaves is also noted in the log warren.v1.dlq.log, which keeps 30 days.

`ls`, `show`, `export` and every --dry-run read the log only: they change nothing, not even the \
order of the queue. `replay` and `drop` take from the queue; what they pass over goes back, marked \
as redelivered and behind the others.";

pub(crate) const AFTER: &str = "\
Exit codes: 0 done, 1 something could not be done (or nothing with this id is there), 64 misuse.

Examples:
  warren dlq ls                                   how many, by type and reason
  warren dlq ls WB --since 2h                     one line for each
  warren dlq show J1795220940610001000000001      everything about one of them
  warren dlq replay WB --reason trap --dry-run    what would be replayed
  warren dlq replay WB --reason trap --rate 50    50 in a second
  warren dlq export WB --output wb.jsonl          one JSON object per line
  warren dlq drop WB --until 30d --yes            throw away what is older than 30 days";

/// What to do with dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Dlq {
    /// List dead letters: by type and reason, or those of one type
    #[command(long_about = "\
Without TYPE: how many there are of each type and reason, the oldest and the newest, and the most \
frequent error. With TYPE, --id or --reason: one line for each. Then what does not fit together: \
where the log and a queue say different numbers, and what lies in warren.v1.unrouted. A number that \
differs is no mistake by itself: dead letters may be older than the log, have been put there by the \
broker itself, be on their way out, or have been purged by hand.

With --json each line says its `kind`: group, letter, queue (what the log and the queue say) or \
unrouted.")]
    Ls {
        /// The worker type
        #[arg(value_name = "TYPE", value_parser = WorkerType::new)]
        worker_type: Option<WorkerType>,
        /// Which of them.
        #[command(flatten)]
        filter: Filter,
    },
    /// Show everything about one dead letter
    Show {
        /// Its id
        id: String,
        /// Its worker type, where two types have one of this id
        #[arg(long = "type", value_name = "TYPE", value_parser = WorkerType::new)]
        worker_type: Option<WorkerType>,
        /// Write the bytes of the message's body and nothing else
        #[arg(long, conflicts_with = "json")]
        raw: bool,
    },
    /// Publish dead letters again, as first attempts
    #[command(long_about = "\
Publishes dead letters again, oldest first: to any worker of their type, or where --to says. Each \
keeps its id and starts with attempt 1; a deadline that has passed is taken off; what made it a dead \
letter is taken off. Each is published and confirmed before it leaves the queue, so that a replay \
that is killed loses nothing: a second run goes on, and what was on its way then is there twice, \
with the same id.

No more are looked at than are there at the start, so it ends even when they come back. What cannot \
be delivered (nobody has ever served the address, or its queue is full) stays, is reported, and \
makes the exit code 1.")]
    Replay {
        /// The worker type
        #[arg(value_name = "TYPE", value_parser = WorkerType::new, required_unless_present = "unrouted")]
        worker_type: Option<WorkerType>,
        /// Those in warren.v1.unrouted instead, whatever their type: they came for a type without a
        /// queue of dead letters
        #[arg(long, conflicts_with = "worker_type")]
        unrouted: bool,
        /// Publish them to this address instead: TYPE:* or a worker id
        #[arg(long, value_name = "ADDRESS", value_parser = Address::from_str)]
        to: Option<Address>,
        /// No more than so many in a second: 50, or 0.5/s
        #[arg(long, value_name = "N", value_parser = parse_rate)]
        rate: Option<Duration>,
        /// How many, and which.
        #[command(flatten)]
        choice: Choice,
    },
    /// Throw dead letters away
    Drop {
        /// The worker type
        #[arg(value_name = "TYPE", value_parser = WorkerType::new)]
        worker_type: WorkerType,
        /// Do it: nothing is thrown away without
        #[arg(long)]
        yes: bool,
        /// How many, and which.
        #[command(flatten)]
        choice: Choice,
    },
    /// Write dead letters as JSON, one object per line; they stay where they are
    #[command(long_about = "\
Writes dead letters as JSON, one object per line, oldest first; they stay where they are. Each has \
`type`, `id`, `reason`, `error`, `attempts`, `died` and what else is known (`first`, `plugin`, \
`host`, `deadline`, `correlation_id`, `reply_to`, `traceparent`), `encoding`, and `job`: its \
`route`, `position`, `sender`, `id` and `data`, as JSON whatever it was written in. A body that is \
no job is written as `body_base64`.")]
    Export {
        /// The worker type
        #[arg(value_name = "TYPE", value_parser = WorkerType::new)]
        worker_type: WorkerType,
        /// Which of them.
        #[command(flatten)]
        filter: Filter,
        /// Write to this file, which must not exist, instead of standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Write every body as its exact bytes (body_base64)
        #[arg(long)]
        base64: bool,
    },
}

/// How many dead letters, and which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Choice {
    /// No more than so many
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Say what would be done, by the log, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Which of them.
    #[command(flatten)]
    pub filter: Filter,
}

pub(super) async fn run(config: &Config, reach: &Reach, command: &Dlq) -> anyhow::Result<Verdict> {
    if let Some(misuse) = moving::misuse(command) {
        super::output::say(misuse);
        return Ok(Verdict::Misuse);
    }
    let operator = connect(config).await?;
    let mut output = Output::new();
    let json = reach.json;
    let done = match command {
        Dlq::Ls {
            worker_type,
            filter,
        } => {
            let known: Vec<_> = config.workers.keys().cloned().collect();
            let wanted = list::Wanted {
                worker_type: worker_type.as_ref(),
                filter,
                known: &known,
            };
            list::run(&operator, &wanted, json, &mut output).await
        }
        Dlq::Show {
            id,
            worker_type,
            raw,
        } => {
            let form = match (raw, json) {
                (true, _) => show::Form::Raw,
                (_, true) => show::Form::Json,
                _ => show::Form::Text,
            };
            show::run(&operator, id, worker_type.as_ref(), form, &mut output).await
        }
        Dlq::Export {
            worker_type,
            filter,
            output: file,
            base64,
        } => {
            let file = file.as_deref();
            export::run(&operator, worker_type, filter, *base64, file, &mut output).await
        }
        Dlq::Replay { .. } | Dlq::Drop { .. } => {
            moving::run(&operator, command, json, &mut output).await
        }
    };
    operator.close().await;
    let done = done?;
    output.flush()?;
    Ok(done)
}

/// Reads how many in a second, as the time between two.
fn parse_rate(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim();
    let rate = number.parse::<f64>().ok().filter(|rate| *rate > 0.0);
    rate.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok())
        .ok_or_else(|| "write how many in a second, such as 50 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_in_a_second() {
        assert_eq!(parse_rate("50"), Ok(Duration::from_millis(20)));
        assert_eq!(parse_rate("0.5/s"), Ok(Duration::from_secs(2)));
        for wrong in ["0", "-1", "fast", "NaN", ""] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
