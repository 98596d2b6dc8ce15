//! Which source counts, and where files are looked for.

use super::*;

#[test]
fn the_command_line_beats_the_environment_which_beats_the_file() {
    let file = || {
        Some((
            "w.toml".into(),
            "http = \"1.1.1.1:1\"\nplugins = \"file\"".to_owned(),
        ))
    };
    let environment = [("WARREN_HTTP", "2.2.2.2:2")];
    let option = [("--http", "http", "3.3.3.3:3")];
    let read = |sources| merge(file(), &sources, Report::default()).unwrap();
    assert_eq!(read(with(&[], &[])).http.to_string(), "1.1.1.1:1");
    assert_eq!(read(with(&environment, &[])).http.to_string(), "2.2.2.2:2");
    let all = read(with(&environment, &option));
    assert_eq!(
        (all.http.to_string().as_str(), all.plugins),
        ("3.3.3.3:3", PathBuf::from("file"))
    );
}

#[test]
fn every_variable_sets_its_key() {
    let environment = [
        ("WARREN_BROKER", "amqp://u:a,b@h, amqps://i"),
        ("WARREN_BROKER_PASSWORD_FILE", "password"),
        ("WARREN_PLUGINS", "p"),
        ("WARREN_DATA_DIR", "d"),
        ("WARREN_KEEP_VERSIONS", "7"),
        ("WARREN_INSTANCES", "12"),
        ("WARREN_COMPILE_CACHE", "2GiB"),
        ("WARREN_COMPILE_MEMORY", "1GiB"),
        ("WARREN_COMPILE_TIMEOUT", "9s"),
        ("WARREN_HTTP", "127.0.0.1:1"),
        ("WARREN_ADMIN", "127.0.0.1:2"),
        ("WARREN_ENCODING", "BSON"),
        ("WARREN_CALL_TIMEOUT", "1s"),
        ("WARREN_SHUTDOWN_GRACE", "2s"),
        ("WARREN_DRAIN_TIMEOUT", "3s"),
        ("WARREN_CONSUMER_TIMEOUT", "9m"),
        ("WARREN_KEEPALIVE", "4s"),
        ("WARREN_PEERS_ENABLED", "no"),
        ("WARREN_PEERS_EXPOSE", "WA, WB"),
        ("WARREN_PEERS_REQUEST_FIELD", "request"),
        ("WARREN_BROKER_TLS_CA_FILE", "ca"),
        ("WARREN_BROKER_TLS_CERT_FILE", "cert"),
        ("WARREN_BROKER_TLS_KEY_FILE", "key"),
        ("WARREN_LOG", "warn"),
        ("WARREN_LOG_FORMAT", "text"),
        ("WARREN_LOG_SYSTEM_MANAGER", "0"),
        ("WARREN_LOG_WORKER", "False"),
        ("WARREN_LIMITS_MEMORY", "1MiB"),
        ("WARREN_LIMITS_DEADLINE", "5s"),
        ("WARREN_LIMITS_CPU", "12s"),
        ("WARREN_LIMITS_HOST_CALLS", "13"),
        ("WARREN_LIMITS_CONCURRENCY", "6"),
        ("WARREN_LIMITS_ATTEMPTS", "7"),
        ("WARREN_LIMITS_RETRY_BASE", "8s"),
        ("WARREN_LIMITS_RETRY_CAP", "10s"),
        ("WARREN_LIMITS_BREAKER", "11"),
        ("WARREN_LIMITS_PAYLOAD", "2048"),
        ("WARREN_LIMITS_SENDS", "14"),
        ("WARREN_LIMITS_LOG", "15KiB"),
        ("WARREN_LIMITS_TABLES", "16"),
        ("WARREN_LIMITS_SQL_ROWS", "12"),
        ("WARREN_LIMITS_STATEMENT_TIMEOUT", "13s"),
        ("WARREN_LIMITS_DATABASE_SIZE", "14MiB"),
        ("WARREN_LIMITS_HTTP_CONNECTIONS", "15"),
        ("WARREN_LIMITS_HTTP_REQUESTS", "16"),
        ("WARREN_LIMITS_HTTP_TRANSFER", "17MiB"),
        ("WARREN_LIMITS_HTTP_HEADERS", "18KiB"),
    ];
    let tested: Vec<_> = environment.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        tested,
        VARIABLES.iter().map(|(name, _)| *name).collect::<Vec<_>>()
    );
    assert_eq!(
        VARIABLES
            .iter()
            .map(|(_, key)| (*key).to_owned())
            .collect::<Vec<_>>(),
        keys::paths()
    );

    // Files are looked at for RabbitMQ only.
    let (files, others): (Vec<_>, Vec<_>) = environment
        .into_iter()
        .partition(|(name, _)| name.ends_with("_FILE"));
    let config = merge(None, &with(&files, &[]), Report::default()).unwrap();
    let file = |name: &str| Some(PathBuf::from(name));
    let expected = BrokerFiles {
        password: file("password"),
        ca: file("ca"),
        certificate: file("cert"),
        key: file("key"),
    };
    assert_eq!(config.broker_files, expected);

    let config = merge(None, &with(&others, &[]), Report::default()).unwrap();
    assert_eq!(urls(&config.broker), ["amqp://u:a,b@h", "amqps://i"]);
    assert_eq!((config.plugins, config.data_dir), ("p".into(), "d".into()));
    assert_eq!(config.keep_versions, 7);
    assert_eq!(config.instances, 12);
    assert_eq!(config.compile_cache_bytes, 2 << 30);
    assert_eq!(config.compiler.memory_bytes, 1 << 30);
    assert_eq!(config.compiler.timeout, Duration::from_secs(9));
    assert_eq!((config.http.port(), config.admin.port()), (1, 2));
    assert_eq!(config.encoding, Encoding::Bson);
    let seconds = |duration: Duration| duration.as_secs();
    assert_eq!(seconds(config.call_timeout), 1);
    assert_eq!(
        (
            seconds(config.shutdown_grace),
            seconds(config.drain_timeout)
        ),
        (2, 3)
    );
    assert_eq!(seconds(config.keepalive), 4);
    let expected = Peers {
        enabled: false,
        expose: Some(["WA", "WB"].map(|ty| WorkerType::new(ty).unwrap()).to_vec()),
        request_field: "request".to_owned(),
    };
    assert_eq!(config.peers, expected);
    assert_eq!(
        (config.log.level.as_str(), config.log.format),
        ("warn", LogFormat::Text)
    );
    assert!(!config.log.system_manager && !config.log.worker);
    let limits = config.limits;
    assert_eq!((limits.memory_bytes, limits.payload_bytes), (1 << 20, 2048));
    assert_eq!(seconds(config.consumer_timeout), 540);
    assert_eq!((seconds(limits.retry_cap), limits.breaker), (10, 11));
    assert_eq!((limits.concurrency, limits.attempts), (6, 7));
    assert_eq!(
        (seconds(limits.deadline), seconds(limits.retry_base)),
        (5, 8)
    );
    assert_eq!((seconds(limits.cpu), limits.host_calls), (12, 13));
    assert_eq!((limits.sends, limits.tables), (14, 16));
    assert_eq!(limits.log_bytes, 15 << 10);
    assert_eq!(
        (limits.sql_rows, seconds(limits.statement_timeout)),
        (12, 13)
    );
    assert_eq!(limits.database_bytes, 14 << 20);
    assert_eq!((limits.http_connections, limits.http_requests), (15, 16));
    assert_eq!(limits.http_transfer_bytes, 17 << 20);
    assert_eq!(limits.http_header_bytes, 18 << 10);
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn broker_url_counts_where_warren_broker_is_not_set() {
    let broker = |environment: &[(&str, &str)]| {
        let config = merge(None, &with(environment, &[]), Report::default()).unwrap();
        urls(&config.broker).join(" ")
    };
    assert_eq!(broker(&[("BROKER_URL", "amqp://a")]), "amqp://a");
    assert_eq!(
        broker(&[("BROKER_URL", "amqp://a"), ("WARREN_BROKER", "amqp://b")]),
        "amqp://b"
    );
    assert_eq!(
        broker(&[("BROKER_URL", "redis://a"), ("WARREN_BROKER", "amqp://b")]),
        "amqp://b"
    );
    assert_eq!(
        broker(&[("BROKER_URL", "amqp://a"), ("WARREN_BROKER", "")]),
        "amqp://a"
    );
    assert_eq!(
        broker(&[("BROKER_URL", "amqp://a"), ("WARREN_BROKER", "embedded")]),
        "embedded"
    );
}

#[test]
fn foreign_variables_are_left_alone_and_misspelled_ones_warned_of() {
    let environment = [
        ("WARREN_SERVICE_HOST", "10.0.0.1"),
        ("WARREN_PORT", "tcp://x"),
        ("WARREN_BROKR", "amqp://u:s3cret@h"),
    ];
    let config = merge(None, &with(&environment, &[]), Report::default()).unwrap();
    assert_eq!(
        config.warnings,
        [
            "environment variable WARREN_BROKR is not known and does nothing; did you mean WARREN_BROKER?"
        ]
    );
}

#[test]
fn a_named_file_must_be_there_and_the_default_one_need_not() {
    let folder = tempfile::tempdir().unwrap();
    let (default, named) = (
        folder.path().join("default.toml"),
        folder.path().join("named.toml"),
    );
    let find = |sources: &Sources| find_file(sources, &default);

    assert_eq!(find(&Sources::default()), Ok(None));
    let by_option = Sources {
        file: Some(named.clone()),
        ..Sources::default()
    };
    assert_eq!(
        find(&by_option).unwrap_err().place.to_string(),
        "option --config"
    );
    let by_variable = with(&[("WARREN_CONFIG", named.to_str().unwrap())], &[]);
    let place = find(&by_variable).unwrap_err().place.to_string();
    assert_eq!(place, "environment variable WARREN_CONFIG");

    std::fs::write(&default, "# default").unwrap();
    std::fs::write(&named, "\u{feff}# named").unwrap();
    assert_eq!(
        find(&Sources::default()),
        Ok(Some((default.clone(), "# default".to_owned())))
    );
    assert_eq!(
        find(&by_option),
        Ok(Some((named.clone(), "# named".to_owned())))
    );
    assert_eq!(find(&by_variable), Ok(Some((named, "# named".to_owned()))));
}

#[test]
fn a_missing_file_does_not_hide_the_other_mistakes() {
    let mut sources = with(&[("WARREN_HTTP", "x")], &[]);
    sources.file = Some("no/such/file.toml".into());
    let mistakes = shown(load(&sources));
    assert!(
        mistakes[0].starts_with("option --config: cannot read no/such/file.toml: "),
        "{mistakes:?}"
    );
    assert_eq!(
        mistakes[1],
        "environment variable WARREN_HTTP: `x` is not an IP address and a port"
    );
}
