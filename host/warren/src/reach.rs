//! Admits a plugin: compares what it imports with what the operator grants to its type, and reads
//! what its version is given.

use std::{fmt, path::Path};

use warren_protocol::WorkerType;
use warren_runtime::{Plugin, Reach, Secrets, Standing, needs};

use crate::{
    config::{self, WorkerConfig},
    equip::Equipment,
    registry::file_name,
};

/// Why a plugin may not work, with what the operator can write to change that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotGranted(String);

impl fmt::Display for NotGranted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grant: {}", self.0)
    }
}

impl Equipment {
    /// The plugin with what its type is granted. Files are read anew for each version.
    pub(crate) fn grant(&self, plugin: Plugin, file: &Path) -> Result<Plugin, NotGranted> {
        let worker_type = &plugin.description.worker_type;
        let own = self.config.workers.get(worker_type);
        let own = own.map_or_else(WorkerConfig::default, Clone::clone);
        let reach = reach(worker_type, own)?;
        // Interfaces of one package may lack the same: it is said once.
        let mut missing: Vec<(String, String)> = Vec::new();
        for need in needs(plugin.imports(), &reach.grants, worker_type) {
            let Standing::Missing(remedy) = need.standing else {
                continue;
            };
            let remedy = format!("({}); {remedy}", need.gives);
            match missing.iter_mut().find(|(_, other)| *other == remedy) {
                Some((imports, _)) => *imports = format!("{imports}, {}", need.import),
                None => missing.push((need.import, remedy)),
            }
        }
        let missing = missing.into_iter();
        let missing: Vec<String> = missing
            .map(|(imports, remedy)| format!("{imports} {remedy}"))
            .collect();
        if missing.is_empty() {
            return Ok(plugin.granted(reach));
        }
        Err(NotGranted(format!(
            "{} imports what worker type {worker_type} is not granted: {}",
            file_name(file),
            missing.join("; and ")
        )))
    }
}

impl Equipment {
    /// Whether the plugin may be what it says that it is: its type may be promised to one file, or
    /// to one build.
    ///
    /// # Errors
    /// A text that names both.
    pub(crate) fn check_pin(&self, plugin: &Plugin, name: &str) -> Result<(), String> {
        let worker_type = &plugin.description.worker_type;
        let Some(own) = self.config.workers.get(worker_type) else {
            return Ok(());
        };
        if let Some(pinned) = &own.plugin
            && *pinned != name
        {
            return Err(format!(
                "worker type {worker_type} belongs to {pinned} (`plugin` in \
                 [workers.{worker_type}]), and {name} says that it is {worker_type}: remove \
                 {name}, or name it there"
            ));
        }
        if let Some(pinned) = &own.sha256
            && *pinned != plugin.digest
        {
            return Err(format!(
                "{name} has the SHA-256 {}, and worker type {worker_type} may only be {pinned} \
                 (`sha256` in [workers.{worker_type}]): deploy that build, or write this digest \
                 there",
                plugin.digest
            ));
        }
        Ok(())
    }
}

fn reach(worker_type: &WorkerType, own: WorkerConfig) -> Result<Reach, NotGranted> {
    let unread =
        |what: &str, problem| NotGranted(format!("{what} of [workers.{worker_type}]: {problem}"));
    let secrets =
        config::read_secrets(&own.secrets).map_err(|problem| unread("the secrets", problem))?;
    let redis = own.redis.as_ref().map(config::read_redis).transpose();
    let redis = redis.map_err(|problem| unread("keyvalue", problem))?;
    let trust = own.outgoing_ca_file.as_deref();
    let trust = trust
        .map(config::read_authorities)
        .transpose()
        .map_err(|problem| unread("outgoing_ca_file", problem))?;
    let database = config::read_database(own.database.as_ref())
        .map_err(|problem| unread("the database (`sql`)", problem))?;
    Ok(Reach {
        grants: own.grants,
        database,
        redis,
        secrets: Secrets::new(secrets),
        trust,
    })
}
