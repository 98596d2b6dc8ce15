//! The built `warren` as a command that ends by itself: what an operator types.

#![allow(clippy::panic, reason = "a test whose command cannot run has failed")]

use std::{
    env,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Child, time::timeout};

use crate::{LIMIT, host::binary};

/// One command, in an empty folder.
pub struct Command {
    command: tokio::process::Command,
    folder: TempDir,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: String,
    /// From its start to its end.
    pub took: Duration,
}

impl Command {
    /// `warren` with these arguments, separated by spaces, on the broker of this URL.
    ///
    /// # Panics
    /// When no folder can be made, or `warren` is not built.
    #[must_use]
    pub fn new(url: Option<&str>, arguments: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("warren-command-").tempdir();
        let Ok(folder) = folder else {
            panic!("no folder for a command: {folder:?}");
        };
        let mut command = tokio::process::Command::new(binary());
        command
            .args(arguments.split_whitespace())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("WARREN_") || text == "BROKER_URL" {
                command.env_remove(&name);
            }
        }
        if let Some(url) = url {
            command.env("WARREN_BROKER", url);
        }
        Self { command, folder }
    }

    /// Adds one argument as it is.
    #[must_use]
    pub fn with(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Puts a file into its folder.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn with_file(self, name: &str, content: &str) -> Self {
        if let Err(error) = std::fs::write(self.folder.path().join(name), content) {
            panic!("{name} cannot be written: {error}");
        }
        self
    }

    /// Gives it this text on standard input.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn with_input(self, text: &str) -> Self {
        let mut with = self.with_file("stdin", text);
        match std::fs::File::open(with.folder.path().join("stdin")) {
            Ok(file) => with.command.stdin(Stdio::from(file)),
            Err(error) => panic!("standard input cannot be read: {error}"),
        };
        with
    }

    /// Starts it, for a test that ends it. Its folder must live as long.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(mut self) -> (Child, TempDir) {
        match self.command.spawn() {
            Ok(child) => (child, self.folder),
            Err(error) => panic!("warren cannot be started: {error}"),
        }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn run(self) -> Ran {
        self.run_within(LIMIT).await
    }

    /// As [`Command::run`], for what takes longer.
    ///
    /// # Panics
    /// When it has not ended after `limit`.
    pub async fn run_within(mut self, limit: Duration) -> Ran {
        let begun = Instant::now();
        let Ok(ended) = timeout(limit, self.command.output()).await else {
            panic!("waited {} s in vain: the command ends", limit.as_secs());
        };
        match ended {
            Ok(output) => Ran {
                code: output.status.code(),
                out: output.stdout,
                err: String::from_utf8_lossy(&output.stderr).into_owned(),
                took: begun.elapsed(),
            },
            Err(error) => panic!("warren cannot be run: {error}"),
        }
    }
}

impl Ran {
    /// What it wrote to standard output.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// What it wrote to standard output, line by line.
    ///
    /// # Panics
    /// When a line is no JSON.
    #[must_use]
    pub fn json(&self) -> Vec<Value> {
        let read = |line: &str| match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => panic!("{error} in {line:?}; {}", self.err),
        };
        self.text().lines().map(read).collect()
    }

    /// The one JSON line of this kind.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn line(&self, kind: &str) -> Value {
        let found = self.json().into_iter().find(|line| line["kind"] == kind);
        match found {
            Some(line) => line,
            None => panic!("no line of kind {kind}: {self:?}"),
        }
    }

    /// Fails unless it ended with this code.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.text(), self.err);
        self
    }
}
