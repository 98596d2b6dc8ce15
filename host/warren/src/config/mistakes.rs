//! What is wrong with a configuration, where, and what to do about it.

use std::{fmt, path::PathBuf};

/// Everything that is wrong, in the order of the sources. Never empty.
///
/// Its `Display` is made for a terminal: one block per mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// What: lower case, no full stop, no secrets.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file as a whole.
    File(PathBuf),
    /// A place in a file.
    Line {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// The key with its tables: `workers.WB.memory`. Empty where there is none.
        key: String,
    },
    /// A variable of the environment.
    Variable(String),
    /// An option of the command line: `--broker`.
    Option(&'static str),
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => writeln!(f, "the configuration has a mistake:")?,
            n_mistakes => writeln!(f, "the configuration has {n_mistakes} mistakes:")?,
        }
        for mistake in &self.0 {
            write!(f, "\n{mistake}\n")?;
        }
        Ok(())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            message,
            remedy,
        } = self;
        write!(f, "  {place}\n    {message}\n    -> {remedy}")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Line {
                file,
                line,
                column,
                key,
            } => {
                write!(f, "{}:{line}:{column}", file.display())?;
                match key.as_str() {
                    "" => Ok(()),
                    key => write!(f, " (key {key})"),
                }
            }
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Option(name) => write!(f, "option {name}"),
        }
    }
}
