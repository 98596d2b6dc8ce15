//! `worker.toml`: what a project says of itself. All its mistakes are found at once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use crate::{Error, Language};

/// The file that makes a folder a project.
pub const MANIFEST: &str = "worker.toml";

const KEYS: [&str; 7] = ["name", "lang", "source", "world", "wit", "sdk", "try"];

/// Two texts that are so alike are probably meant to be the same.
const ALIKE: f64 = 0.7;

/// What `worker.toml` says, with what it leaves out filled in. Paths are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The name of the worker, and of its plugin's file.
    pub name: String,
    /// The language.
    pub language: Language,
    /// The file that begins the worker; for Rust the folder that is for cargo to know, for C the
    /// folder of all sources.
    pub source: PathBuf,
    /// The world of the contract that it is built for, where the language's tools ask.
    pub world: String,
    /// The folder of the contract.
    pub wit: PathBuf,
    /// The folder of the SDK.
    pub sdk: PathBuf,
    /// Commands that show what it does; `{http}` in them stands for the address of HTTP workers.
    pub examples: Vec<String>,
}

impl Manifest {
    /// Reads the `worker.toml` of a folder.
    ///
    /// # Errors
    /// When it cannot be read, or has mistakes.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let file = folder.join(MANIFEST);
        let text = fs::read_to_string(&file).map_err(Error::reading(&file))?;
        Self::parse(folder, &text).map_err(|mistakes| Error::Manifest { file, mistakes })
    }

    fn parse(folder: &Path, text: &str) -> Result<Self, Vec<String>> {
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| vec![error.to_string().trim_end().to_owned()])?;
        let mut read = Read {
            table: &table,
            mistakes: Vec::new(),
        };
        for key in table.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            let known = KEYS
                .iter()
                .map(|known| (strsim::jaro_winkler(key, known), known))
                .filter(|(alike, _)| *alike >= ALIKE)
                .max_by(|(one, _), (other, _)| one.total_cmp(other));
            read.mistakes.push(match known {
                Some((_, known)) => {
                    format!("`{key}` is not a key of a worker; did you mean `{known}`?")
                }
                None => format!(
                    "`{key}` is not a key of a worker; the keys are {}",
                    KEYS.join(", ")
                ),
            });
        }
        let name = read.needed("name");
        if let Some(Err(mistake)) = name.as_deref().map(check_name) {
            read.mistakes.push(format!("`name`: {mistake}"));
        }
        let language = read.needed("lang").and_then(|text| {
            text.parse::<Language>()
                .map_err(|mistake| read.mistakes.push(format!("`lang`: {mistake}")))
                .ok()
        });
        let source = read.text("source");
        let world = read.text("world").unwrap_or_else(|| "worker".to_owned());
        let wit = read.text("wit").unwrap_or_else(|| "wit".to_owned());
        let sdk = read.text("sdk").unwrap_or_else(|| "sdk".to_owned());
        let examples = read.texts("try");
        let mistakes = read.mistakes;
        match (name, language) {
            (Some(name), Some(language)) if mistakes.is_empty() => Ok(Self {
                source: folder.join(source.as_deref().unwrap_or(language.default_source())),
                name,
                language,
                world,
                wit: folder.join(wit),
                sdk: folder.join(sdk),
                examples,
            }),
            _ => Err(mistakes),
        }
    }
}

/// Whether this can be the name of a worker, which is that of a file, of a crate and of a module.
///
/// # Errors
/// A text that says what can.
pub fn check_name(name: &str) -> Result<(), String> {
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if begins && name.chars().all(known) && name.len() <= 63 {
        Ok(())
    } else {
        Err(format!(
            "`{name}` does not do: a small letter, then up to 62 small letters, digits, `-` and `_`"
        ))
    }
}

/// Takes values out of the table and keeps what is wrong with them.
struct Read<'a> {
    table: &'a Table,
    mistakes: Vec<String>,
}

impl Read<'_> {
    fn text(&mut self, key: &str) -> Option<String> {
        match self.table.get(key)? {
            Value::String(text) => Some(text.clone()),
            other => {
                let kind = other.type_str();
                self.mistakes
                    .push(format!("`{key}` is a text, this is of type {kind}"));
                None
            }
        }
    }

    fn needed(&mut self, key: &str) -> Option<String> {
        if !self.table.contains_key(key) {
            self.mistakes.push(match key {
                "lang" => format!(
                    "`lang` is missing; it is one of {}",
                    Language::ALL.map(Language::name).join(", ")
                ),
                _ => format!("`{key}` is missing"),
            });
        }
        self.text(key)
    }

    fn texts(&mut self, key: &str) -> Vec<String> {
        let list = match self.table.get(key) {
            None => return Vec::new(),
            Some(Value::Array(list)) => list.iter().map(Value::as_str).collect(),
            Some(_) => None,
        };
        let list: Option<Vec<&str>> = list;
        match list {
            Some(list) => list.into_iter().map(str::to_owned).collect(),
            None => {
                self.mistakes.push(format!("`{key}` is a list of texts"));
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_filled_in_by_the_language() {
        let read = |text: &str| Manifest::parse(Path::new("/p"), text).unwrap();
        let manifest = read("name = \"greeter\"\nlang = \"js\"");
        assert_eq!(manifest.source, Path::new("/p/src/worker.js"));
        assert_eq!(manifest.wit, Path::new("/p/wit"));
        assert_eq!(manifest.world, "worker");
        let manifest = read(
            "name = \"a\"\nlang = \"python\"\nwit = \"../../wit\"\nworld = \"http-worker\"\ntry = [\"x\"]",
        );
        assert_eq!(manifest.source, Path::new("/p/worker.py"));
        assert_eq!(manifest.wit, Path::new("/p/../../wit"));
        assert_eq!(manifest.examples, ["x"]);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        #[track_caller]
        fn check(text: &str, expected: &[&str]) {
            let mistakes = Manifest::parse(Path::new("/p"), text).unwrap_err();
            assert_eq!(mistakes.len(), expected.len(), "{mistakes:?}");
            for (mistake, expected) in mistakes.iter().zip(expected) {
                assert!(mistake.contains(expected), "{mistake}");
            }
        }
        check(
            "",
            &[
                "`name` is missing",
                "`lang` is missing; it is one of rust, js",
            ],
        );
        check(
            "name = \"Big\"\nlang = \"cobol\"\nsorce = \"x\"\nzzz = 1\nwit = 1\ntry = \"x\"",
            &[
                "did you mean `source`?",
                "`zzz` is not a key of a worker; the keys are name",
                "`name`: `Big` does not do",
                "there is no language `cobol` here",
                "`wit` is a text, this is of type integer",
                "`try` is a list of texts",
            ],
        );
        check("name = ", &["line 1"]);
    }
}
