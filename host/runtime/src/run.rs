//! One run of a guest: an instance under a deadline, from its start to its verdict.

use std::{
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use warren_protocol::{Encoding, Job, JobError, Outcome, Slip};
use wasmtime::{Store, Trap, UpdateDeadline, component::InstancePre};

use crate::{
    Fault, Limits, Plugin, Stop, Worker, fault,
    instance::Instance,
    reuse::{Dropped, Instances},
    stack::Stack,
    state::{Run, State},
    task::{Task, Work},
};

/// What the host knows about a run and tells the guest on request.
#[derive(Clone, Debug)]
pub struct Occasion {
    /// For the log.
    pub job_id: String,
    /// 1 on the first run of the job.
    pub attempt: u32,
    /// The call that the job belongs to.
    pub correlation_id: Option<String>,
    /// W3C trace context.
    pub trace_parent: Option<String>,
}

/// What came of one run.
#[derive(Debug)]
pub struct JobRun {
    /// The guest's verdict, or why it has none.
    pub verdict: Result<Outcome, Fault>,
    /// What the guest sent, to be published if the verdict is a success. Empty otherwise.
    pub sends: Vec<Slip>,
    /// Where the guest was when it failed, innermost first, a line for each call; at most 4 KiB.
    pub stack: Option<String>,
    /// How long the run took.
    pub took: Duration,
}

/// Runs one job. `stop` interrupts it.
///
/// # Cancel safety
/// Dropping the future stops the guest; its effects outside the bus stay.
pub(crate) async fn job(
    plugin: &Arc<Plugin>,
    worker: &Arc<Worker>,
    instances: &Arc<Instances>,
    job: &Job,
    occasion: Occasion,
    stop: Stop,
) -> JobRun {
    run(plugin, worker, instances, Task::Job(job), occasion, stop).await
}

/// Tells the guest of a job that was given up, as [`job`] runs one.
///
/// # Cancel safety
/// As [`job`].
pub(crate) async fn error(
    plugin: &Arc<Plugin>,
    worker: &Arc<Worker>,
    instances: &Arc<Instances>,
    error: &JobError,
    occasion: Occasion,
    stop: Stop,
) -> JobRun {
    let task = Task::Error(error);
    run(plugin, worker, instances, task, occasion, stop).await
}

async fn run(
    plugin: &Arc<Plugin>,
    worker: &Arc<Worker>,
    instances: &Arc<Instances>,
    task: Task<'_>,
    occasion: Occasion,
    stop: Stop,
) -> JobRun {
    let started = Instant::now();
    let (verdict, left) = match task.work(plugin, &worker.limits) {
        Err(fault) => (Err(fault), Left::default()),
        Ok(work) => {
            let deadline = worker.limits.deadline;
            let run = begin(worker, occasion, deadline, stop.token().clone());
            let (clock, load) = (run.meter.clock(), instances.load.clone());
            let (owned, worker, instances) = (plugin.clone(), worker.clone(), instances.clone());
            let run = async move {
                let mut left = Left::default();
                let verdict = run_work(&owned, &worker, &instances, work, run, stop, &mut left);
                (verdict.await, left)
            };
            let background = &plugin.scheduling.background;
            // A job on which a library of the host panics is no better for being run again at once.
            let run = Box::pin(AssertUnwindSafe(run).catch_unwind());
            background.run(&load, clock, run).await.unwrap_or_else(|_| {
                let text = "the host failed at this run: a panic, whose place its log has";
                (Err(Fault::Host(text.to_owned())), Left::default())
            })
        }
    };
    let took = started.elapsed();
    let Left { mut sends, stack } = left;
    if !matches!(
        verdict,
        Ok(Outcome::Done | Outcome::Forward(_) | Outcome::Route(_))
    ) {
        sends.clear();
    }
    JobRun {
        verdict,
        sends,
        stack: plugin.symbols.shown(stack).await,
        took,
    }
}

/// What a run leaves beside its verdict.
#[derive(Default)]
struct Left {
    sends: Vec<Slip>,
    /// Where the guest was when it failed.
    stack: Stack,
}

async fn run_work(
    plugin: &Plugin,
    worker: &Arc<Worker>,
    instances: &Arc<Instances>,
    work: Work,
    run: Run,
    stop: Stop,
    left: &mut Left,
) -> Result<Outcome, Fault> {
    let limits = &worker.limits;
    let mut instance = instances.instance(plugin, run);
    let said = {
        let run = pin!(async {
            let guest = instance.start(plugin).await?;
            work.of(&mut instance.store, &guest).await
        });
        let run = pin!(bounded(run, limits, stop.token()));
        stop.asked_before(run).await
    };
    match said {
        Err(fault) => {
            instance.store.data().log.finish();
            Err(fault)
        }
        Ok(Err(error)) => {
            left.stack = Stack::of(&error);
            Err(read_fault(&error, &instance.store))
        }
        Ok(Ok(said)) => {
            let state = instance.store.data();
            state.log.finish();
            left.sends = state.run.sends.take();
            let hide = |fault| match fault {
                Fault::Payload(text) => {
                    Fault::Payload(worker.reach.secrets.hide(&text).into_owned())
                }
                fault => fault,
            };
            let verdict = said.read(limits).map_err(hide)?;
            let verdict = work.judged(verdict, worker)?;
            end(instances, instance, &verdict);
            Ok(verdict)
        }
    }
}

/// What becomes of the instance of a run that has ended well. A rejection is about the job, and the
/// guest is as well as before. A guest that asks for another attempt has met something that is not
/// the job's, and what it remembers may be part of that: the next attempt comes seconds later, and
/// can bear the cost of a fresh one.
fn end(instances: &Arc<Instances>, instance: Instance, verdict: &Outcome) {
    match verdict {
        Outcome::Retry { .. } => instance.drop_for(Dropped::Retry),
        _ => instances.give_back(instance),
    }
}

/// What is known of a run as it begins.
pub(crate) fn begin(
    worker: &Arc<Worker>,
    occasion: Occasion,
    deadline: Duration,
    stop: CancellationToken,
) -> Run {
    let now = Instant::now();
    Run::new(worker, occasion, now, now + deadline.min(FAR), stop)
}

/// A Store for one run, with its clock set: running code gives way to others at every tick of the
/// engine. It also looks at its own deadline then: tokio's timers are late when every thread of
/// the runtime is busy with guests.
pub(crate) fn store(
    pre: &InstancePre<State>,
    worker: &Arc<Worker>,
    accepts: Encoding,
    run: Run,
) -> Store<State> {
    let state = State::new(worker.clone(), accepts, run);
    let mut store = Store::new(pre.engine(), state);
    store.limiter(|state| &mut state.memory);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|context| {
        let state = context.data();
        if state.run.is_over(&state.worker.limits) {
            return Ok(UpdateDeadline::Interrupt);
        }
        Ok(UpdateDeadline::Yield(1))
    });
    // One call may carry a payload, and one that is too large shall get an error, not a trap. The
    // same byte of the guest can be named thousands of times in one list, so its memory is no
    // bound.
    let most_bytes = worker.limits.payload_bytes;
    store.set_hostcall_fuel(most_bytes.saturating_mul(2).saturating_add(CALL_BYTES));
    store
}

/// The longest that a deadline can mean, thirty years: a point in time beyond what the machine's
/// clock can count is a panic.
pub(crate) const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// What one call of a guest may carry beside payloads, in bytes.
const CALL_BYTES: usize = 1 << 20;

/// Waits for a run no longer than its deadline and until somebody stops it. The caller drops the run
/// then, which unwinds the guest wherever it is. The run comes pinned: each async function that took
/// it by value would have room for it twice, and what a job's future has room for is copied.
pub(crate) async fn bounded<T>(
    run: Pin<&mut impl Future<Output = wasmtime::Result<T>>>,
    limits: &Limits,
    stop: &CancellationToken,
) -> Result<wasmtime::Result<T>, Fault> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Fault::Interrupted),
        ended = tokio::time::timeout(limits.deadline, run) => {
            ended.map_err(|_| Fault::Deadline(limits.deadline))
        }
    }
}

pub(crate) fn read_fault(error: &wasmtime::Error, store: &Store<State>) -> Fault {
    let state = store.data();
    let last_words = state.log.finish();
    if error.downcast_ref() == Some(&Trap::Interrupt) {
        let limits = &state.worker.limits;
        return if state.run.cancelled.is_cancelled() {
            Fault::Interrupted
        } else {
            let exceeded = state.run.meter.exceeded(limits);
            exceeded.unwrap_or(Fault::Deadline(limits.deadline))
        };
    }
    fault::read(
        error,
        &state.worker.limits,
        state.memory.denied,
        &last_words,
    )
}
