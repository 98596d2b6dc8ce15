//! `warren dev`: builds the guests of a Cargo workspace, runs a host on them, and builds again at
//! every change of a source. What takes over is the host's ordinary reload.

mod build;
mod sources;

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::{
    config::{Broker, Config},
    run::{self, Addresses, Link},
};

/// Runs until `shutdown`.
///
/// # Errors
/// When the first build fails, or the host cannot start.
pub async fn dev(
    mut config: Config,
    folder: &Path,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    build::check_workspace(folder)?;
    build::ensure_target(folder).await?;
    // Their own folder: a production plugins folder is never written to.
    config.plugins = config.data_dir.join("dev/plugins");
    let built = tokio::select! {
        built = build::build(folder, &config.plugins) => built?,
        () = shutdown.cancelled() => return Ok(()),
    };

    let engine = run::engine(&config)?;
    let link = Link::open(&config)?;
    let follow = tokio::spawn(follow(folder.to_owned(), config.plugins.clone()));
    let (plugins, sources) = (config.plugins.clone(), folder.to_owned());
    let bus = match &config.broker {
        Broker::Embedded => "the embedded bus",
        Broker::RabbitMq(_) => "RabbitMQ",
    };
    let greet = move |addresses: Addresses| greet(&addresses, bus, &sources, &plugins, &built);
    let ran = run::run(config, link, engine, shutdown, greet).await;
    follow.abort();
    ran
}

/// Builds at every change of a source. A build that fails has shown its errors; the version before
/// it goes on serving.
async fn follow(folder: PathBuf, plugins: PathBuf) {
    let mut sources = sources::Sources::of(&folder);
    loop {
        sources.changed().await;
        // Before the build, so that a change during it is seen; anew, because a guest may have
        // been added.
        sources = sources::Sources::of(&folder);
        say("sources changed, building");
        match build::build(&folder, &plugins).await {
            Ok(_) => {}
            Err(error) => say(&format!("{error:#}; the versions before go on serving")),
        }
    }
}

fn greet(addresses: &Addresses, bus: &str, sources: &Path, plugins: &Path, built: &[String]) {
    let Addresses { http, admin } = addresses;
    let built = built.join(", ");
    let (sources, plugins) = (sources.display(), plugins.display());
    say(&format!(
        "\n  Warren is up, with {built} on {bus}.\n\n  \
         HTTP workers   http://{http}\n  \
         admin          http://{admin}  (/workers /plugins /metrics /readyz)\n  \
         plugins        {plugins}  (copy any .wasm there and it serves)\n\n  \
         Try:\n    \
         curl http://{http}/movies/\n    \
         curl -d '{{\"title\":\"Alien\",\"description\":\"In space\"}}' http://{http}/movies/\n    \
         curl 'http://{http}/movies/?title=Alien'\n  \
         Then change a source under {sources} and save: it is built and takes over.\n  \
         Ctrl-C stops.\n"
    ));
}

/// A line for the person at the terminal; what the program does is in the log.
#[allow(
    clippy::print_stderr,
    reason = "the dialogue of an interactive command"
)]
pub(super) fn say(line: &str) {
    eprintln!("{line}");
}
