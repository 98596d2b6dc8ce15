//! Where log lines go (standard error) and what they look like.
//!
//! The two switches of MicroServices.js act on targets: `SystemManager_log` on `warren::manager`,
//! `Worker_log` on `warren::worker` (what the host says about single workers) and `guest` (what the
//! guests say). Code that logs for either names the target.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::{Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, filter_fn},
    fmt::{MakeWriter, format::Writer, layer as lines, time::FormatTime},
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

use super::progress;
use crate::config::{Log, LogFormat};

/// What the peer gateway logs.
pub const MANAGER_TARGET: &str = "warren::manager";
/// What the host logs about single workers.
pub const WORKER_TARGET: &str = "warren::worker";
/// What guests log.
pub const GUEST_TARGET: &str = "guest";

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Coloured,
    Plain,
    Json,
}

/// Sends what the program logs to standard error, from now on. `NO_COLOR` is honoured.
///
/// # Errors
/// When logging is set up already.
pub fn init(log: &Log, stderr_is_terminal: bool) -> Result<(), TryInitError> {
    subscriber(
        log,
        look(log.format, stderr_is_terminal, wants_no_colour()),
        progress::stderr,
    )
    .try_init()
}

/// Whether the person at the terminal wants no colours, whatever is written there.
pub(crate) fn wants_no_colour() -> bool {
    // https://no-color.org: set, and not empty.
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn look(format: LogFormat, stderr_is_terminal: bool, no_color: bool) -> Look {
    match format {
        LogFormat::Auto if stderr_is_terminal && !no_color => Look::Coloured,
        LogFormat::Auto | LogFormat::Text => Look::Plain,
        LogFormat::Json => Look::Json,
    }
}

fn subscriber<W>(log: &Log, look: Look, writer: W) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // The level has been checked when the configuration was read.
    let level = EnvFilter::builder().parse_lossy(&log.level);
    let switches = log.clone();
    let filter = level.and(filter_fn(move |metadata| is_wanted(&switches, metadata)));
    let lines = lines().with_writer(writer).with_target(false);
    let layer = match look {
        Look::Coloured => lines
            .with_ansi(true)
            .with_timer(TimeOfDay)
            .compact()
            .boxed(),
        Look::Plain => lines.with_ansi(false).compact().boxed(),
        Look::Json => lines
            .json()
            .with_target(true)
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
    };
    Registry::default().with(layer.with_filter(filter))
}

/// What no level can turn on again.
fn is_wanted(log: &Log, metadata: &Metadata<'_>) -> bool {
    let is_of = |target: &str| {
        let rest = metadata.target().strip_prefix(target);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    // lapin logs whole messages at `warn`, and a payload never belongs into a log; its errors reach
    // us as values, are told where they are handled, and come once more at every clean close.
    if is_of("lapin") {
        return false;
    }
    // sqlx complains of statements and connections that are slow without naming the worker.
    if is_of("sqlx") {
        return false;
    }
    (log.system_manager || !is_of(MANAGER_TARGET))
        && (log.worker || !(is_of(WORKER_TARGET) || is_of(GUEST_TARGET)))
}

/// `14:03:07.123Z`: who watches a terminal knows the day.
struct TimeOfDay;

impl FormatTime for TimeOfDay {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let (seconds, milliseconds) = (now.as_secs(), now.subsec_millis());
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(
            writer,
            "{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `log_something` runs.
    fn written(log: &Log, look: Look, log_something: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(log, look, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log_something);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    fn log_all_targets() {
        tracing::info!(target: "warren::run", "host");
        tracing::info!(target: "warren::manager", "manager");
        tracing::info!(target: "warren::worker", "worker");
        tracing::info!(target: "guest", "guest");
        tracing::info!(target: "guesthouse", "other");
        tracing::warn!(target: "lapin::channel", "payload");
        tracing::error!(target: "lapin::channel", "failure");
        tracing::debug!(target: "warren::run", "detail");
    }

    #[track_caller]
    fn check(log: Log, expected: &str) {
        let text = written(&log, Look::Json, log_all_targets);
        let messages: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|line| line["message"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(messages.join(" "), expected);
    }

    #[test]
    fn what_lapin_logs_is_never_shown() {
        check(Log::default(), "host manager worker guest other");
        for level in ["info,lapin=trace", "info,lapin::channel=trace"] {
            let log = Log {
                level: level.to_owned(),
                ..Log::default()
            };
            check(log, "host manager worker guest other");
        }
    }

    #[test]
    fn the_two_switches_turn_their_targets_off() {
        let no_manager = Log {
            system_manager: false,
            ..Log::default()
        };
        check(no_manager, "host worker guest other");
        let no_worker = Log {
            worker: false,
            ..Log::default()
        };
        check(no_worker, "host manager other");
        let level = "info,guest=trace,warren::manager=trace".to_owned();
        check(
            Log {
                level,
                worker: false,
                system_manager: false,
                ..Log::default()
            },
            "host other",
        );
    }

    #[test]
    fn the_level_is_a_filter() {
        check(
            Log {
                level: "info,warren::run=warn".to_owned(),
                ..Log::default()
            },
            "manager worker guest other",
        );
        check(
            Log {
                level: "off".to_owned(),
                ..Log::default()
            },
            "",
        );
        check(
            Log {
                level: "off,warren::run=debug".to_owned(),
                ..Log::default()
            },
            "host detail",
        );
    }

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        assert_eq!(look(LogFormat::Auto, true, false), Look::Coloured);
        assert_eq!(look(LogFormat::Auto, true, true), Look::Plain);
        assert_eq!(look(LogFormat::Auto, false, false), Look::Plain);
        assert_eq!(look(LogFormat::Text, true, false), Look::Plain);
        assert_eq!(look(LogFormat::Json, true, false), Look::Json);
    }

    #[test]
    fn a_line_has_its_level_message_and_fields() {
        let say = || tracing::warn!("job.id" = "x1", "job failed");
        let plain = written(&Log::default(), Look::Plain, say);
        assert!(plain.contains(" WARN job failed job.id=\"x1\""), "{plain}");
        assert!(!plain.contains('\u{1b}'), "{plain}");
        assert!(written(&Log::default(), Look::Coloured, say).contains("\u{1b}[33m"));
        let json = written(&Log::default(), Look::Json, say);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (json["level"].as_str(), json["job.id"].as_str()),
            (Some("WARN"), Some("x1"))
        );
    }
}
