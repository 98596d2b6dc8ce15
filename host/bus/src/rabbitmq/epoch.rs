//! One life of the pair of connections. Whatever hangs on it ends with it.

use std::sync::OnceLock;

use futures_util::StreamExt;
use lapin::{Connection, Event};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

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
    /// Cancelled when either connection has failed.
    pub(super) over: CancellationToken,
    /// Consumers and topology, each on a channel of its own. Never publishes, so a memory alarm of the broker, which stops the
    /// connections that publish, does not stop acknowledgements.
    pub(super) consuming: Connection,
    /// Messages go out here.
    pub(super) publishing: Connection,
    pub(super) lanes: Lanes,
    pub(super) announcer: Announcer,
    /// Cancelled when the inbox is not consumed any more.
    pub(super) inbox_ended: CancellationToken,
    /// What is to come to an end before the connections are closed on purpose.
    pub(super) background: TaskTracker,
    /// Whether the broker has blocked publishing: memory or disk is short there.
    blocked: watch::Sender<bool>,
    reason: OnceLock<String>,
}

impl Epoch {
    pub(super) fn new(
        number: u64,
        consuming: Connection,
        publishing: Connection,
        announcer: Announcer,
    ) -> Self {
        Self {
            number,
            over: CancellationToken::new(),
            consuming,
            publishing,
            lanes: Lanes::default(),
            announcer,
            inbox_ended: CancellationToken::new(),
            background: TaskTracker::new(),
            blocked: watch::Sender::new(false),
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

    /// Waits until the broker takes messages. What is published while it does not only waits in
    /// this process, and its sender could not tell.
    pub(super) async fn gate_is_open(&self) {
        // The sender lives in `self`.
        let _ = self.blocked.subscribe().wait_for(|blocked| !blocked).await;
    }

    /// Waits for the end of one of the connections, and notes when the broker blocks publishing.
    pub(super) async fn watch(&self, shared: &Shared) {
        let mut consuming = Box::pin(self.consuming.events_listener());
        let mut publishing = Box::pin(self.publishing.events_listener());
        if self.publishing.status().blocked() {
            self.block(shared, "it was when we connected".to_owned());
        }
        // What happened before the listeners were there.
        while self.consuming.status().connected() && self.publishing.status().connected() {
            let (event, connection) = tokio::select! {
                () = self.over.cancelled() => return,
                event = consuming.next() => (event, &self.consuming),
                event = publishing.next() => (event, &self.publishing),
            };
            match event {
                Some(Event::ConnectionBlocked(reason)) => self.block(shared, reason),
                Some(Event::ConnectionUnblocked) => {
                    self.blocked.send_replace(false);
                    shared.board.blocked(None);
                }
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

    fn block(&self, shared: &Shared, reason: String) {
        self.blocked.send_replace(true);
        shared.board.blocked(Some(reason));
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
