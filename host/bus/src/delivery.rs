//! A message that was handed to this host, and the one right to settle it.

use std::{fmt, time::Instant};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::Message;

/// One message in this host's hands. It is settled exactly once: acknowledged, given back, or
/// given back by being dropped, so that a bug in the caller cannot lose it.
pub struct Delivery {
    /// What was delivered.
    pub message: Message,
    /// Whether the bus has handed it out before: the first run may have had effects.
    pub redelivered: bool,
    /// When it was handed out: a broker takes back what is held for too long.
    pub received: Instant,
    /// Cancelled when the right to settle is gone (the connection that delivered it has ended) and
    /// the message belongs to somebody else: whoever runs it must stop without further effects.
    pub lost: CancellationToken,
    settle: Option<Box<dyn Settle>>,
}

/// What an implementation does to settle. `self: Box<Self>` makes a second settling unwritable.
pub(crate) trait Settle: Send + Sync {
    /// Takes the message off its queue.
    fn ack(self: Box<Self>) -> BoxFuture<'static, Result<(), SettleError>>;
    /// Puts the message back at once, for anybody. Must not block.
    fn requeue(self: Box<Self>);
    /// As [`Settle::requeue`], behind the others where the bus can.
    fn put_behind(self: Box<Self>);
}

/// The delivery could not be settled because it is no longer ours; somebody else gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection that delivered the job is gone, so it will be delivered again")]
pub struct SettleError;

impl Delivery {
    pub(crate) fn new(
        message: Message,
        redelivered: bool,
        lost: CancellationToken,
        settle: Box<dyn Settle>,
    ) -> Self {
        Self {
            message,
            redelivered,
            received: Instant::now(),
            lost,
            settle: Some(settle),
        }
    }

    /// Takes the message off its queue: its consequences are safe. Waits until the
    /// acknowledgement is on its way, not for an answer: AMQP has none.
    ///
    /// # Errors
    /// [`SettleError`] when the message belongs to somebody else by now.
    ///
    /// # Cancel safety
    /// When the future is dropped the acknowledgement may or may not be sent.
    pub async fn ack(mut self) -> Result<(), SettleError> {
        match self.settle.take() {
            Some(settle) => settle.ack().await,
            None => Ok(()),
        }
    }

    /// Forgets the right to settle: for an implementation whose hand-over failed.
    pub(crate) fn disarm(mut self) {
        self.settle = None;
    }

    /// Puts the message back behind the others of its queue.
    pub(crate) fn put_behind(mut self) {
        if let Some(settle) = self.settle.take() {
            settle.put_behind();
        }
    }

    /// Puts the message back at once. The broker counts that as a delivery; a job that nobody has
    /// started goes back with [`Bus::put_back`](crate::Bus::put_back).
    pub fn give_back(mut self) {
        if let Some(settle) = self.settle.take() {
            settle.requeue();
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            settle.requeue();
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.message.id)
            .field("to", &self.message.to)
            .field("redelivered", &self.redelivered)
            .finish_non_exhaustive()
    }
}
