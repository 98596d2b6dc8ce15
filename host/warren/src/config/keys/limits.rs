//! The keys of `[limits]`.

use std::ops::RangeInclusive;

use warren_runtime::MAX_TABLE_ELEMENTS;

use super::{LONGEST_DEADLINE, LONGEST_WAIT, SHORTEST};
use crate::config::{
    Limits,
    reach::{DATABASE, HEADERS, REQUESTS, SQL_ROWS, TRANSFER},
    read::Key,
    values,
};

/// One page of WebAssembly, and all that 32 bits can address.
pub(super) const MEMORY: RangeInclusive<u64> = 64 << 10..=4 << 30;
/// RabbitMQ takes no message beyond 512 MiB, however it is configured.
const PAYLOAD: RangeInclusive<u64> = 1 << 10..=512 << 20;
/// Each running instance keeps its stack and memory; thousands are a slip of the keyboard.
const CONCURRENCY: RangeInclusive<u32> = 1..=10_000;
const HOST_CALLS: RangeInclusive<u32> = 1..=u32::MAX;
/// All of them are one message, and are in memory until the run has ended.
const SENDS: RangeInclusive<u32> = 0..=100_000;
/// A run that writes more is no log.
const LOG_BYTES: RangeInclusive<u64> = 0..=1 << 30;
#[allow(clippy::cast_possible_truncation, reason = "a million")]
const TABLES: RangeInclusive<u32> = 1..=MAX_TABLE_ELEMENTS as u32;
const ATTEMPTS: RangeInclusive<u32> = 1..=1000;
const BREAKER: RangeInclusive<u32> = 0..=10_000;

/// Under `[limits]`, and under `[workers.TYPE]` for one type.
pub(in crate::config) const LIMITS: &[Key<Limits>] = &[
    Key {
        name: "memory",
        set: |limits, node, report| {
            report.put(&mut limits.memory_bytes, values::size(node, MEMORY));
        },
    },
    Key {
        name: "deadline",
        set: |limits, node, report| {
            let value = values::duration(node, SHORTEST..=LONGEST_DEADLINE);
            report.put(&mut limits.deadline, value);
        },
    },
    Key {
        name: "cpu",
        set: |limits, node, report| {
            let value = values::duration(node, SHORTEST..=LONGEST_DEADLINE);
            report.put(&mut limits.cpu, value);
        },
    },
    Key {
        name: "host_calls",
        set: |limits, node, report| {
            report.put(&mut limits.host_calls, values::number(node, HOST_CALLS));
        },
    },
    Key {
        name: "concurrency",
        set: |limits, node, report| {
            let value = values::number(node, CONCURRENCY).map(|number| number as usize);
            report.put(&mut limits.concurrency, value);
        },
    },
    Key {
        name: "attempts",
        set: |limits, node, report| {
            report.put(&mut limits.attempts, values::number(node, ATTEMPTS));
        },
    },
    Key {
        name: "retry_base",
        set: |limits, node, report| {
            let value = values::duration(node, SHORTEST..=LONGEST_WAIT);
            report.put(&mut limits.retry_base, value);
        },
    },
    Key {
        name: "retry_cap",
        set: |limits, node, report| {
            let value = values::duration(node, SHORTEST..=LONGEST_WAIT);
            report.put(&mut limits.retry_cap, value);
        },
    },
    Key {
        name: "breaker",
        set: |limits, node, report| {
            report.put(&mut limits.breaker, values::number(node, BREAKER));
        },
    },
    Key {
        name: "payload",
        set: |limits, node, report| {
            report.put(&mut limits.payload_bytes, values::size(node, PAYLOAD));
        },
    },
    Key {
        name: "sends",
        set: |limits, node, report| report.put(&mut limits.sends, values::number(node, SENDS)),
    },
    Key {
        name: "log",
        set: |limits, node, report| {
            report.put(&mut limits.log_bytes, values::size(node, LOG_BYTES));
        },
    },
    Key {
        name: "tables",
        set: |limits, node, report| report.put(&mut limits.tables, values::number(node, TABLES)),
    },
    Key {
        name: "sql_rows",
        set: |limits, node, report| {
            let value = values::number(node, SQL_ROWS).map(|number| number as usize);
            report.put(&mut limits.sql_rows, value);
        },
    },
    Key {
        name: "statement_timeout",
        set: |limits, node, report| {
            let value = values::duration(node, SHORTEST..=LONGEST_DEADLINE);
            report.put(&mut limits.statement_timeout, value);
        },
    },
    Key {
        name: "database_size",
        set: |limits, node, report| {
            report.put(&mut limits.database_bytes, values::size(node, DATABASE));
        },
    },
    Key {
        name: "http_connections",
        set: |limits, node, report| {
            let value = values::number(node, CONCURRENCY).map(|number| number as usize);
            report.put(&mut limits.http_connections, value);
        },
    },
    Key {
        name: "http_requests",
        set: |limits, node, report| {
            report.put(&mut limits.http_requests, values::number(node, REQUESTS));
        },
    },
    Key {
        name: "http_transfer",
        set: |limits, node, report| {
            report.put(
                &mut limits.http_transfer_bytes,
                values::size(node, TRANSFER),
            );
        },
    },
    Key {
        name: "http_headers",
        set: |limits, node, report| {
            report.put(&mut limits.http_header_bytes, values::size(node, HEADERS));
        },
    },
];
