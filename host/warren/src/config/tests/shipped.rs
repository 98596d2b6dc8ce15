//! The file that is shipped, `config/warren.toml`, is the documentation of the configuration.

use super::*;

const SHIPPED: &str = include_str!("../../../../../config/warren.toml");

#[test]
fn the_shipped_file_says_what_the_defaults_are() {
    let expected = Config {
        source: Source::File("w.toml".into()),
        ..Config::default()
    };
    assert_eq!(good(SHIPPED), expected);
    // The first of the examples for a key is its default.
    let (host, _workers) = SHIPPED.split_once("# [workers.WB]").unwrap();
    assert_eq!(good(&uncommented(host)), expected);
}

#[test]
fn the_example_worker_of_the_shipped_file_is_right() {
    let (_, workers) = SHIPPED.split_once("# [workers.WB]").unwrap();
    // The secrets are in no file here.
    let sources = Sources {
        without_secrets: true,
        ..Sources::default()
    };
    let example = format!("[workers.WB]\n{}", uncommented(workers));
    let file = Some(("w.toml".into(), example));
    let config = merge(file, &sources, Report::default()).unwrap();
    let worker = worker(&config, "WB");
    assert_eq!(worker.config["greeting"], "hello");
    let names: Vec<_> = worker.secrets.keys().collect();
    assert_eq!(names, ["api_key", "token"]);
    assert_eq!(worker.reuse, Some(Reuse::default()));
}

#[test]
fn the_shipped_file_shows_every_key() {
    let shown: Vec<&str> = SHIPPED.lines().filter_map(key_of).collect();
    let own = names(LOG)
        .chain(names(BROKER_TLS))
        .chain(names(LIMITS))
        .chain(names(WORKER))
        .chain(names(REUSE))
        .chain(names(REACH))
        // These are tables.
        .filter(|name| !["config", "reuse", "secrets"].contains(name));
    let top = keys::paths().into_iter().filter(|path| !path.contains('.'));
    for key in own.map(str::to_owned).chain(top) {
        assert!(
            shown.contains(&key.as_str()),
            "`{key}` is not in config/warren.toml"
        );
    }
}

/// The key that a line, commented or not, sets.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.trim_start_matches(['#', ' ']).split_once(" = ")?;
    key.bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        .then_some(key)
}

/// With the first line for each key, and the tables, switched on.
fn uncommented(toml: &str) -> String {
    let mut seen = Vec::new();
    let mut lines = String::new();
    for line in toml.lines() {
        let content = line.trim_start_matches(['#', ' ']);
        let is_first = key_of(line).is_some_and(|key| {
            let is_first = !seen.contains(&key);
            seen.push(key);
            is_first
        });
        if is_first || content.starts_with('[') && content.ends_with(']') {
            lines.push_str(content);
            lines.push('\n');
        }
    }
    lines
}
