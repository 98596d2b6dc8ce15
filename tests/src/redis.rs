//! A private Redis server on a free port of 127.0.0.1, with its data in a folder of its own. The tests
//! of `warren-runtime` have this file, too.
//!
//! Invariant: nothing outlives the process that started it: a shell waits for the end of its input,
//! kills the server by its number and removes the folder.

#![allow(clippy::panic, reason = "a test without its server has failed")]

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A server starts within milliseconds.
const START_LIMIT: Duration = Duration::from_secs(30);
const REMEDY: &str = "install Redis (tests/install does, or apt-get install -y redis-server)";

/// A server that runs or does not. Its data stay in between.
pub struct Redis {
    /// Dropped first.
    guard: Option<Child>,
    folder: TempDir,
    port: u16,
    settings: String,
}

impl Redis {
    /// Starts a server and returns when it answers.
    ///
    /// # Panics
    /// When it cannot be started; the text says what to do.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// As [`Redis::start`], with further lines of `redis.conf`, in which `DIR` is its folder.
    ///
    /// # Panics
    /// As [`Redis::start`].
    #[must_use]
    pub fn start_with(settings: &str) -> Self {
        Self::with_files(settings, &[])
    }

    /// As [`Redis::start_with`], with these files in its folder.
    ///
    /// # Panics
    /// As [`Redis::start`].
    #[must_use]
    pub fn with_files(settings: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("warren-redis-").tempdir();
        let folder = must("making a folder", folder);
        for (name, content) in files {
            must(
                "writing a file",
                fs::write(folder.path().join(name), content),
            );
        }
        let mut server = Self {
            guard: None,
            settings: settings.replace("DIR", &folder.path().display().to_string()),
            folder,
            port: free_port(),
        };
        server.start_again();
        server
    }

    /// Starts it on the same port with the same data.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn start_again(&mut self) {
        let folder = self.folder.path();
        let config = format!(
            "bind 127.0.0.1\nport {}\ndir {}\nsave \"\"\nappendonly yes\nappendfsync always\n{}\n",
            self.port,
            folder.display(),
            self.settings,
        );
        must(
            "writing a file",
            fs::write(folder.join("redis.conf"), config),
        );
        let script = r#"
            trap '' INT TERM HUP
            redis-server "$0/redis.conf" </dev/null >>"$0/output" 2>&1 &
            read -r word
            kill -KILL $!
            wait
            [ "$word" = stop ] || rm -rf "$0"
        "#;
        let guard = Command::new("sh")
            .args(["-c", script])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.guard = Some(must("starting the guard of a server", guard));
        let started = Instant::now();
        while !self.answers() {
            if started.elapsed() > START_LIMIT {
                let output = fs::read_to_string(folder.join("output")).unwrap_or_default();
                panic!("redis-server does not answer: {REMEDY}; it wrote: {output}");
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// Kills it. What it has acknowledged is on its disk.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            let told = guard
                .stdin
                .take()
                .map(|mut input| input.write_all(b"stop\n"));
            must("telling the guard", told.transpose());
            must("waiting for the guard", guard.wait());
        }
    }

    /// Where a client connects to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Has it carry out a command of words without spaces, and returns its answer as it is on the
    /// wire.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn ask(&self, command: &str) -> String {
        must("asking the server", self.try_ask(command))
    }

    fn try_ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(START_LIMIT))?;
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error),
            _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
        }
    }

    fn answers(&self) -> bool {
        let answer = self.try_ask("PING").unwrap_or_default();
        answer.starts_with("+PONG") || answer.starts_with("-NOAUTH")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

/// A port that nobody has now.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    must("finding a free port", address).port()
}

#[track_caller]
fn must<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}
