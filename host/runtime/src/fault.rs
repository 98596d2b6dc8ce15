//! Why a run ended without a verdict of its own.

use std::{io, time::Duration};

use rustix::io::Errno;
use wasmtime::{PoolConcurrencyLimitError, Trap, component::ResourceTableError};

use crate::{engine::STACK_BYTES, limits::Denied, state::MAX_RESOURCES};

/// What went wrong in a run. Every one of them is an outcome like any other for the job; the
/// instance is gone and its neighbours noticed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The guest panicked, aborted, or did something that WebAssembly forbids.
    #[error("the guest trapped: {0}")]
    Trap(String),
    /// The guest asked for more memory than the limit and could not go on without.
    #[error(
        "the guest needs more than its {limit_bytes} bytes of memory: raise `memory` of the worker if that is right"
    )]
    Memory {
        /// The limit that it hit.
        limit_bytes: u64,
    },
    /// The guest's tables would have had more elements than the limit, and it could not go on without.
    #[error(
        "the guest needs tables of more than {limit} elements: raise `tables` of the worker if that is right"
    )]
    Tables {
        /// The limit that it hit.
        limit: usize,
    },
    /// The guest's calls went too deep. The limit is the same for all workers.
    #[error(
        "the guest has used up the {} KiB of its stack: it calls itself too often, or without end",
        STACK_BYTES >> 10
    )]
    Stack,
    /// The run took longer than the worker's deadline.
    #[error(
        "the run took longer than its deadline of {0:?}: raise `deadline` of the worker if that is right"
    )]
    Deadline(Duration),
    /// The run computed for longer than it may.
    #[error(
        "the run has used more than its {0:?} of CPU time: raise `cpu` of the worker if that is right"
    )]
    Cpu(Duration),
    /// The run called the host more often than it may.
    #[error(
        "the run has called the host more than {limit} times: raise `host_calls` of the worker if that is right"
    )]
    HostCalls {
        /// The limit that it hit.
        limit: u64,
    },
    /// The guest held too many of the host's resources. The limit is the same for all workers.
    #[error(
        "the guest holds too many resources (more than {MAX_RESOURCES} streams, pollables and the like of the host): drop those that are done with"
    )]
    Resources,
    /// The guest called `exit`.
    #[error("the guest called exit")]
    Exit,
    /// What goes in or comes out cannot be used: too large, or not valid in its encoding.
    #[error("{0}")]
    Payload(String),
    /// The guest wants to reach what the operator has not granted.
    #[error("{0}")]
    Denied(String),
    /// The host could not start the guest, and will not be able to later.
    #[error("the host could not run the guest: {0}")]
    Host(String),
    /// The host had no room for the guest just now: instances beside it hold the memories or
    /// tables that it needs. Transient, and neither the guest's fault nor the job's: the same run
    /// succeeds when its neighbours have ended.
    #[error("the host has no room for the guest just now: {0}")]
    Busy(String),
    /// The host stopped the run: a shutdown, or the job belongs to somebody else by now. The
    /// guest is not at fault and no attempt is counted.
    #[error("interrupted by the host")]
    Interrupted,
}

impl Fault {
    /// The word for metrics and dead letters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Trap(_) | Self::Exit => "trap",
            Self::Memory { .. } => "oom",
            Self::Tables { .. } => "tables",
            Self::Stack => "stack",
            Self::Deadline(_) => "timeout",
            Self::Cpu(_) => "cpu",
            Self::HostCalls { .. } => "host_calls",
            Self::Resources => "resources",
            Self::Payload(_) => "decode",
            Self::Denied(_) => "denied",
            Self::Host(_) => "host",
            Self::Busy(_) => "busy",
            Self::Interrupted => "interrupted",
        }
    }
}

/// How much of a guest's last words an error shows, in bytes.
const LAST_WORDS_BYTES: usize = 1024;

/// Reads wasmtime's error. `last_words` is the end of what the guest wrote to standard error,
/// where a panic leaves its message.
pub(crate) fn read(
    error: &wasmtime::Error,
    limits: &crate::Limits,
    denied: Denied,
    last_words: &str,
) -> Fault {
    if error.downcast_ref::<wasmtime_wasi::I32Exit>().is_some() {
        return Fault::Exit;
    }
    // Before the memory: what was denied earlier is not what ended this run.
    if let Some(exhausted) = error.downcast_ref::<PoolConcurrencyLimitError>() {
        return Fault::Busy(format!(
            "{exhausted}: allow more instances, or less concurrency of workers"
        ));
    }
    if is_out_of_room(error) {
        return Fault::Busy(
            "the system has no more address space or memory mappings for this process: lower \
             `instances`, or raise the kernel's vm.max_map_count (and `ulimit -v`, where it is set)"
                .to_owned(),
        );
    }
    if error.downcast_ref() == Some(&Trap::StackOverflow) {
        return Fault::Stack;
    }
    if matches!(
        error.root_cause().downcast_ref(),
        Some(ResourceTableError::Full)
    ) {
        return Fault::Resources;
    }
    match denied {
        Denied::Nothing => {}
        Denied::Memory => {
            return Fault::Memory {
                limit_bytes: limits.memory_bytes,
            };
        }
        Denied::Tables => {
            return Fault::Tables {
                limit: limits.table_elements,
            };
        }
    }
    let cause = error.root_cause().to_string();
    // wasmtime tells these two by their words only.
    if cause.contains("store handle limit exceeded") {
        return Fault::Resources;
    }
    if cause.contains("fuel allocated for hostcalls") {
        return Fault::Payload(format!(
            "the guest handed over far more than the {} bytes that a payload may have: raise \
             `payload` of the worker if that is right",
            limits.payload_bytes
        ));
    }
    let what = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => cause,
    };
    let last_words = last_words.trim();
    let mut start = last_words.len().saturating_sub(LAST_WORDS_BYTES);
    while !last_words.is_char_boundary(start) {
        start += 1;
    }
    match last_words.get(start..).unwrap_or_default() {
        "" => Fault::Trap(what),
        words => Fault::Trap(format!("{what}; its last words: {words}")),
    }
}

/// Whether the system refused memory to the host. wasmtime hands on what the call gave it, as it came or
/// made into an error of the standard library.
fn is_out_of_room(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        let is_of_io = |error: &io::Error| error.kind() == io::ErrorKind::OutOfMemory;
        cause.downcast_ref() == Some(&Errno::NOMEM)
            || cause.downcast_ref::<io::Error>().is_some_and(is_of_io)
    })
}

#[cfg(test)]
mod tests {
    use wasmtime::{
        Config, Engine, Instance, InstanceAllocationStrategy, Module, PoolingAllocationConfig,
        Store,
    };

    use super::*;

    #[test]
    fn a_pool_that_is_used_up_is_busy_and_not_broken() {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_memories(1).max_memory_size(1 << 16);
        let mut config = Config::new();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config).unwrap();
        let module = Module::new(&engine, wat::parse_str("(module (memory 1))").unwrap()).unwrap();
        let mut store = Store::new(&engine, ());
        Instance::new(&mut store, &module, &[]).unwrap();
        let error = Instance::new(&mut store, &module, &[]).unwrap_err();
        let fault = read(&error, &crate::Limits::default(), Denied::Nothing, "");
        assert!(matches!(fault, Fault::Busy(_)), "{fault:?}");
        assert_eq!(fault.reason(), "busy");
    }

    #[test]
    fn a_system_without_room_is_busy_and_the_guest_has_not_trapped() {
        let raw = Errno::NOMEM.raw_os_error();
        let fault = |error: wasmtime::Error| {
            let error = error.context("making an instance");
            read(&error, &crate::Limits::default(), Denied::Nothing, "")
        };
        for error in [
            Errno::NOMEM.into(),
            io::Error::from_raw_os_error(raw).into(),
            io::Error::from(io::ErrorKind::OutOfMemory).into(),
        ] {
            let fault = fault(error);
            assert!(matches!(fault, Fault::Busy(_)), "{fault:?}");
            assert!(fault.to_string().contains("vm.max_map_count"), "{fault}");
        }
        for error in [
            Errno::INVAL.into(),
            io::Error::from(io::ErrorKind::NotFound).into(),
        ] {
            let fault = fault(error);
            assert!(matches!(fault, Fault::Trap(_)), "{fault:?}");
        }
    }
}
