//! The exchange of a version whose code was compiled before: as the host does it, less the wait until a
//! file is quiet and the announcement to others.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use criterion::{BenchmarkId, Criterion};
use serde_json::Value;
use tokio::runtime::Builder;
use warren_runtime::{Digest, Pool};

use crate::{guests, host::Host};

/// What serves: one assignment exchanges it.
type Seat = Mutex<Arc<Pool>>;

pub(crate) fn swap(criterion: &mut Criterion) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let host = guests::host();
    let mut group = criterion.benchmark_group("swap");
    for (language, file) in guests::built() {
        let guest = std::fs::read(file).unwrap();
        let versions = [guest.clone(), another(guest)];
        let seat = Arc::new(Mutex::new(runtime.block_on(prepared(&host, &versions[1]))));
        let mut turn = 0;
        let mut swap = async || {
            turn = 1 - turn;
            let pool = prepared(&host, &versions[turn]).await;
            let old = std::mem::replace(&mut *seat.lock().unwrap(), pool);
            old.retire();
        };
        group.bench_function(BenchmarkId::new(language, "idle"), |bencher| {
            bencher.iter(|| runtime.block_on(swap()));
        });
        let (is_over, n_jobs) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let jobs = runtime.spawn(jobs(seat.clone(), is_over.clone(), n_jobs.clone()));
        group.bench_function(BenchmarkId::new(language, "under load"), |bencher| {
            bencher.iter(|| runtime.block_on(swap()));
        });
        is_over.store(true, Relaxed);
        // No job has failed, or this would.
        runtime.block_on(jobs).unwrap();
        println!("{} jobs ran meanwhile", n_jobs.load(Relaxed));
    }
    group.finish();
}

/// A version that is ready to serve.
async fn prepared(host: &Host, bytes: &[u8]) -> Arc<Pool> {
    let scratch = Arc::new(host.worker("PROBE"));
    let compiled = host
        .engine
        .compile(bytes.to_vec().into(), Digest::of(bytes))
        .await
        .unwrap();
    let plugin = host.engine.probe(compiled, &scratch).await.unwrap();
    let pool = Pool::new(plugin, host.worker("TALLY"));
    pool.warm().await.unwrap();
    Arc::new(pool)
}

/// One job after the other, each in the version that serves when it begins.
async fn jobs(seat: Arc<Seat>, is_over: Arc<AtomicBool>, n_jobs: Arc<AtomicU64>) {
    while !is_over.load(Relaxed) {
        let pool = seat.lock().unwrap().clone();
        guests::run(&pool, &Value::Null).await;
        n_jobs.fetch_add(1, Relaxed);
        // What would else wait on this thread: a run that ends at once gives way to nobody.
        tokio::task::yield_now().await;
    }
}

/// The same component with another digest: an empty custom section more.
fn another(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend([0, 2, 1, b'x']);
    bytes
}
