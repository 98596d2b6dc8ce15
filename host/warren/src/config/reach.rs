//! What `[workers.TYPE]` says of what a worker may reach: grants, and secrets by reference.
//!
//! Invariant: a secret is never a text of the configuration itself, and what is read from where it
//! is kept shows in no message.

use std::{collections::BTreeMap, fs, ops::RangeInclusive, path::Path, str::FromStr};

use warren_protocol::WorkerType;
use warren_runtime::{DatabaseUrl, RedisUrl, Secret, Trust};

use super::{
    Config, DatabaseSource, Mistake, Place, RedisSource, SecretSource, Sources, WorkerConfig,
    keyvalue::KEYVALUE,
    load::variable,
    read::{Key, Report},
    tree::{Node, Value},
    values::{self, Read, quoted, text},
};

/// More than any key or token has; a larger file is another one than was meant.
const MAX_SECRET_BYTES: u64 = 64 << 10;
/// They are in memory at once.
pub(super) const SQL_ROWS: RangeInclusive<u32> = 1..=1_000_000;
/// An empty table takes a page, and a schema some; SQLite counts pages in 32 bits.
pub(super) const DATABASE: RangeInclusive<u64> = 64 << 10..=1 << 40;
pub(super) const REQUESTS: RangeInclusive<u32> = 1..=1_000_000;
pub(super) const TRANSFER: RangeInclusive<u64> = 1 << 10..=1 << 40;
/// The client's smallest buffer, and what a guest's table of headers may hold.
pub(super) const HEADERS: RangeInclusive<u64> = 8 << 10..=128 << 10;
const ORIGINS_REMEDY: &str = "write a list of scheme, host and port: [\"https://api.example.com\", \
     \"http://10.0.0.7:8080\", \"https://*.example.com\"], or [] for none";
const RANGES_REMEDY: &str = "write a list of addresses with the length of their prefix: \
                             [\"10.0.0.0/8\", \"127.0.0.1/32\", \"fd00::/8\"]";
const SECRET_REMEDY: &str =
    "write where it is kept: { file = \"/run/secrets/api-key\" } or { env = \"API_KEY\" }";
const DATABASE_REMEDY: &str = "write true, false, \"postgres://user@host/database\", or where the \
     URL is kept: { file = \"/run/secrets/database-url\" } or { env = \"DATABASE_URL\" }";

/// Under `[workers.TYPE]`, beside the limits.
pub(super) const REACH: &[Key<WorkerConfig>] = &[
    Key {
        name: "bus",
        set: |worker, node, report| report.put(&mut worker.grants.bus, values::worker_types(node)),
    },
    Key {
        name: "sql",
        set: read_database_key,
    },
    KEYVALUE,
    Key {
        name: "outgoing_http",
        set: |worker, node, report| {
            let origins = list(node, "hosts", ORIGINS_REMEDY, report);
            worker.grants.outgoing_http = Some(origins);
        },
    },
    Key {
        name: "private_addresses",
        set: |worker, node, report| {
            worker.grants.private_addresses = list(node, "addresses", RANGES_REMEDY, report);
        },
    },
    Key {
        name: "outgoing_ca_file",
        set: |worker, node, report| report.put(&mut worker.outgoing_ca_file, values::file(node)),
    },
    Key {
        name: "secrets",
        set: read_secrets,
    },
];

/// A list of what has a form of its own. The texts show in no message: they may be URLs with
/// passwords.
fn list<T: FromStr<Err = &'static str>>(
    node: &Node,
    what: &str,
    remedy: &str,
    report: &mut Report,
) -> Vec<T> {
    let Value::List(nodes) = &node.value else {
        report.mistakes.push(node.mistake(
            format!(
                "a list of {what} is expected, this is {}",
                node.value.kind()
            ),
            remedy,
        ));
        return Vec::new();
    };
    let read = |node| -> Read<T> {
        let parsed = text(node)?.parse();
        parsed.map_err(|error: &str| node.mistake(error, remedy))
    };
    let mut items = Vec::new();
    for node in nodes {
        match read(node) {
            Ok(item) => items.push(item),
            Err(mistake) => report.mistakes.push(mistake),
        }
    }
    items
}

/// Whether the worker has a database, and which. The text shows in no message: it may hold a
/// password.
fn read_database_key(worker: &mut WorkerConfig, node: &Node, report: &mut Report) {
    let mistake = |message: &str| node.mistake(message, DATABASE_REMEDY);
    let source = match &node.value {
        Value::Bool(is_granted) => {
            worker.grants.sql = *is_granted;
            worker.keeps_rows_here = *is_granted;
            Ok(None)
        }
        Value::Text(text) if text.contains("://") => match text.parse() {
            Ok(url) => Ok(Some(DatabaseSource::Url(url))),
            Err(message) => Err(mistake(message)),
        },
        Value::Table(_) => match secret(node) {
            Ok(source) => Ok(Some(DatabaseSource::Kept(source))),
            Err(mistake) => Err(Mistake {
                remedy: DATABASE_REMEDY.to_owned(),
                ..mistake
            }),
        },
        other => Err(mistake(&format!(
            "true, false or the URL of a database is expected, this is {}",
            other.kind()
        ))),
    };
    match source {
        Ok(source) => {
            worker.grants.sql |= source.is_some();
            worker.database = source;
        }
        Err(mistake) => report.mistakes.push(mistake),
    }
}

fn read_secrets(worker: &mut WorkerConfig, node: &Node, report: &mut Report) {
    for entry in report.entries(node) {
        match secret(&entry.node) {
            Ok(source) => {
                worker.secrets.insert(entry.key.clone(), source);
            }
            Err(mistake) => report.mistakes.push(mistake),
        }
    }
}

/// Where a secret is kept, as a table of one key says.
pub(super) fn secret(node: &Node) -> Read<SecretSource> {
    let Value::Table(entries) = &node.value else {
        // Not even its type: whoever has written the secret itself here must not find it in a log.
        return Err(node.mistake("this is not where a secret is kept", SECRET_REMEDY));
    };
    let [entry] = entries.as_slice() else {
        return Err(node.mistake("a secret is kept in one place", SECRET_REMEDY));
    };
    match entry.key.as_str() {
        "file" => values::file(&entry.node)?
            .map(SecretSource::File)
            .ok_or_else(|| node.mistake("the file has no name", SECRET_REMEDY)),
        "env" => match text(&entry.node)? {
            name if !name.is_empty() && !name.contains(['=', '\0', '\n']) => {
                Ok(SecretSource::Variable {
                    name: name.to_owned(),
                    value: None,
                })
            }
            _ => Err(node.mistake("this is not the name of a variable", SECRET_REMEDY)),
        },
        other => Err(node.mistake(
            format!("a secret is not kept in {}", quoted(other)),
            SECRET_REMEDY,
        )),
    }
}

/// Takes the secrets of the environment, and looks whether all others can be read: what is missing
/// is told at the start, and not by the first plugin that needs it. `workers` is where they were
/// written.
pub(super) fn check(config: &mut Config, workers: &Node, sources: &Sources, report: &mut Report) {
    for (worker_type, worker) in &mut config.workers {
        let mut own = Own {
            worker_type,
            workers,
            mistakes: Vec::new(),
        };
        own.check(worker, sources);
        report.mistakes.append(&mut own.mistakes);
        if let Ok(Some(url)) = read_database(worker.database.as_ref())
            && url.is_exposed()
        {
            report.warnings.push(format!(
                "the database of [workers.{worker_type}] is on another machine, and its \
                 certificate is not checked: others may read along; write \
                 ?sslmode=verify-full behind its URL, or do without on a network of your own"
            ));
        }
        let grants = &worker.grants;
        if grants.outgoing_http.is_none()
            && (!grants.private_addresses.is_empty() || worker.outgoing_ca_file.is_some())
        {
            report.warnings.push(format!(
                "[workers.{worker_type}] has private_addresses or outgoing_ca_file, which do \
                 nothing without outgoing_http"
            ));
        }
    }
}

/// The mistakes of one worker.
struct Own<'a> {
    worker_type: &'a WorkerType,
    workers: &'a Node,
    mistakes: Vec<Mistake>,
}

impl Own<'_> {
    fn check(&mut self, worker: &mut WorkerConfig, sources: &Sources) {
        for (name, source) in &mut worker.secrets {
            let path = ["secrets", name];
            if worker.config.contains_key(name) {
                let message = format!("{} is in [config] already", quoted(name));
                self.note(
                    &path,
                    message,
                    "the guest reads both by name: rename one of them",
                );
            }
            if sources.without_secrets {
                continue;
            }
            self.check_secret(&path, source, sources);
        }
        if let Some(RedisSource::Kept(source)) = &mut worker.redis
            && !sources.without_secrets
            && let Some(secret) = self.check_secret(&["keyvalue"], source, sources)
            && let Err(problem) = RedisUrl::of_secret(&secret)
        {
            let message = format!("in {source}: {problem}");
            let remedy = "write redis://user:password@host:6379/0 there, or rediss:// for TLS";
            self.note(&["keyvalue"], message, remedy);
        }
        if let Some(DatabaseSource::Kept(source)) = &mut worker.database
            && !sources.without_secrets
        {
            if let SecretSource::Variable { name, value } = source {
                *value = variable(&sources.environment, name).map(own_secret);
            }
            if let Err(problem) = read_kept_url(source) {
                self.note(&["sql"], problem, DATABASE_REMEDY);
            }
        }
        if let Some(file) = &worker.outgoing_ca_file
            && !sources.without_secrets
            && let Err(problem) = read_authorities(file)
        {
            let remedy = "name a file with the certificates of authorities in PEM";
            self.note(&["outgoing_ca_file"], problem, remedy);
        }
    }

    /// What is kept there, or a note of why it cannot be had.
    fn check_secret(
        &mut self,
        path: &[&str],
        source: &mut SecretSource,
        sources: &Sources,
    ) -> Option<Secret> {
        let remedy = match source {
            SecretSource::File(_) => "let this user read the file, or name another",
            SecretSource::Variable { name, value } => {
                *value = variable(&sources.environment, name).map(own_secret);
                "set it for this process, or name another"
            }
        };
        let read = read_secret_of(source);
        read.map_err(|problem| self.note(path, problem, remedy))
            .ok()
    }

    fn note(&mut self, path: &[&str], message: String, remedy: &str) {
        self.mistakes.push(Mistake {
            place: self.place(path),
            message,
            remedy: remedy.to_owned(),
        });
    }

    /// Where a key of this worker was written, or what is nearest to it.
    fn place(&self, path: &[&str]) -> Place {
        let mut place = &self.workers.place;
        let mut node = self.workers;
        for name in [self.worker_type.as_str()].iter().chain(path) {
            let Value::Table(entries) = &node.value else {
                break;
            };
            let Some(entry) = entries.iter().find(|entry| entry.key == *name) else {
                break;
            };
            (place, node) = (&entry.place, &entry.node);
        }
        place.clone()
    }
}

fn own_secret(value: &str) -> Secret {
    Secret::new(value.to_owned())
}

/// Reads the secrets of a worker as they are now.
///
/// # Errors
/// A text that names the file and shows nothing of what is in it.
pub(crate) fn read_all(
    sources: &BTreeMap<String, SecretSource>,
) -> Result<BTreeMap<String, Secret>, String> {
    let read =
        |(name, source): (&String, &SecretSource)| Ok((name.clone(), read_secret_of(source)?));
    sources.iter().map(read).collect()
}

/// Reads one secret as it is now.
///
/// # Errors
/// As for [`read_all`].
pub(super) fn read_secret_of(source: &SecretSource) -> Result<Secret, String> {
    match source {
        SecretSource::File(file) => read_secret(file),
        SecretSource::Variable { name, value } => value
            .clone()
            .ok_or_else(|| format!("there is no environment variable {}", quoted(name))),
    }
}

/// The address of a worker's database as it is now; `None`: it has one in the host's folder, if any.
///
/// # Errors
/// A text that shows nothing of the address.
pub(crate) fn read_database(
    source: Option<&DatabaseSource>,
) -> Result<Option<DatabaseUrl>, String> {
    match source {
        None => Ok(None),
        Some(DatabaseSource::Url(url)) => Ok(Some(url.clone())),
        Some(DatabaseSource::Kept(source)) => read_kept_url(source).map(Some),
    }
}

fn read_kept_url(source: &SecretSource) -> Result<DatabaseUrl, String> {
    DatabaseUrl::from_secret(&read_secret_of(source)?).map_err(|problem| match source {
        SecretSource::File(file) => format!("{}: {problem}", file.display()),
        SecretSource::Variable { name, .. } => format!("{}: {problem}", quoted(name)),
    })
}

/// Reads the authorities of a worker as they are now.
///
/// # Errors
/// A text that names the file.
pub(crate) fn read_authorities(file: &Path) -> Result<Trust, String> {
    let pem = fs::read(file).map_err(|error| unreadable(file, &error))?;
    Trust::with_authorities(&pem).map_err(|error| format!("{} {error}", file.display()))
}

/// What is in a file, less the line end that editors put there.
fn read_secret(file: &Path) -> Result<Secret, String> {
    let unreadable = |error| unreadable(file, &error);
    let problem = |what: &str| format!("{} {what}", file.display());
    if fs::metadata(file).map_err(unreadable)?.len() > MAX_SECRET_BYTES {
        return Err(problem("is larger than 64 KiB, too large for a secret"));
    }
    let content = fs::read(file).map_err(unreadable)?;
    let content = String::from_utf8(content).map_err(|_| problem("is not text"))?;
    let line_end = content.strip_suffix('\n');
    let value = line_end.map_or(content.as_str(), |line| {
        line.strip_suffix('\r').unwrap_or(line)
    });
    if value.is_empty() {
        return Err(problem("is empty"));
    }
    Ok(own_secret(value))
}

fn unreadable(file: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be read: {error}", file.display())
}
