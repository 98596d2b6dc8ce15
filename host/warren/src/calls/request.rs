//! A job as whoever begins it hands it to the bus.

use std::time::Duration;

use warren_bus::Message;
use warren_protocol::{Address, CallError, Encoding, Identity, Job, Slip, Stop, WorkerId};

use crate::clock::now_ms;

/// A first job: where it goes, what it says, and the message that carries it.
pub(crate) struct Request {
    pub(crate) to: Address,
    pub(crate) job: Job,
    pub(crate) message: Message,
}

impl Request {
    /// A job that nobody waits for.
    ///
    /// # Errors
    /// [`CallError::Invalid`] names what is wrong with the slip.
    pub(crate) fn new(
        sender: &WorkerId,
        id: String,
        slip: Slip,
        encoding: Encoding,
    ) -> Result<Self, CallError> {
        let invalid = |reason: String| CallError::Invalid { reason };
        let to = match slip.stops.first().map(Stop::address) {
            Some(Ok(address)) => address,
            Some(Err(error)) => return Err(invalid(error.to_string())),
            None => return Err(invalid("there is no stop: name at least one".to_owned())),
        };
        let job = Job {
            route: slip.stops,
            position: 0,
            data: slip.data,
            sender: Identity::from(sender),
            id,
        };
        let body = encoding
            .encode_job(&job)
            .map_err(|error| invalid(error.to_string()))?;
        let message = Message::new(job.id.clone(), to.clone(), encoding, body);
        Ok(Self { to, job, message })
    }

    /// Makes it a call: the reply goes to `caller`, who waits for so long.
    #[must_use]
    pub(crate) fn answered_to(
        mut self,
        caller: &WorkerId,
        correlation_id: String,
        timeout: Duration,
    ) -> Self {
        self.message.correlation_id = Some(correlation_id);
        self.message.reply_to = Some(caller.clone());
        self.message.deadline_ms = Some(now_ms().saturating_add(millis(timeout)));
        self
    }
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
