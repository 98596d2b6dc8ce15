//! One row of `tests/FAULTS.md`: what was done, what was counted, and whether it is right.
//!
//! Invariant: a row exists as a file from the moment it begins, so that one that hangs, panics or
//! fails is in the table with its cause.

#![allow(clippy::panic, reason = "a row that does not pass has failed")]

use std::{
    env, fs,
    panic::PanicHookInfo,
    path::{Path, PathBuf},
    sync::{Mutex, Once, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::Figures;

/// The environment variable that names the folder of the rows. Set by `tests/faults`; where it is
/// set, rows run at their full size.
pub const OUT: &str = "WARREN_FAULTS_OUT";

/// The columns of figures, in the order of the table.
const FIGURES: [(&str, &str); 8] = [
    ("injected", "faults injected"),
    ("attempted", "jobs attempted"),
    ("acknowledged", "acknowledged"),
    ("effected", "effected"),
    ("lost", "lost"),
    ("unexpected", "unexpected"),
    ("duplicated", "duplicated"),
    ("allowed", "allowed duplicates"),
];

/// A row in the making.
pub struct Row {
    id: String,
    fault: String,
    members: Map<String, Value>,
    remarks: Vec<String>,
    causes: Vec<String>,
    is_finished: bool,
}

impl Row {
    /// Begins a row: its id in RELIABILITY §4.3, and the fault in a few words.
    #[must_use]
    pub fn new(id: &str, fault: &str) -> Self {
        remember_panics();
        let row = Self {
            id: id.to_owned(),
            fault: fault.to_owned(),
            members: Map::new(),
            remarks: Vec::new(),
            causes: Vec::new(),
            is_finished: false,
        };
        row.write("fail", &["it did not come to its end".to_owned()]);
        row
    }

    /// Whether the row is to run at its full size, and not at that of every commit.
    #[must_use]
    pub fn is_full() -> bool {
        env::var_os(OUT).is_some()
    }

    /// One of two sizes: that of every commit, and that of `tests/faults`.
    #[must_use]
    pub fn sized<T>(short: T, full: T) -> T {
        if Self::is_full() { full } else { short }
    }

    /// What was done, such as `8 kill -9`.
    pub fn injected(&mut self, what: impl Into<String>) {
        self.members
            .insert("injected".to_owned(), what.into().into());
    }

    /// Notes what was counted. Something lost or unexpected is a failure.
    pub fn figures(&mut self, figures: &Figures) {
        for (name, n) in [
            ("attempted", figures.attempted),
            ("acknowledged", figures.acknowledged),
            ("effected", figures.effected),
            ("lost", figures.lost.len()),
            ("unexpected", figures.unexpected.len()),
            ("duplicated", figures.duplicated),
        ] {
            self.members.insert(name.to_owned(), n.into());
        }
        if figures.republished > 0 {
            self.note(format!("{} republished", figures.republished));
        }
        if !figures.dead.is_empty() {
            self.note(format!("{} in dead letters", figures.dead.len()));
        }
        if !figures.queued.is_empty() {
            self.note(format!("{} still queued", figures.queued.len()));
        }
        let some = |keys: &std::collections::BTreeSet<String>| {
            let keys: Vec<&str> = keys.iter().take(5).map(String::as_str).collect();
            keys.join(", ")
        };
        let (lost, unexpected) = (&figures.lost, &figures.unexpected);
        self.check(lost.is_empty(), format!("lost: {}", some(lost)));
        self.check(
            unexpected.is_empty(),
            format!("unexpected: {}", some(unexpected)),
        );
    }

    /// Notes what was counted where nothing runs. Something lost or unexpected is a failure.
    pub fn counted(&mut self, attempted: usize, lost: usize, unexpected: usize, twice: usize) {
        for (name, n) in [
            ("attempted", attempted),
            ("acknowledged", attempted),
            ("lost", lost),
            ("unexpected", unexpected),
            ("duplicated", twice),
        ] {
            self.members.insert(name.to_owned(), n.into());
        }
        self.check(lost == 0, format!("{lost} lost"));
        self.check(unexpected == 0, format!("{unexpected} unexpected"));
    }

    /// How many runs may be repeated, at the most.
    pub fn allow_duplicates(&mut self, n: usize) {
        self.members.insert("allowed".to_owned(), n.into());
        let duplicated = self.members.get("duplicated").and_then(Value::as_u64);
        let duplicated = duplicated.unwrap_or_default();
        self.check(
            duplicated <= n as u64,
            format!("{duplicated} runs were repeated, {n} allowed"),
        );
    }

    /// How long it took from the end of the fault, or from the fault where it has no end, to the
    /// next effect; the longest of several. `limit`: what is allowed.
    pub fn recovery(&mut self, took: Duration, limit: Duration) {
        let text = format!(
            "{:.1} s (≤ {:.0} s)",
            took.as_secs_f64(),
            limit.as_secs_f64()
        );
        self.members.insert("recovery".to_owned(), text.into());
        self.check(
            took <= limit,
            format!(
                "recovery took {:.1} s, {:.1} s allowed",
                took.as_secs_f64(),
                limit.as_secs_f64()
            ),
        );
    }

    /// Something that a reader of the table is to know.
    pub fn note(&mut self, remark: impl Into<String>) {
        self.remarks.push(remark.into());
    }

    /// Something that must be so; `otherwise` says what is wrong when it is not.
    pub fn check(&mut self, is_right: bool, otherwise: impl Into<String>) {
        if !is_right {
            self.causes.push(otherwise.into());
        }
    }

    /// Something that must have worked.
    pub fn check_ok<T>(&mut self, result: Result<T, String>) {
        if let Err(cause) = result {
            self.causes.push(cause);
        }
    }

    /// Ends the row.
    ///
    /// # Panics
    /// When something in it is not as it must be.
    #[track_caller]
    pub fn finish(mut self) {
        self.is_finished = true;
        let verdict = if self.causes.is_empty() {
            "pass"
        } else {
            "fail"
        };
        let causes = self.causes();
        self.write(verdict, &causes);
        assert!(
            self.causes.is_empty(),
            "{}: {}; {}",
            self.id,
            causes.join("; "),
            Value::from(self.members.clone())
        );
    }

    /// The causes in a length that a person reads.
    fn causes(&self) -> Vec<String> {
        const MOST: usize = 5;
        let mut causes: Vec<String> = self.causes.iter().take(MOST).cloned().collect();
        if self.causes.len() > MOST {
            causes.push(format!("and {} more", self.causes.len() - MOST));
        }
        causes
    }

    fn write(&self, verdict: &str, causes: &[String]) {
        let Some(folder) = env::var_os(OUT).map(PathBuf::from) else {
            return;
        };
        let mut members = self.members.clone();
        for (name, value) in [
            ("id", json!(self.id)),
            ("fault", json!(self.fault)),
            ("verdict", json!(verdict)),
            ("remarks", json!(self.remarks)),
            ("causes", json!(causes)),
        ] {
            members.insert(name.to_owned(), value);
        }
        let file = folder.join(format!("{}.json", self.id));
        let written = fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&file, Value::from(members).to_string()));
        if let Err(error) = written {
            panic!("{} cannot be written: {error}", file.display());
        }
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if !self.is_finished && thread::panicking() {
            let mut causes = self.causes();
            let panic = LAST_PANIC.lock();
            causes.push(panic.unwrap_or_else(PoisonError::into_inner).clone());
            self.write("fail", &causes);
        }
    }
}

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// A panic's words are told to a hook only.
fn remember_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            let mut last = LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner);
            *last = info.payload_as_str().unwrap_or("a panic").to_owned();
            drop(last);
            before(info);
        }));
    });
}

/// The table of all rows in a folder, by id.
///
/// # Errors
/// When the folder or a file in it cannot be read.
pub fn table(folder: &Path, facts: &str) -> Result<String> {
    let mut rows = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let text = fs::read_to_string(&path)?;
            let row: Value = serde_json::from_str(&text)
                .with_context(|| format!("reading {}", path.display()))?;
            rows.push(row);
        }
    }
    rows.sort_by_key(|row| text(row, "id"));
    let n_passed = rows.iter().filter(|row| text(row, "verdict") == "pass");
    let (n_passed, n) = (n_passed.count(), rows.len());
    let mut table = format!(
        "# Faults\n\nGenerated by `tests/faults`: do not edit. {facts}\n\n{n_passed} of {n} rows \
         pass. A job is *acknowledged* when its producer has the broker's confirm, *effected* when \
         its run has written a row into a database. *Lost* is what was acknowledged and is neither \
         effected nor in a queue nor among the dead letters. *Duplicated* counts runs beyond the \
         first of each job. *Recovery* is the longest time from the end of a fault to the next \
         effect.\n\n| id | fault |"
    );
    for (_, title) in FIGURES {
        table.push_str(&format!(" {title} |"));
    }
    table.push_str(" recovery time | verdict | remark |\n|---|---|---|");
    table.push_str(&"---:|".repeat(FIGURES.len() - 1));
    table.push_str("---|---|---|\n");
    for row in &rows {
        let mut cells = vec![text(row, "id"), text(row, "fault")];
        cells.extend(FIGURES.map(|(name, _)| text(row, name)));
        cells.extend([text(row, "recovery"), text(row, "verdict")]);
        let mut remarks = texts(row, "causes");
        if !remarks.is_empty() {
            remarks = vec![format!("**{}**", remarks.join("; "))];
        }
        remarks.extend(texts(row, "remarks"));
        cells.push(remarks.join("; "));
        let cells = cells
            .iter()
            .map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        let cells: Vec<String> = cells.collect();
        table.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    Ok(table)
}

fn text(row: &Value, name: &str) -> String {
    match row.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn texts(row: &Value, name: &str) -> Vec<String> {
    let list = row.get(name).and_then(Value::as_array);
    let list = list.into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}
