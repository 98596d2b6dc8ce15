//! `warren dlq export`.
//!
//! The log is read twice: first to find out what is still there, then to write it, one letter at a
//! time, so that no more than one body is in memory.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::Context;
use warren_bus::operator::Operator;
use warren_protocol::WorkerType;

use super::{
    super::{
        Verdict,
        filter::Filter,
        letter,
        output::{Output, say},
    },
    list,
};

pub(super) async fn run(
    operator: &Operator,
    worker_type: &WorkerType,
    filter: &Filter,
    exact: bool,
    file: Option<&Path>,
    output: &mut Output,
) -> anyhow::Result<Verdict> {
    // Before the work: a file that cannot be written is no reason to wait.
    let mut file = match file {
        Some(path) => {
            let opened = File::create_new(path);
            let opened = opened.with_context(|| format!("writing {}", path.display()))?;
            Some((path, BufWriter::new(opened)))
        }
        None => None,
    };
    let places = list::read_matching(operator, Some(worker_type), filter).await?;
    let mut n_written = 0;
    let write = |found| -> anyhow::Result<()> {
        let line = letter::to_json(&found, exact);
        match &mut file {
            Some((path, file)) => {
                writeln!(file, "{line}").with_context(|| format!("writing {}", path.display()))?
            }
            None => output.json(&line)?,
        }
        n_written += 1;
        Ok(())
    };
    operator
        .letters_at(places.into_iter().collect(), write)
        .await?;
    let mut to = String::new();
    if let Some((path, mut file)) = file {
        file.flush()
            .with_context(|| format!("writing {}", path.display()))?;
        to = format!(" to {}", path.display());
    }
    say(&format!(
        "wrote {n_written} dead letters of {worker_type}{to}; they stay where they are"
    ));
    Ok(Verdict::Done)
}
