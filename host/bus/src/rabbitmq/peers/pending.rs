//! Jobs that were said to Node workers, and what is heard of them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::mpsc;

/// The jobs that were said and not acknowledged, by their id on the wire. A message has one such id, and
/// two copies of one message (a host was killed between sending it and settling what led to it) are
/// not handed over side by side.
#[derive(Default)]
pub(super) struct Pending(Mutex<HashMap<String, mpsc::Sender<News>>>);

/// News of one job that have not been read.
const ROOM: usize = 16;

/// What was heard of a job.
#[derive(Clone, Debug)]
pub(super) enum News {
    Taken,
    /// A manager knows no such worker. Its words.
    Refused(String),
}

impl Pending {
    /// Begins to wait for news of a job. `None`: another copy of it is being handed over.
    pub(super) fn begin(&self, id: &str) -> Option<Waiting<'_>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.contains_key(id) {
            return None;
        }
        let (sender, news) = mpsc::channel(ROOM);
        waiting.insert(id.to_owned(), sender);
        Some(Waiting {
            pending: self,
            id: id.to_owned(),
            news,
        })
    }

    /// Whether nothing is being handed over.
    pub(super) fn is_empty(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// A Node worker has acknowledged a job.
    pub(super) fn taken(&self, id: &str) {
        self.tell(id, News::Taken);
    }

    /// A manager has refused a job.
    pub(super) fn refused(&self, id: &str, text: &str) {
        self.tell(id, News::Refused(text.to_owned()));
    }

    fn tell(&self, id: &str, news: News) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.get(id) {
            // One is enough: whoever waits reads at once.
            let _ = sender.try_send(news);
        }
    }
}

/// The right to hand one message over, and what is heard of it. Dropped when it is settled.
pub(super) struct Waiting<'a> {
    pending: &'a Pending,
    id: String,
    pub(super) news: mpsc::Receiver<News>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self
            .pending
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_copy_of_a_message_is_handed_over_at_a_time() {
        let pending = Pending::default();
        let mut first = pending.begin("J1").unwrap();
        assert!(pending.begin("J1").is_none());
        pending.taken("J1");
        pending.refused("J2", "nobody");
        assert!(matches!(first.news.try_recv(), Ok(News::Taken)));
        assert!(first.news.try_recv().is_err());
        drop(first);
        assert!(pending.begin("J1").is_some());
        assert!(pending.0.lock().unwrap().is_empty());
    }
}
