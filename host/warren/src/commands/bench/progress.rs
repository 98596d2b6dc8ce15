//! What a person sees while a measurement goes on; nothing where standard error is no terminal.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    course::{Course, per_second},
    report::{count, rate, time},
};

/// Between two looks of a person.
const INTERVAL: Duration = Duration::from_millis(200);

/// A bar for the time that passes.
pub(super) struct Progress {
    is_shown: bool,
    bar: Option<ProgressBar>,
    title: String,
    shown_at: Duration,
}

impl Progress {
    pub(super) fn new(is_silent: bool) -> Self {
        Self {
            is_shown: !is_silent && stderr().is_terminal(),
            bar: None,
            title: String::new(),
            shown_at: Duration::ZERO,
        }
    }

    /// Another measurement begins.
    pub(super) fn begin(&mut self, title: String, length: Duration) {
        self.title = title;
        self.shown_at = Duration::ZERO;
        let length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        self.bar = self
            .is_shown
            .then(|| ProgressBar::new(length).with_style(style()));
    }

    /// Shows how far it has come, if it is time to; when it will be time again, if anybody looks.
    pub(super) fn show(&mut self, course: &Course, now: Duration) -> Option<Duration> {
        let bar = self.bar.as_ref()?;
        if now >= self.shown_at + INTERVAL {
            self.shown_at = now;
            let record = &course.record;
            let mut message = format!(
                "{}: {} answered, {}/s, p99 {}",
                self.title,
                count(record.answered),
                rate(per_second(record.answered, now)),
                time(record.latency.percentile(99.0)),
            );
            if record.n_failed() > 0 {
                message.push_str(&format!(", {} failed", count(record.n_failed())));
            }
            bar.set_message(message);
            bar.set_position(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        }
        Some(self.shown_at + INTERVAL)
    }

    /// Takes the bar away.
    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    // The template is a constant: with a mistake in it the default is shown.
    ProgressStyle::with_template("{bar:30} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
