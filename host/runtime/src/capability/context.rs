//! `warren:worker/context`: what is known about the run in progress.

use std::time::Instant;

use crate::{bindings::warren::worker::context::Host, state::State};

impl Host for State {
    fn worker_id(&mut self) -> wasmtime::Result<String> {
        Ok(self.worker.id.to_string())
    }

    fn attempt(&mut self) -> wasmtime::Result<u32> {
        Ok(self.run.occasion.attempt)
    }

    fn deadline_ms(&mut self) -> wasmtime::Result<u64> {
        let left = self.run.deadline.saturating_duration_since(Instant::now());
        Ok(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
    }

    fn header(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(match name.as_str() {
            "correlation-id" => self.run.occasion.correlation_id.clone(),
            "traceparent" => self.run.occasion.trace_parent.clone(),
            _ => None,
        })
    }

    fn is_cancelled(&mut self) -> wasmtime::Result<bool> {
        Ok(self.run.cancelled.is_cancelled())
    }

    fn trace_parent(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(self.run.occasion.trace_parent.clone())
    }
}
