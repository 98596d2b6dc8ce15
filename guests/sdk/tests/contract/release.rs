//! The contract and the last release of it (`wit/released`): what may change between two versions,
//! and what makes a frozen copy a true one.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use wit_component::semver_check;
use wit_parser::{Resolve, WorldId, WorldItem};

use super::{Contract, check, fixture::Fixture, wit};

#[test]
fn the_wit_is_a_compatible_successor_of_the_last_release() {
    check(&breaches(&wit(), &wit().join("released")));
}

#[test]
fn before_the_first_release_all_may_change() {
    assert_eq!(Fixture::new("unreleased").breaches(), [""; 0]);
}

#[test]
fn a_copy_is_a_release_as_long_as_nobody_touches_the_version() {
    let fixture = Fixture::new("copied");
    fixture.release();
    assert_eq!(fixture.breaches(), [""; 0]);
    fixture.replace("bus.wit", "/// Talking to", "/// Speaking with");
    fixture.remove("released/0.1.0/http-worker.wit");
    fixture.write("released/0.1.0/more.wit", "package warren:worker@0.1.0;\n");
    let remedy = "a released version never changes: give the package in wit/ a new one";
    assert_eq!(
        fixture.breaches(),
        [
            format!("wit/bus.wit and wit/released/0.1.0/bus.wit differ; {remedy}"),
            format!("wit/released/0.1.0/http-worker.wit is missing; {remedy}"),
            format!("wit/released/0.1.0/more.wit is not in wit/; {remedy}"),
        ]
    );
}

#[test]
fn a_new_version_may_offer_more_to_a_guest() {
    let fixture = Fixture::new("more");
    fixture.release();
    fixture.set_version("0.1.1");
    assert_eq!(fixture.breaches(), [""; 0], "the same under a new version");
    fixture.replace(
        "context.wit",
        "attempt: func() -> u32;",
        "attempt: func() -> u32; @since(version = 0.1.1) job-id: func() -> string;",
    );
    fixture.replace(
        "worker.wit",
        "    import context;",
        "    import context;\n    import wasi:random/random@0.2.12;",
    );
    assert_eq!(fixture.breaches(), [""; 0]);
}

#[test]
fn a_new_version_may_ask_nothing_more_of_a_guest() {
    let check = |test: &str, edits: &[(&str, &str, &str)], says: &str| {
        let fixture = Fixture::new(test);
        fixture.release();
        fixture.set_version("0.1.1");
        for (file, before, after) in edits {
            fixture.replace(file, before, after);
        }
        let breaches = fixture.breaches();
        let remedy = "put it back, or make this version 0.2.0 or later";
        let is_told = |breach: &String| breach.contains(says) && breach.ends_with(remedy);
        assert!(
            !breaches.is_empty() && breaches.iter().all(is_told),
            "{test}: {breaches:#?}"
        );
    };
    let import = "    @since(version = 0.1.0)\n    import metrics;\n";
    check(
        "an-import-less",
        &[("worker.wit", import, "")],
        "missing import named `warren:worker/metrics`",
    );
    check(
        "a-function-less",
        &[("context.wit", "attempt: func()", "attempts: func()")],
        "missing expected export `attempt`",
    );
    check(
        "another-argument",
        &[(
            "context.wit",
            "header: func(name: string)",
            "header: func(name: u32)",
        )],
        "type mismatch in instance export `header`",
    );
    check(
        "a-field-more",
        &[("types.wit", "record retry {", "record retry { more: u32,")],
        "expected 2 fields, found 3",
    );
    check(
        "a-case-more",
        &[(
            "types.wit",
            "variant failure {",
            "variant failure { more(u32),",
        )],
        "expected 2 cases, found 3",
    );
    check(
        "an-export-more",
        &[(
            "worker.wit",
            "describe: func()",
            "more: func(); describe: func()",
        )],
        "missing expected export `more`",
    );
    // A draft matches only itself.
    let draft = "wasi:config/store@0.2.0-rc.1";
    check(
        "another-draft",
        &[
            ("worker.wit", draft, "wasi:config/store@0.2.0-rc.2"),
            ("deps/config/world.wit", "0.2.0-rc.1", "0.2.0-rc.2"),
        ],
        "the import `wasi:config/store@0.2.0-rc.1` is gone",
    );
}

#[test]
fn a_version_that_says_so_may_break_with_the_last() {
    let fixture = Fixture::new("broken");
    fixture.release();
    fixture.replace("types.wit", "record retry {", "record retry { more: u32,");
    fixture.set_version("0.2.0");
    assert_eq!(fixture.breaches(), [""; 0]);
}

#[test]
fn the_newest_release_counts_and_none_comes_after_the_contract() {
    let fixture = Fixture::new("order");
    for version in ["0.1.9", "0.1.10"] {
        fixture.set_version(version);
        fixture.release();
    }
    assert_eq!(fixture.breaches(), [""; 0]);
    fixture.set_version("0.1.9");
    assert_eq!(
        fixture.breaches(),
        ["the package in wit/ is of version 0.1.9, but 0.1.10 has been released"]
    );
}

#[test]
fn a_folder_of_another_version_than_its_name_is_no_release() {
    let fixture = Fixture::new("misnamed");
    fixture.release();
    fixture.rename("released/0.1.0", "released/0.3.0");
    assert_eq!(
        fixture.breaches(),
        ["wit/released/0.3.0 holds version 0.1.0 of the package: rename the folder"]
    );
}

/// What is wrong with a contract beside its releases; nothing, when there are none yet.
pub(crate) fn breaches(current: &Path, released: &Path) -> Vec<String> {
    look(current, released).unwrap_or_else(|error| vec![format!("{error:#}")])
}

fn look(current: &Path, released: &Path) -> anyhow::Result<Vec<String>> {
    let now = Contract::read(current)?;
    let mut releases = Vec::new();
    for entry in fs::read_dir(released).with_context(|| released.display().to_string())? {
        let folder = entry?.path();
        if folder.is_dir() {
            let release = Contract::read(&folder)
                .with_context(|| format!("{} cannot be read", folder.display()))?;
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            let version = release.version().to_string();
            if *name != version {
                return Ok(vec![format!(
                    "wit/released/{name} holds version {version} of the package: rename the folder"
                )]);
            }
            releases.push((folder, release));
        }
    }
    releases.sort_by(|(_, one), (_, other)| one.version().cmp(other.version()));
    let Some((folder, last)) = releases.pop() else {
        return Ok(Vec::new());
    };
    let (old, new) = (last.version(), now.version());
    if new < old {
        return Ok(vec![format!(
            "the package in wit/ is of version {new}, but {old} has been released"
        )]);
    }
    if new == old {
        return differences(current, &folder);
    }
    // As wasmtime matches versions: the first number that is not 0 must be the same.
    let is_compatible = match (old.major, old.minor) {
        (0, 0) => false,
        (0, minor) => (new.major, new.minor) == (0, minor),
        (major, _) => new.major == major,
    };
    if !is_compatible {
        return Ok(Vec::new());
    }
    let next = if old.major == 0 {
        format!("0.{}.0", old.minor + 1)
    } else {
        format!("{}.0.0", old.major + 1)
    };
    let remedy = format!("put it back, or make this version {next} or later");
    let mut breaches = Vec::new();
    for (name, &world) in &last.resolve.packages[last.package].worlds {
        if let Err(error) = now.follows(&last, name, world) {
            breaches.push(format!(
                "plugins of {old} in the world `{name}` would not load: {error:#}; {remedy}"
            ));
        }
    }
    Ok(breaches)
}

impl Contract {
    pub(crate) fn version(&self) -> &semver::Version {
        let version = &self.resolve.packages[self.package].name.version;
        version.as_ref().expect("the package has a version")
    }

    /// Whether a plugin that was made for a world of an older contract runs in this one's.
    fn follows(&self, old: &Contract, name: &str, old_world: WorldId) -> anyhow::Result<()> {
        let worlds = &self.resolve.packages[self.package].worlds;
        let &world = worlds
            .get(name)
            .context("there is no such world any more")?;
        // The check looks away from versions, but a draft matches only itself.
        let drafts = |resolve: &Resolve, world: WorldId| -> Vec<String> {
            let items = resolve.worlds[world].imports.values();
            let interfaces = items.filter_map(|item| match item {
                WorldItem::Interface { id, .. } => resolve.id_of(*id),
                _ => None,
            });
            interfaces.filter(|id| is_draft(id)).collect()
        };
        let offered = drafts(&self.resolve, world);
        for draft in drafts(&old.resolve, old_world) {
            anyhow::ensure!(offered.contains(&draft), "the import `{draft}` is gone");
        }
        let mut both = self.resolve.clone();
        let moved = both.merge(old.resolve.clone())?;
        let old_world = moved.map_world(old_world, wit_parser::Span::default())?;
        semver_check(both, old_world, world)
    }
}

/// Whether this is the name of an interface whose version matches only itself.
fn is_draft(id: &str) -> bool {
    let version = id.split_once('@').map_or("", |(_, version)| version);
    version.contains('-') || version.starts_with("0.0.")
}

/// How a frozen copy is not what it was copied from.
fn differences(current: &Path, copy: &Path) -> anyhow::Result<Vec<String>> {
    let (here, there) = (wit_files(current)?, wit_files(copy)?);
    let remedy = "a released version never changes: give the package in wit/ a new one";
    let version = copy.file_name().unwrap_or_default().to_string_lossy();
    let place = format!("wit/released/{version}");
    let mut found = Vec::new();
    for (name, text) in &here {
        match there.get(name) {
            None => found.push(format!("{place}/{name} is missing; {remedy}")),
            Some(frozen) if frozen != text => {
                found.push(format!("wit/{name} and {place}/{name} differ; {remedy}"));
            }
            Some(_) => {}
        }
    }
    let surplus = there.keys().filter(|name| !here.contains_key(*name));
    found.extend(surplus.map(|name| format!("{place}/{name} is not in wit/; {remedy}")));
    Ok(found)
}

/// The files of a contract and of what it refers to, by their names.
pub(crate) fn wit_files(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let mut folders: Vec<(PathBuf, String)> = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{prefix}{name}");
            if path.is_dir() && (name == "deps" || name.starts_with("deps/")) {
                folders.push((path, format!("{name}/")));
            } else if name.ends_with(".wit") {
                files.insert(name, fs::read_to_string(&path)?);
            }
        }
    }
    Ok(files)
}
