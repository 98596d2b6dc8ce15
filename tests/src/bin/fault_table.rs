//! Makes `tests/FAULTS.md` of the rows that `tests/faults` has run: `fault_table FOLDER FILE`. Ends
//! with 1 when a row has failed, after writing.

use std::{env, fs, path::PathBuf, process::ExitCode, thread};

use anyhow::{Context, Result};
use warren_tests::{broker, faults};

fn main() -> Result<ExitCode> {
    let mut words = env::args_os().skip(1).map(PathBuf::from);
    let usage = "usage: fault_table FOLDER FILE";
    let folder = words.next().context(usage)?;
    let file = words.next().context(usage)?;
    let cores = thread::available_parallelism()?;
    let version = broker::version()?;
    let facts = format!(
        "Machine: {cores} cores; RabbitMQ {version}, one node unless a row says otherwise."
    );
    let table = faults::table(&folder, &facts)?;
    fs::write(&file, &table).with_context(|| format!("writing {}", file.display()))?;
    let has_failed = table.contains("| fail |");
    Ok(if has_failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
