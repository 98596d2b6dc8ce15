//! What can go wrong with a project, one variant for each thing that its owner does next.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a project cannot be made, read or built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder holds no project.
    #[error(
        "{} has no Cargo.toml and no worker.toml, and neither has a folder in it; name the folder of a \
         worker, or make one: warren new NAME",
        .0.display()
    )]
    NoProject(PathBuf),
    /// `worker.toml` has mistakes, all of them here.
    #[error("{}", list(.file, .mistakes))]
    Manifest {
        /// The file.
        file: PathBuf,
        /// One line for each.
        mistakes: Vec<String>,
    },
    /// A project cannot be made with this name or in this place.
    #[error("{0}")]
    Refused(String),
    /// A tool is not on this machine, or cannot be used.
    #[error("{project}: {what} is missing\n  to get it: {remedy}")]
    Missing {
        /// The project that needs it.
        project: String,
        /// The tool.
        what: String,
        /// The command that gets it, or what to do.
        remedy: String,
    },
    /// The sources do not build: what the tool says about them.
    #[error("{project} does not build: {tool} says\n{text}")]
    Failed {
        /// The project.
        project: String,
        /// The tool.
        tool: String,
        /// Its own text.
        text: String,
    },
    /// The sources do not build, and the tool has said why on the terminal.
    #[error("{project} does not build; see above")]
    FailedAbove {
        /// The project.
        project: String,
    },
    /// A file cannot be read or written.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        cause: io::Error,
    },
}

impl Error {
    /// The same, with a remedy where the tool's text has this sign.
    pub(crate) fn with_hint(mut self, sign: &str, hint: &str) -> Self {
        if let Self::Failed { text, .. } = &mut self
            && text.contains(sign)
        {
            text.push('\n');
            text.push_str(hint);
        }
        self
    }

    /// Whether the sources are at fault, so that another try makes sense as soon as they change.
    #[must_use]
    pub fn is_of_the_sources(&self) -> bool {
        matches!(
            self,
            Self::Failed { .. } | Self::FailedAbove { .. } | Self::Manifest { .. }
        )
    }

    pub(crate) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::doing("reading", path)
    }

    pub(crate) fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::doing("writing", path)
    }

    fn doing(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{verb} {}", path.display());
        move |cause| Self::Io { what, cause }
    }
}

fn list(file: &Path, mistakes: &[String]) -> String {
    let mut text = match mistakes.len() {
        1 => format!("{} has a mistake:", file.display()),
        n => format!("{} has {n} mistakes:", file.display()),
    };
    for mistake in mistakes {
        text.push_str("\n  ");
        text.push_str(mistake);
    }
    text
}
