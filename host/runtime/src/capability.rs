//! What a guest can reach: one file for each interface of the contract, one field in `State`.

pub(crate) mod bus;
pub(crate) mod config;
pub(crate) mod context;
pub(crate) mod first_use;
pub(crate) mod keyvalue;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod outgoing;
pub(crate) mod payload;
pub(crate) mod sql;
mod sqlite;
