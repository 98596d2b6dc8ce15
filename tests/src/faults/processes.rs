//! What a process of ours takes of the machine, read from `/proc`.

use std::fs;

/// A look at one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory that is in use, in KiB.
    pub rss_kib: u64,
    /// All threads but those of the runtime: it has as many as wait for the disk at a time.
    pub n_threads: usize,
    /// Those of lapin, one for each connection.
    pub n_io_loops: usize,
    /// Open sockets. Not files: a busy worker has more connections to its database.
    pub n_sockets: usize,
}

/// Looks at a process; zeros for one that is gone.
#[must_use]
pub fn usage(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss = rss.and_then(|rss| rss.split_whitespace().next()?.parse().ok());
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let names: Vec<String> = tasks
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|task| fs::read_to_string(task.path().join("comm")).unwrap_or_default())
        .collect();
    let fds = fs::read_dir(format!("/proc/{pid}/fd"));
    let open = fds.into_iter().flatten().filter_map(Result::ok);
    let open = open.filter_map(|fd| fs::read_link(fd.path()).ok());
    let open = open.map(|path| path.to_string_lossy().into_owned());
    Usage {
        rss_kib: rss.unwrap_or_default(),
        n_threads: names.iter().filter(|name| !name.contains("tokio")).count(),
        n_io_loops: names.iter().filter(|name| name.contains("io-loop")).count(),
        n_sockets: open.filter(|path| path.starts_with("socket:")).count(),
    }
}
