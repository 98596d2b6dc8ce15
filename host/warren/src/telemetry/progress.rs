//! Progress bars beside the log: both go to standard error, so a line of the log takes the bars away
//! while it is written.

use std::{
    io::{self, IsTerminal, Write},
    sync::LazyLock,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A bar at the bottom of the terminal; `None` where standard error is none.
pub(crate) fn bar(length: u64, style: ProgressStyle) -> Option<ProgressBar> {
    let bar = || BARS.add(ProgressBar::new(length).with_style(style));
    io::stderr().is_terminal().then(bar)
}

/// Standard error, for the log.
pub(super) fn stderr() -> BesideBars {
    BesideBars
}

/// Writes lines above the bars.
pub(super) struct BesideBars;

impl Write for BesideBars {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
