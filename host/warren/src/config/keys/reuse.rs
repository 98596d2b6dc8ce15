//! Under `[workers.TYPE.reuse]`: how long an instance of a worker is kept.

use std::{ops::RangeInclusive, time::Duration};

use super::{limits::MEMORY, paths};
use crate::config::{
    Reuse, WorkerConfig,
    read::{Key, Report, names, set},
    tree::{Node, Value},
    values,
};

const CALLS: RangeInclusive<u32> = 1..=1_000_000;
const AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// Under `[workers.TYPE.reuse]`.
pub(crate) const REUSE: &[Key<Reuse>] = &[
    Key {
        name: "calls",
        set: |reuse, node, report| report.put(&mut reuse.calls, values::number(node, CALLS)),
    },
    Key {
        name: "memory",
        set: |reuse, node, report| {
            let value = values::size(node, MEMORY).map(Some);
            report.put(&mut reuse.memory_bytes, value);
        },
    },
    Key {
        name: "age",
        set: |reuse, node, report| report.put(&mut reuse.age, values::duration(node, AGE)),
    },
];

/// A table, or just `true` for one without keys.
pub(super) fn read(worker: &mut WorkerConfig, node: &Node, report: &mut Report) {
    let mut reuse = Reuse::default();
    if let Value::Table(_) = node.value {
        for entry in report.entries(node) {
            if !set(REUSE, &mut reuse, entry, report) {
                report.unknown(entry, &names(REUSE).collect::<Vec<_>>(), &paths());
            }
        }
        worker.reuse = Some(reuse);
    } else {
        let wanted = values::truth(node).map(|wanted| wanted.then_some(reuse));
        report.put(&mut worker.reuse, wanted);
    }
}
