//! How this program asks itself to compile a plugin, in a process of its own. No command for people:
//! the help does not name it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use warren_runtime::{CompilerBounds, CompilerConfig};

/// The first argument; the memory in bytes and the time in milliseconds follow.
const COMMAND: &str = "compile-plugin";

/// Where the system finds the libraries of a program.
const LIBRARIES: [&str; 1] = ["LD_LIBRARY_PATH"];

/// How plugins are compiled within these bounds.
///
/// # Errors
/// When this program's file cannot be found.
pub fn compiler(bounds: CompilerBounds) -> anyhow::Result<CompilerConfig> {
    Ok(CompilerConfig {
        program: program()?,
        arguments: vec![
            COMMAND.into(),
            bounds.memory_bytes.to_string().into(),
            bounds.timeout.as_millis().to_string().into(),
        ],
        environment: LIBRARIES
            .into_iter()
            .filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
            .collect(),
        bounds,
    })
}

/// What this process was started for, if it is to compile a plugin. `arguments` are its own, the
/// program's name first.
#[must_use]
pub fn asked(arguments: impl IntoIterator<Item = OsString>) -> Option<CompilerBounds> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != COMMAND {
        return None;
    }
    let mut number = || arguments.next()?.to_str()?.parse().ok();
    Some(CompilerBounds {
        memory_bytes: number()?,
        timeout: Duration::from_millis(number()?),
    })
}

/// This program, also when its file has been replaced since it was started.
fn program() -> anyhow::Result<PathBuf> {
    let itself = Path::new("/proc/self/exe");
    if itself.exists() {
        return Ok(itself.to_owned());
    }
    std::env::current_exe().context("finding this program's file, which compiles plugins")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_asked_for_what_the_host_was_told() {
        let bounds = CompilerBounds {
            memory_bytes: 3 << 30,
            timeout: Duration::from_secs(90),
        };
        let config = compiler(bounds).unwrap();
        let line = |arguments: Vec<OsString>| {
            let mut line = vec![OsString::from("warren")];
            line.extend(arguments);
            line
        };
        assert_eq!(asked(line(config.arguments)), Some(bounds));
        assert_eq!(asked(line(vec!["run".into()])), None);
        assert_eq!(asked(line(vec![COMMAND.into()])), None);
    }
}
