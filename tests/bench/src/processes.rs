//! The processes that are measured: started, ready, looked at, and gone at the end.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Ticks of a processor's time in a second, as `/proc` counts them: the same on every Linux.
const TICKS: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;

/// What a process and all that it has started take of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Time on processors so far, in seconds. That of children that have ended is in it.
    pub(crate) cpu: f64,
    /// Resident memory, in bytes. What several processes share counts once for each.
    pub(crate) memory: u64,
}

/// Looks at some processes with their children.
pub(crate) fn usage(pids: &[u32]) -> Usage {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten();
    for entry in entries.filter_map(Result::ok) {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut usage = Usage::default();
    let mut left = pids.to_vec();
    while let Some(pid) = left.pop() {
        left.extend(children.get(&pid).into_iter().flatten());
        let one = usage_of(pid);
        usage.cpu += one.cpu;
        usage.memory += one.memory;
    }
    usage
}

fn usage_of(pid: u32) -> Usage {
    let Some(fields) = stat(pid) else {
        return Usage::default();
    };
    let number = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
    };
    // utime, stime, cutime and cstime; rss. Counted from the state, which is field 3.
    let ticks: u64 = (11..=14).filter_map(number).sum();
    Usage {
        cpu: ticks as f64 / TICKS,
        memory: number(21).unwrap_or_default() * PAGE_BYTES,
    }
}

/// The fields of `/proc/PID/stat` behind the name, which may hold anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// A process that says on its standard output that it is ready. It ends with this value.
pub(crate) struct Ready {
    child: Child,
}

impl Ready {
    /// Starts it and waits for the line that begins so.
    pub(crate) fn start(mut command: Command, line: &'static str, limit: Duration) -> Result<Self> {
        let name = format!("{:?}", command.get_program());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let mut ready = Self { child };
        let output = ready.child.stdout.take().context("its standard output")?;
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        // Reads on to the end: who cannot write any more stands still.
        thread::spawn(move || {
            for said in BufReader::new(output).lines().map_while(Result::ok) {
                if said.starts_with(line) {
                    let _ = sender.try_send(());
                }
            }
        });
        if receiver.recv_timeout(limit).is_err() {
            bail!("{name} is not ready after {} s", limit.as_secs());
        }
        Ok(ready)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, name: &str) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill")
            .args(["-s", name, "--", &group])
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        self.signal("TERM");
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        self.signal("KILL");
        let _ = self.child.wait();
    }
}
