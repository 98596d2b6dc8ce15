//! The host: the wiring of bus, runtime and plugins folder into one program.
//!
//! [`run::run`] is the one entry point; everything is injected, so that a test can bind port 0 and
//! hand in either bus. Where to begin reading: `run` (the life of a host), `dispatch` (one job's
//! way), `reload` (one plugin's way).
//!
//! Invariants: a job is acknowledged only after its consequences are confirmed; reloading one
//! plugin never disturbs another; only `main`, `cli` and
//! `telemetry::logs` (for `NO_COLOR`) look at the environment.

mod admin;
mod breaker;
mod calls;
pub mod cli;
mod clock;
pub mod commands;
pub mod compile;
pub mod config;
mod desk;
pub mod dev;
mod dispatch;
mod equip;
mod host;
mod http;
mod listen;
mod local;
pub mod manager;
mod pausing;
mod pulse;
mod reach;
mod registry;
mod reload;
pub mod run;
mod settle;
pub mod telemetry;
mod testing;
mod treat;
mod trial;
mod versions;
mod witness;

/// The command line or the configuration is wrong (EX_USAGE of sysexits.h).
pub const EXIT_USAGE: u8 = 64;
