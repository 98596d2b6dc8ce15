//! Every key there is, with what sets it and what it allows. A new key is one entry here, one field
//! in its struct and one paragraph in `config/warren.toml`.

mod limits;
mod reuse;

use std::{ops::RangeInclusive, time::Duration};

use warren_bus::BrokerFiles;
use warren_protocol::WorkerType;

use super::{
    Config, Limits, Log, Mistake, Peers, WorkerConfig,
    reach::REACH,
    read::{Key, Report, names, set},
    tree::Node,
    values::{self, text},
};

pub(super) use limits::LIMITS;
#[cfg(test)]
pub(super) use reuse::REUSE;

/// The configuration while it is read: what `[workers]` says can only be read when the limits
/// under it have been read from all sources.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) workers: Option<Node>,
}

/// Five minutes less than the broker's consumer timeout (30 minutes from the delivery,
/// RELIABILITY.md §2), at which it takes all unsettled jobs of the channel back.
const LONGEST_DEADLINE: Duration = Duration::from_secs(25 * 60);
/// No wait in this program is meant to be longer; sums of two stay far from overflowing.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
const SHORTEST: Duration = Duration::from_millis(1);
/// Each is a file of the plugin's size.
const VERSIONS: RangeInclusive<u32> = 0..=100;
/// wasmtime sets aside 8 GiB of address space for each, and a process has 128 TiB.
const INSTANCES: RangeInclusive<u32> = 1..=10_000;
const COMPILE_CACHE: RangeInclusive<u64> = 0..=1 << 40;
/// A trivial guest takes half of the least.
const COMPILE_MEMORY: RangeInclusive<u64> = 512 << 20..=1 << 40;
const SECOND: Duration = Duration::from_secs(1);
/// RabbitMQ looks at its deliveries once a minute.
const CONSUMER_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(24 * 60 * 60);

/// The keys outside tables, and the tables.
pub(super) const HOST: &[Key<Draft>] = &[
    Key {
        name: "broker",
        set: read_broker,
    },
    Key {
        name: "broker_password_file",
        set: |draft, node, report| {
            let place = node.place.clone();
            report.places.insert("broker_password_file", place);
            report.put(&mut draft.config.broker_files.password, values::file(node));
        },
    },
    Key {
        name: "plugins",
        set: |draft, node, report| report.put(&mut draft.config.plugins, values::folder(node)),
    },
    Key {
        name: "data_dir",
        set: |draft, node, report| report.put(&mut draft.config.data_dir, values::folder(node)),
    },
    Key {
        name: "keep_versions",
        set: |draft, node, report| {
            report.put(
                &mut draft.config.keep_versions,
                values::number(node, VERSIONS),
            );
        },
    },
    Key {
        name: "instances",
        set: |draft, node, report| {
            report.put(&mut draft.config.instances, values::number(node, INSTANCES));
        },
    },
    Key {
        name: "compile_cache",
        set: |draft, node, report| {
            let value = values::size(node, COMPILE_CACHE);
            report.put(&mut draft.config.compile_cache_bytes, value);
        },
    },
    Key {
        name: "compile_memory",
        set: |draft, node, report| {
            let value = values::size(node, COMPILE_MEMORY);
            report.put(&mut draft.config.compiler.memory_bytes, value);
        },
    },
    Key {
        name: "compile_timeout",
        set: |draft, node, report| {
            let value = values::duration(node, SECOND..=LONGEST_WAIT);
            report.put(&mut draft.config.compiler.timeout, value);
        },
    },
    Key {
        name: "http",
        set: |draft, node, report| {
            report.places.insert("http", node.place.clone());
            report.put(&mut draft.config.http, values::address(node));
        },
    },
    Key {
        name: "admin",
        set: |draft, node, report| {
            report.places.insert("admin", node.place.clone());
            report.put(&mut draft.config.admin, values::address(node));
        },
    },
    Key {
        name: "encoding",
        set: read_encoding,
    },
    Key {
        name: "call_timeout",
        set: |draft, node, report| {
            let value = values::duration(node, SHORTEST..=LONGEST_DEADLINE);
            report.put(&mut draft.config.call_timeout, value);
        },
    },
    Key {
        name: "shutdown_grace",
        set: |draft, node, report| {
            let value = values::duration(node, Duration::ZERO..=LONGEST_WAIT);
            report.put(&mut draft.config.shutdown_grace, value);
        },
    },
    Key {
        name: "drain_timeout",
        set: |draft, node, report| {
            let value = values::duration(node, Duration::ZERO..=LONGEST_WAIT);
            report.put(&mut draft.config.drain_timeout, value);
        },
    },
    Key {
        name: "consumer_timeout",
        set: |draft, node, report| {
            report.places.insert("consumer_timeout", node.place.clone());
            let value = values::duration(node, CONSUMER_TIMEOUT);
            report.put(&mut draft.config.consumer_timeout, value);
        },
    },
    Key {
        name: "keepalive",
        set: |draft, node, report| {
            let value = values::duration(node, Duration::ZERO..=LONGEST_WAIT);
            report.put(&mut draft.config.keepalive, value);
        },
    },
    Key {
        name: "peers",
        set: |draft, node, report| read_peers(&mut draft.config.peers, node, report),
    },
    Key {
        name: "broker_tls",
        set: |draft, node, report| {
            read_broker_tls(&mut draft.config.broker_files, node, report);
        },
    },
    Key {
        name: "log",
        set: |draft, node, report| read_log(&mut draft.config.log, node, report),
    },
    Key {
        name: "limits",
        set: |draft, node, report| read_limits(&mut draft.config.limits, node, report),
    },
    Key {
        name: "workers",
        set: |draft, node, _| draft.workers = Some(node.clone()),
    },
];

/// The keys of a file of MicroServices.js (its `config.json`), beside which ours may stand.
pub(super) const MICROSERVICES_JS: &[Key<Draft>] = &[
    Key {
        name: "broker_url",
        set: read_broker,
    },
    Key {
        name: "keepalive",
        set: |draft, node, report| {
            let value = values::milliseconds(node, Duration::ZERO..=LONGEST_WAIT);
            report.put(&mut draft.config.keepalive, value);
        },
    },
    Key {
        name: "SystemManager_log",
        set: |draft, node, report| {
            report.put(&mut draft.config.log.system_manager, values::truth(node));
        },
    },
    Key {
        name: "Worker_log",
        set: |draft, node, report| report.put(&mut draft.config.log.worker, values::truth(node)),
    },
    Key {
        name: "data_transfer_protocol",
        set: read_encoding,
    },
];

/// Under `[peers]`.
pub(super) const PEERS: &[Key<Peers>] = &[
    Key {
        name: "enabled",
        set: |peers, node, report| report.put(&mut peers.enabled, values::truth(node)),
    },
    Key {
        name: "expose",
        set: |peers, node, report| report.put(&mut peers.expose, values::worker_types(node)),
    },
    Key {
        name: "request_field",
        set: |peers, node, report| {
            report.put(&mut peers.request_field, values::field_name(node));
        },
    },
];

/// Under `[broker_tls]`.
pub(super) const BROKER_TLS: &[Key<BrokerFiles>] = &[
    Key {
        name: "ca_file",
        set: |files, node, report| {
            let place = node.place.clone();
            report.places.insert("broker_tls.ca_file", place);
            report.put(&mut files.ca, values::file(node));
        },
    },
    Key {
        name: "cert_file",
        set: |files, node, report| {
            let place = node.place.clone();
            report.places.insert("broker_tls.cert_file", place);
            report.put(&mut files.certificate, values::file(node));
        },
    },
    Key {
        name: "key_file",
        set: |files, node, report| {
            let place = node.place.clone();
            report.places.insert("broker_tls.key_file", place);
            report.put(&mut files.key, values::file(node));
        },
    },
];

pub(super) const LOG: &[Key<Log>] = &[
    Key {
        name: "level",
        set: |log, node, report| report.put(&mut log.level, values::log_level(node)),
    },
    Key {
        name: "format",
        set: |log, node, report| report.put(&mut log.format, values::log_format(node)),
    },
    Key {
        name: "system_manager",
        set: |log, node, report| report.put(&mut log.system_manager, values::truth(node)),
    },
    Key {
        name: "worker",
        set: |log, node, report| report.put(&mut log.worker, values::truth(node)),
    },
];

/// Under `[workers.TYPE]`, beside the limits.
pub(super) const WORKER: &[Key<WorkerConfig>] = &[
    Key {
        name: "http_path",
        set: |worker, node, report| match values::http_path(node) {
            Ok(path) => worker.http_path = Some(path),
            Err(mistake) => report.mistakes.push(mistake),
        },
    },
    Key {
        name: "plugin",
        set: |worker, node, report| report.put(&mut worker.plugin, values::plugin_name(node)),
    },
    Key {
        name: "sha256",
        set: |worker, node, report| report.put(&mut worker.sha256, values::digest(node)),
    },
    Key {
        name: "config",
        set: read_worker_config,
    },
    Key {
        name: "reuse",
        set: reuse::read,
    },
];

/// Reads a whole file, or one setting of another source. `theirs` are keys that count beside ours.
pub(super) fn read(draft: &mut Draft, root: &Node, theirs: &[Key<Draft>], report: &mut Report) {
    for entry in report.entries(root) {
        if !set(theirs, draft, entry, report) && !set(HOST, draft, entry, report) {
            let known: Vec<_> = names(theirs).chain(names(HOST)).collect();
            report.unknown(entry, &known, &paths());
        }
    }
}

/// Reads `[workers]`, when all that its entries inherit is known.
pub(super) fn read_workers(config: &mut Config, node: &Node, report: &mut Report) {
    for entry in report.entries(node) {
        let worker_type = match WorkerType::new(&entry.key) {
            Ok(worker_type) => worker_type,
            Err(error) => {
                report.mistakes.push(Mistake {
                    place: entry.place.clone(),
                    message: error.to_string(),
                    remedy: "write the type that the plugin says of itself: [workers.WB]"
                        .to_owned(),
                });
                continue;
            }
        };
        let mut worker = WorkerConfig {
            limits: config.limits.clone(),
            ..Default::default()
        };
        read_worker(&mut worker, &entry.node, report);
        if let Some((other, path)) = same_path(config, &worker) {
            report.mistakes.push(Mistake {
                place: entry.place.clone(),
                message: format!("the http_path {path} is that of {other} already"),
                remedy: "give each worker a path of its own".to_owned(),
            });
        }
        config.workers.insert(worker_type, worker);
    }
}

/// Every key with its table: `log.level`. Those of a worker are not among them.
pub(super) fn paths() -> Vec<String> {
    let tables = ["peers", "broker_tls", "log", "limits", "workers"];
    names(HOST)
        .filter(|name| !tables.contains(name))
        .map(str::to_owned)
        .chain(names(PEERS).map(|name| format!("peers.{name}")))
        .chain(names(BROKER_TLS).map(|name| format!("broker_tls.{name}")))
        .chain(names(LOG).map(|name| format!("log.{name}")))
        .chain(names(LIMITS).map(|name| format!("limits.{name}")))
        .collect()
}

fn read_broker(draft: &mut Draft, node: &Node, report: &mut Report) {
    match values::broker(node) {
        Ok(broker) => draft.config.broker = broker,
        Err(mistakes) => report.mistakes.extend(mistakes),
    }
}

fn read_encoding(draft: &mut Draft, node: &Node, report: &mut Report) {
    match values::encoding(node) {
        Ok((encoding, warning)) => {
            draft.config.encoding = encoding;
            report
                .warnings
                .extend(warning.map(|text| format!("{}: {text}", node.place)));
        }
        Err(mistake) => report.mistakes.push(mistake),
    }
}

fn read_peers(peers: &mut Peers, node: &Node, report: &mut Report) {
    for entry in report.entries(node) {
        if !set(PEERS, peers, entry, report) {
            report.unknown(entry, &names(PEERS).collect::<Vec<_>>(), &paths());
        }
    }
}

fn read_broker_tls(files: &mut BrokerFiles, node: &Node, report: &mut Report) {
    for entry in report.entries(node) {
        if !set(BROKER_TLS, files, entry, report) {
            report.unknown(entry, &names(BROKER_TLS).collect::<Vec<_>>(), &paths());
        }
    }
}

fn read_log(log: &mut Log, node: &Node, report: &mut Report) {
    for entry in report.entries(node) {
        if !set(LOG, log, entry, report) {
            report.unknown(entry, &names(LOG).collect::<Vec<_>>(), &paths());
        }
    }
}

fn read_limits(limits: &mut Limits, node: &Node, report: &mut Report) {
    for entry in report.entries(node) {
        if !set(LIMITS, limits, entry, report) {
            report.unknown(entry, &names(LIMITS).collect::<Vec<_>>(), &paths());
        }
    }
}

pub(super) fn read_worker(worker: &mut WorkerConfig, node: &Node, report: &mut Report) {
    for entry in report.entries(node) {
        if !set(LIMITS, &mut worker.limits, entry, report)
            && !set(WORKER, worker, entry, report)
            && !set(REACH, worker, entry, report)
        {
            let known = names(LIMITS).chain(names(WORKER)).chain(names(REACH));
            let known: Vec<_> = known.collect();
            report.unknown(entry, &known, &paths());
        }
    }
}

/// A table of any keys. Its values are not shown in messages: they may be secrets.
fn read_worker_config(worker: &mut WorkerConfig, node: &Node, report: &mut Report) {
    for entry in report.entries(node) {
        match text(&entry.node) {
            Ok(value) => {
                worker.config.insert(entry.key.clone(), value.to_owned());
            }
            Err(mistake) => report.mistakes.push(mistake),
        }
    }
}

fn same_path<'a>(config: &'a Config, worker: &WorkerConfig) -> Option<(&'a WorkerType, String)> {
    let path = worker.http_path.as_deref()?;
    let is_same = |other: &WorkerConfig| {
        other
            .http_path
            .as_deref()
            .map(|other| other.trim_end_matches('/'))
            == Some(path.trim_end_matches('/'))
    };
    let (other, _) = config.workers.iter().find(|(_, other)| is_same(other))?;
    Some((other, path.to_owned()))
}
