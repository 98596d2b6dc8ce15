//! What reading and writing costs in each encoding: whole jobs, and what they carry where a guest wants it
//! in another encoding than the bus.
//!
//!     cargo bench --workspace --bench codec
//!     cargo bench --workspace --bench codec -- decode
//!
//! - `encode`, `decode`: a job with a list of small objects. Decoding checks what the job carries and
//!   leaves it as it is: nothing is built of it and nothing copied. To know where a list ends, JSON and
//!   MessagePack have to be walked through, so that time grows with the size, at the throughput that is
//!   shown.
//! - `decode one text`: the same size as one text. What is left of the growth is the check that it is
//!   UTF-8, and in JSON the search for its end.
//! - `decode without data`: what is left when there is nothing to carry, to compare these with.
//! - `transcode`: `from → to`, what a run does on its way to a guest, and with what the guest returns.
//!   Here values are built.
//! - `check`: what a guest returns in the encoding of the bus is checked once.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has failed"
)]

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};
use warren_protocol::{Encoding, Identity, Job, Payload, Stop};

const ENCODINGS: [Encoding; 3] = [Encoding::Json, Encoding::Bson, Encoding::MessagePack];
/// What a job carries, as JSON, in bytes.
const SIZES: [(&str, usize); 3] = [("100 B", 100), ("10 kB", 10_000), ("1 MB", 1_000_000)];

criterion_group! {
    name = codec;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    targets = jobs, data
}
criterion_main!(codec);

fn jobs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    each(&mut group, list, |encoding, data| {
        let job = job(data);
        move || drop(black_box(encoding.encode_job(black_box(&job)).unwrap()))
    });
    group.finish();
    for (name, text) in [
        ("decode", list as fn(usize) -> String),
        ("decode one text", text),
    ] {
        let mut group = criterion.benchmark_group(name);
        each(&mut group, text, |encoding, data| {
            let body = encoding.encode_job(&job(data)).unwrap();
            move || decode(encoding, &body)
        });
        group.finish();
    }
    let mut group = criterion.benchmark_group("decode without data");
    for encoding in ENCODINGS {
        let job = job(Payload::null(encoding));
        let body = encoding.encode_job(&job).unwrap();
        group.bench_function(encoding.to_string(), |bencher| {
            bencher.iter(|| decode(encoding, &body));
        });
    }
    group.finish();
}

fn data(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transcode");
    for (from, to) in [
        (Encoding::Bson, Encoding::Json),
        (Encoding::Json, Encoding::Bson),
        (Encoding::MessagePack, Encoding::Json),
        (Encoding::Json, Encoding::MessagePack),
    ] {
        for (size, n_bytes) in SIZES {
            let data = payload(&list(n_bytes), from);
            group.throughput(Throughput::Bytes(data.len() as u64));
            group.bench_function(
                BenchmarkId::new(format!("{from} → {to}"), size),
                |bencher| {
                    bencher
                        .iter(|| black_box(black_box(&data).to(to).unwrap().to_bytes().unwrap()));
                },
            );
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("check");
    each(&mut group, list, |encoding, data| {
        let bytes = data.to_bytes().unwrap();
        move || {
            drop(black_box(
                Payload::new(encoding, black_box(&bytes).clone()).unwrap(),
            ))
        }
    });
    group.finish();
}

/// Measures something for every encoding and size; throughput is of what the job carries.
fn each<Measured: FnMut()>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    text: impl Fn(usize) -> String,
    set_up: impl Fn(Encoding, Payload) -> Measured,
) {
    for encoding in ENCODINGS {
        for (size, n_bytes) in SIZES {
            let data = payload(&text(n_bytes), encoding);
            group.throughput(Throughput::Bytes(data.len() as u64));
            let mut measured = set_up(encoding, data);
            group.bench_function(BenchmarkId::new(encoding.to_string(), size), |bencher| {
                bencher.iter(&mut measured);
            });
        }
    }
}

fn decode(encoding: Encoding, body: &Bytes) {
    drop(black_box(encoding.decode_job(black_box(body)).unwrap()));
}

fn payload(json: &str, encoding: Encoding) -> Payload {
    let json = Payload::new(Encoding::Json, Bytes::from(json.to_owned())).unwrap();
    json.to(encoding).unwrap()
}

/// An object with as many items as fit.
fn list(n_bytes: usize) -> String {
    let mut items = Vec::new();
    let mut n_left = n_bytes;
    for n in 1_u32.. {
        let item = format!(
            r#"{{"name":"item {n}","price":{}.25,"count":{}}}"#,
            n % 100,
            n % 7
        );
        let Some(left) = n_left.checked_sub(item.len() + 1) else {
            break;
        };
        n_left = left;
        items.push(item);
    }
    format!(r#"{{"items":[{}]}}"#, items.join(","))
}

/// An object with one field.
fn text(n_bytes: usize) -> String {
    format!(r#"{{"text":"{}"}}"#, "x".repeat(n_bytes))
}

fn job(data: Payload) -> Job {
    Job {
        route: vec![Stop::new("LABEL:*"), Stop::new("PRICE:*")],
        position: 0,
        data,
        sender: Identity {
            id: "REST:2000000000000".to_owned(),
            worker_type: "REST".to_owned(),
        },
        id: "J1795220941865001123456789".to_owned(),
    }
}
