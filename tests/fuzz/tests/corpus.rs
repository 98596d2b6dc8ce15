//! Every seed and every input that has ever found a bug, by the functions that are fuzzed.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

use warren_fuzz::{config, envelope, plugin, seeds};

#[track_caller]
fn replay(target: &str, check: fn(&[u8])) {
    let inputs: Vec<_> = seeds::of(target)
        .into_iter()
        .chain(seeds::corpus(target))
        .collect();
    assert!(inputs.len() > 5, "{target} has lost its corpus");
    for (name, bytes) in inputs {
        // Shown when the next line fails.
        eprintln!("{target}: {name}, {} bytes", bytes.len());
        check(&bytes);
    }
}

#[test]
fn configurations_are_read_or_refused_without_showing_a_secret() {
    replay("config", config::check);
}

#[test]
fn messages_are_read_as_what_they_are_written_again() {
    replay("envelope", envelope::check);
}

#[test]
fn plugins_are_loaded_or_refused_and_leave_the_engine_in_order() {
    replay("plugin", plugin::check);
}
