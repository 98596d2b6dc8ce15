//! What fuzzing begins with, beside the checked-in corpus: the configuration that ships, captured
//! messages, and real guests.

use std::{fs, path::Path};

use serde_json::Value;
use warren_bus::Message;
use warren_protocol::{Encoding, WorkerType};

use crate::plugin;

/// A function that takes any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// The targets by the names of their folders in `corpus/`.
pub const TARGETS: [Target; 3] = [
    ("config", crate::config::check),
    ("envelope", crate::envelope::check),
    ("plugin", plugin::check),
];

/// Seeds that other files of the repository hold, with names.
#[must_use]
pub fn of(target: &str) -> Vec<(String, Vec<u8>)> {
    match target {
        "config" => config(),
        "envelope" => envelope(),
        "plugin" => plugins(),
        other => panic!("there is no target {other}"),
    }
}

/// The checked-in corpus: what no other file holds, and every input that has found a bug.
#[must_use]
pub fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files
        .iter()
        .map(|path| (name(path), fs::read(path).unwrap()))
        .collect()
}

fn config() -> Vec<(String, Vec<u8>)> {
    let shipped = fs::read(root().join("config/warren.toml")).unwrap();
    let text = String::from_utf8(shipped.clone()).unwrap();
    // All keys that are only explained there, set.
    let set: Vec<_> = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if key.contains(" = ") || key.starts_with('[') => key,
            _ => line,
        })
        .collect();
    vec![
        ("shipped".to_owned(), shipped),
        ("shipped_and_set".to_owned(), set.join("\n").into_bytes()),
    ]
}

fn envelope() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for name in ["json", "bson", "msgpack"] {
        let file = root().join(format!("host/protocol/fixtures/{name}.json"));
        let messages: Vec<Value> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        for (index, message) in messages.iter().enumerate() {
            let body = from_hex(message["body_hex"].as_str().unwrap());
            seeds.push((format!("{name}_{index}"), body));
        }
    }
    let part = |id: &str, body: &'static [u8]| {
        Message::new(
            id.to_owned(),
            "WB:*".parse().unwrap(),
            Encoding::MessagePack,
            body.into(),
        )
    };
    let carrier = WorkerType::new("WA").unwrap();
    let parts = [part("a", b"one"), part("b", b"\n\xff")];
    let bundle = Message::bundle(carrier, "b1".to_owned(), &parts);
    seeds.push(("bundle".to_owned(), bundle.body.to_vec()));
    seeds
}

fn plugins() -> Vec<(String, Vec<u8>)> {
    let guest = plugin::guest("traps_in_describe");
    let half = guest.get(..guest.len() / 2).unwrap_or_default();
    vec![
        ("truncated_guest".to_owned(), half.to_owned()),
        ("guest".to_owned(), b"edit".to_vec()),
        ("edited_guest".to_owned(), b"edit\0\x80\0\x41".to_vec()),
    ]
}

fn from_hex(digits: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.as_bytes().chunks(2).map(byte).collect()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
