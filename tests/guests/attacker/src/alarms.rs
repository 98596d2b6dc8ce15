//! Things of the host's that a guest may hold.

#![allow(
    clippy::all,
    missing_docs,
    unsafe_code,
    unreachable_pub,
    reason = "generated code that crosses the component boundary"
)]

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package tests:attacker;
        world alarms { import wasi:clocks/monotonic-clock@0.2.12; }
    ",
    world: "tests:attacker/alarms",
    generate_all,
});

pub(crate) fn keep_all() -> ! {
    let mut held = Vec::new();
    loop {
        held.push(wasi::clocks::monotonic_clock::subscribe_duration(u64::MAX));
    }
}
