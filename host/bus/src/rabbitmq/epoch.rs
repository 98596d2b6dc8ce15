//! One life of the pair of connections. Whatever hangs on it ends with it.

use std::sync::OnceLock;

use futures_util::StreamExt;
use lapin::{Channel, Connection, Event};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    announce::Announcer,
    bounded::{CLOSE_TIMEOUT, Failure, within},
    publish::Lanes,
};

/// Two connections and what is shared on them. Everything else has channels of its own.
pub(super) struct Epoch {
    /// Counts up: no two epochs of a host have the same number.
    pub(super) number: u64,
    /// Cancelled when either connection, or the topology channel, has failed.
    pub(super) over: CancellationToken,
    /// Consumers and topology. Never publishes, so a memory alarm of the broker, which stops the
    /// connections that publish, does not stop acknowledgements.
    pub(super) consuming: Connection,
    /// Messages go out here.
    pub(super) publishing: Connection,
    /// The topology channel, on the consuming connection.
    pub(super) control: Channel,
    pub(super) lanes: Lanes,
    pub(super) announcer: Announcer,
    /// Cancelled when the inbox is not consumed any more.
    pub(super) inbox_ended: CancellationToken,
    reason: OnceLock<String>,
}

impl Epoch {
    pub(super) fn new(
        number: u64,
        consuming: Connection,
        publishing: Connection,
        control: Channel,
        announcer: Announcer,
    ) -> Self {
        Self {
            number,
            over: CancellationToken::new(),
            consuming,
            publishing,
            control,
            lanes: Lanes::default(),
            announcer,
            inbox_ended: CancellationToken::new(),
            reason: OnceLock::new(),
        }
    }

    /// Ends the epoch. The first reason counts.
    pub(super) fn end(&self, reason: impl Into<String>) {
        let _ = self.reason.set(reason.into());
        self.over.cancel();
    }

    /// Why it ended.
    pub(super) fn reason(&self) -> &str {
        self.reason.get().map_or("it was closed", String::as_str)
    }

    /// Ends the epoch when a step on the topology channel has failed: the channel is gone then.
    pub(super) fn check(&self, step: Result<(), Failure>) {
        if let Err(failure) = step {
            self.end(failure.to_string());
        }
    }

    /// Waits for the end of one of the connections, and notes when the broker blocks publishing.
    pub(super) async fn watch(&self, shared: &Shared) {
        let mut consuming = Box::pin(self.consuming.events_listener());
        let mut publishing = Box::pin(self.publishing.events_listener());
        // What happened before the listeners were there.
        while self.consuming.status().connected() && self.publishing.status().connected() {
            let (event, connection) = tokio::select! {
                () = self.over.cancelled() => return,
                event = consuming.next() => (event, &self.consuming),
                event = publishing.next() => (event, &self.publishing),
            };
            match event {
                Some(Event::ConnectionBlocked(reason)) => shared.board.blocked(Some(reason)),
                Some(Event::ConnectionUnblocked) => shared.board.blocked(None),
                // Also sent for the end of one channel, whose owner deals with it.
                Some(Event::Error(error)) if !connection.status().connected() => {
                    self.end(Failure::Refused("the connection ended", error).to_string());
                }
                Some(_) => {}
                None => break,
            }
        }
        self.end("the connection ended");
    }

    /// Closes both connections, whatever state they are in. What was not acknowledged goes back to
    /// the queues.
    pub(super) async fn close(&self) {
        self.end("it was closed");
        let close = |connection| close(connection);
        tokio::join!(close(&self.consuming), close(&self.publishing));
    }
}

async fn close(connection: &Connection) {
    const SUCCESS: u16 = 200;
    if connection.status().connected() {
        let answer = connection.close(SUCCESS, "OK".into());
        // Nothing is left to do for a connection that does not even close.
        let _ = within(CLOSE_TIMEOUT, "close", answer).await;
    }
}
