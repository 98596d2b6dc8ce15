//! What the database, the buckets and the figures of a case's worker hold: put there before its run, and
//! compared after it.

use std::collections::BTreeMap;

use anyhow::anyhow;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value as Json};
use warren_runtime::Cell;

use super::{case::Case, finding::Finding, ground::Ground};

/// What the case's database and buckets hold before.
pub(super) async fn prepare(case: &Case, ground: &Ground) -> anyhow::Result<()> {
    let worker = ground.worker();
    for statement in &case.sql.before {
        let done = worker.execute_sql(statement).await;
        done.map_err(|error| anyhow!("{statement}: {error}"))?;
    }
    for (bucket, key, value) in &case.entries {
        let done = worker.keyvalue.put(bucket, key, value.clone()).await;
        done.map_err(|error| anyhow!("the key `{key}` of the bucket `{bucket}`: {error}"))?;
    }
    Ok(())
}

/// What they hold after, and the figures.
pub(super) async fn look(case: &Case, ground: &Ground) -> Vec<Finding> {
    let mut findings = Vec::new();
    let worker = ground.worker();
    for query in &case.sql.after {
        let what = format!("the result of `{}`", query.statement);
        match worker.query_sql(&query.statement).await {
            Ok(table) => {
                let rows = table.rows.into_iter().map(|row| {
                    let cells = row.into_iter().map(cell);
                    let columns = table.columns.iter().cloned();
                    Json::Object(columns.zip(cells).collect::<Map<_, _>>())
                });
                let rows = Json::Array(rows.collect());
                findings.extend(Finding::of(&what, &query.rows, &rows, case.mode));
            }
            Err(error) => findings.push(Finding::new(what, error)),
        }
    }
    for (bucket, expected) in &case.entries_after {
        let what = format!("the bucket `{bucket}`");
        match worker.keyvalue.entries(bucket).await {
            Ok(entries) => {
                let entries = entries.into_iter();
                let entries = entries.map(|(key, value)| (key, value_of(&value)));
                let entries = Json::Object(entries.collect::<Map<_, _>>());
                findings.extend(Finding::of(&what, expected, &entries, case.mode));
            }
            Err(error) => findings.push(Finding::new(what, error)),
        }
    }
    let figures = figures(ground);
    for (name, expected) in &case.metrics {
        let actual = figures.get(&format!("warren_guest_{name}"));
        if actual != Some(expected) {
            let actual = actual.map_or("was not counted".to_owned(), |n| format!("is {n}"));
            let message = format!("{actual}, and {expected} was expected");
            findings.push(Finding::new(format!("the metric `{name}`"), message));
        }
    }
    findings
}

fn cell(cell: Cell) -> Json {
    match cell {
        Cell::Null => Json::Null,
        Cell::Boolean(truth) => Json::from(truth),
        Cell::Integer(number) => Json::from(number),
        Cell::Real(number) => Json::from(number),
        Cell::Text(text) => Json::from(text),
        Cell::Blob(bytes) => Json::from(STANDARD.encode(bytes)),
    }
}

/// A value of a bucket: JSON as what it says, other text as it is, and what is no text in Base64.
fn value_of(value: &[u8]) -> Json {
    match (serde_json::from_slice(value), std::str::from_utf8(value)) {
        (Ok(json), _) => json,
        (Err(_), Ok(text)) => Json::from(text),
        (Err(_), Err(_)) => Json::from(STANDARD.encode(value)),
    }
}

/// The sum of each of the host's figures over all labels; of a histogram, how many it has observed.
fn figures(ground: &Ground) -> BTreeMap<String, f64> {
    let families = ground.metrics.registry().gather();
    let sum = |family: &prometheus::proto::MetricFamily| {
        let metrics = family.get_metric().iter();
        metrics
            .map(|metric| {
                let n_observed = metric.get_histogram().get_sample_count() as f64;
                metric.get_counter().get_value() + metric.get_gauge().get_value() + n_observed
            })
            .sum()
    };
    families
        .iter()
        .map(|family| (family.name().to_owned(), sum(family)))
        .collect()
}
