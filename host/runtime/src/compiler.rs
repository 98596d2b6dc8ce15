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

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use crate::{LoadError, background, engine};

/// How the process ends by itself when it has taken too long.
const EXIT_TOO_LONG: i32 = 124;
/// The longest text that is taken from the other process, in bytes.
const MAX_TEXT_BYTES: u64 = 4 << 10;

/// The most code that is taken from it, in bytes: some four times the largest file.
const MAX_CODE_BYTES: u64 = 1 << 30;
/// Each thread of the compiler sets address space aside, and more than so many are of little use.
const MAX_THREADS: usize = 8;

/// Where plugins are compiled, and what that may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompilerConfig {
    /// A program that calls [`compile_apart`] with the same bounds.
    pub program: PathBuf,
    /// What it is called with.
    pub arguments: Vec<OsString>,
    /// The variables that it needs to start, of this process'; it gets no others.
    pub environment: Vec<(OsString, OsString)>,
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
            // It needs nothing else of what this process knows.
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // Each of the allocator's arenas sets address space aside.
            .env("MALLOC_ARENA_MAX", "2")
            .env("RAYON_NUM_THREADS", n_threads().to_string())
            // The signals of a terminal are for the host, which ends it in its own time.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err(failed(io::Error::other("it has no pipes")));
        };
        let (mut code, mut text) = (Vec::new(), Vec::new());
        let talk = async {
            let hand_over = async {
                // When it fails, why it failed is in its own text.
                let _ = stdin.write_all(bytes).await;
                drop(stdin);
            };
            let read_text = async {
                stderr.take(MAX_TEXT_BYTES).read_to_end(&mut text).await
                // Its end is closed here: whoever writes on fails, and does not wait.
            };
            let read_code = async { stdout.take(MAX_CODE_BYTES + 1).read_to_end(&mut code).await };
            let ((), read, _) = tokio::join!(hand_over, read_code, read_text);
            read?;
            if code.len() as u64 > MAX_CODE_BYTES {
                return Ok(None);
            }
            child.wait().await.map(Some)
        };
        let ended = tokio::time::timeout(self.bounds.timeout, talk).await;
        match ended {
            Ok(Ok(Some(status))) if status.success() => Ok(code),
            Ok(Ok(Some(status))) => {
                let text = String::from_utf8_lossy(&text);
                Err(LoadError::Compile(self.bounds.failure(status, text.trim())))
            }
            Ok(Ok(None)) => Err(LoadError::Compile(format!(
                "its code would take more than {} MiB",
                MAX_CODE_BYTES >> 20
            ))),
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
        if signal == Some(Signal::XCPU.as_raw()) || status.code() == Some(EXIT_TOO_LONG) {
            return self.too_long();
        }
        if signal == Some(Signal::KILL.as_raw()) {
            return format!(
                "the compiler was killed, by somebody or because the system is short of memory: give \
                 it more than the {} MiB of `compile_memory`, or lower that",
                self.memory_bytes >> 20
            );
        }
        // An allocation that fails ends a process, a thread that cannot be started panics. What a plugin
        // can choose are words in an ordinary error.
        let has_crashed = status.code() != Some(1);
        if has_crashed
            && ["memory", "temporarily unavailable"]
                .iter()
                .any(|word| text.contains(word))
        {
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

    /// Of this process, for good. The times are bounds for when nobody waits any more: the host may have
    /// been killed.
    fn impose(&self) -> io::Result<()> {
        let limit = |resource, most: u64| {
            // One that is lower already cannot be raised.
            let maximum = getrlimit(resource).maximum;
            let most = Some(maximum.map_or(most, |maximum| maximum.min(most)));
            setrlimit(
                resource,
                Rlimit {
                    current: most,
                    maximum: most,
                },
            )
        };
        let timeout = self.timeout.saturating_add(Duration::from_secs(1));
        std::thread::Builder::new().spawn(move || {
            std::thread::sleep(timeout);
            std::process::exit(EXIT_TOO_LONG);
        })?;
        // Where the system is short of memory, this goes first, and not the host.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        let seconds = timeout.as_secs().saturating_mul(n_threads() as u64);
        limit(Resource::As, self.memory_bytes)?;
        limit(Resource::Cpu, seconds)?;
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
    let code = engine::precompile(&bytes).map_err(|error| {
        let mut text = format!("{error:#}");
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES as usize));
        text
    })?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(&code).map_err(text)?;
    stdout.flush().map_err(text)
}

fn n_threads() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS)
}
