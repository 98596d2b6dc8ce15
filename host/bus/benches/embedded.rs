//! What the embedded bus takes for a job: published, received, acknowledged, and in between nothing.
//!
//!     cargo bench --workspace --bench embedded
//!
//! The throughput is jobs each second, on one thread.
//!
//! - `one at a time`: the next one is published when the one before is acknowledged. Nothing waits.
//! - `in flight/N`: N are published, then N are received and acknowledged: a worker with a prefetch of N.
//! - `backlog/N`: one at a time, behind N others that wait; a queue's length must not matter.
//! - `8 types`: one at a time, to eight types in turn.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has failed"
)]

use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};
use warren_bus::{Bus, Embedded, EmbeddedBroker, Inbox, Message, Subscription};
use warren_protocol::{Address, Encoding, WorkerId, WorkerType};

criterion_group! {
    name = embedded;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    targets = dispatch
}
criterion_main!(embedded);

/// The largest prefetch that is measured.
const MOST_IN_FLIGHT: u16 = 256;

/// A host with one worker.
struct Worker {
    bus: Embedded,
    jobs: Subscription,
    message: Message,
    _inbox: Inbox,
}

fn dispatch(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("embedded");
    group.throughput(Throughput::Elements(1));
    let mut worker = worker(&runtime, &EmbeddedBroker::default(), "TALLY");
    group.bench_function("one at a time", |bencher| {
        bencher.iter(|| runtime.block_on(worker.hand_over()));
    });
    for n in [16, MOST_IN_FLIGHT] {
        group.throughput(Throughput::Elements(n.into()));
        group.bench_function(BenchmarkId::new("in flight", n), |bencher| {
            bencher.iter(|| runtime.block_on(worker.hand_over_many(n)));
        });
    }
    group.throughput(Throughput::Elements(1));
    for n in [1_000, 90_000] {
        let mut worker = self::worker(&runtime, &EmbeddedBroker::default(), "TALLY");
        runtime.block_on(worker.publish(n));
        group.bench_function(BenchmarkId::new("backlog", n), |bencher| {
            bencher.iter(|| runtime.block_on(worker.hand_over()));
        });
    }
    let broker = EmbeddedBroker::default();
    let mut workers: Vec<_> = (0..8)
        .map(|n| self::worker(&runtime, &broker, &format!("TALLY{n}")))
        .collect();
    group.throughput(Throughput::Elements(8));
    group.bench_function("8 types", |bencher| {
        bencher.iter(|| {
            for worker in &mut workers {
                runtime.block_on(worker.hand_over());
            }
        });
    });
    group.finish();
}

fn worker(runtime: &Runtime, broker: &EmbeddedBroker, worker_type: &str) -> Worker {
    let worker_type = WorkerType::new(worker_type).unwrap();
    let (bus, inbox) = broker.connect("bench");
    let id = WorkerId::draw(&worker_type);
    let jobs = runtime.block_on(bus.join(&id, MOST_IN_FLIGHT)).unwrap();
    let body = Bytes::from(vec![b'x'; 200]);
    let to = Address::Any(worker_type);
    Worker {
        bus,
        jobs,
        message: Message::new(
            "J1795220941865001123456789".to_owned(),
            to,
            Encoding::Json,
            body,
        ),
        _inbox: inbox,
    }
}

impl Worker {
    async fn hand_over(&mut self) {
        self.bus.publish(self.message.clone()).await.unwrap();
        self.jobs.recv().await.unwrap().ack().await.unwrap();
    }

    async fn hand_over_many(&mut self, n: u16) {
        self.publish(n.into()).await;
        for _ in 0..n {
            self.jobs.recv().await.unwrap().ack().await.unwrap();
        }
    }

    async fn publish(&self, n: u32) {
        for _ in 0..n {
            self.bus.publish(self.message.clone()).await.unwrap();
        }
    }
}
