//! The rules of the house that no compiler checks: which crate may name which, what lies where,
//! and what every file of a kind begins with. Each failure names the culprit and the remedy.

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use warren_tests::digest_of;

/// Each crate of the host and the crates of ours that it may name: arrows only point down, and two
/// crates of one floor never see each other.
const FLOORS: [(&str, &[&str]); 5] = [
    ("warren-protocol", &[]),
    ("warren-bus", &["warren-protocol"]),
    ("warren-runtime", &["warren-protocol"]),
    ("warren-project", &[]),
    (
        "warren",
        &[
            "warren-protocol",
            "warren-bus",
            "warren-runtime",
            "warren-project",
        ],
    ),
];

/// What only one crate of the host may name, by the beginning of its name.
const OWNERS: [(&str, &str); 5] = [
    ("lapin", "warren-bus"),
    ("wasmtime", "warren-runtime"),
    ("sqlx", "warren-runtime"),
    ("rusqlite", "warren-runtime"),
    ("redis", "warren-runtime"),
];

/// What `warren-protocol` must not name: it has no I/O, no async and no clock.
const IMPURE_CRATES: [&str; 8] = [
    "async-", "axum", "futures", "hyper", "notify", "tokio", "tracing", "socket",
];
const IMPURE_CODE: [&str; 9] = [
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "async fn",
    ".await",
];

const TOP_LEVEL: [&str; 11] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "config",
    "examples",
    "guests",
    "host",
    "rust-toolchain.toml",
    "tests",
    "wit",
];

/// One idea fits on fewer lines. The typical file has 120.
const MAX_LINES: usize = 600;

#[test]
fn dependencies_point_down() {
    check(host_packages().iter().flat_map(|(package, dependencies)| {
        let allowed = FLOORS.iter().find(|(name, _)| name == package);
        let Some((_, allowed)) = allowed else {
            return vec![format!(
                "{package}: give it a floor, in host/ARCHITECTURE.md and in FLOORS here"
            )];
        };
        dependencies
            .iter()
            .filter(|name| name.starts_with("warren") && !allowed.contains(&name.as_str()))
            .map(|name| format!("{package} must not depend on {name}: move what it needs down"))
            .collect()
    }));
}

#[test]
fn only_the_bus_names_lapin_and_only_the_runtime_names_wasmtime_databases_and_redis() {
    check(host_packages().iter().flat_map(|(package, dependencies)| {
        OWNERS
            .iter()
            .filter(move |(_, owner)| owner != package)
            .flat_map(|(prefix, owner)| {
                dependencies
                    .iter()
                    .filter(move |name| name.starts_with(prefix))
                    .map(move |name| format!("{package} must not name {name}: wrap it in {owner}"))
            })
            .collect::<Vec<_>>()
    }));
}

#[test]
fn the_protocol_has_no_io_no_async_and_no_clock() {
    let packages = host_packages();
    let dependencies = packages
        .get("warren-protocol")
        .expect("the protocol's package");
    check(dependencies.iter().filter_map(|name| {
        let impure = IMPURE_CRATES.iter().any(|prefix| name.starts_with(prefix));
        impure.then(|| format!("warren-protocol must not depend on {name}: that belongs above"))
    }));
    check(sources_in("host/protocol/src/").flat_map(|(path, text)| {
        find(
            &path,
            shipped_code(&text),
            &IMPURE_CODE,
            "pass it in as an argument",
        )
    }));
}

#[test]
fn nothing_below_the_binary_reads_the_environment() {
    let lower = [
        "host/protocol/src/",
        "host/bus/src/",
        "host/runtime/src/",
        "host/project/src/",
    ];
    check(
        lower
            .iter()
            .flat_map(|folder| sources_in(folder))
            .flat_map(|(path, text)| {
                find(
                    &path,
                    shipped_code(&text),
                    &["env::"],
                    "let `warren` hand it down",
                )
            }),
    );
}

#[test]
fn the_top_level_holds_only_what_it_should() {
    check(files().iter().filter_map(|path| {
        let entry = path.split('/').next().unwrap_or(path);
        let known = entry.starts_with('.') || TOP_LEVEL.contains(&entry);
        (!known).then(|| format!("{path}: move it into one of the folders, or ignore it in git"))
    }));
}

#[test]
fn every_source_file_of_the_host_begins_with_what_it_owns() {
    check(host_sources().filter_map(|(path, text)| {
        let headed = text.starts_with("//!");
        (!headed).then(|| format!("{path}: begin with `//!`, what it owns and must never know"))
    }));
}

#[test]
fn no_source_file_of_the_host_is_too_long() {
    check(host_sources().filter_map(|(path, text)| {
        let n_lines = text.lines().count();
        (n_lines > MAX_LINES)
            .then(|| format!("{path} has {n_lines} lines, {MAX_LINES} at most: split it by ideas"))
    }));
}

#[test]
fn nothing_is_left_undone_or_skipped() {
    // In two parts, so that this file does not hold them.
    let marks = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[", "ignore"),
    ];
    check(
        sources_in("")
            .flat_map(|(path, text)| find(&path, &text, &marks, "finish it or take it out")),
    );
}

/// The integration tests aside: theirs are those that `.clippy.toml` makes for unit tests.
#[test]
fn every_exception_from_a_lint_says_why() {
    let sources = sources_in("").filter(|(path, _)| path.contains("/src/"));
    check(sources.flat_map(|(path, text)| {
        let exceptions = text.split("[allow(").skip(1);
        exceptions
            .filter_map(|rest| rest.split(")]").next())
            .filter(|lints| !lints.contains("reason = "))
            .map(|lints| format!("{path}: add a reason to `allow({})`", lints.trim()))
            .collect::<Vec<_>>()
    }));
}

/// `wit/deps/README.md` names every file, and the files are what it says.
#[test]
fn the_vendored_wit_is_what_its_list_says() {
    let list = read("wit/deps/README.md");
    let rows: Vec<[&str; 4]> = list.lines().filter_map(vendored).collect();
    let sums = read("wit/deps/SHA256SUMS");
    let sums: BTreeMap<&str, &str> = sums
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, file)| (file, sum))
        .collect();
    let packages = all_packages();
    let mut culprits = Vec::new();
    for path in files() {
        let Some(file) = path.strip_prefix("wit/deps/") else {
            continue;
        };
        if !file.ends_with(".wit") {
            continue;
        }
        let text = read(&path);
        if sums.get(file) != Some(&digest_of(text.as_bytes()).as_str()) {
            culprits.push(format!(
                "{path} is not what wit/deps/SHA256SUMS says: put it back, or write the list anew"
            ));
        }
        let row = rows
            .iter()
            .find(|[_, _, place, _]| file == *place || file.starts_with(place));
        let Some([package, version, _, source]) = row else {
            culprits.push(format!("{path} is not in the table of wit/deps/README.md"));
            continue;
        };
        if let Some(line) = text.lines().find(|line| line.starts_with("package "))
            && line != format!("package {package}@{version};")
        {
            culprits.push(format!(
                "{path} begins with `{line}`, the table of wit/deps/README.md says {version}"
            ));
        }
        // What the host links must be what a guest is built against.
        if let Some((name, stated)) = source.split_once(' ')
            && let Some((linked, folder)) = packages.get(name)
        {
            if linked != stated {
                culprits.push(format!(
                    "{path} is from {name} {stated}, Cargo.lock has {linked}: vendor it anew"
                ));
            } else if fs::read_to_string(folder.join("wit/deps").join(file)).ok() != Some(text) {
                culprits.push(format!("{path} differs from that of {name} {linked}"));
            }
        }
    }
    for file in sums.keys() {
        if !root().join("wit/deps").join(file).exists() {
            culprits.push(format!("wit/deps/SHA256SUMS names {file}, which is gone"));
        }
    }
    check(culprits);
}

/// Fails with all the culprits at once.
fn check(culprits: impl IntoIterator<Item = String>) {
    let culprits: Vec<String> = culprits.into_iter().collect();
    assert!(culprits.is_empty(), "\n{}\n", culprits.join("\n"));
}

/// The lines that hold one of the words, comments aside.
fn find(path: &str, code: &str, words: &[&str], remedy: &str) -> Vec<String> {
    let lines = (1..).zip(code.lines());
    lines
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .filter_map(|(number, line)| {
            let word = words.iter().find(|word| line.contains(**word))?;
            Some(format!("{path}:{number} holds `{word}`: {remedy}"))
        })
        .collect()
}

/// A file without its unit tests, which come last.
fn shipped_code(text: &str) -> &str {
    text.split("\n#[cfg(test)]\n").next().unwrap_or(text)
}

/// A row of the table of vendored packages: the package, its version, its file or folder, and the
/// crate and version that it is from (or an address).
fn vendored(line: &str) -> Option<[&str; 4]> {
    let mut cells = line
        .split('|')
        .skip(1)
        .map(|cell| cell.trim().trim_matches('`'));
    let row = [cells.next()?, cells.next()?, cells.next()?, cells.next()?];
    row[0].starts_with("wasi:").then_some(row)
}

/// Every package of `Cargo.lock` that this machine has: its version and its folder.
fn all_packages() -> BTreeMap<String, (String, PathBuf)> {
    let arguments = ["metadata", "--format-version", "1", "--offline", "--locked"];
    let metadata: Value =
        serde_json::from_str(&output(env!("CARGO"), &arguments)).expect("cargo prints JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = list(&metadata["packages"]).iter().map(|package| {
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let folder = manifest.parent().unwrap_or(&manifest).to_owned();
        (text(&package["name"]), (text(&package["version"]), folder))
    });
    packages.collect()
}

/// The crates under `host/`, each with the names of all that it depends on, tests included.
fn host_packages() -> BTreeMap<String, Vec<String>> {
    let metadata = output(
        env!("CARGO"),
        &[
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ],
    );
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo metadata prints JSON");
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<_, _> = list(&metadata["packages"])
        .iter()
        .filter(|package| {
            let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
            manifest.starts_with(root().join("host"))
        })
        .map(|package| {
            (
                name(package),
                list(&package["dependencies"]).iter().map(name).collect(),
            )
        })
        .collect();
    assert!(
        !packages.is_empty(),
        "cargo metadata names no crate under host/"
    );
    packages
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn host_sources() -> impl Iterator<Item = (String, String)> {
    sources_in("host/").filter(|(path, _)| path.contains("/src/"))
}

/// The paths and texts of the Rust files under a folder.
fn sources_in(folder: &str) -> impl Iterator<Item = (String, String)> {
    let paths: Vec<String> = files()
        .into_iter()
        .filter(|path| path.starts_with(folder) && path.ends_with(".rs"))
        .collect();
    assert!(!paths.is_empty(), "there is no Rust file in {folder}");
    paths.into_iter().map(|path| {
        let text = read(&path);
        (path, text)
    })
}

/// The files that git knows, and those that it would take.
fn files() -> Vec<String> {
    let listed = output(
        "git",
        &["ls-files", "--cached", "--others", "--exclude-standard"],
    );
    let there = listed.lines().filter(|path| root().join(path).exists());
    there.map(str::to_owned).collect()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?} failed: {said}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the tests lie in the repository")
        .to_owned()
}
