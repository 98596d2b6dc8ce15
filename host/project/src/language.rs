//! The languages that a project may be in, by the names that people type.

use std::{fmt, str::FromStr};

/// A language with a toolchain, an SDK and a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// By cargo.
    Rust,
    /// By esbuild and componentize-qjs.
    JavaScript,
    /// Checked by tsc, then as JavaScript.
    TypeScript,
    /// By componentize-py.
    Python,
    /// By clang.
    C,
}

impl Language {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 5] = [
        Self::Rust,
        Self::JavaScript,
        Self::TypeScript,
        Self::Python,
        Self::C,
    ];

    /// The name in `worker.toml` and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::JavaScript => "js",
            Self::TypeScript => "ts",
            Self::Python => "python",
            Self::C => "c",
        }
    }

    /// The file, or for Rust and C the folder, in which its sources are unless the project says
    /// otherwise.
    #[must_use]
    pub fn default_source(self) -> &'static str {
        match self {
            Self::Rust | Self::C => "src",
            Self::JavaScript => "src/worker.js",
            Self::TypeScript => "src/worker.ts",
            Self::Python => "worker.py",
        }
    }

    /// The folder of its SDK in the library's table; TypeScript shares the one of JavaScript.
    pub(crate) fn sdk(self) -> &'static str {
        match self {
            Self::Rust => "sdk/rust",
            Self::JavaScript | Self::TypeScript => "sdk/js",
            Self::Python => "sdk/python",
            Self::C => "sdk/c",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "Rust",
            Self::JavaScript => "JavaScript",
            Self::TypeScript => "TypeScript",
            Self::Python => "Python",
            Self::C => "C",
        })
    }
}

impl FromStr for Language {
    type Err = String;

    /// Takes the usual other names as well.
    fn from_str(name: &str) -> Result<Self, String> {
        match name.to_lowercase().as_str() {
            "rust" | "rs" => Ok(Self::Rust),
            "js" | "javascript" => Ok(Self::JavaScript),
            "ts" | "typescript" => Ok(Self::TypeScript),
            "python" | "py" => Ok(Self::Python),
            "c" => Ok(Self::C),
            _ => Err(format!(
                "there is no language `{name}` here; there are {}",
                Self::ALL.map(Self::name).join(", ")
            )),
        }
    }
}
