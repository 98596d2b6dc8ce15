//! A copy of the contract in which a test makes releases and mistakes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Contract,
    release::{breaches, wit_files},
    wit,
};

pub(crate) struct Fixture(PathBuf);

impl Fixture {
    /// The contract as it is, as version 0.1.0, and no release.
    pub(crate) fn new(test: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("contract")
            .join(test);
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(folder.join("released")).unwrap();
        let fixture = Self(folder);
        for (name, text) in wit_files(&wit()).unwrap() {
            fixture.write(&name, &text);
        }
        fixture.set_version("0.1.0");
        fixture
    }

    pub(crate) fn breaches(&self) -> Vec<String> {
        breaches(&self.0, &self.0.join("released"))
    }

    /// Freezes the contract, as `wit/released/README.md` says.
    pub(crate) fn release(&self) {
        let version = self.version();
        for (name, text) in wit_files(&self.0).unwrap() {
            self.write(&format!("released/{version}/{name}"), &text);
        }
    }

    pub(crate) fn set_version(&self, version: &str) {
        let package = format!("package warren:worker@{};", self.version());
        let text = format!("package warren:worker@{version};");
        for (name, file) in wit_files(&self.0).unwrap() {
            self.write(&name, &file.replace(&package, &text));
        }
    }

    fn version(&self) -> String {
        let contract = Contract::read(&self.0).unwrap();
        contract.version().to_string()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let file = self.0.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.0.join(name)).unwrap();
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.0.join(from), self.0.join(to)).unwrap();
    }

    /// Changes the one place of a file that says `before`.
    pub(crate) fn replace(&self, file: &str, before: &str, after: &str) {
        let text = fs::read_to_string(self.0.join(file)).unwrap();
        assert_eq!(text.matches(before).count(), 1, "`{before}` in {file}");
        self.write(file, &text.replace(before, after));
    }
}
