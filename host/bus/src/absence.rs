//! Since when a worker type has had nobody who consumes its jobs.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// One type's presence, written by whoever sees it, read by those who wait for an answer.
pub(crate) struct Absence {
    since: watch::Sender<Option<Instant>>,
}

impl Absence {
    /// Somebody is there until it is seen otherwise.
    pub(crate) fn new() -> Self {
        Self {
            since: watch::Sender::new(None),
        }
    }

    /// Notes whether somebody is there. The first of several absent moments in a row counts.
    pub(crate) fn note(&self, is_present: bool) {
        self.since.send_if_modified(|since| {
            let was_present = since.is_none();
            if is_present {
                *since = None;
            } else if was_present {
                *since = Some(Instant::now());
            }
            was_present != is_present
        });
    }

    /// Whether somebody waits for an absence.
    pub(crate) fn is_watched(&self) -> bool {
        self.since.receiver_count() > 0
    }

    /// Who wants to wait for an absence.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Instant>> {
        self.since.subscribe()
    }
}

/// Returns when nobody has been there for `grace`. Never returns when the writer is gone.
pub(crate) async fn lasting(mut since: watch::Receiver<Option<Instant>>, grace: Duration) {
    loop {
        let absent_since = *since.borrow_and_update();
        let changed = match absent_since {
            None => since.changed().await,
            Some(moment) => tokio::select! {
                () = sleep_until(moment + grace) => return,
                changed = since.changed() => changed,
            },
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const GRACE: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn an_absence_that_lasts_is_told_and_a_presence_is_not() {
        let absence = Absence::new();
        let told = |grace, limit| timeout(limit, lasting(absence.watch(), grace));
        assert!(told(GRACE, GRACE * 4).await.is_err());
        absence.note(false);
        assert!(told(GRACE, LONG).await.is_ok());
        // Known for long by now: told at once.
        assert!(told(GRACE, LONG).await.is_ok());
        absence.note(true);
        assert!(told(GRACE, GRACE * 4).await.is_err());
    }

    #[tokio::test]
    async fn whoever_comes_back_within_the_grace_was_never_away() {
        let absence = Absence::new();
        absence.note(false);
        let waiting = timeout(GRACE * 6, lasting(absence.watch(), GRACE * 3));
        let coming_back = async {
            tokio::time::sleep(GRACE).await;
            absence.note(true);
        };
        let (told, ()) = tokio::join!(waiting, coming_back);
        assert!(told.is_err());
    }
}
