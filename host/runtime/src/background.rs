//! Where runs go on that compute for long: threads of a lower priority, so that the system takes the
//! processor from them as soon as anybody else needs it. A run that ends soon, as nearly all do, never
//! gets there, and one that is alone on the machine loses nothing there.
//!
//! Only the computing moves. Sockets, timers and tasks that a run makes stay with the runtime that
//! began it: others may use what it opened, and must not wait for its priority.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};

use crate::{
    load::Load,
    meter::Clock,
    ticker::{Ticker, Ticks},
};

/// How long a run may compute before it moves.
const SLICE: Duration = Duration::from_millis(4);
/// What is added to the threads' nice value. Beside one thread of the usual priority, one of these
/// gets a tenth of a processor: enough to go on, whatever the others do.
const NICER: i32 = 10;
/// What those threads are called.
const NAME: &str = "background";

/// Threads of a lower priority, as many as there are processors, and the clock of whatever runs here or
/// there.
pub(crate) struct Background {
    threads: Option<Runtime>,
    pub(crate) ticker: Ticker,
}

impl Background {
    pub(crate) fn start(n_threads: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(n_threads.max(1))
            .thread_name(NAME)
            .on_thread_start(lower_priority)
            .build()?;
        Ok(Self {
            threads: Some(runtime),
            ticker: Ticker::new(),
        })
    }

    /// Runs a future, with `clock` running while it is polled: here at first, and over there when it has
    /// computed for long, or when its worker has. `run` comes boxed: it has some kilobytes, and every
    /// function that takes it by value would copy them.
    ///
    /// # Cancel safety
    /// Dropping the future drops `run`, soon after when it has moved.
    pub(crate) async fn run<F>(&self, load: &Arc<Load>, clock: Clock, run: Pin<Box<F>>) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let load = load.clone();
        let is_heavy = load.is_heavy();
        let mut run = Charged {
            run,
            clock,
            load,
            _ticks: self.ticker.running(),
        };
        let ended = poll_fn(|context| {
            if is_heavy {
                return Poll::Ready(None);
            }
            match Pin::new(&mut run).poll(context) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if run.clock.used() > SLICE => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        match ended.await {
            Some(output) => output,
            None => self.run_there(run).await,
        }
    }

    /// Runs a future over there from its beginning.
    ///
    /// # Cancel safety
    /// Dropping the future drops `run` soon after.
    pub(crate) async fn run_there<F>(&self, run: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match &self.threads {
            Some(runtime) => {
                let run = Foreign {
                    home: Handle::current(),
                    run: Some(Box::pin(run)),
                };
                Moved(runtime.spawn(run)).await
            }
            None => run.await,
        }
    }
}

impl Drop for Background {
    /// The last plugin may go where nothing may block.
    fn drop(&mut self) {
        if let Some(runtime) = self.threads.take() {
            runtime.shutdown_background();
        }
    }
}

/// A run whose clock runs while it is polled, and which is put on its worker's account at its end,
/// whatever that is.
struct Charged<F> {
    run: Pin<Box<F>>,
    clock: Clock,
    load: Arc<Load>,
    _ticks: Ticks,
}

impl<F: Future> Future for Charged<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { run, clock, .. } = &mut *self;
        clock.timed(|| run.as_mut().poll(context))
    }
}

impl<F> Drop for Charged<F> {
    fn drop(&mut self) {
        self.load.charge(self.clock.used());
    }
}

/// A run on threads that are not its runtime's: what it makes is made at home, also while it is dropped.
struct Foreign<F> {
    home: Handle,
    /// `None` once it is dropped.
    run: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Foreign<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { home, run } = &mut *self;
        let _home = home.enter();
        match run {
            Some(run) => run.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for Foreign<F> {
    fn drop(&mut self) {
        let _home = self.home.enter();
        self.run = None;
    }
}

/// A run that has moved, on the side that waits for it.
struct Moved<T>(JoinHandle<T>);

impl<T> Future for Moved<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.0).poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(output)) => Poll::Ready(output),
            Poll::Ready(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only `drop` below ends it before its time: whoever waits has borrowed the runtime.
                Err(_) => Poll::Pending,
            },
        }
    }
}

impl<T> Drop for Moved<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Of the thread that calls. Raising one's nice value is always allowed.
pub(crate) fn lower_priority() {
    use rustix::process::{getpriority_process, setpriority_process};
    let lowered = getpriority_process(None)
        .and_then(|nice| setpriority_process(None, nice.saturating_add(NICER)));
    if let Err(error) = lowered {
        tracing::debug!(%error, "runs that compute for long have no lower priority here");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::process::getpriority_process;

    use super::*;
    use crate::meter::{Meter, thread_time};

    /// Whether this thread is one of those with the lower priority.
    fn is_here() -> bool {
        std::thread::current().name() == Some(NAME)
    }

    /// What a run sees of where it is.
    async fn place() -> (bool, i32) {
        let here = || (is_here(), getpriority_process(None).unwrap());
        // A task that it makes is where it was made, and so is a timer.
        let task = tokio::spawn(async move { here() });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!task.await.unwrap().0);
        here()
    }

    /// Keeps a processor for so long, by the clock that a run moves by, in pieces: after each the thread may
    /// be another one.
    async fn compute(time: Duration) {
        const PIECE: Duration = Duration::from_millis(2);
        let mut left = time;
        while !left.is_zero() {
            let piece = left.min(PIECE);
            let begun = thread_time();
            while thread_time() - begun < piece {
                std::hint::spin_loop();
            }
            left -= piece;
            tokio::task::yield_now().await;
        }
    }

    async fn run<T: Send + 'static>(
        background: &Background,
        load: &Arc<Load>,
        run: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let clock = Meter::new().clock();
        background.run(load, clock, Box::pin(run)).await
    }

    #[tokio::test]
    async fn a_run_that_computes_for_long_goes_on_at_a_lower_priority() {
        let (background, load) = (Background::start(1).unwrap(), Arc::new(Load::new()));
        let usual = getpriority_process(None).unwrap();
        let short = run(&background, &load, place()).await;
        assert_eq!(short, (false, usual));
        let long = run(&background, &load, async {
            compute(SLICE * 2).await;
            place().await
        });
        assert_eq!(long.await, (true, (usual + NICER).min(19)));
    }

    #[tokio::test]
    async fn the_runs_of_a_worker_that_computes_a_lot_begin_there() {
        let (background, load) = (Background::start(1).unwrap(), Arc::new(Load::new()));
        load.charge(Duration::from_secs(1));
        assert!(run(&background, &load, place()).await.0);
    }

    #[tokio::test]
    async fn what_a_run_has_computed_is_charged_however_it_ends() {
        let background = Background::start(1).unwrap();
        for is_dropped in [false, true] {
            let load = Arc::new(Load::new());
            let run = run(&background, &load, async move {
                compute(Duration::from_millis(300)).await;
                if is_dropped {
                    std::future::pending::<()>().await;
                }
            });
            let _ = tokio::time::timeout(Duration::from_secs(2), run).await;
            let begun = Instant::now();
            while !load.is_heavy() {
                assert!(begun.elapsed() < Duration::from_millis(200), "{is_dropped}");
                tokio::task::yield_now().await;
            }
        }
    }

    /// The database driver rolls back in a task when a connection is dropped.
    #[tokio::test]
    async fn what_a_run_makes_while_it_is_dropped_is_made_at_home() {
        struct Last(tokio::sync::mpsc::Sender<bool>);
        impl Drop for Last {
            fn drop(&mut self) {
                let told = self.0.clone();
                tokio::spawn(async move { told.send(is_here()).await });
            }
        }
        let background = Background::start(1).unwrap();
        let (sender, mut told) = tokio::sync::mpsc::channel(1);
        let endless = background.run_there(async move {
            let _last = Last(sender);
            std::future::pending::<()>().await;
        });
        let waited = tokio::time::timeout(Duration::from_millis(20), endless).await;
        assert!(waited.is_err());
        assert_eq!(told.recv().await, Some(false));
    }

    #[tokio::test]
    async fn whoever_does_not_wait_any_more_ends_it() {
        let background = Background::start(1).unwrap();
        let alive = Arc::new(());
        let held = alive.clone();
        let endless = background.run_there(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        assert!(
            tokio::time::timeout(Duration::from_millis(20), endless)
                .await
                .is_err()
        );
        let begun = Instant::now();
        while Arc::strong_count(&alive) > 1 {
            assert!(begun.elapsed() < Duration::from_secs(20), "it goes on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_panic_is_that_of_whoever_waits() {
        let background = Arc::new(Background::start(1).unwrap());
        let waiting = tokio::spawn(async move {
            background.run_there(async { assert!(!is_here()) }).await;
        });
        assert!(waiting.await.unwrap_err().is_panic());
    }
}
