//! What the commands that make workers share: what a person sees of a build, and where tools are kept.

use std::{
    collections::BTreeMap,
    fs,
    io::{IsTerminal, stderr},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use warren_project::Event;

use super::output::{clean, say};

/// Names the folder of tools.
const TOOLS_VARIABLE: &str = "WARREN_TOOLS";

/// Where tools of npm and PyPI are kept, by the variables of this process.
#[must_use]
pub fn tools_folder(environment: &BTreeMap<String, String>) -> PathBuf {
    let variable = |name: &str| {
        let value = environment.get(name)?;
        (!value.is_empty()).then(|| PathBuf::from(value))
    };
    let folder = variable(TOOLS_VARIABLE)
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("warren")))
        .or_else(|| Some(variable("HOME")?.join(".cache/warren")))
        .unwrap_or_else(|| ".cache/warren".into());
    // Tools are run in other folders.
    std::path::absolute(&folder).unwrap_or(folder)
}

/// Shows what a build does: a line that moves on a terminal, elsewhere a line for each step.
pub(crate) fn listen() -> Box<dyn Fn(Event) + Send + Sync> {
    if !stderr().is_terminal() {
        return lines();
    }
    let bar: Mutex<Option<ProgressBar>> = Mutex::new(None);
    let before = lines();
    Box::new(move |event| {
        let mut bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = bar.take() {
            bar.finish_and_clear();
        }
        match event {
            Event::Step { project, text } => *bar = Some(spinner(format!("{project}: {text}"))),
            event => before(event),
        }
    })
}

/// Shows what a build does in whole lines, as it fits between those of a log.
pub(crate) fn lines() -> Box<dyn Fn(Event) + Send + Sync> {
    Box::new(|event| match event {
        Event::Step { project, text } | Event::Tool { project, text } => {
            say(&format!("{project}: {text}"));
        }
        Event::Said { project, text } => say(&format!("{project}:\n{}", clean(&text))),
    })
}

fn spinner(text: String) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(text);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

pub(super) fn time_of(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

pub(super) fn size_of(file: &Path) -> String {
    let bytes = fs::metadata(file)
        .map(|data| data.len())
        .unwrap_or_default();
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_kept_where_a_person_says_or_in_the_cache() {
        let check = |variables: &[(&str, &str)], expected: &str| {
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let environment = variables.iter().map(own).collect();
            assert_eq!(tools_folder(&environment), Path::new(expected));
        };
        let home = ("HOME", "/home/ripley");
        let cache = ("XDG_CACHE_HOME", "/cache");
        check(&[home], "/home/ripley/.cache/warren");
        check(&[home, cache], "/cache/warren");
        check(&[home, cache, ("WARREN_TOOLS", "/tools")], "/tools");
        let here = std::env::current_dir().unwrap();
        let beside = |name: &str| here.join(name).to_string_lossy().into_owned();
        check(&[("HOME", "")], &beside(".cache/warren"));
        check(&[("WARREN_TOOLS", "tools")], &beside("tools"));
    }
}
