//! A configuration: a file in TOML or in the JSON of MicroServices.js, variables and options.
//!
//! Promised by `warren::config`: no panic; a secret is never shown, however broken the rest is; what
//! a configuration shows of itself is a configuration that shows the same.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::OnceLock};

use tempfile::TempDir;
use warren::config::{Config, Given, Sources, load};

use crate::{feedback, memory};

/// What must not be shown: the password of the broker, and a value for a worker.
const SECRET: &str = "pl4nted-s3cret";
/// An input that begins so gets no secret, and therefore may have the embedded bus.
const PLAIN: &str = "#plain\n";
/// The lines of an input that set a variable or an option: `#env NAME=value`, `#opt key=value`. In
/// JSON they are comments with `//`.
const VARIABLE: [&str; 2] = ["#env ", "//env "];
const OPTION: [&str; 2] = ["#opt ", "//opt "];
/// The keys that options set.
const KEYS: [&str; 8] = [
    "broker",
    "plugins",
    "data_dir",
    "http",
    "admin",
    "log.level",
    "encoding",
    "shutdown_grace",
];
/// A file of a few kilobytes, its tree and its mistakes.
const MEMORY_BYTES: usize = 64 << 20;

/// Reads the bytes as a configuration.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // Learnt by heart, it would be shown by whoever wrote it.
    if text.contains(SECRET) {
        return;
    }
    let file = file();
    fs::write(file, planted(&text, bytes)).unwrap();
    let sources = Sources {
        file: Some(file.clone()),
        environment: environment(&text),
        options: options(&text),
        // A made-up configuration must not have any file of this machine read.
        without_secrets: true,
        alone: false,
    };
    match memory::bounded("reading a configuration", MEMORY_BYTES, || load(&sources)) {
        Ok(config) => {
            feedback::outcome("loads");
            for warning in &config.warnings {
                feedback::outcome(warning);
            }
            shows_no_secret(&[&config.to_string(), &format!("{config:?}")]);
            means_what_it_shows(&config);
        }
        Err(mistakes) => {
            assert!(!mistakes.0.is_empty(), "refused without a mistake");
            for mistake in &mistakes.0 {
                feedback::outcome(&mistake.message);
                assert!(!mistake.remedy.is_empty(), "no remedy: {mistake}");
            }
            shows_no_secret(&[&mistakes.to_string(), &format!("{mistakes:?}")]);
        }
    }
}

fn shows_no_secret(texts: &[&str]) {
    for text in texts {
        assert!(!text.contains(SECRET), "a secret is shown: {text}");
    }
}

fn means_what_it_shows(config: &Config) {
    let shown = config.to_string();
    fs::write(file(), &shown).unwrap();
    let again = load(&Sources {
        file: Some(file().clone()),
        ..Sources::default()
    });
    match again {
        Ok(again) => assert_eq!(essence(&again.to_string()), essence(&shown)),
        Err(mistakes) => panic!("what `--check` shows does not load: {mistakes}\n{shown}"),
    }
}

/// Without the comments, which tell what it came from.
fn essence(shown: &str) -> String {
    let lines = shown.lines().filter(|line| !line.starts_with("# "));
    lines.collect::<Vec<_>>().join("\n")
}

/// The input with secrets at places where secrets belong: in the line before it, and after it.
fn planted(text: &str, bytes: &[u8]) -> Vec<u8> {
    if text.starts_with(PLAIN) {
        return bytes.to_owned();
    }
    let url = format!("\"amqp://planted:{SECRET}@localhost\"");
    if let Some(rest) = text.trim_start().strip_prefix('{') {
        return format!("{{\"broker_url\": {url},\n{rest}").into_bytes();
    }
    let before = format!("broker = {url}\n");
    let after = format!("\n[workers.PLANTED.config]\nsecret = \"{SECRET}\"\n");
    [before.as_bytes(), bytes, after.as_bytes()].concat()
}

fn environment(text: &str) -> BTreeMap<String, String> {
    marked(text, VARIABLE)
        // What it names is read, whatever it is.
        .filter(|(name, _)| *name != "WARREN_CONFIG")
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn options(text: &str) -> Vec<Given> {
    marked(text, OPTION)
        .filter_map(|(name, value)| {
            let key = KEYS.into_iter().find(|key| *key == name)?;
            Some(Given {
                option: "--option",
                key,
                text: value.to_owned(),
            })
        })
        .collect()
}

fn marked<'a>(text: &'a str, marks: [&str; 2]) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.lines().filter_map(move |line| {
        let rest = marks.iter().find_map(|mark| line.strip_prefix(mark))?;
        rest.split_once('=')
    })
}

/// One file for all inputs. No name that says which format it has: that is read off the content.
fn file() -> &'static PathBuf {
    static FOLDER: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, file) = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fuzz.conf");
        (folder, file)
    });
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or a target that looks for secrets would look for nothing.
    #[test]
    fn the_secrets_are_planted_where_secrets_belong() {
        for text in ["", "{}", "http = \"127.0.0.1:1\""] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("planted");
            fs::write(&file, planted(text, text.as_bytes())).unwrap();
            let config = load(&Sources {
                file: Some(file),
                ..Sources::default()
            });
            let config = config.unwrap();
            let warren::config::Broker::RabbitMq(urls) = &config.broker else {
                panic!("{text}: no broker");
            };
            assert!(urls.iter().any(|url| url.expose().contains(SECRET)));
            let mut values = config.workers.values().flat_map(|own| own.config.values());
            assert!(text == "{}" || values.any(|value| value == SECRET));
        }
    }
}
