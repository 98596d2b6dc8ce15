//! One build of one project. What is the same as before is not built again; what fails leaves the
//! plugin of before.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    Error, Language, Manifest, Project, Workshop, c, fingerprint, javascript, python, rust,
};

/// What a build has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The plugins: one, or all of a Cargo workspace.
    pub files: Vec<PathBuf>,
    /// Whether nothing had changed, so that nothing was built.
    pub is_unchanged: bool,
    /// From its start to its end.
    pub took: Duration,
}

/// What a toolchain works on.
pub(crate) struct Work<'a> {
    pub(crate) project: &'a Project,
    pub(crate) manifest: &'a Manifest,
    pub(crate) workshop: &'a Workshop,
    /// A folder for what is between source and plugin; it may hold what an earlier build has left.
    pub(crate) folder: PathBuf,
}

/// Builds a project.
///
/// # Errors
/// When its sources do not build, a tool is missing or cannot be fetched, or a file cannot be written.
pub async fn build(project: &Project, workshop: &Workshop) -> Result<Built, Error> {
    let begun = Instant::now();
    let built = |files, is_unchanged| Built {
        files,
        is_unchanged,
        took: begun.elapsed(),
    };
    let (Some(manifest), Some(output)) = (&project.manifest, project.output()) else {
        let (files, is_unchanged) = rust::build(project, workshop).await?;
        return Ok(built(files, is_unchanged));
    };
    if manifest.language == Language::Rust {
        let _turn = turn(&project.folder.join("build/.work")).await?;
        // Cargo knows by itself what is unchanged, and which crates outside of the folder count.
        let (component, is_unchanged) = rust::build_one(project, workshop).await?;
        let content = fs::read(&component).map_err(Error::reading(&component))?;
        let is_there = is_unchanged && fs::read(&output).is_ok_and(|present| present == content);
        if !is_there {
            replace(&output, &content)?;
        }
        return Ok(built(vec![output], is_there));
    }
    let work = Work {
        project,
        manifest,
        workshop,
        folder: project.folder.join("build/.work"),
    };
    let tools = match manifest.language {
        Language::C => c::tools(&work).await?,
        Language::Python => python::tools(),
        _ => javascript::tools(),
    };
    // Another build of the same project would write the same files.
    let _turn = turn(&work.folder).await?;
    let inputs = fingerprint::of(project, &tools)?;
    let stamp = output.with_file_name(format!(".{}.inputs", manifest.name));
    if let Some(digest) = fingerprint::of_file(&output)
        && fs::read_to_string(&stamp).is_ok_and(|text| text == format!("{inputs}\n{digest}\n"))
    {
        return Ok(built(vec![output], true));
    }
    let component = match manifest.language {
        Language::C => c::build(&work).await?,
        Language::Python => python::build(&work).await?,
        _ => javascript::build(&work).await?,
    };
    replace(&output, &component)?;
    let digest = fingerprint::of_file(&output).unwrap_or_default();
    replace(&stamp, format!("{inputs}\n{digest}\n").as_bytes())?;
    remove_others(&output)?;
    Ok(built(vec![output], false))
}

/// Removes the plugins that the project had under other names, which its stamps tell.
fn remove_others(output: &Path) -> Result<(), Error> {
    let (Some(folder), Some(own)) = (output.parent(), output.file_stem()) else {
        return Ok(());
    };
    let entries = fs::read_dir(folder).map_err(Error::reading(folder))?;
    for stamp in entries.flatten().map(|entry| entry.path()) {
        let name = stamp.file_name().unwrap_or_default().to_string_lossy();
        let name = name
            .strip_prefix('.')
            .and_then(|name| name.strip_suffix(".inputs"));
        if let Some(name) = name.filter(|name| own != *name) {
            // It may have been removed by hand.
            let _ = fs::remove_file(folder.join(format!("{name}.wasm")));
            fs::remove_file(&stamp).map_err(Error::writing(&stamp))?;
        }
    }
    Ok(())
}

/// The turn to work in a folder, which is made where it is not there. The system ends the turn with the
/// file, also when the process is killed.
pub(crate) async fn turn(folder: &Path) -> Result<File, Error> {
    let place = folder.to_owned();
    let locked = tokio::task::spawn_blocking(move || {
        fs::create_dir_all(&place)?;
        let file = File::create(place.join(".lock"))?;
        file.lock()?;
        Ok(file)
    });
    let turn = locked.await.map_err(io::Error::other).flatten();
    turn.map_err(Error::writing(folder))
}

/// Writes beside a file and renames, so that nobody sees half of one.
pub(crate) fn replace(file: &Path, content: &[u8]) -> Result<(), Error> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let beside = file.with_file_name(format!(".{name}.tmp"));
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(Error::writing(folder))?;
    }
    fs::write(&beside, content).map_err(Error::writing(&beside))?;
    fs::rename(&beside, file).map_err(Error::writing(file))
}
