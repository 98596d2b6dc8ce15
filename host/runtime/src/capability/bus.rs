//! `warren:worker/bus`: sends are held until the run has succeeded, calls go out at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use warren_protocol::{CallError, Payload, Slip};

use super::payload::{self, SlipError};
use crate::{
    bindings::warren::worker::{
        bus::{CallError as GuestCallError, Host, SendError},
        types,
    },
    state::State,
};

/// A request that waits for its reply.
#[derive(Debug)]
pub struct Call {
    /// Where it goes and what it carries.
    pub slip: Slip,
    /// How long the caller waits.
    pub timeout: Duration,
    /// W3C trace context of the caller's run.
    pub trace_parent: Option<String>,
}

/// Carries a call out and brings the reply. Given by whoever owns the bus: this crate knows none.
pub type CallFn = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Payload, CallError>> + Send + Sync>;

impl types::Host for State {}

impl Host for State {
    fn send(&mut self, slip: types::Slip) -> wasmtime::Result<Result<(), SendError>> {
        let slip = match payload::slip(slip, self.worker.limits.payload_bytes) {
            Ok(slip) => slip,
            Err(SlipError::Stops(reason)) => return Ok(Err(SendError::Invalid(reason))),
            Err(SlipError::Data(reason)) => return Ok(Err(SendError::Payload(reason))),
        };
        if let Some(reason) = self.worker.reach.grants.refusal(&slip.stops) {
            return Ok(Err(SendError::Denied(reason)));
        }
        let sent = self.run.sends.push(slip, &self.worker.limits);
        Ok(sent.map_err(SendError::TooMany))
    }

    async fn call(
        &mut self,
        slip: types::Slip,
        timeout_ms: Option<u64>,
    ) -> wasmtime::Result<Result<types::Payload, GuestCallError>> {
        let limits = &self.worker.limits;
        let slip = match payload::slip(slip, limits.payload_bytes) {
            Ok(slip) => slip,
            Err(SlipError::Stops(reason) | SlipError::Data(reason)) => {
                return Ok(Err(GuestCallError::Invalid(reason)));
            }
        };
        if let Some(reason) = self.worker.reach.grants.refusal(&slip.stops) {
            return Ok(Err(GuestCallError::Denied(reason)));
        }
        let wanted = timeout_ms.map_or(self.worker.call_timeout, Duration::from_millis);
        let call = Call {
            slip,
            timeout: wanted.min(self.time_for_a_call()),
            trace_parent: self.run.occasion.trace_parent.clone(),
        };
        self.run.sql.release();
        let reply = (self.worker.call)(call).await;
        Ok(match reply {
            Ok(data) => payload::to_guest(&data, self.accepts, self.worker.limits.payload_bytes)
                .map_err(GuestCallError::Other),
            Err(error) => Err(to_guest_error(error)),
        })
    }
}

impl State {
    /// What is left of the run, less a reserve in which the guest can still say what went wrong:
    /// a caller that is stopped at its own deadline cannot.
    fn time_for_a_call(&self) -> Duration {
        const RESERVE: Duration = Duration::from_millis(100);
        let left = self.run.deadline.saturating_duration_since(Instant::now());
        left.saturating_sub(RESERVE.min(left / 10))
    }
}

fn to_guest_error(error: CallError) -> GuestCallError {
    let text = error.to_string();
    match error {
        CallError::Invalid { .. } => GuestCallError::Invalid(text),
        CallError::UnknownType { .. } => GuestCallError::UnknownType(text),
        CallError::NoLiveWorker { .. } => GuestCallError::NoLiveWorker(text),
        CallError::QueueFull { .. } => GuestCallError::QueueFull(text),
        CallError::Timeout { .. } => GuestCallError::Timeout(text),
        CallError::Unavailable { .. } => GuestCallError::Unavailable(text),
        CallError::Failed { .. } => GuestCallError::Failed(text),
    }
}
