//! Puts what a new project is made of into the library: the templates, the SDKs and the contract, as
//! one table of paths and contents. Cargo runs it again when a file of them changes or is added.

use std::{
    env,
    fmt::Write,
    fs,
    io::{self, ErrorKind},
    path::Path,
};

/// What is taken, from the root of the repository, and under which path it is found in the table.
const ROOTS: [(&str, &str); 8] = [
    ("host/project/templates", "templates"),
    ("guests/sdk", "sdk/rust"),
    ("guests/sdk-js", "sdk/js"),
    ("guests/sdk-python", "sdk/python"),
    ("guests/sdk-c", "sdk/c"),
    ("wit", "wit"),
    ("guests/Cargo.toml", "cargo/Cargo.toml"),
    ("guests/Cargo.lock", "cargo/Cargo.lock"),
];

/// Tests of the SDKs and of the contract, and what tools leave.
const LEFT_OUT: [&str; 5] = ["tests", "released", "node_modules", "build", "__pycache__"];

fn main() -> io::Result<()> {
    let of = |name: &str| env::var(name).map_err(io::Error::other);
    let repository = Path::new(&of("CARGO_MANIFEST_DIR")?).join("../..");
    let repository = repository.canonicalize()?;
    let mut table = "&[\n".to_owned();
    for (from, to) in ROOTS {
        let from = repository.join(from);
        println!("cargo:rerun-if-changed={}", from.display());
        take(&from, to, to == "templates", &mut table)?;
    }
    table.push(']');
    fs::write(Path::new(&of("OUT_DIR")?).join("embedded.rs"), table)
}

/// Adds a file, or all that a folder holds.
fn take(from: &Path, to: &str, is_template: bool, table: &mut String) -> io::Result<()> {
    let mut entries = match fs::read_dir(from) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            return writeln!(table, "({to:?}, include_bytes!({from:?})),")
                .map_err(io::Error::other);
        }
        Err(error) => return Err(error),
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        // A template has tests and a `.gitignore`.
        let is_left_out = LEFT_OUT.contains(&name.as_str()) || name.starts_with('.');
        if is_template || !is_left_out {
            take(&entry.path(), &format!("{to}/{name}"), is_template, table)?;
        }
    }
    Ok(())
}
