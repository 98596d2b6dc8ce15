//! What never stops to tell the host something.

use std::hint::black_box;

use warren_sdk::{Outcome, Result, context, log, metrics};

fn line() -> String {
    "flood ".repeat(100)
}

pub(crate) fn log() -> ! {
    let line = line();
    loop {
        log::info!("{line}");
    }
}

pub(crate) fn standard_output() -> ! {
    let line = line();
    loop {
        println!("{line}");
    }
}

pub(crate) fn standard_error() -> ! {
    let line = line();
    loop {
        eprintln!("{line}");
    }
}

pub(crate) fn host_calls() -> ! {
    loop {
        black_box(context::attempt());
    }
}

/// New names, and one name with new values of its label.
pub(crate) fn labels() -> Result<Outcome> {
    for index in 0..50_000 {
        metrics::count(&format!("flood_{index}"), &[], 1);
        metrics::count("flood", &[("index", &index.to_string())], 1);
    }
    Ok(Outcome::Done)
}
