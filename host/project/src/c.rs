//! C: the binding is generated from the contract, clang makes a module of it and the sources, and
//! `component` makes a component of that. Needs no tool but clang.

use std::{
    fs,
    path::{Path, PathBuf},
};

use wit_bindgen_core::{Files, wit_parser::Resolve};

use crate::{
    Error,
    build::Work,
    component::component,
    process::{Tool, command},
};

const GET_CLANG: &str = "apt install clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32 \
     (Debian, Ubuntu; elsewhere clang, lld, and the wasi-libc and compiler-rt of wasi-sdk)";

/// Tried in this order. Debian's clang has its parts for WebAssembly under its version.
const CLANGS: [&str; 2] = ["clang-19", "clang"];

/// The binding is always that of this name, so that the SDK fits every world.
const WORLD: &str = "worker";

/// What clang says when a part of it for WebAssembly is not there.
const SIGNS_OF_PARTS_MISSING: [&str; 5] = [
    "unable to execute command: Executable \"wasm-ld",
    "invalid linker name",
    "'stdlib.h' file not found",
    "cannot open crt1-reactor.o",
    "libclang_rt.builtins-wasm32.a",
];

/// What the result depends on beside the sources.
pub(crate) async fn tools(work: &Work<'_>) -> Result<String, Error> {
    let (_, version) = clang(work).await?;
    Ok(version)
}

pub(crate) async fn build(work: &Work<'_>) -> Result<Vec<u8>, Error> {
    let (manifest, name) = (work.manifest, work.project.name.as_str());
    let (clang, _) = clang(work).await?;
    let binding = tool(work, "the contract");
    bind(&manifest.wit, &manifest.world, &work.folder)
        .map_err(|error| binding.failed(format!("{error:#}")))?;

    let sources = sources(&manifest.source)?;
    if sources.is_empty() {
        let text = format!("there is no file *.c in {}", manifest.source.display());
        return Err(tool(work, "clang").failed(text));
    }
    work.workshop.step(name, format!("compiling with {clang}"));
    let absolute = |path: &Path| std::path::absolute(path).map_err(Error::reading(path));
    let (folder, sdk) = (absolute(&work.folder)?, absolute(&manifest.sdk)?);
    let flags = |quiet: bool| {
        let mut command = command(&folder, clang);
        command
            .args(["--target=wasm32-wasi", "-Os", "-std=c17"])
            .args(if quiet {
                &["-w"][..]
            } else {
                &["-Wall", "-Wextra"]
            })
            .arg("-isystem")
            .arg(&folder)
            .arg("-I")
            .arg(&sdk);
        command
    };
    // What is generated is not the project's to mend.
    let mut generated = flags(true);
    generated.args(["-c", "worker.c", "-o", "binding.o"]);
    run(work, generated).await?;
    let mut link = flags(false);
    for source in &sources {
        link.arg(absolute(source)?);
    }
    for source in self::sources(&sdk)? {
        link.arg(source);
    }
    link.args(["binding.o", "worker_component_type.o"])
        .args(["-mexec-model=reactor", "-Wl,--strip-all"])
        // A stack that is too deep runs against the end of memory, not into the data.
        .args(["-Wl,--stack-first", "-Wl,-z,stack-size=262144"])
        .args(["-o", "core.wasm"]);
    let warnings = run(work, link).await?;
    if !warnings.trim().is_empty() {
        work.workshop.said(name, warnings.trim_end());
    }

    let module = work.folder.join("core.wasm");
    let module = fs::read(&module).map_err(Error::reading(&module))?;
    component(&module).map_err(|error| binding.failed(format!("{error:#}")))
}

/// The binding of a world in C, into a folder: `worker.h`, `worker.c` and an object file that says
/// for which world it is.
fn bind(wit: &Path, world: &str, folder: &Path) -> anyhow::Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit)?;
    let world = resolve.select_world(&[package], Some(world))?;
    let options = wit_bindgen_c::Opts {
        rename_world: Some(WORLD.to_owned()),
        ..wit_bindgen_c::Opts::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files)?;
    for (file, content) in files.iter() {
        fs::write(folder.join(file), content)?;
    }
    Ok(())
}

/// The files `*.c` of a folder, or the one that is named.
fn sources(source: &Path) -> Result<Vec<PathBuf>, Error> {
    if source.is_file() {
        return Ok(vec![source.to_owned()]);
    }
    let entries = fs::read_dir(source).map_err(Error::reading(source))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut sources: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "c"))
        .collect();
    sources.sort();
    Ok(sources)
}

/// The name of a clang that is there, and its version.
async fn clang(work: &Work<'_>) -> Result<(&'static str, String), Error> {
    for name in CLANGS {
        let mut version = command(&work.project.folder, name);
        version.arg("--version");
        match tool(work, name).run(version).await {
            Ok(ran) => return Ok((name, ran.text)),
            Err(Error::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(tool(work, "clang").missing())
}

async fn run(work: &Work<'_>, command: tokio::process::Command) -> Result<String, Error> {
    let ran = tool(work, "clang").run(command).await?;
    if ran.succeeded {
        return Ok(ran.text);
    }
    let is_incomplete = SIGNS_OF_PARTS_MISSING
        .iter()
        .any(|sign| ran.text.contains(sign));
    Err(if is_incomplete {
        tool(work, "a part of clang for WebAssembly").missing()
    } else {
        let hint = "there is no worker in it: end a source with WARREN_WORKER(...)";
        let failed = tool(work, "clang").failed(ran.text);
        failed.with_hint("exports_warren_worker_descriptor_describe", hint)
    })
}

fn tool<'a>(work: &'a Work<'_>, name: &'a str) -> Tool<'a> {
    Tool {
        project: &work.project.name,
        name,
        remedy: GET_CLANG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_world_has_the_same_names() {
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        for world in ["worker", "treating-worker", "http-worker"] {
            let folder = tempfile::tempdir().unwrap();
            bind(&wit, world, folder.path()).unwrap();
            let header = fs::read_to_string(folder.path().join("worker.h")).unwrap();
            assert!(header.contains("} worker_string_t;"), "{header}");
            assert!(folder.path().join("worker_component_type.o").is_file());
        }
        let unknown = bind(&wit, "nobody", Path::new("/nowhere")).unwrap_err();
        assert!(format!("{unknown:#}").contains("nobody"), "{unknown:#}");
    }
}
