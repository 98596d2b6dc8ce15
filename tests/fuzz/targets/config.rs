//! libFuzzer on [`warren_fuzz::config`].
#![no_main]

warren_fuzz::fuzz_target!(warren_fuzz::config::check);
