//! What a configuration means, written as a configuration: for `warren run --check`.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use warren_bus::BrokerFiles;
use warren_runtime::Grants;

use super::{
    Broker, Config, DatabaseSource, Limits, Log, LogFormat, Peers, RedisSource, Reuse,
    SecretSource, Source, WorkerConfig,
    values::{shown_duration, shown_size},
};

impl fmt::Display for Config {
    /// TOML with every key, and no secrets: the password of a broker and what workers find in their
    /// `config` are `***`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Taken apart so that a new field cannot be forgotten.
        let Self {
            broker,
            broker_files,
            plugins,
            data_dir,
            keep_versions,
            instances,
            compile_cache_bytes,
            compiler,
            http,
            admin,
            encoding,
            call_timeout,
            shutdown_grace,
            drain_timeout,
            consumer_timeout,
            keepalive,
            peers:
                Peers {
                    enabled,
                    expose,
                    request_field,
                },
            log:
                Log {
                    level,
                    format,
                    system_manager,
                    worker,
                },
            limits,
            workers,
            source,
            warnings,
        } = self;
        match source {
            Source::Defaults => writeln!(f, "# no configuration file")?,
            Source::File(path) => writeln!(f, "# from {}", path.display())?,
        }
        for warning in warnings {
            writeln!(f, "# warning: {warning}")?;
        }
        match broker {
            Broker::Embedded => writeln!(f, "broker = \"embedded\"")?,
            Broker::RabbitMq(urls) => {
                let urls: Vec<_> = urls.iter().map(|url| quoted(&url.to_string())).collect();
                writeln!(f, "broker = [{}]", urls.join(", "))?;
            }
        }
        let file = |path: &Option<PathBuf>| {
            let path = path.as_deref().unwrap_or(Path::new(""));
            quoted(&path.to_string_lossy())
        };
        let BrokerFiles {
            password,
            ca,
            certificate,
            key,
        } = broker_files;
        writeln!(f, "broker_password_file = {}", file(password))?;
        writeln!(f, "plugins = {}", quoted(&plugins.to_string_lossy()))?;
        writeln!(f, "data_dir = {}", quoted(&data_dir.to_string_lossy()))?;
        writeln!(f, "keep_versions = {keep_versions}")?;
        writeln!(f, "instances = {instances}")?;
        writeln!(f, "compile_cache = \"{}\"", shown_size(compile_cache_bytes))?;
        let memory = shown_size(&compiler.memory_bytes);
        writeln!(f, "compile_memory = \"{memory}\"")?;
        let timeout = shown_duration(&compiler.timeout);
        writeln!(f, "compile_timeout = \"{timeout}\"")?;
        writeln!(f, "http = \"{http}\"")?;
        writeln!(f, "admin = \"{admin}\"")?;
        writeln!(
            f,
            "encoding = \"{}\"",
            encoding.to_string().to_ascii_lowercase()
        )?;
        writeln!(f, "call_timeout = \"{}\"", shown_duration(call_timeout))?;
        writeln!(f, "shutdown_grace = \"{}\"", shown_duration(shutdown_grace))?;
        writeln!(f, "drain_timeout = \"{}\"", shown_duration(drain_timeout))?;
        writeln!(
            f,
            "consumer_timeout = \"{}\"",
            shown_duration(consumer_timeout)
        )?;
        writeln!(f, "keepalive = \"{}\"", shown_duration(keepalive))?;
        writeln!(f, "\n[peers]\nenabled = {enabled}")?;
        match expose {
            None => writeln!(f, "expose = \"*\"")?,
            Some(types) => {
                let types: Vec<_> = types.iter().map(|ty| quoted(ty.as_str())).collect();
                writeln!(f, "expose = [{}]", types.join(", "))?;
            }
        }
        writeln!(f, "request_field = {}", quoted(request_field))?;
        writeln!(f, "\n[broker_tls]\nca_file = {}", file(ca))?;
        writeln!(f, "cert_file = {}", file(certificate))?;
        writeln!(f, "key_file = {}", file(key))?;
        writeln!(
            f,
            "\n[log]\nlevel = {}\nformat = \"{format}\"",
            quoted(level)
        )?;
        writeln!(f, "system_manager = {system_manager}\nworker = {worker}")?;
        write!(f, "\n[limits]\n{limits}")?;
        for (worker_type, worker) in workers {
            write!(
                f,
                "\n[workers.{}]\n{}",
                quoted(worker_type.as_str()),
                worker.limits
            )?;
            if let Some(path) = &worker.http_path {
                writeln!(f, "http_path = {}", quoted(path))?;
            }
            if let Some(file) = &worker.plugin {
                writeln!(f, "plugin = {}", quoted(file))?;
            }
            if let Some(digest) = &worker.sha256 {
                writeln!(f, "sha256 = \"{digest}\"")?;
            }
            if let Some(reuse) = &worker.reuse {
                write!(f, "{reuse}")?;
            }
            write_reach(f, worker)?;
            for key in worker.config.keys() {
                writeln!(f, "config.{} = \"***\"", quoted(key))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            memory_bytes,
            deadline,
            cpu,
            host_calls,
            concurrency,
            attempts,
            retry_base,
            retry_cap,
            breaker,
            payload_bytes,
            sends,
            log_bytes,
            tables,
            sql_rows,
            statement_timeout,
            database_bytes,
            http_connections,
            http_requests,
            http_transfer_bytes,
            http_header_bytes,
        } = self;
        writeln!(f, "memory = \"{}\"", shown_size(memory_bytes))?;
        writeln!(f, "deadline = \"{}\"", shown_duration(deadline))?;
        writeln!(f, "cpu = \"{}\"", shown_duration(cpu))?;
        writeln!(f, "host_calls = {host_calls}")?;
        writeln!(f, "concurrency = {concurrency}")?;
        writeln!(f, "attempts = {attempts}")?;
        writeln!(f, "retry_base = \"{}\"", shown_duration(retry_base))?;
        writeln!(f, "retry_cap = \"{}\"", shown_duration(retry_cap))?;
        writeln!(f, "breaker = {breaker}")?;
        writeln!(f, "payload = \"{}\"", shown_size(payload_bytes))?;
        writeln!(f, "sends = {sends}")?;
        writeln!(f, "log = \"{}\"", shown_size(log_bytes))?;
        writeln!(f, "tables = {tables}")?;
        writeln!(f, "sql_rows = {sql_rows}")?;
        let timeout = shown_duration(statement_timeout);
        writeln!(f, "statement_timeout = \"{timeout}\"")?;
        writeln!(f, "database_size = \"{}\"", shown_size(database_bytes))?;
        writeln!(f, "http_connections = {http_connections}")?;
        writeln!(f, "http_requests = {http_requests}")?;
        let transfer = shown_size(http_transfer_bytes);
        writeln!(f, "http_transfer = \"{transfer}\"")?;
        writeln!(f, "http_headers = \"{}\"", shown_size(http_header_bytes))
    }
}

impl fmt::Display for Reuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            calls,
            memory_bytes,
            age,
        } = self;
        writeln!(f, "reuse.calls = {calls}")?;
        if let Some(bytes) = memory_bytes {
            writeln!(f, "reuse.memory = \"{}\"", shown_size(bytes))?;
        }
        writeln!(f, "reuse.age = \"{}\"", shown_duration(age))
    }
}

/// What a worker may reach; of its secrets, where they are kept.
fn write_reach(f: &mut fmt::Formatter<'_>, worker: &WorkerConfig) -> fmt::Result {
    let list = |texts: Vec<String>| {
        let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
        format!("[{}]", texts.join(", "))
    };
    let Grants {
        bus,
        sql,
        keyvalue,
        outgoing_http,
        private_addresses,
    } = &worker.grants;
    match bus {
        None => writeln!(f, "bus = \"*\"")?,
        Some(types) => {
            let types = types.iter().map(ToString::to_string).collect();
            writeln!(f, "bus = {}", list(types))?;
        }
    }
    match &worker.database {
        None => writeln!(f, "{}sql = {sql}", unless(worker.keeps_rows_here || !sql))?,
        Some(DatabaseSource::Url(url)) => writeln!(f, "sql = {}", quoted(&url.to_string()))?,
        Some(DatabaseSource::Kept(source)) => writeln!(f, "sql = {}", kept(source))?,
    }
    match &worker.redis {
        None => writeln!(
            f,
            "{}keyvalue = {keyvalue}",
            unless(worker.keeps_values_here || !keyvalue)
        )?,
        Some(RedisSource::Written(url)) => {
            writeln!(f, "keyvalue = {}", quoted(&url.to_string()))?;
        }
        Some(RedisSource::Kept(source)) => writeln!(f, "keyvalue = {}", kept(source))?,
    }
    if let Some(origins) = outgoing_http {
        let origins = origins.iter().map(ToString::to_string).collect();
        writeln!(f, "outgoing_http = {}", list(origins))?;
    }
    if !private_addresses.is_empty() {
        let ranges = private_addresses.iter().map(ToString::to_string).collect();
        writeln!(f, "private_addresses = {}", list(ranges))?;
    }
    if let Some(file) = &worker.outgoing_ca_file {
        writeln!(f, "outgoing_ca_file = {}", quoted(&file.to_string_lossy()))?;
    }
    for (name, source) in &worker.secrets {
        writeln!(f, "secrets.{} = {}", quoted(name), kept(source))?;
    }
    Ok(())
}

/// What is so, but was not written, stands behind this: to write it would mean more.
fn unless(is_written: bool) -> &'static str {
    if is_written { "" } else { "# " }
}

/// Where a secret is kept.
fn kept(source: &SecretSource) -> String {
    match source {
        SecretSource::File(file) => format!("{{ file = {} }}", quoted(&file.to_string_lossy())),
        SecretSource::Variable { name, .. } => format!("{{ env = {} }}", quoted(name)),
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// A text of TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
