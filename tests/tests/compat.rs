//! Plugins that were built for a released contract load for ever: those in `tests/compat` are looked
//! at by the built `warren`, as an operator would (`warren check`), so they are compiled, linked
//! against all that the host offers, and asked what they are.
//!
//! That the contract itself follows its last release is seen where it is read
//! (`guests/sdk/tests/contract`).

#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use warren_tests::{Command, host::plugin};

/// Where the kept plugins are, by version.
fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("compat")
}

/// Where the released versions of the contract are.
fn released() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit/released")
}

#[tokio::test]
async fn a_guest_built_for_any_released_version_still_loads() {
    assert_eq!(refusals(&kept()).await, [""; 0]);
}

#[test]
fn every_released_version_has_a_guest_that_was_built_for_it() {
    assert_eq!(gaps(&released(), &kept()), [""; 0]);
}

#[tokio::test]
async fn a_kept_guest_that_does_not_load_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let keep = |file: &str, bytes: &[u8]| {
        let file = folder.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    };
    // What a release keeps of today's.
    keep("0.1.0/readme.wasm", &plugin("readme"));
    keep("0.1.0/rest.wasm", &plugin("rest"));
    assert_eq!(refusals(folder.path()).await, [""; 0]);

    // As if the host had dropped an interface that it had offered.
    let (offered, dropped) = (b"warren:worker/metrics@", b"warren:worker/figures@");
    keep(
        "0.0.9/dropped.wasm",
        &renamed(&plugin("readme"), offered, dropped),
    );
    keep("0.0.9/damaged.wasm", &plugin("rest")[..5000]);
    let refusals = refusals(folder.path()).await;
    let [damaged, dropped] = refusals.as_slice() else {
        panic!("{refusals:?}");
    };
    assert!(damaged.starts_with("0.0.9/damaged.wasm: "), "{damaged}");
    assert!(dropped.starts_with("0.0.9/dropped.wasm: "), "{dropped}");
    assert!(dropped.contains("warren:worker/figures@0.1.0"), "{dropped}");
}

#[test]
fn a_release_without_its_guests_is_named_and_guests_without_their_release_are() {
    let folder = tempfile::tempdir().unwrap();
    let (released, kept) = (folder.path().join("released"), folder.path().join("kept"));
    for version in ["0.1.0", "0.1.1"] {
        fs::create_dir_all(released.join(version)).unwrap();
    }
    for version in ["0.1.1", "0.2.0"] {
        fs::create_dir_all(kept.join(version)).unwrap();
    }
    fs::write(kept.join("0.2.0/rest.wasm"), "").unwrap();
    assert_eq!(
        gaps(&released, &kept),
        [
            "tests/compat/0.1.0 holds no plugin: wit/released/README.md says how it gets one",
            "tests/compat/0.1.1 holds no plugin: wit/released/README.md says how it gets one",
            "tests/compat/0.2.0 is for no version in wit/released",
        ]
    );
}

/// A component in which each of these names is another one of the same length.
fn renamed<const N: usize>(component: &[u8], from: &[u8; N], to: &[u8; N]) -> Vec<u8> {
    let mut bytes = component.to_vec();
    let is_there = |at: &usize| component[*at..].starts_with(from);
    let places: Vec<usize> = (0..component.len()).filter(is_there).collect();
    assert!(!places.is_empty(), "the component does not have the name");
    for at in places {
        bytes[at..at + N].copy_from_slice(to);
    }
    bytes
}

/// The kept plugins that this host would not load, each with what `warren check` says.
async fn refusals(kept: &Path) -> Vec<String> {
    let mut refusals = Vec::new();
    for version in folders(kept) {
        for file in plugins(&kept.join(&version)) {
            let path = kept.join(&version).join(&file);
            let command = Command::new(None, "check").with(&path.to_string_lossy());
            let ran = command.run().await;
            if ran.code != Some(0) {
                let said = String::from_utf8_lossy(&ran.out);
                refusals.push(format!("{version}/{file}: {said}{}", ran.err));
            }
        }
    }
    refusals
}

/// Releases that have no plugin, and plugins that have no release.
fn gaps(released: &Path, kept: &Path) -> Vec<String> {
    let (released, versions) = (folders(released), folders(kept));
    let empty = released.iter().filter(|version| {
        let folder = kept.join(version);
        !folder.is_dir() || plugins(&folder).is_empty()
    });
    let mut gaps: Vec<String> = empty
        .map(|version| {
            format!(
                "tests/compat/{version} holds no plugin: wit/released/README.md says how it gets one"
            )
        })
        .collect();
    let strange = versions
        .iter()
        .filter(|version| !released.contains(version));
    gaps.extend(
        strange.map(|version| format!("tests/compat/{version} is for no version in wit/released")),
    );
    gaps
}

/// The names of the folders in a folder, in their order.
fn folders(folder: &Path) -> Vec<String> {
    names(folder, |path| path.is_dir())
}

/// The names of the plugins in a folder, in their order.
fn plugins(folder: &Path) -> Vec<String> {
    names(folder, |path| {
        path.extension().is_some_and(|end| end == "wasm")
    })
}

fn names(folder: &Path, is_wanted: impl Fn(&Path) -> bool) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = paths
        .filter(|path| is_wanted(path))
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
