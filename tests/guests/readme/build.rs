//! Puts the pieces of Rust in `wit/README.md` together: they are one plugin.

use std::{env, error::Error, fs, path::Path};

const README: &str = "../../../wit/README.md";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={README}");
    let readme = fs::read_to_string(README)?;
    let pieces: Vec<&str> = readme
        .split("\n```rust\n")
        .skip(1)
        .filter_map(|rest| rest.split("\n```\n").next())
        .collect();
    let file = Path::new(&env::var("OUT_DIR")?).join("readme.rs");
    fs::write(file, pieces.join("\n\n"))?;
    Ok(())
}
