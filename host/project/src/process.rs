//! Running the tools of others: one at a time, without input, ended with the build that wants them.

use std::{ffi::OsStr, io, path::Path, process::Stdio};

use tokio::process::Command;

use crate::Error;

/// A tool of a project.
pub(crate) struct Tool<'a> {
    /// The project that needs it.
    pub(crate) project: &'a str,
    /// What a person calls it.
    pub(crate) name: &'a str,
    /// What gets it, where it is missing.
    pub(crate) remedy: &'a str,
}

/// What a tool said, and whether it was content.
pub(crate) struct Ran {
    pub(crate) succeeded: bool,
    pub(crate) out: Vec<u8>,
    /// Standard output and then standard error, as text.
    pub(crate) text: String,
}

/// A program that is to run in a folder.
pub(crate) fn command(folder: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        // A build of a worker must not inherit what the host was built with.
        .env_remove("CARGO_TARGET_DIR")
        // Tools in Rust would show where they failed, and not what.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Tool<'_> {
    /// Runs it to its end.
    pub(crate) async fn run(&self, mut command: Command) -> Result<Ran, Error> {
        let ran = async { command.spawn()?.wait_with_output().await }.await;
        let output = ran.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.missing(),
            _ => Error::Io {
                what: format!("{}: running {}", self.project, self.name),
                cause: error,
            },
        })?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(Ran {
            succeeded: output.status.success(),
            out: output.stdout,
            text,
        })
    }

    /// Runs it to its end, and takes a failure for one of the sources. Returns what it said.
    pub(crate) async fn build(&self, command: Command) -> Result<String, Error> {
        let ran = self.run(command).await?;
        if ran.succeeded {
            Ok(ran.text)
        } else {
            Err(self.failed(ran.text))
        }
    }

    pub(crate) fn missing(&self) -> Error {
        Error::Missing {
            project: self.project.to_owned(),
            what: self.name.to_owned(),
            remedy: self.remedy.to_owned(),
        }
    }

    pub(crate) fn failed(&self, text: impl Into<String>) -> Error {
        Error::Failed {
            project: self.project.to_owned(),
            tool: self.name.to_owned(),
            text: without_stack_of_node(&text.into()).trim_end().to_owned(),
        }
    }
}

/// A program of Node that starts another one, which has said what is wrong, has nothing to add.
fn without_stack_of_node(text: &str) -> &str {
    text.split("\nnode:").next().unwrap_or(text)
}
