//! `warren dlq replay` and `warren dlq drop`: what takes dead letters out of their queue.

use std::time::{Duration, Instant};

use serde_json::json;
use warren_bus::operator::{Action, DeadQueue, Operator, Order, Outcome, Tally};

use super::{
    super::{
        Verdict,
        output::{Output, say},
        progress::Progress,
    },
    Choice, Dlq, list,
};
use crate::clock::now_ms;

/// Whether the command is not meant as it is written, and what to write.
pub(super) fn misuse(command: &Dlq) -> Option<&'static str> {
    match command {
        Dlq::Drop {
            yes: false,
            choice: Choice { dry_run: false, .. },
            ..
        } => Some(
            "warren: dead letters that are dropped are gone: add --yes to do it, or --dry-run to \
             see how many they are",
        ),
        _ => None,
    }
}

pub(super) async fn run(
    operator: &Operator,
    command: &Dlq,
    json: bool,
    output: &mut Output,
) -> anyhow::Result<Verdict> {
    let (order, choice) = match command {
        Dlq::Replay {
            worker_type,
            to,
            rate,
            choice,
            ..
        } => {
            let queue = worker_type.clone();
            let order = Order {
                queue: queue.map_or(DeadQueue::Unrouted, DeadQueue::Of),
                action: Action::Replay(to.clone()),
                limit: choice.limit,
                pause: rate.unwrap_or_default(),
            };
            (order, choice)
        }
        Dlq::Drop {
            worker_type,
            choice,
            ..
        } => {
            let order = Order {
                queue: DeadQueue::Of(worker_type.clone()),
                action: Action::Drop,
                limit: choice.limit,
                pause: Duration::ZERO,
            };
            (order, choice)
        }
        Dlq::Ls { .. } | Dlq::Show { .. } | Dlq::Export { .. } => return Ok(Verdict::Misuse),
    };
    if choice.dry_run {
        return dry_run(operator, &order, choice, json, output).await;
    }
    let begun = Instant::now();
    let mut progress = Progress::new(verb(&order.action), json);
    let now_ms = now_ms();
    let wanted = |letter: &_| choice.filter.matches(letter, now_ms);
    let mut failures = Vec::new();
    let tally = operator
        .work_off(&order, wanted, |outcome, tally| {
            if let (Outcome::Failed { id, why }, true) = (outcome, json) {
                failures.push(json!({"kind": "failed", "id": id, "error": why}));
            }
            progress.note(outcome, tally);
        })
        .await;
    progress.end();
    let tally = tally?;
    if json {
        for failure in &failures {
            output.json(failure)?;
        }
        output.json(&summary(&order, &tally))?;
    } else {
        output.line(&told(&order, &tally, begun.elapsed()))?;
    }
    if let Some(why) = &tally.broken {
        say(&format!(
            "warren: stopped before the end: {why}\n  nothing is lost; run it again to go on"
        ));
    }
    let is_complete = tally.failed == 0 && tally.broken.is_none();
    Ok(if is_complete {
        Verdict::Done
    } else {
        Verdict::Incomplete
    })
}

async fn dry_run(
    operator: &Operator,
    order: &Order,
    choice: &Choice,
    json: bool,
    output: &mut Output,
) -> anyhow::Result<Verdict> {
    let verb = verb(&order.action);
    let ready = operator.depth(&order.queue).await?;
    let n_ready = ready.map_or(0, |depth| u64::from(depth.ready));
    let n_matching = match &order.queue {
        DeadQueue::Of(worker_type) => {
            let matching = list::read_matching(operator, Some(worker_type), &choice.filter).await?;
            u64::try_from(matching.len()).unwrap_or(u64::MAX)
        }
        // The log does not say what lies there.
        DeadQueue::Unrouted if choice.filter.is_empty() => n_ready,
        DeadQueue::Unrouted => {
            say(
                "warren: what lies in warren.v1.unrouted cannot be looked at without taking it out",
            );
            return Ok(Verdict::Incomplete);
        }
    };
    let n_done = choice.limit.unwrap_or(u64::MAX).min(n_matching);
    if json {
        let (queue, ready) = (queue_name(&order.queue), n_ready);
        output.json(&json!({
            "kind": "dry_run", "queue": queue, verb: n_done, "matching": n_matching, "ready": ready,
        }))?;
    } else {
        output.line(&format!(
            "{n_done} would be {verb}: {n_matching} match by the log, {n_ready} are ready in {}; \
             nothing was changed",
            queue_name(&order.queue)
        ))?;
    }
    Ok(Verdict::Done)
}

fn told(order: &Order, tally: &Tally, took: Duration) -> String {
    let Tally {
        ready,
        done,
        passed,
        failed,
        late,
        unmarked,
        broken: _,
    } = tally;
    let mut text = format!(
        "{done} {} of {ready} in {} in {:.1} s",
        verb(&order.action),
        queue_name(&order.queue),
        took.as_secs_f64()
    );
    for (n, what) in [
        (passed, "did not match and went back"),
        (failed, "could not be done and stay"),
        (late, "had a deadline that had passed: taken off"),
        (unmarked, "are still in the log, which could not be told"),
    ] {
        if *n > 0 {
            text.push_str(&format!("; {n} {what}"));
        }
    }
    text
}

fn summary(order: &Order, tally: &Tally) -> serde_json::Value {
    let mut summary = json!({
        "kind": "summary",
        "queue": queue_name(&order.queue),
        "ready": tally.ready,
        "passed": tally.passed,
        "failed": tally.failed,
        "late": tally.late,
        "unmarked": tally.unmarked,
        "broken": tally.broken,
    });
    if let Some(object) = summary.as_object_mut() {
        object.insert(verb(&order.action).to_owned(), json!(tally.done));
    }
    summary
}

fn verb(action: &Action) -> &'static str {
    match action {
        Action::Replay(_) => "replayed",
        Action::Drop => "dropped",
    }
}

fn queue_name(queue: &DeadQueue) -> String {
    match queue {
        DeadQueue::Of(worker_type) => format!("warren.v1.dlq.{worker_type}"),
        DeadQueue::Unrouted => "warren.v1.unrouted".to_owned(),
    }
}
