//! How far the start has come: compiling large plugins takes seconds each. A bar on a terminal,
//! elsewhere a line every few seconds.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{FileState, Shelf};
use crate::{registry::file_name, telemetry::progress};

/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// A start that is over by then needs no progress.
const SHORT: Duration = Duration::from_millis(500);

/// The progress of the start.
#[derive(Default)]
pub(super) struct Progress {
    n_files: usize,
    begun: Option<Instant>,
    last_line: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Between two looks at what has changed.
    pub(super) const INTERVAL: Duration = Duration::from_millis(250);

    /// Of so many files.
    pub(super) fn begin(n_files: usize) -> Self {
        Self {
            n_files,
            begun: Some(Instant::now()),
            ..Self::default()
        }
    }

    /// Shows how far it is now.
    pub(super) fn show(&mut self, shelf: &Shelf) {
        let Some(begun) = self.begun.filter(|begun| begun.elapsed() > SHORT) else {
            return;
        };
        let mut waiting = Vec::new();
        for (file, state) in shelf.files() {
            if let FileState::Loading(step, since) = state {
                waiting.push(format!(
                    "{} ({step}, {} s)",
                    file_name(&file),
                    since.elapsed().as_secs()
                ));
            }
        }
        let n_ready = self.n_files.saturating_sub(waiting.len());
        if self.bar.is_none() {
            self.bar = progress::bar(self.n_files as u64, style());
        }
        if let Some(bar) = &self.bar {
            bar.set_position(n_ready as u64);
            bar.set_message(waiting.join(", "));
        } else if self.last_line.unwrap_or(begun).elapsed() >= LINE_INTERVAL {
            self.last_line = Some(Instant::now());
            tracing::info!(
                ready = n_ready,
                of = self.n_files,
                on_the_way = waiting.join(", "),
                "plugins are being loaded"
            );
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&mut self) {
        self.begun = None;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    let template = "plugins {bar:20} {pos}/{len}  {wide_msg}";
    // The template is a constant: with a mistake in it the default is shown.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
