//! What the guests of all cases write to their logs, and what the host says of their workers: kept for
//! the case that it belongs to, by the id of its worker.

use std::{
    collections::HashMap,
    fmt::{Debug, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::FilterFn,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

/// The target of what guests write.
const GUEST: &str = "guest";

/// The log of every case. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<HashMap<String, Vec<Line>>>>);

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) level: Level,
    /// Whether the guest wrote it; otherwise the host did.
    pub(super) is_guests: bool,
    pub(super) text: String,
}

impl Lines {
    /// Keeps everything from now on. Nothing of the log is shown by itself.
    ///
    /// # Errors
    /// When logging is set up already.
    pub(super) fn follow() -> anyhow::Result<Self> {
        let lines = Self::default();
        let is_wanted = |metadata: &Metadata<'_>| {
            metadata.target() == GUEST || *metadata.level() <= Level::WARN
        };
        let layer = lines.clone().with_filter(FilterFn::new(is_wanted));
        tracing_subscriber::registry().with(layer).try_init()?;
        Ok(lines)
    }

    /// What was written by and about a worker.
    pub(super) fn take(&self, worker: &str) -> Vec<Line> {
        self.lock().remove(worker).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Line>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Some(worker) = fields.worker else { return };
        let metadata = event.metadata();
        let line = Line {
            level: *metadata.level(),
            is_guests: metadata.target() == GUEST,
            text: format!("{}{}", fields.message, fields.others),
        };
        self.lock().entry(worker).or_default().push(line);
    }
}

#[derive(Default)]
struct Fields {
    worker: Option<String>,
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "worker.id" => self.worker = Some(value.to_owned()),
            "message" => self.message = value.to_owned(),
            "job.id" | "worker.type" => {}
            // A text holds any number of characters.
            name => drop(write!(self.others, " {name}={value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
