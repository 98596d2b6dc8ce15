//! How much memory something takes at its height, in the whole process.

use std::sync::{Mutex, PoisonError};

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Runs something and fails when it has taken more than `most` bytes at a time. One after the other:
/// the figures are those of the process.
pub(crate) fn bounded<T>(what: &str, most: usize, run: impl FnOnce() -> T) -> T {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let done = run();
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(
        taken <= most,
        "{what} took {taken} bytes of memory, {most} at most"
    );
    done
}
