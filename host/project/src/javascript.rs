//! JavaScript: esbuild makes one module of the sources and the SDK, componentize-qjs puts it into a
//! component together with QuickJS. TypeScript is checked first.

use std::{ffi::OsString, fs, path::Path};

use tokio::process::Command;

use crate::{
    Error, Language,
    build::Work,
    process::{Tool, command},
    tools::{self, Set},
    typescript,
};

const PACKAGES: [&str; 3] = [
    "componentize-qjs@0.4.5",
    "esbuild@0.28.2",
    // Only for TypeScript, but a set of its own would be a second engine to keep.
    "typescript@7.0.2",
];

/// What the result depends on beside the sources.
pub(crate) fn tools() -> String {
    PACKAGES.join(" ")
}

pub(crate) async fn build(work: &Work<'_>) -> Result<Vec<u8>, Error> {
    let (manifest, name) = (work.manifest, work.project.name.as_str());
    let set = Set {
        folder: format!("npm-{}", PACKAGES.join("-")),
        packages: &PACKAGES,
        size: "80 MB",
    };
    let packages = tools::npm(name, work.workshop, &set).await?;
    let packages = packages.join("node_modules");
    if manifest.language == Language::TypeScript {
        typescript::check(work, &packages).await?;
    }

    let bundle = absolute(&work.folder.join("worker.js"))?;
    let mut esbuild = node(work, &packages.join("esbuild/bin/esbuild"));
    esbuild
        .arg(absolute(&manifest.source)?)
        .args(["--bundle", "--format=esm", "--platform=neutral"])
        // What QuickJS knows; the rest is rewritten.
        .args([
            "--target=es2023",
            "--main-fields=module,main",
            "--charset=utf8",
        ])
        // The contract: these modules are the host.
        .args(["--external:warren:*", "--external:wasi:*"])
        .arg(option("--alias:warren=", &manifest.sdk.join("warren.js"))?)
        .arg(option("--outfile=", Path::new(&bundle))?)
        .args(["--log-level=warning", "--color=false"]);
    work.workshop.step(name, "bundling with esbuild");
    let warnings = tool(name, "esbuild").build(esbuild).await?;
    if !warnings.trim().is_empty() {
        work.workshop.said(name, warnings.trim_end());
    }

    let component = absolute(&work.folder.join("worker.wasm"))?;
    let script = script(name, &packages.join("componentize-qjs"), "componentize-qjs")?;
    let mut componentize = node(work, &script);
    componentize
        // Without it, guests would use the asynchronous interface of components, which hosts do not
        // offer.
        .arg("--sync")
        .arg("--wit")
        .arg(absolute(&manifest.wit)?)
        .args(["--world", &manifest.world])
        .arg("--js")
        .arg(&bundle)
        .arg("--output")
        .arg(&component);
    work.workshop
        .step(name, "making a component with componentize-qjs");
    tool(name, "componentize-qjs").build(componentize).await?;
    fs::read(&component).map_err(Error::reading(Path::new(&component)))
}

/// A script of a package, run by Node in the folder of the project.
pub(crate) fn node(work: &Work<'_>, script: &Path) -> Command {
    let mut node = command(&work.project.folder, "node");
    node.arg(script).env("NO_COLOR", "1");
    node
}

pub(crate) fn tool<'a>(project: &'a str, name: &'a str) -> Tool<'a> {
    Tool {
        project,
        name,
        remedy: tools::NODE,
    }
}

/// The file behind a command of a package. The links of `.bin` are for a shell.
pub(crate) fn script(
    project: &str,
    package: &Path,
    name: &str,
) -> Result<std::path::PathBuf, Error> {
    let file = package.join("package.json");
    let text = fs::read(&file).map_err(Error::reading(&file))?;
    let about: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let bin = about.get("bin");
    let path = bin.and_then(|bin| bin.as_str().or_else(|| bin.get(name)?.as_str()));
    path.map(|path| package.join(path))
        .ok_or_else(|| tool(project, name).failed(format!("{} names no command", file.display())))
}

pub(crate) fn absolute(path: &Path) -> Result<OsString, Error> {
    let complete = std::path::absolute(path).map_err(Error::reading(path))?;
    Ok(complete.into_os_string())
}

fn option(name: &str, path: &Path) -> Result<OsString, Error> {
    let mut option = OsString::from(name);
    option.push(absolute(path)?);
    Ok(option)
}
