//! How a tree is read into a struct: a table of keys, each with the function that sets it.

use std::collections::BTreeMap;

use super::{
    Mistake, Place,
    tree::{Entry, Node, Value},
    values::quoted,
};

/// One key of a table, and how its value gets into a `T`.
pub(super) struct Key<T> {
    pub(super) name: &'static str,
    pub(super) set: fn(&mut T, &Node, &mut Report),
}

/// What is found on the way.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<String>,
    /// Where the value of a key (with its table) comes from, for mistakes that two keys make together.
    pub(super) places: BTreeMap<&'static str, Place>,
}

impl Report {
    /// Sets a field, or notes why not.
    pub(super) fn put<T>(&mut self, field: &mut T, value: Result<T, Mistake>) {
        match value {
            Ok(value) => *field = value,
            Err(mistake) => self.mistakes.push(mistake),
        }
    }

    /// The entries of what should be a table, each key once.
    pub(super) fn entries<'a>(&mut self, node: &'a Node) -> Vec<&'a Entry> {
        let Value::Table(entries) = &node.value else {
            self.mistakes.push(node.mistake(
                format!("a table is expected, this is {}", node.value.kind()),
                "write its keys under a [header] of its own; config/warren.toml shows every key",
            ));
            return Vec::new();
        };
        let mut seen: BTreeMap<&str, &Entry> = BTreeMap::new();
        for entry in entries {
            if seen.insert(&entry.key, entry).is_some() {
                self.mistakes.push(Mistake {
                    place: entry.place.clone(),
                    message: format!("{} is there twice", quoted(&entry.key)),
                    remedy: "keep one of them".to_owned(),
                });
            }
        }
        entries.iter().collect()
    }

    /// Notes a key that its table does not have. `known` are those that it has, `elsewhere` all
    /// keys of the file with their tables.
    pub(super) fn unknown(&mut self, entry: &Entry, known: &[&str], elsewhere: &[String]) {
        let list = known.join(", ");
        let remedy = match closest(&entry.key, known) {
            Some(name) => format!("did you mean `{name}`? known here: {list}"),
            None => match new_name(&entry.key, elsewhere) {
                Some(path) => format!("{}; known here: {list}", how_to_write(&path)),
                None => format!("remove it; known here: {list}"),
            },
        };
        self.mistakes.push(Mistake {
            place: entry.place.clone(),
            message: format!("unknown key {}", quoted(&entry.key)),
            remedy,
        });
    }
}

/// Sets the entry if the table has it, and says whether it has.
pub(super) fn set<T>(keys: &[Key<T>], target: &mut T, entry: &Entry, report: &mut Report) -> bool {
    let Some(key) = keys.iter().find(|key| key.name == entry.key) else {
        return false;
    };
    (key.set)(target, &entry.node, report);
    true
}

/// The names of a table.
pub(super) fn names<T>(keys: &[Key<T>]) -> impl Iterator<Item = &'static str> {
    keys.iter().map(|key| key.name)
}

/// The name that was probably meant: another letter case, or one or two slips.
pub(crate) fn closest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    const MOST_SLIPS: usize = 2;
    let written = written.to_ascii_lowercase().replace('-', "_");
    known
        .iter()
        .map(|name| {
            (
                strsim::damerau_levenshtein(&written, &name.to_ascii_lowercase()),
                *name,
            )
        })
        // Of a short name, two letters are most of it.
        .filter(|(n_slips, name)| *n_slips <= MOST_SLIPS && *n_slips * 2 < name.len())
        .min_by_key(|(n_slips, _)| *n_slips)
        .map(|(_, name)| name)
}

/// The whole key for a name that belongs to another table, or that MicroServices.js has for it.
fn new_name(written: &str, elsewhere: &[String]) -> Option<String> {
    const OF_MICROSERVICES_JS: [(&str, &str); 4] = [
        ("broker_url", "broker"),
        ("data_transfer_protocol", "encoding"),
        ("SystemManager_log", "log.system_manager"),
        ("Worker_log", "log.worker"),
    ];
    let renamed = OF_MICROSERVICES_JS
        .iter()
        .find(|(theirs, _)| *theirs == written);
    let moved = || {
        elsewhere
            .iter()
            .find(|path| path.rsplit('.').next() == Some(written))
    };
    renamed
        .map(|(_, ours)| (*ours).to_owned())
        .or_else(|| moved().cloned())
}

fn how_to_write(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((table, name)) => format!("write it as `{name}` under [{table}]"),
        None => format!("write it as `{path}` at the top of the file, before the first [table]"),
    }
}
