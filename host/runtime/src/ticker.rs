//! The clock of the guests: a thread at whose ticks code that runs gives way to others and to its
//! deadline. It sleeps while nothing runs, so that a host at rest wakes no processor.
//!
//! Invariant: while a [`Ticks`] lives there are ticks; and once the [`Ticker`] is gone, for as long as
//! the engine is not.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, Thread},
    time::Duration,
};

use wasmtime::{Engine, EngineWeak};

/// How often running guests give way to others and to their deadline. A tick costs a guest that
/// computes a microsecond or two. Where guests keep all threads busy, everybody else waits for a tick
/// at each of the handful of steps that a job takes.
const TICK: Duration = Duration::from_millis(2);
/// Ticks for nobody before it sleeps, a second: to wake it costs a run as much as its instance does.
const PATIENCE: u32 = 500;

/// The thread of one engine. Ends with the engine, which it holds weakly.
pub(crate) struct Ticker(Arc<Shared>);

/// The right of something that runs to be interrupted.
pub(crate) struct Ticks(Arc<Shared>);

#[derive(Default)]
struct Shared {
    n_running: AtomicUsize,
    is_asleep: AtomicBool,
    /// Nobody is left who would wake it, so it sleeps no more.
    is_alone: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Ticker {
    /// One that has no engine yet.
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// Starts the thread. wasmtime's own engine rather than ours: plugins keep that one alive, and
    /// without ticks they would not be stopped.
    pub(crate) fn start(&self, engine: &Engine) -> io::Result<()> {
        let (engine, shared) = (engine.weak(), self.0.clone());
        thread::Builder::new()
            .name("epoch-ticker".to_owned())
            .spawn(move || shared.tick(&engine))
            .map(drop)
    }

    /// Something runs from now on.
    pub(crate) fn running(&self) -> Ticks {
        // In this order, and `Shared::sleep` in the other: one of the two sees what the other has done.
        self.0.n_running.fetch_add(1, SeqCst);
        if self.0.is_asleep.load(SeqCst) {
            self.0.wake();
        }
        Ticks(self.0.clone())
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.is_alone.store(true, SeqCst);
        self.0.wake();
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        self.0.n_running.fetch_sub(1, SeqCst);
    }
}

impl Shared {
    fn tick(&self, engine: &EngineWeak) {
        let _ = self.thread.set(thread::current());
        let mut n_idle = 0;
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
            n_idle = if self.is_needed() { 0 } else { n_idle + 1 };
            if n_idle >= PATIENCE {
                self.sleep();
                n_idle = 0;
            }
        }
    }

    fn sleep(&self) {
        self.is_asleep.store(true, SeqCst);
        while !self.is_needed() {
            thread::park();
        }
        self.is_asleep.store(false, SeqCst);
    }

    fn is_needed(&self) -> bool {
        self.n_running.load(SeqCst) > 0 || self.is_alone.load(SeqCst)
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use wasmtime::{Config, Instance, Module, Store, Trap};

    use super::*;

    /// Waits until nothing ticks any more.
    fn asleep(engine: &Engine) -> Ticker {
        let ticker = Ticker::new();
        ticker.start(engine).unwrap();
        let begun = Instant::now();
        while !ticker.0.is_asleep.load(SeqCst) {
            assert!(begun.elapsed() < Duration::from_secs(20), "it goes on");
            thread::sleep(Duration::from_millis(1));
        }
        ticker
    }

    fn engine() -> Engine {
        Engine::new(Config::new().epoch_interruption(true)).unwrap()
    }

    /// What ends a guest that would never end.
    fn ended(engine: &Engine) -> Trap {
        let module = r#"(module (func (export "run") (loop (br 0))))"#;
        let module = Module::new(engine, wat::parse_str(module).unwrap()).unwrap();
        let mut store = Store::new(engine, ());
        store.set_epoch_deadline(3);
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let run = instance.get_typed_func::<(), ()>(&mut store, "run");
        let error = run.unwrap().call(&mut store, ()).unwrap_err();
        *error.downcast_ref().unwrap()
    }

    #[test]
    fn what_runs_is_interrupted_also_after_the_ticker_has_slept() {
        let engine = engine();
        let ticker = asleep(&engine);
        let _running = ticker.running();
        assert_eq!(ended(&engine), Trap::Interrupt);
    }

    #[test]
    fn an_engine_has_ticks_when_nobody_could_wake_its_ticker() {
        let engine = engine();
        drop(asleep(&engine));
        assert_eq!(ended(&engine), Trap::Interrupt);
    }

    #[test]
    fn a_sleeping_ticker_ends_with_its_engine() {
        let engine = engine();
        let ticker = asleep(&engine);
        let shared = Arc::downgrade(&ticker.0);
        drop((engine, ticker));
        let begun = Instant::now();
        while shared.strong_count() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "it goes on");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
