//! `warren dev`: builds projects, runs a host on their plugins, and builds a project again at every
//! change of its sources. What takes over is the host's ordinary reload.

mod plugins;
mod sources;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use tokio::{sync::Mutex, task::JoinSet};
use tokio_util::sync::CancellationToken;
use warren_project::{Project, Workshop};

use self::plugins::Plugins;
use crate::{
    commands::making,
    config::{Broker, Config},
    registry::file_name,
    run::{self, Addresses, Link},
};

/// The configuration that a project brings along, for a host that was told no other.
pub const CONFIGURATION: &str = "warren.toml";

/// What is to be built, and with what.
pub struct Dev {
    /// The folders of projects.
    pub folders: Vec<PathBuf>,
    /// Where tools of npm and PyPI are kept.
    pub tools: PathBuf,
    /// Whether nothing may be fetched from the network.
    pub offline: bool,
}

/// Runs until `shutdown`.
///
/// # Errors
/// When there is nothing to build, a tool is missing, or the host cannot start.
pub async fn dev(mut config: Config, dev: Dev, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut projects = Vec::new();
    for folder in &dev.folders {
        for project in warren_project::find(folder)? {
            if !projects.contains(&project) {
                projects.push(project);
            }
        }
    }
    // Their own folder: a production plugins folder is never written to.
    config.plugins = config.data_dir.join("dev/plugins");
    let workshop = Workshop {
        tools: dev.tools,
        offline: dev.offline,
        listen: making::lines(),
    };
    let mut plugins = Plugins::new(&config.plugins);
    let mut watched = Vec::new();
    for project in &projects {
        // Before its first build, so that a change during it is seen.
        watched.push(sources::Sources::of(project));
        let built = tokio::select! {
            built = warren_project::build(project, &workshop) => built,
            () = shutdown.cancelled() => return Ok(()),
        };
        match built {
            Ok(built) => plugins.keep(project, built.files),
            Err(error) if error.is_of_the_sources() => {
                say(&format!("{error}\n{}: waits for a change", project.name));
                // What it was before goes on.
                let before = project.output().filter(|file| file.is_file());
                plugins.keep(project, before.into_iter().collect());
            }
            Err(error) => return Err(error.into()),
        }
    }
    plugins.put()?;

    let engine = run::engine(&config)?;
    let link = Link::open(&config)?;
    let greeting = greeting(&dev.folders, &projects, &plugins, &config);
    let workbench = Arc::new((workshop, Mutex::new(plugins)));
    let mut following = JoinSet::new();
    for (project, sources) in projects.into_iter().zip(watched) {
        following.spawn(follow(project, sources, workbench.clone()));
    }
    let greet = move |addresses: Addresses| say(&greeting(&addresses));
    let ran = run::run(config, link, engine, shutdown, greet).await;
    // A tool that is at work ends with its build.
    following.shutdown().await;
    ran
}

/// Builds a project at every change of its sources. A build that fails leaves the version before it
/// serving.
async fn follow(
    mut project: Project,
    mut sources: sources::Sources,
    workbench: Arc<(Workshop, Mutex<Plugins>)>,
) {
    let (workshop, plugins) = workbench.as_ref();
    loop {
        sources.changed().await;
        // Before the build, so that a change during it is seen; anew, because a folder may have been
        // added.
        sources = sources::Sources::of(&project);
        // One build at a time: each uses all of the machine.
        let mut plugins = plugins.lock().await;
        say(&format!("{}: sources changed, building", project.name));
        if let Err(error) = build_again(&mut project, workshop, &mut plugins).await {
            say(&format!(
                "{error:#}\n{}: the versions before go on serving",
                project.name
            ));
        }
    }
}

async fn build_again(
    project: &mut Project,
    workshop: &Workshop,
    plugins: &mut Plugins,
) -> anyhow::Result<()> {
    // What it says of itself may have changed too.
    let found = warren_project::find(&project.folder)?;
    *project = found.into_iter().next().context("the project is gone")?;
    let built = warren_project::build(project, workshop).await?;
    let how = if built.is_unchanged {
        "there is nothing to build".to_owned()
    } else {
        format!("built in {:.1} s", built.took.as_secs_f64())
    };
    plugins.keep(project, built.files);
    plugins.put()?;
    say(&format!("{}: {how}", project.name));
    Ok(())
}

/// What a person is told as soon as the host is up.
fn greeting(
    folders: &[PathBuf],
    projects: &[Project],
    plugins: &Plugins,
    config: &Config,
) -> impl FnOnce(&Addresses) -> String + Send + 'static + use<> {
    let built: Vec<String> = plugins.files().map(|file| file_name(file)).collect();
    let built = built.join(", ");
    let bus = match &config.broker {
        Broker::Embedded => "the embedded bus",
        Broker::RabbitMq(_) => "RabbitMQ",
    };
    let shown = |path: &PathBuf| Path::new(path).display().to_string();
    let sources = folders.iter().map(shown).collect::<Vec<_>>().join(", ");
    let plugins = config.plugins.display().to_string();
    let examples: Vec<String> = projects
        .iter()
        .flat_map(|project| project.examples.iter().cloned())
        .collect();
    move |Addresses { http, admin }| {
        let mut examples = examples;
        if examples.is_empty() {
            let any =
                "warren call TYPE '{\"some\":\"data\"}'   (the types: curl http://{admin}/workers)";
            examples.push(any.to_owned());
        }
        let (http, admin) = (http.to_string(), admin.to_string());
        let examples: String = examples
            .iter()
            .map(|line| line.replace("{http}", &http).replace("{admin}", &admin))
            .map(|line| format!("\n    {line}"))
            .collect();
        format!(
            "\n  Warren is up, with {built} on {bus}.\n\n  \
             HTTP workers   http://{http}\n  \
             admin          http://{admin}  (/workers /plugins /metrics /readyz)\n  \
             plugins        {plugins}  (copy any .wasm there and it serves)\n\n  \
             Try:{examples}\n  \
             Then change a source under {sources} and save: it is built and takes over.\n  \
             Ctrl-C stops.\n"
        )
    }
}

/// A line for the person at the terminal; what the program does is in the log.
#[allow(
    clippy::print_stderr,
    reason = "the dialogue of an interactive command"
)]
pub(super) fn say(line: &str) {
    eprintln!("{line}");
}
