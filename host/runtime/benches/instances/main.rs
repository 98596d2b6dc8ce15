//! What a run costs: in a fresh instance and in one that is kept, in each language; a call of the host; and
//! the exchange of a version. The first table of `host/decisions/0006-instance-reuse.md` is from here.
//!
//!     (cd guests && cargo build --release -p tally -p caller)
//!     target/release/warren build tests/guests/tally/js tests/guests/tally/python
//!     tests/guests/tally/starlingmonkey/build
//!     cargo bench --workspace --bench instances
//!     cargo bench --workspace --bench instances -- Rust
//!
//! A guest that has not been built is left out. The first time, guests are compiled, which takes a minute
//! for StarlingMonkey and Python; what comes of it is kept under `target/tmp`. Runs follow each other on
//! one thread; a run is everything from the asking for a permit to the outcome.
//!
//! - `fresh`, `reused`: `null` is a job that is done at once, `JSON` an order of ten items that is added up
//!   and answered. Of the reused ones, a thousandth is fresh.
//! - `host call`: one call, measured in runs of a thousand. `nothing` is the loop around it. Nobody reads
//!   the log. `call` is answered at once.
//! - `swap`: from the bytes of a version that was compiled before to its first warm instance, and the end
//!   of the one before. `under load`: beside jobs, which follow each other on another thread.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on has failed"
)]

#[path = "../../tests/runtime/host.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod host;

mod guests;
mod host_calls;
mod jobs;
mod swap;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group! {
    name = instances;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = jobs::jobs, host_calls::host_calls, swap::swap
}
criterion_main!(instances);
