//! Tables of a worker that are not in the configuration: the file of test cases has them, with the
//! keys and the mistakes of `[workers.TYPE]`.

use std::path::Path;

use warren_protocol::WorkerType;

use super::{
    Config, Mistake, WorkerConfig, from_toml, keys,
    read::Report,
    text::Text,
    tree::{Node, Value},
};

/// A file that has such tables.
pub(crate) struct Apart(Node);

/// A step from a table to what is in it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    /// The value of a key.
    Key(&'a str),
    /// An item of a list, from 0.
    Item(usize),
}

impl Apart {
    /// Reads a file.
    ///
    /// # Errors
    /// Every place where it is not TOML.
    pub(crate) fn parse(path: &Path, content: &str) -> Result<Self, Vec<Mistake>> {
        from_toml::parse(&Text { path, content }).map(Self)
    }

    /// Lets the table at a place, if there is one, decide for a worker what the configuration has
    /// not or has otherwise. Returns its mistakes.
    pub(crate) fn read(
        &self,
        steps: &[Step<'_>],
        worker_type: &WorkerType,
        config: &mut Config,
    ) -> Vec<Mistake> {
        let Some(table) = self.find(steps) else {
            return Vec::new();
        };
        let mut report = Report::default();
        let limits = config.limits.clone();
        let worker = config.workers.entry(worker_type.clone());
        let worker = worker.or_insert_with(|| WorkerConfig {
            limits,
            ..WorkerConfig::default()
        });
        keys::read_worker(worker, table, &mut report);
        report.mistakes
    }

    fn find(&self, steps: &[Step<'_>]) -> Option<&Node> {
        steps
            .iter()
            .try_fold(&self.0, |node, step| match (step, &node.value) {
                (Step::Key(key), Value::Table(entries)) => {
                    let entry = entries.iter().find(|entry| entry.key == *key)?;
                    Some(&entry.node)
                }
                (Step::Item(index), Value::List(items)) => items.get(*index),
                _ => None,
            })
    }
}
