//! `warren dlq ls`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::json;
use warren_bus::operator::{DeadLetter, DeadQueue, Depth, Operator};
use warren_protocol::WorkerType;

use super::super::{
    Verdict,
    filter::Filter,
    moment,
    output::{Output, clean, cut, first_line},
};
use crate::clock::now_ms;

/// Longer errors are the same when they begin with so many characters.
const MAX_ERROR: usize = 200;

/// What is asked for.
pub(super) struct Wanted<'a> {
    pub(super) worker_type: Option<&'a WorkerType>,
    pub(super) filter: &'a Filter,
    /// Types whose queues are looked at even if the log does not know them.
    pub(super) known: &'a [WorkerType],
}

/// What is kept of a dead letter.
struct Row {
    worker_type: WorkerType,
    /// `None`: it is only counted.
    shown: Option<Shown>,
}

struct Shown {
    id: String,
    reason: String,
    error: String,
    attempts: u32,
    plugin: String,
    died_ms: Option<u64>,
}

/// Dead letters of one type and reason.
#[derive(Default)]
struct Group<'a> {
    n_letters: u64,
    oldest: Option<u64>,
    newest: Option<u64>,
    errors: HashMap<&'a str, u64>,
}

pub(super) async fn run(
    operator: &Operator,
    wanted: &Wanted<'_>,
    json: bool,
    output: &mut Output,
) -> anyhow::Result<Verdict> {
    let rows = read(operator, wanted).await?;
    let shown: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((&row.worker_type, row.shown.as_ref()?)))
        .collect();
    let one_by_one = wanted.worker_type.is_some()
        || !wanted.filter.id.is_empty()
        || !wanted.filter.reason.is_empty();
    if one_by_one {
        print_letters(&shown, wanted.worker_type.is_none(), json, output)?;
    } else {
        print_groups(&shown, json, output)?;
    }
    cross_check(operator, wanted, &rows, json, output).await?;
    Ok(Verdict::Done)
}

/// What matches the filter of what is there.
pub(super) async fn read_matching(
    operator: &Operator,
    worker_type: Option<&WorkerType>,
    filter: &Filter,
) -> anyhow::Result<Vec<u64>> {
    let now_ms = now_ms();
    let letters = operator
        .dead_letters(filter.since_ms(now_ms), |letter| {
            let is_meant = worker_type.is_none_or(|wanted| letter.worker_type == *wanted);
            (is_meant && filter.matches(&letter, now_ms)).then_some(())
        })
        .await?;
    Ok(letters.into_iter().map(|(place, ())| place).collect())
}

async fn read(operator: &Operator, wanted: &Wanted<'_>) -> anyhow::Result<Vec<Row>> {
    let now_ms = now_ms();
    let pick = |letter: DeadLetter| {
        if wanted
            .worker_type
            .is_some_and(|only| letter.worker_type != *only)
        {
            return None;
        }
        let is_shown = wanted.filter.matches(&letter, now_ms);
        Some(Row {
            worker_type: letter.worker_type,
            shown: is_shown.then(|| Shown {
                id: clean(&letter.message.id),
                reason: clean(&letter.reason),
                error: cut(&first_line(&letter.error), MAX_ERROR),
                attempts: letter.message.attempt,
                plugin: clean(letter.plugin.as_deref().unwrap_or("-")),
                died_ms: letter.died_ms,
            }),
        })
    };
    let rows = operator.dead_letters(wanted.filter.since_ms(now_ms), pick);
    Ok(rows.await?.into_iter().map(|(_, row)| row).collect())
}

fn print_letters(
    shown: &[(&WorkerType, &Shown)],
    with_type: bool,
    json: bool,
    output: &mut Output,
) -> anyhow::Result<()> {
    if json {
        for (worker_type, letter) in shown {
            output.json(&json!({
                "kind": "letter",
                "type": worker_type.as_str(),
                "id": letter.id,
                "died": letter.died_ms.and_then(moment::exact),
                "reason": letter.reason,
                "attempts": letter.attempts,
                "plugin": letter.plugin,
                "error": letter.error,
            }))?;
        }
        return Ok(());
    }
    let rows: Vec<_> = shown
        .iter()
        .map(|(worker_type, letter)| {
            let id = match with_type {
                true => format!("{worker_type} {}", letter.id),
                false => letter.id.clone(),
            };
            // The digest is long, and on `show`.
            let plugin = letter.plugin.split_whitespace().take(2);
            [
                id,
                moment::shown(letter.died_ms),
                letter.reason.clone(),
                letter.attempts.to_string(),
                plugin.collect::<Vec<_>>().join(" "),
                letter.error.clone(),
            ]
        })
        .collect();
    if rows.is_empty() {
        output.line("no dead letters")?;
    } else {
        output.table(
            ["ID", "DIED", "REASON", "ATTEMPTS", "PLUGIN", "ERROR"],
            &rows,
        )?;
    }
    Ok(())
}

fn print_groups(
    shown: &[(&WorkerType, &Shown)],
    json: bool,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut groups: BTreeMap<(&WorkerType, &str), Group<'_>> = BTreeMap::new();
    for (worker_type, letter) in shown {
        let group = groups.entry((worker_type, &letter.reason)).or_default();
        group.n_letters += 1;
        group.oldest = group.oldest.into_iter().chain(letter.died_ms).min();
        group.newest = group.newest.into_iter().chain(letter.died_ms).max();
        *group.errors.entry(&letter.error).or_default() += 1;
    }
    let mut rows = Vec::new();
    for ((worker_type, reason), group) in &groups {
        let most = group.errors.iter().max_by_key(|(text, n)| (**n, **text));
        let (error, n_same) = most.map_or(("", 0), |(text, n)| (*text, *n));
        if json {
            output.json(&json!({
                "kind": "group",
                "type": worker_type.as_str(),
                "reason": reason,
                "count": group.n_letters,
                "oldest": group.oldest.and_then(moment::exact),
                "newest": group.newest.and_then(moment::exact),
                "error": error,
                "error_count": n_same,
            }))?;
        } else {
            rows.push([
                worker_type.to_string(),
                (*reason).to_owned(),
                group.n_letters.to_string(),
                moment::shown(group.oldest),
                moment::shown(group.newest),
                format!("{n_same}x {error}"),
            ]);
        }
    }
    if json {
        return Ok(());
    }
    if rows.is_empty() {
        output.line("no dead letters")?;
    } else {
        let heads = [
            "TYPE",
            "REASON",
            "COUNT",
            "OLDEST",
            "NEWEST",
            "MOST FREQUENT ERROR",
        ];
        output.table(heads, &rows)?;
    }
    Ok(())
}

/// Holds the log against the queues, and looks at the parking lot.
async fn cross_check(
    operator: &Operator,
    wanted: &Wanted<'_>,
    rows: &[Row],
    json: bool,
    output: &mut Output,
) -> anyhow::Result<()> {
    // Only a part of the log was read.
    let is_whole = wanted.filter.since.is_none();
    let mut logged: BTreeMap<&WorkerType, u64> = BTreeMap::new();
    for row in rows {
        *logged.entry(&row.worker_type).or_default() += 1;
    }
    let types: BTreeSet<&WorkerType> = match wanted.worker_type {
        Some(only) => [only].into(),
        None => logged.keys().copied().chain(wanted.known).collect(),
    };
    for worker_type in types.into_iter().filter(|_| is_whole) {
        let n_logged = logged.get(worker_type).copied().unwrap_or_default();
        let queue = DeadQueue::Of(worker_type.clone());
        let depth = operator.depth(&queue).await?;
        if json {
            output.json(&json!({
                "kind": "queue",
                "type": worker_type.as_str(),
                "logged": n_logged,
                "ready": depth.map(|depth| depth.ready),
            }))?;
        } else if let Some(note) = difference(worker_type, n_logged, depth) {
            output.line(&note)?;
        }
    }
    let n_unrouted = operator.depth(&DeadQueue::Unrouted).await?;
    let n_unrouted = n_unrouted.map_or(0, |depth| depth.ready);
    if json {
        output.json(&json!({"kind": "unrouted", "ready": n_unrouted}))?;
    } else if n_unrouted > 0 {
        output.line(&format!(
            "note: {n_unrouted} more lie in warren.v1.unrouted: they came for a type without a \
             queue of dead letters; `warren dlq replay --unrouted` publishes them again"
        ))?;
    }
    Ok(())
}

fn difference(worker_type: &WorkerType, n_logged: u64, depth: Option<Depth>) -> Option<String> {
    let Some(depth) = depth else {
        return (n_logged > 0).then(|| {
            format!(
                "note: the queue warren.v1.dlq.{worker_type} is not there, but the log knows \
                 {n_logged} dead letters that have not left it: was it deleted? What came later lies \
                 in warren.v1.unrouted, and `warren dlq export {worker_type}` saves what the log has"
            )
        });
    };
    let n_ready = u64::from(depth.ready);
    (n_ready != n_logged).then(|| {
        format!(
            "note: warren.v1.dlq.{worker_type} has {n_ready} ready, the log knows {n_logged}: some \
             are older than the log, were put there by the broker itself, are being replayed, or \
             were purged by hand"
        )
    })
}
