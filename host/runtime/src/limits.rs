//! What one run may use, and the part of it that wasmtime asks about: memory and tables.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// Bounds of one worker. Plain data; the operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance, in bytes.
    pub memory_bytes: u64,
    /// Wall clock for one run, waiting included.
    pub deadline: Duration,
    /// Runs at the same time.
    pub concurrency: usize,
    /// The largest payload in or out, in bytes.
    pub payload_bytes: usize,
    /// How many jobs one run may send. Together they hold at most four times `payload_bytes`.
    pub sends: usize,
    /// How much one run may write to its log, standard output and standard error, in bytes.
    pub log_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            deadline: Duration::from_secs(30),
            concurrency: 64,
            payload_bytes: 8 << 20,
            sends: 1000,
            log_bytes: 64 << 10,
        }
    }
}

/// Elements of one table: a guest's function table needs thousands, an attack millions.
const MAX_TABLE_ELEMENTS: usize = 100_000;
/// Core instances, tables and memories in one component: the largest known guests (a language
/// runtime with its adapter) need four of each.
const MAX_ITEMS: usize = 16;

/// Says no to growth over the limit, and remembers that it did: the guest then dies of a failed
/// allocation, which looks like any other panic.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    limit_bytes: usize,
    used_bytes: usize,
    pub(crate) denied: bool,
}

impl MemoryLimiter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limit_bytes: usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX),
            used_bytes: 0,
            denied: false,
        }
    }
}

impl ResourceLimiter for MemoryLimiter {
    /// The limit is one for all memories of the component together.
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let others = self.used_bytes.saturating_sub(current);
        let wanted = others.saturating_add(desired);
        let allowed = wanted <= self.limit_bytes && maximum.is_none_or(|most| desired <= most);
        if allowed {
            self.used_bytes = wanted;
        } else {
            self.denied = true;
        }
        Ok(allowed)
    }

    /// Over what the engine sets aside for one memory, which is the operator's limit too.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.denied = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        MAX_ITEMS
    }

    fn tables(&self) -> usize {
        MAX_ITEMS
    }

    fn memories(&self) -> usize {
        MAX_ITEMS
    }
}
