//! What uses up time and memory.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use warren_sdk::{context, log};

const MIB: usize = 1024 * 1024;

/// Never returns and never waits.
pub(crate) fn turn_for_ever() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Never waits, but returns.
pub(crate) fn turn_for(ms: u64) -> Value {
    let started = Instant::now();
    let mut turns = 0_u64;
    while started.elapsed() < Duration::from_millis(ms) {
        turns = black_box(turns.wrapping_add(1));
    }
    json!({ "turns": turns })
}

/// Waits in the host, so no code of the guest runs that could be interrupted.
pub(crate) fn sleep_for_an_hour() -> Value {
    thread::sleep(Duration::from_secs(60 * 60));
    json!({ "slept": true })
}

/// Waits in the host, but not for long.
pub(crate) fn wait_for(ms: u64) -> Value {
    thread::sleep(Duration::from_millis(ms));
    json!({ "waited": ms })
}

/// `n` kibibytes of text.
pub(crate) fn large(n: u32) -> Value {
    json!({ "text": "x".repeat(1024).repeat(n as usize) })
}

/// `n` times 1024 ones: 2 bytes each in JSON, and several times that in BSON.
pub(crate) fn ones(n: u32) -> Vec<u8> {
    vec![1; n as usize * 1024]
}

/// Uses up the stack.
#[allow(unconditional_recursion, reason = "that is the point")]
pub(crate) fn recurse_for_ever(depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    // What is done with the result keeps this from becoming a loop.
    let deeper = recurse_for_ever(black_box(depth + 1));
    deeper.wrapping_add(black_box(frame).iter().sum::<u64>())
}

/// Calls the host for ever; no call waits.
pub(crate) fn ask_for_ever() -> ! {
    loop {
        black_box(context::attempt());
    }
}

/// Writes `n` kibibytes to each standard stream, in lines, and as many empty lines to the log.
pub(crate) fn write(n: u32) -> Value {
    let line = "x".repeat(1023);
    for _ in 0..n {
        println!("{line}");
        eprintln!("{line}");
        log::info!("");
    }
    json!({ "written": n })
}

/// Grows until the host denies memory, which aborts a Rust guest.
pub(crate) fn allocate_for_ever() -> ! {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![1_u8; MIB]));
    }
}

/// Asks for `n` mebibytes, and goes on without them when it is denied.
pub(crate) fn grow(n: u32) -> Value {
    let mut wanted: Vec<u8> = Vec::new();
    let granted = wanted.try_reserve_exact(n as usize * MIB).is_ok();
    black_box(&wanted);
    json!({ "granted": granted })
}

/// 1 in a fresh instance: statics do not carry over from run to run.
pub(crate) fn count_runs_of_this_instance() -> Value {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    json!({ "runs": RUNS.fetch_add(1, Ordering::Relaxed) + 1 })
}
