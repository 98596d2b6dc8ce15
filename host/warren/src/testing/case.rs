//! A case: what a worker is given, what is around it, and what is expected of it. Plain data.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value as Json;

use super::{matching::Mode, pattern::Pattern};
use crate::config::{Config, Place};

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Unique in its file.
    pub(super) name: String,
    /// The file.
    pub(super) file: PathBuf,
    /// The host of this case: limits, grants, settings, encoding.
    pub(super) config: Config,
    /// What the worker is given.
    pub(super) input: Input,
    /// What comes of it.
    pub(super) expect: Expect,
    /// The calls that it makes, in order, with their answers.
    pub(super) calls: Vec<Call>,
    /// The jobs that it sends, in order.
    pub(super) sends: Vec<Send>,
    /// What its database holds before, and after.
    pub(super) sql: Sql,
    /// What its buckets hold before.
    pub(super) entries: Vec<(String, String, Vec<u8>)>,
    /// What its buckets hold after.
    pub(super) entries_after: Vec<(String, Pattern)>,
    /// Its requests to other hosts, in order, with their answers.
    pub(super) requests: Vec<Exchange>,
    /// What its log says.
    pub(super) log: Vec<String>,
    /// What its figures are.
    pub(super) metrics: Vec<(String, f64)>,
    /// What goes wrong around it.
    pub(super) fault: Fault,
    /// How data is compared where nothing else is said.
    pub(super) mode: Mode,
}

/// What a worker is given.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// A job.
    Job(JobIn),
    /// An HTTP request.
    Request {
        method: Method,
        path: String,
        headers: HeaderMap,
        body: Bytes,
    },
}

/// A job as the bus brings it.
#[derive(Clone, Debug)]
pub(super) struct JobIn {
    pub(super) data: Json,
    pub(super) id: String,
    pub(super) sender: String,
    /// Empty: the worker alone.
    pub(super) route: Vec<String>,
    pub(super) position: usize,
    pub(super) attempt: u32,
    pub(super) trace_parent: Option<String>,
    /// Somebody waits for the answer, as for a `bus.call`.
    pub(super) is_call: bool,
}

/// What is expected of the worker.
#[derive(Clone, Debug)]
pub(super) struct Expect {
    pub(super) end: End,
    /// How often the job is run until it ends in this way.
    pub(super) attempts: u32,
    /// The word for why it was given up.
    pub(super) dead_letter: Option<String>,
}

/// How the last run ends.
#[derive(Clone, Debug)]
pub(super) enum End {
    Done,
    Forward(Pattern),
    Route {
        stops: Pattern,
        data: Pattern,
    },
    Reject(Pattern),
    Retry {
        reason: Pattern,
        after: Option<Duration>,
    },
    /// The run did not come to a verdict.
    Fault {
        kind: String,
        text: Option<Pattern>,
    },
    /// The worker is not loaded, for this reason.
    NotLoaded(Pattern),
    Response {
        status: u16,
        headers: Vec<(String, Pattern)>,
        body: Option<Body>,
    },
}

/// The body of a response or a request, as it is expected.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Json(Pattern),
    Text(Pattern),
}

/// A `bus.call` of the worker.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) place: Place,
    pub(super) stops: Pattern,
    /// `None`: whatever.
    pub(super) data: Option<Pattern>,
    pub(super) mode: Mode,
    pub(super) answer: Answer,
    pub(super) delay: Duration,
}

/// What a call ends with.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Reply(Json),
    Timeout,
    UnknownType,
    NoLiveWorker,
    QueueFull,
    Unavailable,
    Failed(String),
}

/// A `bus.send` of the worker.
#[derive(Clone, Debug)]
pub(super) struct Send {
    pub(super) stops: Pattern,
    pub(super) data: Option<Pattern>,
    pub(super) mode: Mode,
}

/// The database of the case.
#[derive(Clone, Debug, Default)]
pub(super) struct Sql {
    pub(super) before: Vec<String>,
    pub(super) after: Vec<Query>,
}

/// A query after the run, and its rows.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) statement: String,
    pub(super) rows: Pattern,
}

/// A request of the worker to another host.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) method: Pattern,
    pub(super) url: Pattern,
    pub(super) headers: Vec<(String, Pattern)>,
    pub(super) body: Option<Body>,
    pub(super) mode: Mode,
    pub(super) answer: Response,
}

/// What the other host answers.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) delay: Duration,
    /// The connection breaks in the middle of the answer.
    pub(super) is_cut: bool,
}

/// What goes wrong around the worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// The job is delivered once more when it has been settled.
    Duplicate,
    /// The host ends when the bus has what the job led to, before it acknowledges the job.
    Crash,
    /// The host ends in the middle of the run, at its `bus.call` with this number.
    CrashAtCall(u32),
}
