//! Lines of source for places in a plugin's code, where its file has debug information.
//!
//! wasmtime could do this by itself, at a cost of tens of milliseconds for every trap: a message that
//! makes a guest trap would be a way to keep a processor busy. So only the tables of lines are kept
//! here (not the much larger rest of DWARF), each place is looked up once, and tables are read no more
//! than once a second. The price: functions that the compiler has inlined have a line and no name.
//!
//! Invariant: debug information is as hostile as the rest of the file. Reading it takes time in
//! proportion to its size, which is bounded, and next to no memory.

mod file;

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use gimli::{
    AttributeValue, DebugLine, DebugLineOffset, DebugLineStr, EndianSlice, FileEntry,
    LineProgramHeader, LittleEndian,
};
use warren_protocol::WorkerId;

use self::file::Lines;
use crate::stack::{Stack, visible};

/// Places of one version whose lines are remembered; a program has no more at which it traps.
const MAX_PLACES: usize = 1000;
/// How often tables of lines are read for one version, at most. That takes about a millisecond for
/// each 100 KiB.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest path of a source file, in bytes; its end is what a reader needs.
const MAX_PATH_BYTES: usize = 80;
/// The directories and files of one compiled unit, in bytes; in memory they take some hundred times
/// that at worst.
const MAX_HEADER_BYTES: usize = 32 << 10;
/// How long a run waits for its lines; a later trap at the same place has them.
const PATIENCE: Duration = Duration::from_millis(200);
/// What is shown of a stack, in bytes: what a header of a dead letter may have.
const MAX_BYTES: usize = 4 << 10;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// The tables of lines of one plugin. Empty for most: shipped plugins have no debug information.
pub(crate) struct Symbols {
    modules: Arc<Vec<Lines>>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// The line of each place that was asked for; `None`: there is none.
    places: HashMap<usize, Option<Arc<str>>>,
    last_read: Option<Instant>,
    /// One reader at a time.
    is_reading: bool,
}

impl Symbols {
    /// Keeps what is needed of a plugin's file.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self {
            modules: Arc::new(file::lines(bytes)),
            known: Arc::default(),
        }
    }

    /// A stack as a text, one line for each call; `None` when there is nothing to show.
    pub(crate) async fn shown(&self, stack: Stack) -> Option<String> {
        if stack.0.is_empty() {
            return None;
        }
        let offsets: Vec<usize> = stack.0.iter().filter_map(|frame| frame.offset).collect();
        self.learn(&offsets).await;
        let known = self.lock();
        let mut text = String::new();
        for (index, frame) in stack.0.iter().enumerate() {
            let place = frame.offset.map(|offset| {
                match known.places.get(&offset).and_then(Option::as_deref) {
                    Some(line) => format!(" at {line}"),
                    None => format!(" at {offset:#x}"),
                }
            });
            // Writing into a text cannot fail.
            let _ = writeln!(
                text,
                "{index}: {}{}",
                frame.function,
                place.unwrap_or_default()
            );
        }
        text.truncate(text.floor_char_boundary(MAX_BYTES));
        text.truncate(text.trim_end().len());
        (!text.is_empty()).then_some(text)
    }

    /// Logs the stack of a request, which leaves no dead letter.
    pub(crate) async fn report(&self, error: &wasmtime::Error, worker: &WorkerId, request: &str) {
        if let Some(stack) = self.shown(Stack::of(error)).await {
            tracing::warn!(
                worker.id = %worker,
                job.id = request,
                stack,
                "where the guest was when its request failed"
            );
        }
    }

    /// Looks up the lines of places that are not known yet, unless tables have just been read.
    async fn learn(&self, offsets: &[usize]) {
        let now = Instant::now();
        let unknown: Vec<usize> = {
            let mut known = self.lock();
            let is_new = |offset: &usize| !known.places.contains_key(offset);
            let unknown: Vec<usize> = offsets.iter().copied().filter(is_new).collect();
            let is_early = known.last_read.is_some_and(|last| now < last + PAUSE);
            let is_full = known.places.len().saturating_add(unknown.len()) > MAX_PLACES;
            let cannot = self.modules.is_empty() || known.is_reading || is_early || is_full;
            if cannot || unknown.is_empty() {
                return;
            }
            known.last_read = Some(now);
            known.is_reading = true;
            // What the reader chokes on has no lines.
            known
                .places
                .extend(unknown.iter().map(|offset| (*offset, None)));
            unknown
        };
        let (modules, known) = (self.modules.clone(), self.known.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let _reading = Reading(known.clone());
            let found = lines(&modules, &unknown);
            let found = found.into_iter().map(|(offset, line)| (offset, Some(line)));
            lock(&known).places.extend(found);
        });
        // The reader goes on, and what it finds is there for the next one.
        let _ = tokio::time::timeout(PATIENCE, reading).await;
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}

/// Somebody reads, as long as this lives, also when the reader panics.
struct Reading(Arc<Mutex<Known>>);

impl Drop for Reading {
    fn drop(&mut self) {
        lock(&self.0).is_reading = false;
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lines of these places in the file, as far as there are any.
fn lines(modules: &[Lines], wanted: &[usize]) -> HashMap<usize, Arc<str>> {
    let mut found = HashMap::new();
    for module in modules {
        // In debug information, places count from the start of the code.
        let mut wanted: Vec<(u64, usize)> = wanted
            .iter()
            .filter(|offset| module.code.contains(offset))
            .map(|&offset| ((offset - module.code.start) as u64, offset))
            .collect();
        wanted.sort_unstable();
        if !wanted.is_empty() {
            read_units(module, &wanted, &mut found);
        }
    }
    found
}

/// Goes through the tables of all compiled units, one after the other.
fn read_units(module: &Lines, wanted: &[(u64, usize)], found: &mut HashMap<usize, Arc<str>>) {
    let table = DebugLine::from(Slice::new(&module.table, LittleEndian));
    let mut start = 0;
    while let Some(unit) = file::line_unit(&module.table, start) {
        if unit.header_bytes <= MAX_HEADER_BYTES {
            // A unit that cannot be read is passed over.
            let _ = read_unit(&table, start, module, wanted, found);
        }
        start = unit.end;
    }
}

fn read_unit(
    table: &DebugLine<Slice<'_>>,
    start: usize,
    module: &Lines,
    wanted: &[(u64, usize)],
    found: &mut HashMap<usize, Arc<str>>,
) -> gimli::Result<()> {
    const ADDRESS_BYTES: u8 = 4;
    let program = table.program(DebugLineOffset(start), ADDRESS_BYTES, None, None)?;
    let mut rows = program.rows();
    // The row before (address, file, and line and column): what it says holds up to the next one.
    type Row = (u64, u64, Option<(u64, u64)>);
    let mut before: Option<Row> = None;
    let mut is_dead = true;
    while let Some((header, row)) = rows.next_row()? {
        let address = row.address();
        match before {
            // The linker moves functions that it has left out to 0, where no code is.
            None => is_dead = address == 0,
            Some((from, file, Some((line, column)))) if from < address && !is_dead => {
                let first = wanted.partition_point(|(place, _)| *place < from);
                for (place, offset) in wanted.get(first..).unwrap_or_default() {
                    if *place >= address {
                        break;
                    }
                    // Once for each place: many rows may say that they are about it.
                    if found.contains_key(offset) {
                        continue;
                    }
                    let path = path(header, header.file(file), &module.texts);
                    let line: Arc<str> = format!("{path}:{line}:{column}").into();
                    found.insert(*offset, line);
                }
            }
            Some(_) => {}
        }
        let line = row.line().map(|line| {
            let column = match row.column() {
                gimli::ColumnType::LeftEdge => 1,
                gimli::ColumnType::Column(column) => column.get(),
            };
            (line.get(), column)
        });
        before = (!row.end_sequence()).then_some((address, row.file_index(), line));
    }
    Ok(())
}

/// The end of a text, which may have megabytes.
fn end_of(text: Slice<'_>) -> String {
    let bytes = text.slice();
    // One byte more than is shown, so that a text that was cut looks so.
    let start = bytes.len().saturating_sub(MAX_PATH_BYTES + 1);
    String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
}

/// The path of a source file, shortened from the left.
fn path(
    header: &LineProgramHeader<Slice<'_>>,
    entry: Option<&FileEntry<Slice<'_>>>,
    texts: &[u8],
) -> String {
    let texts = DebugLineStr::from(Slice::new(texts, LittleEndian));
    let text = |value: AttributeValue<Slice<'_>>| match value {
        AttributeValue::String(text) => end_of(text),
        AttributeValue::DebugLineStrRef(offset) => {
            texts.get_str(offset).map(end_of).unwrap_or_default()
        }
        _ => String::new(),
    };
    let Some(entry) = entry else {
        return "?".to_owned();
    };
    let name = text(entry.path_name());
    let folder = entry.directory(header).map(text).unwrap_or_default();
    let path = if folder.is_empty() || name.starts_with('/') {
        name
    } else {
        format!("{folder}/{name}")
    };
    let excess = path.len().saturating_sub(MAX_PATH_BYTES);
    let start = path.ceil_char_boundary(excess);
    let end = visible(path.get(start..).unwrap_or_default(), MAX_PATH_BYTES);
    if start > 0 { format!("…{end}") } else { end }
}
