//! Lines for the host's log, which adds the worker, the plugin and the job.
//!
//! ```no_run
//! # let title = "Alien";
//! warren_sdk::log::info!("stored the movie {title}");
//! ```

use std::fmt::Arguments;

use crate::bindings::imports::wasi::logging::logging;

pub use logging::Level;

/// Writes one line. The macros of this module say the level and the module for you.
pub fn log(level: Level, context: &str, message: Arguments<'_>) {
    match message.as_str() {
        Some(text) => logging::log(level, context, text),
        None => logging::log(level, context, &message.to_string()),
    }
}

/// Logs at the level *trace*: values and the flow of control.
#[macro_export]
#[doc(hidden)]
macro_rules! __log_trace {
    ($($argument:tt)*) => {
        $crate::log::log(
            $crate::log::Level::Trace,
            module_path!(),
            format_args!($($argument)*),
        )
    };
}

/// Logs at the level *debug*: one job, for somebody debugging.
#[macro_export]
#[doc(hidden)]
macro_rules! __log_debug {
    ($($argument:tt)*) => {
        $crate::log::log(
            $crate::log::Level::Debug,
            module_path!(),
            format_args!($($argument)*),
        )
    };
}

/// Logs at the level *info*: what an operator may want to know.
#[macro_export]
#[doc(hidden)]
macro_rules! __log_info {
    ($($argument:tt)*) => {
        $crate::log::log(
            $crate::log::Level::Info,
            module_path!(),
            format_args!($($argument)*),
        )
    };
}

/// Logs at the level *warn*: something is degraded.
#[macro_export]
#[doc(hidden)]
macro_rules! __log_warn {
    ($($argument:tt)*) => {
        $crate::log::log(
            $crate::log::Level::Warn,
            module_path!(),
            format_args!($($argument)*),
        )
    };
}

/// Logs at the level *error*: an operator must act.
#[macro_export]
#[doc(hidden)]
macro_rules! __log_error {
    ($($argument:tt)*) => {
        $crate::log::log(
            $crate::log::Level::Error,
            module_path!(),
            format_args!($($argument)*),
        )
    };
}

#[doc(inline)]
pub use {
    __log_debug as debug, __log_error as error, __log_info as info, __log_trace as trace,
    __log_warn as warn,
};
