//! A guest's log: `wasi:logging`, and what it writes to standard output and standard error, line
//! by line, under the target `guest`. Bounded per run, because a guest in a loop writes gigabytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use warren_protocol::WorkerId;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use crate::{
    Occasion, Secrets, Worker,
    bindings::wasi::logging::logging::{Host, Level},
    state::State,
};

/// How much of standard error is kept for the error message of a trap, in bytes.
const TAIL_BYTES: usize = 4096;
/// A line longer than this is logged in pieces, in bytes.
const LINE_BYTES: usize = 4096;

/// What a line costs beside its text, in bytes: empty lines fill a disk too.
const LINE_COST_BYTES: usize = 64;

/// The log of one run: who writes, and how much it may still write.
#[derive(Clone)]
pub(crate) struct LogBudget(Arc<Mutex<Inner>>);

struct Inner {
    worker: WorkerId,
    job: String,
    left_bytes: usize,
    exhausted: bool,
    /// The end of standard error.
    tail: Vec<u8>,
    /// Unfinished lines of standard output and standard error.
    partial: [Vec<u8>; 2],
    /// What no line shows.
    secrets: Secrets,
}

impl LogBudget {
    pub(crate) fn new(worker: &Worker, occasion: &Occasion) -> Self {
        Self(Arc::new(Mutex::new(Inner::new(worker, occasion))))
    }

    /// Makes it the log of another run. The streams that the guest holds lead there from now on.
    pub(crate) fn begin(&self, worker: &Worker, occasion: &Occasion) {
        *self.lock() = Inner::new(worker, occasion);
    }

    /// How many standard streams lead here: two that the Store hands out copies of, and those
    /// copies. A guest asks for one and keeps it.
    pub(crate) fn n_streams(&self) -> usize {
        Arc::strong_count(&self.0).saturating_sub(1)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs what was written without a line end, and returns the end of standard error.
    pub(crate) fn finish(&self) -> String {
        let mut inner = self.lock();
        for source in [Source::Out, Source::Err] {
            let line = std::mem::take(inner.partial(source));
            inner.line(source.level(), &line);
        }
        let tail = String::from_utf8_lossy(&inner.tail);
        inner.secrets.hide(&tail).into_owned()
    }
}

#[derive(Clone, Copy)]
enum Source {
    Out,
    Err,
}

impl Source {
    fn level(self) -> Level {
        match self {
            Self::Out => Level::Info,
            Self::Err => Level::Warn,
        }
    }
}

impl Inner {
    fn new(worker: &Worker, occasion: &Occasion) -> Self {
        Self {
            worker: worker.id.clone(),
            job: occasion.job_id.clone(),
            left_bytes: worker.limits.log_bytes,
            exhausted: false,
            tail: Vec::new(),
            partial: Default::default(),
            secrets: worker.reach.secrets.clone(),
        }
    }

    fn partial(&mut self, source: Source) -> &mut Vec<u8> {
        let [out, err] = &mut self.partial;
        match source {
            Source::Out => out,
            Source::Err => err,
        }
    }

    fn write(&mut self, source: Source, bytes: &[u8]) {
        if matches!(source, Source::Err) {
            let new = bytes.len().saturating_sub(TAIL_BYTES);
            self.tail
                .extend_from_slice(bytes.get(new..).unwrap_or_default());
            let excess = self.tail.len().saturating_sub(TAIL_BYTES);
            self.tail.drain(..excess);
        }
        if self.exhausted {
            return;
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let partial = self.partial(source);
            partial.extend_from_slice(piece);
            if partial.ends_with(b"\n") || partial.len() >= LINE_BYTES {
                let line = std::mem::take(partial);
                self.line(source.level(), &line);
            }
        }
    }

    fn line(&mut self, level: Level, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if !text.is_empty() && self.spend(text.len()) {
            self.emit(level, "", text);
        }
    }

    /// Whether there is room for a line of so many bytes; says so once when there is none left.
    fn spend(&mut self, bytes: usize) -> bool {
        let cost = bytes.saturating_add(LINE_COST_BYTES);
        if let Some(left) = self.left_bytes.checked_sub(cost) {
            self.left_bytes = left;
            return true;
        }
        self.left_bytes = 0;
        if !std::mem::replace(&mut self.exhausted, true) {
            tracing::warn!(
                target: "guest",
                { "worker.id" = self.worker.as_str(), "job.id" = self.job },
                "the run has written more than `log` of its worker allows; the rest of it is dropped"
            );
        }
        false
    }

    fn emit(&self, level: Level, context: &str, text: &str) {
        let (context, text) = (self.secrets.hide(context), self.secrets.hide(text));
        let context = (!context.is_empty()).then_some(context.as_ref());
        // The braces are for tracing's macro, which cannot parse dotted names beside a target.
        macro_rules! emit {
            ($level:ident) => {
                tracing::$level!(
                    target: "guest",
                    { "worker.id" = self.worker.as_str(), "job.id" = self.job, context },
                    "{text}"
                )
            };
        }
        match level {
            Level::Trace => emit!(trace),
            Level::Debug => emit!(debug),
            Level::Info => emit!(info),
            Level::Warn => emit!(warn),
            Level::Error | Level::Critical => emit!(error),
        }
    }
}

impl Host for State {
    fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        let mut inner = self.log.lock();
        if inner.spend(message.len().saturating_add(context.len())) {
            inner.emit(level, &context, &message);
        }
        Ok(())
    }
}

/// Standard output or standard error of one run.
pub(crate) struct Stream {
    log: LogBudget,
    source: Source,
}

impl Stream {
    pub(crate) fn stdout(log: &LogBudget) -> Self {
        Self {
            log: log.clone(),
            source: Source::Out,
        }
    }

    pub(crate) fn stderr(log: &LogBudget) -> Self {
        Self {
            log: log.clone(),
            source: Source::Err,
        }
    }
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    /// Only asked for by WASI 0.3, which this engine does not offer.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Stream {
            log: self.log.clone(),
            source: self.source,
        })
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {}
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.lock().write(self.source, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}
