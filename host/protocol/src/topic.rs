//! The names that MicroServices.js uses on the broker. Source: PROTOCOL "The wire".

/// The exchange for everything that workers tell each other. Topic, not durable.
pub const NOTIFICATIONS: &str = "notifications";
/// The exchange for questions to SystemManager. Topic, not durable.
pub const POLLING: &str = "polling";

/// A worker is there, and is new to the pool of its type. Body: an identity.
pub const WORKER_NEW_SEND: &str = "worker.new.send";
/// A worker is there, as it was before: the answer to [`WORKER_GET_ALL`]. Body: an identity.
pub const WORKER_NEW_RESEND: &str = "worker.new.resend";
/// A worker leaves. Body: an identity.
pub const WORKER_DEL: &str = "worker.del";
/// Who is there? Body: [`crate::GET_ALL`].
pub const WORKER_GET_ALL: &str = "worker.getAll";
/// Whose turn it is. Body: a worker list; on [`POLLING`], [`crate::GET_WORKER_LIST`].
pub const WORKER_LIST: &str = "worker.list";
/// A job for somebody. Body: a job.
pub const WORKER_NEXT: &str = "worker.next";
/// Somebody has taken a job. Body: an acknowledgement.
pub const WORKER_NEXT_ACK: &str = "worker.next.ack";
/// A job has failed. Body: a job error.
pub const ERROR: &str = "error";
