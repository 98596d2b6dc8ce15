//! The process of a peer: its pipes, and what has come out of them.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use serde_json::Value;

/// How many events of a peer a failed test shows: of a load, only the end is of interest.
const MAX_SHOWN: usize = 40;

/// Killed when it is dropped.
pub(super) struct Process {
    /// For who reads why a test has failed.
    name: String,
    child: Child,
    /// `None` once it has been closed.
    input: Option<ChildStdin>,
    written: Arc<Written>,
    readers: Vec<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Written {
    events: Mutex<Vec<Value>>,
    /// Standard error, and what was no event.
    lines: Mutex<Vec<String>>,
}

impl Process {
    pub(super) fn spawn(name: &str, command: &mut Command) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let written = Arc::new(Written::default());
        let mut readers = Vec::new();
        if let Some(out) = child.stdout.take() {
            let written = written.clone();
            readers.push(thread::spawn(move || {
                read(out, |line| match serde_json::from_str(&line) {
                    Ok(event) => lock(&written.events).push(event),
                    Err(_) => lock(&written.lines).push(line),
                });
            }));
        }
        if let Some(err) = child.stderr.take() {
            let written = written.clone();
            readers.push(thread::spawn(move || {
                read(err, |line| lock(&written.lines).push(line));
            }));
        }
        Ok(Self {
            name: name.to_owned(),
            input: child.stdin.take(),
            child,
            written,
            readers,
        })
    }

    pub(super) fn tell(&mut self, line: &str) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(input, "{line}")
    }

    pub(super) fn close_input(&mut self) {
        self.input = None;
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn events(&self) -> MutexGuard<'_, Vec<Value>> {
        lock(&self.written.events)
    }

    /// Returns when all that it has written has been read. It must have ended.
    pub(super) fn read_to_the_end(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            return;
        }
        eprintln!("--- what the Node peer {} did:", self.name);
        let events = self.events();
        let n_left_out = events.len().saturating_sub(MAX_SHOWN);
        eprintln!("({n_left_out} events before these)");
        for event in events.iter().skip(n_left_out) {
            eprintln!("{event}");
        }
        for line in lock(&self.written.lines).iter() {
            eprintln!("{line}");
        }
    }
}

fn read(stream: impl Read, mut take: impl FnMut(String)) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        take(line);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
