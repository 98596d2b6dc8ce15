//! Says when a worker that may have colleagues on other machines keeps what it stores on this one.

use std::collections::BTreeSet;

use warren_protocol::WorkerType;
use warren_runtime::FirstUse;

use crate::config::{Broker, Config, WorkerConfig};

/// About databases.
pub(crate) fn rows(config: &Config) -> FirstUse {
    warning(
        config,
        |own| own.keeps_rows_here,
        |worker_type| {
            tracing::warn!(
                worker.type = %worker_type,
                remedy = format!(
                    "give all of them one database, sql = \"postgres://...\" under \
                     [workers.{worker_type}]; or, where no other machine runs {worker_type}, say so with \
                     sql = true"
                ),
                "the worker keeps its rows in a file of this machine: those of its type on other machines \
                 have other rows"
            );
        },
    )
}

/// About stores of keys and values.
pub(crate) fn values(config: &Config) -> FirstUse {
    warning(
        config,
        |own| own.keeps_values_here,
        |worker_type| {
            tracing::warn!(
                worker.type = %worker_type,
                remedy = format!(
                    "give all of them one store, keyvalue = \"redis://...\" under \
                     [workers.{worker_type}]; or, where no other machine runs {worker_type}, say so with \
                     keyvalue = true"
                ),
                "the worker keeps its keys and values in a file of this machine: those of its type on other \
                 machines have others"
            );
        },
    )
}

/// Nobody else serves a bus that is in this process, and whoever has written where a worker keeps
/// what it stores knows it.
fn warning(
    config: &Config,
    is_known: impl Fn(&WorkerConfig) -> bool,
    warn: impl Fn(&WorkerType) + Send + Sync + 'static,
) -> FirstUse {
    if config.broker == Broker::Embedded {
        return FirstUse::default();
    }
    let workers = config.workers.iter();
    let known: BTreeSet<WorkerType> = workers
        .filter(|(_, own)| is_known(own))
        .map(|(worker_type, _)| worker_type.clone())
        .collect();
    FirstUse::new(move |worker_type| {
        if !known.contains(worker_type) {
            warn(worker_type);
        }
    })
}
