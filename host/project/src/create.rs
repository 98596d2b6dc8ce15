//! A new project: a folder that is complete in itself, of what the library carries.

use std::{fs, path::Path};

use crate::{Error, Language, embedded, manifest::check_name, rust};

/// The worker type of a project that does not say one: its name in capitals.
#[must_use]
pub fn default_type(name: &str) -> String {
    name.to_uppercase()
}

/// Makes a project in a folder that is empty or not there.
///
/// # Errors
/// When the name does not do, the folder is not empty, or a file cannot be written.
pub fn create(
    folder: &Path,
    name: &str,
    worker_type: &str,
    language: Language,
) -> Result<(), Error> {
    check_name(name).map_err(|mistake| Error::Refused(format!("the name {mistake}")))?;
    let is_taken = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => folder.exists(),
    };
    if is_taken {
        return Err(Error::Refused(format!(
            "{} is there already, and not empty; choose another name, or empty it",
            folder.display()
        )));
    }
    for (path, content) in embedded::files(&format!("templates/{}", language.name())) {
        write(folder, path, &fill(content, name, worker_type))?;
    }
    for (path, content) in embedded::files("wit") {
        write(folder, &format!("wit/{path}"), content)?;
    }
    for (path, content) in embedded::files(language.sdk()) {
        write(folder, &format!("sdk/{path}"), content)?;
    }
    if language == Language::Rust {
        complete_rust(folder)?;
    }
    Ok(())
}

/// The SDK of Rust is a crate of its own here, and reads the contract beside it. The lock is that of
/// the guests, so that a new project is built of the versions that are tested; cargo drops what it
/// does not need of them.
fn complete_rust(folder: &Path) -> Result<(), Error> {
    let carried = || Error::Refused("this binary carries no SDK for Rust".to_owned());
    let manifest = rust::sdk_manifest().ok_or_else(carried)?;
    write(folder, "sdk/Cargo.toml", manifest.as_bytes())?;
    let bindings = embedded::text("sdk/rust/src/bindings.rs").ok_or_else(carried)?;
    let bindings = bindings.replace("\"../../wit\"", "\"../wit\"");
    write(folder, "sdk/src/bindings.rs", bindings.as_bytes())?;
    let lock = embedded::text("cargo/Cargo.lock").ok_or_else(carried)?;
    write(folder, "Cargo.lock", lock.as_bytes())
}

fn fill(content: &[u8], name: &str, worker_type: &str) -> Vec<u8> {
    match std::str::from_utf8(content) {
        Ok(text) => text
            .replace("{{name}}", name)
            .replace("{{type}}", worker_type)
            .into_bytes(),
        Err(_) => content.to_vec(),
    }
}

fn write(folder: &Path, path: &str, content: &[u8]) -> Result<(), Error> {
    let file = folder.join(path);
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).map_err(Error::writing(parent))?;
    }
    fs::write(&file, content).map_err(Error::writing(&file))
}
