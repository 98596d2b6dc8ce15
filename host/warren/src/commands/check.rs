//! `warren check`: what a file is, what it wants, and whether a host with this configuration would
//! load it. Nothing of it runs but `describe`, in an instance that can reach nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use warren_protocol::WorkerType;
use warren_runtime::{
    Databases, Digest, Engine, GuestMetrics, InstanceMetrics, KeyValueStores, Need, Outgoing,
    Plugin, Standing, needs,
};

use super::{
    Verdict,
    build::shown,
    output::{Output, clean},
};
use crate::{
    config::{Config, DatabaseSource},
    equip::Equipment,
    registry::file_name,
    run,
};

pub(crate) const ABOUT: &str = "\
Looks at plugin files: the contract and the version that each was built for, what it imports and what \
that is good for, its size, how long it takes to compile, and whether a host with this configuration \
would load it. No host has to run, and nothing is changed.";

pub(crate) const AFTER: &str = "\
Exit codes: 0 every file would be loaded, 1 one would not, 64 misuse.

Examples:
  warren check guests/target/wasm32-wasip2/release/*.wasm
  warren check db.wasm --config production.toml
  warren check greeter              what `warren build greeter` has made
  warren check db.wasm --json";

/// The worker type under which a file that has not been asked yet writes its log.
const UNKNOWN_TYPE: &str = "unknown";

/// What was found out about one file.
struct Report {
    file: PathBuf,
    digest: Option<Digest>,
    size_bytes: usize,
    /// The plugin, or the step that failed and why.
    plugin: Result<Plugin, (&'static str, String)>,
}

pub(super) async fn run(
    config: &Config,
    files: &[PathBuf],
    as_json: bool,
) -> anyhow::Result<Verdict> {
    let config = Config {
        // How long compiling takes is what somebody wants to know.
        compile_cache_bytes: 0,
        ..config.clone()
    };
    let engine = run::engine(&config)?;
    let registry = prometheus::Registry::new();
    let equipment = Equipment {
        databases: Arc::new(Databases::new(config.data_dir.join("sql"))),
        keyvalue: Arc::new(KeyValueStores::new(config.data_dir.join("keyvalue"))),
        metrics: Arc::new(GuestMetrics::new(registry.clone()).context("registering metrics")?),
        instances: Arc::new(InstanceMetrics::new(&registry).context("registering metrics")?),
        outgoing: Arc::new(Outgoing::new(&registry).context("registering metrics")?),
        config,
    };
    let mut output = Output::new();
    let mut are_all_loaded = true;
    for file in &plugins_of(files)? {
        let report = look(&engine, &equipment, file).await?;
        let needs = report.needs(&equipment);
        let refusal = report.refusal(&equipment, &needs);
        are_all_loaded &= refusal.is_none();
        if as_json {
            output.json(&report.to_json(&equipment, &needs, refusal.as_ref()))?;
        } else {
            report.print(&equipment, &needs, refusal.as_ref(), &mut output)?;
        }
    }
    output.flush()?;
    Ok(if are_all_loaded {
        Verdict::Done
    } else {
        Verdict::Incomplete
    })
}

/// The files that were named, and for a project's folder what was built of it.
fn plugins_of(files: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut plugins = Vec::new();
    for file in files {
        if !file.is_dir() {
            plugins.push(file.clone());
            continue;
        }
        for project in warren_project::find(file)? {
            let output = project.output().with_context(|| {
                let folder = file.display();
                format!("{folder} is a Cargo workspace; name the files that it has built")
            })?;
            ensure!(
                output.is_file(),
                "{} is not built; first: warren build {}",
                project.name,
                file.display()
            );
            plugins.push(shown(&output).to_owned());
        }
    }
    Ok(plugins)
}

async fn look(engine: &Engine, equipment: &Equipment, file: &Path) -> anyhow::Result<Report> {
    let bytes: Bytes = match tokio::fs::read(file).await {
        Ok(bytes) => bytes.into(),
        Err(error) => {
            return Ok(Report {
                file: file.to_owned(),
                digest: None,
                size_bytes: 0,
                plugin: Err(("read", format!("read: {error}"))),
            });
        }
    };
    let (digest, size_bytes) = (Digest::of(&bytes), bytes.len());
    let scratch = equipment.scratch(WorkerType::new(UNKNOWN_TYPE)?);
    let plugin = match engine.compile(bytes, digest).await {
        Ok(compiled) => engine.probe(compiled, &scratch).await,
        Err(error) => Err(error),
    };
    Ok(Report {
        file: file.to_owned(),
        digest: Some(digest),
        size_bytes,
        plugin: plugin.map_err(|error| (error.step(), error.to_string())),
    })
}

impl Report {
    fn needs(&self, equipment: &Equipment) -> Vec<Need> {
        let Ok(plugin) = &self.plugin else {
            return Vec::new();
        };
        let worker_type = &plugin.description.worker_type;
        let own = equipment.config.workers.get(worker_type);
        let grants = own.map(|own| own.grants.clone()).unwrap_or_default();
        needs(plugin.imports(), &grants, worker_type)
    }

    /// What an import gives, with the database that it is about.
    fn gives(&self, equipment: &Equipment, need: &Need) -> String {
        let is_sql = need.import.starts_with("warren:worker/sql");
        let Some(plugin) = self.plugin.as_ref().ok().filter(|_| is_sql) else {
            return need.gives.to_owned();
        };
        let workers = &equipment.config.workers;
        let own = workers.get(&plugin.description.worker_type);
        match own.and_then(|own| own.database.as_ref()) {
            None => format!("{} (SQLite)", need.gives),
            Some(DatabaseSource::Url(url)) => format!("the PostgreSQL database {url}"),
            Some(DatabaseSource::Kept(_)) => {
                "the PostgreSQL database whose URL is kept apart".to_owned()
            }
        }
    }

    /// The step at which a host would turn it away, and why.
    fn refusal(&self, equipment: &Equipment, needs: &[Need]) -> Option<(&'static str, String)> {
        let plugin = match &self.plugin {
            Ok(plugin) => plugin,
            Err(refusal) => return Some(refusal.clone()),
        };
        let missing = needs.iter().find_map(|need| match &need.standing {
            Standing::Missing(remedy) => Some(format!("{}: {remedy}", need.import)),
            _ => None,
        });
        if let Some(missing) = missing {
            return Some(("grant", missing));
        }
        let pinned = equipment.check_pin(plugin, &file_name(&self.file));
        pinned.err().map(|error| ("claim", error))
    }

    fn print(
        &self,
        equipment: &Equipment,
        needs: &[Need],
        refusal: Option<&(&'static str, String)>,
        output: &mut Output,
    ) -> std::io::Result<()> {
        output.line(&clean(&self.file.to_string_lossy()))?;
        let mut field = |name: &str, text: &str| output.line(&format!("  {name:<9} {text}"));
        if let Ok(plugin) = &self.plugin {
            let description = &plugin.description;
            let worker_type = &description.worker_type;
            let path = equipment.http_path(worker_type, plugin);
            let work = match (plugin.takes_jobs(), path) {
                (true, Some(path)) => format!("takes jobs, answers HTTP under {path}"),
                (false, Some(path)) => format!("answers HTTP under {path}"),
                _ => "takes jobs".to_owned(),
            };
            field("contract", &format!("warren:worker@0.1.0, {work}"))?;
            field("type", worker_type.as_str())?;
            let summary = clean(&description.summary);
            field(
                "version",
                &format!("{}  {summary}", clean(&description.version)),
            )?;
            field("reads", description.accepts.content_type())?;
        }
        if let Some(digest) = &self.digest {
            field("sha256", &digest.to_string())?;
        }
        let size = format!("{} bytes", self.size_bytes);
        match &self.plugin {
            Ok(plugin) => field(
                "size",
                &format!("{size}, compiled in {} ms", plugin.compile_time.as_millis()),
            )?,
            Err(_) => field("size", &size)?,
        }
        for (n, need) in needs.iter().enumerate() {
            let standing = match &need.standing {
                Standing::Granted => "granted".to_owned(),
                Standing::Refusing(remedy) => format!("each use is refused; {remedy}"),
                Standing::Missing(remedy) => format!("NOT GRANTED; {remedy}"),
            };
            let name = if n == 0 { "imports" } else { "" };
            let gives = self.gives(equipment, need);
            let text = format!("{}: {gives} ({standing})", clean(&need.import));
            field(name, &text)?;
        }
        match refusal {
            None => field(
                "verdict",
                "this host would load it, as far as its type and path are free there",
            ),
            Some((step, why)) => field(
                "verdict",
                &format!(
                    "this host would reject it, at the step `{step}`: {}",
                    clean(why)
                ),
            ),
        }
    }

    fn to_json(
        &self,
        equipment: &Equipment,
        needs: &[Need],
        refusal: Option<&(&'static str, String)>,
    ) -> Value {
        let plugin = self.plugin.as_ref().ok();
        let description = plugin.map(|plugin| &plugin.description);
        let imports: Vec<Value> = needs
            .iter()
            .map(|need| {
                let (standing, remedy) = match &need.standing {
                    Standing::Granted => ("granted", None),
                    Standing::Refusing(remedy) => ("refusing", Some(remedy)),
                    Standing::Missing(remedy) => ("missing", Some(remedy)),
                };
                json!({
                    "import": need.import,
                    "gives": self.gives(equipment, need),
                    "standing": standing,
                    "remedy": remedy,
                })
            })
            .collect();
        json!({
            "file": self.file.to_string_lossy(),
            "contract": plugin.map(|_| "warren:worker@0.1.0"),
            "type": description.map(|description| description.worker_type.to_string()),
            "version": description.map(|description| &description.version),
            "summary": description.map(|description| &description.summary),
            "takes_jobs": plugin.map(Plugin::takes_jobs),
            "http_path": plugin.and_then(|plugin| {
                equipment.http_path(&plugin.description.worker_type, plugin)
            }),
            "digest": self.digest.map(|digest| digest.to_string()),
            "size_bytes": self.size_bytes,
            "compile_ms": plugin.map(|plugin| plugin.compile_time.as_millis() as u64),
            "imports": imports,
            "loads": refusal.is_none(),
            "step": refusal.map(|(step, _)| step),
            "error": refusal.map(|(_, why)| why),
        })
    }
}
