//! From the sources to one [`Config`]: configuration files are found and read here, and nowhere else.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Config, DEFAULT_FILE, Mistake, Mistakes, Place, Source, Sources, broker_access, from_json,
    from_toml,
    keys::{self, Draft, MICROSERVICES_JS},
    reach,
    read::{Report, closest},
    text::Text,
    tree::Node,
};

/// The variables, each with the key that it sets.
///
/// An unknown `WARREN_…` is no mistake: Kubernetes, for one, gives every process the address of a
/// service `warren` as `WARREN_SERVICE_HOST`. One that looks misspelled is warned of.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("WARREN_BROKER", "broker"),
    ("WARREN_BROKER_PASSWORD_FILE", "broker_password_file"),
    ("WARREN_PLUGINS", "plugins"),
    ("WARREN_DATA_DIR", "data_dir"),
    ("WARREN_KEEP_VERSIONS", "keep_versions"),
    ("WARREN_INSTANCES", "instances"),
    ("WARREN_COMPILE_CACHE", "compile_cache"),
    ("WARREN_COMPILE_MEMORY", "compile_memory"),
    ("WARREN_COMPILE_TIMEOUT", "compile_timeout"),
    ("WARREN_HTTP", "http"),
    ("WARREN_ADMIN", "admin"),
    ("WARREN_ENCODING", "encoding"),
    ("WARREN_CALL_TIMEOUT", "call_timeout"),
    ("WARREN_SHUTDOWN_GRACE", "shutdown_grace"),
    ("WARREN_DRAIN_TIMEOUT", "drain_timeout"),
    ("WARREN_CONSUMER_TIMEOUT", "consumer_timeout"),
    ("WARREN_KEEPALIVE", "keepalive"),
    ("WARREN_PEERS_ENABLED", "peers.enabled"),
    ("WARREN_PEERS_EXPOSE", "peers.expose"),
    ("WARREN_PEERS_REQUEST_FIELD", "peers.request_field"),
    ("WARREN_BROKER_TLS_CA_FILE", "broker_tls.ca_file"),
    ("WARREN_BROKER_TLS_CERT_FILE", "broker_tls.cert_file"),
    ("WARREN_BROKER_TLS_KEY_FILE", "broker_tls.key_file"),
    ("WARREN_LOG", "log.level"),
    ("WARREN_LOG_FORMAT", "log.format"),
    ("WARREN_LOG_SYSTEM_MANAGER", "log.system_manager"),
    ("WARREN_LOG_WORKER", "log.worker"),
    ("WARREN_LIMITS_MEMORY", "limits.memory"),
    ("WARREN_LIMITS_DEADLINE", "limits.deadline"),
    ("WARREN_LIMITS_CPU", "limits.cpu"),
    ("WARREN_LIMITS_HOST_CALLS", "limits.host_calls"),
    ("WARREN_LIMITS_CONCURRENCY", "limits.concurrency"),
    ("WARREN_LIMITS_ATTEMPTS", "limits.attempts"),
    ("WARREN_LIMITS_RETRY_BASE", "limits.retry_base"),
    ("WARREN_LIMITS_RETRY_CAP", "limits.retry_cap"),
    ("WARREN_LIMITS_BREAKER", "limits.breaker"),
    ("WARREN_LIMITS_PAYLOAD", "limits.payload"),
    ("WARREN_LIMITS_SENDS", "limits.sends"),
    ("WARREN_LIMITS_LOG", "limits.log"),
    ("WARREN_LIMITS_TABLES", "limits.tables"),
    ("WARREN_LIMITS_SQL_ROWS", "limits.sql_rows"),
    (
        "WARREN_LIMITS_STATEMENT_TIMEOUT",
        "limits.statement_timeout",
    ),
    ("WARREN_LIMITS_DATABASE_SIZE", "limits.database_size"),
    ("WARREN_LIMITS_HTTP_CONNECTIONS", "limits.http_connections"),
    ("WARREN_LIMITS_HTTP_REQUESTS", "limits.http_requests"),
    ("WARREN_LIMITS_HTTP_TRANSFER", "limits.http_transfer"),
    ("WARREN_LIMITS_HTTP_HEADERS", "limits.http_headers"),
];
/// What the container files of MicroServices.js set. Counts where `WARREN_BROKER` is not set.
const BROKER_ALIAS: &str = "BROKER_URL";
/// Names the file, as `--config` does.
const FILE_VARIABLE: &str = "WARREN_CONFIG";

/// Reads the configuration.
///
/// # Errors
/// All mistakes of all sources. The caller shows them and exits with code 64.
pub fn load(sources: &Sources) -> Result<Config, Mistakes> {
    match find_file(sources, Path::new(DEFAULT_FILE)) {
        Ok(file) => merge(file, sources, Report::default()),
        Err(mistake) => {
            let report = Report {
                mistakes: vec![mistake],
                ..Report::default()
            };
            merge(None, sources, report)
        }
    }
}

/// Reads a file that is found already, with its path, and what comes on top of it.
pub(super) fn merge(
    file: Option<(PathBuf, String)>,
    sources: &Sources,
    mut report: Report,
) -> Result<Config, Mistakes> {
    let mut draft = Draft::default();
    if let Some((path, content)) = file {
        read_file(&mut draft, &path, &content, &mut report);
        draft.config.source = Source::File(path);
    }
    if !sources.alone {
        read_environment(&mut draft, &sources.environment, &mut report);
    }
    for given in &sources.options {
        let node = Node::under(given.key, &Place::Option(given.option), &given.text);
        keys::read(&mut draft, &node, &[], &mut report);
    }
    let Draft {
        mut config,
        workers,
    } = draft;
    if let Some(workers) = workers {
        keys::read_workers(&mut config, &workers, &mut report);
        reach::check(&mut config, &workers, sources, &mut report);
    }
    report.mistakes.extend(same_port(&config, &report));
    report.mistakes.extend(longer_than_held(&config, &report));
    broker_access::check(&config, &mut report);

    let Report {
        mistakes,
        warnings,
        places: _,
    } = report;
    if mistakes.is_empty() {
        Ok(Config { warnings, ..config })
    } else {
        Err(Mistakes(mistakes))
    }
}

/// The file and its content. One that is named must be there; the default one need not.
pub(super) fn find_file(
    sources: &Sources,
    default: &Path,
) -> Result<Option<(PathBuf, String)>, Mistake> {
    let named = match (&sources.file, variable(&sources.environment, FILE_VARIABLE)) {
        (None, _) if sources.alone => return Ok(None),
        (Some(path), _) => Some((path.clone(), Place::Option("--config"))),
        (None, Some(path)) => Some((path.into(), Place::Variable(FILE_VARIABLE.to_owned()))),
        (None, None) => None,
    };
    let is_named = named.is_some();
    let (path, place) =
        named.unwrap_or_else(|| (default.to_owned(), Place::File(default.to_owned())));
    match fs::read_to_string(&path) {
        // Some editors put a byte order mark there.
        Ok(content) => {
            let content = content
                .strip_prefix('\u{feff}')
                .map(str::to_owned)
                .unwrap_or(content);
            Ok(Some((path, content)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => Ok(None),
        Err(error) => Err(Mistake {
            place,
            message: format!("cannot read {}: {error}", path.display()),
            remedy:
                "name a file in TOML, or one of MicroServices.js in JSON, that this user may read"
                    .to_owned(),
        }),
    }
}

fn read_file(draft: &mut Draft, path: &Path, content: &str, report: &mut Report) {
    let text = Text { path, content };
    let (parsed, theirs) = if from_json::is_json(&text) {
        // As MicroServices.js reads it: who names no keepalive wants none.
        draft.config.keepalive = Duration::ZERO;
        (from_json::parse(&text), MICROSERVICES_JS)
    } else {
        (from_toml::parse(&text), [].as_slice())
    };
    match parsed {
        Ok(root) => keys::read(draft, &root, theirs, report),
        Err(mistakes) => report.mistakes.extend(mistakes),
    }
}

fn read_environment(
    draft: &mut Draft,
    environment: &BTreeMap<String, String>,
    report: &mut Report,
) {
    let alias = variable(environment, "WARREN_BROKER")
        .is_none()
        .then_some((BROKER_ALIAS, "broker"));
    for (name, key) in alias.iter().chain(VARIABLES) {
        if let Some(text) = variable(environment, name) {
            let node = Node::under(key, &Place::Variable((*name).to_owned()), text);
            keys::read(draft, &node, &[], report);
        }
    }
    let known: Vec<_> = VARIABLES
        .iter()
        .map(|(name, _)| *name)
        .chain([FILE_VARIABLE])
        .collect();
    for name in environment
        .keys()
        .filter(|name| name.starts_with("WARREN_"))
    {
        if let Some(meant) = closest(name, &known).filter(|meant| meant != name) {
            report.warnings.push(format!(
                "environment variable {name} is not known and does nothing; did you mean {meant}?"
            ));
        }
    }
}

/// A variable with a text in it: container files often set what they do not mean to the empty text.
pub(super) fn variable<'a>(
    environment: &'a BTreeMap<String, String>,
    name: &str,
) -> Option<&'a str> {
    environment
        .get(name)
        .map(String::as_str)
        .filter(|text| !text.is_empty())
}

/// A job must end before the broker takes it back.
fn longer_than_held(config: &Config, report: &Report) -> Option<Mistake> {
    let held = config.longest_hold();
    let own = config.workers.iter();
    let mut deadlines = own
        .map(|(worker_type, worker)| (format!("workers.{worker_type}."), worker.limits.deadline))
        .chain([("limits.".to_owned(), config.limits.deadline)]);
    let (table, deadline) = deadlines.find(|(_, deadline)| *deadline > held)?;
    // The defaults fit, and no deadline may be longer than they allow: it was written.
    let place = report.places.get("consumer_timeout")?;
    Some(Mistake {
        place: place.clone(),
        message: format!(
            "{table}deadline is {deadline:?}, and with this consumer_timeout no job may run for \
             longer than {held:?}"
        ),
        remedy: "give the jobs a shorter deadline, or let the broker wait longer and say so here"
            .to_owned(),
    })
}

/// Two listeners cannot share a port of one address.
fn same_port(config: &Config, report: &Report) -> Option<Mistake> {
    let Config { http, admin, .. } = config;
    let overlap =
        http.ip() == admin.ip() || http.ip().is_unspecified() || admin.ip().is_unspecified();
    if http.port() == 0 || http.port() != admin.port() || !overlap {
        return None;
    }
    // The defaults differ, so at least one of the two was written.
    let place = report
        .places
        .get("admin")
        .or_else(|| report.places.get("http"))?;
    Some(Mistake {
        place: place.clone(),
        message: format!("http ({http}) and admin ({admin}) are on the same port"),
        remedy: "give one of them another port".to_owned(),
    })
}
