//! What a call ends with, read from the message that says it.

use warren_bus::{Kind, Message};
use warren_protocol::{CallError, Payload};

/// What a call ends with.
pub(crate) type Reply = Result<Payload, CallError>;

/// Reads a reply, or the news that there will be none.
pub(crate) fn read(message: &Message) -> Reply {
    let reply = match message.kind {
        Kind::Error => message.encoding.decode_error(&message.body).map(|error| {
            Err(error.cause.unwrap_or(CallError::Failed {
                worker: "unknown".to_owned(),
                attempts: 1,
                reason: error.error,
            }))
        }),
        _ => message
            .encoding
            .decode_job(&message.body)
            .map(|job| Ok(job.data)),
    };
    reply.unwrap_or_else(|error| {
        Err(CallError::Failed {
            worker: "unknown".to_owned(),
            attempts: 1,
            reason: format!("the reply cannot be read: {error}"),
        })
    })
}

/// Whether a worker of MicroServices.js answers with this message: a job for the caller's id, the
/// last stop of its route.
pub(crate) fn is_answer_of_a_peer(message: &Message) -> bool {
    message.from_peer
        && message.kind == Kind::Job
        && message
            .encoding
            .decode_job(&message.body)
            .is_ok_and(|job| job.next_stop().is_none())
}
