//! What a plugin is made of, as one digest: when it is the same, there is nothing to build.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fmt::Write,
    fs, io,
    path::{Component, Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{Error, Project};

/// What is fetched or left wherever sources are.
const NO_SOURCES: [&str; 2] = ["node_modules", "__pycache__"];

/// What is at the top of a project and of no part in its plugin: what is built, tests, and the files of a
/// host that is started there.
const KEPT_BESIDE: [&str; 6] = ["build", "target", "tests", "warren.toml", "data", "plugins"];

/// How plugins are made: other options of a tool make another plugin.
const RECIPES: [&[u8]; 5] = [
    include_bytes!("c.rs"),
    include_bytes!("component.rs"),
    include_bytes!("javascript.rs"),
    include_bytes!("python.rs"),
    include_bytes!("typescript.rs"),
];

/// Whether a change of this file, in a project of this folder, can change the plugin. Not: what is
/// hidden, what tools and editors write, texts for people, tests and what belongs to a host.
#[must_use]
pub fn is_source(folder: &Path, file: &Path) -> bool {
    let inside = file.strip_prefix(folder).unwrap_or(file);
    let is_no_source = |part: Component<'_>| {
        let name = part.as_os_str();
        NO_SOURCES.iter().any(|known| name == OsStr::new(known))
            || name.to_string_lossy().starts_with(['.', '#'])
    };
    let is_kept_beside = KEPT_BESIDE.iter().any(|name| inside.starts_with(name));
    let name = inside.file_name().unwrap_or_default().to_string_lossy();
    let is_left = ["~", ".md", ".lock", ".swp", ".tmp"]
        .iter()
        .any(|end| name.ends_with(end));
    // Vim tries with this file whether it may write.
    let is_probe = name == "4913";
    !inside.components().any(is_no_source) && !is_kept_beside && !is_left && !is_probe
}

/// The digest of all sources of a project and of the tools that make a plugin of them.
pub(crate) fn of(project: &Project, tools: &str) -> Result<String, Error> {
    let mut digest = Sha256::new();
    let mut add = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    add(env!("CARGO_PKG_VERSION").as_bytes());
    add(tools.as_bytes());
    for recipe in RECIPES {
        add(recipe);
    }
    for folder in project.folders() {
        let mut files = BTreeSet::new();
        collect(&folder, &folder, &mut files).map_err(Error::reading(&folder))?;
        for file in files {
            let content = fs::read(&file).map_err(Error::reading(&file))?;
            let inside = file.strip_prefix(&folder).unwrap_or(&file);
            add(inside.as_os_str().as_encoded_bytes());
            add(&content);
        }
    }
    Ok(hex(digest))
}

/// The digest of a file; none where there is none.
pub(crate) fn of_file(file: &Path) -> Option<String> {
    let content = fs::read(file).ok()?;
    let mut digest = Sha256::new();
    digest.update(content);
    Some(hex(digest))
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !is_source(root, &path) {
            continue;
        }
        // What a link leads to counts, but a link to a folder may lead in a circle.
        let is_link = path.symlink_metadata()?.is_symlink();
        match path.metadata() {
            Ok(data) if data.is_dir() && !is_link => collect(root, &path, files)?,
            Ok(data) if data.is_file() => {
                files.insert(path);
            }
            _ => {}
        }
    }
    Ok(())
}

fn hex(digest: Sha256) -> String {
    let mut text = String::new();
    for byte in digest.finalize() {
        // A text takes all that is written to it.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_and_editors_write_is_no_source() {
        let check = |path: &str, expected| {
            let file = Path::new("/g").join(path);
            assert_eq!(is_source(Path::new("/g"), &file), expected, "{path}");
        };
        check("pilot/src/lib.rs", true);
        check("pilot/Cargo.toml", true);
        check("wit/deps/x.wit", true);
        check("src/worker.ts", true);
        check("src/schema.sql", true);
        check("requirements.txt", true);
        check("pilot/tests/wire.rs", true);
        check("target/release/build.rs", false);
        check("pilot/src/.lib.rs.swp", false);
        check("pilot/src/lib.rs~", false);
        check("pilot/README.md", false);
        check("Cargo.lock", false);
        check("build/greeter.wasm", false);
        check("node_modules/left-pad/index.js", false);
        check("tests/greets.toml", false);
        check("warren.toml", false);
        check("data/dev/plugins/greeter.wasm", false);
        check("src/data/towns.json", true);
        check("src/build/steps.js", true);
    }
}
