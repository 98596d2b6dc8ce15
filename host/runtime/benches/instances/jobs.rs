//! Jobs in fresh instances, and in instances that are kept.

use criterion::{BenchmarkId, Criterion};
use serde_json::{Value, json};
use tokio::runtime::Builder;
use warren_runtime::Pool;

use crate::guests;

pub(crate) fn jobs(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let host = guests::host();
    let items: Vec<Value> = (1..=10)
        .map(|n| json!({"name": format!("item {n}"), "price": n, "count": 2}))
        .collect();
    let jobs = [("null", Value::Null), ("JSON", json!({ "items": items }))];
    for (language, file) in guests::built() {
        let plugin = runtime
            .block_on(host.load(std::fs::read(file).unwrap()))
            .unwrap();
        for (group, reuse) in [("fresh", None), ("reused", Some(guests::reuse()))] {
            let mut worker = host.worker("TALLY");
            worker.reuse = reuse;
            let pool = Pool::new(plugin.clone(), worker);
            let mut group = criterion.benchmark_group(group);
            for (what, data) in &jobs {
                group.bench_function(BenchmarkId::new(language, what), |bencher| {
                    bencher.to_async(&runtime).iter(|| guests::run(&pool, data));
                });
            }
            group.finish();
        }
    }
}
