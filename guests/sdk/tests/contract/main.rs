//! The guest contract, `wit/`: all of it is documented and dated, it follows the last release of
//! itself, and what its README shows is WIT.
//!
//! That a plugin which was built for a released version still loads is seen in the host
//! (`tests/tests/compat.rs`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod bare;
mod fixture;
mod release;

use std::path::{Path, PathBuf};

use wit_parser::{PackageId, Resolve, UnresolvedPackageGroup};

/// A contract as it is read from a folder.
struct Contract {
    resolve: Resolve,
    package: PackageId,
}

impl Contract {
    /// # Errors
    /// What is not WIT, and where.
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(folder)?;
        Ok(Self { resolve, package })
    }
}

/// Where the contract is.
fn wit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit")
}

/// Fails with all the culprits at once.
fn check(culprits: &[String]) {
    assert!(culprits.is_empty(), "\n{}\n", culprits.join("\n"));
}

/// The date that it bears once it is released.
#[test]
fn the_changelog_says_what_this_version_is() {
    let version = Contract::read(&wit()).unwrap().version().to_string();
    let changes = std::fs::read_to_string(wit().join("CHANGELOG.md")).unwrap();
    let is_released = wit().join("released").join(&version).exists();
    let heading = changes
        .lines()
        .find_map(|line| line.strip_prefix(&format!("## {version} ")))
        .unwrap_or_else(|| panic!("wit/CHANGELOG.md has no heading `## {version} (…)`"));
    assert_eq!(
        heading == "(unreleased)",
        !is_released,
        "wit/CHANGELOG.md says `{version} {heading}`; wit/released/README.md says how to release"
    );
}

#[test]
fn the_worlds_that_the_readme_shows_are_made_of_the_contract() {
    let readme = std::fs::read_to_string(wit().join("README.md")).unwrap();
    let blocks: Vec<&str> = readme
        .split("\n```wit\n")
        .skip(1)
        .filter_map(|rest| rest.split("\n```\n").next())
        .collect();
    assert!(!blocks.is_empty(), "wit/README.md shows no WIT");
    let mut resolve = Contract::read(&wit()).unwrap().resolve;
    for block in blocks {
        let Ok(group) = UnresolvedPackageGroup::parse("README.md", block) else {
            panic!("this is not WIT:\n{block}");
        };
        if let Err(error) = resolve.push_group(group) {
            panic!("{error:?} in:\n{block}");
        }
    }
}
