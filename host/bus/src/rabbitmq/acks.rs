//! Acknowledgements of one channel, several in one frame.
//!
//! A frame for each job is work for a host, lapin and the broker that a shared one saves (decision
//! 0014). AMQP can acknowledge "this one and all before it": so what is settled within
//! one turn of the runtime goes out together. Nothing waits for a clock: where one job at a time is
//! settled, its acknowledgement leaves at once.
//!
//! Invariant: "all before it" never covers a message that is not settled. So every message of such a
//! channel passes through [`Acks::hold`] in the order of its arrival, and what is given back is
//! released only when its nack has been written.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::join_all;
use lapin::{Acker, options::BasicAckOptions};
use tokio::{runtime::Handle, sync::oneshot, task::yield_now};

use super::bounded::{WRITE_TIMEOUT, within};

/// What is not settled on one channel, and what is about to be acknowledged.
#[derive(Default)]
pub(super) struct Acks {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The delivery tags that nobody has settled.
    held: BTreeSet<u64>,
    /// What the next frames acknowledge.
    settled: Vec<Settled<Acker>>,
    /// A task is there that will write them.
    is_writing: bool,
}

/// A message to be acknowledged, and who waits until that has been written.
struct Settled<A> {
    tag: u64,
    acker: A,
    written: oneshot::Sender<bool>,
}

/// One frame, and whom it is for.
struct Frame<A> {
    acker: A,
    /// It is for all before it as well.
    multiple: bool,
    written: Vec<oneshot::Sender<bool>>,
}

impl Acks {
    /// A message has been handed out.
    pub(super) fn hold(&self, tag: u64) {
        self.state().held.insert(tag);
    }

    /// A message is settled in another way: its nack has been written.
    pub(super) fn release(&self, tag: u64) {
        self.state().held.remove(&tag);
    }

    /// Acknowledges a message. `false`: its channel is gone.
    pub(super) async fn ack(self: Arc<Self>, tag: u64, acker: Acker, runtime: &Handle) -> bool {
        let (written, is_written) = oneshot::channel();
        let is_first = {
            let mut state = self.state();
            state.held.remove(&tag);
            state.settled.push(Settled {
                tag,
                acker,
                written,
            });
            !mem::replace(&mut state.is_writing, true)
        };
        if is_first {
            // A task of its own: whoever waits here may be dropped, the others still need it.
            runtime.spawn(self.write());
        }
        is_written.await.unwrap_or(false)
    }

    async fn write(self: Arc<Self>) {
        loop {
            // What else is ready to run may settle more.
            yield_now().await;
            let frames = {
                let mut state = self.state();
                if state.settled.is_empty() {
                    state.is_writing = false;
                    return;
                }
                let settled = mem::take(&mut state.settled);
                frames(settled, state.held.first().copied())
            };
            // At once, since lapin takes its time for each; no two of them are for one message. All of
            // them before the next: it must not overtake these.
            join_all(frames.into_iter().map(Frame::write)).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Frame<Acker> {
    async fn write(self) {
        let options = BasicAckOptions {
            multiple: self.multiple,
        };
        // lapin says `false` when the channel is gone, and may not answer at all when it goes in this
        // moment.
        let acked = within(WRITE_TIMEOUT, "acknowledge", self.acker.ack(options)).await;
        for waits in self.written {
            let _ = waits.send(matches!(acked, Ok(true)));
        }
    }
}

/// One frame for all that lie before the first message that is held, and one for each of the others.
fn frames<A>(mut settled: Vec<Settled<A>>, first_held: Option<u64>) -> Vec<Frame<A>> {
    settled.sort_unstable_by_key(|one| one.tag);
    let n_before = first_held.map_or(settled.len(), |first| {
        settled.partition_point(|one| one.tag < first)
    });
    let others = settled.split_off(n_before);
    let mut frames = Vec::with_capacity(others.len() + 1);
    let mut written = Vec::with_capacity(settled.len());
    let mut last = None;
    for one in settled {
        written.push(one.written);
        last = Some(one.acker);
    }
    if let Some(acker) = last {
        frames.push(Frame {
            acker,
            multiple: true,
            written,
        });
    }
    frames.extend(others.into_iter().map(|one| Frame {
        acker: one.acker,
        multiple: false,
        written: vec![one.written],
    }));
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames for these tags, as (tag, is it for all before it, how many wait for it).
    fn written(tags: &[u64], first_held: Option<u64>) -> Vec<(u64, bool, usize)> {
        let settled = |&tag| Settled {
            tag,
            acker: tag,
            written: oneshot::channel().0,
        };
        frames(tags.iter().map(settled).collect(), first_held)
            .into_iter()
            .map(|frame| (frame.acker, frame.multiple, frame.written.len()))
            .collect()
    }

    #[test]
    fn what_lies_before_all_that_is_held_goes_in_one_frame() {
        assert_eq!(written(&[3, 1, 2], None), [(3, true, 3)]);
        assert_eq!(written(&[7, 5], Some(9)), [(7, true, 2)]);
    }

    #[test]
    fn nothing_that_is_held_is_covered() {
        assert_eq!(written(&[2, 3], Some(1)), [(2, false, 1), (3, false, 1)]);
        assert_eq!(
            written(&[6, 1, 2, 4], Some(3)),
            [(2, true, 2), (4, false, 1), (6, false, 1)]
        );
        assert_eq!(written(&[], Some(1)), []);
    }
}
