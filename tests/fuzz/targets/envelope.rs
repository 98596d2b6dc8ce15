//! libFuzzer on [`warren_fuzz::envelope`].
#![no_main]

warren_fuzz::fuzz_target!(warren_fuzz::envelope::check);
