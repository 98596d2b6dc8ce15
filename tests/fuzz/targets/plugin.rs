//! libFuzzer on [`warren_fuzz::plugin`].
#![no_main]

warren_fuzz::fuzz_target!(warren_fuzz::plugin::check);
