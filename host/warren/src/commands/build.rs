//! `warren build`: makes plugins of projects.

use std::{
    env,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;
use warren_project::{Built, Error, Project, Workshop};

use super::{
    Verdict,
    making::{listen, size_of, time_of},
    output::{Output, say},
};

/// A tool that is needed is not on this machine (EX_UNAVAILABLE of sysexits.h).
const EXIT_MISSING: u8 = 69;

pub(crate) const ABOUT: &str = "\
Makes a plugin of each project: build/NAME.wasm in a folder with a worker.toml, and what cargo makes of \
a Cargo workspace. A folder that is neither stands for those of its direct subfolders that are.

What has not changed is not built again. A build that fails shows what the compiler says, and leaves the \
plugin of before. Tools of npm and PyPI are installed by themselves, in exact versions, into a folder of \
their own (WARREN_TOOLS, else ~/.cache/warren); a compiler that is missing is named with the command that \
gets it.";

pub(crate) const AFTER: &str = "\
Exit codes: 0 every plugin is there, 1 a project does not build, 64 misuse (there is no project, or its \
worker.toml has mistakes), 69 a tool is missing.

Examples:
  warren build                      the project in this folder
  warren build greeter orders
  warren build examples/orders      each of its workers
  warren build --json";

/// What is to be built.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Build {
    /// The folders of projects
    #[arg(default_value = ".", value_name = "FOLDER")]
    pub folders: Vec<PathBuf>,
    /// Fetch nothing from the network: no tools, and no packages
    #[arg(long)]
    pub offline: bool,
    /// Answer in JSON, one object per project, for programs
    #[arg(long)]
    pub json: bool,
}

/// Builds all that was asked for, and goes on after one that fails.
///
/// # Errors
/// When the answer cannot be written.
pub async fn run(build: &Build, tools: PathBuf) -> anyhow::Result<Verdict> {
    let mut projects = Vec::new();
    let mut is_misuse = false;
    for folder in &build.folders {
        match warren_project::find(folder) {
            Ok(found) => projects.extend(found),
            Err(error) => {
                is_misuse = true;
                say(&format!("warren: {error}"));
            }
        }
    }
    if is_misuse {
        return Ok(Verdict::Misuse);
    }
    let workshop = Workshop {
        tools,
        offline: build.offline,
        listen: listen(),
    };
    let mut output = Output::new();
    let mut verdict = Verdict::Done;
    for project in &projects {
        let built = warren_project::build(project, &workshop).await;
        if let Err(error) = &built {
            verdict = match (not_built(error), verdict) {
                (Verdict::Incomplete, worse @ Verdict::Failed(_)) => worse,
                (own, _) => own,
            };
            say(&error.to_string());
        }
        if build.json {
            output.json(&to_json(project, &built))?;
        } else if let Ok(built) = &built {
            for file in &built.files {
                output.line(&line(file, built))?;
            }
        }
        // Whoever waits for a long list sees it grow.
        output.flush()?;
    }
    Ok(verdict)
}

/// How a command ends that could not build a project.
pub(super) fn not_built(error: &Error) -> Verdict {
    match error {
        Error::Missing { .. } => Verdict::Failed(EXIT_MISSING),
        _ => Verdict::Incomplete,
    }
}

fn line(file: &Path, built: &Built) -> String {
    let how = if built.is_unchanged {
        "unchanged".to_owned()
    } else {
        format!("built in {}", time_of(built.took))
    };
    format!("{}  {}, {how}", shown(file).display(), size_of(file))
}

/// A path as a person at this place would write it.
pub(super) fn shown(file: &Path) -> &Path {
    let here = env::current_dir().and_then(|here| here.canonicalize());
    let inside = here.ok().and_then(|here| file.strip_prefix(here).ok());
    inside.unwrap_or(file)
}

fn to_json(project: &Project, built: &Result<Built, Error>) -> serde_json::Value {
    let manifest = project.manifest.as_ref();
    let built = built.as_ref();
    json!({
        "project": project.name,
        "folder": project.folder,
        "lang": manifest.map_or("rust", |manifest| manifest.language.name()),
        "files": built.map(|built| built.files.as_slice()).unwrap_or_default(),
        "unchanged": built.is_ok_and(|built| built.is_unchanged),
        "took_ms": built.ok().map(|built| built.took.as_millis() as u64),
        "error": built.err().map(ToString::to_string),
    })
}
