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
    /// Time on a processor for one run, waiting not included.
    pub cpu: Duration,
    /// Calls of the host in one run, of whatever interface.
    pub host_calls: u64,
    /// Runs at the same time.
    pub concurrency: usize,
    /// The largest payload in or out, in bytes.
    pub payload_bytes: usize,
    /// How many jobs one run may send. Together they hold at most four times `payload_bytes`.
    pub sends: usize,
    /// How much one run may write to its log, standard output and standard error, in bytes.
    pub log_bytes: usize,
    /// Elements of all tables of one instance together.
    pub table_elements: usize,
    /// Rows that one query may return.
    pub sql_rows: usize,
    /// How long one statement may work.
    pub statement_timeout: Duration,
    /// The size of the worker's database, in bytes.
    pub database_bytes: u64,
    /// Requests to other hosts under way at the same time, of all runs together.
    pub http_connections: usize,
    /// Requests to other hosts that one run may make.
    pub http_requests: u32,
    /// What the bodies of a run's requests and their responses may have together, in bytes.
    pub http_transfer_bytes: u64,
    /// The head of a response of another host, in bytes; at least 8 KiB.
    pub http_header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            deadline: Duration::from_secs(30),
            cpu: Duration::from_secs(10),
            host_calls: 1_000_000,
            concurrency: 64,
            payload_bytes: 8 << 20,
            sends: 1000,
            log_bytes: 64 << 10,
            table_elements: 100_000,
            sql_rows: 10_000,
            statement_timeout: Duration::from_secs(10),
            database_bytes: 4 << 30,
            http_connections: 64,
            http_requests: 100,
            http_transfer_bytes: 64 << 20,
            http_header_bytes: 32 << 10,
        }
    }
}

/// The most table elements that any worker may be granted: a guest's function table needs thousands,
/// a large language runtime's tens of thousands. Each costs 8 bytes when it is used.
pub const MAX_TABLE_ELEMENTS: usize = 1_000_000;
/// Core instances, tables and memories in one component: the largest known guests (a language
/// runtime with its adapter) need four of each.
const MAX_ITEMS: usize = 16;

/// Says no to growth over the limit, and remembers that it did: the guest then dies of a failed
/// allocation, which looks like any other panic.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    limit_bytes: usize,
    used_bytes: usize,
    limit_elements: usize,
    used_elements: usize,
    pub(crate) denied: Denied,
}

/// The last thing that a run was denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Denied {
    #[default]
    Nothing,
    Memory,
    Tables,
}

impl MemoryLimiter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limit_bytes: usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX),
            used_bytes: 0,
            limit_elements: limits.table_elements.min(MAX_TABLE_ELEMENTS),
            used_elements: 0,
            denied: Denied::Nothing,
        }
    }
}

impl MemoryLimiter {
    /// What all memories of the instance have grown to, in bytes. They never shrink.
    pub(crate) fn used_bytes(&self) -> u64 {
        u64::try_from(self.used_bytes).unwrap_or(u64::MAX)
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
            self.denied = Denied::Memory;
        }
        Ok(allowed)
    }

    /// Over what the engine sets aside for one memory, which is the operator's limit too.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.denied = Denied::Memory;
        Ok(())
    }

    /// As for memories: one limit for all of them.
    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let others = self.used_elements.saturating_sub(current);
        let wanted = others.saturating_add(desired);
        let allowed = wanted <= self.limit_elements && maximum.is_none_or(|most| desired <= most);
        if allowed {
            self.used_elements = wanted;
        } else {
            self.denied = Denied::Tables;
        }
        Ok(allowed)
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

#[cfg(test)]
mod tests {
    use wasmtime::{Engine, Instance, Module, Store};

    use super::*;

    /// Runs a core module's `run` under a limit of ten pages of 64 KiB, and returns what it says
    /// and whether something was denied.
    fn run(module: &str) -> (wasmtime::Result<i32>, bool) {
        let limits = Limits {
            memory_bytes: 10 << 16,
            table_elements: 10,
            ..Limits::default()
        };
        let engine = Engine::default();
        let module = Module::new(&engine, wat::parse_str(module).unwrap()).unwrap();
        let mut store = Store::new(&engine, MemoryLimiter::new(&limits));
        store.limiter(|limiter| limiter);
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let run = instance.get_typed_func::<(), i32>(&mut store, "run");
        let result = run.unwrap().call(&mut store, ());
        (result, store.data().denied != Denied::Nothing)
    }

    #[test]
    fn one_memory_grows_to_the_limit() {
        let module = |pages: u32| {
            format!(
                r#"(module (memory 4)
                    (func (export "run") (result i32) (memory.grow (i32.const {pages}))))"#
            )
        };
        assert!(matches!(run(&module(6)), (Ok(4), false)));
        assert!(matches!(run(&module(7)), (Ok(-1), true)));
    }

    #[test]
    fn all_memories_count_together() {
        let module = |pages: u32| {
            format!(
                r#"(module (memory $a 4) (memory $b 4)
                    (func (export "run") (result i32)
                        (drop (memory.grow $a (i32.const 1)))
                        (memory.grow $b (i32.const {pages}))))"#
            )
        };
        assert!(matches!(run(&module(1)), (Ok(4), false)));
        assert!(matches!(run(&module(2)), (Ok(-1), true)));
    }

    #[test]
    fn all_tables_count_together() {
        let module = |elements: u32| {
            format!(
                r#"(module (table $a 4 funcref) (table $b 4 funcref)
                    (func (export "run") (result i32)
                        (drop (table.grow $a (ref.null func) (i32.const 1)))
                        (table.grow $b (ref.null func) (i32.const {elements}))))"#
            )
        };
        assert!(matches!(run(&module(1)), (Ok(4), false)));
        assert!(matches!(run(&module(2)), (Ok(-1), true)));
    }

    #[test]
    fn objects_of_the_garbage_collector_count_too() {
        let module = r#"(module
            (type $bytes (array (mut i8)))
            (type $list (struct (field (ref null $list)) (field (ref $bytes))))
            (global $held (mut (ref null $list)) (ref.null $list))
            (func (export "run") (result i32)
                (loop $more
                    (global.set $held (struct.new $list
                        (global.get $held)
                        (array.new_default $bytes (i32.const 60000))))
                    (br $more))
                (unreachable)))"#;
        let (result, denied) = run(module);
        assert!(result.is_err() && denied, "{result:?}");
    }
}
