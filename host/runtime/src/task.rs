//! What a guest is given to do on the bus, and what it says when it has done it: a job, or the news
//! that one which it sent was given up.

use std::time::Duration;

use warren_protocol::{Job, JobError, Outcome};
use wasmtime::{Store, component::Instance};

use crate::{
    Fault, Limits, Plugin, Worker,
    bindings::{
        exports::warren::worker::{errors, handler},
        warren::worker::types,
    },
    capability::payload::{self, SlipError},
    state::State,
};

/// What it is.
#[derive(Clone, Copy)]
pub(crate) enum Task<'a> {
    Job(&'a Job),
    Error(&'a JobError),
}

/// The same as the guest sees it, and the export that takes it.
pub(crate) enum Work {
    Handle(handler::GuestIndices, handler::Job),
    Treat(errors::GuestIndices, errors::JobError),
}

/// What the guest has said.
pub(crate) enum Said {
    Verdict(Result<types::Outcome, types::Failure>),
    Treated(Result<(), String>),
}

impl Task<'_> {
    /// In the guest's words.
    pub(crate) fn work(&self, plugin: &Plugin, limits: &Limits) -> Result<Work, Fault> {
        let accepts = plugin.description.accepts;
        let to_guest =
            |data| payload::to_guest(data, accepts, limits.payload_bytes).map_err(Fault::Payload);
        match self {
            Self::Job(job) => {
                let Some(indices) = &plugin.handler else {
                    return Err(Fault::Host(
                        "this worker takes no jobs: it exports no handler".to_owned(),
                    ));
                };
                let route = job.route.iter();
                let job = handler::Job {
                    id: job.id.clone(),
                    sender: job.sender.id.clone(),
                    route: route.map(|stop| stop.as_str().to_owned()).collect(),
                    position: u32::try_from(job.position).unwrap_or(u32::MAX),
                    data: to_guest(&job.data)?,
                };
                Ok(Work::Handle(indices.clone(), job))
            }
            Self::Error(error) => {
                let Some(indices) = &plugin.errors else {
                    return Err(Fault::Host(
                        "this worker does not treat errors: it exports no `errors`".to_owned(),
                    ));
                };
                // The news counts more than what the job carried.
                let data = to_guest(&error.data).ok();
                Ok(Work::Treat(indices.clone(), job_error(error, data)))
            }
        }
    }
}

fn job_error(error: &JobError, data: Option<types::Payload>) -> errors::JobError {
    let text = bounded_reason(error.error.clone());
    let Some(ending) = &error.ending else {
        // From somebody who says no more.
        return errors::JobError {
            id: error.id.clone(),
            stop: String::new(),
            attempts: 0,
            cause: errors::Cause::Other(text),
            data,
        };
    };
    errors::JobError {
        id: error.id.clone(),
        stop: ending.stop.clone(),
        attempts: ending.attempts,
        cause: match ending.reason.as_str() {
            "permanent" => errors::Cause::Rejected(text),
            "unrouted" => errors::Cause::Undeliverable(text),
            "expired" => errors::Cause::Expired(text),
            _ => errors::Cause::Failed(text),
        },
        data,
    }
}

impl Work {
    /// The verdict, if the worker may do what it says.
    pub(crate) fn judged(&self, verdict: Outcome, worker: &Worker) -> Result<Outcome, Fault> {
        match self {
            Self::Handle(_, job) => worker.reach.judge(verdict, &job.sender, &job.route),
            Self::Treat(..) => worker.reach.judge(verdict, "", &[]),
        }
    }

    /// Has the guest do it.
    pub(crate) async fn of(
        &self,
        store: &mut Store<State>,
        guest: &Instance,
    ) -> wasmtime::Result<Said> {
        match self {
            Self::Handle(indices, job) => {
                let guest = indices.load(&mut *store, guest)?;
                Ok(Said::Verdict(guest.call_handle(store, job).await?))
            }
            Self::Treat(indices, error) => {
                let guest = indices.load(&mut *store, guest)?;
                Ok(Said::Treated(guest.call_treat_error(store, error).await?))
            }
        }
    }
}

impl Said {
    /// What that means.
    pub(crate) fn read(self, limits: &Limits) -> Result<Outcome, Fault> {
        match self {
            Self::Verdict(verdict) => read_verdict(verdict, limits),
            Self::Treated(Ok(())) => Ok(Outcome::Done),
            Self::Treated(Err(reason)) => Ok(Outcome::Reject {
                reason: bounded_reason(reason),
            }),
        }
    }
}

fn read_verdict(
    verdict: Result<types::Outcome, types::Failure>,
    limits: &Limits,
) -> Result<Outcome, Fault> {
    let most_bytes = limits.payload_bytes;
    Ok(match verdict {
        Ok(types::Outcome::Done) => Outcome::Done,
        Ok(types::Outcome::Forward(data)) => {
            Outcome::Forward(payload::from_guest(data, most_bytes).map_err(Fault::Payload)?)
        }
        Ok(types::Outcome::Route(slip)) => Outcome::Route(
            payload::slip(slip, most_bytes).map_err(|error| match error {
                SlipError::Stops(reason) | SlipError::Data(reason) => Fault::Payload(reason),
            })?,
        ),
        Err(types::Failure::Retry(retry)) => Outcome::Retry {
            after: retry.after_ms.map(Duration::from_millis),
            reason: bounded_reason(retry.reason),
        },
        Err(types::Failure::Reject(reason)) => Outcome::Reject {
            reason: bounded_reason(reason),
        },
    })
}

/// The contract keeps 4 KiB of a reason.
fn bounded_reason(mut reason: String) -> String {
    const MOST_BYTES: usize = 4 << 10;
    reason.truncate(reason.floor_char_boundary(MOST_BYTES));
    reason
}
