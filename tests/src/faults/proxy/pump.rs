//! The two directions of one connection. Each reads frames, asks the rules, and writes what may
//! pass; the first that ends, ends both.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{Link, Shared, lock};
use crate::faults::{
    frame::{self, Direction, Frame, Method},
    rules::{Deed, Flow, Rule},
};

/// Frames on their way through a slow link.
const IN_FLIGHT: usize = 4096;
/// How long the receiver has to read the last frame before a cut.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// How a direction ended.
enum End {
    /// The sender has closed its side, or the connection broke.
    Closed,
    /// A rule wants a reset.
    Reset,
    /// A rule wants an end after what has been forwarded.
    ResetAfterwards,
}

/// Forwards both directions until one of them ends, or the connection is cut.
pub(super) async fn run(
    shared: &Shared,
    link: &Link,
    mut client: TcpStream,
    mut server: TcpStream,
) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut cut = link.cut.subscribe();
    let end = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        tokio::select! {
            end = forward(shared, link, Direction::ToServer, client_read, server_write) => end,
            end = forward(shared, link, Direction::ToClient, server_read, client_write) => end,
            _ = cut.wait_for(|cut| *cut) => End::Reset,
        }
    };
    match end {
        // A dropped socket with nothing unread says goodbye by itself.
        End::Closed => {}
        End::Reset => {
            let _ = (client.set_zero_linger(), server.set_zero_linger());
        }
        End::ResetAfterwards => tokio::time::sleep(LAST_WORDS).await,
    }
}

/// One direction: a reader that decides and a writer that takes its time.
async fn forward(
    shared: &Shared,
    link: &Link,
    direction: Direction,
    reader: ReadHalf<'_>,
    writer: WriteHalf<'_>,
) -> End {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let direction = Lane {
        shared,
        link,
        direction,
        held: VecDeque::new(),
        sender,
    };
    // The writer goes on until it has written what the reader had passed before its end.
    let (end, _) = tokio::join!(read(direction, reader), write(receiver, writer));
    end
}

struct Lane<'a> {
    shared: &'a Shared,
    link: &'a Link,
    direction: Direction,
    /// What waits, oldest first, each with the rule that holds its channel.
    held: VecDeque<(Frame, Arc<Rule>)>,
    sender: mpsc::Sender<(Instant, Bytes)>,
}

async fn read(mut lane: Lane<'_>, mut reader: ReadHalf<'_>) -> End {
    let mut changes = lane.shared.rules.changes.subscribe();
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    loop {
        changes.borrow_and_update();
        if lane.flow() == Flow::Blackhole {
            // Not even read: the senders' window fills, and an end is not seen.
            if changes.changed().await.is_err() {
                return End::Closed;
            }
            continue;
        }
        lane.let_go().await;
        while let Some(frame) = frame::next(&mut buffer) {
            if let Some(end) = lane.take(frame).await {
                return end;
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            n = reader.read_buf(&mut buffer) => {
                if !matches!(n, Ok(n) if n > 0) {
                    return End::Closed;
                }
            }
        }
    }
}

impl Lane<'_> {
    fn role(&self) -> Option<String> {
        lock(&self.link.role).clone()
    }

    fn flow(&self) -> Flow {
        self.shared.rules.flow(self.role().as_deref())
    }

    /// Decides what becomes of a frame.
    async fn take(&mut self, frame: Frame) -> Option<End> {
        if frame.method == Some(Method::CONNECTION_START_OK) {
            *lock(&self.link.role) = frame::role(&frame.bytes);
        }
        let role = self.role();
        if let Some(method) = frame.method {
            self.shared.count(self.direction, method, role.clone());
        }
        let rule = self
            .shared
            .rules
            .apply(&frame, self.direction, role.as_deref());
        match rule {
            Some((Deed::Hold, rule)) => self.held.push_back((frame, rule)),
            Some((Deed::CutBefore, _)) => return Some(End::Reset),
            Some((Deed::CutAfter, _)) => {
                self.pass(frame).await;
                return Some(End::ResetAfterwards);
            }
            None => {
                // Within a channel nothing overtakes.
                let mut held = self.held.iter().rev();
                let before = held.find(|(other, _)| other.channel == frame.channel);
                match before.map(|(_, rule)| rule.clone()) {
                    Some(rule) => self.held.push_back((frame, rule)),
                    None => self.pass(frame).await,
                }
            }
        }
        None
    }

    /// Passes what no rule holds any more.
    async fn let_go(&mut self) {
        let mut waiting = Vec::new();
        for (frame, rule) in std::mem::take(&mut self.held) {
            let is_blocked = waiting
                .iter()
                .any(|(other, _): &(Frame, _)| other.channel == frame.channel);
            if rule.is_done() && !is_blocked {
                self.pass(frame).await;
            } else {
                waiting.push((frame, rule));
            }
        }
        self.held = waiting.into();
    }

    async fn pass(&self, frame: Frame) {
        let due = match self.flow() {
            Flow::Delay(latency) => Instant::now() + latency,
            Flow::Pass | Flow::Blackhole => Instant::now(),
        };
        // The writer has failed: the reader sees the end of the connection by itself.
        let _ = self.sender.send((due, frame.bytes)).await;
    }
}

async fn write(
    mut receiver: mpsc::Receiver<(Instant, Bytes)>,
    mut writer: WriteHalf<'_>,
) -> io::Result<()> {
    let mut batch = BytesMut::new();
    while let Some((due, bytes)) = receiver.recv().await {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        batch.clear();
        batch.extend_from_slice(&bytes);
        // What is due by now goes in one piece.
        while batch.len() < 64 * 1024 {
            let Ok((due, bytes)) = receiver.try_recv() else {
                break;
            };
            if due > Instant::now() {
                writer.write_all(&batch).await?;
                batch.clear();
                sleep_until(due).await;
            }
            batch.extend_from_slice(&bytes);
        }
        writer.write_all(&batch).await?;
    }
    Ok(())
}
