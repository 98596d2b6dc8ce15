//! What a build is given from outside: where tools are kept, what it may do, and who listens.

use std::path::PathBuf;

/// Something that whoever waits for a build wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step begins that takes a while, and is silent.
    Step {
        /// The project.
        project: String,
        /// What is being done.
        text: String,
    },
    /// A tool begins that shows its own progress on standard error.
    Tool {
        /// The project.
        project: String,
        /// What is being done.
        text: String,
    },
    /// A tool has something to say though it succeeded, such as warnings.
    Said {
        /// The project.
        project: String,
        /// The tool's own text.
        text: String,
    },
}

/// What a build works with.
pub struct Workshop {
    /// The folder for tools of npm and PyPI, shared by all projects of a person.
    pub tools: PathBuf,
    /// Whether nothing may be fetched from the network.
    pub offline: bool,
    /// Hears of every step.
    pub listen: Box<dyn Fn(Event) + Send + Sync>,
}

impl Workshop {
    pub(crate) fn step(&self, project: &str, text: impl Into<String>) {
        (self.listen)(Event::Step {
            project: project.to_owned(),
            text: text.into(),
        });
    }

    pub(crate) fn tool(&self, project: &str, text: impl Into<String>) {
        (self.listen)(Event::Tool {
            project: project.to_owned(),
            text: text.into(),
        });
    }

    pub(crate) fn said(&self, project: &str, text: impl Into<String>) {
        (self.listen)(Event::Said {
            project: project.to_owned(),
            text: text.into(),
        });
    }
}
