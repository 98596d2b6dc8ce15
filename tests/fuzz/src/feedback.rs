//! What libFuzzer and a target say to each other: it hands in bytes, and is told what they led to.

use std::{
    panic, process, slice,
    sync::{
        Once,
        atomic::{AtomicU8, Ordering},
    },
};

/// How many different outcomes can be told apart.
const N_OUTCOMES: usize = 4096;

/// Counters that libFuzzer reads beside those of the compiler, and clears before every input. Most
/// of wasmtime and of the parsers is not instrumented, but each of their errors is a place in them.
#[allow(
    unsafe_code,
    reason = "the name of the section is how libFuzzer finds them"
)]
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static OUTCOMES: [AtomicU8; N_OUTCOMES] = [const { AtomicU8::new(0) }; N_OUTCOMES];

/// Tells libFuzzer of an outcome. What differs with every input counts for nothing in it: numbers,
/// and whatever is quoted.
pub(crate) fn outcome(text: &str) {
    // FNV-1a: the same in every run, which a replayed corpus needs.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for words in text.split(['`', '"', '\'']).step_by(2) {
        for byte in words.bytes().filter(u8::is_ascii_alphabetic) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    let index = usize::try_from(hash % N_OUTCOMES as u64).unwrap_or_default();
    if let Some(counter) = OUTCOMES.get(index) {
        counter.store(1, Ordering::Relaxed);
    }
}

/// Makes a libFuzzer target of a function. A panic anywhere ends the process, and libFuzzer then
/// keeps the input.
#[macro_export]
macro_rules! fuzz_target {
    ($function:path) => {
        #[allow(missing_docs, unsafe_code, reason = "libFuzzer's own interface")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn LLVMFuzzerTestOneInput(data: *const u8, length: usize) -> i32 {
            // SAFETY: libFuzzer hands in `length` bytes that live until this returns.
            unsafe { $crate::fuzz_input(data, length, $function) }
            0
        }
    };
}

/// Hands an input of libFuzzer to a target.
///
/// # Safety
/// At `data` there are `length` bytes, for as long as this runs.
#[allow(unsafe_code, reason = "libFuzzer speaks C")]
pub unsafe fn fuzz_input(data: *const u8, length: usize, target: fn(&[u8])) {
    static ABORT: Once = Once::new();
    // Of any thread: tokio would catch it, and the target might not see it.
    ABORT.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |news| {
            usual(news);
            process::abort();
        }));
    });
    let bytes = if length == 0 {
        &[]
    } else {
        // SAFETY: the caller's promise.
        unsafe { slice::from_raw_parts(data, length) }
    };
    target(bytes);
}
