//! How far a long command has come: a bar on a terminal, elsewhere a line every few seconds.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use warren_bus::operator::{Outcome, Tally};

use super::output::{clean, say};

/// Between two lines where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(5);
/// So many failures are told one by one.
const MAX_TOLD: u64 = 20;

/// What a person sees of a command while it works.
pub(super) struct Progress {
    /// `replayed`.
    verb: &'static str,
    bar: Option<ProgressBar>,
    last_line: Instant,
    /// Nobody looks.
    silent: bool,
}

impl Progress {
    pub(super) fn new(verb: &'static str, silent: bool) -> Self {
        let is_shown = !silent && stderr().is_terminal();
        Self {
            verb,
            bar: is_shown.then(|| ProgressBar::new(0).with_style(style())),
            last_line: Instant::now(),
            silent,
        }
    }

    /// Takes note of one message.
    pub(super) fn note(&mut self, outcome: &Outcome, tally: &Tally) {
        match outcome {
            Outcome::Failed { id, why } if tally.failed <= MAX_TOLD => {
                self.tell(&format!("stays: {} ({why})", clean(id)));
            }
            Outcome::Done {
                unmarked: Some(why),
                ..
            } if tally.unmarked <= 1 => self.tell(&format!(
                "the log could not be told that it has left: {why}"
            )),
            _ => {}
        }
        let n_seen = tally.done + tally.failed + tally.passed;
        if let Some(bar) = &self.bar {
            bar.set_length(tally.ready);
            bar.set_message(format!("{} {}", tally.done, self.verb));
            bar.set_position(n_seen);
        } else if !self.silent && self.last_line.elapsed() >= INTERVAL {
            self.last_line = Instant::now();
            say(&format!(
                "{} {}, looked at {n_seen} of {}",
                tally.done, self.verb, tally.ready
            ));
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn tell(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None if !self.silent => say(text),
            None => {}
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{bar:30} {pos}/{len}  {msg}  {per_sec}  {eta} left";
    // The template is a constant: with a mistake in it the default is shown.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
