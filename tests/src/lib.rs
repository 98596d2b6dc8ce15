//! What the integration tests share: a private RabbitMQ, the built `warren` as a process, an HTTP
//! client, a worker of the tests' own, and waiting for a condition instead of sleeping.
//!
//! Invariant: a test fails, and names the remedy, when it cannot have what it needs. It never skips.

pub mod broker;
pub mod certificates;
mod cluster;
pub mod command;
pub mod faults;
pub mod host;
pub mod http;
mod node;
mod node_peer;
mod peer;
pub mod postgres;
mod project;
pub mod redis;
mod site;
mod variant;
pub mod vhost;
mod wait;

pub use broker::Broker;
pub use cluster::{Cluster, Cut};
pub use command::{Command, Ran};
pub use host::{Host, Setup};
pub use node_peer::{NodePeer, NodeTrio};
pub use peer::{Answer, Peer, Taken, past_ms};
pub use project::{BUILT_GUESTS, built, copy_built, tools};
pub use redis::Redis;
pub use site::{DeadLetter, Site};
pub use variant::{digest_of, variant};
pub use vhost::VirtualHost;
pub use wait::{LIMIT, eventually, eventually_within, soon, try_within};
