//! Folders whose files are trusted: nobody but this user may write there.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

/// Makes a folder for this user alone, or makes sure that it is one.
///
/// # Errors
/// When it cannot be made, or others may write to it; the text says what to do.
pub fn make(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder)?;
    check(folder)
}

/// Writes a whole file or none: its readers never see a part of it. It is on the disk then.
///
/// # Errors
/// When it cannot be written.
pub fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    put(file, content, fs::File::sync_all)
}

/// As [`write()`], but a power cut may leave a part of it: for what its readers verify, and what can be
/// made anew. Nobody waits for the disk.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_soon(file: &Path, content: &[u8]) -> io::Result<()> {
    put(file, content, |_| Ok(()))
}

fn put(
    file: &Path,
    content: &[u8],
    settle: impl FnOnce(&fs::File) -> io::Result<()>,
) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut part = tempfile::Builder::new()
        .prefix(".part-")
        .tempfile_in(folder)?;
    part.write_all(content)?;
    settle(part.as_file())?;
    part.persist(file).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(unix)]
fn check(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(folder)?;
    let refused = |why: &str| {
        Err(io::Error::other(format!(
            "{why} {}, and code that is kept there would be run: chmod 700 it, or remove it and it \
             is made anew",
            folder.display()
        )))
    };
    if metadata.mode() & 0o022 != 0 {
        return refused("others may write to");
    }
    // The owner of a process' entry is who the process runs as.
    match fs::metadata("/proc/self") {
        Ok(process) if process.uid() != metadata.uid() => refused("another user owns"),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn check(_folder: &Path) -> io::Result<()> {
    Ok(())
}
