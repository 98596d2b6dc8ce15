//! TypeScript: tsc looks for mistakes; esbuild drops the types.

use std::path::Path;

use crate::{
    Error,
    build::Work,
    javascript::{absolute, node, script, tool},
};

/// Checks the types, by the project's `tsconfig.json` where there is one.
pub(crate) async fn check(work: &Work<'_>, packages: &Path) -> Result<(), Error> {
    let name = work.project.name.as_str();
    let script = script(name, &packages.join("typescript"), "tsc")?;
    let mut tsc = node(work, &script);
    tsc.args(["--noEmit", "--pretty", "false"]);
    if work.project.folder.join("tsconfig.json").is_file() {
        tsc.args(["--project", "."]);
    } else {
        tsc.args(["--strict", "--skipLibCheck", "--target", "es2023"])
            .args(["--module", "esnext", "--moduleResolution", "bundler"])
            .arg(absolute(&work.manifest.source)?);
    }
    work.workshop.step(name, "checking types with tsc");
    tool(name, "tsc").build(tsc).await?;
    Ok(())
}
