//! `seeds_for_fuzzing TARGET FOLDER`: writes what fuzzing a target begins with.

use std::{env, error::Error, fs, path::PathBuf};

use warren_fuzz::seeds;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = env::args_os().skip(1);
    let (Some(target), Some(folder)) = (words.next(), words.next().map(PathBuf::from)) else {
        return Err("usage: seeds_for_fuzzing TARGET FOLDER".into());
    };
    let target = target.to_string_lossy();
    fs::create_dir_all(&folder)?;
    for (name, bytes) in seeds::of(&target).into_iter().chain(seeds::corpus(&target)) {
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
