//! One call of the host, of several kinds.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::Criterion;
use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::runtime::Builder;
use warren_runtime::Pool;

use crate::{guests, host, host::guest};

/// Calls of one run: a fresh instance costs each of them a hundredth of a microsecond.
const TIMES: u64 = 1000;

pub(crate) fn host_calls(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let host = guests::host();
    let mut worker = host.worker("CALLER");
    worker
        .config
        .insert("greeting".to_owned(), "hello".to_owned());
    worker.limits.log_bytes = usize::MAX;
    let answer = host::json(&Value::Null);
    worker.call = Arc::new(move |_| {
        let answer = answer.clone();
        async move { Ok(answer) }.boxed()
    });
    let plugin = runtime.block_on(host.load(guest("caller"))).unwrap();
    let pool = Pool::new(plugin, worker);
    let mut group = criterion.benchmark_group("host call");
    for what in [
        "nothing", "attempt", "config", "log", "count", "send", "call",
    ] {
        let order = json!({"what": what, "times": TIMES});
        group.bench_function(what, |bencher| {
            bencher.to_async(&runtime).iter_custom(|n| {
                let (pool, order) = (&pool, &order);
                async move {
                    let (started, n_runs) = (Instant::now(), n.div_ceil(TIMES));
                    for _ in 0..n_runs {
                        guests::run(pool, order).await;
                    }
                    per(started.elapsed(), n_runs * TIMES, n)
                }
            });
        });
    }
    group.finish();
}

/// What `n` of `n_done` have taken.
fn per(took: Duration, n_done: u64, n: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    took.mul_f64(n as f64 / n_done as f64)
}
