//! Drives one measurement: sends what is due, hears what comes back, and wakes for nothing else. One task
//! for all jobs; it ends when the measurement does, is interrupted, or nobody is left to answer.

use std::{pin::Pin, time::Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use warren_protocol::CallError;

use super::{
    course::Course,
    line::{Line, News},
    progress::Progress,
    timer::Timer,
};

/// How a measurement ended.
pub(super) enum Ending {
    /// Its time was up, and nothing was open any more.
    Whole,
    /// By a signal.
    Interrupted,
    /// Nothing more could be sent, or nobody is there to answer.
    Broken(CallError),
}

/// What else can end a measurement, and what wakes it.
pub(super) struct Around<'a> {
    pub(super) interruption: Interruption,
    /// Ends when nobody has been there to answer for a while.
    pub(super) desertion: Pin<Box<dyn Future<Output = CallError> + Send + 'a>>,
    pub(super) timer: Timer,
    pub(super) progress: Progress,
}

/// SIGINT and SIGTERM: from its making on they do not end the process.
pub(super) struct Interruption {
    interrupt: Signal,
    terminate: Signal,
}

impl Interruption {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Returns when there is one.
    pub(super) async fn arrive(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Drives a measurement to its end.
///
/// # Errors
/// When the timer fails.
pub(super) async fn drive(
    course: &mut Course,
    line: &mut Line,
    around: &mut Around<'_>,
) -> anyhow::Result<Ending> {
    let begun = Instant::now();
    let ending = loop {
        let now = begun.elapsed();
        course.tick(now);
        let mut wrong = None;
        while wrong.is_none()
            && let Some(number) = course.next(now)
        {
            if let Err(error) = line.send(number) {
                course.end(number, Err(error.clone()), begun.elapsed());
                wrong = Some(error);
            }
        }
        // What is wrong with one job is wrong with all of a run.
        if let Some(error) = wrong {
            break Ending::Broken(error);
        }
        if course.is_over(now) {
            break Ending::Whole;
        }
        let shown_next = around.progress.show(course, now);
        let wake = [course.wake_at(now), shown_next]
            .into_iter()
            .flatten()
            .min();
        let woken = async {
            match wake {
                Some(moment) => around.timer.until(begun + moment).await,
                None => std::future::pending().await,
            }
        };
        // The line comes after what is rare: at saturation there is always something to be heard.
        tokio::select! {
            biased;
            () = around.interruption.arrive() => break Ending::Interrupted,
            error = &mut around.desertion => {
                course.fail_all(&error, begun.elapsed());
                break Ending::Broken(error);
            }
            news = line.next() => match news {
                News::Ended(number, result) => {
                    let broken = result.as_ref().err().filter(|error| is_the_end(error)).cloned();
                    course.end(number, result, begun.elapsed());
                    if let Some(error) = broken {
                        break Ending::Broken(error);
                    }
                }
                News::Broken(error) => break Ending::Broken(error),
            },
            woken = woken => woken?,
        }
    };
    if !matches!(ending, Ending::Whole) {
        course.break_off(begun.elapsed());
    }
    around.progress.end();
    Ok(ending)
}

/// Whether what follows would fail in the same way: a connection that is gone does not come back, and
/// whoever is told that nobody is there has waited for somebody already.
fn is_the_end(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Unavailable { .. }
            | CallError::NoLiveWorker { .. }
            | CallError::UnknownType { .. }
    )
}
