//! Compiling in a process of its own: a file of half a megabyte can be made such that its compiling
//! takes minutes and gigabytes. There it has bounds, and no more of the processor than others leave.
//!
//! What the two processes say to each other: the file on the standard input; the code on the standard
//! output, or one text for the operator on the standard error and an exit code that is not 0.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use crate::{LoadError, background, engine};

/// The longest text that is taken from the other process, in bytes.
const MAX_TEXT_BYTES: u64 = 4 << 10;

/// Where plugins are compiled, and what that may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompilerConfig {
    /// A program that calls [`compile_apart`] with the same bounds.
    pub program: PathBuf,
    /// What it is called with.
    pub arguments: Vec<OsString>,
    /// What compiling one plugin may take.
    pub bounds: CompilerBounds,
}

/// What compiling one plugin may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompilerBounds {
    /// Address space of the process, in bytes. Compiling needs what the largest of its functions need
    /// at a time, and a fixed part of some 0.2 GiB that is mostly never touched.
    pub memory_bytes: u64,
    /// From its start to its end.
    pub timeout: Duration,
}

impl CompilerConfig {
    /// Compiles the bytes of a file.
    ///
    /// # Errors
    /// [`LoadError::Compile`] when it cannot be compiled, or not within the bounds.
    ///
    /// # Cancel safety
    /// Dropping the future ends the process.
    pub(crate) async fn compile(&self, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
        let failed = |error: io::Error| {
            LoadError::Compile(format!("the compiler could not be run: {error}"))
        };
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            // It needs nothing of what this process knows.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(mut stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err(failed(io::Error::other("it has no pipes")));
        };
        let (mut code, mut text) = (Vec::new(), String::new());
        let talk = async {
            let hand_over = async {
                // When it fails, why it failed is in its own text.
                let _ = stdin.write_all(bytes).await;
                drop(stdin);
            };
            let mut stderr = stderr.take(MAX_TEXT_BYTES);
            let ((), read, _) = tokio::join!(
                hand_over,
                stdout.read_to_end(&mut code),
                stderr.read_to_string(&mut text),
            );
            // Nobody reads on: whoever writes on ends.
            drop(stderr);
            read?;
            child.wait().await
        };
        let ended = tokio::time::timeout(self.bounds.timeout, talk).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(code),
            Ok(Ok(status)) => Err(LoadError::Compile(self.bounds.failure(status, text.trim()))),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => {
                // Its end is waited for: two at a time would be more than was allowed.
                let _ = child.kill().await;
                Err(LoadError::Compile(self.bounds.too_long()))
            }
        }
    }
}

impl CompilerBounds {
    fn failure(&self, status: ExitStatus, text: &str) -> String {
        let signal = status.signal();
        if signal == Some(Signal::XCPU.as_raw()) || signal == Some(Signal::KILL.as_raw()) {
            return self.too_long();
        }
        // The allocator's own words, or those of whoever asks the system for pages.
        let is_short_of_memory = ["memory allocation", "ENOMEM", "Cannot allocate memory"]
            .iter()
            .any(|words| text.contains(words));
        if is_short_of_memory {
            return format!(
                "compiling it takes more than {} MiB of memory: a guest that does is broken or \
                 hostile, unless it is very large; then raise `compile_memory`",
                self.memory_bytes >> 20
            );
        }
        match (status.code(), text) {
            (Some(_), text) if !text.is_empty() => text.to_owned(),
            _ => format!("the compiler ended with {status}: {text}"),
        }
    }

    fn too_long(&self) -> String {
        format!(
            "compiling it takes longer than {:?}: a guest that does is broken or hostile, unless it \
             is very large or this machine very slow; then raise `compile_timeout`",
            self.timeout
        )
    }

    /// Of this process, for good. The time is a second bound, for when nobody waits any more.
    fn impose(&self) -> io::Result<()> {
        let limit = |resource, most| {
            let most = Some(most);
            setrlimit(
                resource,
                Rlimit {
                    current: most,
                    maximum: most,
                },
            )
        };
        let n_processors = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let seconds = self.timeout.as_secs().saturating_add(1);
        limit(Resource::As, self.memory_bytes)?;
        limit(Resource::Cpu, seconds.saturating_mul(n_processors))?;
        // What it would leave behind when it crashes is as large as it is.
        limit(Resource::Core, 0)?;
        Ok(())
    }
}

/// Compiles the file on the standard input to the standard output, within bounds and at a low
/// priority: all that the process of [`CompilerConfig`] does.
///
/// # Errors
/// The text for the standard error.
pub fn compile_apart(bounds: &CompilerBounds) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    background::lower_priority();
    bounds.impose().map_err(text)?;
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).map_err(text)?;
    let code = engine::precompile(&bytes).map_err(|error| format!("{error:#}"))?;
    io::stdout().write_all(&code).map_err(text)
}
