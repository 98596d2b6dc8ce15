//! `warren topology prune`.

use serde_json::json;
use warren_bus::operator::{Depth, OperatorError, Retired, TypeQueues};
use warren_protocol::WorkerType;

use super::{
    super::{
        Verdict,
        output::{Output, say},
    },
    View,
};

pub(super) async fn run(
    view: &View<'_>,
    worker_type: &WorkerType,
    drain: bool,
    dry_run: bool,
    output: &mut Output,
) -> anyhow::Result<Verdict> {
    if dry_run {
        let queues = view.operator.queues_of(worker_type).await?;
        return plan(view, worker_type, drain, &queues, output);
    }
    let retired = match view.operator.retire(worker_type, drain).await {
        Ok(retired) => retired,
        Err(refusal @ OperatorError::InUse(_)) => {
            say(&format!("warren: nothing was deleted: {refusal}"));
            return Ok(Verdict::Incomplete);
        }
        Err(error) => return Err(error.into()),
    };
    let Retired {
        drained,
        work_deleted,
        dead_deleted,
        dead_kept,
    } = retired;
    if view.json {
        output.json(&json!({
            "kind": "summary",
            "type": worker_type.as_str(),
            "drained": drained,
            "work_deleted": work_deleted,
            "dead_deleted": dead_deleted,
            "dead_kept": dead_kept,
        }))?;
        return Ok(Verdict::Done);
    }
    if drained > 0 {
        output.line(&format!(
            "{drained} jobs are dead letters of {worker_type} now"
        ))?;
    }
    for (is_deleted, kind) in [(work_deleted, "q"), (dead_deleted, "dlq")] {
        if is_deleted {
            output.line(&format!("deleted warren.v1.{kind}.{worker_type}"))?;
        }
    }
    if dead_kept > 0 {
        output.line(&format!(
            "kept warren.v1.dlq.{worker_type} with its {dead_kept} dead letters: export, replay \
             (--to another type) or drop them, and prune again"
        ))?;
    } else if !work_deleted && !dead_deleted {
        output.line(&format!("there is nothing of {worker_type} on the broker"))?;
    }
    Ok(Verdict::Done)
}

/// What would be done.
fn plan(
    view: &View<'_>,
    worker_type: &WorkerType,
    drain: bool,
    queues: &TypeQueues,
    output: &mut Output,
) -> anyhow::Result<Verdict> {
    let TypeQueues { work, dead } = queues;
    let would_refuse = work.is_some_and(|work| work.consumers > 0 || (work.ready > 0 && !drain));
    if view.json {
        let depth = |depth: &Option<Depth>| {
            depth.map(|depth| json!({"ready": depth.ready, "consumers": depth.consumers}))
        };
        output.json(&json!({
            "kind": "dry_run",
            "type": worker_type.as_str(),
            "work": depth(work),
            "dead": depth(dead),
            "refused": would_refuse,
        }))?;
    } else {
        output.line(&match work {
            None => format!("warren.v1.q.{worker_type} is not there"),
            Some(work) if work.consumers > 0 => format!(
                "would refuse: warren.v1.q.{worker_type} has {} consumers",
                work.consumers
            ),
            Some(work) if work.ready > 0 && !drain => format!(
                "would refuse: {} jobs wait in warren.v1.q.{worker_type}, and there is no --drain",
                work.ready
            ),
            Some(work) => format!(
                "would take warren.v1.q.{worker_type} off warren.v1.jobs, make dead letters of its \
                 {} jobs, and delete it",
                work.ready
            ),
        })?;
        let n_buried = work.map_or(0, |work| work.ready);
        output.line(&match dead {
            None => format!("warren.v1.dlq.{worker_type} is not there"),
            Some(dead) if dead.ready + n_buried > 0 => format!(
                "would keep warren.v1.dlq.{worker_type}, with {} dead letters",
                dead.ready + n_buried
            ),
            Some(_) => format!("would delete warren.v1.dlq.{worker_type}, which is empty"),
        })?;
    }
    Ok(if would_refuse {
        Verdict::Incomplete
    } else {
        Verdict::Done
    })
}
