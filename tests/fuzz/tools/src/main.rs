//! `warren-fuzz-tools FOLDER SEED COUNT`: writes so many valid core modules, each with what `describe`
//! needs, and as many valid components, made at random from the seed.

use std::{env, error::Error, fs, path::PathBuf};

use arbitrary::Unstructured;
use wasm_smith::{Component, Config, Module};

/// What the component around a module takes from it (`corpus/plugin/describes.wat`).
const EXPORTS: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "describe") (result i32) unreachable))"#;
/// What one begins as: enough choices for some kilobytes of code.
const BYTES: usize = 2048;
/// A run of a module ends after so many loops and calls.
const FUEL: u32 = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: warren-fuzz-tools FOLDER SEED COUNT";
    let mut words = env::args().skip(1);
    let mut word = || words.next().ok_or(usage);
    let folder = PathBuf::from(word()?);
    let mut state = word()?.parse::<u64>()?.max(1);
    let count = word()?.parse::<usize>()?;
    fs::create_dir_all(&folder)?;
    let exports = wat::parse_str(EXPORTS)?;
    let (mut n_modules, mut n_components) = (0, 0);
    while n_modules < count || n_components < count {
        let bytes: Vec<u8> = (0..BYTES).map(|_| next(&mut state)).collect();
        let mut choices = Unstructured::new(&bytes);
        // Some choices make none.
        if n_components < count
            && let Ok(component) = Component::new(common(), &mut choices)
        {
            fs::write(
                folder.join(format!("component_{n_components}")),
                component.to_bytes(),
            )?;
            n_components += 1;
        }
        let mut config = common();
        config.exports = Some(exports.clone());
        let mut choices = Unstructured::new(&bytes);
        if n_modules < count
            && let Ok(mut module) = Module::new(config, &mut choices)
            && module.ensure_termination(FUEL).is_ok()
        {
            fs::write(
                folder.join(format!("module_{n_modules}")),
                module.to_bytes(),
            )?;
            n_modules += 1;
        }
    }
    Ok(())
}

/// No more than this host's engine knows, or the validator would refuse nearly all of them.
fn common() -> Config {
    Config {
        max_imports: 0,
        threads_enabled: false,
        shared_everything_threads_enabled: false,
        wide_arithmetic_enabled: false,
        compact_imports_enabled: false,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        max_memory32_bytes: 64 << 20,
        max_table_elements: 200_000,
        ..Config::default()
    }
}

/// xorshift64: its numbers are the same everywhere.
fn next(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.to_le_bytes()[7]
}
